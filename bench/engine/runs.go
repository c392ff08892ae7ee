package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

// whole is a run on a backend of its own: owner, tracker and a worker, as a command has
// them. Its one kind is bench.job.
type whole struct {
	run     *engine.Run
	backend *counted
	id      string
	dir     string
}

// startWhole starts a run below dir whose jobs plan makes and handle does.
func startWhole(ctx context.Context, dir string, level jetstream.Durability, slots int, plan myrmidon.PlannerFunc, handle myrmidon.HandlerFunc) (_ *whole, err error) {
	w := &whole{backend: new(counted)}
	if w.dir, err = os.MkdirTemp(dir, "run-*"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(w.dir))
		}
	}()
	state, err := engine.OpenState(w.dir)
	if err != nil {
		return nil, err
	}
	load := myrmidon.Workload{
		Name: benchLane.Workload, Version: benchLane.Version, Planner: plan,
		Phases: []myrmidon.Phase{{Name: "only"}},
		Kinds:  []myrmidon.Kind{{Name: "bench.job", Handler: handle, Attempts: 100}},
	}
	home, err := state.Create(engine.Info{Workload: load.Name, Version: load.Version, Title: "bench", Spec: json.RawMessage(`{}`)})
	if err != nil {
		return nil, err
	}
	w.id = home.RunID()
	w.run, err = engine.Start(ctx, home, engine.RunConfig{
		Workload: load,
		Slots:    engine.NewSlots(slots),
		Open: func(ctx context.Context, dir string) (engine.Backend, error) {
			b, err := jetstream.Open(ctx, jetstream.Config{Dir: dir, Durability: level})
			w.backend.Backend = b
			return w.backend, err
		},
	})
	if err != nil {
		return nil, errors.Join(err, home.Unlock())
	}
	return w, nil
}

// stop cancels the run, whatever it still has to do.
func (w *whole) stop() error {
	w.run.Cancel()
	_, err := w.run.Wait()
	return errors.Join(err, os.RemoveAll(w.dir))
}

// await waits until the run has told something over ready.
func (w *whole) await(ctx context.Context, what string, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
	case <-w.run.Done():
		_, err := w.run.Wait()
		return errors.Join(fmt.Errorf("the run ended before %s", what), err)
	}
}

// counted counts the pulls that brought something, and what they brought.
type counted struct {
	engine.Backend
	fresh, retries pulls
}

type pulls struct{ n, jobs atomic.Int64 }

func (c *counted) Pull(ctx context.Context, req engine.PullRequest) ([]engine.Delivery, error) {
	ds, err := c.Backend.Pull(ctx, req)
	if len(ds) > 0 {
		p := &c.fresh
		if req.Retries {
			p = &c.retries
		}
		p.n.Add(1)
		p.jobs.Add(int64(len(ds)))
	}
	return ds, err
}

// endless is a plan that goes on until its run is cancelled: the jobs come from fill. A
// plan's own slices are asked for as its jobs are done, and make no backlog.
func endless(ctx context.Context, _ myrmidon.Step) (myrmidon.Slice, error) {
	<-ctx.Done()
	return myrmidon.Slice{}, ctx.Err()
}

// fill stores n jobs of the run.
func (w *whole) fill(ctx context.Context, n int) error {
	jobs, err := benchJobs(w.id, n)
	if err == nil {
		_, err = enqueueSlices(ctx, w.backend, jobs)
	}
	return err
}

// handlerJobs is how many jobs handlerLatency takes the time of.
const handlerJobs = 101

// handlerLatency returns the median time from the commit of a job to its handler, in a
// run that is idle but for it: through the owner's worker and tracker.
func handlerLatency(ctx context.Context, dir string, level jetstream.Durability) (_ time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stuck, fmt.Errorf("not done after %v", stuck))
	defer cancel()
	began := make(chan time.Time, 1)
	w, err := startWhole(ctx, dir, level, 2, endless,
		func(context.Context, myrmidon.Job) (myrmidon.Result, error) {
			began <- time.Now()
			return myrmidon.Result{}, nil
		})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	var took []time.Duration
	for i := range handlerJobs {
		j, err := benchJob(w.id, i)
		if err != nil {
			return 0, err
		}
		time.Sleep(10 * time.Millisecond) // until the former job's end is stored and the worker waits again
		start := time.Now()
		if err := w.backend.Commit(ctx, engine.Batch{Jobs: []myrmidon.Job{j}}); err != nil {
			return 0, err
		}
		select {
		case at := <-began:
			took = append(took, at.Sub(start))
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-w.run.Done():
			return 0, errors.New("the run ended before its handler was called")
		}
	}
	return median(took), nil
}

const (
	behind     = 100_000              // jobs that wait when the retry is due
	behindJobs = behind + 30_000      // of which some are done before
	retryWait  = 3 * time.Second      // that the job which fails asks for
	behindWork = 2 * time.Millisecond // of each handler
	behindSlot = 5                    // one holds the plan
)

// retryBehind returns how long after its wait a job that failed once is done, in batch
// times, while behind fresh jobs wait: the time in which the worker does as many jobs as
// it pulls at once.
func retryBehind(ctx context.Context, dir string) (batches float64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stuck, fmt.Errorf("not done after %v", stuck))
	defer cancel()
	filled, done := make(chan struct{}), make(chan struct{})
	var failedAt, doneAt time.Time
	var handled, before, after atomic.Int64
	w, err := startWhole(ctx, dir, jetstream.Process, behindSlot, endless,
		func(ctx context.Context, j myrmidon.Job) (myrmidon.Result, error) {
			if j.First != 0 {
				time.Sleep(behindWork)
				handled.Add(1)
				return myrmidon.Result{}, nil
			}
			if j.Attempt > 1 {
				doneAt = time.Now()
				after.Store(handled.Load())
				close(done)
				return myrmidon.Result{}, nil
			}
			select {
			case <-filled:
			case <-ctx.Done():
				return myrmidon.Result{}, ctx.Err()
			}
			failedAt = time.Now()
			before.Store(handled.Load())
			return myrmidon.Result{}, myrmidon.RetryAfter(errors.New("once"), retryWait)
		})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	if err := w.fill(ctx, behindJobs); err != nil {
		return 0, err
	}
	close(filled)
	if err := w.await(ctx, "the retry", done); err != nil {
		return 0, err
	}
	if left := behindJobs - after.Load(); left < behind {
		return 0, fmt.Errorf("only %d jobs were left when the retry was done", left)
	}
	took := doneAt.Sub(failedAt)
	if took < retryWait {
		return 0, fmt.Errorf("tried again after %v; it had asked for %v", took, retryWait)
	}
	each := float64(took) / float64(after.Load()-before.Load())
	// As many as make 200 ms of work, as package engine has it, but no more than a pull brings.
	batch := min(float64(behindSlot)*float64(200*time.Millisecond)/float64(behindWork), engine.MaxPull)
	return float64(took-retryWait) / (each * batch), nil
}

const (
	stormJobs = 150_000
	stormTime = 4 * time.Second
)

// storm is what a worker pulls while half of all jobs fail and are tried again.
type storm struct {
	pulls float64 // share of fresh jobs in the pulls that brought something, in percent
	jobs  float64 // their share in what was brought, in percent
}

// retryStorm runs jobs every second of which fails, at each attempt, and looks at what the
// worker pulls from when the first retries are due.
func retryStorm(ctx context.Context, dir string) (s storm, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stuck, fmt.Errorf("not done after %v", stuck))
	defer cancel()
	due := make(chan struct{})
	var seen atomic.Bool
	w, err := startWhole(ctx, dir, jetstream.Process, 64, endless,
		func(_ context.Context, j myrmidon.Job) (myrmidon.Result, error) {
			if j.Attempt > 1 && !seen.Swap(true) {
				close(due)
			}
			time.Sleep(5 * time.Millisecond)
			if (j.First+j.Attempt)*2654435761>>16&1 == 1 { // half of all, and half of these again
				return myrmidon.Result{}, errors.New("one of a storm")
			}
			return myrmidon.Result{}, nil
		})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	if err := w.fill(ctx, stormJobs); err != nil {
		return s, err
	}
	if err := w.await(ctx, "the first retry", due); err != nil {
		return s, err
	}
	b := w.backend
	fresh, again, freshJobs, againJobs := b.fresh.n.Load(), b.retries.n.Load(), b.fresh.jobs.Load(), b.retries.jobs.Load()
	timer := time.NewTimer(stormTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return s, context.Cause(ctx)
	case <-w.run.Done():
		return s, errors.New("the run ended during the storm")
	}
	if b.fresh.jobs.Load() >= stormJobs {
		return s, errors.New("no fresh job was left at the end of the storm")
	}
	fresh, again = b.fresh.n.Load()-fresh, b.retries.n.Load()-again
	freshJobs, againJobs = b.fresh.jobs.Load()-freshJobs, b.retries.jobs.Load()-againJobs
	if again == 0 {
		return s, errors.New("no retry was pulled: this was no storm")
	}
	percent := func(a, b int64) float64 { return 100 * float64(a) / float64(a+b) }
	return storm{percent(fresh, again), percent(freshJobs, againJobs)}, nil
}
