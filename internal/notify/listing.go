package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"myrmidon/object"
)

const (
	// listedAhead is how many objects of a listing wait for a slot before the listing does.
	listedAhead = 10_000
	// saveEvery is how often what is done is written down while more is under way: a process
	// that was killed does that again. Where it is much, at most one part in saveShare of the
	// time goes into it.
	saveEvery = time.Second
	saveShare = 20
)

// ListingConfig says what is listed.
type ListingConfig struct {
	Name  string        // the feed's
	File  string        // where what is done is remembered
	Every time.Duration // how often it is listed
	// Start is from when on objects are looked at. If it is zero that is an hour ago at first, and
	// after a restart, however late, from where the last process came to.
	Start time.Time
	// List calls fn with each object that may have been modified at a time or later. A store
	// that cannot tell calls it with all. See [Arrived] for folders.
	List func(ctx context.Context, after time.Time, fn func(object.Info) error) error
}

// listing is a prefix that a feed follows.
type listing struct {
	cfg  ListingConfig
	seen *Seen

	mu      sync.Mutex
	open    map[string]*listed // objects that are not done, by key
	pass    int
	begun   time.Time // when the pass was
	most    time.Time // how far the mark may go: not past what no pass has told of
	saved   time.Time
	took    time.Duration // the last save
	fresher bool          // more is done than the file says
}

// listed is an object that is not done.
type listed struct {
	object.Info
	busy bool
	pass int // the last one that found it
}

// Listing returns a feed of the objects of a store, listed again and again; their Bucket is "".
// Objects of one moment are not missed, and neither is one that is not done for long.
func (c Config) Listing(cfg ListingConfig) (*Feed, error) {
	l := &listing{cfg: cfg, seen: new(Seen), open: make(map[string]*listed)}
	data, err := os.ReadFile(cfg.File)
	if err == nil {
		err = json.Unmarshal(data, l.seen)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", cfg.File, err)
	}
	if cfg.Start.IsZero() && l.seen.Newest.IsZero() {
		l.seen.Newest = time.Now().Add(overlap - time.Hour)
		l.fresher = true
	}
	return c.feed(cfg.Name, l), nil
}

func (*listing) waiting() int64 { return 0 } // all are told of

func (l *listing) follow(f *Feed) error {
	found := make(chan object.Info, listedAhead)
	f.calls.Go(func() { l.dispatch(f, found) })
	defer close(found)
	tick := time.NewTicker(l.cfg.Every)
	defer tick.Stop()
	for {
		after := l.begin()
		err := l.cfg.List(f.taking, after, func(o object.Info) error {
			if !l.fresh(o, after) {
				return nil
			}
			f.told(1)
			select {
			case found <- o:
				return nil
			case <-f.taking.Done():
				f.over(1)
				return f.taking.Err()
			}
		})
		if err != nil {
			return err
		}
		f.well()
		if err := l.told(); err != nil {
			f.notRemembered(err)
		}
		select {
		case <-f.taking.Done():
			return nil
		case <-tick.C:
		}
	}
}

// begin begins a pass, and returns from when on it looks at objects. A listing is in the order of
// names, and the oldest object may be its last: until it has ended the mark stays.
func (l *listing) begin() (after time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pass++
	l.begun = time.Now()
	after = l.seen.After(l.cfg.Start)
	l.most = after.Add(overlap)
	return after
}

// fresh takes an object on, unless it is done or taken on, or older than the pass looks at.
func (l *listing) fresh(o object.Info, after time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.open[o.Key]
	if was != nil {
		was.pass = l.pass
	}
	if was != nil && was.busy || was == nil && !l.seen.New(o, after) {
		return false
	}
	l.open[o.Key] = &listed{o, true, l.pass}
	return true
}

// told ends a pass that has told of all objects that were there when it began. It drops those
// that failed and are not there any more: the mark would wait for them.
func (l *listing) told() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, o := range l.open {
		if !o.busy && o.pass < l.pass {
			delete(l.open, key)
		}
	}
	l.most = l.begun
	return l.remember()
}

// dispatch has objects done as slots become free.
func (l *listing) dispatch(f *Feed, found <-chan object.Info) {
	for o := range found {
		if f.slot() != nil {
			f.over(1)
			continue // it stays open, and the mark before it
		}
		f.calls.Go(func() {
			err := f.do(f.working, Object{Key: o.Key, ETag: o.ETag, Size: o.Size})
			f.release()
			f.over(1)
			if err != nil {
				f.cfg.Log.Warn("an object is tried again", "source", f.name, "object", o.Key, "err", err)
			}
			if err := l.finish(o, err == nil); err != nil {
				f.notRemembered(err)
			}
		})
	}
}

// finish remembers what is done; what is not is found by the next listing.
func (l *listing) finish(o object.Info, done bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[o.Key].busy = false
	if done {
		delete(l.open, o.Key)
		l.seen.Finish(o)
		l.fresher = true
	}
	return l.remember()
}

// remember moves the mark up to what is not done, and writes it down now and then; l.mu is held.
func (l *listing) remember() error {
	pending, busy := l.most, false
	for _, u := range l.open {
		busy = busy || u.busy
		if u.Modified.Before(pending) {
			pending = u.Modified
		}
	}
	if l.seen.Advance(pending) {
		l.fresher = true
	}
	if busy && time.Since(l.saved) < max(saveEvery, saveShare*l.took) {
		return nil
	}
	return l.save()
}

// end writes down what has not been.
func (l *listing) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.save()
}

// save writes down what is done; l.mu is held.
func (l *listing) save() error {
	if !l.fresher {
		return nil
	}
	began := time.Now()
	data, err := json.Marshal(l.seen)
	if err == nil {
		err = writeSynced(l.cfg.File, data)
	}
	l.saved, l.fresher = time.Now(), err != nil
	l.took = l.saved.Sub(began)
	return err
}
