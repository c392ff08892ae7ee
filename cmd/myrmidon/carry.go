package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/filelock"
	"myrmidon/internal/wire"
	"myrmidon/internal/workloads"
)

// presenter words a workload's runs for people.
type presenter interface {
	// Header describes what a run will do, from the planner's note; "" if it cannot yet.
	Header(s engine.Stats) string
	// Doing names what goes on ("transcoding"), and how fast, for the progress line.
	Doing(s engine.Stats) (verb, speed string)
	// Result describes what came of a run that succeeded.
	Result(r *engine.Report) []string
	// Enrich adds estimate, cost and versions to the report.
	Enrich(r *engine.Report)
}

// present returns the presenter of a workload.
func present(workload string, tools *ffmpeg.Tools) presenter {
	switch workload {
	case "clone":
		return clonePresenter{}
	case "logs":
		return logsPresenter{}
	case "transcode":
		return transcodePresenter{tools}
	}
	return nil
}

// task is a run that this process carries: its folder, locked, and whether it is taken
// up to retry what it parked.
type task struct {
	home  engine.Home
	make  func() (engine.Home, error) // makes the run when its turn comes: a fleet's lease begins then
	retry bool
	ids   []string
	done  func() // called when it is carried no more, if not nil
}

// carrier carries runs of one workload to their ends.
type carrier struct {
	*app
	workload myrmidon.Workload
	tools    *ffmpeg.Tools // nil for workloads that need none
	present  presenter
	config   engine.RunConfig

	shared bool
	worker *engine.Worker // of a fleet, in this process
	clean  func() error   // removes its temporary folder

	mu      sync.Mutex
	live    []*engine.Run
	stopped int // signals received
	headed  map[string]bool
	reports []*engine.Report
	errs    []error
	total   int // runs in all
	began   time.Time
	logs    logsEnd
}

// carrier prepares to carry runs of a workload, alone or, if shared, with a fleet's workers.
// Then this process does jobs itself only if it was given slots.
func (a *app) carrier(ctx context.Context, workload string, shared bool) (*carrier, error) {
	c := &carrier{app: a, headed: make(map[string]bool), began: time.Now(), shared: shared}
	works := !shared || a.slotsGiven
	temp := ""
	if shared && works {
		dir, remove, err := workFolder()
		if err != nil {
			return nil, err
		}
		temp, c.clean = dir, remove
	}
	if works && workloads.NeedsFFmpeg(workload) {
		var err error
		if c.tools, err = ffmpeg.Find(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	if c.workload, err = workloads.Named(workload, a.handlers(c.tools, temp)); err != nil {
		return nil, err
	}
	c.present = present(workload, c.tools)
	c.config = engine.RunConfig{
		Workload: c.workload,
		Slots:    engine.NewSlots(a.slots),
		Meter:    new(engine.Meter),
		Open:     a.openQueue,
		Log:      a.log,
		Enrich:   c.present.Enrich,
		Decorate: a.limited(),
	}
	if shared {
		err = c.joinFleet(ctx, works)
	}
	return c, err
}

// handlers is what this program's workloads are given.
func (a *app) handlers(tools *ffmpeg.Tools, temp string) workloads.Config {
	return workloads.Config{Tools: tools, Open: wire.Store, OpenObject: wire.Object, OpenBucket: wire.Bucket, ReadList: a.readList, OpenSink: wire.Sink, Checkpoints: checkpoints{a}, TempDir: temp, Log: a.log}
}

// joinFleet starts a worker of the fleet in this process, if it works, or looks whether
// there is any that does.
func (c *carrier) joinFleet(ctx context.Context, works bool) error {
	fleet, err := c.connect(ctx)
	if err != nil {
		return err
	}
	if works {
		c.worker, err = engine.StartWorker(fleet, engine.WorkerConfig{
			Workloads: []myrmidon.Workload{c.workload}, Slots: c.slots, Version: version, Decorate: c.limited(), Log: c.log,
		})
		return err
	}
	all, err := engine.Workers(ctx, fleet)
	if err != nil {
		return err
	}
	want := fmt.Sprintf("%s/%d", c.workload.Name, c.workload.Version)
	if !slices.ContainsFunc(all, func(w engine.WorkerInfo) bool { return slices.Contains(w.Workloads, want) }) {
		fmt.Fprintf(c.screen, "myrmidon: no worker at %s takes %s jobs yet; the run waits for one: myrmidon worker --nats %s\n", fleet.Where(), want, fleet.Where())
	}
	return nil
}

func (a *app) openQueue(ctx context.Context, dir string) (engine.Backend, error) {
	d, err := jetstream.ParseDurability(a.durability)
	if err != nil {
		return nil, err
	}
	defer a.hasBegun()
	return jetstream.Open(ctx, jetstream.Config{Dir: dir, Durability: d, Log: a.log})
}

// carry carries the tasks, a few more than slots at a time so that no slot waits for the
// end of a run, and prints what came of them. It gives tasks that it does not reach back.
func (c *carrier) carry(ctx context.Context, tasks <-chan task) error {
	stop := c.handleSignals()
	defer stop()
	show, stopShow := context.WithCancel(ctx)
	var screen, runs sync.WaitGroup
	screen.Go(func() { c.watch(show) })
	places := make(chan struct{}, c.atOnce())
	for t := range tasks {
		places <- struct{}{}
		if c.signals() > 0 {
			<-places
			if t.home != nil {
				if err := t.home.Unlock(); err != nil {
					c.fail(err)
				}
			}
			continue
		}
		runs.Go(func() {
			defer func() { <-places }()
			c.one(ctx, t)
		})
	}
	runs.Wait()
	if err := c.leave(); err != nil {
		c.fail(err)
	}
	stopShow()
	screen.Wait()
	c.screen.clear()
	return c.verdict()
}

// leave ends this process's worker, if there is one.
func (c *carrier) leave() error {
	if c.worker == nil {
		return nil
	}
	c.mu.Lock()
	w := c.worker
	c.worker = nil
	c.mu.Unlock()
	w.Drain()
	return errors.Join(w.Wait(), c.clean())
}

// abandon is leave for what ends before runs were carried.
func (c *carrier) abandon() {
	if err := c.leave(); err != nil {
		c.log.Warn("could not end the worker of this process", "err", err)
	}
}

// atOnce is how many runs are carried at a time: with a fleet, its workers bound the work.
func (c *carrier) atOnce() int {
	if c.shared {
		return 64
	}
	return c.slots + 1
}

// one carries one run.
func (c *carrier) one(ctx context.Context, t task) {
	if t.done != nil {
		defer t.done()
	}
	if t.home == nil {
		var err error
		if t.home, err = t.make(); err != nil {
			c.fail(err)
			return
		}
	}
	cfg := c.config
	cfg.RetryParked, cfg.RetryIDs = t.retry, t.ids
	if !c.shared {
		if err := sweepTemp(t.home.RunID()); err != nil {
			c.log.Warn("could not remove what a killed process left", "err", err)
		}
	}
	r, err := engine.Start(ctx, t.home, cfg)
	if err != nil {
		c.fail(errors.Join(err, t.home.Unlock()))
		return
	}
	c.mu.Lock()
	c.live = append(c.live, r)
	late := c.stopped
	c.mu.Unlock()
	switch {
	case late > 1:
		r.Kill()
	case late == 1:
		r.Drain()
	}
	rep, err := r.Wait()
	c.head(r.Stats())
	c.mu.Lock()
	c.live = slices.DeleteFunc(c.live, func(x *engine.Run) bool { return x == r })
	c.mu.Unlock()
	if err != nil {
		if errors.Is(err, engine.ErrInterrupted) {
			err = &exitError{exitInterrupted, myrmidon.WithHint(fmt.Errorf("run %s was interrupted", t.home.RunID()), "go on with: myrmidon runs resume "+t.home.RunID()+c.natsHint())}
		}
		c.fail(err)
		return
	}
	c.conclude(ctx, rep)
	c.report(rep)
	if c.workload.Name == "clone" {
		c.listFailures(t.home, rep)
	}
	if c.workload.Name == "logs" {
		if err := c.summarize(ctx, t.home, rep); err != nil {
			c.fail(err)
		}
	}
}

// settled is how old a folder is whose maker has locked it, if it lives.
const settled = time.Minute

// workFolder makes a temporary folder for the jobs of this process, and removes those of
// processes that are gone: a folder's owner holds a lock on it.
func workFolder() (dir string, remove func() error, err error) {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "myrmidon-worker-*"))
	if err != nil {
		return "", nil, err
	}
	for _, old := range left {
		// A folder that was just made may not have been locked yet.
		if info, err := os.Stat(old); err != nil || time.Since(info.ModTime()) < settled {
			continue
		}
		lock, err := lockWorkFolder(old)
		if err != nil {
			continue // its owner is at work, or it is not ours
		}
		if err := errors.Join(os.RemoveAll(old), filelock.Close(lock)); err != nil {
			return "", nil, fmt.Errorf("remove what a killed worker left: %w", err)
		}
	}
	for try := 0; ; try++ {
		if dir, err = os.MkdirTemp("", "myrmidon-worker-*"); err != nil {
			return "", nil, myrmidon.WithHint(fmt.Errorf("make a temporary folder: %w", err), "free space there, or point TMPDIR to another folder")
		}
		lock, err := lockWorkFolder(dir)
		if err == nil {
			return dir, func() error { return errors.Join(os.RemoveAll(dir), filelock.Close(lock)) }, nil
		}
		if try == 5 { // else another worker that starts took it for a dead one's
			return "", nil, fmt.Errorf("lock %s: %w", dir, err)
		}
	}
}

// lockWorkFolder takes the lock of a folder; it ends with its process.
func lockWorkFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := filelock.Take(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweepTemp removes the folders that handlers of a killed owner left. This process owns
// the run, so nobody works in them.
func sweepTemp(run string) error {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "myrmidon-"+run+"-*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (c *carrier) fail(err error) {
	c.mu.Lock()
	c.errs = append(c.errs, err)
	c.mu.Unlock()
	var silent *exitError
	if errors.As(err, &silent) && silent.err == nil {
		return
	}
	c.complain(err)
}

// report prints what came of a run.
func (c *carrier) report(rep *engine.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, rep)
	if rep.State == myrmidon.Succeeded || rep.State == myrmidon.Partial {
		c.screen.clear()
		if !c.json {
			for _, line := range c.present.Result(rep) {
				fmt.Fprintln(c.stdout, line)
			}
		}
	} else {
		c.screen.clear()
		c.explainEnd(rep)
	}
	if c.json {
		c.printJSONTo(c.results(rep), rep)
	}
}

func (a *app) printJSON(v any) { a.printJSONTo(a.stdout, v) }

func (a *app) printJSONTo(w io.Writer, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		a.complain(err)
		return
	}
	fmt.Fprintln(w, string(data))
}

// explainEnd says on stderr why a run did not succeed.
func (c *carrier) explainEnd(rep *engine.Report) {
	switch {
	case rep.State == myrmidon.Cancelled:
		fmt.Fprintf(c.stderr, "myrmidon: run %s was cancelled: %s\n", rep.ID, plain(rep.Title))
	case rep.Error != nil:
		fmt.Fprintf(c.stderr, "myrmidon: %s\n", plainLines(rep.Error.Message))
		if rep.Error.Hint != "" {
			fmt.Fprintf(c.stderr, "  %s\n", rep.Error.Hint)
		}
		if len(rep.Parked) > 0 {
			fmt.Fprintf(c.stderr, "  run %s: %s parked; when the cause is gone: myrmidon runs retry %s\n", rep.ID, plural(len(rep.Parked), "job"), rep.ID)
		}
	default:
		fmt.Fprintf(c.stderr, "myrmidon: run %s failed: %s\n", rep.ID, plain(rep.Title))
	}
}

// verdict turns what came of all runs into the exit status.
func (c *carrier) verdict() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if left := c.total - len(c.reports) - len(c.errs); c.stopped > 0 && left > 0 {
		fmt.Fprintf(c.stderr, "myrmidon: stopped before %s of %d began\n  repeat the command to go on: what is finished is found again\n", plural(left, "input"), c.total)
		return &exitError{status: exitInterrupted}
	}
	good, bad := 0, 0
	for _, r := range c.reports {
		switch r.State {
		case myrmidon.Cancelled:
			return &exitError{status: exitInterrupted}
		case myrmidon.Succeeded:
			good++
		case myrmidon.Partial:
			good++
			bad++
		default:
			bad++
		}
	}
	for _, err := range c.errs {
		var exit *exitError
		if errors.As(err, &exit) && exit.status == exitInterrupted {
			return &exitError{status: exitInterrupted}
		}
		bad++
	}
	switch {
	case bad == 0:
		return nil
	case good == 0:
		return &exitError{status: exitFailed}
	}
	if c.total > 1 {
		fmt.Fprintf(c.stderr, "myrmidon: %d of %d failed\n", bad, c.total)
	}
	return &exitError{status: exitPartial}
}

func (c *carrier) signals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// handleSignals drains at the first signal and ends at the second.
func (c *carrier) handleSignals() (stop func()) {
	in := make(chan os.Signal, 4)
	signal.Notify(in, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // under nohup the work outlives the terminal
		signal.Notify(in, syscall.SIGHUP)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-in:
			}
			c.mu.Lock()
			c.stopped++
			n, live, worker := c.stopped, slices.Clone(c.live), c.worker
			c.mu.Unlock()
			if n > 2 {
				// What is asked of a broker that does not answer would be waited for.
				os.Exit(exitInterrupted)
			}
			if worker != nil && n == 1 {
				worker.Drain()
			} else if worker != nil {
				worker.Kill()
			}
			if n == 1 {
				if c.shared && worker == nil {
					fmt.Fprintln(c.screen, "myrmidon: leaving the run; the fleet's workers do what is queued, and nothing is planned any more until it is resumed")
				} else {
					fmt.Fprintln(c.screen, "myrmidon: finishing the jobs under way, then stopping; once more stops at once (the run can be resumed)")
				}
			}
			for _, r := range live {
				if n == 1 {
					r.Drain()
				} else {
					r.Kill()
				}
			}
		}
	})
	return func() { signal.Stop(in); close(done); wg.Wait() }
}

// watch redraws the progress until ctx ends.
func (c *carrier) watch(ctx context.Context) {
	if c.quiet {
		return
	}
	every := 250 * time.Millisecond
	if !c.screen.live() {
		every = time.Second // a line each ten seconds
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.draw()
		}
	}
}

func (c *carrier) draw() {
	c.mu.Lock()
	live, ended := slices.Clone(c.live), len(c.reports)+len(c.errs)
	c.mu.Unlock()
	var all []engine.Stats
	for _, r := range live {
		s := r.Stats()
		all = append(all, s)
		c.head(s)
	}
	if len(all) == 0 {
		return
	}
	if c.total > 1 {
		c.drawMany(all, ended)
		return
	}
	s := all[0]
	if s.UnitsTotal == 0 {
		c.screen.foot("planning")
		return
	}
	verb, speed := c.present.Doing(s)
	share := float64(s.UnitsDone) / float64(s.UnitsTotal)
	line := fmt.Sprintf("%s  %s  %.0f %%", verb, bar(share), share*100)
	if speed != "" {
		line += "  " + speed
	}
	if s.ETA > 0 && s.UnitsDone < s.UnitsTotal {
		line += "  ETA " + clock(s.ETA)
	}
	if s.Paused {
		line += "  paused"
	}
	c.screen.foot(line)
}

// drawMany draws many runs as one: those that ended count whole.
func (c *carrier) drawMany(all []engine.Stats, ended int) {
	share := float64(ended)
	for _, s := range all {
		if s.UnitsTotal > 0 {
			share += float64(s.UnitsDone) / float64(s.UnitsTotal)
		}
	}
	share /= float64(max(c.total, 1))
	verb, _ := c.present.Doing(all[0])
	line := fmt.Sprintf("%s  %s  %.0f %%  %d of %d done", verb, bar(share), share*100, ended, c.total)
	if took := time.Since(c.began); share > 0.02 {
		line += "  ETA " + clock(time.Duration(float64(took)*(1-share)/share))
	}
	c.screen.foot(line)
}

// head prints a run's header once.
func (c *carrier) head(s engine.Stats) {
	if c.quiet || c.json {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.headed[s.ID] {
		return
	}
	if h := c.present.Header(s); h != "" {
		c.headed[s.ID] = true
		fmt.Fprintln(c.screen, h)
	}
}
