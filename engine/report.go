package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"myrmidon"
)

// maxInlineItems is how many items a report holds itself; more are only in the file.
const maxInlineItems = 1000

// Report is what is left of a run.
type Report struct {
	ID       string          `json:"id"`
	Workload string          `json:"workload"`
	Title    string          `json:"title"`
	State    myrmidon.State  `json:"state"`
	Created  time.Time       `json:"created"`
	Ended    time.Time       `json:"ended"`
	Active   float64         `json:"active_seconds"` // that an owner worked on it
	Versions map[string]any  `json:"versions,omitempty"`
	Spec     json.RawMessage `json:"spec"`
	// Plan holds the planner's notes.
	Plan   []json.RawMessage `json:"plan,omitempty"`
	Phases []PhaseReport     `json:"phases"`
	Groups []Group           `json:"groups,omitempty"`
	Counts Counts            `json:"counts"`
	// Items holds every item, or the first thousand; ItemsFile holds all.
	Items     []ItemReport      `json:"items"`
	ItemsFile string            `json:"items_file"`
	Parked    []Parked          `json:"parked,omitempty"`
	Outputs   []json.RawMessage `json:"outputs"`
	Tally     map[string]int64  `json:"tally,omitempty"` // what the workload counts
	Usage     UsageReport       `json:"usage"`
	Estimate  any               `json:"estimate,omitempty"`
	Cost      any               `json:"cost,omitempty"`
	Error     *myrmidon.Failure `json:"error,omitempty"`
}

// PhaseReport is a phase of the report.
type PhaseReport struct {
	Name string `json:"name"`
	Ran  bool   `json:"ran"`
	Counts
}

// ItemReport is the evidence for one item: a line of items.jsonl.
type ItemReport struct {
	Phase     string          `json:"phase"`
	Shard     uint32          `json:"shard"`
	Index     uint32          `json:"index"`
	Name      string          `json:"name,omitempty"`
	Plan      bool            `json:"plan,omitempty"` // it is no item, but the plan of the shard that failed
	State     string          `json:"state"`          // done or parked
	Attempts  uint32          `json:"attempts"`
	Bytes     int64           `json:"bytes,omitempty"`
	LastError string          `json:"last_error,omitempty"`
	Hint      string          `json:"hint,omitempty"`
	CPU       float64         `json:"cpu_seconds,omitempty"` // of the job, where it holds this item alone
	Seconds   float64         `json:"seconds,omitempty"`     // likewise
	PeakRSS   int64           `json:"peak_rss,omitempty"`    // likewise
	Note      json.RawMessage `json:"note,omitempty"`
	Worker    string          `json:"worker,omitempty"`
}

// UsageReport is what the run used.
type UsageReport struct {
	CPU      float64 `json:"cpu_seconds"`     // all: children and this program
	OwnCPU   float64 `json:"own_cpu_seconds"` // this program
	PeakRSS  int64   `json:"peak_rss_bytes"`
	Read     int64   `json:"read_bytes"`
	Written  int64   `json:"written_bytes"`
	Jobs     int64   `json:"jobs"`
	Failures int64   `json:"failures"` // attempts that failed
	// Requests to services, by the workload's names. AtLeast says that some may be missing:
	// a process that was killed, or may have been, had no time to tell of its last ones.
	Requests map[string]int64 `json:"requests,omitempty"`
	AtLeast  bool             `json:"at_least,omitempty"`
}

// buildReport needs r.mu.
func (r *Run) buildReport(items []ItemReport, parked []Parked) *Report {
	t := r.tracker
	rep := &Report{
		ID: r.info.ID, Workload: r.info.Workload, Title: r.info.Title, State: r.info.State,
		Created: r.info.Created, Ended: r.info.Ended, Active: r.info.Active.Seconds(), Spec: r.info.Spec,
		Plan: t.notes, Groups: t.groups(maxInlineItems), Counts: t.counts(), Items: items,
		Parked: parked, Outputs: t.output, Error: t.lastErr,
		Usage: UsageReport{
			CPU: (t.totals.CPU + r.info.OwnCPU).Seconds(), OwnCPU: r.info.OwnCPU.Seconds(), PeakRSS: r.info.PeakRSS,
			Read: t.totals.Read, Written: t.totals.Written, Jobs: t.totals.Jobs, Failures: t.totals.Failures,
			Requests: maps.Clone(t.totals.Requests), AtLeast: r.shared() || r.info.Resumed > 0,
		},
		Tally: maps.Clone(t.totals.Tally),
	}
	for p, ph := range t.phases {
		st := t.phase(p)
		rep.Phases = append(rep.Phases, PhaseReport{Name: ph.Name, Ran: st.started, Counts: st.counts})
	}
	switch {
	case rep.State == myrmidon.Succeeded:
		rep.Error = nil // what failed was done in a later attempt; items tell
	case len(parked) > 0:
		// The last error may be of an item that was done later, and a snapshot does not
		// hold it: what is parked is the cause.
		rep.Error = &parked[0].Reason
	}
	if rep.Items == nil {
		rep.Items = []ItemReport{}
	}
	if rep.Outputs == nil {
		rep.Outputs = []json.RawMessage{}
	}
	return rep
}

// writeItems streams the log into the run's evidence and returns its first lines. When a
// run is retried after its end, the lines of its earlier end stay in front: Info.ItemsSize
// of them, which hold the events up to Info.ItemsSeq.
func (r *Run) writeItems(ctx context.Context) (inline []ItemReport, size int64, err error) {
	to, err := r.home.newItems(r.info.ItemsSize)
	if err != nil {
		return nil, 0, err
	}
	defer to.abort()
	out := bufio.NewWriterSize(to, 1<<16)
	lines := newItemLines(r.tracker)
	enc := json.NewEncoder(out)
	err = r.backend.Read(ctx, r.info.ID, r.info.ItemsSeq, false, func(seq uint64, e Event) error {
		if seq > r.tracker.seq {
			return nil // a job that was done twice has come to its second end after the run's
		}
		if checkEvent(r.info.ID, len(r.tracker.phases), e) != nil {
			return nil // it was said when the tracker saw it
		}
		return lines.of(e, func(it ItemReport) error { return enc.Encode(it) })
	})
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		size, err = to.finish()
	}
	if err != nil {
		return nil, 0, err
	}
	stored, err := r.home.OpenItems()
	if err != nil {
		return nil, 0, err
	}
	defer stored.Close()
	inline, err = firstItems(stored)
	return inline, size, err
}

// firstItems reads the lines that fit into the report itself.
func firstItems(f io.Reader) (items []ItemReport, err error) {
	for dec := json.NewDecoder(f); len(items) < maxInlineItems; {
		var it ItemReport
		switch err := dec.Decode(&it); {
		case errors.Is(err, io.EOF):
			return items, nil
		case err != nil:
			return nil, err
		}
		items = append(items, it)
	}
	return items, nil
}

// itemLines turns events into lines, one for each item that was done or parked: jobs that
// were handed out twice may tell of an item twice, and may fail once and succeed once.
// Done wins, as with the tracker, which has seen all events. An item that was parked again
// after a retry by hand has a line for each time.
type itemLines struct {
	tracker *tracker
	seen    map[[3]uint32]*roaring.Bitmap   // items told of, by phase, shard, and epoch+1 if parked
	errors  map[[3]uint32]*myrmidon.Failure // of items that were tried again
}

func newItemLines(t *tracker) *itemLines {
	return &itemLines{t, make(map[[3]uint32]*roaring.Bitmap), make(map[[3]uint32]*myrmidon.Failure)}
}

// first reports whether an item is told of for the first time.
func (l *itemLines) first(e Event, parked bool, i uint32) bool {
	key := [3]uint32{e.Phase, e.Shard}
	if parked {
		key[2] = e.Epoch + 1
		if l.tracker.shard(e.Phase, e.Shard).done.Contains(i) {
			return false
		}
	}
	seen := l.seen[key]
	if seen == nil {
		seen = roaring.New()
		l.seen[key] = seen
	}
	return seen.CheckedAdd(i)
}

func (l *itemLines) of(e Event, emit func(ItemReport) error) error {
	if e.Type == EventPlanned && e.Error != nil {
		return emit(ItemReport{
			Phase: l.tracker.phases[e.Phase].Name, Shard: e.Shard, Name: "plan", Plan: true, State: "parked", Attempts: 1,
			LastError: e.Error.Message, Hint: e.Error.Hint, Worker: e.Worker,
		})
	}
	if e.Type != EventResult {
		return nil
	}
	evidence := make(map[uint32]myrmidon.ItemResult, len(e.Result.Items))
	for _, it := range e.Result.Items {
		evidence[it.Index] = it
	}
	failed, parked := roaring.BitmapOf(e.Failed...), roaring.BitmapOf(e.Parked...)
	for i := range e.Job.Items() {
		at := [3]uint32{e.Phase, e.Shard, i}
		it := evidence[i]
		why := it.Error
		if why == nil && failed.Contains(i) {
			why = e.Error
		}
		if failed.Contains(i) && !parked.Contains(i) {
			if why == nil || !why.Continue {
				l.errors[at] = why
			}
			continue
		}
		if !l.first(e, parked.Contains(i), i) {
			continue
		}
		row := ItemReport{
			Phase: l.tracker.phases[e.Phase].Name, Shard: e.Shard, Index: i, Name: it.Name, State: "done",
			Attempts: e.Job.Attempt - e.Job.Continued, Bytes: it.Bytes, Note: it.Note, Worker: e.Worker,
		}
		if row.Name == "" {
			row.Name = e.Job.Name
		}
		if parked.Contains(i) {
			row.State = "parked"
		} else {
			why = l.errors[at]
		}
		delete(l.errors, at)
		if why != nil {
			row.LastError, row.Hint = why.Message, why.Hint
		}
		if e.Job.Len() == 1 {
			u := e.Result.Usage
			row.CPU, row.Seconds, row.PeakRSS = u.CPU.Seconds(), u.End.Sub(u.Start).Seconds(), u.PeakRSS
		}
		if err := emit(row); err != nil {
			return fmt.Errorf("engine: items: %w", err)
		}
	}
	return nil
}
