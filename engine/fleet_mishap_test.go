package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/testkit/long"
)

// batches is a workload of n jobs of a hundred items.
func batches(n int, do func() error) myrmidon.Workload {
	h := myrmidon.HandlerFunc(func(context.Context, myrmidon.Job) (myrmidon.Result, error) { return myrmidon.Result{}, do() })
	return myrmidon.Workload{
		Name: "batch", Phases: []myrmidon.Phase{{Name: "one"}}, Kinds: []myrmidon.Kind{{Name: "batch.item", Handler: h}},
		Planner: myrmidon.PlannerFunc(func(_ context.Context, s myrmidon.Step) (out myrmidon.Slice, _ error) {
			for i := int(s.Next) / 100; i < n && len(out.Jobs) < 400; i++ {
				name := strings.Repeat("a long prefix of keys/", 10)
				out.Jobs = append(out.Jobs, myrmidon.Planned{Kind: "batch.item", Count: 100, Name: fmt.Sprint(name, i), Spec: json.RawMessage(`{}`)})
			}
			out.Done = int(s.Next)/100+len(out.Jobs) == n
			return out, nil
		}),
	}
}

// ended waits for a run whatever comes of it.
func ended(t *testing.T, r *engine.Run) (*engine.Report, error) {
	t.Helper()
	select {
	case <-r.Done():
	case <-time.After(2 * time.Minute):
		t.Fatal("the run did not end")
	}
	return r.Wait()
}

func TestPausesBesideTheLeaseDoNotCostIt(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	w := newCounting().workload()
	home, r := f.run(f.connect(f.server.URL()), w)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		for _, on := range []bool{true, false} {
			if err := home.Control().Pause(t.Context(), on); err != nil {
				t.Fatalf("pause %v: %v", on, err)
			}
		}
	}
	f.worker(w, nil)
	wait(t, r, myrmidon.Succeeded)
}

func TestALookAtParkedJobsLeavesARunForItsNextOwner(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	w := newCounting().workload()
	_, r := f.run(f.connect(f.server.URL()), w)
	r.Hand()
	if _, err := ended(t, r); !errors.Is(err, engine.ErrInterrupted) {
		t.Fatal(err)
	}
	other, err := engine.RunsOf(f.connect(f.server.URL())).Find("latest")
	check(t, err)
	check(t, other.Lock())
	p, err := engine.OpenParked(t.Context(), other, nil)
	check(t, err)
	_, err = p.List()
	check(t, err)
	check(t, other.Unlock())
	info, err := other.Info()
	check(t, err)
	if info.Left || !info.Free {
		t.Errorf("after a look at it the run is left %v, free %v; want it free for a worker", info.Left, info.Free)
	}
}

func TestAMistypedParkedNameLeavesAnEndedRunEnded(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	c.fail = func(j myrmidon.Job, _ int) error {
		if j.First == 2 {
			return myrmidon.Permanent(errors.New("never"))
		}
		return nil
	}
	w := c.workload()
	f.worker(w, nil)
	b := f.connect(f.server.URL())
	home, r := f.run(b, w)
	rep, err := ended(t, r)
	check(t, err)
	other, err := engine.RunsOf(b).Find(home.RunID())
	check(t, err)
	check(t, other.Lock())
	if _, err := engine.Start(t.Context(), other, engine.RunConfig{Workload: w, RetryParked: true, RetryIDs: []string{"nope"}}); err == nil || myrmidon.Hint(err) == "" {
		t.Errorf("a name that is not there: %v", err)
	}
	check(t, other.Unlock())
	info, err := other.Info()
	check(t, err)
	if info.State != rep.State {
		t.Errorf("the run was %s and is %s", rep.State, info.State)
	}
}

func TestManyParkedBatchesAreRetriedInSeveralEvents(t *testing.T) {
	long.Test(t)
	t.Parallel()
	f := newFleet(t)
	w := batches(900, func() error { return myrmidon.Permanent(errors.New("never")) })
	f.worker(w, func(cfg *engine.WorkerConfig) { cfg.Slots = 32 })
	b := f.connect(f.server.URL())
	home, r := f.run(b, w)
	_, err := ended(t, r)
	check(t, err)
	other, err := engine.RunsOf(b).Find(home.RunID())
	check(t, err)
	check(t, other.Lock())
	again, err := engine.Start(t.Context(), other, engine.RunConfig{Workload: w, RetryParked: true})
	check(t, err)
	rep, err := ended(t, again)
	check(t, err)
	if rep.Counts.Failed != 90_000 || len(rep.Parked) != 900 || rep.Usage.Jobs != 1800 {
		t.Errorf("%+v, %d parked, %d jobs; want each of 900 tried twice", rep.Counts, len(rep.Parked), rep.Usage.Jobs)
	}
}

func TestWhatIsTooLongForAMessageIsTheJobsFailureNotTheWorkers(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	long := batches(1, func() error { return myrmidon.Permanent(errors.New(strings.Repeat("<x>", 300<<10))) })
	wide := batches(1, func() error { return nil })
	wide.Name, wide.Kinds[0].Name = "wide", "wide.item"
	wide.Planner = myrmidon.PlannerFunc(func(context.Context, myrmidon.Step) (out myrmidon.Slice, _ error) {
		for i := range 899 {
			out.Children = append(out.Children, myrmidon.Shard{ID: uint32(i + 1), Group: strings.Repeat("g", 1000)})
		}
		out.Done = true
		return out, nil
	})
	f.worker(long, nil) // its cleanup complains if it ends by itself
	f.worker(wide, nil)
	b := f.connect(f.server.URL())
	for _, w := range []myrmidon.Workload{long, wide} {
		_, r := f.run(b, w)
		rep, err := ended(t, r)
		check(t, err)
		if rep.State != myrmidon.Failed || len(rep.Parked) != 1 || len(rep.Parked[0].Reason.Message) > 10<<10 {
			t.Errorf("%s: %s with %d parked jobs", w.Name, rep.State, len(rep.Parked))
		}
	}
}

func TestABadSnapshotIsAnErrorNotAPanic(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	w := newCounting().workload()
	b := f.connect(f.server.URL())
	home, err := engine.RunsOf(b).Create(engine.Info{Workload: w.Name, Spec: json.RawMessage(`{}`)})
	check(t, err)
	check(t, b.Set(t.Context(), "snapshot/"+home.RunID()+"/head", []byte(`{"seq":1,"pages":-1}`)))
	if _, err := engine.Start(t.Context(), home, engine.RunConfig{Workload: w}); err == nil || !strings.Contains(err.Error(), "-1 pages") {
		t.Errorf("a snapshot of -1 pages: %v", err)
	}
}

func TestALongEndKeepsTheLease(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	w := newCounting().workload()
	f.worker(w, func(cfg *engine.WorkerConfig) { cfg.Adopt = true })
	home, err := engine.RunsOf(f.connect(f.server.URL())).Create(engine.Info{Workload: w.Name, Spec: json.RawMessage(`{}`)})
	check(t, err)
	r, err := engine.Start(t.Context(), home, engine.RunConfig{Workload: w, Enrich: func(*engine.Report) { time.Sleep(engine.LeaseTime + 5*time.Second) }})
	check(t, err)
	wait(t, r, myrmidon.Succeeded)
	info, err := home.Info()
	check(t, err)
	if info.Term != 1 {
		t.Errorf("the run had %d owners", info.Term)
	}
}

func TestAPauseSurvivesItsOwner(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	w := c.workload()
	home, r := f.run(f.connect(f.server.URL()), w)
	check(t, home.Control().Pause(t.Context(), true))
	r.Hand()
	if _, err := ended(t, r); !errors.Is(err, engine.ErrInterrupted) {
		t.Fatal(err)
	}
	f.worker(w, func(cfg *engine.WorkerConfig) { cfg.Adopt = true })
	other, err := engine.RunsOf(f.connect(f.server.URL())).Find(home.RunID())
	check(t, err)
	eventually(t, "a worker carries the run", 20*time.Second, func() bool {
		info, err := other.Info()
		check(t, err)
		return info.Term == 2 && info.Live
	})
	time.Sleep(time.Second)
	info, err := other.Info()
	check(t, err)
	if !info.Paused || info.Counts.Done != 0 {
		t.Errorf("the run is paused %v with %+v", info.Paused, info.Counts)
	}
	check(t, other.Control().Pause(t.Context(), false))
	eventually(t, "the run has ended", 20*time.Second, func() bool {
		info, err := other.Info()
		check(t, err)
		return info.State == myrmidon.Succeeded
	})
	c.want(t, once(4))
}

func TestACancelledRunGivesItsSlotsBack(t *testing.T) {
	t.Parallel()
	for range 40 {
		c := newCounting()
		c.plan = flatPlan(30)
		b := newBench(t, c)
		b.cfg.Slots = engine.NewSlots(1)
		b.cfg.Open = func(context.Context, string) (engine.Backend, error) { return engine.NewMemory(), nil }
		r, err := engine.Start(t.Context(), b.dir, b.cfg)
		check(t, err)
		time.Sleep(time.Millisecond)
		r.Cancel()
		if _, err := ended(t, r); err != nil {
			t.Fatal(err)
		}
		if n := len(b.cfg.Slots); n != 0 {
			t.Fatalf("%d slots are still taken", n)
		}
	}
}
