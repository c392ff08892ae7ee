package clone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	How         string `json:"how,omitempty"`         // server: by the destination; parts: by it, in parts; stream: through this process; found: before this process was killed; exists, changed, alike: why it is skipped
	Attempts    uint32 `json:"attempts"`
	Millis      int64  `json:"ms"`

	size  *int64 // of an object that the job did not know, or knew wrongly
	found bool   // the plan did not know it either
}

// each does a thing with every object of a job, side by side, as many at a time as the
// destination takes, and gathers what came of them. The job fails only with ctx.
func (w *worker) each(ctx context.Context, job myrmidon.Job, do func(ctx context.Context, t *task, o object.Info, moved *atomic.Int64) (Evidence, error)) (myrmidon.Result, error) {
	t, err := read[task]("job", job.Spec)
	if err != nil {
		return myrmidon.Result{}, err
	}
	if uint32(len(t.Objects)) != job.Count {
		return myrmidon.Result{}, myrmidon.Permanent(fmt.Errorf("clone: a job of %d items names %d objects", job.Count, len(t.Objects)))
	}
	begun := time.Now().UTC()
	permits := limit.Of(ctx, limit.Destination(t.Destination))
	book := w.runs.open(job.Run, t.Limits)
	ctx = book.with(ctx)
	sums := newTally(ctx, job)
	defer sums.stop()
	var (
		wg    sync.WaitGroup
		moved = &sums.moved
		items = make([]myrmidon.ItemResult, 0, job.Len())
	)
	for i := range job.Items() {
		items = append(items, myrmidon.ItemResult{Index: i})
	}
	for n := range items {
		it := &items[n]
		permit, err := permits.Acquire(ctx)
		if err != nil {
			break // ctx has ended: said below
		}
		wg.Go(func() {
			o := t.Objects[it.Index-job.First].info()
			start := time.Now()
			e, err := do(ctx, &t, o, moved)
			permit.Release(outcome(err))
			it.Name, it.Bytes = o.Key, o.Size
			if err != nil {
				it.Error = myrmidon.AsFailure(err)
				return
			}
			if e.size != nil {
				it.Bytes = *e.size
			}
			sums.add(&e, it.Bytes)
			e.Attempts, e.Millis = job.Attempt, time.Since(start).Milliseconds()
			it.Note, _ = json.Marshal(e) // strings and numbers
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return myrmidon.Result{}, err
	}
	usage := myrmidon.Usage{Start: begun, End: time.Now().UTC(), Read: moved.Load(), Written: moved.Load(), Requests: book.requests()}
	return myrmidon.Result{Items: items, Usage: usage, Tally: sums.sums()}, nil
}

// outcome is what a request tells its limiter. A store that says when to come again has
// too much to do.
func outcome(err error) limit.Outcome {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, object.ErrChanged) {
		return limit.OK
	}
	if after := myrmidon.AsFailure(err).After; after > 0 {
		return limit.Pushback(after)
	}
	return limit.Failed
}

// copy is the handler of [KindCopy].
func (w *worker) copy(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	return w.each(ctx, job, w.copySteady)
}

func (w *worker) copyOne(ctx context.Context, t *task, o object.Info, moved *atomic.Int64) (Evidence, error) {
	src, err := w.open(t.Source)
	if err != nil {
		return Evidence{}, err
	}
	dst, err := w.open(t.Destination)
	if err != nil {
		return Evidence{}, err
	}
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
		made, err := im.Import(into(ctx), src, o, o.Key, t.Copy)
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
	e.How = "stream"
	return e, gone(o.Key, stream(ctx, src, dst, o, t.Copy, moved))
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

// stream copies an object through this process.
func stream(ctx context.Context, src, dst object.Store, o object.Info, opts object.ImportOptions, moved *atomic.Int64) (err error) {
	r, info, err := src.Get(from(ctx), o.Key, 0, -1)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}()
	if info.ETag != o.ETag || info.Size != o.Size {
		return fmt.Errorf("%w: it has %d bytes and ETag %q, and had %d and %q", object.ErrChanged, info.Size, info.ETag, o.Size, o.ETag)
	}
	attrs := info.Attrs
	if opts.Replace {
		attrs = opts.Attrs
	}
	return place(into(ctx), dst, opts.IfNone, o.Key, &steady{ctx: from(ctx), r: paced(ctx, r), src: src, o: o, moved: moved}, o.Size, attrs)
}

// steady reads an object that must be the same when it has been read: where a store's
// objects are files, somebody may write to one that is open. Its last byte is given only
// then, so that what was put together of two versions is never whole.
type steady struct {
	ctx   context.Context
	r     io.Reader
	src   object.Store
	o     object.Info
	moved *atomic.Int64
	n     int64
	same  bool
}

func (s *steady) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.moved.Add(int64(n))
	if s.n < s.o.Size || s.same {
		return n, err
	}
	if _, local := s.src.(object.Local); local {
		now, err := s.src.Head(s.ctx, s.o.Key)
		if err != nil {
			return 0, err
		}
		if now.ETag != s.o.ETag {
			return 0, fmt.Errorf("%w while it was read", object.ErrChanged)
		}
	}
	s.same = true
	return n, err
}

// remove is the handler of [KindDelete].
func (w *worker) remove(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	t, err := read[task]("job", job.Spec)
	if err != nil {
		return myrmidon.Result{}, err
	}
	dst, err := w.open(t.Destination)
	if err != nil {
		return myrmidon.Result{}, err
	}
	var keys []string
	for i := range job.Items() {
		if int(i-job.First) < len(t.Objects) {
			keys = append(keys, string(t.Objects[i-job.First].Key))
		}
	}
	book := w.runs.open(job.Run, t.Limits)
	failed, err := Remove(into(book.with(ctx)), dst, keys)
	if err != nil {
		return myrmidon.Result{Usage: myrmidon.Usage{Requests: book.requests()}}, err
	}
	res, err := w.each(ctx, job, func(_ context.Context, _ *task, o object.Info, _ *atomic.Int64) (Evidence, error) {
		return Evidence{Action: "delete", Destination: o.ETag}, failed[o.Key]
	})
	res.Usage.Requests = addUp(res.Usage.Requests, book.requests())
	return res, err
}

// Remove deletes objects, with a request for each thousand where the store has one. failed
// says why some are not deleted; the error, why hardly any is.
func Remove(ctx context.Context, s object.Store, keys []string) (failed map[string]error, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	many, ok := s.(interface {
		DeleteMany(ctx context.Context, keys []string) (failed map[string]error, err error)
	})
	if ok {
		return many.DeleteMany(ctx, keys)
	}
	failed = make(map[string]error)
	for _, k := range keys {
		if err := s.Delete(ctx, k); err != nil {
			failed[k] = err
		}
	}
	return failed, ctx.Err()
}

// check is the handler of [KindVerify]: both objects are read, or looked at again where
// the listings differ.
func (w *worker) check(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	return w.each(ctx, job, w.checkOne)
}

func (w *worker) checkOne(ctx context.Context, t *task, o object.Info, moved *atomic.Int64) (Evidence, error) {
	src, err := w.open(t.Source)
	if err != nil {
		return Evidence{}, err
	}
	dst, err := w.open(t.Destination)
	if err != nil {
		return Evidence{}, err
	}
	a, err := digest(from(ctx), src, o.Key, moved)
	if err != nil {
		return Evidence{}, gone(o.Key, fmt.Errorf("verify: read the source: %w", err))
	}
	b, err := digest(into(ctx), dst, o.Key, moved)
	if errors.Is(err, fs.ErrNotExist) {
		return Evidence{}, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q is not in the destination", o.Key), "run the clone again"))
	}
	if err != nil {
		return Evidence{}, fmt.Errorf("verify: read the destination: %w", err)
	}
	if a != b {
		return Evidence{}, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q differs: CRC-64 %s in the source, %s in the destination", o.Key, a, b), "run the clone again with --compare none"))
	}
	return Evidence{Action: "verify", Source: a, Destination: b, How: "read"}, nil
}
