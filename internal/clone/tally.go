package clone

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
)

// The names of what a run's report adds up of its jobs (engine.Report.Tally), beside what
// the plan's notes say.
const (
	TallyCopied     = "copied"      // objects
	TallyBytes      = "bytes"       // of those
	TallyServer     = "server"      // bytes of those that the destination copied by itself
	TallySkipped    = "skipped"     // objects that a job found alike, there already or changed
	TallyLeft       = "left"        // objects that a job found the filters to leave out
	TallyFound      = "found_bytes" // bytes of objects of which only a job learned the size
	TallyUnverified = "unverified"  // keys of a list that there was nothing to verify of
)

// counts are those of the names above: fields, which cost each object less than a map.
type counts struct{ copied, bytes, server, skipped, left, found, unverified int64 }

// tally adds up what becomes of a job's objects, and tells how far it is.
type tally struct {
	moved atomic.Int64 // bytes that passed through this process

	mu    sync.Mutex
	n     counts
	units int64
	bytes int64 // of the objects that are done

	halt func()
}

// tellEvery is how often a job tells how far it is: only one that takes longer does.
const tellEvery = time.Second

func newTally(ctx context.Context, job myrmidon.Job) *tally {
	s := new(tally)
	passes := int64(1)
	if job.Kind == KindVerify || job.Kind == KindListedVerify {
		passes = 2 // both sides are read
	}
	stop := make(chan struct{})
	var teller sync.WaitGroup
	teller.Go(func() {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				myrmidon.Progress(ctx, myrmidon.Amount{Done: s.done(passes, job.Units), Total: job.Units})
			}
		}
	})
	s.halt = func() { close(stop); teller.Wait() }
	return s
}

func (s *tally) stop() { s.halt() }

// done is how many of the job's units are done, what is under way included.
func (s *tally) done(passes, units int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(s.units+max(s.moved.Load()/passes-s.bytes, 0)/unit, units)
}

// add takes in what was done with an object.
func (s *tally) add(e *Evidence, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units += 1 + size/unit
	s.bytes += size
	switch e.Action {
	case "copy":
		s.n.copied++
		s.n.bytes += size
		if e.How == "server" || e.How == "parts" {
			s.n.server += size
		}
	case "skip":
		s.n.skipped++
	case "left":
		s.n.left++
	case "verify":
		if e.How == "absent" {
			s.n.unverified++
		}
	}
	if e.found && e.Action != "verify" {
		s.n.found += size
	}
}

// sums are those that are not 0, nil if all are.
func (s *tally) sums() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out map[string]int64
	for name, n := range map[string]int64{
		TallyCopied: s.n.copied, TallyBytes: s.n.bytes, TallyServer: s.n.server, TallySkipped: s.n.skipped,
		TallyLeft: s.n.left, TallyFound: s.n.found, TallyUnverified: s.n.unverified,
	} {
		if n != 0 {
			out = addUp(out, map[string]int64{name: n})
		}
	}
	return out
}
