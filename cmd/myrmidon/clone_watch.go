package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/clone"
	"myrmidon/internal/clone/documents"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

// watchEvery is how often a watcher looks unless it is told.
const watchEvery = 5 * time.Second

// restAfter is how long a watcher leaves a request alone after a run that could not end.
const restAfter = time.Minute

// watcher makes a run for each clone-request.
//
//	look ── list the bucket ──┬── asked, not answered ──► make a run ───┐
//	  ▲                       └── its run was cut off ──► resume it ────┤ tasks
//	  └── every 5 s                                                     ▼
//	                                                     carrier: up to 33 runs at once
type watcher struct {
	*carrier
	f     cloneFlags
	homes engine.Homes
	at    wire.Location // what is watched
	pager object.Pager  // of it
	root  string        // the address of its bucket
	store object.Store  // of that
	tasks chan task
	tell  bool // say what begins

	mu     sync.Mutex
	active map[string]bool      // folders whose run this process carries
	rest   map[string]time.Time // folders to leave alone until then
	said   string               // the last problem
	others bool                 // some run has not ended, and may have to be taken up
}

// cloneWatch carries the runs that others ask for, until it is interrupted.
func (a *app) cloneWatch(ctx context.Context, f cloneFlags) error {
	switch {
	case f.delete:
		return usage(myrmidon.WithHint(errors.New("--delete with --watch would let everybody who may ask for a clone delete"), "delete with a clone of your own"))
	case f.report != "" || f.dryRun:
		return usage(errors.New("--report and --dry-run are for one clone, not for --watch"))
	}
	at, err := wire.Locate(f.documents.watch)
	if err != nil {
		return usage(err)
	}
	if _, err := f.spec("s3://some-source", "s3://some-destination"); err != nil {
		return err // a flag that no clone could have
	}
	w := &watcher{
		f: f, at: at, tasks: make(chan task), tell: !a.quiet,
		active: make(map[string]bool), rest: make(map[string]time.Time),
	}
	if _, w.pager, err = openPager(at.String()); err != nil {
		return err
	}
	at.Folder = ""
	w.root = at.String()
	if w.store, err = wire.Bucket(w.root); err != nil {
		return err
	}
	if err := f.atMost(a); err != nil {
		return err
	}
	a.forClones()
	a.quiet = true // lines, not a bar, for what goes on for months
	fleet := a.nats.url != ""
	if w.carrier, err = a.carrier(ctx, "clone", fleet); err != nil {
		return err
	}
	defer w.abandon()
	if w.homes, err = a.homes(ctx, fleet); err != nil {
		return err
	}
	return w.watch(ctx)
}

// watch looks until a signal comes; the carrier then ends its runs.
func (w *watcher) watch(ctx context.Context) error {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	until, stop := signal.NotifyContext(ctx, signals...)
	defer stop()
	var looking sync.WaitGroup
	var problem error
	looking.Go(func() {
		defer close(w.tasks)
		problem = w.lookAgain(until)
	})
	err := w.carry(ctx, w.tasks)
	looking.Wait()
	var exit *exitError
	if problem == nil && errors.As(err, &exit) && exit.status == exitInterrupted {
		return err // runs that a watcher, or runs resume, goes on with
	}
	return problem // the end of each run has been told
}

// lookAgain looks every few seconds. It ends with ctx, or if the bucket cannot be listed at
// all.
func (w *watcher) lookAgain(ctx context.Context) error {
	if w.tell {
		fmt.Fprintf(w.screen, "watching %s for clone-requests; Ctrl-C ends it\n", bare(w.at.String()))
	}
	tick := time.NewTicker(cmp.Or(w.f.documents.every, watchEvery))
	defer tick.Stop()
	for first := true; ; first = false {
		err := w.look(ctx, first)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first && myrmidon.IsPermanent(err):
			return err
		default:
			w.problem(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// problem says what is wrong, once as long as it lasts.
func (w *watcher) problem(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	w.mu.Lock()
	again := text == w.said
	w.said = text
	w.mu.Unlock()
	if err != nil && !again {
		w.complain(err)
	}
}

// look lists the requests and hands out what there is to do.
func (w *watcher) look(ctx context.Context, first bool) error {
	open := make(map[string]bool)
	var order []string
	err := documents.Find(ctx, w.pager, func(found documents.Found) error {
		folder := found.Folder
		if w.at.Folder != "" {
			folder = w.at.Folder + "/" + folder
		}
		if !found.Answered && !w.busy(folder) {
			open[folder] = true
			order = append(order, folder)
		}
		return nil
	})
	if err != nil || len(open) == 0 && !first && !w.left(false) {
		return err
	}
	runs, err := w.runs()
	if err != nil {
		w.left(true)
		return err
	}
	var problems []error
	for folder, info := range runs {
		if !info.State.Ended() {
			w.left(true)
		}
		if w.busy(folder) {
			continue
		}
		switch {
		case info.State.Ended():
			if open[folder] {
				why := &myrmidon.Failure{Message: fmt.Sprintf("run %s: %s", info.ID, info.State), Hint: info.Hint}
				if info.LastError != "" {
					why.Message = info.LastError
				}
				problems = append(problems, concludeRun(ctx, info.ID, info.Spec, info.State, why))
			}
		case !info.Live:
			problems = append(problems, w.resume(ctx, folder, info))
		}
		delete(open, folder)
	}
	for _, folder := range order {
		if open[folder] {
			problems = append(problems, w.begin(ctx, folder))
		}
	}
	return errors.Join(problems...)
}

// busy reports whether a request is to be left alone.
func (w *watcher) busy(folder string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active[folder] || time.Now().Before(w.rest[folder])
}

// left reports whether there may be a run to take up, and says so for the next time.
func (w *watcher) left(next bool) (was bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, w.others = w.others, next
	return was
}

// runs returns the newest run of each folder that is watched.
func (w *watcher) runs() (map[string]engine.Info, error) {
	infos, _, err := w.homes.List() // what cannot be read is told of by myrmidon runs
	out := make(map[string]engine.Info)
	for _, i := range infos {
		var spec clone.Spec
		if i.Workload != "clone" || json.Unmarshal(i.Spec, &spec) != nil || spec.Control == nil || spec.Control.Address != w.root {
			continue
		}
		name := spec.Control.Folder
		if w.at.Folder != "" {
			var within bool
			if name, within = strings.CutPrefix(name, w.at.Folder+"/"); !within {
				continue
			}
		}
		if !strings.Contains(name, "/") {
			out[spec.Control.Folder] = i
		}
	}
	return out, err
}

// resume takes up a run whose process is gone.
func (w *watcher) resume(ctx context.Context, folder string, info engine.Info) error {
	home, err := w.homes.Find(info.ID)
	if err != nil {
		return err
	}
	if err := home.Lock(); errors.Is(err, engine.ErrOwned) {
		return nil
	} else if err != nil {
		return err
	}
	if w.tell {
		fmt.Fprintf(w.screen, "%s: going on with run %s\n", plain(folder), info.ID)
	}
	return w.hand(ctx, folder, task{home: home})
}

// begin makes a run of a request, or answers why there is none.
func (w *watcher) begin(ctx context.Context, folder string) error {
	f := documents.Folder{Store: w.store, Path: folder}
	request, err := f.Request(ctx)
	var broken *documents.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // it was taken back
	case errors.As(err, &broken):
		return w.refuse(ctx, f, request, err)
	case err != nil:
		return err
	}
	source, destination, err := addressesOf(f, request)
	if err != nil {
		return w.refuse(ctx, f, request, err)
	}
	spec, err := w.f.spec(source, destination)
	if err == nil {
		err = wire.Apart(source, destination)
	}
	if err != nil {
		return w.refuse(ctx, f, request, err)
	}
	if spec.Control, err = controlOf(f, w.root, string(request.ID), source, destination); err != nil {
		return w.refuse(ctx, f, request, err)
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	return w.hand(ctx, folder, task{make: func() (engine.Home, error) {
		home, err := w.homes.Create(engine.Info{
			Workload: "clone", Version: w.workload.Version, Title: bare(source) + " -> " + bare(destination),
			Durability: w.durability, Slots: w.slots, Spec: data,
		})
		if err == nil && w.tell {
			fmt.Fprintf(w.screen, "%s: run %s  %s -> %s\n", plain(folder), home.RunID(), plain(bare(source)), plain(bare(destination)))
		}
		return home, err
	}})
}

// refuse answers a request that no run can be made of.
func (w *watcher) refuse(ctx context.Context, f documents.Folder, r documents.Request, why error) error {
	w.complain(why)
	answer := documents.Response{
		ID: r.ID, State: string(myrmidon.Failed), Error: why.Error(),
		Hint: cmp.Or(myrmidon.Hint(why), "correct it, and ask again under another ID"),
	}
	return f.PutResponse(ctx, answer)
}

// hand gives a run to the carrier, when that has a place for it.
func (w *watcher) hand(ctx context.Context, folder string, t task) error {
	w.mu.Lock()
	w.active[folder] = true
	w.mu.Unlock()
	t.done = func() {
		w.mu.Lock()
		delete(w.active, folder)
		for name, until := range w.rest {
			if time.Now().After(until) {
				delete(w.rest, name)
			}
		}
		w.rest[folder] = time.Now().Add(restAfter)
		w.others = true
		w.mu.Unlock()
		w.forget()
	}
	select {
	case w.tasks <- t:
		return nil
	case <-ctx.Done():
		if t.home != nil {
			return t.home.Unlock()
		}
		return nil
	}
}

// forget drops the reports of runs that have ended: nobody adds them up.
func (c *carrier) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = nil
}
