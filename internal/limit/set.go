package limit

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
	"weak"
)

const (
	defaultStart    = 64
	defaultMost     = 1024
	defaultHold     = time.Minute
	defaultLimiters = 256
	// maxHold bounds what a destination can ask for before [Config].MaxHold does.
	maxHold = 365 * 24 * time.Hour
)

// Config is what the limiters of a set start from. The zero Config is the defaults.
type Config struct {
	Start    int            // the first limit; 64
	Most     int            // the highest limit that a limiter finds by itself; 1,024
	Max      map[string]int // fixed maxima by "kind" or "kind@destination": see [ParseMax]
	MaxHold  time.Duration  // the longest that a destination may hold permits back; 1 minute
	Limiters int            // how many idle limiters are remembered; 256
}

// Set holds the limiters of one process. The zero Set has the default Config. It is
// safe for concurrent use.
type Set struct {
	cfg Config

	mu    sync.Mutex
	byKey map[key]*entry
	used  uint64 // grows with each use
	kept  int    // entries with a strong pointer
}

type key struct{ kind, destination string }

// entry is a limiter that the set remembers (strong) or has forgotten, but which is
// the one of its key as long as somebody else holds it (known).
type entry struct {
	strong *Limiter
	known  weak.Pointer[Limiter]
	used   uint64
}

// New returns a set of limiters.
func New(cfg Config) *Set { return &Set{cfg: cfg} }

// Limiter returns the limiter of kind and destination: the same one for the same
// pair, as long as it is held, in use, or among the [Config].Limiters asked for last.
// One that is forgotten starts anew. The destination is an address without secrets.
func (s *Set) Limiter(kind, destination string) *Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used++
	k := key{kind, destination}
	e := s.byKey[k]
	if e != nil {
		e.used = s.used
		if e.strong != nil {
			return e.strong
		}
		e.strong = e.known.Value()
	} else {
		if s.byKey == nil {
			s.byKey = make(map[key]*entry)
		}
		e = &entry{used: s.used}
		s.byKey[k] = e
	}
	if e.strong == nil {
		e.strong = s.fresh(kind, destination)
		e.known = weak.Make(e.strong)
	}
	s.kept++
	l := e.strong
	s.forget()
	return l
}

// fresh returns a new limiter of kind and destination.
func (s *Set) fresh(kind, destination string) *Limiter {
	most, ok := s.cfg.Max[kind+"@"+destination]
	if !ok {
		most, ok = s.cfg.Max[kind]
	}
	if !ok {
		most = cmp.Or(max(s.cfg.Most, 0), defaultMost)
	}
	start := cmp.Or(max(s.cfg.Start, 0), defaultStart)
	return newLimiter(kind, destination, start, most, cmp.Or(max(s.cfg.MaxHold, 0), defaultHold))
}

// forget gives up the limiters that were asked for longest ago, if there are too many,
// and once in a while the entries of those that nobody holds.
func (s *Set) forget() {
	keep := cmp.Or(max(s.cfg.Limiters, 0), defaultLimiters)
	for s.kept > keep {
		var oldest *entry
		for _, e := range s.byKey {
			if e.strong != nil && (oldest == nil || e.used < oldest.used) {
				oldest = e
			}
		}
		oldest.strong = nil
		s.kept--
	}
	if len(s.byKey) > 2*keep {
		for k, e := range s.byKey {
			if e.strong == nil && e.known.Value() == nil {
				delete(s.byKey, k)
			}
		}
	}
}

// Stats is the state of a limiter.
type Stats struct {
	Kind        string        `json:"kind"`
	Destination string        `json:"destination"`
	Limit       int           `json:"limit"`
	Max         int           `json:"max"`
	InFlight    int           `json:"in_flight"`
	Waiting     int           `json:"waiting"`
	Completed   uint64        `json:"completed"` // releases with OK
	Pushbacks   uint64        `json:"pushbacks"` // releases with Pushback
	Rate        float64       `json:"rate"`      // completions a second when last measured, at the full limit; 0 if never
	Held        time.Duration `json:"held_ns"`   // for how long no permits are handed out
}

// Stats returns the limiter's state.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{
		Kind: l.kind, Destination: l.destination,
		Limit: l.control.limit, Max: l.control.most, InFlight: l.inFlight, Waiting: l.queue.n,
		Completed: l.completed, Pushbacks: l.pushbacks, Rate: l.control.lastRate,
	}
	if l.held() {
		s.Held = l.heldUntil - l.control.now()
	}
	return s
}

// Stats returns the states of the set's limiters, by kind and destination.
func (s *Set) Stats() []Stats {
	s.mu.Lock()
	var all []*Limiter
	for _, e := range s.byKey {
		if l := e.known.Value(); l != nil {
			all = append(all, l)
		}
	}
	s.mu.Unlock()
	out := make([]Stats, 0, len(all))
	for _, l := range all {
		out = append(out, l.Stats())
	}
	slices.SortFunc(out, func(a, b Stats) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Destination, b.Destination))
	})
	return out
}

type contextKey struct{}

type scope struct {
	set  *Set
	kind string
}

// With returns a context whose handler, of the given kind of job, takes its limiters
// from s.
func With(ctx context.Context, s *Set, kind string) context.Context {
	return context.WithValue(ctx, contextKey{}, scope{s, kind})
}

// Of returns the limiter for destination of the kind and set in ctx. Without a set it
// is a new one with the defaults, which nobody shares: ask once a job, not once a
// request.
func Of(ctx context.Context, destination string) *Limiter {
	if in, ok := ctx.Value(contextKey{}).(scope); ok && in.set != nil {
		return in.set.Limiter(in.kind, destination)
	}
	return new(Set).fresh("job", destination)
}
