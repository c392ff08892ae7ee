package transcode

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"time"

	"myrmidon"
)

// What a job has encoded when a store fails for a moment is worth minutes, so that the
// request is made again at once before the whole job is. Stores try again themselves;
// this is for what takes them longer, and for stores that do not.
const (
	storeTries   = 4
	firstPause   = 100 * time.Millisecond // 0.1, 0.4, 1.6 s; each between half and all of it
	longestPause = 5 * time.Second        // what asks for more gives the slot to another job
)

// again calls do until it succeeds, four times at most. An error that another attempt
// cannot help ends it: a permanent one, what is not there, the end of ctx.
func again(ctx context.Context, do func() error) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := do()
		if err == nil || try == storeTries || ctx.Err() != nil || myrmidon.IsPermanent(err) || errors.Is(err, fs.ErrNotExist) {
			return err
		}
		wait := max(pause/2+rand.N(pause/2), myrmidon.AsFailure(err).After)
		if wait > longestPause {
			return err
		}
		pause *= 4
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
