package clone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"sync/atomic"

	"myrmidon"
	"myrmidon/internal/limit"
	"myrmidon/object"
)

// remove is the handler of [KindDelete]. It asks the source for each object once more: a
// listing that passes over a key looks like one of a source that does not have it, and by
// now the source may have got it.
func (w *worker) remove(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	t, err := w.opened(job)
	if err != nil {
		return myrmidon.Result{}, err
	}
	var keys []string
	for i := range job.Items() {
		keys = append(keys, string(t.Objects[i-job.First].Key))
	}
	book := w.runs.open(job.Run, t.Limits)
	within := book.with(ctx)
	sent := func() myrmidon.Usage { return myrmidon.Usage{Requests: book.requests()} }
	kept, err := doubtful(from(within), t.src, limit.Of(ctx, limit.Destination(t.Source)), keys)
	if err != nil {
		return myrmidon.Result{Usage: sent()}, err
	}
	surely := make([]string, 0, len(keys))
	for _, k := range keys {
		if kept[k] == nil {
			surely = append(surely, k)
		}
	}
	failed, err := Remove(into(within), t.dst, surely)
	if err != nil {
		return myrmidon.Result{Usage: sent()}, err
	}
	maps.Copy(kept, failed)
	res, err := w.each(ctx, job, func(_ context.Context, _ *opened, o object.Info, _ *atomic.Int64) (Evidence, error) {
		return Evidence{Action: "delete", Destination: o.ETag}, kept[o.Key]
	})
	res.Usage.Requests = addUp(res.Usage.Requests, book.requests())
	return res, err
}

// doubtful asks a source for keys that its listing did not have, and says of those that
// may be there after all why they are not deleted. The error is that of ctx.
func doubtful(ctx context.Context, src object.Store, permits *limit.Limiter, keys []string) (map[string]error, error) {
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		out = make(map[string]error)
	)
	for _, k := range keys {
		permit, err := permits.Acquire(ctx)
		if err != nil {
			break // ctx has ended: said below
		}
		wg.Go(func() {
			_, err := src.Head(ctx, k)
			permit.Release(outcome(err))
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, object.ErrKey): // nor could it have it
				return
			case err == nil:
				err = myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q is in the source, whose listing did not have it, and is not deleted", k), "run the clone again"))
			default:
				err = fmt.Errorf("%q is not deleted, since it is not certain that the source does not have it: %w", k, err)
			}
			mu.Lock()
			defer mu.Unlock()
			out[k] = err
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

// Remove deletes objects, with a request for each thousand where the store has one. failed
// says why some are not deleted; the error, why hardly any is.
func Remove(ctx context.Context, s object.Store, keys []string) (failed map[string]error, err error) {
	failed = make(map[string]error)
	if len(keys) == 0 {
		return failed, nil
	}
	many, ok := s.(interface {
		DeleteMany(ctx context.Context, keys []string) (failed map[string]error, err error)
	})
	if ok {
		return many.DeleteMany(ctx, keys)
	}
	for _, k := range keys {
		if err := s.Delete(ctx, k); err != nil {
			failed[k] = err
		}
	}
	return failed, ctx.Err()
}
