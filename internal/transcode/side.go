package transcode

import (
	"context"
	"sync"
)

// sideBySide is how many requests of a job to a store are under way at once: each is a
// round trip, and the sound of two hours has 1,800 segments. With four, a far store
// waits for the encoder or the decoder and not the other way round.
const sideBySide = 4

// inOrder calls get for 0 to n-1, sideBySide at a time, and use with what each gave, one
// after another and in order. The first error in that order ends it; get's context has
// ended then, and no call is left when inOrder returns.
func inOrder[T any](ctx context.Context, n int, get func(ctx context.Context, i int) (T, error), use func(i int, v T) error) error {
	type result struct {
		v   T
		err error
	}
	var calls sync.WaitGroup
	defer calls.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait
	var ring [sideBySide]chan result
	for i := range ring {
		ring[i] = make(chan result, 1)
	}
	start := func(i int) {
		if i < n {
			calls.Go(func() {
				v, err := get(ctx, i)
				ring[i%sideBySide] <- result{v, err}
			})
		}
	}
	for i := range sideBySide {
		start(i)
	}
	for i := range n {
		r := <-ring[i%sideBySide]
		if r.err != nil {
			return r.err
		}
		start(i + sideBySide)
		if err := use(i, r.v); err != nil {
			return err
		}
	}
	return nil
}
