package clone

import (
	"context"
	"log/slog"

	"myrmidon"
	"myrmidon/object"
)

// The kinds of jobs.
const (
	KindCopy   = "clone.copy"
	KindListed = "clone.listed" // copies objects of which more than the key may not be known
	KindDelete = "clone.delete"
	KindVerify = "clone.verify"
	// KindListedVerify is to KindVerify what KindListed is to KindCopy.
	KindListedVerify = "clone.listed-verify"
)

// The phases, in order. Verify comes before delete so that nothing is removed for the
// sake of a copy that is not there.
const (
	phaseCopy = iota
	phaseVerify
	phaseDelete
)

// Config is what the workload needs of its surroundings.
type Config struct {
	// Open returns the store at an address, whose keys may be all that the store can hold.
	Open func(address string) (object.Store, error)
	// ReadList returns a part of the list that a run was given: see [List].
	ReadList func(ctx context.Context, run string, l List, part string) ([]byte, error)
	Log      *slog.Logger // nil discards
}

// Workload returns the clone workload: phases copy, verify, delete. Nothing is deleted
// after failures.
func Workload(cfg Config) myrmidon.Workload {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	w := &worker{cfg: cfg}
	return myrmidon.Workload{
		Name:    "clone",
		Version: 2, // raised when Spec, task or cursor changes its shape
		Phases:  []myrmidon.Phase{{Name: "copy"}, {Name: "verify", AfterFailures: true}, {Name: "delete", Optional: true}},
		Planner: myrmidon.PlannerFunc(w.plan),
		Kinds: []myrmidon.Kind{
			{Name: KindCopy, Handler: myrmidon.HandlerFunc(w.copy), Attempts: copyAttempts},
			{Name: KindListed, Handler: myrmidon.HandlerFunc(w.copyListed)},
			{Name: KindListedVerify, Handler: myrmidon.HandlerFunc(w.checkListed)},
			{Name: KindDelete, Handler: myrmidon.HandlerFunc(w.remove)},
			{Name: KindVerify, Handler: myrmidon.HandlerFunc(w.check)},
		},
	}
}

type worker struct {
	cfg  Config
	runs runs
}

func (w *worker) open(address string) (object.Store, error) { return w.cfg.Open(address) }
