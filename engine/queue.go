package engine

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
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
	// Close releases the backend. What was acknowledged by Commit or Set stays.
	// Deliveries that are neither acknowledged nor released come again.
	Close() error
}

// Queue hands jobs to workers, at least once each. All methods are safe for
// concurrent use.
type Queue interface {
	// Commit stores a batch: all of it or nothing. When it returns nil, the batch
	// survives what the backend's durability promises. A batch with a cursor is refused
	// with ErrStaleSlice unless the stored cursor's Seq is still Next.Seq. Commits of
	// many callers are gathered, so it pays to call it from many goroutines.
	Commit(ctx context.Context, b Batch) error

	// Cursor returns where the plan of a shard stands; the zero Cursor if nowhere.
	Cursor(ctx context.Context, run string, phase, shard uint32) (Cursor, error)

	// Pull hands out up to req.N jobs of a lane, waiting up to req.Wait for the first.
	// None is not an error. Retries whose time has not come are not handed out.
	Pull(ctx context.Context, req PullRequest) ([]Delivery, error)

	// Unhold makes the held jobs of a run fresh again, and returns how many they were.
	Unhold(ctx context.Context, run string) (int, error)

	// Purge forgets the jobs, cursors and events of a run that were stored up to the
	// sequence through; 0 means all. Deliveries under way are not recalled; their
	// acknowledgement does nothing.
	Purge(ctx context.Context, run string, through uint64) error
}

// Batch is what is stored together: at most 1,000 of all.
type Batch struct {
	Jobs   []myrmidon.Job // fresh, in order
	Again  []Again        // jobs to be tried again
	Held   []myrmidon.Job // jobs of paused runs or kinds; see Unhold
	Events []Event
	Next   Cursor // the new cursor of a shard's plan; the zero Cursor takes no part
}

// Again is a job to be handed out through PullRequest.Retries, not before Wait is over.
// The wait is measured from when it is stored and never longer than Wait, however
// clocks are set meanwhile.
type Again struct {
	Job  myrmidon.Job
	Wait time.Duration
}

// Lane is a line of jobs: first in, first out. Jobs of one workload and version share
// two, so that short jobs can be pulled by the hundred and long ones one by one.
type Lane struct {
	Workload string
	Version  uint32
	Long     bool
}

// LaneOf returns the lane that a job stands in. Its kind begins with the workload's name.
func LaneOf(j myrmidon.Job) Lane {
	workload, _, _ := strings.Cut(j.Kind, ".")
	return Lane{workload, j.Version, j.Long}
}

// Lanes returns the lanes of a workload's jobs, the short one first.
func Lanes(w myrmidon.Workload) []Lane {
	lanes := []Lane{{w.Name, w.Version, false}}
	for _, k := range w.Kinds {
		if k.Long {
			return append(lanes, Lane{w.Name, w.Version, true})
		}
	}
	return lanes
}

// PullRequest says what a worker wants.
type PullRequest struct {
	Lane    Lane
	Retries bool          // from the retries, else from the fresh jobs
	N       int           // at most 256
	Wait    time.Duration // 0: what is there now
	// Priority ranks the workers that wait: those with the lowest get work first. 0 to 9.
	Priority int
}

// MaxPull is the largest PullRequest.N.
const MaxPull = 256

// Delivery is a job that was handed out, and its lease. The lease ends by itself
// unless Extend is called; then the job is handed out again.
type Delivery interface {
	Job() myrmidon.Job
	// Again reports whether the job may have been handed out before: to a worker that
	// died, that lost its lease or that gave the job back.
	Again() bool
	// Extend starts the lease anew.
	Extend(ctx context.Context) error
	// Ack ends the job. It is a hint: after a crash the job may come again.
	Ack(ctx context.Context) error
	// Release gives the job back at once, for another pull.
	Release(ctx context.Context) error
}

// Log is the order in which a run's events were stored.
type Log interface {
	// Read calls fn with the run's events whose sequence is greater than after, in
	// order. With follow it goes on as events come, until ctx ends (then it returns
	// nil) or fn fails; without, it returns at the end of what is stored.
	Read(ctx context.Context, run string, after uint64, follow bool, fn func(seq uint64, e Event) error) error
}

// Blobs are small named values: snapshots, parked jobs, reports. Keys consist of
// [a-zA-Z0-9/_-]; values are at most 512 KiB. A prefix ends with a slash or is empty.
type Blobs interface {
	Set(ctx context.Context, key string, value []byte) error
	// Value wraps fs.ErrNotExist if the key is not set.
	Value(ctx context.Context, key string) ([]byte, error)
	// Keys returns the keys with a prefix, ascending.
	Keys(ctx context.Context, prefix string) ([]string, error)
	// Each calls fn with each key that has a prefix, and its value, in any order.
	Each(ctx context.Context, prefix string, fn func(key string, value []byte) error) error
	// Unset forgets keys; one that is not set is no error.
	Unset(ctx context.Context, keys ...string) error
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
	// Nonce tells an event that was stored twice, because the answer to the first time
	// was lost, from two events.
	Nonce uint64 `json:"nonce,omitempty"`

	// Retried: the jobs, without specs, that were stored with this event.
	Jobs []myrmidon.Job `json:"jobs,omitempty"`
}
