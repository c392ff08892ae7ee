package clone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/internal/limit"
	"myrmidon/object"
)

// Evidence is what the report says of one object.
type Evidence struct {
	Action      string `json:"action"`                // copy, delete, verify; skip, left: see How
	Source      string `json:"source,omitempty"`      // ETag
	Destination string `json:"destination,omitempty"` // ETag, or checksum where the store gives one
	How         string `json:"how,omitempty"`         // server: by the destination; parts: by it, in parts; stream: through this process; found: before this process was killed; exists, changed, alike: why it is skipped; of verify: etag, read, checksum
	Attempts    uint32 `json:"attempts"`
	Millis      int64  `json:"ms"`

	size  *int64 // of an object that the job did not know, or knew wrongly
	found bool   // the plan did not know it either
}

// opened is a job's task with its stores.
type opened struct {
	task
	src, dst object.Store
}

func (w *worker) opened(job myrmidon.Job) (*opened, error) {
	t, err := read[task]("job", job.Spec)
	if err == nil && uint32(len(t.Objects)) != job.Count {
		err = myrmidon.Permanent(fmt.Errorf("clone: a job of %d items names %d objects", job.Count, len(t.Objects)))
	}
	if err != nil {
		return nil, err
	}
	return w.stores(t)
}

func (w *worker) stores(t task) (*opened, error) {
	src, err := w.open(t.Source)
	if err != nil {
		return nil, err
	}
	dst, err := w.open(t.Destination)
	return &opened{t, src, dst}, err
}

// each does a thing with every object of a job, side by side, as many at a time as the
// destination takes, and gathers what came of them. The job fails only with ctx.
func (w *worker) each(ctx context.Context, job myrmidon.Job, do func(ctx context.Context, t *opened, o object.Info, moved *atomic.Int64) (Evidence, error)) (myrmidon.Result, error) {
	t, err := w.opened(job)
	if err != nil {
		return myrmidon.Result{}, err
	}
	begun := time.Now().UTC()
	book := w.runs.open(job.Run, t.Limits)
	ctx = book.with(ctx)
	sums := newTally(ctx, job)
	defer sums.stop()
	moved := &sums.moved
	items := make([]myrmidon.ItemResult, 0, job.Len())
	for i := range job.Items() {
		items = append(items, myrmidon.ItemResult{Index: i})
	}
	one := func(it *myrmidon.ItemResult) limit.Outcome {
		o := t.Objects[it.Index-job.First].info()
		start := time.Now()
		e, err := do(ctx, t, o, moved)
		it.Name, it.Bytes, it.Error = o.Key, max(o.Size, 0), nil
		if err != nil {
			it.Error = myrmidon.AsFailure(err)
			return outcome(err)
		}
		if e.size != nil {
			it.Bytes = max(*e.size, 0)
		}
		sums.add(&e, it.Bytes)
		e.Attempts, e.Millis = job.Attempt, time.Since(start).Milliseconds()
		it.Note, _ = json.Marshal(e) // strings and numbers
		return limit.OK
	}
	// A goroutine goes on with the next object: a new one would have to grow its stack first.
	type permitted struct {
		it     *myrmidon.ItemResult
		permit limit.Permit
	}
	var wg sync.WaitGroup
	next := make(chan permitted)
	permits := limit.Of(ctx, limit.Destination(t.Destination))
	for n := range items {
		permit, err := permits.AcquireFor(ctx, string(t.Objects[items[n].Index-job.First].Key))
		if err != nil {
			break // ctx has ended: said below
		}
		p := permitted{&items[n], permit}
		select {
		case next <- p:
		default:
			wg.Go(func() {
				for ok := true; ok; p, ok = <-next {
					patiently(ctx, permits, p.permit, string(t.Objects[p.it.Index-job.First].Key), func() limit.Outcome { return one(p.it) })
				}
			})
		}
	}
	close(next)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return myrmidon.Result{}, err
	}
	usage := myrmidon.Usage{Start: begun, End: time.Now().UTC(), Read: moved.Load(), Written: moved.Load(), Requests: book.requests()}
	return myrmidon.Result{Items: items, Usage: usage, Tally: sums.sums()}, nil
}

// patience is for how long an object, in one attempt of its job, waits for another turn
// when the destination has told it to slow down.
const patience = 30 * time.Second

// patiently does one thing with a permit, and waits for another permit when it is pushed
// back: the limiter knows when it is time, the job's next attempt would be later.
func patiently(ctx context.Context, permits *limit.Limiter, permit limit.Permit, key string, do func() limit.Outcome) {
	for end := time.Now().Add(patience); ; {
		o := do()
		permit.Release(o)
		if o <= limit.Failed || time.Now().After(end) {
			return
		}
		var err error
		if permit, err = permits.AcquireFor(ctx, key); err != nil {
			return // ctx has ended: the job says so
		}
	}
}

// outcome is what a request tells its limiter. Where the store says when to come again,
// everything to it waits until then.
func outcome(err error) limit.Outcome {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrChanged) {
		return limit.OK
	}
	if after, is := object.Busy(err); is {
		return limit.Pushback(after)
	}
	return limit.Failed
}

// copy is the handler of [KindCopy].
func (w *worker) copy(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	return w.answered(ctx, job, func() (myrmidon.Result, error) { return w.each(ctx, job, w.copySteady) })
}

func (w *worker) copyOne(ctx context.Context, t *opened, o object.Info, moved *atomic.Int64) (Evidence, error) {
	src, dst := t.src, t.dst
	e := Evidence{Action: "copy", Source: o.ETag}
	if myrmidon.IsRepeat(ctx) && t.Compare != CompareNone {
		// Whoever was killed may have copied it: the listing did not have it so.
		now, err := dst.Head(into(ctx), o.Key)
		if err == nil && t.Compare.alike(o, now) {
			e.How, e.Destination = "found", now.ETag
			return e, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return e, err
		}
	}
	if im, ok := dst.(object.Importer); ok && im.CanImport(src) {
		made, err := im.Import(object.Paced(into(ctx)), src, o, o.Key, t.Copy)
		if err != nil {
			return e, gone(o.Key, err)
		}
		e.How, e.Destination = "server", made.ETag
		if made.Parts > 1 {
			e.How = "parts"
		}
		if made.Checksum != "" {
			e.Destination = made.Checksum
		}
		return e, nil
	}
	made, read, err := stream(ctx, src, dst, o, t.Copy, moved)
	if err != nil {
		return e, gone(o.Key, err)
	}
	e.How, e.Source, e.Destination = "stream", read.ETag, made.ETag
	if o.Size < 0 {
		size := read.Size
		e.size, e.found = &size, true
	}
	if made.Checksum != "" {
		e.Destination = made.Checksum
	}
	return e, nil
}

// gone makes what cannot be helped by trying again permanent, and says what it means.
func gone(key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, object.ErrChanged):
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q has changed since it was listed, and is not copied: %w", key, err), "run the clone again to copy it as it is now"))
	case errors.Is(err, fs.ErrNotExist):
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q is gone since it was listed: %w", key, err), "run the clone again; with --delete it is removed from the destination too"))
	}
	return err
}

// check is the handler of [KindVerify]: objects that the listings do not vouch for are
// compared by their checksums, or read.
func (w *worker) check(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	return w.each(ctx, job, w.checkOne)
}

func (w *worker) checkOne(ctx context.Context, t *opened, o object.Info, moved *atomic.Int64) (Evidence, error) {
	return verify(ctx, t.src, t.dst, o, t.Verify == VerifyChecksum, moved)
}
