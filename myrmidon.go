// Package myrmidon holds the nouns that every part of Myrmidon shares: runs,
// phases, shards, items, jobs, handlers and the language of failure. It is data
// and small interfaces; nothing here starts a goroutine or opens a file.
//
// A [Workload] (transcode, clone, logs, …) is a list of phases, a [Planner] that
// turns a spec into jobs, and a [Handler] for each kind of job. The engine plans,
// hands out, retries and tracks; it knows nothing of video or buckets, and a
// handler knows nothing of queues or clouds.
//
//	run ── phase 0 ── shard 0 ── item 0, 1, 2, …      (planned in slices,
//	   │         └─── shard 1 ── item 0, 1, …          sealed with a total)
//	   └── phase 1 ── shard 0 ── …                    starts when phase 0 is complete
//
// # Promises
//
// A job may be handed out more than once: after a crash, a lost acknowledgement
// or a retry. So everything that a handler does outside its process is an
// idempotent write under a name derived from the job. In exchange the engine
// promises that every item of a run ends done or failed, whatever process dies,
// and that an item counted as done is never counted again.
package myrmidon

import (
	"context"
	"encoding/json"
	"iter"
	"time"
)

// Limits of one job. A batch ends at whichever comes first; larger inputs go by
// object key.
const (
	MaxJobItems = 100
	MaxJobSpec  = 48 << 10 // bytes of Job.Spec
)

// State is where a run stands.
//
//	planning ─► running ─► succeeded | partial | failed | cancelled
//
// A run whose owner died keeps planning or running until it is resumed.
type State string

// The states of a run. Partial means that every phase ended, but for optional ones, and
// some items were parked; failed means that nothing was done, not even in part, or that a
// phase could not run because of failures before it.
const (
	Planning  State = "planning"
	Running   State = "running"
	Succeeded State = "succeeded"
	Partial   State = "partial"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// Ended reports whether s is final.
func (s State) Ended() bool {
	return s == Succeeded || s == Partial || s == Failed || s == Cancelled
}

// Workload is what a command hands to the engine.
type Workload struct {
	Name string // the command's name: "transcode"
	// Version is raised when the shape of the run's spec or of the jobs' specs changes:
	// a worker takes only jobs of workloads and versions that it knows.
	Version uint32
	Phases  []Phase // in order; at least one
	Planner Planner
	Kinds   []Kind
}

// Phase is one step of a run. A phase starts when the phase before it is complete,
// that is, when each of its items is done or failed.
type Phase struct {
	Name string
	// AfterFailures lets the phase start although items before it failed. Phases
	// that publish or delete leave it false.
	AfterFailures bool
	// Optional says that the other phases have their worth without this one: a run in
	// which failures kept it from starting ends as partial, not as failed.
	Optional bool
}

// Kind is a class of jobs with one handler.
type Kind struct {
	Name    string // the workload's name, a dot and its own: "transcode.encode"
	Handler Handler
	// Long marks kinds whose jobs take seconds or more: a worker then holds one
	// job a slot and never pulls ahead.
	Long bool
	// Attempts is how often a failing item is tried in all; 0 means 3.
	Attempts int
	// Limit bounds how long a job may take, by its context's deadline; 0 means no bound. A
	// handler that may need longer stops in time and returns what it has not done with an
	// error marked by [Continue].
	Limit time.Duration
}

// Job is the unit handed to a handler: a range of items of one shard, and a spec
// small enough to travel on the queue.
type Job struct {
	Kind string `json:"kind"`
	// Version is the workload's, and Long the kind's: see [Workload] and [Kind].
	Version uint32 `json:"version,omitempty"`
	Long    bool   `json:"long,omitempty"`

	Run   string `json:"run"`
	Phase uint32 `json:"phase"`
	Shard uint32 `json:"shard"`
	// First and Count are the range of items. Only, if not empty, narrows it to
	// these indexes (ascending): a retry holds only the items that failed.
	First uint32   `json:"first"`
	Count uint32   `json:"count"`
	Only  []uint32 `json:"only,omitempty"`
	// Attempt counts from 1 within an Epoch; a retry asked for by a person opens
	// a new epoch. Continued of the attempts before ended with [Continue].
	Attempt   uint32 `json:"attempt"`
	Continued uint32 `json:"continued,omitempty"`
	Epoch     uint32 `json:"epoch,omitempty"`
	Name      string `json:"name,omitempty"` // for people: "chunk 2 of 4"
	// Units is the job's weight in progress and ETA, in the workload's unit (frames,
	// bytes), the same that Amount counts in.
	Units int64           `json:"units,omitempty"`
	Spec  json.RawMessage `json:"spec,omitempty"`
}

// Items yields the indexes of the job's items, ascending.
func (j Job) Items() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		if len(j.Only) > 0 {
			for _, i := range j.Only {
				if !yield(i) {
					return
				}
			}
			return
		}
		for i := range j.Count {
			if !yield(j.First + i) {
				return
			}
		}
	}
}

// Len is the number of items that the job holds.
func (j Job) Len() int {
	if len(j.Only) > 0 {
		return len(j.Only)
	}
	return int(j.Count)
}

// Handler does a job. Handle may be called again with the same job, also while an
// earlier call on another machine still runs; see the package's promises. A nil
// error means that every item is done but for those in Result.Items that carry an
// error. A non-nil error fails every item that Result.Items does not name as done.
//
// ctx ends when the run is cancelled or the process must stop; it carries the
// [Progress] sink and the [Gate] that pauses long work.
type Handler interface {
	Handle(ctx context.Context, job Job) (Result, error)
}

// HandlerFunc makes a function a Handler.
type HandlerFunc func(ctx context.Context, job Job) (Result, error)

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, job Job) (Result, error) { return f(ctx, job) }

// Result is what a handler says of its job. It travels as an event, so it is small:
// what later phases need in full belongs into the store.
type Result struct {
	// Items holds evidence or failures of single items; others are done.
	Items []ItemResult `json:"items,omitempty"`
	Usage Usage        `json:"usage"`
	// Output is added to the run's report, as it is. At most MaxJobSpec bytes.
	Output json.RawMessage `json:"output,omitempty"`
	// Tally is added up in the run's report, by name; of a job that was done twice, once.
	Tally map[string]int64 `json:"tally,omitempty"`
}

// ItemResult is the evidence for one item.
type ItemResult struct {
	Index uint32          `json:"index"`
	Name  string          `json:"name,omitempty"`
	Bytes int64           `json:"bytes,omitempty"`
	Note  json.RawMessage `json:"note,omitempty"`
	Error *Failure        `json:"error,omitempty"`
	// Part says of an item that failed that some of it was done nevertheless: a run in
	// which nothing else was done ends as partial, not as failed.
	Part bool `json:"part,omitempty"`
}

// Usage is what a job used, children included. Times are wall-clock UTC.
type Usage struct {
	Start   time.Time     `json:"start,omitzero"`
	End     time.Time     `json:"end,omitzero"`
	CPU     time.Duration `json:"cpu_ns,omitempty"`      // user and system time of child processes
	PeakRSS int64         `json:"peak_rss,omitempty"`    // bytes, of the largest moment
	Read    int64         `json:"read_bytes,omitempty"`  // from stores
	Written int64         `json:"write_bytes,omitempty"` // to stores
	// Requests to services, by names of the workload's choice: what a bill is made of.
	Requests map[string]int64 `json:"requests,omitempty"`
}

// Planner emits the jobs of a run, shard by shard, in slices of bounded size.
//
// Each phase begins with a call for shard 0 and an empty cursor. A slice may open
// child shards; each is then planned by calls of its own, possibly on other
// machines. A call may be repeated with the same step after a crash: Plan must
// then return the same slice.
//
// An error marked [Permanent] parks the shard's plan and fails the run; any other
// is retried.
type Planner interface {
	Plan(ctx context.Context, step Step) (Slice, error)
}

// PlannerFunc makes a function a Planner.
type PlannerFunc func(ctx context.Context, step Step) (Slice, error)

// Plan calls f.
func (f PlannerFunc) Plan(ctx context.Context, step Step) (Slice, error) { return f(ctx, step) }

// Step says where planning stands.
type Step struct {
	Run    string
	Spec   json.RawMessage // the run's spec
	Phase  uint32
	Shard  uint32
	Next   uint32          // index that the shard's next item gets
	Cursor json.RawMessage // from the previous slice; nil at first
}

// Slice is one bounded part of a shard's plan: at most 900 jobs and shards.
type Slice struct {
	Jobs     []Planned
	Children []Shard
	// Group names the shard for people (a prefix, a rendition). The first slice sets it.
	Group string
	// Cursor is handed to the next call. Done seals the shard: no item follows.
	Cursor json.RawMessage
	Done   bool
	// Note is shown to whoever watches the run; it is kept in the report.
	Note json.RawMessage
	// Usage is what planning this slice used.
	Usage Usage
}

// Planned is a job before the engine gives it its address.
type Planned struct {
	Kind  string
	Name  string
	Count uint32 // items; 0 means 1
	Units int64  // see Job.Units
	Spec  json.RawMessage
}

// Shard is a child that a slice opens. IDs are the planner's to choose: unique in
// the phase, and the same when the slice is planned again.
type Shard struct {
	ID     uint32          `json:"id"`
	Group  string          `json:"group,omitempty"`
	Cursor json.RawMessage `json:"cursor,omitempty"`
}
