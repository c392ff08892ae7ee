package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/sink"
)

// Note is the evidence of an object: what has become of its lines, all attempts together.
type Note struct {
	ETag    string    `json:"etag,omitempty"`
	Counts  Counts    `json:"counts"`
	Newest  time.Time `json:"newest,omitzero"`   // the time of its newest line
	Resumed int64     `json:"resumed,omitempty"` // the offset at which the last attempt went on
	Changed bool      `json:"changed,omitempty"` // it was replaced between two attempts, and read from its beginning
	// Rejects are the last few lines that were not delivered, of Rejected.
	Rejects  []Reject `json:"rejects,omitempty"`
	Rejected int64    `json:"rejected,omitempty"`
	Millis   int64    `json:"millis"`
	// Connections and Sockets are of the sink, told with the last object that a job has done.
	Connections   Connections `json:"connections,omitzero"`
	SocketsFailed uint64      `json:"sockets_failed,omitempty"`
	Sockets       []string    `json:"sockets,omitempty"`
}

// Names of what a run's report adds up while it goes on.
const (
	TallyLines = "lines" // encountered
	TallyAcked = "acked"
)

// handle is the handler of [KindShip].
func (w *worker) handle(ctx context.Context, job myrmidon.Job) (res myrmidon.Result, err error) {
	var t task
	if err := json.Unmarshal(job.Spec, &t); err != nil {
		return res, myrmidon.Permanent(fmt.Errorf("logs: job: %w", err))
	}
	if len(t.Objects) != int(job.Count) {
		return res, myrmidon.Permanent(fmt.Errorf("logs: a job of %d items has %d objects", job.Count, len(t.Objects)))
	}
	filter, err := w.enrichers.prepare(t.Filter)
	if err != nil {
		return res, err
	}
	store, single, err := t.Open(w.cfg.OpenBucket, w.cfg.OpenObject)
	if err != nil {
		return res, err
	}
	out, err := w.sinks.acquire(t.Sink)
	if err != nil {
		return res, err
	}
	res.Usage.Start = time.Now().UTC()
	var moved atomic.Int64
	var batcher atomic.Pointer[sink.Batcher]
	stop := w.tell(ctx, job.Units, &moved, &batcher, out)
	sums := map[string]int64{}
	var done, begun []*shipment
	until := softDeadline(ctx)
	for i := range job.Items() {
		e := t.Objects[i-job.First]
		if over(until) {
			res.Items = append(res.Items, myrmidon.ItemResult{Index: i, Error: myrmidon.AsFailure(errTimeOver)})
			continue
		}
		s := &shipment{
			w: w, task: &t, filter: filter, store: store, sink: out, run: job.Run, key: e.key(), name: t.Name(e.key()), moved: &moved, batcher: &batcher,
			mark: fmt.Sprintf("%d-%d", job.Shard, i), until: until,
		}
		if single != "" {
			s.key = single
		}
		began := time.Now()
		begun = append(begun, s)
		shipErr := s.ship(ctx)
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			break
		}
		shipErr = s.goesOn(shipErr)
		if errors.Is(shipErr, errTimeOver) {
			res.Items = append(res.Items, myrmidon.ItemResult{Index: i, Error: myrmidon.AsFailure(errTimeOver)})
			continue
		}
		it, n := s.result(shipErr)
		if it.Error == nil {
			done = append(done, s)
		}
		it.Index, it.Bytes, n.Millis = i, e.Size, time.Since(began).Milliseconds()
		it.Note, _ = json.Marshal(n) // strings and numbers
		res.Items = append(res.Items, it)
		sums[TallyLines] += n.Counts.Encountered
		sums[TallyAcked] += n.Counts.Acked
	}
	stop()
	lost := w.finish(out, &res, len(begun))
	cut := ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded)
	if lost {
		begun, done = nil, nil // they are shipped anew from the checkpoints of before
	}
	for _, s := range begun {
		err = errors.Join(err, s.confirm(context.WithoutCancel(ctx)))
	}
	if cut {
		return myrmidon.Result{}, errors.Join(ctx.Err(), err) // it comes again, and passes over what is done
	}
	for _, s := range done {
		err = errors.Join(err, s.forget(context.WithoutCancel(ctx)))
	}
	res.Usage.End, res.Usage.Read, res.Tally = time.Now().UTC(), moved.Load(), sums
	return res, err
}

// errTimeOver says that an object goes on in another job.
var errTimeOver = myrmidon.Continue(errors.New("its time is over: it goes on from its checkpoint"))

// goesOn says whether an object whose time is over goes on in another job: if it came further in
// this one, or the destination took nothing. Any other error counts as an attempt, or a store that
// does not answer would be asked for ever.
func (s *shipment) goesOn(err error) error {
	if err == nil || !over(s.until) || myrmidon.IsPermanent(err) {
		return err
	}
	var to *sinkError
	if s.further || errors.As(err, &to) {
		return errTimeOver
	}
	if errors.Is(err, errTimeOver) {
		return errors.New("its time was over before any of its lines was delivered that are tried again")
	}
	return err
}

const (
	// reserve is the share of a job's time in which what is under way is settled, and
	// mostReserve how long that is at most.
	reserve     = 5
	mostReserve = 30 * time.Second
)

// softDeadline is when a job begins to end, zero if never: its context then still lives.
func softDeadline(ctx context.Context) time.Time {
	at, ok := ctx.Deadline()
	if !ok {
		return time.Time{}
	}
	return at.Add(-min(time.Until(at)/reserve, mostReserve))
}

func over(until time.Time) bool { return !until.IsZero() && time.Now().After(until) }

// finish closes the sink, if nobody else uses it, and tells of its connections. lost reports
// that nobody knows how much has arrived of the items that were begun, which are the first ones:
// whatever else was wrong with them, they are shipped anew.
func (w *worker) finish(out *openSink, res *myrmidon.Result, begun int) (lost bool) {
	c, failed, last, err := w.sinks.release(out)
	for i, it := range slices.Backward(res.Items) {
		var n Note
		if json.Unmarshal(it.Note, &n) != nil {
			continue // it goes on in another job, and has no note yet
		}
		n.Connections, n.SocketsFailed, n.Sockets = c, failed, last
		res.Items[i].Note, _ = json.Marshal(n) // strings and numbers
		break
	}
	if err == nil || !sink.TraitsOf(out.Sink).Unconfirmed {
		return false // all that counts was acknowledged
	}
	for i := range res.Items[:min(begun, len(res.Items))] {
		res.Items[i].Error = myrmidon.AsFailure(fmt.Errorf("it may not have arrived: %w", err))
	}
	return true
}

// result words what became of an object.
func (s *shipment) result(err error) (it myrmidon.ItemResult, n Note) {
	it.Name = s.name
	n = Note{ETag: s.at.ETag, Counts: s.at.Counts, Newest: s.at.Newest, Resumed: s.resumed, Changed: s.changed}
	n.Rejected = int64(len(s.at.Rejects)) + s.at.More
	n.Rejects = s.at.Rejects[max(0, len(s.at.Rejects)-LastFew):]
	if err == nil && n.Rejected > 0 {
		first := s.at.Rejects[0]
		err = myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("%d of %d lines were not delivered; the first at byte %d (%s): %s", n.Rejected, n.Counts.Encountered, first.Offset, first.Kind, first.Reason),
			"the other lines were; myrmidon runs retry tries these again"))
	}
	it.Error, it.Part = myrmidon.AsFailure(err), err != nil && n.Counts.Acked > 0
	return it, n
}

// tellEvery is how often a job tells how far it is. A destination that takes nothing for a
// night does not cost the job its lease.
const tellEvery = time.Second

// stuckAfter is how long a destination takes nothing before that is logged, and how often.
const stuckAfter = 10 * time.Second

// tell tells of a job's progress until the function that it returns is called.
func (w *worker) tell(ctx context.Context, units int64, moved *atomic.Int64, batcher *atomic.Pointer[sink.Batcher], out *openSink) (stop func()) {
	done := make(chan struct{})
	var teller sync.WaitGroup
	teller.Go(func() {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		var last *sink.Batcher
		var acked uint64
		since := time.Now()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			myrmidon.Progress(ctx, myrmidon.Amount{Done: min(moved.Load()/unit, units), Total: units})
			b := batcher.Load()
			if b == nil {
				continue
			}
			st := b.Stats()
			if b != last || st.Acked != acked || st.Held == 0 {
				last, acked, since = b, st.Acked, time.Now()
			} else if time.Since(since) > stuckAfter && len(st.LastErrors) > 0 {
				w.cfg.log().Warn("the destination takes nothing; trying on", "destination", fmt.Sprint(out.Sink), "err", st.LastErrors[len(st.LastErrors)-1])
				since = time.Now()
			}
		}
	})
	return func() { close(done); teller.Wait() }
}
