package logs

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/sink"
)

// Follower ships objects one by one as they come, without a run: whoever tells of them
// remembers which are done. Its methods may be called from many goroutines.
type Follower struct {
	w      *worker
	spec   Spec
	filter *Prepared
	held   *openSink // so that connections outlive an object
	begun  time.Time

	mu  sync.Mutex
	sum Summary
}

// Shipped is what became of an object that is done.
type Shipped struct {
	ETag    string // of what was found; "" if nothing was
	Counts  Counts
	Newest  time.Time // that of its newest line
	Bytes   int64     // that were read of it
	Rejects []Reject  // what was not delivered
}

// NewFollower opens the sink of a spec, whose address is not used. The caller closes the
// follower.
func (c Config) NewFollower(spec Spec) (*Follower, error) {
	filter, err := spec.Filter.Open()
	if err != nil {
		return nil, err
	}
	f := &Follower{w: &worker{cfg: c, sinks: sinks{open: c.OpenSink}}, spec: spec, filter: filter, begun: time.Now()}
	f.sum.Failures = map[string]Failure{}
	for _, kind := range []string{parsing, sending, "sockets", "objects"} {
		f.sum.Failures[kind] = Failure{LastFew: []string{}}
	}
	f.held, err = f.w.sinks.acquire(spec.Sink)
	return f, err
}

// Ship delivers an object. Where it returns a nil error every line was acknowledged, or is
// in the rejects, with its text; so is what keeps the object from being read for good. Any other
// error is worth another call, which goes on from the checkpoint.
func (f *Follower) Ship(ctx context.Context, from Address, key string) (Shipped, error) {
	store, single, err := from.Open(f.w.cfg.OpenBucket, f.w.cfg.OpenObject)
	if err != nil {
		return Shipped{}, err
	}
	out, err := f.w.sinks.acquire(f.spec.Sink)
	if err != nil {
		return Shipped{}, err
	}
	name := from.Name(key)
	var moved atomic.Int64
	s := &shipment{
		w: f.w, task: &task{Spec: f.spec}, filter: f.filter, store: store, sink: out, run: "follow", key: key, name: name,
		mark: strings.ToLower(ID(name, "")), moved: &moved, batcher: new(atomic.Pointer[sink.Batcher]),
	}
	if single != "" {
		s.key = single
	}
	stop := f.w.tell(ctx, 1, &moved, s.batcher, out)
	shipErr := s.ship(ctx)
	stop()
	c, failed, last, closeErr := f.w.sinks.release(out)
	f.connected(c, failed, last)
	if closeErr != nil && sink.TraitsOf(out.Sink).Unconfirmed {
		// Nobody knows how much has arrived: it is shipped anew from the checkpoint of before,
		// whatever was wrong with it.
		shipErr = errors.Join(shipErr, closeErr)
		f.failed(name, shipErr)
		return Shipped{}, shipErr
	}
	if shipErr != nil && (ctx.Err() != nil || !ofObject(shipErr)) {
		shipErr = errors.Join(shipErr, s.confirm(context.WithoutCancel(ctx)))
		f.failed(name, shipErr)
		return Shipped{}, shipErr
	}
	done := Shipped{ETag: s.at.ETag, Counts: s.at.Counts, Newest: s.at.Newest, Bytes: moved.Load()}
	if done.Rejects, err = f.set(ctx, s, shipErr); err != nil {
		return Shipped{}, err
	}
	return done, f.count(s, shipErr, done.Bytes)
}

// ofObject reports whether an object cannot be delivered for good: it is gone or broken. What is
// wrong with rights or with the destination is wrong with all objects, and is waited for: parked,
// a night of them would have to be found again by hand.
func ofObject(err error) bool {
	var to *sinkError
	return myrmidon.IsPermanent(err) && !errors.Is(err, fs.ErrPermission) && !errors.As(err, &to)
}

// set makes the rejects of an object that nothing more is to be done for.
func (f *Follower) set(ctx context.Context, s *shipment, shipErr error) (out []Reject, err error) {
	if shipErr != nil {
		out = append(out, Reject{Object: s.name, Line: s.at.Line + 1, Offset: s.at.Offset, Reason: shipErr.Error(), Kind: "reading"})
	}
	if len(s.at.Rejects) > 0 {
		texts, err := s.texts(ctx, nil)
		if err != nil {
			texts = nil // its places are told nevertheless
		}
		for _, r := range s.at.Rejects {
			r.Object, r.Text = s.name, texts[r.Offset]
			out = append(out, r)
		}
	}
	if s.at.More > 0 {
		out = append(out, s.unlisted(s.at.More))
	}
	if f.w.cfg.Checkpoints != nil {
		err = f.w.cfg.Checkpoints.Forget(ctx, s.run, "", s.mark)
	}
	return out, err
}

// count adds what became of an object to the summary. The error says that it does not add
// up.
func (f *Follower) count(s *shipment, shipErr error, read int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := s.at.Counts
	f.sum.Lines.add(c)
	f.sum.Objects.Read++
	f.sum.Objects.Bytes += read
	if s.at.Newest.After(f.sum.Newest) {
		f.sum.Newest = s.at.Newest
	}
	if shipErr != nil || len(s.at.Rejects) > 0 {
		f.sum.Objects.Failed++
	}
	if shipErr != nil {
		f.add("objects", 1, s.name+": "+shipErr.Error())
	}
	f.add(parsing, c.Unparsed)
	f.add(sending, c.Failed)
	for _, r := range s.at.Rejects[max(0, len(s.at.Rejects)-LastFew):] {
		f.add(r.Kind, 0, s.name+": "+r.Reason)
	}
	return c.Check()
}

// add counts failures of a kind; f.mu is held.
func (f *Follower) add(kind string, n int64, last ...string) {
	fail := f.sum.Failures[kind]
	fail.add(n, last...)
	f.sum.Failures[kind] = fail
}

// failed remembers why an object is to be tried again.
func (f *Follower) failed(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add("objects", 0, name+": "+err.Error())
}

func (f *Follower) connected(c Connections, failed uint64, last []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sum.Connections.Created += c.Created
	f.sum.Connections.Destroyed += c.Destroyed
	f.add("sockets", int64(failed), last...)
}

// Summary returns what all came to until now. Objects under way are not in it; it adds up at
// each moment.
func (f *Follower) Summary() Summary {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := f.sum
	sum.Failures = maps.Clone(f.sum.Failures)
	sum.Seconds = time.Since(f.begun).Seconds()
	sum.Destination = f.spec.Sink
	sum.Unconfirmed = sink.TraitsOf(f.held.Sink).Unconfirmed
	return sum
}

// Close closes the sink and returns what all came to.
func (f *Follower) Close() (Summary, error) {
	c, failed, last, err := f.w.sinks.release(f.held)
	f.connected(c, failed, last)
	return f.Summary(), err
}
