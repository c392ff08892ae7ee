package jetstream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
)

// TestAClusterLosesAServerDuringCommitsAndPulls kills the leader of the stream, and then a
// server that is not, while slices are stored and jobs pulled.
func TestAClusterLosesAServerDuringCommitsAndPulls(t *testing.T) {
	long.Test(t)
	t.Parallel()
	c := natsserver.StartCluster(t, 3, natsserver.Options{})
	var log logged
	b := connect(t, jetstream.Remote{URL: c.URL(), Lease: 3 * time.Second, Log: log.logger()})
	st := &storm{planners: 20, slices: 150}

	// The log is followed all the while, and every job must come.
	following, stop := context.WithCancel(t.Context())
	var followed sync.WaitGroup
	told := make(map[[2]uint32]bool)
	followed.Go(func() {
		if err := b.Read(following, runID, 0, true, func(_ uint64, e engine.Event) error {
			if e.Type == engine.EventPlanned {
				told[[2]uint32{e.Shard, e.Step}] = true
			}
			if len(told) == st.planners*st.slices {
				stop()
			}
			return nil
		}); err != nil {
			t.Errorf("the follower: %v", err)
		}
	})
	var workers sync.WaitGroup
	var mu sync.Mutex
	done := make(map[[2]uint32]bool)
	deadline := time.Now().Add(2 * time.Minute)
	for range 4 {
		workers.Go(func() {
			for time.Now().Before(deadline) {
				ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: 20, Wait: time.Second})
				if err != nil {
					t.Errorf("pull: %v", err)
					return
				}
				mu.Lock()
				for _, d := range ds {
					done[[2]uint32{d.Job().Shard, d.Job().First}] = true
					if err := d.Ack(t.Context()); err != nil {
						t.Error(err)
					}
				}
				all := len(done) == st.planners*st.slices
				mu.Unlock()
				if all {
					return
				}
			}
		})
	}
	st.start(t, b)
	for _, leader := range []bool{true, false} {
		time.Sleep(300 * time.Millisecond)
		victim := streamServer(t, b, c, leader)
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := errors.Join(victim.Restart(), victim.WaitHealthy(ctx))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	st.wait(t)
	workers.Wait()
	if len(done) != st.planners*st.slices {
		t.Errorf("%d jobs came, want %d", len(done), st.planners*st.slices)
	}
	stored := time.Now()
	defer time.AfterFunc(30*time.Second, stop).Stop()
	followed.Wait()
	if late := time.Since(stored); late > 12*time.Second {
		t.Errorf("the follower was behind by %v", late)
	}
	if len(told) != st.planners*st.slices {
		t.Errorf("the follower was told of %d slices, want %d", len(told), st.planners*st.slices)
	}
	events := make(map[[2]uint32]int)
	if err := b.Read(t.Context(), runID, 0, false, func(_ uint64, e engine.Event) error {
		if e.Type == engine.EventPlanned {
			events[[2]uint32{e.Shard, e.Step}]++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for at, n := range events {
		if n != 1 {
			t.Errorf("the slice %v is stored %d times", at, n)
		}
	}
	if len(events) != st.planners*st.slices {
		t.Errorf("%d slices are stored, want %d", len(events), st.planners*st.slices)
	}
	t.Logf("%d slices, %d refused the second time; the slowest took %v; the follower was done %v later", st.planners*st.slices, st.stale, st.slowest, time.Since(stored))
	if t.Failed() {
		t.Log(log.String())
	}
}

// streamServer is the server that leads the stream of runs, or one that does not.
func streamServer(t *testing.T, b *jetstream.Backend, c *natsserver.Cluster, leader bool) *natsserver.Server {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		standing, err := b.Standing(t.Context())
		if err != nil || c.Node(standing.Leader) == nil {
			continue // between two leaders
		}
		for _, s := range c.Nodes {
			if (s.Name() == standing.Leader) == leader {
				return s
			}
		}
	}
	t.Fatal("the stream has no leader")
	return nil
}
