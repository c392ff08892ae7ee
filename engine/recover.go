package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

func snapshotPrefix(run string) string { return "snapshot/" + run + "/" }

// recover restores the tracker: the last snapshot, then the events since. A snapshot whose
// pages another owner has replaced meanwhile is left alone: the log holds all.
func (r *Run) recover(ctx context.Context) error {
	err := r.restore(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		r.tracker = newTracker(r.info.ID, r.cfg.Workload.Phases)
		err = nil
	}
	if err != nil {
		return err
	}
	return r.backend.Read(ctx, r.info.ID, r.tracker.seq, false, r.apply)
}

// maxPages bounds a snapshot: 1 GiB.
const maxPages = 1 << 30 / (maxBlob / 2)

// restore reads the last snapshot. The error wraps fs.ErrNotExist if there is none.
func (r *Run) restore(ctx context.Context) error {
	head, err := r.backend.Value(ctx, snapshotPrefix(r.info.ID)+"head")
	if err != nil {
		return err
	}
	var at snapshotHead
	if err := json.Unmarshal(head, &at); err != nil {
		return fmt.Errorf("engine: snapshot of run %s: %w", r.info.ID, err)
	}
	if at.Pages < 0 || at.Pages > maxPages {
		return fmt.Errorf("engine: snapshot of run %s: %d pages", r.info.ID, at.Pages)
	}
	pages := make([][]byte, at.Pages)
	for i := range pages {
		if pages[i], err = r.backend.Value(ctx, pageKey(r.info.ID, at.Seq, i)); err != nil {
			return err
		}
	}
	return r.tracker.restore(pages, head)
}

// apply hands an event to the tracker. One that cannot be of this run is left out, and
// said: others may write to the broker.
func (r *Run) apply(seq uint64, e Event) error {
	if err := r.tracker.apply(seq, e); err != nil {
		r.log.Error("an event in the log is not one of this run; it is left out", "err", err)
	}
	return nil
}

func pageKey(run string, seq uint64, i int) string {
	return fmt.Sprintf("%s%d/%d", snapshotPrefix(run), seq, i)
}

// snapshot stores the tracker. Pages are named by the sequence they stand for, and the
// head comes last: a crash between them leaves the former snapshot whole.
func (r *Run) snapshot(ctx context.Context) error {
	r.mu.Lock()
	pages, head, err := r.tracker.snapshot()
	seq := r.tracker.seq
	r.mu.Unlock()
	if err != nil {
		return err
	}
	old, err := r.backend.Keys(ctx, snapshotPrefix(r.info.ID))
	if err != nil {
		return err
	}
	keep := make(map[string]bool)
	for i, p := range pages {
		k := pageKey(r.info.ID, seq, i)
		keep[k] = true
		if err := r.backend.Set(ctx, k, p); err != nil {
			return err
		}
	}
	headKey := snapshotPrefix(r.info.ID) + "head"
	keep[headKey] = true
	if err := r.backend.Set(ctx, headKey, head); err != nil {
		return err
	}
	old = slices.DeleteFunc(old, func(k string) bool { return keep[k] || !pageBefore(k, seq) })
	return r.backend.Unset(ctx, old...)
}

// pageBefore reports whether a key is of a page of an older snapshot: an owner that was
// replaced without knowing it must not take the newer one's.
func pageBefore(key string, seq uint64) bool {
	parts := strings.Split(key, "/")
	if len(parts) < 3 {
		return false
	}
	n, err := strconv.ParseUint(parts[2], 10, 64)
	return err == nil && n < seq
}

// snapshotEvery is after how many events the tracker is stored anew, so that taking up
// a run of a million items reads little.
const snapshotEvery = 5000
