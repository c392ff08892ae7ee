package logs

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/sink"
)

// KindShip is the kind of jobs that deliver the lines of some objects.
const KindShip = "logs.ship"

// shipAttempts is how often an object is tried that its store or its sink failed. Most of
// what a sink does not take is waited for within an attempt.
const shipAttempts = 5

// shipLimit is how long a job ships before what is left of it goes on in another: a worker that
// is to end has its last job behind it by then, whatever an object's size. A packed object is
// inflated up to its checkpoint each time, at hundreds of megabytes a second.
const shipLimit = 10 * time.Minute

// Checkpoints keeps how far the objects of runs are done. Names are of a-z0-9-; Load of one
// that is not kept wraps fs.ErrNotExist.
type Checkpoints interface {
	Load(ctx context.Context, run, place, name string) ([]byte, error)
	Save(ctx context.Context, run, place, name string, data []byte) error
	Forget(ctx context.Context, run, place, name string) error
}

// Config is what the workload needs of its surroundings.
type Config struct {
	// OpenBucket returns the store at an address, OpenObject that of one object and its key.
	OpenBucket func(address string) (object.Store, error)
	OpenObject func(address string) (object.Store, string, error)
	OpenSink   func(address string) (sink.Sink, error)
	// Checkpoints may be nil: a job that comes again then begins anew.
	Checkpoints Checkpoints
	// Limit is how long a job may take: 10 minutes if 0. It needs Checkpoints.
	Limit time.Duration
	Log   *slog.Logger // nil discards
}

func (c *Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// Workload returns the logs workload: one phase, ship.
func Workload(cfg Config) myrmidon.Workload {
	limit := cmp.Or(cfg.Limit, shipLimit)
	if cfg.Checkpoints == nil {
		limit = 0 // it would never come further than that
	}
	w := &worker{cfg: cfg, sinks: sinks{open: cfg.OpenSink}}
	return myrmidon.Workload{
		Name:    "logs",
		Version: 2, // raised when Spec, task or cursor changes its shape
		Phases:  []myrmidon.Phase{{Name: "ship"}},
		Planner: myrmidon.PlannerFunc(w.plan),
		Kinds:   []myrmidon.Kind{{Name: KindShip, Handler: myrmidon.HandlerFunc(w.handle), Long: true, Attempts: shipAttempts, Limit: limit}},
	}
}

type worker struct {
	cfg       Config
	sinks     sinks
	enrichers enrichers
}

// PlanNote is what a slice of the plan found.
type PlanNote struct {
	Objects int64 `json:"objects,omitempty"` // to be read
	Left    int64 `json:"left,omitempty"`    // that are of another time, or no logs by their names
	Bytes   int64 `json:"bytes,omitempty"`   // of those to be read, as they are stored
}

type cursor struct {
	After string `json:"after,omitempty"`
	Raw   []byte `json:"raw,omitempty"` // instead of After, if that is not UTF-8
}

// plan is the planner: a slice a page of the listing.
func (w *worker) plan(ctx context.Context, step myrmidon.Step) (out myrmidon.Slice, err error) {
	var spec Spec
	if err := json.Unmarshal(step.Spec, &spec); err != nil {
		return out, myrmidon.Permanent(fmt.Errorf("logs: spec: %w", err))
	}
	if err := spec.Validate(); err != nil {
		return out, err
	}
	store, single, err := spec.Open(w.cfg.OpenBucket, w.cfg.OpenObject)
	if err != nil {
		return out, err
	}
	var want []object.Info
	var note PlanNote
	if spec.Single {
		o, err := store.Head(ctx, single)
		if err != nil {
			return out, err
		}
		want, out.Done = []object.Info{o}, true
	} else {
		var at cursor
		if len(step.Cursor) > 0 {
			if err := json.Unmarshal(step.Cursor, &at); err != nil {
				return out, myrmidon.Permanent(fmt.Errorf("logs: cursor: %w", err))
			}
		}
		all, left, next, err := spec.Filter.page(ctx, store, entry{Key: at.After, Raw: at.Raw}.key())
		if err != nil {
			return out, err
		}
		want, note.Left, out.Done = all, int64(left), next == ""
		e := entryOf(object.Info{Key: next})
		if out.Cursor, err = json.Marshal(cursor{e.Key, e.Raw}); err != nil {
			return out, err
		}
	}
	note.Objects = int64(len(want))
	for _, o := range want {
		note.Bytes += max(o.Size, 0)
	}
	if out.Jobs, err = spec.jobs(want); err != nil {
		return out, err
	}
	out.Note, err = json.Marshal(note)
	return out, err
}

// Planned adds up the notes of a run's plan.
func Planned(notes []json.RawMessage) (sum PlanNote) {
	for _, raw := range notes {
		var n PlanNote
		if json.Unmarshal(raw, &n) == nil {
			sum.Objects += n.Objects
			sum.Left += n.Left
			sum.Bytes += n.Bytes
		}
	}
	return sum
}
