package engine

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"time"

	"myrmidon"
)

// ErrStaleSlice says that another process has already stored this slice, or a later
// one, of the shard's plan.
var ErrStaleSlice = errors.New("engine: this slice of the plan is already stored")

// MaxSliceJobs bounds a slice so that it fits one atomic batch: 1,000 messages in NATS
// (server/stream.go, streamDefaultMaxAtomicBatchSize), of which jobs, child shards,
// one continuation, one event and one cursor take part.
const MaxSliceJobs = 900

// RootShard is the shard number under which the start of a phase is stored, so that
// a phase starts once. Planners never use it.
const RootShard = math.MaxUint32

// Backend is where a run lives: all that must survive the process.
type Backend interface {
	Queue
	Log
	Blobs
	// Close releases the backend. What was acknowledged by Enqueue, Append or Set
	// stays. Deliveries that are neither acknowledged nor released come again.
	Close() error
}

// Queue hands jobs to workers, at least once each. All methods are safe for
// concurrent use.
type Queue interface {
	// Enqueue stores jobs in order, at most MaxSliceJobs of them, all or none.
	Enqueue(ctx context.Context, jobs []myrmidon.Job) error

	// EnqueueSlice stores a slice of a plan: its jobs, its event and the shard's new
	// cursor, all or none. The slice is refused with ErrStaleSlice unless the stored
	// cursor's Seq is still next.Seq. With a zero next, no cursor takes part.
	EnqueueSlice(ctx context.Context, jobs []myrmidon.Job, event Event, next Cursor) error

	// Cursor returns where the plan of a shard stands; the zero Cursor if nowhere.
	Cursor(ctx context.Context, run string, phase, shard uint32) (Cursor, error)

	// Pull hands out up to req.N jobs, waiting up to req.Wait for the first. None is
	// not an error. Retries whose time has not come are not handed out.
	Pull(ctx context.Context, req PullRequest) ([]Delivery, error)

	// Retry stores job, to be handed out through PullRequest.Retries no earlier than
	// notBefore.
	Retry(ctx context.Context, job myrmidon.Job, notBefore time.Time) error

	// Purge forgets the jobs, cursors and events of a run. Deliveries under way are
	// not recalled; their acknowledgement does nothing.
	Purge(ctx context.Context, run string) error
}

// PullRequest says what a worker wants.
type PullRequest struct {
	N       int
	Wait    time.Duration // 0: what is there now
	Retries bool          // from the retries, else from the fresh jobs
}

// Delivery is a job that was handed out, and its lease. The lease ends by itself
// unless Extend is called; then the job is handed out again.
type Delivery interface {
	Job() myrmidon.Job
	// Extend starts the lease anew.
	Extend(ctx context.Context) error
	// Ack ends the job. It is a hint: after a crash the job may come again.
	Ack(ctx context.Context) error
	// Release gives the job back at once, for another pull.
	Release(ctx context.Context) error
}

// Log is the order in which a run's events were stored.
type Log interface {
	// Append stores event; when it returns nil the event survives the process.
	Append(ctx context.Context, event Event) error

	// Read calls fn with the run's events whose sequence is greater than after, in
	// order. With follow it goes on as events come, until ctx ends (then it returns
	// nil) or fn fails; without, it returns at the end of what is stored.
	Read(ctx context.Context, run string, after uint64, follow bool, fn func(seq uint64, e Event) error) error
}

// Blobs are small named values: snapshots, parked jobs. Keys consist of
// [a-zA-Z0-9/_-]; values are at most 512 KiB.
type Blobs interface {
	Set(ctx context.Context, key string, value []byte) error
	// Value wraps fs.ErrNotExist if the key is not set.
	Value(ctx context.Context, key string) ([]byte, error)
	// Keys returns the keys with a prefix, ascending.
	Keys(ctx context.Context, prefix string) ([]string, error)
	// Unset forgets the key; one that is not set is no error.
	Unset(ctx context.Context, key string) error
}

// Cursor is where the plan of one shard stands.
type Cursor struct {
	Run   string `json:"run"`
	Phase uint32 `json:"phase"`
	Shard uint32 `json:"shard"`
	Steps uint32 `json:"steps"` // slices stored
	// Seq is the backend's sequence of the stored cursor, 0 for none.
	Seq uint64 `json:"-"`
}

// EventType says what an Event tells.
type EventType string

// The types of events.
const (
	EventPlanned EventType = "planned" // a slice of a plan was stored, or its planning failed
	EventResult  EventType = "result"  // a job was tried
	EventRetried EventType = "retried" // somebody asked for another try of what failed
)

// Event is one fact of a run's history. Planned and result events commute: the tracker
// knows the same items as done in whatever order, and however often, they are applied.
// Usage is counted per event.
type Event struct {
	Type  EventType `json:"type"`
	Run   string    `json:"run"`
	Time  time.Time `json:"time"`
	Phase uint32    `json:"phase"`
	Shard uint32    `json:"shard"`
	Epoch uint32    `json:"epoch,omitempty"`

	// Planned: the shard has Next items so far; Done seals it.
	Next     uint32           `json:"next,omitempty"`
	Done     bool             `json:"done,omitempty"`
	Group    string           `json:"group,omitempty"`
	Children []myrmidon.Shard `json:"children,omitempty"`
	Units    int64            `json:"units,omitempty"` // of this slice
	Step     uint32           `json:"step,omitempty"`  // number of this slice, from 1
	Note     json.RawMessage  `json:"note,omitempty"`

	// Result: the job without its spec, what came of it, and which of its failed
	// items were parked; the other failed items are tried again.
	Job    *myrmidon.Job     `json:"job,omitempty"`
	Result *myrmidon.Result  `json:"result,omitempty"`
	Parked []uint32          `json:"parked,omitempty"`
	Failed []uint32          `json:"failed,omitempty"` // of this attempt, parked ones included
	Error  *myrmidon.Failure `json:"error,omitempty"`  // of the job, or of the planning
	Worker string            `json:"worker,omitempty"`

	// Retried: the jobs, without specs, that were stored with this event.
	Jobs []myrmidon.Job `json:"jobs,omitempty"`
}
