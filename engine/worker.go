package engine

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
)

const (
	defaultAttempts = 3
	backoffBase     = time.Second
	backoffMax      = 5 * time.Minute
	// idleWait is how long one waiting pull lasts. Work wakes it at once; it bounds how long
	// a worker that has ended may still be asked for.
	idleWait = 5 * time.Second
	// readyTime is how much work, by the jobs' mean time, a worker takes in one pull of
	// short jobs, and how long they wait for a slot before it gives them back.
	readyTime = 200 * time.Millisecond
)

// Slots bounds the jobs that run at once. Workers of several runs may share one.
type Slots chan struct{}

// NewSlots returns n slots; n < 1 is 1.
func NewSlots(n int) Slots { return make(Slots, max(n, 1)) }

// workerConfig is what a worker needs. See owner.go and fleetworker.go for who fills it.
type workerConfig struct {
	name      string
	backend   Backend
	workloads []myrmidon.Workload
	slots     Slots
	gate      *myrmidon.Gate
	runs      runView
	// progress is told of each running job: with an amount while it runs, with done
	// when it has ended.
	progress func(job myrmidon.Job, a myrmidon.Amount, done bool)
	// held are the attempts (heldKey) whose handlers run, or whose events the tracker has
	// not seen yet; whoever feeds the tracker removes those.
	held *sync.Map
	// forgetHeld says that there is no tracker: an attempt is held until its event is stored.
	forgetHeld bool
	priority   func() int // of its pulls, 0 to 9; nil: 0
	decorate   func(ctx context.Context, kind string) context.Context
	lease      time.Duration
	// sole says that nobody else pulls jobs: what this worker has pulled and not begun it
	// then keeps while their leases last, since given back they would only come again.
	sole bool
	log  *slog.Logger
}

// runView is what a worker knows of the runs whose jobs it is handed.
type runView interface {
	// look says what to do with a job. again: it may have been handed out before.
	look(ctx context.Context, job myrmidon.Job, again bool) (verdict, error)
	spec(run string) (json.RawMessage, error)
	// enter returns what the handlers of a run are given: a context within ctx that ends
	// when the run is cancelled, and the gate that is shut while it is paused. leave is
	// called when the handler has ended.
	enter(ctx context.Context, run string) (within context.Context, gate *myrmidon.Gate, leave func())
}

// verdict is what becomes of a job that was handed out.
type verdict int

const (
	doIt   verdict = iota
	dropIt         // its items are done, or its run has ended
	holdIt         // its run or kind is paused
)

// worker pulls jobs and runs their handlers.
//
//	         ┌─ nothing there: a waiting pull (hand) on each lane ─┐
//	slot ──► pull ──► ready ──► look ──drop──────────────────────────────────► ack
//	                             │ └──hold──► held jobs ─────────────────────► ack
//	                          handler ──ok──► event ──────────────────────────► ack
//	                             └──failed──► park ─► event and next attempt ─► ack
type worker struct {
	workerConfig
	kinds map[string]myrmidon.Kind
	plans map[string]myrmidon.Workload // by the kind of their plan jobs
	lanes []Lane
	turn  int        // of pull; only run uses it
	ready []Delivery // pulled and waiting for a slot; only run uses it

	hands  map[source]bool // waiting pulls under way; only run uses it
	caught chan handful
	full   atomic.Bool  // no slot is free: what a hand catches goes back
	alone  sync.RWMutex // see suspect.go
	pace   atomic.Int64 // mean time of a short job, ns
}

// source is where jobs are pulled from.
type source struct {
	lane    Lane
	retries bool
}

// handful is what a waiting pull brought.
type handful struct {
	from source
	ds   []Delivery
	err  error
}

// heldKey names one attempt of a job.
type heldKey struct {
	run, kind                           string
	phase, shard, first, attempt, epoch uint32
}

func heldKeyOf(j myrmidon.Job) heldKey {
	k := heldKey{j.Run, j.Kind, j.Phase, j.Shard, j.First, j.Attempt, j.Epoch}
	if len(j.Only) > 0 {
		k.first = j.Only[0]
	}
	return k
}

func newWorker(cfg workerConfig) *worker {
	w := &worker{
		workerConfig: cfg, kinds: make(map[string]myrmidon.Kind), plans: make(map[string]myrmidon.Workload),
		hands: make(map[source]bool),
	}
	if w.priority == nil {
		w.priority = func() int { return 0 }
	}
	if w.decorate == nil {
		w.decorate = func(ctx context.Context, _ string) context.Context { return ctx }
	}
	for _, load := range cfg.workloads {
		w.plans[load.Name+planSuffix] = load
		w.lanes = append(w.lanes, Lanes(load)...)
		for _, k := range load.Kinds {
			w.kinds[k.Name] = k
		}
	}
	w.caught = make(chan handful, 2*len(w.lanes))
	return w
}

// run works until drain ends, then waits for the jobs it holds. When kill ends, the
// handlers' contexts end too, and what they held is left for another worker. The error
// is one of the backend: without it no work is possible.
//
// When the backend fails, abort ends the other jobs too: what they do could not be told.
func (w *worker) run(drain, kill context.Context, abort func()) error {
	var jobs, hands sync.WaitGroup
	fail := make(chan error, 1)
	err := w.loop(drain, kill, &jobs, &hands, fail)
	if err != nil {
		abort()
	}
	w.full.Store(true)
	w.giveBack(context.WithoutCancel(kill))
	jobs.Wait()
	hands.Wait()
	for len(w.caught) > 0 {
		w.ready = append(w.ready, (<-w.caught).ds...)
	}
	w.giveBack(context.WithoutCancel(kill))
	select {
	case late := <-fail:
		if err == nil {
			abort()
			err = late
		}
	default:
	}
	return err
}

func (w *worker) loop(drain, kill context.Context, jobs, hands *sync.WaitGroup, fail chan error) error {
	for {
		if shut, _ := w.gate.State(); shut {
			w.giveBack(drain)
		}
		if w.gate.Wait(drain) != nil {
			return nil
		}
		ok, err := w.slot(drain, fail)
		if err != nil || drain.Err() != nil {
			if ok {
				<-w.slots
			}
			return err
		}
		d, err := w.take(drain)
		if err != nil && drain.Err() == nil {
			<-w.slots
			return err
		}
		if d == nil {
			// Without the slot: another run of this process may have work for it.
			<-w.slots
			if err := w.wait(drain, hands, fail); err != nil {
				return err
			}
			continue
		}
		jobs.Go(func() {
			defer func() { <-w.slots }()
			if err := w.do(kill, d); err != nil {
				select {
				case fail <- err:
				default:
				}
			}
		})
	}
}

// slot waits for a slot, unless drain ends. Jobs that were pulled wait with it for a
// moment only: another worker, if there is one, may be free.
func (w *worker) slot(drain context.Context, fail chan error) (ok bool, err error) {
	select {
	case err := <-fail:
		return false, err
	case w.slots <- struct{}{}:
		return true, nil
	default:
	}
	patience := readyTime
	if w.sole {
		patience = w.lease / 3
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case err := <-fail:
			return false, err
		case w.slots <- struct{}{}:
			w.full.Store(false)
			return true, nil
		case <-drain.Done():
			return false, nil
		case h := <-w.caught:
			if err := w.catch(h); err != nil {
				return false, err
			}
		case <-timer.C:
			w.full.Store(true)
			w.giveBack(drain)
		}
		if w.full.Load() {
			w.giveBack(drain)
		}
	}
}

// giveBack releases what was pulled and not begun.
func (w *worker) giveBack(ctx context.Context) {
	w.release(ctx, w.ready)
	w.ready = nil
}

func (w *worker) release(ctx context.Context, ds []Delivery) {
	for _, d := range ds {
		if err := d.Release(context.WithoutCancel(ctx)); err != nil {
			w.log.Warn("could not give a job back; its lease will", "job", d.Job().Name, "err", err)
		}
	}
}

// take returns a job, nil if there is none now.
func (w *worker) take(ctx context.Context) (Delivery, error) {
	for len(w.caught) > 0 {
		if err := w.catch(<-w.caught); err != nil {
			return nil, err
		}
	}
	if len(w.ready) == 0 {
		var err error
		if w.ready, err = w.pull(ctx); err != nil || len(w.ready) == 0 {
			return nil, err
		}
	}
	d := w.ready[0]
	w.ready = w.ready[1:]
	return d, nil
}

// pull takes what is there, without waiting. Every second pull looks at the retries first,
// so that neither fresh jobs nor retries can starve the others; lanes take turns.
func (w *worker) pull(ctx context.Context) ([]Delivery, error) {
	w.turn++
	for half := range 2 {
		retries := (w.turn+half)%2 == 0
		for i := range w.lanes {
			at := source{w.lanes[(w.turn/2+i)%len(w.lanes)], retries}
			if w.hands[at] {
				continue // a waiting pull brings it
			}
			ds, err := w.backend.Pull(ctx, w.request(at, 0))
			if len(ds) > 0 || err != nil {
				return ds, err
			}
		}
	}
	return nil, nil
}

// request asks for one long job, or for as many short ones as make about readyTime of work.
func (w *worker) request(from source, wait time.Duration) PullRequest {
	req := PullRequest{Lane: from.lane, Retries: from.retries, N: 1, Wait: wait, Priority: w.priority()}
	if !from.lane.Long {
		req.N = min(cap(w.slots), MaxPull)
		if pace := w.pace.Load(); pace > 0 {
			req.N = max(req.N, min(int(int64(cap(w.slots))*int64(readyTime)/pace), MaxPull))
		}
	}
	return req
}

// timed takes the time that a short job took into the mean.
func (w *worker) timed(took time.Duration) {
	old := w.pace.Load()
	if old == 0 {
		old = int64(took)
	}
	w.pace.Store(max(old+(int64(took)-old)/8, 1))
}

// wait keeps a waiting pull on each source and returns when one has brought something.
func (w *worker) wait(ctx context.Context, hands *sync.WaitGroup, fail chan error) error {
	w.full.Store(false)
	for _, l := range w.lanes {
		for _, retries := range []bool{false, true} {
			from := source{l, retries}
			if w.hands[from] {
				continue
			}
			w.hands[from] = true
			hands.Go(func() { w.hand(ctx, from) })
		}
	}
	_, changed := w.gate.State()
	select {
	case h := <-w.caught:
		return w.catch(h)
	case err := <-fail:
		return err
	case <-changed:
	case <-ctx.Done():
	}
	return nil
}

func (w *worker) catch(h handful) error {
	delete(w.hands, h.from)
	w.ready = append(w.ready, h.ds...)
	return h.err
}

// hand is one waiting pull.
func (w *worker) hand(ctx context.Context, from source) {
	ds, err := w.backend.Pull(ctx, w.request(from, idleWait))
	if ctx.Err() != nil {
		err = nil
	}
	if w.full.Load() {
		w.release(ctx, ds)
		ds = nil
	}
	w.caught <- handful{from, ds, err}
}
