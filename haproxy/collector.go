package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ErrNone says that no target answered.
var ErrNone = errors.New("haproxy: no target answered")

// Config is what a Collector does; the zero values but for Targets are the defaults.
type Config struct {
	Targets []Target
	// Timeout is how long each target has; [DefaultTimeout] unless set.
	Timeout time.Duration
	// Rules, with what the user overrides; DefaultRules unless set.
	Rules *Rules
	// FixedRules keeps the collector from learning the tags of each version that it meets.
	// Those of HAProxy 2.6 are built in.
	FixedRules bool
	// Window is what rates are averaged over: from half of it up to it and one poll more.
	// 10 s unless set.
	Window time.Duration
	// Concurrency is how many targets are read at once; 64 unless set.
	Concurrency int
	// KeepProcesses keeps the table of each process for [Snapshot.Each]: 8 bytes a cell that
	// is not empty, 0.8 MB for 1,600 rows, and its text.
	KeepProcesses bool
}

// A Collector polls targets and presents them as one. Poll and SetTargets are for one
// goroutine; the other methods are safe for concurrent use.
//
// Counters of its table never go back: what a process had counted when it was last seen
// stays in the sum when it restarts, is reloaded, or cannot be reached, and when its
// counters are cleared or a server is deleted and added again. Processes are told apart by
// target, PID and start time. Old workers of a master socket, which serve what is left, add
// to sums and to nothing else.
type Collector struct {
	cfg    Config
	late   time.Duration // how long a target that hangs holds up what comes after it
	slots  []*slot
	gone   []*slot // that SetTargets took out, the oldest first
	merger Merger
	rules  *Rules

	mu   sync.RWMutex // held for writing while a poll is published
	snap Snapshot

	once   bool    // there is one poll: nothing is remembered for the next
	stream *stream // what the dumps of a single poll flow into, or nil
	now    func() time.Time

	// Only Poll uses what follows.
	next      *Table // the table that the next poll fills
	scratch   Table
	mergers   []func() // of mergeAll, made once: a closure a poll is an allocation
	merging   sync.WaitGroup
	buffers   buffers // of all targets
	schema    *schema
	carry     *Table // of processes that are gone
	base, mid checkpoint
	states    stateNames
	learned   map[string]bool
	learnMu   sync.Mutex
	turn      sync.Cond
	turnMu    sync.Mutex
	folding   int // the slot whose turn it is to be merged
	claimed   int
	polls     int // that reached a target
	last      time.Time
	found     finding
}

// A checkpoint is the table of a moment, from which rates count.
type checkpoint struct {
	at    time.Time
	table *Table
}

// slot is a target and what is remembered of it.
type slot struct {
	source  *source
	target  Target
	replies []Reply
	err     error
	took    time.Duration
	tags    Tags
	version string

	// Of the poll under way: read is done when the target was read, and before is closed
	// when few enough targets before it are not merged yet; nil if there is nothing to
	// wait for.
	read   sync.WaitGroup
	before chan struct{}

	known  []*process
	spare  [][]int64 // of marks, to be used again
	failed bool      // it was at the last poll
	lost   bool      // of a single poll that reads twice: it failed the first time
	polled bool

	// The states of the rows of the merged table, by number, 0 for none.
	states, newStates []uint16
}

// process is one that was seen at the last poll that its target answered.
type process struct {
	Process
	buf, raw []byte // its last dump
	marks    marks  // of that dump, to see that counters were cleared
	seen     bool

	// With KeepProcesses: that of the snapshot, and that of the poll under way.
	table, next *Table
}

// New checks the configuration; it reads nothing.
func New(cfg Config) (*Collector, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Window <= 0 {
		cfg.Window = 10 * time.Second
	}
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = 64
	}
	// Without rules those built in are made when the first dump is there.
	c := &Collector{cfg: cfg, late: cfg.Timeout / 4, rules: cfg.Rules, now: time.Now, next: new(Table), learned: make(map[string]bool)}
	c.turn.L = &c.turnMu
	c.snap.Table = new(Table)
	if err := c.SetTargets(cfg.Targets); err != nil {
		return nil, err
	}
	return c, nil
}

// ReadAll reads all targets once and merges them: New, one Poll, and its Snapshot. The
// error wraps ErrNone if no target answered; that some did not is in the Snapshot.
func ReadAll(ctx context.Context, cfg Config) (*Snapshot, error) {
	c, err := newOnce(cfg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	err = c.Poll(ctx)
	return &c.snap, err
}

// newOnce is New for a single poll.
func newOnce(cfg Config) (*Collector, error) {
	c, err := New(cfg)
	if err != nil {
		return nil, err
	}
	c.once = true
	if len(c.slots) <= ahead && !cfg.KeepProcesses {
		c.stream = &stream{merger: &c.merger, out: c.next, fixed: cfg.FixedRules}
		c.merger.Rules = c.rules
		for i, s := range c.slots {
			if s.source.page == nil {
				s.source.inflow = &inflow{stream: c.stream, first: i == 0, step: inflowStep}
			}
		}
	}
	return c, nil
}

// Close lets go of idle connections. The last snapshot stays.
func (c *Collector) Close() {
	for _, s := range c.slots {
		s.source.close()
	}
}

// Use calls f with the snapshot of the last poll, which stays as it is until f returns:
// the next poll waits for that before it publishes, so f should not wait for a slow
// reader.
func (c *Collector) Use(f func(*Snapshot)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	f(&c.snap)
}

// Rules are those in use, with what was learned.
func (c *Collector) Rules() *Rules {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.rules
}

// Poll reads all targets at the same time, merges them and publishes a Snapshot for Use.
// A target that fails is left out and named there. If none answers, the table stays
// that of the last poll, and the error wraps ErrNone and what each of them said. If ctx
// is cancelled, nothing is published.
func (c *Collector) Poll(ctx context.Context) error {
	began := c.now()
	wait := c.startReading(ctx)
	c.mergeAll()
	wait()
	learned := c.learn()
	if c.flowedAway(learned) && ctx.Err() == nil {
		wait = c.startReading(ctx)
		c.mergeAll()
		wait()
		learned = c.learn()
	}
	if ctx.Err() != nil {
		c.forget()
		return ctx.Err()
	}
	if learned {
		c.mergeAll() // anew, by the right rules: once a version
	}
	answered := 0
	for _, s := range c.slots {
		if len(s.replies) > 0 {
			answered++
		}
	}
	if answered == 0 {
		var errs []error
		for _, s := range c.slots {
			errs = append(errs, s.err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.publishTargets(began)
		for _, s := range c.slots {
			s.failed = true
		}
		return fmt.Errorf("%w: %w", ErrNone, errors.Join(errs...))
	}
	c.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.publish(began)
	c.polls++
	return nil
}

// ahead is how many targets are read before the one that is to be merged next, so that
// memory has a bound: the dump of a target takes the place of that before it.
const ahead = 16

// startReading reads every slot within its deadline, beside what the caller does; the
// function that it returns waits for the end.
func (c *Collector) startReading(ctx context.Context) (wait func()) {
	c.folding = 0
	for i, s := range c.slots {
		s.replies, s.tags, s.before = s.replies[:0], nil, nil
		if !s.lost {
			s.err = nil
		}
		if i >= ahead {
			s.before = make(chan struct{})
		}
		s.read.Add(1)
	}
	for _, s := range c.slots[:min(len(c.slots), ahead, c.cfg.Concurrency)] {
		if !s.lost {
			s.source.askAhead()
		}
	}
	slots, stopped := c.slots, make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		for _, s := range slots {
			s.source.interrupt()
		}
	})
	var wg sync.WaitGroup
	gate := make(chan struct{}, c.cfg.Concurrency)
	for _, s := range c.slots {
		before := s.before
		wg.Go(func() {
			defer s.read.Done()
			if s.lost {
				return
			}
			if before != nil {
				// A target that hangs holds up what comes after it for a moment only.
				late := time.NewTimer(c.late)
				select {
				case <-before:
				case <-late.C:
				case <-ctx.Done():
				}
				late.Stop()
			}
			gate <- struct{}{}
			defer func() { <-gate }()
			c.readSlot(ctx, s)
		})
	}
	return func() {
		wg.Wait()
		if !stop() {
			<-stopped // or else it would interrupt the next poll
		}
	}
}

func (c *Collector) readSlot(ctx context.Context, s *slot) {
	began := time.Now()
	deadline := began.Add(c.cfg.Timeout)
	s.replies, s.err = s.source.read(ctx, deadline, s.replies)
	s.took = time.Since(began)
	if c.cfg.FixedRules || len(s.replies) == 0 || s.source.page != nil {
		return
	}
	version := s.replies[0].Process.Version
	c.learnMu.Lock()
	known := c.learned[version]
	c.learned[version] = true
	c.learnMu.Unlock()
	var samples []int64
	if !known && !builtInFor(version, s.replies[0].CSV) {
		if t, err := ParseCSV(s.replies[0].CSV); err == nil {
			samples = t.samples()
		}
	}
	if len(samples) == 0 {
		return
	}
	prefix, end := "", "\n"
	if s.source.master {
		prefix, end = fmt.Sprintf("@!%d ", s.replies[0].Process.PID), ";quit\n"
	}
	tags, err := s.source.learn(ctx, deadline, prefix, end, samples)
	if err != nil {
		// The built-in rules do; another poll tries again.
		c.learnMu.Lock()
		delete(c.learned, version)
		c.learnMu.Unlock()
		return
	}
	s.tags, s.version = tags, version
}

// builtInFor reports whether the built-in tags are those of a process, so that there is
// nothing to ask: it is a HAProxy 2.6, and its dump has no field beyond them.
func builtInFor(version string, csv []byte) bool {
	if !strings.HasPrefix(version, "2.6.") {
		return false
	}
	header, _, _ := bytes.Cut(bytes.TrimPrefix(csv, []byte("# ")), []byte("\n"))
	tags := builtIn()
	for name := range bytes.SplitSeq(header, []byte(",")) {
		if _, ok := tags[string(name)]; !ok && len(name) > 0 && string(name) != "-" {
			return false
		}
	}
	return true
}

// learn takes over what slots learned, in their order, and reports whether that was
// anything.
func (c *Collector) learn() bool {
	rules := c.rules
	for _, s := range c.slots {
		if s.tags != nil {
			rules = rules.Learn(s.tags, s.version)
		}
	}
	if rules == c.rules {
		return false
	}
	c.mu.Lock()
	c.rules = rules
	c.mu.Unlock()
	return true
}

// mergeAll parses the dumps on all processors, as soon as they are read, and merges them
// in the order of the targets, so that rows and columns have an order that does not depend
// on who is first.
func (c *Collector) mergeAll() {
	if s := c.stream; s != nil {
		s.mu.Lock()
		s.begin()
		s.mu.Unlock()
	} else {
		c.merger.Rules = c.rules
		c.merger.Reset(c.next)
	}
	c.folding, c.claimed = 0, 0
	c.merging.Add(len(c.mergers))
	for _, merge := range c.mergers {
		go merge()
	}
	c.merging.Wait()
}

// flowedAway ends the stream, and reports whether the targets must be read again: it broke,
// or rules were learned since rows were merged that are in no dump any longer. What did not
// answer has had its time.
func (c *Collector) flowedAway(learned bool) bool {
	s := c.stream
	if s == nil {
		return false
	}
	c.stream = nil // it has no second
	again := s.broken
	for _, slot := range c.slots {
		if f := slot.source.inflow; f != nil {
			again = again || learned && f.forgot
			slot.source.inflow = nil
		}
	}
	if !again {
		return false
	}
	for _, slot := range c.slots {
		slot.lost = len(slot.replies) == 0
	}
	c.forget()
	return true
}

// newMerger is one goroutine of mergeAll, with a table of its own to parse into.
func (c *Collector) newMerger() func() {
	t := new(Table)
	return func() {
		defer c.merging.Done()
		for {
			c.turnMu.Lock()
			i := c.claimed
			c.claimed++
			c.turnMu.Unlock()
			if i >= len(c.slots) {
				return
			}
			c.mergeSlot(i, t)
		}
	}
}

// mergeSlot parses the replies of slot i, and merges them when all slots before are.
func (c *Collector) mergeSlot(i int, t *Table) {
	s := c.slots[i]
	s.read.Wait()
	waited := false
	wait := func() {
		if waited {
			return
		}
		waited = true
		c.turnMu.Lock()
		for c.folding != i {
			c.turn.Wait()
		}
		c.turnMu.Unlock()
	}
	if c.stream != nil {
		wait()
		if f := s.source.inflow; f != nil && !s.source.master {
			f.end(s.replies)
			c.turnOver()
			return
		}
		c.stream.mu.Lock()
		defer c.stream.mu.Unlock()
		if c.stream.broken {
			c.turnOver()
			return
		}
	}
	kept := s.replies[:0]
	current := false
	soft := s.hasCurrent()
	for _, r := range s.replies {
		err := t.ParseCSV(r.CSV)
		wait()
		if err == nil {
			c.shareSchema(t)
			if !c.once {
				r.marks = t.marks(s.spareMarks())
			}
			if soft && r.Process.Stopping {
				kept = append(kept, r) // settle adds it
				continue
			}
			if c.once && !c.cfg.KeepProcesses && c.merger.out.schema == nil {
				c.merger.adopt(t)
			} else {
				err = c.merger.Add(t)
			}
		}
		if err != nil {
			s.err = errors.Join(s.err, fmt.Errorf("%s: %w", s.target.Name, err))
			s.source.keep(r.buf)
			continue
		}
		kept = append(kept, r)
		if !current && !c.once {
			current = true
			s.newStates = c.states.collect(s.newStates[:0], t, c.merger.rowMap)
		}
		if c.cfg.KeepProcesses {
			p := s.process(&r.Process)
			if p.next == nil {
				p.next = new(Table)
			}
			p.next.copyFrom(t)
		}
		s.supersede(&kept[len(kept)-1])
	}
	s.replies = kept
	wait()
	c.turnOver()
}

// turnOver lets the slot after the one that was merged be the next.
func (c *Collector) turnOver() {
	c.turnMu.Lock()
	c.folding++
	if k := c.folding + ahead - 1; k < len(c.slots) && c.slots[k].before != nil {
		close(c.slots[k].before)
		c.slots[k].before = nil
	}
	c.turn.Broadcast()
	c.turnMu.Unlock()
}

// shareSchema lets tables of one header have one schema, so that the merger sees at once
// that nothing changed.
func (c *Collector) shareSchema(t *Table) {
	if c.schema == nil || c.schema.header != t.schema.header {
		c.schema = t.schema
	}
	t.schema = c.schema
}

// forget drops what a poll has read.
func (c *Collector) forget() {
	for _, s := range c.slots {
		for _, r := range s.replies {
			s.source.keep(r.buf)
		}
		s.replies = s.replies[:0]
		for _, p := range s.known {
			p.seen = false
		}
	}
}
