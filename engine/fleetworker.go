package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
)

// WorkerConfig is what a worker of a fleet needs.
type WorkerConfig struct {
	Workloads []myrmidon.Workload // whose jobs it takes
	Slots     int                 // jobs at once; 0 means 1
	Priority  int                 // 0 to 9: the lowest gets work first
	Version   string              // of the program, for people
	Lease     time.Duration       // of the backend's deliveries; 0: 30 s
	// Adopt lets the worker carry runs whose owner has died, until they end: it plans,
	// tracks and reports them. Prepare adds what the workload knows to such a run.
	Adopt   bool
	Prepare func(*RunConfig)
	// Decorate adds what handlers find in their contexts; nil adds nothing.
	Decorate func(ctx context.Context, kind string) context.Context
	Log      *slog.Logger
}

const (
	// helloEvery is how often a worker says that it is there.
	helloEvery = 5 * time.Second
	// doingEvery is how often it tells the owners of its jobs how far they are.
	doingEvery = time.Second
	// adoptEvery is how often it looks at some runs for ones whose owner died.
	adoptEvery = 3 * time.Second
	// adoptLook is at how many at least; of many runs it is a tenth.
	adoptLook = 3
	// askWait is how long an owner is waited for.
	askWait = 3 * time.Second
)

func workerKey(id string) string   { return "worker/" + id }
func workerTopic(id string) string { return "worker." + id }
func doingTopic(run string) string { return "doing." + run }

// doing is a job under way, as its worker tells the run's owner.
type doing struct {
	Job    myrmidon.Job    `json:"job"` // without its spec
	Amount myrmidon.Amount `json:"amount"`
	Ended  bool            `json:"ended,omitempty"`
}

// Worker takes jobs of a fleet's runs. It knows the broker and the stores, and nothing of
// other workers.
type Worker struct {
	cfg      WorkerConfig
	fleet    Fleet
	id       string
	log      *slog.Logger
	priority atomic.Int64
	done     atomic.Int64
	slots    Slots
	gate     myrmidon.Gate
	held     sync.Map

	drain, kill         context.Context
	stopDrain, stopKill context.CancelFunc
	started             time.Time
	ended               chan struct{}
	err                 error
	changed             chan struct{} // the state that is told; capacity 1

	mu     sync.Mutex
	orders map[string]*orderView // by run
	known  chan struct{}         // closed when all orders are known
	doing  map[heldKey]doing
	owns   map[string]*Run
}

// orderView is an order and what hangs on it.
type orderView struct {
	Order
	gone   bool // the run has ended
	gate   myrmidon.Gate
	within context.Context
	end    context.CancelFunc
}

// StartWorker begins to work until Drain or Kill; see Wait.
func StartWorker(fleet Fleet, cfg WorkerConfig) (*Worker, error) {
	if cfg.Slots == 0 {
		cfg.Slots = 1
	}
	if cfg.Lease == 0 {
		cfg.Lease = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	w := &Worker{
		cfg: cfg, fleet: fleet, id: strings.ToLower(rand.Text()[:8]), log: cfg.Log, slots: NewSlots(cfg.Slots),
		orders: make(map[string]*orderView), known: make(chan struct{}), doing: make(map[heldKey]doing), owns: make(map[string]*Run),
		started: time.Now().UTC(), ended: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	w.priority.Store(int64(cfg.Priority))
	w.drain, w.stopDrain = context.WithCancel(context.Background())
	w.kill, w.stopKill = context.WithCancel(context.Background())
	stop, err := fleet.Answer(workerTopic(w.id), w.answer)
	if err != nil {
		return nil, err
	}
	go w.carry(stop)
	return w, nil
}

// ID names the worker within its fleet.
func (w *Worker) ID() string { return w.id }

// Drain ends the worker when the jobs under way have ended.
func (w *Worker) Drain() {
	w.stopDrain()
	w.changes()
}

// Kill ends the worker and the jobs under way; others do them again.
func (w *Worker) Kill() {
	w.stopDrain()
	w.stopKill()
}

// Wait returns when the worker has ended. An error is one of the broker.
func (w *Worker) Wait() error {
	<-w.ended
	return w.err
}

// Done is closed when Wait will return at once.
func (w *Worker) Done() <-chan struct{} { return w.ended }

func (w *Worker) changes() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// carry is the life of a worker.
func (w *Worker) carry(stopAnswering func()) {
	defer close(w.ended)
	var parts sync.WaitGroup
	side, stopSide := context.WithCancel(context.Background())
	parts.Go(func() { w.watchOrders(side) })
	parts.Go(func() { w.tell(side) })
	parts.Go(func() { w.hello(side) })
	if w.cfg.Adopt {
		parts.Go(func() { w.adopt(w.drain) })
	}
	inner := newWorker(workerConfig{
		name: w.id + " on " + thisProcess().Host, backend: w.fleet, workloads: w.cfg.Workloads, slots: w.slots, gate: &w.gate,
		lease: w.cfg.Lease, log: w.log, runs: w, progress: w.progress, held: &w.held, forgetHeld: true,
		priority: func() int { return int(w.priority.Load()) }, decorate: w.cfg.Decorate,
	})
	w.err = inner.run(w.drain, w.kill, w.stopKill)
	w.stopDrain()
	for _, r := range w.owned() {
		r.Hand()
	}
	for _, r := range w.owned() {
		<-r.Done()
	}
	stopAnswering()
	stopSide()
	parts.Wait()
	if err := w.fleet.Forget(context.Background(), workerKey(w.id)); err != nil && w.err == nil {
		w.log.Warn("could not sign off; the entry is gone in a minute", "err", err)
	}
}

// watchOrders keeps what is known of the runs up to date.
func (w *Worker) watchOrders(ctx context.Context) {
	first := true
	for ctx.Err() == nil {
		err := w.fleet.Watch(ctx, "order/", func(e Entry) {
			if e.Key == "" {
				if first {
					first = false
					close(w.known)
				}
				return
			}
			w.ordered(strings.TrimPrefix(e.Key, "order/"), e.Value)
		})
		if err != nil && ctx.Err() == nil {
			w.log.Warn("cannot watch the fleet's runs, trying again", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

// ordered takes a new order; no value means that the run has ended.
func (w *Worker) ordered(run string, value []byte) *orderView {
	var o Order
	gone := value == nil
	if !gone {
		if err := json.Unmarshal(value, &o); err != nil || o.Run != run {
			w.log.Error("the order of a run is not understood; its jobs are left out", "run", run, "err", err)
			gone = true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.orders[run]
	if v == nil {
		v = new(orderView)
		v.within, v.end = context.WithCancel(context.Background())
		w.orders[run] = v
	}
	v.Order, v.gone = o, gone || o.Cancelled
	v.gate.Set(o.Paused)
	if v.gone {
		v.end()
	}
	if gone {
		delete(w.orders, run) // one that is asked for is looked up
	}
	return v
}

// order returns what is known of a run, asking the registry if need be.
func (w *Worker) order(ctx context.Context, run string) (*orderView, error) {
	select {
	case <-w.known:
	case <-time.After(askWait):
	}
	w.mu.Lock()
	v := w.orders[run]
	known := v != nil && !v.gone
	w.mu.Unlock()
	if known {
		return v, nil
	}
	// It may be new, or taken up again, and the news on its way.
	e, err := w.fleet.Entry(ctx, orderKey(run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return w.ordered(run, e.Value), nil
}

// look implements runView. A job that may have been done already is asked for at the run's
// owner; without an answer it is done again, which does no harm.
func (w *Worker) look(ctx context.Context, job myrmidon.Job, again bool) (verdict, error) {
	v, err := w.order(ctx, job.Run)
	if err != nil {
		return doIt, err
	}
	if v == nil {
		w.log.Warn("a job of a run that is not under way is left out", "run", job.Run, "job", job.Name)
		return dropIt, nil
	}
	w.mu.Lock()
	o, gone := v.Order, v.gone
	w.mu.Unlock()
	switch {
	case gone:
		return dropIt, nil
	case again && w.stale(ctx, job):
		return dropIt, nil
	case o.Paused || slices.Contains(o.Kinds, job.Kind):
		return holdIt, nil
	}
	return doIt, nil
}

func (w *Worker) stale(ctx context.Context, job myrmidon.Job) bool {
	if strings.HasSuffix(job.Kind, planSuffix) {
		return false // its cursor tells
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	job.Spec = nil
	data, err := json.Marshal(controlRequest{Do: doStale, Job: &job})
	if err != nil {
		return false
	}
	answer, err := w.fleet.Ask(ctx, ownTopic(job.Run), data)
	var out controlReply
	return err == nil && json.Unmarshal(answer, &out) == nil && out.Yes
}

// spec implements runView.
func (w *Worker) spec(run string) (json.RawMessage, error) {
	v, err := w.order(context.Background(), run)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fmt.Errorf("run %s is not under way", run)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return v.Spec, nil
}

// enter implements runView.
func (w *Worker) enter(ctx context.Context, run string) (context.Context, *myrmidon.Gate, func()) {
	w.mu.Lock()
	v := w.orders[run]
	w.mu.Unlock()
	within, cancel := context.WithCancel(ctx)
	if v == nil {
		return within, &w.gate, cancel
	}
	stop := context.AfterFunc(v.within, cancel)
	return within, &v.gate, func() { stop(); cancel() }
}

// progress keeps what is under way.
func (w *Worker) progress(job myrmidon.Job, a myrmidon.Amount, ended bool) {
	job.Spec = nil
	w.mu.Lock()
	before := len(w.doing)
	if ended {
		delete(w.doing, heldKeyOf(job))
		w.done.Add(1)
	} else {
		w.doing[heldKeyOf(job)] = doing{Job: job, Amount: a}
	}
	turned := (before == 0) != (len(w.doing) == 0)
	w.mu.Unlock()
	if turned {
		w.changes()
	}
}

// tell tells owners how far their jobs are. It may be lost.
func (w *Worker) tell(ctx context.Context) {
	tick := time.NewTicker(doingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		byRun := make(map[string][]doing)
		w.mu.Lock()
		for _, d := range w.doing {
			if len(byRun[d.Job.Run]) < MaxPull {
				byRun[d.Job.Run] = append(byRun[d.Job.Run], d)
			}
		}
		w.mu.Unlock()
		for run, now := range byRun {
			data, err := json.Marshal(now)
			if err == nil {
				err = w.fleet.Tell(ctx, doingTopic(run), data)
			}
			if err != nil {
				w.log.Debug("could not tell how far jobs are", "run", run, "err", err)
			}
		}
	}
}

// heard takes in what a worker tells of the jobs under way.
func (r *Run) heard(now []doing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range now {
		if int(d.Job.Phase) >= len(r.tracker.phases) || CheckJob(&d.Job) != nil || r.tracker.stale(d.Job) {
			continue
		}
		r.inflight[inflightKeyOf(d.Job)] = inflight{job: d.Job, amount: d.Amount, seen: time.Now()}
	}
}
