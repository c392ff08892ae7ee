package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
)

// planSuffix ends the kind of the jobs that plan: "<workload>.plan".
const planSuffix = ".plan"

const (
	defaultAttempts = 3
	backoffBase     = time.Second
	backoffMax      = 5 * time.Minute
	// idleWait is how long a worker without work waits unless something happens in its
	// run: it bounds how late a retry starts.
	idleWait = time.Second
)

// Slots bounds the jobs that run at once. Workers of several runs may share one.
type Slots chan struct{}

// NewSlots returns n slots; n < 1 is 1.
func NewSlots(n int) Slots { return make(Slots, max(n, 1)) }

// workerConfig is what a worker needs. See owner.go for who fills it.
type workerConfig struct {
	name     string
	backend  Backend
	workload myrmidon.Workload
	spec     func(run string) (json.RawMessage, error)
	slots    Slots
	gate     *myrmidon.Gate
	// stale says whether a delivered job needs no handler.
	stale func(myrmidon.Job) bool
	// progress is told of each running job: with an amount while it runs, with done
	// when it has ended.
	progress func(job myrmidon.Job, a myrmidon.Amount, done bool)
	// held are the attempts (heldKey) whose handlers run, or whose events the tracker has
	// not seen yet; whoever feeds the tracker removes those.
	held *sync.Map
	// idle waits until there may be work, idleWait at most.
	idle  func(context.Context)
	lease time.Duration
	log   *slog.Logger
}

// worker pulls jobs and runs their handlers.
//
//	pull ──► slot ──► stale? ──yes──────────────────────────────────► ack
//	                    │ no
//	                 handler ──ok──► event ─────────────────────────► ack
//	                    └──failed──► park | store next attempt ─► event ─► ack
type worker struct {
	workerConfig
	kinds map[string]myrmidon.Kind
	long  bool
	pulls atomic.Uint64
}

// heldKey names one attempt of a job.
type heldKey struct {
	run                                 string
	phase, shard, first, attempt, epoch uint32
}

func heldKeyOf(j myrmidon.Job) heldKey {
	k := heldKey{j.Run, j.Phase, j.Shard, j.First, j.Attempt, j.Epoch}
	if len(j.Only) > 0 {
		k.first = j.Only[0]
	}
	return k
}

func newWorker(cfg workerConfig) *worker {
	w := &worker{workerConfig: cfg, kinds: make(map[string]myrmidon.Kind)}
	for _, k := range cfg.workload.Kinds {
		w.kinds[k.Name] = k
		w.long = w.long || k.Long
	}
	return w
}

// run works until drain ends, then waits for the jobs it holds. When kill ends, the
// handlers' contexts end too, and what they held is left for another worker. The error
// is one of the backend: without it no work is possible.
//
// When the backend fails, abort ends the other jobs too: what they do could not be told.
func (w *worker) run(drain, kill context.Context, abort func()) (err error) {
	var jobs sync.WaitGroup
	defer func() {
		if err != nil {
			abort()
		}
		jobs.Wait()
	}()
	fail := make(chan error, 1)
	for {
		select {
		case err := <-fail:
			return err
		default:
		}
		if err := w.gate.Wait(drain); err != nil {
			return w.lastError(fail, &jobs)
		}
		select {
		case w.slots <- struct{}{}:
		case <-drain.Done():
			return w.lastError(fail, &jobs)
		case err := <-fail:
			return err
		}
		ds, err := w.pull(drain)
		if err != nil && drain.Err() == nil {
			<-w.slots
			return err
		}
		if len(ds) == 0 {
			// Without the slot: another run of this process may have work for it.
			<-w.slots
			w.idle(drain)
			continue
		}
		jobs.Go(func() {
			defer func() { <-w.slots }()
			for _, d := range ds {
				if err := w.do(kill, d); err != nil {
					select {
					case fail <- err:
					default:
					}
					return
				}
			}
		})
	}
}

func (w *worker) lastError(fail chan error, jobs *sync.WaitGroup) error {
	jobs.Wait()
	select {
	case err := <-fail:
		return err
	default:
		return nil
	}
}

// pull takes jobs for one slot, without waiting: one where jobs are long, else a handful.
// Every second pull looks at the retries first; each falls back to the other kind.
func (w *worker) pull(ctx context.Context) ([]Delivery, error) {
	req := PullRequest{N: 16, Retries: w.pulls.Add(1)%2 == 0}
	if w.long {
		req.N = 1
	}
	ds, err := w.backend.Pull(ctx, req)
	if len(ds) > 0 || err != nil {
		return ds, err
	}
	req.Retries = !req.Retries
	return w.backend.Pull(ctx, req)
}

// do carries one delivery to its end. A non-nil error means that the backend failed.
func (w *worker) do(kill context.Context, d Delivery) error {
	job := d.Job()
	if kill.Err() != nil {
		return d.Release(context.WithoutCancel(kill))
	}
	// What follows a handler must be stored also when kill has ended.
	store := context.WithoutCancel(kill)
	if shut, _ := w.gate.State(); shut {
		return d.Release(store) // pulled in the moment of the pause
	}
	if strings.HasSuffix(job.Kind, planSuffix) {
		return w.plan(kill, d)
	}
	if w.stale(job) {
		return d.Ack(store)
	}
	key := heldKeyOf(job)
	if _, twice := w.held.LoadOrStore(key, true); twice {
		// Its lease ended while this process slept (Ctrl-Z, a closed lid). The handler that
		// has it extends the lease again, and acknowledges it after its event.
		return nil
	}
	res, err := w.handle(kill, d)
	if kill.Err() != nil && err != nil {
		// Not the job's failure: it stops with us and counts no attempt.
		w.held.Delete(key)
		return d.Release(store)
	}
	if err := w.settle(store, job, res, err); err != nil {
		w.held.Delete(key)
		return err
	}
	return d.Ack(store)
}

// handle runs the handler, keeps the lease and turns a panic into an error.
func (w *worker) handle(ctx context.Context, d Delivery) (res myrmidon.Result, err error) {
	job := d.Job()
	kind, ok := w.kinds[job.Kind]
	if !ok {
		return res, myrmidon.Permanent(fmt.Errorf("this version of the program knows no jobs of kind %q", job.Kind))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer w.keep(ctx, cancel, d)()
	ctx = myrmidon.WithGate(ctx, w.gate)
	ctx = myrmidon.WithProgress(ctx, func(a myrmidon.Amount) { w.progress(job, a, false) })
	w.progress(job, myrmidon.Amount{}, false)
	defer func() { w.progress(job, myrmidon.Amount{}, true) }()
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("a handler panicked", "kind", job.Kind, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%s: panic: %v", job.Kind, p)
		}
	}()
	return kind.Handler.Handle(ctx, job)
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

// settle stores what came of a job: parked items, the next attempt of those that failed,
// then the event. The next attempt is stored before the event that tells of this one:
// a crash between them costs a second try, never the item.
func (w *worker) settle(ctx context.Context, job myrmidon.Job, res myrmidon.Result, err error) error {
	if n := len(res.Output); n > myrmidon.MaxJobSpec {
		err = myrmidon.Permanent(fmt.Errorf("%s returned an output of %d bytes, at most %d fit an event", job.Kind, n, myrmidon.MaxJobSpec))
		res.Output = nil
	}
	failed, parked, failure := w.judge(job, res, err)
	if len(parked) > 0 {
		p := job
		p.Only = parked
		if err := park(ctx, w.backend, Parked{Job: p, Reason: *failure, Time: time.Now().UTC()}); err != nil {
			return err
		}
	}
	if again := without(failed, parked); len(again) > 0 {
		next := job
		next.Only = again
		next.Attempt++
		wait := max(backoff(job.Attempt), failure.After)
		w.log.Info("job failed, trying again", "job", job.Name, "attempt", job.Attempt, "in", wait.Round(time.Millisecond), "err", failure)
		if err := w.backend.Retry(ctx, next, time.Now().Add(wait)); err != nil {
			return err
		}
	}
	lean := job
	lean.Spec = nil
	return w.backend.Append(ctx, Event{
		Type: EventResult, Run: job.Run, Time: time.Now().UTC(), Phase: job.Phase, Shard: job.Shard, Epoch: job.Epoch,
		Job: &lean, Result: &res, Failed: failed, Parked: parked, Error: failure, Worker: w.name,
	})
}

// judge says which items failed, which of them are parked, and why.
func (w *worker) judge(job myrmidon.Job, res myrmidon.Result, err error) (failed, parked []uint32, failure *myrmidon.Failure) {
	attempts := w.kinds[job.Kind].Attempts
	if attempts == 0 {
		attempts = defaultAttempts
	}
	last := int(job.Attempt) >= attempts
	named := make(map[uint32]*myrmidon.Failure, len(res.Items))
	for _, it := range res.Items {
		named[it.Index] = it.Error
	}
	whole := myrmidon.AsFailure(err)
	for i := range job.Items() {
		f, ok := named[i]
		if !ok {
			f = whole
		}
		if f == nil {
			continue
		}
		failed = append(failed, i)
		if last || f.Permanent {
			parked = append(parked, i)
		}
		if failure == nil || f.Permanent && !failure.Permanent {
			failure = f
		}
	}
	return failed, parked, failure
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

// planSpec is the spec of a plan job.
type planSpec struct {
	Step   uint32          `json:"step"` // slices stored before this one
	Next   uint32          `json:"next"`
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

func planJob(workload, run string, phase, shard, epoch uint32, s planSpec) (myrmidon.Job, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return myrmidon.Job{}, fmt.Errorf("engine: plan of run %s: %w", run, err)
	}
	return myrmidon.Job{
		Kind: workload + planSuffix, Run: run, Phase: phase, Shard: shard, Epoch: epoch, Attempt: 1, Name: "plan", Spec: spec,
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
	if kill.Err() != nil && err != nil {
		return d.Release(store)
	}
	if err != nil {
		return w.planFailed(store, d, err)
	}
	jobs, event, err := w.number(job, at, slice)
	if err != nil {
		return w.planFailed(store, d, myrmidon.Permanent(err))
	}
	cursor.Run, cursor.Phase, cursor.Shard, cursor.Steps = job.Run, job.Phase, job.Shard, at.Step+1
	err = w.backend.EnqueueSlice(store, jobs, event, cursor)
	if err != nil && !errors.Is(err, ErrStaleSlice) {
		return err
	}
	return d.Ack(store)
}

func (w *worker) slice(ctx context.Context, d Delivery, at planSpec) (s myrmidon.Slice, err error) {
	job := d.Job()
	spec, err := w.spec(job.Run)
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer w.keep(ctx, cancel, d)()
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("a planner panicked", "kind", job.Kind, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%s: panic: %v", job.Kind, p)
		}
	}()
	return w.workload.Planner.Plan(myrmidon.WithGate(ctx, w.gate), myrmidon.Step{
		Run: job.Run, Spec: spec, Phase: job.Phase, Shard: job.Shard, Next: at.Next, Cursor: at.Cursor,
	})
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
		Result: &myrmidon.Result{Usage: s.Usage},
	}
	next := at.Next
	jobs := make([]myrmidon.Job, 0, len(s.Jobs)+len(s.Children)+1)
	// Plans go before work: how much there is, is known early, and long jobs do not keep
	// the other shards waiting.
	for _, c := range s.Children {
		if c.ID == RootShard || c.ID == job.Shard {
			return nil, Event{}, fmt.Errorf("engine: the planner of %s opened shard %d, which is taken", job.Kind, c.ID)
		}
		j, err := planJob(w.workload.Name, job.Run, job.Phase, c.ID, job.Epoch, planSpec{Cursor: c.Cursor})
		if err != nil {
			return nil, Event{}, err
		}
		jobs = append(jobs, j)
	}
	for _, p := range s.Jobs {
		j := myrmidon.Job{
			Kind: p.Kind, Run: job.Run, Phase: job.Phase, Shard: job.Shard, First: next, Count: max(p.Count, 1),
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
		j, err := planJob(w.workload.Name, job.Run, job.Phase, job.Shard, job.Epoch, planSpec{Step: at.Step + 1, Next: next, Cursor: s.Cursor})
		if err != nil {
			return nil, Event{}, err
		}
		jobs = append(jobs, j)
	}
	return jobs, e, CheckJobs(jobs)
}

// planFailed stores another try of a slice, or parks the shard's plan.
func (w *worker) planFailed(ctx context.Context, d Delivery, err error) error {
	job, f := d.Job(), myrmidon.AsFailure(err)
	if !f.Permanent && job.Attempt < defaultAttempts {
		next := job
		next.Attempt++
		if err := w.backend.Retry(ctx, next, time.Now().Add(max(backoff(job.Attempt), f.After))); err != nil {
			return err
		}
		return d.Ack(ctx)
	}
	if err := park(ctx, w.backend, Parked{Job: job, Reason: *f, Time: time.Now().UTC()}); err != nil {
		return err
	}
	event := Event{
		Type: EventPlanned, Run: job.Run, Time: time.Now().UTC(), Phase: job.Phase, Shard: job.Shard, Epoch: job.Epoch,
		Error: f, Worker: w.name,
	}
	if err := w.backend.Append(ctx, event); err != nil {
		return err
	}
	return d.Ack(ctx)
}
