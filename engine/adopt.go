package engine

import (
	"context"
	"errors"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"myrmidon"
)

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
		if out = append(out, v.Order); len(out) >= max(adoptLook, len(w.orders)/10) {
			break
		}
	}
	return out
}

// own carries a run to its end, or until this worker drains.
func (w *Worker) own(ctx context.Context, home *FleetRun, load myrmidon.Workload) {
	cfg := RunConfig{Workload: load, Lease: w.cfg.Lease, KeepPause: true, Log: w.log}
	if w.cfg.Prepare != nil {
		w.cfg.Prepare(&cfg)
	}
	r, err := Start(ctx, home, cfg)
	if err != nil {
		home.drop() // other workers, or this one, try again
		w.log.Error("could not carry a run", "run", home.ID, "err", err)
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
