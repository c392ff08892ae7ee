package clone

import (
	"context"
	"io"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"myrmidon/object"
)

// Limits bound what each process that works on a run does. 0 is no limit.
type Limits struct {
	// Rate is how many requests a second are begun at the destination, of any kind.
	Rate float64 `json:"rate,omitempty"`
	// Bandwidth is how many bytes a second pass through the process, all streams together:
	// those that are copied, and those that verify reads. What the destination copies by
	// itself is not bound.
	Bandwidth int64 `json:"bandwidth,omitempty"`
}

// running is what this process keeps of a run.
type running struct {
	used     time.Time
	requests *rate.Limiter // nil: no limit
	bytes    *rate.Limiter
	owed     map[string]int64 // requests of planning that failed, told with what succeeds
}

// runs are those that this process works on.
type runs struct {
	mu sync.Mutex
	m  map[string]*running
}

const (
	// keptRuns is from how many on those that were not worked on for idleRun are forgotten:
	// a worker may live for years.
	keptRuns = 64
	idleRun  = 10 * time.Minute
)

// of returns the run's state; s.mu is held.
func (s *runs) of(run string, l Limits) *running {
	now := time.Now()
	r := s.m[run]
	if r == nil {
		if s.m == nil {
			s.m = make(map[string]*running)
		}
		if len(s.m) >= keptRuns {
			maps.DeleteFunc(s.m, func(_ string, r *running) bool { return now.Sub(r.used) > idleRun })
		}
		r = &running{requests: limiter(l.Rate), bytes: limiter(float64(l.Bandwidth))}
		s.m[run] = r
	}
	r.used = now
	return r
}

// limiter returns nil for no limit. What was not used of a tenth of a second may be made
// up for, so that the rate is had although a timer is late.
func limiter(perSecond float64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	burst := int(min(max(perSecond/10, 1), math.MaxInt32))
	l := rate.NewLimiter(rate.Limit(perSecond), burst)
	l.AllowN(time.Now(), burst) // there is nothing to make up for yet
	return l
}

// open returns a ledger for a job or a slice of the plan.
func (s *runs) open(run string, l Limits) *ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of(run, l)
	return &ledger{destination: side{pace: r.requests}, bytes: r.bytes}
}

// owe keeps the requests of a slice that failed.
func (s *runs) owe(run string, l Limits, requests map[string]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of(run, l)
	r.owed = addUp(r.owed, requests)
}

// settle adds what is owed to the requests of a slice that succeeded.
func (s *runs) settle(run string, requests map[string]int64) map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.m[run]; r != nil {
		requests, r.owed = addUp(requests, r.owed), nil
	}
	return requests
}

func addUp(sums, more map[string]int64) map[string]int64 {
	if sums == nil && len(more) > 0 {
		sums = make(map[string]int64, len(more))
	}
	for name, n := range more {
		sums[name] += n
	}
	return sums
}

// ledger counts the requests of a job, or of a slice of the plan, to both sides.
type ledger struct {
	source, destination side
	bytes               *rate.Limiter // of streams; nil: no limit
}

// side is an [object.Account].
type side struct {
	pace *rate.Limiter
	sent [object.Verbs]atomic.Int64
}

func (s *side) Wait(ctx context.Context) error {
	if s.pace == nil {
		return nil
	}
	return s.pace.Wait(ctx)
}

func (s *side) Sent(v object.Verb) { s.sent[v].Add(1) }

// The sides, as [myrmidon.Usage].Requests has them: "source list", "destination copy".
const (
	SourceSide      = "source"
	DestinationSide = "destination"
)

// requests are those so far, nil if there were none.
func (l *ledger) requests() map[string]int64 {
	var out map[string]int64
	for name, s := range map[string]*side{SourceSide: &l.source, DestinationSide: &l.destination} {
		for v := range s.sent {
			if n := s.sent[v].Load(); n > 0 {
				out = addUp(out, map[string]int64{name + " " + object.Verb(v).String(): n})
			}
		}
	}
	return out
}

type ledgerKey struct{}

// booked is a context whose requests are entered into a ledger. It has the contexts of both
// sides ready: those of a job are asked for with each object.
type booked struct {
	context.Context
	l          *ledger
	from, into context.Context
}

// Value implements [context.Context].
func (b *booked) Value(key any) any {
	if key == (ledgerKey{}) {
		return b.l
	}
	return b.Context.Value(key)
}

// with returns a context whose requests are entered into l: see from and into.
func (l *ledger) with(ctx context.Context) context.Context {
	b := &booked{Context: ctx, l: l}
	b.from, b.into = l.from(b), l.into(b)
	return b
}

func (l *ledger) from(ctx context.Context) context.Context {
	return object.WithAccounts(ctx, &l.source, &l.source)
}

func (l *ledger) into(ctx context.Context) context.Context {
	return object.WithAccounts(ctx, &l.destination, &l.source)
}

// from returns the context for requests to the source.
func from(ctx context.Context) context.Context {
	if b, ok := ctx.(*booked); ok {
		return b.from
	}
	if l, ok := ctx.Value(ledgerKey{}).(*ledger); ok {
		return l.from(ctx)
	}
	return ctx
}

// into returns the context for requests to the destination, which may ask the source.
func into(ctx context.Context) context.Context {
	if b, ok := ctx.(*booked); ok {
		return b.into
	}
	if l, ok := ctx.Value(ledgerKey{}).(*ledger); ok {
		return l.into(ctx)
	}
	return ctx
}

// paced returns r, or a reader that keeps to the run's bandwidth.
func paced(ctx context.Context, r io.Reader) io.Reader {
	if l, ok := ctx.Value(ledgerKey{}).(*ledger); ok && l.bytes != nil {
		return &pacedReader{ctx, r, l.bytes}
	}
	return r
}

type pacedReader struct {
	ctx   context.Context // of one reading
	r     io.Reader
	bytes *rate.Limiter
}

func (p *pacedReader) Read(b []byte) (int, error) {
	if most := p.bytes.Burst(); len(b) > most {
		b = b[:most]
	}
	n, err := p.r.Read(b)
	if n > 0 {
		if werr := p.bytes.WaitN(p.ctx, n); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// Meter counts and bounds the requests of ctx to the destination outside of a run, such as
// a command's first look. The function that it returns says what they were: see
// [Spec].Before.
func Meter(ctx context.Context) (within context.Context, requests func() map[string]int64) {
	l := new(ledger)
	return into(l.with(ctx)), l.requests
}
