package engine

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"myrmidon"
)

// lateEnd catches up with what the drained jobs stored: they may have completed the run.
func (r *Run) lateEnd(ctx context.Context) (myrmidon.State, error) {
	err := r.backend.Read(ctx, r.info.ID, r.trackerSeq(), false, func(seq uint64, e Event) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if seq <= r.tracker.seq {
			return nil
		}
		return r.apply(seq, e)
	})
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, end := r.tracker.next(); end != "" {
		r.ending = true
		return end, nil
	}
	return "", ErrInterrupted
}

// end writes what is left of the run and releases it.
func (r *Run) end(state myrmidon.State, err error) {
	defer r.cfg.Meter.leave(r)
	if state != "" {
		if ferr := r.finish(state); ferr != nil {
			err = ferr
		}
	}
	if err == nil && state == "" {
		err = ErrInterrupted
	}
	r.stopBeat()
	if !errors.Is(err, ErrOwned) {
		r.mu.Lock()
		stopped := errors.Is(err, ErrInterrupted)
		r.info.Left, r.info.Free = stopped && !r.handing, stopped && r.handing
		r.mu.Unlock()
		if serr := r.saveInfo(); serr != nil && (err == nil || errors.Is(err, ErrInterrupted)) {
			err = serr
		}
	}
	err = errors.Join(err, r.closeBackend())
	r.mu.Lock()
	clean := r.info.State.Ended() && r.info.Parked == 0
	r.mu.Unlock()
	if clean && err == nil {
		err = r.home.free()
	}
	if home, ok := r.home.(*FleetRun); ok && err != nil && !errors.Is(err, ErrInterrupted) {
		home.drop() // what failed here may succeed elsewhere, or later
	}
	r.mu.Lock()
	r.err = errors.Join(err, r.home.Unlock())
	r.mu.Unlock()
}

// finish writes the evidence and the report, calls the run ended and frees the queue. A
// crash or an error before run.json says so leaves the run to be ended again.
func (r *Run) finish(state myrmidon.State) (err error) {
	ctx := context.Background()
	if err := r.renew(); err != nil {
		return err
	}
	home, shared := r.home.(*FleetRun)
	if shared && state == myrmidon.Cancelled {
		if err := home.cancel(r.info); err != nil {
			return err
		}
	}
	parked, err := r.stillParked(ctx)
	if err != nil {
		return err
	}
	left := len(parked)
	if state == myrmidon.Cancelled {
		left = 0 // told of in the report, but nothing goes on from here
	}
	items, size, err := r.writeItems(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	before := r.info
	defer func() {
		if err != nil && r.report == nil {
			r.mu.Lock()
			r.info.State, r.info.Ended, r.info.Parked = before.State, before.Ended, before.Parked
			r.info.ItemsSize, r.info.ItemsSeq = before.ItemsSize, before.ItemsSeq
			r.mu.Unlock()
		}
	}()
	r.info.State, r.info.Ended, r.info.Parked = state, time.Now().UTC(), left
	r.info.ItemsSize, r.info.ItemsSeq = size, r.tracker.seq
	r.refresh()
	rep := r.buildReport(items, parked)
	r.mu.Unlock()
	if r.cfg.Enrich != nil {
		r.cfg.Enrich(rep)
	}
	// Whoever has lost the run hears it here, before anything is taken away.
	if err := r.renew(); err != nil {
		return err
	}
	if err := r.home.saveReport(rep); err != nil {
		return err
	}
	if left > 0 {
		if err := r.snapshot(ctx); err != nil {
			return err
		}
	}
	if err := r.saveInfo(); err != nil {
		return err
	}
	r.report = rep
	if state == myrmidon.Cancelled {
		return r.backend.Purge(ctx, r.info.ID, 0) // nobody can take it up again
	}
	// What came after the end is not ours to take: somebody may have taken the run up anew.
	return r.backend.Purge(ctx, r.info.ID, r.tracker.seq)
}

// saveInfo brings run.json, or the fleet's entry, up to date.
func (r *Run) saveInfo() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	r.refresh()
	info := r.info
	r.mu.Unlock()
	return r.save(info)
}

// save needs r.saving, so that what is saved last is what was known last.
func (r *Run) save(info Info) error {
	err := r.home.save(info)
	if err == nil {
		r.savedAt.Store(int64(time.Since(r.began)))
	}
	return err
}

// renew keeps the lease with the standing as it was saved last.
func (r *Run) renew() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	home, ok := r.home.(*FleetRun)
	if !ok {
		return nil
	}
	err := home.confirm()
	if err == nil {
		r.savedAt.Store(int64(time.Since(r.began)))
	}
	return err
}

// sinceSaved is how long ago the run's standing was saved, which is the age of its lease.
func (r *Run) sinceSaved() time.Duration {
	return time.Since(r.began) - time.Duration(r.savedAt.Load())
}

// beat keeps the lease of a fleet's run from the moment that this process has it: reading a
// long history, or writing the evidence of many items, takes longer than a lease. When the
// lease is lost the run stops.
func (r *Run) beat() {
	if !r.shared() {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	var beating sync.WaitGroup
	beating.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if r.sinceSaved() < 1500*time.Millisecond {
				continue
			}
			if err := r.renew(); err != nil && ctx.Err() == nil {
				r.mu.Lock()
				r.lost = err
				r.mu.Unlock()
				r.stopDrain()
				r.stopKill()
				r.wake()
				return
			}
		}
	})
	r.stopBeat = func() { stop(); beating.Wait() }
}

// refresh brings info up to date; r.mu is held.
func (r *Run) refresh() {
	r.info.Counts = r.tracker.counts()
	r.info.Totals = r.tracker.totals
	r.info.Totals.Requests, r.info.Totals.Tally = maps.Clone(r.tracker.totals.Requests), maps.Clone(r.tracker.totals.Tally)
	r.info.Active = r.activeAt + time.Since(r.began)
	r.info.OwnCPU += r.cfg.Meter.take(r)
	r.info.PeakRSS = max(r.info.PeakRSS, ownRSS())
	r.info.LastError, r.info.Hint = "", ""
	if f := r.tracker.lastErr; f != nil {
		r.info.LastError, r.info.Hint = f.Message, f.Hint
	}
	r.info.Phase = ""
	for p := range r.tracker.phases {
		if st := r.tracker.phase(p); st.started && !st.complete {
			r.info.Phase = r.tracker.phases[p].Name
		}
	}
	if r.info.State == myrmidon.Planning && r.info.Counts.Sealed {
		r.info.State = myrmidon.Running
	}
}
