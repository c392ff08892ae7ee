package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
)

// ErrInterrupted says that a run was stopped before its end and can be resumed.
var ErrInterrupted = errors.New("the run was interrupted")

// RunConfig is what an owner needs to carry a run.
type RunConfig struct {
	Workload myrmidon.Workload
	// Open opens the backend in a folder; the owner holds the run's lock. It is not called
	// for a run of a fleet, which has its backend.
	Open  func(ctx context.Context, dir string) (Backend, error)
	Slots Slots         // shared by the runs of the process; nil: one slot. A fleet's run has none.
	Meter *Meter        // shared by the runs of the process; nil: one of its own
	Lease time.Duration // of the backend's deliveries; 0: 30 s
	// Enrich adds what the workload knows to the report.
	Enrich func(*Report)
	// RetryParked takes up a run that has ended, to try what it parked once more.
	RetryParked bool
	RetryIDs    []string // which; none means all
	// KeepPause leaves a paused run paused: it changes its owner, and nobody resumed it.
	KeepPause bool
	// Decorate adds what handlers find in their contexts; nil adds nothing.
	Decorate func(ctx context.Context, kind string) context.Context
	Log      *slog.Logger
}

// Run is a run that this process owns.
//
//	Start ──► follow the log ──► tracker ──► phase complete? ──► start the next, or end
//	   ├────► worker: pull, handle, settle ──► log   (of a fleet's run: elsewhere)
//	   ├────► each second: home.save (run.json, or the lease)
//	   └────► home.listen (control.sock, or a topic): cancel, pause, retry
type Run struct {
	cfg     RunConfig
	home    Home
	backend Backend
	gate    myrmidon.Gate
	log     *slog.Logger

	drain, kill         context.Context
	stopDrain, stopKill context.CancelFunc
	changed             chan struct{} // the tracker moved; capacity 1
	began               time.Time
	held                sync.Map // see workerConfig

	saving   sync.Mutex   // held while info is saved; before mu
	savedAt  atomic.Int64 // when it was saved last, since began
	stopBeat func()

	mu        sync.Mutex
	lost      error // why this process owns the run no more
	info      Info
	tracker   *tracker
	inflight  map[inflightKey]inflight
	holding   bool // jobs may be held although nothing is paused any more
	ticks     int
	measured  time.Time // the memory
	starting  int       // phase whose start was stored but whose event is not here yet; -1
	cancelled bool
	handing   bool // see Hand
	ending    bool
	activeAt  time.Duration // Info.Active when this process took over
	rate      rate
	report    *Report
	err       error
	done      chan struct{}
}

type inflightKey struct{ phase, shard, first uint32 }

type inflight struct {
	job    myrmidon.Job
	amount myrmidon.Amount
	seen   time.Time // of a job on another machine: when it was last told of
}

// Start takes up a run that this process has locked: a new one, or one that was
// interrupted. It returns once the run's history is read. The run goes on until Wait
// returns.
func Start(ctx context.Context, home Home, cfg RunConfig) (*Run, error) {
	if cfg.Slots == nil {
		cfg.Slots = NewSlots(1)
	}
	if cfg.Meter == nil {
		cfg.Meter = new(Meter)
	}
	if cfg.Lease == 0 {
		cfg.Lease = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	info, err := home.Info()
	if err != nil {
		return nil, err
	}
	if info.State.Ended() && !cfg.RetryParked {
		return nil, myrmidon.WithHint(fmt.Errorf("run %s has ended: %s", info.ID, info.State), "start it anew, or give what it parked another try with myrmidon runs retry")
	}
	if err := checkKnown(info, cfg.Workload); err != nil {
		return nil, err
	}
	r := &Run{
		cfg: cfg, home: home, info: info, began: time.Now(), starting: -1, log: cfg.Log.With("run", info.ID),
		changed: make(chan struct{}, 1), done: make(chan struct{}), inflight: make(map[inflightKey]inflight),
		tracker: newTracker(info.ID, cfg.Workload.Phases), activeAt: info.Active, holding: true, stopBeat: func() {},
	}
	r.cfg.Meter.join(r)
	if r.backend, err = r.open(ctx); err != nil {
		r.cfg.Meter.leave(r)
		return nil, err
	}
	r.drain, r.stopDrain = context.WithCancel(context.WithoutCancel(ctx))
	r.kill, r.stopKill = context.WithCancel(context.WithoutCancel(ctx))
	r.info.Owner = home.owner()
	if !cfg.KeepPause {
		r.info.Paused, r.info.Kinds = false, nil
	}
	r.gate.Set(r.info.Paused)
	r.info.Left, r.info.Free = false, false
	if r.info.State.Ended() || r.info.State == "" {
		r.info.State = myrmidon.Running
		r.info.Ended = time.Time{}
	}
	var control closer
	r.beat()
	err = r.recover(ctx)
	if r.tracker.seq > 0 && !info.State.Ended() {
		r.info.Resumed++
	}
	if err == nil && cfg.RetryParked {
		_, err = r.chosen(ctx, cfg.RetryIDs) // a name that is not there leaves the run as it was
	}
	if err == nil && r.shared() {
		err = r.saveInfo() // before there are jobs: workers drop those of a run that has ended
	}
	if err == nil && cfg.RetryParked {
		_, err = r.Retry(cfg.RetryIDs...)
	}
	// From here on another process may ask for anything: the run is whole.
	if err == nil {
		control, err = home.listen(r)
	}
	if err != nil {
		r.stopDrain()
		r.stopKill()
		r.cfg.Meter.leave(r)
		r.stopBeat()
		return nil, errors.Join(err, r.closeBackend())
	}
	go r.carry(control)
	return r, nil
}

// shared reports whether the run is one of a fleet: others work on it, and its backend
// is not ours to close.
func (r *Run) shared() bool {
	_, ok := r.home.(*FleetRun)
	return ok
}

func (r *Run) open(ctx context.Context) (Backend, error) {
	switch h := r.home.(type) {
	case *FleetRun:
		return h.fleet, nil
	case *RunDir:
		return r.cfg.Open(ctx, h.Path("queue"))
	}
	return nil, fmt.Errorf("engine: run %s: a home of type %T", r.info.ID, r.home)
}

func (r *Run) closeBackend() error {
	if r.shared() {
		return nil
	}
	return r.backend.Close()
}

// carry is the life of an owned run, from here to its end or interruption.
func (r *Run) carry(control closer) {
	defer close(r.done)
	var parts sync.WaitGroup
	readCtx, stopReading := context.WithCancel(context.Background())
	failed := make(chan error, 2)
	parts.Go(func() {
		failed <- r.backend.Read(readCtx, r.info.ID, r.trackerSeq(), true, func(seq uint64, e Event) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if seq <= r.tracker.seq {
				return nil // lateEnd was faster; usage counts once
			}
			err := r.apply(seq, e)
			if e.Type == EventResult && e.Job != nil {
				r.held.Delete(heldKeyOf(*e.Job))
				if r.shared() {
					delete(r.inflight, inflightKeyOf(*e.Job))
				}
			}
			if e.Type == EventPlanned && e.Shard == RootShard && int(e.Phase) == r.starting {
				r.starting = -1
			}
			r.wake()
			return err
		})
	})
	worked := make(chan error, 1)
	parts.Go(func() { worked <- r.work() })

	state, err := r.steer(failed, worked)
	r.stopDrain()
	if err != nil || state == myrmidon.Cancelled {
		r.stopKill()
	}
	if werr := <-worked; err == nil {
		err = werr
	}
	if state == "" && err == nil {
		state, err = r.lateEnd(readCtx)
	}
	stopReading()
	parts.Wait()
	control.close()
	r.end(state, err)
}

func (r *Run) trackerSeq() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tracker.seq
}

// wake tells steer that the tracker moved.
func (r *Run) wake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// work runs this process's worker; a fleet has its own.
func (r *Run) work() error {
	if r.shared() {
		<-r.drain.Done()
		return nil
	}
	w := newWorker(workerConfig{
		name: r.home.owner().String(), backend: r.backend, workloads: []myrmidon.Workload{r.cfg.Workload},
		slots: r.cfg.Slots, gate: &r.gate, lease: r.cfg.Lease, log: r.log,
		runs:     ownRun{r},
		progress: r.progress,
		held:     &r.held,
		decorate: r.cfg.Decorate,
		sole:     true,
	})
	return w.run(r.drain, r.kill, r.stopKill)
}

// ownRun is what the worker of a run's owner knows of it: everything.
type ownRun struct{ r *Run }

func (o ownRun) look(_ context.Context, job myrmidon.Job, _ bool) (verdict, error) {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	switch {
	case job.Run != o.r.info.ID || o.r.tracker.stale(job):
		return dropIt, nil
	case slices.Contains(o.r.info.Kinds, job.Kind):
		o.r.holding = true
		return holdIt, nil
	}
	return doIt, nil
}

func (o ownRun) spec(string) (json.RawMessage, error) { return o.r.info.Spec, nil }

func (o ownRun) enter(ctx context.Context, _ string) (context.Context, *myrmidon.Gate, func()) {
	return ctx, &o.r.gate, func() {}
}

func (r *Run) stale(j myrmidon.Job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tracker.stale(j)
}

// measureEvery is how often memory is measured while jobs go on: it takes some calls of the
// kernel, which short jobs would feel.
const measureEvery = 100 * time.Millisecond

func inflightKeyOf(job myrmidon.Job) inflightKey {
	key := inflightKey{job.Phase, job.Shard, job.First}
	if len(job.Only) > 0 {
		key.first = job.Only[0]
	}
	return key
}

func (r *Run) progress(job myrmidon.Job, a myrmidon.Amount, done bool) {
	key := inflightKeyOf(job)
	r.mu.Lock()
	defer r.mu.Unlock()
	if done {
		delete(r.inflight, key)
		return
	}
	r.inflight[key] = inflight{job: job, amount: a}
	if time.Since(r.measured) < measureEvery {
		return
	}
	r.measured = time.Now()
	sum := ownRSS()
	for _, f := range r.inflight {
		sum += f.amount.RSS
	}
	r.info.PeakRSS = max(r.info.PeakRSS, sum)
}

// steer starts phases until the run ends (a state), must stop (an error), or was drained
// (neither: the worker's jobs may still complete it).
func (r *Run) steer(failed, worked chan error) (myrmidon.State, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	snapped := r.trackerSeq()
	for {
		state, err := r.advance()
		if state != "" || err != nil {
			return state, err
		}
		select {
		case <-r.changed:
		case err := <-failed:
			if err == nil {
				err = errors.New("engine: the log ended")
			}
			return "", err
		case err := <-worked:
			worked <- nil // carry waits for it as well
			if err == nil {
				r.mu.Lock()
				cancelled := r.cancelled
				r.mu.Unlock()
				if cancelled {
					return myrmidon.Cancelled, nil
				}
			}
			return "", err
		case <-tick.C:
			if err := r.saveInfo(); err != nil {
				return "", err
			}
			if err := r.unhold(); err != nil {
				return "", err
			}
			if seq := r.trackerSeq(); seq > snapped+snapshotEvery {
				if err := r.snapshot(context.Background()); err != nil {
					return "", err
				}
				snapped = seq
			}
		}
	}
}

// unhold brings back the jobs that were held while something was paused. It looks again
// every now and then: a worker may hold a job after it could know that it need not.
func (r *Run) unhold() error {
	r.mu.Lock()
	r.ticks++
	due := !r.info.Paused && len(r.info.Kinds) == 0 && (r.holding || r.ticks%10 == 0)
	if due {
		r.holding = false
	}
	r.mu.Unlock()
	if !due {
		return nil
	}
	n, err := r.backend.Unhold(context.Background(), r.info.ID)
	if n > 0 {
		r.log.Info("held jobs are fresh again", "jobs", n)
	}
	return err
}

// advance starts the next phase if it is its turn.
func (r *Run) advance() (myrmidon.State, error) {
	r.mu.Lock()
	if r.lost != nil {
		defer r.mu.Unlock()
		return "", r.lost
	}
	if r.cancelled {
		r.mu.Unlock()
		return myrmidon.Cancelled, nil
	}
	if r.drain.Err() != nil || r.starting >= 0 {
		r.mu.Unlock()
		return "", nil
	}
	p, end := r.tracker.next()
	if end != "" || p < 0 {
		r.ending = end != ""
		r.mu.Unlock()
		return end, nil
	}
	r.starting = p
	epoch := r.tracker.epoch
	if p > 0 {
		r.info.State = myrmidon.Running
	}
	r.mu.Unlock()
	return "", r.startPhase(uint32(p), epoch)
}

func (r *Run) startPhase(p, epoch uint32) error {
	ctx := context.Background()
	job, err := planJob(r.cfg.Workload, r.info.ID, p, 0, epoch, planSpec{})
	if err != nil {
		return err
	}
	cursor, err := r.backend.Cursor(ctx, r.info.ID, p, RootShard)
	if err != nil {
		return err
	}
	if cursor.Steps > 0 {
		return nil // stored before a crash; its event is on its way
	}
	event := Event{Type: EventPlanned, Run: r.info.ID, Time: time.Now().UTC(), Phase: p, Shard: RootShard, Epoch: epoch}
	next := Cursor{Run: r.info.ID, Phase: p, Shard: RootShard, Steps: 1}
	batch := Batch{Jobs: []myrmidon.Job{job}, Events: []Event{event}, Next: next}
	if err := r.backend.Commit(ctx, batch); err != nil && !errors.Is(err, ErrStaleSlice) {
		return err
	}
	return nil
}

// Wait returns when the run has ended, with its report, or was interrupted, with an
// error that wraps ErrInterrupted or says what the backend or the state folder lacks.
func (r *Run) Wait() (*Report, error) {
	<-r.done
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report, r.err
}

// Done is closed when Wait will return at once.
func (r *Run) Done() <-chan struct{} { return r.done }

// Drain stops handing out jobs; those under way end. The run can be resumed.
func (r *Run) Drain() {
	r.mu.Lock()
	r.stopDrain()
	if !r.handing { // who takes the run up next keeps its pause
		r.gate.Set(false)
		r.info.Paused = false
	}
	r.mu.Unlock()
	r.wake()
}

// Hand stops carrying a fleet's run, for another process to take it up at once. It is not
// given up as by Drain.
func (r *Run) Hand() {
	r.mu.Lock()
	r.handing = true
	r.mu.Unlock()
	r.Drain()
}

// Kill ends the jobs under way too; they will be done again.
func (r *Run) Kill() {
	r.stopDrain()
	r.stopKill()
	r.wake()
}

// Cancel ends the run for good.
func (r *Run) Cancel() {
	r.mu.Lock()
	r.cancelled = true
	r.mu.Unlock()
	r.Kill()
}

// Pause stops the run where it is, with its processes stopped, or lets it go on. With
// kinds, only jobs of those kinds are not begun any more; what is under way goes on. A run
// that is stopping or ending cannot be paused: its jobs under way must come to their end.
func (r *Run) Pause(on bool, kinds ...string) error {
	for _, k := range kinds {
		if !slices.ContainsFunc(r.cfg.Workload.Kinds, func(x myrmidon.Kind) bool { return x.Name == k }) {
			var known []string
			for _, x := range r.cfg.Workload.Kinds {
				known = append(known, x.Name)
			}
			return myrmidon.WithHint(fmt.Errorf("run %s has no jobs of kind %q", r.info.ID, k), "its kinds are "+strings.Join(known, ", "))
		}
	}
	r.mu.Lock()
	if on && (r.ending || r.drain.Err() != nil) {
		r.mu.Unlock()
		return fmt.Errorf("run %s is stopping already", r.info.ID)
	}
	switch {
	case len(kinds) > 0 && on:
		for _, k := range kinds {
			if !slices.Contains(r.info.Kinds, k) {
				r.info.Kinds = append(slices.Clone(r.info.Kinds), k)
			}
		}
	case len(kinds) > 0:
		r.info.Kinds = slices.DeleteFunc(slices.Clone(r.info.Kinds), func(k string) bool { return slices.Contains(kinds, k) })
		r.holding = true
	default:
		r.gate.Set(on)
		r.info.Paused = on
		if !on {
			r.info.Kinds, r.holding = nil, true
		}
	}
	r.rate = rate{}
	r.mu.Unlock()
	return r.saveInfo()
}
