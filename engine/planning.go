package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"myrmidon"
)

// planSuffix ends the kind of the jobs that plan: "<workload>.plan".
const planSuffix = ".plan"

// planSpec is the spec of a plan job.
type planSpec struct {
	Step   uint32          `json:"step"` // slices stored before this one
	Next   uint32          `json:"next"`
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

func planJob(load myrmidon.Workload, run string, phase, shard, epoch uint32, s planSpec) (myrmidon.Job, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return myrmidon.Job{}, fmt.Errorf("engine: plan of run %s: %w", run, err)
	}
	return myrmidon.Job{
		Kind: load.Name + planSuffix, Version: load.Version, Run: run, Phase: phase, Shard: shard, Epoch: epoch, Attempt: 1, Name: "plan", Spec: spec,
		First: s.Step, // no item, but each step is a job of its own
	}, nil
}

// plan runs the planner for one slice and stores it.
func (w *worker) plan(kill context.Context, d Delivery) error {
	store := context.WithoutCancel(kill)
	job := d.Job()
	var at planSpec
	if err := json.Unmarshal(job.Spec, &at); err != nil {
		return w.planFailed(store, d, myrmidon.Permanent(fmt.Errorf("plan job: %w", err)))
	}
	cursor, err := w.backend.Cursor(store, job.Run, job.Phase, job.Shard)
	if err != nil {
		return err
	}
	if cursor.Steps > at.Step {
		return d.Ack(store) // the slice, its event and its continuation are stored
	}
	slice, err := w.slice(kill, d, at)
	switch {
	case kill.Err() != nil && err != nil:
		return d.Release(store)
	case errors.Is(err, errLater):
		return d.Release(store)
	case errors.Is(err, errRunEnded):
		return w.ended(store, d)
	case err != nil:
		return w.planFailed(store, d, err)
	}
	jobs, event, err := w.number(job, at, slice)
	if err != nil {
		return w.planFailed(store, d, myrmidon.Permanent(err))
	}
	cursor.Run, cursor.Phase, cursor.Shard, cursor.Steps = job.Run, job.Phase, job.Shard, at.Step+1
	err = w.backend.Commit(store, Batch{Jobs: jobs, Events: []Event{event}, Next: cursor})
	if err != nil && myrmidon.IsPermanent(err) {
		return w.planFailed(store, d, err) // too large, or no JSON
	}
	if err != nil && !errors.Is(err, ErrStaleSlice) {
		return err
	}
	return d.Ack(store)
}

func (w *worker) slice(ctx context.Context, d Delivery, at planSpec) (s myrmidon.Slice, err error) {
	job := d.Job()
	load, ok := w.plans[job.Kind]
	if !ok {
		return s, myrmidon.Permanent(fmt.Errorf("this version of the program knows no jobs of kind %q", job.Kind))
	}
	spec, err := w.runs.spec(job.Run)
	if err != nil {
		return s, err
	}
	err = w.guard(ctx, d, func(ctx context.Context) (err error) {
		s, err = load.Planner.Plan(ctx, myrmidon.Step{
			Run: job.Run, Spec: spec, Phase: job.Phase, Shard: job.Shard, Next: at.Next, Cursor: at.Cursor,
		})
		return err
	})
	return s, err
}

// number gives a slice's jobs their addresses and adds the plan jobs of its children
// and of its continuation.
func (w *worker) number(job myrmidon.Job, at planSpec, s myrmidon.Slice) ([]myrmidon.Job, Event, error) {
	if n := len(s.Jobs) + len(s.Children); n > MaxSliceJobs {
		return nil, Event{}, fmt.Errorf("engine: the planner of %s returned %d jobs and shards in one slice, at most %d fit", job.Kind, n, MaxSliceJobs)
	}
	e := Event{
		Type: EventPlanned, Run: job.Run, Time: time.Now().UTC(), Phase: job.Phase, Shard: job.Shard, Epoch: job.Epoch,
		Step: at.Step + 1, Done: s.Done, Group: s.Group, Children: s.Children, Note: s.Note, Worker: w.name,
		Result: &myrmidon.Result{Usage: s.Usage}, Nonce: rand.Uint64(),
	}
	load := w.plans[job.Kind]
	next := at.Next
	jobs := make([]myrmidon.Job, 0, len(s.Jobs)+len(s.Children)+1)
	// Plans go before work: how much there is, is known early, and long jobs do not keep
	// the other shards waiting.
	for _, c := range s.Children {
		if c.ID == RootShard || c.ID == job.Shard {
			return nil, Event{}, fmt.Errorf("engine: the planner of %s opened shard %d, which is taken", job.Kind, c.ID)
		}
		j, err := planJob(load, job.Run, job.Phase, c.ID, job.Epoch, planSpec{Cursor: c.Cursor})
		if err != nil {
			return nil, Event{}, err
		}
		jobs = append(jobs, j)
	}
	for _, p := range s.Jobs {
		j := myrmidon.Job{
			Kind: p.Kind, Version: load.Version, Long: w.kinds[p.Kind].Long, Run: job.Run, Phase: job.Phase, Shard: job.Shard, First: next, Count: max(p.Count, 1),
			Attempt: 1, Epoch: job.Epoch, Name: p.Name, Units: p.Units, Spec: p.Spec,
		}
		jobs = append(jobs, j)
		next += j.Count
		e.Units += p.Units
	}
	e.Next = next
	for i := range e.Children {
		e.Children[i].Cursor = nil // only the plan job needs it
	}
	if !s.Done {
		j, err := planJob(load, job.Run, job.Phase, job.Shard, job.Epoch, planSpec{Step: at.Step + 1, Next: next, Cursor: s.Cursor})
		if err != nil {
			return nil, Event{}, err
		}
		jobs = append(jobs, j)
	}
	return jobs, e, CheckBatch(Batch{Jobs: jobs, Events: []Event{e}})
}

// planFailed stores another try of a slice, or parks the shard's plan.
func (w *worker) planFailed(ctx context.Context, d Delivery, err error) error {
	job, f := d.Job(), clip(myrmidon.AsFailure(err))
	if !f.Permanent && job.Attempt < defaultAttempts {
		next := job
		next.Attempt++
		if err := w.backend.Commit(ctx, Batch{Again: []Again{{next, max(backoff(job.Attempt), f.After)}}}); err != nil {
			return err
		}
		return d.Ack(ctx)
	}
	if err := park(ctx, w.backend, Parked{Job: job, Reason: *f, Time: time.Now().UTC()}); err != nil {
		return err
	}
	event := Event{
		Type: EventPlanned, Run: job.Run, Time: time.Now().UTC(), Phase: job.Phase, Shard: job.Shard, Epoch: job.Epoch,
		Step: job.First + 1, Error: f, Worker: w.name, Nonce: rand.Uint64(),
	}
	if err := w.backend.Commit(ctx, Batch{Events: []Event{event}}); err != nil {
		return err
	}
	return d.Ack(ctx)
}
