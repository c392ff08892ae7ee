package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
)

// fullFleet cannot store evidence.
type fullFleet struct{ engine.Fleet }

var errFull = errors.New("no room")

func (f fullFleet) Set(ctx context.Context, key string, value []byte) error {
	if strings.HasPrefix(key, "items/") {
		return errFull
	}
	return f.Fleet.Set(ctx, key, value)
}

func TestARunWhoseOwnerFailedIsCarriedByAWorker(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	c.plan = flatPlan(5)
	w := c.workload()
	b := fullFleet{f.connect(f.server.URL())}
	home, err := engine.RunsOf(b).Create(engine.Info{Workload: w.Name, Version: w.Version, Title: "a test", Spec: json.RawMessage(`{}`)})
	check(t, err)
	r, err := engine.Start(t.Context(), home, engine.RunConfig{Workload: w})
	check(t, err)
	f.worker(w, func(cfg *engine.WorkerConfig) { cfg.Adopt = true })
	if _, err := r.Wait(); !errors.Is(err, errFull) {
		t.Fatalf("the owner ended with %v, want %v", err, errFull)
	}
	eventually(t, "a worker ends the run", engine.LeaseTime+20*time.Second, func() bool {
		info, err := home.Info()
		check(t, err)
		return info.State == myrmidon.Succeeded
	})
	c.want(t, once(5))
}
