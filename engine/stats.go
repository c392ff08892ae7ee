package engine

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// Stats is a run at one moment.
type Stats struct {
	Info
	Running []RunningJob `json:"running"`
	// UnitsDone and UnitsTotal count the workload's units (frames, bytes), jobs under
	// way included, or items where the workload has no units.
	UnitsDone  int64   `json:"units_now"`
	UnitsTotal int64   `json:"units_total"`
	Rate       float64 `json:"units_per_second"` // of the last seconds
	// ETA is 0 while it is not known.
	ETA   time.Duration     `json:"eta_ns"`
	Notes []json.RawMessage `json:"notes,omitempty"` // of the planner
}

// RunningJob is a job under way in this process.
type RunningJob struct {
	Phase   string `json:"phase"`
	Name    string `json:"name"`
	Attempt uint32 `json:"attempt"`
	Done    int64  `json:"done"`
	Total   int64  `json:"total"`
}

// Stats returns where the run is. It may be called from any goroutine, often.
func (r *Run) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh()
	s := Stats{Info: r.info, Notes: r.tracker.notes}
	s.Live = true
	s.UnitsDone, s.UnitsTotal = s.Totals.UnitsDone, s.Totals.UnitsTotal
	if s.UnitsTotal == 0 {
		s.UnitsDone, s.UnitsTotal = s.Counts.Done+s.Counts.Failed, s.Counts.Planned
	}
	for key, f := range r.inflight {
		if !f.seen.IsZero() && time.Since(f.seen) > quietAfter {
			delete(r.inflight, key)
			continue
		}
		s.Running = append(s.Running, RunningJob{
			Phase: r.cfg.Workload.Phases[f.job.Phase].Name, Name: f.job.Name, Attempt: f.job.Attempt,
			Done: f.amount.Done, Total: f.amount.Total,
		})
		s.UnitsDone += min(f.amount.Done, f.job.Units)
	}
	slices.SortFunc(s.Running, func(a, b RunningJob) int { return cmp.Compare(a.Name, b.Name) })
	s.Rate = r.rate.add(time.Now(), s.UnitsDone)
	if left := s.UnitsTotal - s.UnitsDone; s.Rate > 0 && left >= 0 && s.Counts.Sealed {
		s.ETA = time.Duration(float64(left) / s.Rate * float64(time.Second))
	}
	return s
}

// quietAfter is when a job on another machine, of which its worker tells each second, is
// taken for one that is not under way any more.
const quietAfter = 5 * time.Second

// rateWindow is how far back a rate looks: long enough to be calm, short enough to
// follow a change.
const rateWindow = 15 * time.Second

// rate is a sliding mean.
type rate struct{ samples []rateSample }

type rateSample struct {
	at    time.Time
	units int64
}

func (r *rate) add(now time.Time, units int64) float64 {
	if n := len(r.samples); n == 0 || now.Sub(r.samples[n-1].at) >= 250*time.Millisecond {
		r.samples = append(r.samples, rateSample{now, units})
	}
	for len(r.samples) > 2 && now.Sub(r.samples[0].at) > rateWindow {
		r.samples = r.samples[1:]
	}
	first := r.samples[0]
	if d := now.Sub(first.at).Seconds(); d > 0 && units > first.units {
		return float64(units-first.units) / d
	}
	return 0
}
