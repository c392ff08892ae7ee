package notify

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"myrmidon"
)

const (
	// firstPause and lastPause are how long a source that failed is left alone, doubling.
	firstPause = time.Second
	lastPause  = time.Minute
	// again is how long an object waits that was not done.
	again = 30 * time.Second
)

// Do does with an object what it is followed for. A nil error says that it is done, for good or
// bad; after any other error the object comes again. It is called side by side.
type Do func(ctx context.Context, o Object) error

// Config is what the feeds of a process have in common.
type Config struct {
	// Slots has room for as many objects as are worked on at once, over all feeds.
	Slots chan struct{}
	Log   *slog.Logger
	// Again is how long an object waits that was not done; 30 s if 0.
	Again time.Duration
	// Pause is how long a source that failed is left alone, at first; 1 s if 0.
	Pause time.Duration
}

// Stats are of one moment.
type Stats struct {
	Told    time.Time // when the source last told of an object, or zero
	Waiting int64     // objects that were told of and are not done, with those at work; messages in a queue
	Strange int64     // messages that were no notification, each time they came
	Failing error     // why the source cannot be followed now, or nil
	Since   time.Time // since when it fails
	Worked  bool      // it could be followed, once at least
}

// source is followed by a feed.
type source interface {
	// follow has f work on what comes, until f.taking ends. It calls f.well each time that the
	// source answers, and returns when it does not.
	follow(f *Feed) error
	// waiting is how many objects wait that f was not told of.
	waiting() int64
	// end is called when nothing is under way any more.
	end() error
}

// Feed is a source that is followed. [Config.Queue], [Config.Listing] and [Config.Webhook] make
// feeds. Its methods may be called from many goroutines, but for Run.
type Feed struct {
	cfg    Config
	source source
	name   string

	do              Do
	taking, working context.Context // while Run runs
	calls           sync.WaitGroup

	mu     sync.Mutex
	stats  Stats
	answer bool // since the last failure
}

func (c Config) feed(name string, s source) *Feed {
	if c.Again == 0 {
		c.Again = again
	}
	if c.Pause == 0 {
		c.Pause = firstPause
	}
	return &Feed{cfg: c, source: s, name: name}
}

// String returns the source's address, without secrets.
func (f *Feed) String() string { return f.name }

// Stats returns how the source is.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	s := f.stats
	f.mu.Unlock()
	s.Waiting += f.source.waiting()
	return s
}

// Run follows the source until taking ends, and returns when what is under way has ended, too;
// working is the context of that. failed is told, in this goroutine, of each time that the
// source fails.
func (f *Feed) Run(taking, working context.Context, do Do, failed func(error)) {
	f.taking, f.working, f.do = taking, working, do
	defer func() {
		f.calls.Wait()
		if err := f.source.end(); err != nil {
			f.notRemembered(err)
		}
	}()
	for pause := f.cfg.Pause; taking.Err() == nil; {
		err := f.source.follow(f)
		if taking.Err() != nil {
			return
		}
		if f.fail(err) {
			pause = f.cfg.Pause
		}
		failed(err)
		select {
		case <-time.After(pause):
		case <-taking.Done():
		}
		pause = min(2*pause, lastPause)
	}
}

// fail remembers that the source does not answer, and reports whether it had since the last
// time.
func (f *Feed) fail(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stats.Failing == nil {
		f.stats.Since = time.Now()
	}
	f.stats.Failing = err
	had := f.answer
	f.answer = false
	return had
}

// well says that the source answered.
func (f *Feed) well() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Failing, f.stats.Since = nil, time.Time{}
	f.stats.Worked, f.answer = true, true
}

// told counts objects that the source has told of, and that wait now.
func (f *Feed) told(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Waiting += int64(n)
	if n > 0 {
		f.stats.Told = time.Now()
	}
}

// over counts objects that wait no longer.
func (f *Feed) over(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Waiting -= int64(n)
}

func (f *Feed) strange() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Strange++
}

// errEnding says that an object was not begun because nothing more is taken.
var errEnding = errors.New("notify: nothing more is taken")

func (f *Feed) notRemembered(err error) {
	f.cfg.Log.Warn("what is done could not be remembered", "source", f.name, "err", err)
}

// slot waits for a slot; release gives it back.
func (f *Feed) slot() error {
	if f.taking.Err() != nil {
		return errEnding
	}
	select {
	case f.cfg.Slots <- struct{}{}:
		return nil
	case <-f.taking.Done():
		return errEnding
	}
}

func (f *Feed) release() { <-f.cfg.Slots }

// Hopeless reports whether no feed was ever well and each fails for good: there is nothing to
// wait for.
func Hopeless(feeds []*Feed) bool {
	for _, f := range feeds {
		if s := f.Stats(); s.Worked || s.Failing == nil || !myrmidon.IsPermanent(s.Failing) {
			return false
		}
	}
	return true
}
