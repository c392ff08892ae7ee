package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"myrmidon"
)

// do carries one delivery to its end. A non-nil error means that the backend failed.
func (w *worker) do(kill context.Context, d Delivery) error {
	job := d.Job()
	// What follows a handler must be stored also when kill has ended.
	store := context.WithoutCancel(kill)
	if kill.Err() != nil {
		return d.Release(store)
	}
	if shut, _ := w.gate.State(); shut {
		return d.Release(store) // pulled in the moment of the pause
	}
	key := heldKeyOf(job)
	if _, twice := w.held.LoadOrStore(key, true); twice {
		// Its lease ended while this process slept (Ctrl-Z, a closed lid), or the tracker has
		// not seen its event yet. The handler that has it extends the lease again, and
		// acknowledges it after its event.
		return nil
	}
	kept := false // the attempt stays held until the tracker has its event
	defer func() {
		if !kept || w.forgetHeld {
			w.held.Delete(key)
		}
	}()
	verdict, err := w.runs.look(store, job, d.Again())
	if err != nil {
		return err
	}
	switch verdict {
	case dropIt:
		return d.Ack(store)
	case holdIt:
		if err := w.backend.Commit(store, Batch{Held: []myrmidon.Job{job}}); err != nil {
			return err
		}
		return d.Ack(store)
	}
	if strings.HasSuffix(job.Kind, planSuffix) {
		return w.plan(kill, d)
	}
	began := time.Now()
	res, err := w.handle(kill, d)
	if !job.Long {
		w.timed(time.Since(began))
	}
	switch {
	case kill.Err() != nil && err != nil:
		// Not the job's failure: it stops with us and counts no attempt.
		return d.Release(store)
	case errors.Is(err, errLater):
		return d.Release(store)
	case errors.Is(err, errRunEnded):
		return w.ended(store, d)
	}
	if err := w.settle(store, job, res, err); err != nil {
		return err
	}
	kept = true
	return d.Ack(store)
}

// ended handles a job whose handler ended because its run seems to have: what was heard may
// be old, so the registry is asked once more.
func (w *worker) ended(ctx context.Context, d Delivery) error {
	verdict, err := w.runs.look(ctx, d.Job(), false)
	if err != nil {
		return err
	}
	if verdict == dropIt {
		return d.Ack(ctx)
	}
	return d.Release(ctx)
}

// errLater says that a job cannot be begun now.
var errLater = errors.New("engine: the job must wait for others of its process")

// errRunEnded says that a handler ended because its run was cancelled.
var errRunEnded = errors.New("engine: the run has ended")

// guard calls fn, with what every handler and planner is given: a context that ends with
// its run, the run's gate, and the lease of d, which is kept meanwhile. A panic becomes an
// error. A job that may have ended a worker is watched: see suspect.go.
func (w *worker) guard(ctx context.Context, d Delivery, fn func(ctx context.Context) error) (err error) {
	job := d.Job()
	within, gate, leave := w.runs.enter(ctx, job.Run)
	defer leave()
	ctx, cancel := context.WithCancel(within)
	defer w.keep(ctx, cancel, d)()
	acquit, err := w.suspect(ctx, d)
	if err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("a handler panicked", "kind", job.Kind, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%s: panic: %v", job.Kind, p)
		}
		acquit()
		if err != nil && within.Err() != nil {
			err = errors.Join(errRunEnded, err)
		}
	}()
	return fn(w.decorate(myrmidon.WithGate(ctx, gate), job.Kind))
}

// handle runs the handler of a job.
func (w *worker) handle(ctx context.Context, d Delivery) (res myrmidon.Result, err error) {
	job := d.Job()
	kind, ok := w.kinds[job.Kind]
	if !ok {
		return res, myrmidon.Permanent(fmt.Errorf("this version of the program knows no jobs of kind %q", job.Kind))
	}
	w.progress(job, myrmidon.Amount{}, false)
	defer func() { w.progress(job, myrmidon.Amount{}, true) }()
	err = w.guard(ctx, d, func(ctx context.Context) (err error) {
		ctx = myrmidon.WithProgress(ctx, func(a myrmidon.Amount) { w.progress(job, a, false) })
		if d.Again() {
			ctx = myrmidon.WithRepeat(ctx)
		}
		if kind.Limit > 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, kind.Limit)
			defer stop()
		}
		res, err = kind.Handler.Handle(ctx, job)
		return err
	})
	return res, err
}

// keep extends the lease of d until the function that it returns is called, which also
// ends ctx. Handlers end stalled work themselves.
func (w *worker) keep(ctx context.Context, cancel context.CancelFunc, d Delivery) (stop func()) {
	var lease sync.WaitGroup
	lease.Go(func() {
		tick := time.NewTicker(w.lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := d.Extend(ctx); err != nil {
					w.log.Warn("could not extend a lease", "job", d.Job().Name, "err", err)
				}
			}
		}
	})
	return func() { cancel(); lease.Wait() }
}

// settle stores what came of a job: first its parked items, then, as one batch, the event
// and the next attempt of the items that failed.
func (w *worker) settle(ctx context.Context, job myrmidon.Job, res myrmidon.Result, err error) error {
	if n := evidenceSize(res); n > maxEvidence {
		err = myrmidon.Permanent(fmt.Errorf("%s returned %d bytes of evidence, at most %d fit an event", job.Kind, n, maxEvidence))
		res.Output, res.Items = nil, nil
	}
	failed, parked, goesOn, failure := w.judge(job, res, err)
	if len(parked) > 0 {
		p := job
		p.Only = parked
		entry := Parked{Job: p, Reason: *failure, Time: time.Now().UTC(), Items: parkedItems(res.Items, parked)}
		if err := park(ctx, w.backend, entry); err != nil {
			return err
		}
	}
	batch := Batch{}
	if left := without(failed, parked); len(left) > 0 {
		next := job
		next.Only = left
		next.Attempt++
		wait := max(backoff(job.Attempt-job.Continued), failure.After)
		if goesOn {
			next.Continued++
			wait = 0
			w.log.Info("a job's time is over, it goes on in another one", "job", job.Name)
		} else {
			w.log.Info("job failed, trying again", "job", job.Name, "attempt", job.Attempt-job.Continued, "in", wait.Round(time.Millisecond), "err", failure)
		}
		batch.Again = []Again{{next, wait}}
	}
	lean := job
	lean.Spec = nil
	batch.Events = []Event{{
		Type: EventResult, Run: job.Run, Time: time.Now().UTC(), Phase: job.Phase, Shard: job.Shard, Epoch: job.Epoch,
		Job: &lean, Result: &res, Failed: failed, Parked: parked, Error: failure, Worker: w.name, Nonce: rand.Uint64(),
	}}
	err = w.backend.Commit(ctx, batch)
	if err == nil || !myrmidon.IsPermanent(err) || len(res.Items) == 0 && res.Output == nil {
		return err
	}
	// What the handler said cannot be stored, as it is no JSON or too large once escaped.
	return w.settle(ctx, job, myrmidon.Result{Usage: res.Usage}, myrmidon.Permanent(fmt.Errorf("%s: its result cannot be stored: %w", job.Kind, err)))
}

// maxEvidence bounds a result so that its event fits a message.
const maxEvidence = 512 << 10

// evidenceSize is about how many bytes a result takes in its event.
func evidenceSize(r myrmidon.Result) int {
	n := len(r.Output)
	for _, it := range r.Items {
		n += 100 + len(it.Name) + len(it.Note)
		if it.Error != nil {
			n += len(it.Error.Message) + len(it.Error.Hint)
		}
	}
	return n
}

// maxReason bounds the text of a failure, which travels in events, parked jobs and leases.
const maxReason = 8 << 10

// clip shortens what a failure says.
func clip(f *myrmidon.Failure) *myrmidon.Failure {
	if f == nil || len(f.Message) <= maxReason && len(f.Hint) <= maxReason {
		return f
	}
	out := *f
	out.Message, out.Hint = clipText(f.Message), clipText(f.Hint)
	return &out
}

func clipText(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "") + "… (cut off)"
}

// judge says which items failed, which of them are parked, and why: a permanent failure
// before one of the moment, and any before that an item goes on. goesOn is set if that is all
// that is the matter with those which are not parked.
func (w *worker) judge(job myrmidon.Job, res myrmidon.Result, err error) (failed, parked []uint32, goesOn bool, failure *myrmidon.Failure) {
	attempts := w.kinds[job.Kind].Attempts
	if attempts == 0 {
		attempts = defaultAttempts
	}
	last := int(job.Attempt)-int(job.Continued) >= attempts
	named := make(map[uint32]*myrmidon.Failure, len(res.Items))
	for i, it := range res.Items {
		res.Items[i].Error = clip(it.Error)
		named[it.Index] = res.Items[i].Error
	}
	whole := clip(myrmidon.AsFailure(err))
	goesOn = true
	for i := range job.Items() {
		f, ok := named[i]
		if !ok {
			f = whole
		}
		if f == nil {
			continue
		}
		failed = append(failed, i)
		if !f.Continue && last || f.Permanent {
			parked = append(parked, i)
		} else {
			goesOn = goesOn && f.Continue
		}
		if failure == nil || failure.Continue && !f.Continue || f.Permanent && !failure.Permanent {
			failure = f
		}
	}
	return failed, parked, goesOn, failure
}

// without returns the elements of a that are not in b; both ascend.
func without(a, b []uint32) (out []uint32) {
	for _, x := range a {
		if _, found := slices.BinarySearch(b, x); !found {
			out = append(out, x)
		}
	}
	return out
}

// backoff is the wait after a failed attempt, from 1: see the package comment.
func backoff(attempt uint32) time.Duration {
	d := backoffBase << min(attempt-1, 20)
	d = min(d, backoffMax)
	return d*3/4 + rand.N(d/2)
}
