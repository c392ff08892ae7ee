package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mrand "math/rand/v2"
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

// WorkerInfo is what a worker says of itself in the registry.
type WorkerInfo struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	PID       int       `json:"pid"`
	Version   string    `json:"version"`
	State     string    `json:"state"` // idle, busy or draining
	Slots     int       `json:"slots"`
	Busy      int       `json:"busy"`
	Priority  int       `json:"priority"`
	Workloads []string  `json:"workloads"` // "transcode/1": name and version of its specs
	Owns      []string  `json:"owns,omitempty"`
	Doing     []string  `json:"doing,omitempty"`
	Done      int64     `json:"done"` // jobs, since it started
	Started   time.Time `json:"started"`

	// Seen is how long ago it was heard of; it is found out when it is read.
	Seen time.Duration `json:"seen_ns,omitempty"`
}

// lostAfter is when a worker that is not heard of counts as lost.
const lostAfter = 15 * time.Second

// Standing is the state as people see it.
func (w WorkerInfo) Standing() string {
	if w.Seen > lostAfter {
		return "lost"
	}
	return w.State
}

const (
	// helloEvery is how often a worker says that it is there.
	helloEvery = 5 * time.Second
	// doingEvery is how often it tells the owners of its jobs how far they are.
	doingEvery = time.Second
	// adoptEvery is how often it looks at some runs for ones whose owner died.
	adoptEvery = 3 * time.Second
	// adoptLook is at how many.
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
		r.Drain()
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

// answer does what somebody asks of this worker.
func (w *Worker) answer(data []byte) []byte {
	var in workerRequest
	var out workerReply
	if err := json.Unmarshal(data, &in); err != nil {
		out.Error = myrmidon.AsFailure(fmt.Errorf("worker %s: %w", w.id, err))
	}
	if in.Drain {
		w.log.Info("asked to drain")
		w.Drain()
	}
	if in.Priority != nil && *in.Priority >= 0 && *in.Priority <= 9 {
		w.priority.Store(int64(*in.Priority))
		w.changes()
	}
	answer, err := json.Marshal(out)
	if err != nil {
		w.log.Error("encode an answer", "err", err)
	}
	return answer
}

type workerRequest struct {
	Drain    bool `json:"drain,omitempty"`
	Priority *int `json:"priority,omitempty"`
}

type workerReply struct {
	Error *myrmidon.Failure `json:"error,omitempty"`
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
	case o.Paused || slices.Contains(o.Kinds, job.Kind):
		return holdIt, nil
	case again && w.stale(ctx, job):
		return dropIt, nil
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

// info is what the worker says of itself.
func (w *Worker) info() WorkerInfo {
	me := thisProcess()
	out := WorkerInfo{
		ID: w.id, Host: me.Host, PID: me.PID, Version: w.cfg.Version, State: "idle", Slots: w.cfg.Slots,
		Priority: int(w.priority.Load()), Done: w.done.Load(), Started: w.started,
	}
	for _, l := range w.cfg.Workloads {
		out.Workloads = append(out.Workloads, fmt.Sprintf("%s/%d", l.Name, l.Version))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	out.Busy = len(w.doing)
	for _, d := range w.doing {
		if len(out.Doing) < 16 {
			out.Doing = append(out.Doing, strings.TrimSpace(d.Job.Kind+" "+d.Job.Name))
		}
	}
	slices.Sort(out.Doing)
	for run := range w.owns {
		out.Owns = append(out.Owns, run)
	}
	slices.Sort(out.Owns)
	switch {
	case w.drain.Err() != nil:
		out.State = "draining"
	case out.Busy > 0:
		out.State = "busy"
	}
	return out
}

// hello keeps the worker's entry in the registry.
func (w *Worker) hello(ctx context.Context) {
	var rev uint64
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for {
		data, err := json.Marshal(w.info())
		if err == nil {
			rev, err = w.fleet.Put(ctx, workerKey(w.id), data, rev)
		}
		if errors.Is(err, ErrConflict) {
			rev = 0
			if e, eerr := w.fleet.Entry(ctx, workerKey(w.id)); eerr == nil {
				rev = e.Revision
			}
		} else if err != nil && ctx.Err() == nil {
			w.log.Warn("could not say that this worker is there", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-w.changed:
			// At most one change a second is told: jobs may be short.
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

func (w *Worker) owned() (out []*Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.owns {
		out = append(out, r)
	}
	return out
}

// adopt takes over runs whose owner died. Each worker looks at a few runs at a time, so
// that many workers and many runs do not ask the broker for everything all the time.
func (w *Worker) adopt(ctx context.Context) {
	var runs sync.WaitGroup
	defer runs.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(adoptEvery*3/4 + mrand.N(adoptEvery/2)):
		}
		for _, run := range w.candidates() {
			load := slices.IndexFunc(w.cfg.Workloads, func(l myrmidon.Workload) bool { return l.Name == run.Workload && l.Version == run.Version })
			if load < 0 {
				continue
			}
			home := RunsOf(w.fleet).run(run.Run)
			info, err := home.Info()
			if err != nil || info.Live || info.Left || info.State.Ended() || home.Lock() != nil {
				continue
			}
			w.log.Warn("the owner of a run was not heard of; this worker carries it", "run", run.Run, "owner", info.Owner.String())
			runs.Go(func() { w.own(ctx, home, w.cfg.Workloads[load]) })
		}
	}
}

// candidates are some runs under way that this worker does not own.
func (w *Worker) candidates() (out []Order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for run, v := range w.orders { // in random order, as maps are
		if v.gone || w.owns[run] != nil {
			continue
		}
		if out = append(out, v.Order); len(out) == adoptLook {
			break
		}
	}
	return out
}

// own carries a run to its end, or until this worker drains.
func (w *Worker) own(ctx context.Context, home *FleetRun, load myrmidon.Workload) {
	cfg := RunConfig{Workload: load, Lease: w.cfg.Lease, Log: w.log}
	if w.cfg.Prepare != nil {
		w.cfg.Prepare(&cfg)
	}
	r, err := Start(ctx, home, cfg)
	if err != nil {
		w.log.Error("could not carry a run", "run", home.ID, "err", errors.Join(err, home.Unlock()))
		return
	}
	w.mu.Lock()
	w.owns[home.ID] = r
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.owns, home.ID)
		w.mu.Unlock()
	}()
	stop := context.AfterFunc(ctx, r.Hand)
	defer stop()
	switch rep, err := r.Wait(); {
	case err == nil:
		w.log.Info("a run that this worker carried has ended", "run", home.ID, "state", rep.State)
	case !errors.Is(err, ErrInterrupted):
		w.log.Error("a run that this worker carried", "run", home.ID, "err", err)
	}
}

// Workers lists a fleet's workers, in order of host and process.
func Workers(ctx context.Context, f Fleet) ([]WorkerInfo, error) {
	entries, err := f.Entries(ctx, "worker/")
	if err != nil {
		return nil, err
	}
	var out []WorkerInfo
	for _, e := range entries {
		var w WorkerInfo
		if err := json.Unmarshal(e.Value, &w); err != nil {
			continue // not ours; it is gone in a minute
		}
		w.Seen = e.Age
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b WorkerInfo) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), a.PID-b.PID, strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

// AskWorker asks the worker whose ID begins with prefix to drain, or to change its
// priority, and returns its ID.
func AskWorker(ctx context.Context, f Fleet, prefix string, drain bool, priority *int) (id string, err error) {
	all, err := Workers(ctx, f)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, w := range all {
		ids = append(ids, w.ID)
	}
	id, found := findID(ids, prefix)
	switch {
	case found == 0:
		return "", myrmidon.WithHint(fmt.Errorf("no worker %s at %s", prefix, f.Where()), "myrmidon workers --nats lists them")
	case found > 1:
		return "", myrmidon.WithHint(fmt.Errorf("%d workers begin with %s", found, prefix), "give more of the ID")
	}
	data, err := json.Marshal(workerRequest{drain, priority})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	answer, err := f.Ask(ctx, workerTopic(id), data)
	if errors.Is(err, ErrNobody) {
		return "", myrmidon.WithHint(fmt.Errorf("worker %s does not answer", id), "it may have ended: myrmidon workers --nats shows when it was last seen")
	}
	if err != nil {
		return "", err
	}
	var out workerReply
	if err := json.Unmarshal(answer, &out); err != nil {
		return "", fmt.Errorf("worker %s: %w", id, err)
	}
	if out.Error != nil {
		return "", out.Error
	}
	return id, nil
}
