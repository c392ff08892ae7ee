package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/netfault"
)

// fleetLease is the lease of jobs in these tests: where a worker is stopped for longer, its
// jobs are done twice, and rightly so.
const fleetLease = 30 * time.Second

// fleet is a broker, and what a test needs of it.
type fleet struct {
	t      *testing.T
	server *natsserver.Server
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	return &fleet{t, natsserver.Start(t, natsserver.Options{})}
}

// connect opens the broker as another process would.
func (f *fleet) connect(url string) *jetstream.Backend {
	f.t.Helper()
	b, err := jetstream.Connect(f.t.Context(), jetstream.Remote{URL: url, Lease: fleetLease})
	check(f.t, err)
	f.t.Cleanup(func() { b.Close() })
	return b
}

func (f *fleet) worker(w myrmidon.Workload, change func(*engine.WorkerConfig)) *engine.Worker {
	f.t.Helper()
	cfg := engine.WorkerConfig{Workloads: []myrmidon.Workload{w}, Slots: 2, Lease: fleetLease}
	if change != nil {
		change(&cfg)
	}
	out, err := engine.StartWorker(f.connect(f.server.URL()), cfg)
	check(f.t, err)
	f.t.Cleanup(func() {
		out.Kill()
		if err := out.Wait(); err != nil {
			f.t.Errorf("a worker ended: %v", err)
		}
	})
	return out
}

// run makes a run and carries it.
func (f *fleet) run(b *jetstream.Backend, w myrmidon.Workload) (engine.Home, *engine.Run) {
	f.t.Helper()
	home, err := engine.RunsOf(b).Create(engine.Info{Workload: w.Name, Version: w.Version, Title: "a test", Spec: json.RawMessage(`{}`)})
	check(f.t, err)
	r, err := engine.Start(f.t.Context(), home, engine.RunConfig{Workload: w})
	check(f.t, err)
	return home, r
}

// stored returns how many messages the broker keeps for runs.
func (f *fleet) stored(b *jetstream.Backend) uint64 {
	f.t.Helper()
	s, err := b.Standing(f.t.Context())
	check(f.t, err)
	return s.Messages
}

// eventually waits for what must come.
func eventually(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, within)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestFleetDoesEveryItemOnceAndKeepsTheEvidence(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	c.plan = flatPlan(50)
	c.fail = func(j myrmidon.Job, call int) error {
		if j.First == 7 && call == 1 {
			return myrmidon.RetryAfter(errors.New("not yet"), time.Millisecond)
		}
		return nil
	}
	w := c.workload()
	f.worker(w, nil)
	f.worker(w, nil)
	b := f.connect(f.server.URL())
	home, r := f.run(b, w)
	rep := wait(t, r, myrmidon.Succeeded)
	c.want(t, once(50))
	if rep.Counts.Done != 51 {
		t.Errorf("%d items done, want 51", rep.Counts.Done)
	}
	// Another process sees all of it.
	other, err := engine.RunsOf(f.connect(f.server.URL())).Find(home.RunID()[:20])
	check(t, err)
	info, err := other.Info()
	check(t, err)
	if info.State != myrmidon.Succeeded || info.Live {
		t.Errorf("the run is %s, live %v", info.State, info.Live)
	}
	saved, err := other.Report()
	check(t, err)
	if saved.Counts != rep.Counts || len(saved.Items) != 51 {
		t.Errorf("the saved report has %+v and %d items", saved.Counts, len(saved.Items))
	}
	items, err := other.OpenItems()
	check(t, err)
	data, err := io.ReadAll(items)
	check(t, err)
	if n := bytes.Count(data, []byte("\n")); n != 51 {
		t.Errorf("the evidence has %d lines, want 51", n)
	}
	eventually(t, "the broker is free of the run", 20*time.Second, func() bool { return f.stored(b) == 0 })
	check(t, other.Remove())
	if _, err := other.Info(); !errors.Is(err, engine.ErrNoRun) {
		t.Errorf("after it was removed: %v", err)
	}
}

func TestWorkerAdoptsTheRunOfADeadOwner(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	c.plan = flatPlan(30)
	c.hold, c.held = make(chan struct{}), make(chan string)
	w := c.workload()
	f.worker(w, func(cfg *engine.WorkerConfig) { cfg.Adopt = true })
	proxy, err := netfault.NewProxy(f.server.Addr())
	check(t, err)
	defer proxy.Close()
	home, r := f.run(f.connect("nats://"+proxy.Addr()), w)
	<-c.held
	<-c.held
	// The owner is cut off: for others it is dead.
	proxy.Cut()
	close(c.hold)
	go func() {
		for range c.held {
		}
	}()
	other, err := engine.RunsOf(f.connect(f.server.URL())).Find(home.RunID())
	check(t, err)
	eventually(t, "a worker has carried the run to its end", 40*time.Second, func() bool {
		info, err := other.Info()
		check(t, err)
		return info.State == myrmidon.Succeeded && info.Term == 2
	})
	c.want(t, once(30))
	// When the owner is back, it finds that it is none any more.
	proxy.Heal()
	select {
	case <-r.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the former owner goes on")
	}
	if rep, err := r.Wait(); !errors.Is(err, engine.ErrOwned) || rep != nil {
		t.Errorf("the former owner ended with %v, %v; want ErrOwned", rep, err)
	}
	if info, err := other.Info(); err != nil || info.State != myrmidon.Succeeded {
		t.Errorf("the former owner changed the run: %v, %v", info.State, err)
	}
}

func TestASecondOwnerIsRefusedAndAFreedRunIsTaken(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	w := c.workload()
	home, r := f.run(f.connect(f.server.URL()), w)
	other, err := engine.RunsOf(f.connect(f.server.URL())).Find("latest")
	check(t, err)
	if err := other.Lock(); !errors.Is(err, engine.ErrOwned) || myrmidon.Hint(err) == "" {
		t.Errorf("a second owner: %v, want ErrOwned with a hint", err)
	}
	r.Drain()
	if _, err := r.Wait(); !errors.Is(err, engine.ErrInterrupted) {
		t.Errorf("a drained run: %v", err)
	}
	info, err := home.Info()
	check(t, err)
	if !info.Left || info.Standing() != "interrupted" {
		t.Errorf("a run that was given up is %s, left %v", info.Standing(), info.Left)
	}
	check(t, other.Lock())
	f.worker(w, nil)
	again, err := engine.Start(t.Context(), other, engine.RunConfig{Workload: w})
	check(t, err)
	wait(t, again, myrmidon.Succeeded)
	c.want(t, once(4))
}

func TestCancelReachesTheWorkers(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	c.plan = flatPlan(300)
	c.hold, c.held = make(chan struct{}), make(chan string)
	w := c.workload()
	f.worker(w, nil)
	b := f.connect(f.server.URL())
	home, r := f.run(b, w)
	<-c.held
	<-c.held
	start := time.Now()
	check(t, home.Control().Cancel(t.Context()))
	wait(t, r, myrmidon.Cancelled)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the run ended %v after it was cancelled", took)
	}
	// The handlers, which wait for hold, ended; a run that comes after is done.
	c.mu.Lock()
	c.hold, c.held = nil, nil
	c.plan = flatPlan(4)
	c.mu.Unlock()
	next := newCounting()
	next.plan = flatPlan(4)
	_, second := f.run(b, w)
	wait(t, second, myrmidon.Succeeded)
	eventually(t, "the broker is free of both runs", 20*time.Second, func() bool { return f.stored(b) == 0 })
}

func TestPausedRunsAndKindsLetOthersWork(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	c.plan = flatPlan(20)
	c.hold, c.held = make(chan struct{}), make(chan string, 100)
	w := c.workload()
	b := f.connect(f.server.URL())
	home, r := f.run(b, w)
	check(t, home.Control().Pause(t.Context(), true))
	f.worker(w, nil)
	time.Sleep(500 * time.Millisecond)
	select {
	case name := <-c.held:
		t.Fatalf("%s began although its run is paused", name)
	default:
	}
	// Only the kind of the items: the plan goes on, and items are held.
	last := make(chan struct{}) // the run cannot end before it has heard all of this
	c.mu.Lock()
	c.fail = func(j myrmidon.Job, _ int) error {
		if j.Phase == 0 && j.First == 19 {
			<-last
		}
		return nil
	}
	c.mu.Unlock()
	close(c.hold)
	check(t, home.Control().Pause(t.Context(), true, "count.item"))
	check(t, home.Control().Pause(t.Context(), false))
	if err := home.Control().Pause(t.Context(), true, "no.such"); err == nil || !strings.Contains(err.Error(), "count.item") && !strings.Contains(myrmidon.Hint(err), "count.item") {
		t.Errorf("a kind that is not known: %v, want one that names those that are", err)
	}
	check(t, home.Control().Pause(t.Context(), true, "count.item"))
	check(t, home.Control().Pause(t.Context(), false, "count.item"))
	close(last)
	wait(t, r, myrmidon.Succeeded)
	c.want(t, once(20))
}

func TestWorkersTakeOnlyVersionsThatTheyKnow(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	old, newer := newCounting(), newCounting()
	v2 := newer.workload()
	v2.Version = 2
	f.worker(old.workload(), func(cfg *engine.WorkerConfig) { cfg.Adopt = true })
	b := f.connect(f.server.URL())
	home, r := f.run(b, v2)
	time.Sleep(time.Second)
	if s := r.Stats(); s.Counts.Planned != 0 {
		t.Errorf("a worker of another version planned: %+v", s.Counts)
	}
	f.worker(v2, nil)
	wait(t, r, myrmidon.Succeeded)
	newer.want(t, once(4))
	old.want(t, map[string]int{})
	check(t, home.Unlock())
	check(t, home.Lock())
	if _, err := engine.Start(t.Context(), home, engine.RunConfig{Workload: old.workload(), RetryParked: true}); err == nil || myrmidon.Hint(err) == "" {
		t.Errorf("a run of another version was taken up: %v", err)
	}
}

func TestWorkersSayWhoTheyAreAndDrain(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	c.hold, c.held = make(chan struct{}), make(chan string)
	w := c.workload()
	one := f.worker(w, func(cfg *engine.WorkerConfig) { cfg.Slots, cfg.Priority, cfg.Version = 1, 3, "v9" })
	b := f.connect(f.server.URL())
	list := func() []engine.WorkerInfo {
		all, err := engine.Workers(t.Context(), b)
		check(t, err)
		return all
	}
	eventually(t, "the worker is known", 20*time.Second, func() bool { return len(list()) == 1 })
	if got := list()[0]; got.ID != one.ID() || got.Standing() != "idle" || got.Priority != 3 || got.Version != "v9" || got.Workloads[0] != "count/0" {
		t.Errorf("the worker says %+v", got)
	}
	_, r := f.run(b, w)
	<-c.held
	eventually(t, "the worker says that it is busy", 20*time.Second, func() bool { return list()[0].Busy == 1 && list()[0].Standing() == "busy" })
	nine := 9
	_, err := engine.AskWorker(t.Context(), b, one.ID()[:4], false, &nine)
	check(t, err)
	eventually(t, "the priority has changed", 20*time.Second, func() bool { return list()[0].Priority == 9 })
	_, err = engine.AskWorker(t.Context(), b, one.ID(), true, nil)
	check(t, err)
	eventually(t, "the worker says that it drains", 20*time.Second, func() bool { return list()[0].Standing() == "draining" })
	// The job under way ends; the next ones are another worker's.
	c.mu.Lock()
	hold := c.hold
	c.hold, c.held = nil, nil
	c.mu.Unlock()
	close(hold)
	check(t, one.Wait())
	eventually(t, "the worker has signed off", 20*time.Second, func() bool { return len(list()) == 0 })
	if _, err := engine.AskWorker(t.Context(), b, one.ID(), true, nil); err == nil || myrmidon.Hint(err) == "" {
		t.Errorf("a worker that has ended was asked: %v", err)
	}
	f.worker(w, nil)
	wait(t, r, myrmidon.Succeeded)
	c.want(t, once(4))
}

func TestForgedJobsAndEventsAreLeftOut(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	c := newCounting()
	c.plan = flatPlan(20)
	w := c.workload()
	var log syncBuffer
	b := f.connect(f.server.URL())
	// A job of a run that is not there, and events that cannot be of this run.
	home, err := engine.RunsOf(b).Create(engine.Info{Workload: w.Name, Spec: json.RawMessage(`{}`)})
	check(t, err)
	run := home.RunID()
	forged := myrmidon.Job{Kind: "count.item", Long: true, Run: "01K00000000000000000FORGED", Count: 1, Attempt: 1}
	mine := forged
	mine.Run, mine.Phase = run, 99
	check(t, b.Commit(t.Context(), engine.Batch{Jobs: []myrmidon.Job{forged, mine}, Events: []engine.Event{
		{Type: engine.EventResult, Run: run},
		{Type: engine.EventResult, Run: run, Phase: 77},
		{Type: engine.EventResult, Run: run, Job: &myrmidon.Job{Kind: "count.item", Run: run, Count: 4_000_000_000, Attempt: 1}, Result: &myrmidon.Result{}},
		{Type: "nonsense", Run: run},
	}}))
	f.worker(w, func(cfg *engine.WorkerConfig) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	r, err := engine.Start(t.Context(), home, engine.RunConfig{Workload: w, Log: slog.New(slog.NewTextHandler(&log, nil))})
	check(t, err)
	wait(t, r, myrmidon.Succeeded)
	for key, n := range once(20) {
		c.mu.Lock()
		if c.effects[key] != n {
			t.Errorf("item %s had %d effects, want %d", key, c.effects[key], n)
		}
		c.mu.Unlock()
	}
	for _, want := range []string{"01K00000000000000000FORGED", "4000000000 items", "phase 77", "nonsense"} {
		// The worker may look at the forged job while others end the run.
		eventually(t, "something is said of "+want, 20*time.Second, func() bool { return strings.Contains(log.String(), want) })
	}
}

// syncBuffer is a buffer for many writers.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestTenThousandParkedJobsAreListedRetriedAndDropped(t *testing.T) {
	long.Test(t)
	t.Parallel()
	const n = 10_000
	f := newFleet(t)
	broken := true
	var mu sync.Mutex
	h := myrmidon.HandlerFunc(func(context.Context, myrmidon.Job) (myrmidon.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return myrmidon.Result{}, myrmidon.Permanent(errors.New("it never works"))
		}
		return myrmidon.Result{}, nil
	})
	w := myrmidon.Workload{
		Name: "many", Phases: []myrmidon.Phase{{Name: "one"}}, Kinds: []myrmidon.Kind{{Name: "many.item", Handler: h}},
		Planner: myrmidon.PlannerFunc(func(_ context.Context, s myrmidon.Step) (out myrmidon.Slice, _ error) {
			for i := s.Next; i < n && len(out.Jobs) < 800; i++ {
				out.Jobs = append(out.Jobs, myrmidon.Planned{Kind: "many.item", Name: fmt.Sprint(i), Spec: json.RawMessage(fmt.Sprintf(`{"n":"%0200d"}`, i))})
			}
			out.Done = int(s.Next)+len(out.Jobs) == n
			return out, nil
		}),
	}
	f.worker(w, func(cfg *engine.WorkerConfig) { cfg.Slots = 32 })
	home, r := f.run(f.connect(f.server.URL()), w)
	select {
	case <-r.Done():
	case <-time.After(3 * time.Minute):
		t.Fatal("the run did not end")
	}
	rep, err := r.Wait()
	check(t, err)
	if rep.State != myrmidon.Failed || len(rep.Parked) != n {
		t.Fatalf("the run is %s with %d parked jobs", rep.State, len(rep.Parked))
	}
	other, err := engine.RunsOf(f.connect(f.server.URL())).Find(home.RunID())
	check(t, err)
	check(t, other.Lock())
	start := time.Now()
	parked, err := engine.OpenParked(t.Context(), other, nil)
	check(t, err)
	all, err := parked.List()
	check(t, err)
	if len(all) != n || time.Since(start) > 30*time.Second {
		t.Errorf("%d parked jobs listed in %v", len(all), time.Since(start))
	}
	dropped, err := parked.Drop(all[0].ID, all[1].ID)
	check(t, err)
	if dropped != 2 {
		t.Errorf("%d dropped, want 2", dropped)
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	again, err := engine.Start(t.Context(), other, engine.RunConfig{Workload: w, RetryParked: true})
	check(t, err)
	select {
	case <-again.Done():
	case <-time.After(3 * time.Minute):
		t.Fatal("the retried run did not end")
	}
	rep, err = again.Wait()
	check(t, err)
	if rep.State != myrmidon.Partial || rep.Counts.Done != n-2 {
		t.Errorf("after the retry the run is %s with %+v", rep.State, rep.Counts)
	}
}
