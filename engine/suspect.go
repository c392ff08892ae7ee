package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"myrmidon"
)

// A job that ends its process (a crash in a C library, memory without end) has no handler
// that could report it. It comes again when its lease ends, and would end one worker
// after the other. Deliveries cannot tell it from its neighbours, which were pulled with
// it and died with it, nor from jobs that were given back. So what is counted is starts:
// before the handler of a job that may have been handed out before is called, the start
// is stored; when the handler has returned, in whatever way, the count is taken back.
//
// A job with suspectStarts starts that had no end runs alone in its process, so that its
// neighbours are acquitted and only the guilty one is left. One with poisonStarts is
// parked, if they took as long as that many leases do: a process that is killed again and
// again within seconds is killed by others, and a job that takes long is what they hit.
const (
	suspectStarts = 2
	poisonStarts  = 20
)

// startCount is what is stored of a job's starts that had no end.
type startCount struct {
	Starts int       `json:"starts"`
	Since  time.Time `json:"since"` // the first
}

func startsPrefix(run string) string { return "starts/" + run + "/" }

func startsKey(j myrmidon.Job) string {
	k := heldKeyOf(j)
	return fmt.Sprintf("%s%s-%d-%d-%d-%d-%d", startsPrefix(j.Run), strings.ReplaceAll(j.Kind, ".", "-"), k.phase, k.shard, k.first, k.attempt, k.epoch)
}

// aloneWait is how long a suspect waits for the jobs beside it; then another worker may
// have it. Longer would stop those that wait behind it while a paused one is under way.
const aloneWait = 10 * time.Second

// lockAlone takes the process for one job, if it can be had in time. It does not queue: a
// waiting writer would keep new readers out.
func (w *worker) lockAlone(ctx context.Context) bool {
	for deadline := time.Now().Add(aloneWait); !w.alone.TryLock(); {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// suspect counts a start of a job that may have been handed out before. acquit is called
// when its handler has returned. The error is that of a job which is poison.
func (w *worker) suspect(ctx context.Context, d Delivery) (acquit func(), err error) {
	if !d.Again() {
		w.alone.RLock()
		return w.alone.RUnlock, nil
	}
	job := d.Job()
	key := startsKey(job)
	var past startCount
	data, err := w.backend.Value(ctx, key)
	switch {
	case err == nil:
		if json.Unmarshal(data, &past) != nil || past.Since.After(time.Now()) {
			past = startCount{} // not ours, or of a clock that was set back
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if past.Since.IsZero() {
		past.Since = time.Now().UTC()
	}
	starts := past.Starts
	if starts >= poisonStarts && time.Since(past.Since) >= poisonStarts*w.lease/2 {
		return nil, myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("%s: %d workers ended while they did this job, the last times with no other job beside it", job.Kind, starts+1),
			"look into the workers' logs and the kernel's (out of memory?); when the cause is gone, give it another try with myrmidon parked retry"))
	}
	unlock := w.alone.RUnlock
	if starts >= suspectStarts {
		w.log.Warn("a job has ended its worker before, or was with one that did; it runs alone", "job", job.Name, "kind", job.Kind, "run", job.Run, "starts", starts)
		if !w.lockAlone(ctx) {
			return nil, errLater
		}
		unlock = w.alone.Unlock
	} else {
		w.alone.RLock()
	}
	// Counted when it has its place: what only waited for it is not to blame.
	past.Starts++
	if data, err = json.Marshal(past); err == nil {
		err = w.backend.Set(ctx, key, data)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return func() {
		unlock()
		if err := w.backend.Unset(context.WithoutCancel(ctx), key); err != nil {
			w.log.Warn("could not take back the count of a job's starts", "job", job.Name, "err", err)
		}
	}, nil
}
