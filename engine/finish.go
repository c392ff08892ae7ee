package engine

import (
	"context"
	"errors"
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
	if r.shared() {
		if err := r.saveBefore(before); err != nil {
			return err
		}
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
	// What came after the end is not ours to take: somebody may have taken the run up anew.
	return r.backend.Purge(ctx, r.info.ID, r.tracker.seq)
}

// saveBefore renews the lease with the standing from before the end.
func (r *Run) saveBefore(info Info) error { return r.home.save(info) }

// saveInfo replaces run.json.
func (r *Run) saveInfo() error {
	r.mu.Lock()
	r.refresh()
	info := r.info
	r.mu.Unlock()
	return r.home.save(info)
}

// refresh brings info up to date; r.mu is held.
func (r *Run) refresh() {
	r.info.Counts = r.tracker.counts()
	r.info.Totals = r.tracker.totals
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
