package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"myrmidon"
)

// tracker knows which items of a run are done. It is fed with events in any order,
// more than once if need be, and is not safe for concurrent use: its owner guards it.
type tracker struct {
	run     string
	phases  []myrmidon.Phase
	shards  []map[uint32]*shard // by phase, then ID
	seq     uint64              // of the last event applied
	epoch   uint32
	totals  Totals
	notes   []json.RawMessage
	output  []json.RawMessage
	lastErr *myrmidon.Failure
	nonces  [4096]uint64 // of the events applied last, by their lower bits
}

// shard is the state of one shard.
type shard struct {
	group  string
	next   uint32 // items known so far
	sealed bool
	// steps is a set of the slices seen, so that units are counted once.
	steps  *roaring.Bitmap
	done   *roaring.Bitmap
	failed *roaring.Bitmap
	// reissued holds the items that failed and were given new jobs by hand; failures
	// of older epochs no longer count for them.
	reissued *roaring.Bitmap
	// attempts holds, for items that failed and are tried again, the attempts of this
	// epoch so far; an item leaves it when it is done or parked.
	attempts map[uint32]uint32
	// planFailed is why planning stopped for good.
	planFailed *myrmidon.Failure
}

// Totals is what a run used and did, summed over its events: a job that was tried
// twice counts twice, as it cost twice.
type Totals struct {
	Jobs       int64         `json:"jobs"`     // results, successful or not
	Failures   int64         `json:"failures"` // results with a failure
	UnitsTotal int64         `json:"units"`    // of all planned jobs
	UnitsDone  int64         `json:"units_done"`
	CPU        time.Duration `json:"cpu_ns"` // of handlers' child processes
	Read       int64         `json:"read_bytes"`
	Written    int64         `json:"write_bytes"`
	Bytes      int64         `json:"bytes"` // evidence: bytes of items done
	// See [myrmidon.Usage] and [myrmidon.Result].
	Requests map[string]int64 `json:"requests,omitempty"`
	Tally    map[string]int64 `json:"tally,omitempty"`
	// Part is set once an item failed of which a part was done.
	Part bool `json:"part,omitempty"`
}

// Counts is how many items a run, phase or group has.
type Counts struct {
	Planned int64 `json:"planned"`
	Done    int64 `json:"done"`
	Failed  int64 `json:"failed"`
	// Sealed is set when planning is over: Planned will not grow.
	Sealed bool `json:"sealed"`
}

func newTracker(run string, phases []myrmidon.Phase) *tracker {
	t := &tracker{run: run, phases: phases, shards: make([]map[uint32]*shard, len(phases))}
	for i := range t.shards {
		t.shards[i] = make(map[uint32]*shard)
	}
	return t
}

func (t *tracker) shard(phase, id uint32) *shard {
	s := t.shards[phase][id]
	if s == nil {
		s = &shard{steps: roaring.New(), done: roaring.New(), failed: roaring.New(), reissued: roaring.New(), attempts: make(map[uint32]uint32)}
		t.shards[phase][id] = s
	}
	return s
}

// apply takes one event. An event that cannot be of this run is an error, and changes
// nothing but the sequence: others may write to a shared broker.
func (t *tracker) apply(seq uint64, e Event) error {
	t.seq = max(t.seq, seq)
	if err := checkEvent(t.run, len(t.phases), e); err != nil {
		return fmt.Errorf("engine: event %d: %w", seq, err)
	}
	if e.Nonce != 0 {
		// An event whose answer was lost is stored once more: what it used counts once.
		at := &t.nonces[e.Nonce%uint64(len(t.nonces))]
		if *at == e.Nonce {
			return nil
		}
		*at = e.Nonce
	}
	switch e.Type {
	case EventPlanned:
		t.planned(e)
	case EventResult:
		t.result(e)
	case EventRetried:
		t.retried(e)
	default:
		return fmt.Errorf("engine: event %d of run %s has type %q, which this version does not know", seq, e.Run, e.Type)
	}
	return nil
}

// checkEvent says what is wrong with an event in the log of a run.
func checkEvent(run string, phases int, e Event) error {
	if e.Run != run || int(e.Phase) >= phases {
		return fmt.Errorf("run %s, phase %d is not of run %s with %d phases", e.Run, e.Phase, run, phases)
	}
	switch {
	case e.Type == EventResult && (e.Job == nil || e.Result == nil):
		return errors.New("it is a result without a job")
	case e.Type == EventResult && (e.Job.Run != e.Run || e.Job.Phase != e.Phase || e.Job.Shard != e.Shard):
		return errors.New("it is the result of another job")
	case e.Type == EventResult:
		return CheckJob(e.Job)
	}
	for i := range e.Jobs {
		if err := CheckJob(&e.Jobs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *tracker) planned(e Event) {
	if e.Result != nil {
		t.use(e.Result.Usage)
	}
	if e.Shard == RootShard {
		// The phase's first job is stored; its shard 0 is known from now on.
		t.shard(e.Phase, 0)
		return
	}
	s := t.shard(e.Phase, e.Shard)
	if e.Error != nil {
		if e.Epoch >= t.epoch && !s.sealed && !s.steps.Contains(e.Step) {
			s.planFailed = e.Error
			t.lastErr = e.Error
		}
		return
	}
	if !s.steps.CheckedAdd(e.Step) {
		return
	}
	s.planFailed = nil
	s.next = max(s.next, e.Next)
	s.sealed = s.sealed || e.Done
	if e.Group != "" {
		s.group = e.Group
	}
	for _, c := range e.Children {
		child := t.shard(e.Phase, c.ID)
		if child.group == "" {
			child.group = c.Group
		}
	}
	t.totals.UnitsTotal += e.Units
	if len(e.Note) > 0 {
		t.notes = append(t.notes, e.Note)
	}
}

func (t *tracker) use(u myrmidon.Usage) {
	t.totals.CPU += u.CPU
	t.totals.Read += u.Read
	t.totals.Written += u.Written
	addAll(&t.totals.Requests, u.Requests)
}

// addAll adds numbers to sums of the same names.
func addAll(sums *map[string]int64, n map[string]int64) {
	if *sums == nil && len(n) > 0 {
		*sums = make(map[string]int64, len(n))
	}
	for name, v := range n {
		(*sums)[name] += v
	}
}

func (t *tracker) result(e Event) {
	s := t.shard(e.Phase, e.Shard)
	t.totals.Jobs++
	t.use(e.Result.Usage)
	bad := roaring.BitmapOf(e.Failed...)
	parked := roaring.BitmapOf(e.Parked...)
	if !bad.IsEmpty() && (e.Error == nil || !e.Error.Continue) {
		t.totals.Failures++
		t.lastErr = e.Error
	}
	for _, it := range e.Result.Items {
		t.totals.Part = t.totals.Part || it.Part && parked.Contains(it.Index)
	}
	fresh := 0
	for i := range e.Job.Items() {
		switch {
		case !bad.Contains(i):
			if s.done.CheckedAdd(i) {
				fresh++
			}
			s.failed.Remove(i)
			delete(s.attempts, i)
		case s.done.Contains(i) || e.Epoch < t.epoch && s.reissued.Contains(i):
			// Done wins, and a failure from before somebody asked for a retry is forgotten.
		case parked.Contains(i):
			s.failed.Add(i)
			delete(s.attempts, i)
		default:
			s.attempts[i] = max(s.attempts[i], e.Job.Attempt)
		}
	}
	// Evidence counts once, with the event that first completes the job's items.
	if fresh > 0 {
		if n := e.Job.Count; n > 0 { // Units are of all its items, also where it holds only those that failed
			t.totals.UnitsDone += e.Job.Units * int64(fresh) / int64(n)
		}
		for _, it := range e.Result.Items {
			if it.Error == nil {
				t.totals.Bytes += it.Bytes
			}
		}
		if len(e.Result.Output) > 0 {
			t.output = append(t.output, e.Result.Output)
		}
		addAll(&t.totals.Tally, e.Result.Tally)
	}
}

// retried takes back the failures of the items in e.Jobs, which were stored as new jobs
// together with this event.
func (t *tracker) retried(e Event) {
	t.epoch = max(t.epoch, e.Epoch)
	t.lastErr = nil
	for _, j := range e.Jobs {
		if int(j.Phase) >= len(t.shards) {
			continue
		}
		s := t.shard(j.Phase, j.Shard)
		if strings.HasSuffix(j.Kind, planSuffix) {
			s.planFailed = nil
			continue
		}
		for i := range j.Items() {
			s.failed.Remove(i)
			s.reissued.Add(i)
		}
	}
}

// refail narrows j to the items that are failed now; false if none is. A plan is failed
// while its shard's planning has stopped.
func (t *tracker) refail(j *myrmidon.Job) bool {
	if int(j.Phase) >= len(t.shards) {
		return false
	}
	s := t.shard(j.Phase, j.Shard)
	if strings.HasSuffix(j.Kind, planSuffix) {
		return s.planFailed != nil
	}
	var only []uint32
	for i := range j.Items() {
		if s.failed.Contains(i) {
			only = append(only, i)
		}
	}
	j.Only = only
	return len(only) > 0
}

// stale reports whether a delivered job needs no handler: each of its items is done,
// parked, or has already been tried as often as this job says (its next attempt was
// stored before the event that tells of it).
func (t *tracker) stale(j myrmidon.Job) bool {
	if int(j.Phase) >= len(t.shards) {
		return true
	}
	s := t.shards[j.Phase][j.Shard]
	if s == nil || strings.HasSuffix(j.Kind, planSuffix) {
		return false // a plan's cursor tells
	}
	for i := range j.Items() {
		if s.done.Contains(i) || s.failed.Contains(i) || s.attempts[i] >= j.Attempt {
			continue
		}
		if j.Epoch < t.epoch && s.reissued.Contains(i) {
			continue // a newer job holds it
		}
		return false
	}
	return true
}

// phaseState says how far a phase is.
type phaseState struct {
	started, complete bool
	counts            Counts
	planFailed        *myrmidon.Failure
}

func (t *tracker) phase(p int) phaseState {
	st := phaseState{started: len(t.shards[p]) > 0, complete: true}
	st.counts.Sealed = true
	for _, s := range t.shards[p] {
		done, failed := int64(s.done.GetCardinality()), int64(s.failed.GetCardinality())
		st.counts.Planned += max(int64(s.next), done+failed)
		st.counts.Done += done
		st.counts.Failed += failed
		if s.planFailed != nil {
			st.planFailed = s.planFailed
			if int64(s.next) > done+failed {
				st.complete = false
			}
			continue
		}
		if !s.sealed {
			st.complete, st.counts.Sealed = false, false
		} else if done+failed < int64(s.next) {
			st.complete = false
		}
	}
	if !st.started {
		st.complete, st.counts.Sealed = false, false
	}
	return st
}

// counts sums all phases.
func (t *tracker) counts() Counts {
	c := Counts{Sealed: true}
	for p := range t.shards {
		st := t.phase(p)
		c.Planned += st.counts.Planned
		c.Done += st.counts.Done
		c.Failed += st.counts.Failed
		c.Sealed = c.Sealed && (st.counts.Sealed || !st.started)
	}
	return c
}

// Group is a row of the report: what people see of shards that carry the same name.
type Group struct {
	Phase string `json:"phase"`
	Name  string `json:"name"`
	Counts
}

// groups returns at most limit groups, in order of phase and name.
func (t *tracker) groups(limit int) []Group {
	var out []Group
	for p, shards := range t.shards {
		byName := make(map[string]*Counts)
		for _, s := range shards {
			c := byName[s.group]
			if c == nil {
				c = &Counts{Sealed: true}
				byName[s.group] = c
			}
			c.Planned += int64(s.next)
			c.Done += int64(s.done.GetCardinality())
			c.Failed += int64(s.failed.GetCardinality())
			c.Sealed = c.Sealed && s.sealed
		}
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			if len(out) < limit {
				out = append(out, Group{t.phases[p].Name, name, *byName[name]})
			}
		}
	}
	return out
}

// next says what the owner does now: start phase p, or end in state.
func (t *tracker) next() (start int, end myrmidon.State) {
	anyFailed, skipped := false, false
	for p := range t.phases {
		st := t.phase(p)
		switch {
		case !st.started && anyFailed && !t.phases[p].AfterFailures:
			skipped = skipped || !t.phases[p].Optional
			continue
		case !st.started:
			return p, ""
		case !st.complete:
			return -1, ""
		}
		if st.counts.Failed > 0 || st.planFailed != nil {
			anyFailed = true
		}
	}
	switch {
	case skipped:
		return -1, myrmidon.Failed
	case anyFailed && t.counts().Done == 0 && !t.totals.Part:
		return -1, myrmidon.Failed
	case anyFailed:
		return -1, myrmidon.Partial
	}
	return -1, myrmidon.Succeeded
}
