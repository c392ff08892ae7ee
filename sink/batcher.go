package sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"myrmidon"
)

// BatcherConfig says how records become batches. The zero value is good for most.
type BatcherConfig struct {
	// Records and Bytes bound a batch: the sink's own limits if 0, or where it has none
	// 1,000 records and 1 MiB. Bytes count documents, keys and IDs.
	Records int
	Bytes   int
	// Linger is how long a batch waits to become full. With 0 a batch goes as soon as
	// nothing is in its way, and what is added while it is under way makes up the next.
	Linger time.Duration
	// Memory bounds the bytes of the records that are held, in all: 32 MiB if 0. [Add]
	// waits while there is no room. A record that is larger alone is parked.
	Memory int
	// Parallel is how many batches are under way at once: 2 if 0.
	Parallel int
	// Ordered keeps the order of records of one key, also when some fail: a record is
	// sent only after those before it are settled. Keys are spread over Parallel lanes,
	// and a lane has one batch under way. Where a sink may refuse any record of a batch
	// ([Traits].InOrder), a batch holds one record of each key.
	Ordered bool
	// Attempts is how often a record may fail by itself before it is parked: 10 if 0. An
	// error of a whole batch is the destination's and does not count, nor does a record
	// that was pushed back (myrmidon.RetryAfter).
	Attempts int
	// Backoff is the pause after the first failure: 100 ms if 0. It doubles up to
	// MaxBackoff, 30 s if 0, and half of it is random. Retry-After makes it longer.
	Backoff, MaxBackoff time.Duration
	// Patience is how long nothing may be taken, while there is something to send,
	// before the batcher gives up: for ever if 0.
	Patience time.Duration

	// Acked is called with records that the sink has taken, and Parked with one that it
	// never will, before they count as settled. The records are valid during the call.
	// Calls come from several goroutines at once, and hold up the sending. An error of
	// Parked ends the batcher, since the record would be lost; so does a record to be
	// parked where Parked is nil.
	Acked  func([]Record)
	Parked func(Record, error) error
}

// Batcher sends records to a [Sink] in batches. Its methods may be called from many
// goroutines. See [NewBatcher].
type Batcher struct {
	cfg     BatcherConfig
	sink    Sink
	inOrder bool

	stop    context.CancelFunc // ends the sends that are under way
	senders sync.WaitGroup

	mu      sync.Mutex
	room    sync.Cond // Add waits for memory
	settled sync.Cond // Flush waits for acknowledgements
	lanes   []*lane
	marks   marks
	blocked int       // Adds that wait
	flushTo uint64    // up to this record no batch lingers
	stuck   time.Time // since when nothing was taken; zero if something was
	closing bool
	err     error // ends everything
	chunk   *chunk
	spare   []*chunk // of which nothing is held
	stats   BatcherStats
}

// BatcherStats counts records, from the beginning. Added = Acked + Parked + those held.
type BatcherStats struct {
	Added   uint64 `json:"added"`
	Sent    uint64 `json:"sent"`    // handed to the sink, each once
	Acked   uint64 `json:"acked"`   // taken by the sink
	Failed  uint64 `json:"failed"`  // parked
	Retried uint64 `json:"retried"` // handed to the sink again
	Batches uint64 `json:"batches"`
	Bytes   uint64 `json:"bytes"` // of documents that were acked
	Held    int64  `json:"held"`  // bytes that are held now
	Peak    int64  `json:"peak"`  // and at most
	// LastErrors are the last five failures of sending, the newest last.
	LastErrors []string `json:"last_errors,omitempty"`
}

// overhead is what a record costs beside its bytes: the item, and its mark.
const overhead = 160

// NewBatcher returns a batcher for s, and starts it. Close ends it; s stays open.
func NewBatcher(s Sink, cfg BatcherConfig) *Batcher {
	traits := TraitsOf(s)
	cfg.Records = least(cfg.Records, traits.Records, 1000)
	cfg.Bytes = least(cfg.Bytes, traits.Bytes, 1<<20)
	cfg.Memory = or(cfg.Memory, 32<<20)
	cfg.Parallel = or(cfg.Parallel, 2)
	cfg.Attempts = or(cfg.Attempts, 10)
	cfg.Backoff = or(cfg.Backoff, 100*time.Millisecond)
	cfg.MaxBackoff = or(cfg.MaxBackoff, 30*time.Second)
	ctx, stop := context.WithCancel(context.Background())
	b := &Batcher{cfg: cfg, sink: s, inOrder: traits.InOrder, stop: stop}
	b.room.L, b.settled.L = &b.mu, &b.mu
	lanes, each := 1, cfg.Parallel
	if cfg.Ordered {
		lanes, each = cfg.Parallel, 1
	}
	for range lanes {
		l := &lane{b: b}
		l.wake.L = &b.mu
		b.lanes = append(b.lanes, l)
		for range each {
			b.senders.Go(func() { b.run(ctx, l) })
		}
	}
	return b
}

func or[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// least returns what is asked for within the sink's limit.
func least(asked, limit, otherwise int) int {
	switch {
	case asked <= 0 && limit <= 0:
		return otherwise
	case asked <= 0 || limit > 0 && limit < asked:
		return limit
	}
	return asked
}

// Add hands a record over, and waits while there is no room for it. The record is copied. n
// counts the records that were added, from 1: see [Batcher.Settled]. An error says that the
// record was not added: ctx has ended, or the batcher has.
func (b *Batcher) Add(ctx context.Context, r Record) (n uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	size := int64(len(r.Data)+len(r.ID)+len(r.Key)) + overhead
	refused := Check(r)
	if refused == nil && size > int64(b.cfg.Memory) {
		refused = tooLarge(r, b.cfg.Memory)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if refused != nil {
		size = 0
	}
	for b.err == nil && !b.closing && b.stats.Held > 0 && b.stats.Held+size > int64(b.cfg.Memory) {
		b.blocked++
		b.wakeAll() // nothing lingers while somebody waits
		err := wait(ctx, &b.room)
		b.blocked--
		if err != nil {
			return 0, err
		}
	}
	switch {
	case b.err != nil:
		return 0, b.err
	case b.closing:
		return 0, ErrClosed
	}
	b.stats.Added++
	n = b.marks.add()
	if refused != nil {
		b.mu.Unlock()
		err = b.park(r, refused)
		b.mu.Lock()
		if err != nil {
			b.fail(err)
			return 0, b.err
		}
		b.stats.Failed++
		b.settle(n)
		return n, nil
	}
	b.stats.Held += size
	b.stats.Peak = max(b.stats.Peak, b.stats.Held)
	var from *chunk
	r.Data, from = b.copy(r.Data)
	l := b.lanes[0]
	if len(b.lanes) > 1 {
		l = b.lanes[hash(r.Key)%uint64(len(b.lanes))]
	}
	l.push(item{Record: r, n: n, size: size, from: from})
	return n, nil
}

func tooLarge(r Record, memory int) error {
	err := fmt.Errorf("sink: record %.100q of %d bytes is larger than the memory of %d bytes for all", r.ID, len(r.Data), memory)
	return myrmidon.Permanent(myrmidon.WithHint(err, "raise the memory of the batcher, or leave the record out"))
}

// hash is FNV-1a.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// wait waits for c, whose lock is held, or for the end of ctx.
func wait(ctx context.Context, c *sync.Cond) error {
	stop := context.AfterFunc(ctx, func() {
		c.L.Lock() // or it could come before the wait has begun
		defer c.L.Unlock()
		c.Broadcast()
	})
	defer stop()
	if err := ctx.Err(); err != nil {
		return err
	}
	c.Wait()
	return ctx.Err()
}

// Flush waits until every record that was added before is settled, without lingering, and
// asks the sink to make it durable if that is a [Flusher]. An error is that of ctx or of the
// sink, or says why the batcher has ended.
func (b *Batcher) Flush(ctx context.Context) error {
	b.mu.Lock()
	to := b.stats.Added
	b.flushTo = max(b.flushTo, to)
	b.wakeAll()
	for b.err == nil && b.marks.first < to {
		if err := wait(ctx, &b.settled); err != nil {
			b.mu.Unlock()
			return err
		}
	}
	err := b.err
	b.mu.Unlock()
	if f, ok := b.sink.(Flusher); ok && err == nil {
		err = f.Flush(ctx)
	}
	return err
}

// Close flushes and ends the batcher. If ctx ends before, what is under way is cut off and the
// error says how many records were not delivered.
func (b *Batcher) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.err == ErrClosed {
		b.mu.Unlock()
		return nil
	}
	b.closing = true
	b.room.Broadcast()
	b.mu.Unlock()
	err := b.Flush(ctx)
	b.mu.Lock()
	if held := b.stats.Added - b.stats.Acked - b.stats.Failed; err != nil && held > 0 && b.err == nil {
		b.fail(fmt.Errorf("sink: closed before %d records were delivered: %w", held, err))
		err = b.err
	}
	if b.err == nil {
		b.err = ErrClosed
	}
	b.wakeAll()
	b.mu.Unlock()
	b.stop()
	b.senders.Wait()
	return err
}

// Settled returns how many of the records that were added first are all acked or parked: what
// a checkpoint may pass.
func (b *Batcher) Settled() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.marks.first
}

// Stats returns the counts of this moment.
func (b *Batcher) Stats() BatcherStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.LastErrors = append([]string(nil), s.LastErrors...)
	return s
}

// fail ends the batcher. The lock is held.
func (b *Batcher) fail(err error) {
	if b.err == nil {
		b.err = err
		b.stop()
	}
	b.wakeAll()
	b.room.Broadcast()
	b.settled.Broadcast()
}

func (b *Batcher) wakeAll() {
	for _, l := range b.lanes {
		l.wake.Broadcast()
	}
}

// park hands a record over for good.
func (b *Batcher) park(r Record, why error) error {
	if b.cfg.Parked == nil {
		return fmt.Errorf("sink: record %.100q can never be delivered: %w", r.ID, why)
	}
	if err := b.cfg.Parked(r, why); err != nil {
		return fmt.Errorf("sink: park record %.100q: %w", r.ID, err)
	}
	return nil
}

// settle marks a record as acked or parked. The lock is held.
func (b *Batcher) settle(n uint64) {
	b.marks.settle(n)
	b.settled.Broadcast()
}

// backoff is the pause after the nth failure.
func (b *Batcher) backoff(n int) time.Duration {
	d := b.cfg.MaxBackoff
	if n < 32 {
		if grown := b.cfg.Backoff << (n - 1); grown > 0 && grown < d {
			d = grown
		}
	}
	return d/2 + rand.N(d/2+1)
}

// note keeps the last errors.
func (b *Batcher) note(err error) {
	last := b.stats.LastErrors
	if len(last) == 5 {
		last = last[1:]
	}
	b.stats.LastErrors = append(last[:len(last):len(last)], err.Error())
}

// asPartial returns a *PartialError that makes sense for a batch.
func asPartial(err error, total int) (*PartialError, bool) {
	var p *PartialError
	if !errors.As(err, &p) {
		return nil, false
	}
	last := -1
	for _, f := range p.Failed {
		if f.Index <= last || f.Index >= total || f.Err == nil {
			return nil, false
		}
		last = f.Index
	}
	return p, true
}
