package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

// counting is a workload of two phases whose handlers count how often each item had its
// effect. What a test wants to go wrong, it puts into fail and hold.
type counting struct {
	mu      sync.Mutex
	effects map[string]int
	calls   map[string]int
	repeats int // calls that were told that the job may have been begun before
	fail    func(job myrmidon.Job, call int) error
	hold    chan struct{} // handlers wait here, if set
	held    chan string   // and say so here
	plan    myrmidon.PlannerFunc
	after   bool // phase two runs after failures
}

func newCounting() *counting {
	c := &counting{effects: make(map[string]int), calls: make(map[string]int)}
	c.plan = flatPlan(4)
	return c
}

// flatPlan emits n jobs of one item each in phase one, in slices of three, and one job in
// phase two.
func flatPlan(n int) myrmidon.PlannerFunc {
	return func(_ context.Context, s myrmidon.Step) (myrmidon.Slice, error) {
		if s.Phase == 1 {
			return myrmidon.Slice{Jobs: []myrmidon.Planned{{Kind: "count.end", Name: "end"}}, Done: true}, nil
		}
		var out myrmidon.Slice
		for i := int(s.Next); i < n && len(out.Jobs) < 3; i++ {
			out.Jobs = append(out.Jobs, myrmidon.Planned{Kind: "count.item", Name: fmt.Sprintf("item %d", i), Units: 10})
		}
		out.Done = int(s.Next)+len(out.Jobs) == n
		if s.Next == 0 {
			out.Note = json.RawMessage(`{"n":1}`)
			out.Group = "all"
		}
		return out, nil
	}
}

func (c *counting) workload() myrmidon.Workload {
	h := myrmidon.HandlerFunc(func(ctx context.Context, j myrmidon.Job) (myrmidon.Result, error) {
		c.mu.Lock()
		key := fmt.Sprintf("%d/%d/%d", j.Phase, j.Shard, j.First)
		c.calls[key]++
		if myrmidon.IsRepeat(ctx) {
			c.repeats++
		}
		call, fail, hold, held := c.calls[key], c.fail, c.hold, c.held
		c.mu.Unlock()
		if hold != nil {
			if held != nil {
				select {
				case held <- j.Name:
				case <-ctx.Done():
					return myrmidon.Result{}, ctx.Err()
				}
			}
			select {
			case <-hold:
			case <-ctx.Done():
				return myrmidon.Result{}, ctx.Err()
			}
		}
		if fail != nil {
			if err := fail(j, call); err != nil {
				return myrmidon.Result{}, err
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.effects[key]++
		return myrmidon.Result{
			Items: []myrmidon.ItemResult{{Index: j.First, Name: "effect " + key, Bytes: 7}},
			Usage: myrmidon.Usage{CPU: time.Second},
		}, nil
	})
	return myrmidon.Workload{
		Name:    "count",
		Phases:  []myrmidon.Phase{{Name: "one"}, {Name: "two", AfterFailures: c.after}},
		Planner: c.plan,
		Kinds:   []myrmidon.Kind{{Name: "count.item", Handler: h, Long: true}, {Name: "count.end", Handler: h}},
	}
}

func (c *counting) want(t *testing.T, want map[string]int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := cmp.Diff(want, c.effects); d != "" {
		t.Errorf("effects (-want +got):\n%s", d)
	}
}

func once(n int) map[string]int {
	out := map[string]int{"1/0/0": 1}
	for i := range n {
		out[fmt.Sprintf("0/0/%d", i)] = 1
	}
	return out
}

type bench struct {
	state *engine.State
	dir   engine.Home
	cfg   engine.RunConfig
}

func newBench(t *testing.T, c *counting) *bench {
	t.Helper()
	state, err := engine.OpenState(t.TempDir())
	check(t, err)
	dir, err := state.Create(engine.Info{Workload: "count", Title: "a test", Spec: json.RawMessage(`{}`)})
	check(t, err)
	return &bench{state, dir, engine.RunConfig{
		Workload: c.workload(),
		Slots:    engine.NewSlots(2),
		Open: func(ctx context.Context, dir string) (engine.Backend, error) {
			return jetstream.Open(ctx, jetstream.Config{Dir: dir})
		},
	}}
}

func (b *bench) start(t *testing.T) *engine.Run {
	t.Helper()
	r, err := engine.Start(t.Context(), b.dir, b.cfg)
	check(t, err)
	return r
}

// again opens the run as another process would.
func (b *bench) again(t *testing.T, retry bool) *engine.Run {
	t.Helper()
	dir, err := b.state.Find(b.dir.RunID())
	check(t, err)
	check(t, dir.Lock())
	b.dir, b.cfg.RetryParked = dir, retry
	return b.start(t)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, r *engine.Run, state myrmidon.State) *engine.Report {
	t.Helper()
	select {
	case <-r.Done():
	case <-time.After(2 * time.Minute):
		t.Fatal("the run did not end")
	}
	rep, err := r.Wait()
	check(t, err)
	if rep.State != state {
		t.Fatalf("state %s, want %s; error %v", rep.State, state, rep.Error)
	}
	return rep
}

func TestRunDoesEveryItemOnceAndReportsIt(t *testing.T) {
	c := newCounting()
	c.plan = flatPlan(8)
	b := newBench(t, c)
	rep := wait(t, b.start(t), myrmidon.Succeeded)
	c.want(t, once(8))
	if rep.Counts.Planned != 9 || rep.Counts.Done != 9 || rep.Usage.CPU < 9 || len(rep.Plan) != 1 {
		t.Errorf("report: %+v, usage %+v", rep.Counts, rep.Usage)
	}
	if len(rep.Items) != 9 || rep.Items[0].State != "done" || rep.Items[0].Attempts != 1 || rep.Items[0].Bytes != 7 {
		t.Errorf("items: %+v", rep.Items)
	}
	info, err := b.dir.Info()
	check(t, err)
	if info.State != myrmidon.Succeeded || info.Live || info.Totals.UnitsDone != 80 || info.Totals.UnitsTotal != 80 {
		t.Errorf("run.json: %+v", info)
	}
	saved, err := b.dir.Report()
	check(t, err)
	if saved.ID != rep.ID || saved.State != rep.State {
		t.Errorf("report.json differs: %+v", saved)
	}
	lines, err := os.ReadFile(rep.ItemsFile)
	check(t, err)
	if n := strings.Count(string(lines), "\n"); n != 9 {
		t.Errorf("items.jsonl has %d lines, want 9", n)
	}
	for _, name := range []string{"queue", "control.sock"} {
		if _, err := os.Lstat(folder(b.dir).Path(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left after the end: %v", name, err)
		}
	}
}

func TestFailingItemIsTriedAgainAndItsErrorIsKept(t *testing.T) {
	c := newCounting()
	c.fail = func(j myrmidon.Job, call int) error {
		if j.Name == "item 2" && call == 1 {
			return errors.New("the disk hiccuped")
		}
		return nil
	}
	rep := wait(t, newBench(t, c).start(t), myrmidon.Succeeded)
	c.want(t, once(4))
	for _, it := range rep.Items {
		if it.Index == 2 && it.Phase == "one" {
			if it.Attempts != 2 || it.LastError != "the disk hiccuped" {
				t.Errorf("item 2: %+v", it)
			}
		} else if it.Attempts != 1 || it.LastError != "" {
			t.Errorf("item %d: %+v", it.Index, it)
		}
	}
	if rep.Usage.Failures != 1 || rep.Error != nil {
		t.Errorf("failures %d, error %v", rep.Usage.Failures, rep.Error)
	}
}

func TestParkedItemStopsThePhasesThatNeedItUntilItIsRetried(t *testing.T) {
	c := newCounting()
	c.fail = func(j myrmidon.Job, _ int) error {
		if j.Name == "item 1" {
			return myrmidon.WithHint(myrmidon.Permanent(errors.New("item 1 is rotten")), "buy a new one")
		}
		return nil
	}
	b := newBench(t, c)
	rep := wait(t, b.start(t), myrmidon.Failed)
	want := once(4)
	delete(want, "0/0/1")
	delete(want, "1/0/0")
	c.want(t, want)
	if len(rep.Parked) != 1 || rep.Parked[0].Reason.Hint != "buy a new one" || rep.Parked[0].Job.Attempt != 1 {
		t.Fatalf("parked: %+v", rep.Parked)
	}
	if _, err := engine.Start(t.Context(), b.dir, b.cfg); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Fatalf("a failed run was taken up without being asked to retry: %v", err)
	}

	// Still rotten: the second epoch parks it again, once.
	rep = wait(t, b.again(t, true), myrmidon.Failed)
	c.want(t, want)
	if len(rep.Parked) != 1 || rep.Parked[0].Job.Epoch != 1 {
		t.Fatalf("parked after a retry: %+v", rep.Parked)
	}

	c.mu.Lock()
	c.fail = nil
	c.mu.Unlock()
	rep = wait(t, b.again(t, true), myrmidon.Succeeded)
	c.want(t, once(4))
	if rep.Counts.Failed != 0 || rep.Counts.Done != 5 || len(rep.Parked) != 0 {
		t.Errorf("after the retry: %+v, parked %v", rep.Counts, rep.Parked)
	}
	// Evidence of all three sessions, in order, nothing twice.
	var states []string
	for _, it := range rep.Items {
		states = append(states, fmt.Sprintf("%s/%d %s", it.Phase, it.Index, it.State))
	}
	got := fmt.Sprint(states[len(states)-3:])
	if len(states) != 7 || got != "[one/1 parked one/1 done two/0 done]" {
		t.Errorf("items: %v", states)
	}
}

func TestItemIsParkedAfterItsAttempts(t *testing.T) {
	c := newCounting()
	c.after = true
	c.fail = func(j myrmidon.Job, _ int) error {
		if j.Name == "item 3" {
			return errors.New("never works")
		}
		return nil
	}
	b := newBench(t, c)
	b.cfg.Workload.Kinds[0].Attempts = 2
	rep := wait(t, b.start(t), myrmidon.Partial)
	want := once(4) // phase two runs after failures
	delete(want, "0/0/3")
	c.want(t, want)
	if c.calls["0/0/3"] != 2 {
		t.Errorf("item 3 was tried %d times, want 2", c.calls["0/0/3"])
	}
	last := rep.Items[len(rep.Items)-2]
	if last.State != "parked" || last.Attempts != 2 {
		t.Errorf("item 3: %+v", last)
	}
}

func TestPlannerOpensShardsAndGoesOnAfterErrors(t *testing.T) {
	c := newCounting()
	var mu sync.Mutex
	failures := 1
	c.plan = func(ctx context.Context, s myrmidon.Step) (myrmidon.Slice, error) {
		mu.Lock()
		defer mu.Unlock()
		if s.Phase == 1 {
			return flatPlan(0)(ctx, s)
		}
		if s.Shard == 0 {
			return myrmidon.Slice{Done: true, Children: []myrmidon.Shard{{ID: 7, Group: "seven", Cursor: []byte(`"a"`)}, {ID: 9, Group: "nine"}}}, nil
		}
		if s.Shard == 7 && failures > 0 {
			failures--
			return myrmidon.Slice{}, errors.New("listing was cut short")
		}
		if s.Shard == 7 && string(s.Cursor) != `"a"` {
			return myrmidon.Slice{}, myrmidon.Permanent(fmt.Errorf("cursor %s", s.Cursor))
		}
		return myrmidon.Slice{Done: true, Jobs: []myrmidon.Planned{{Kind: "count.item", Count: 3}}}, nil
	}
	rep := wait(t, newBench(t, c).start(t), myrmidon.Succeeded)
	c.want(t, map[string]int{"0/7/0": 1, "0/9/0": 1, "1/0/0": 1})
	if rep.Counts.Planned != 7 || rep.Counts.Done != 7 {
		t.Errorf("counts: %+v", rep.Counts)
	}
	var names []string
	for _, g := range rep.Groups {
		names = append(names, fmt.Sprintf("%s %d", g.Name, g.Done))
	}
	if got := strings.Join(names, ", "); got != " 0, nine 3, seven 3,  1" {
		t.Errorf("groups: %q", got)
	}
}

func TestPlanThatCannotBeMadeFailsTheRunAndCanBeRetried(t *testing.T) {
	c := newCounting()
	broken := true
	c.plan = func(ctx context.Context, s myrmidon.Step) (myrmidon.Slice, error) {
		if broken {
			return myrmidon.Slice{}, myrmidon.WithHint(myrmidon.Permanent(errors.New("talk.mp4 is empty")), "upload it again")
		}
		return flatPlan(2)(ctx, s)
	}
	b := newBench(t, c)
	rep := wait(t, b.start(t), myrmidon.Failed)
	if rep.Error == nil || rep.Error.Message != "talk.mp4 is empty" || rep.Error.Hint != "upload it again" {
		t.Errorf("error: %+v", rep.Error)
	}
	c.want(t, map[string]int{})
	broken = false
	wait(t, b.again(t, true), myrmidon.Succeeded)
	c.want(t, once(2))
}

func TestHandlerPanicIsAFailure(t *testing.T) {
	c := newCounting()
	c.fail = func(j myrmidon.Job, call int) error {
		if call == 1 && j.Name == "item 0" {
			panic("index out of range")
		}
		return nil
	}
	rep := wait(t, newBench(t, c).start(t), myrmidon.Succeeded)
	c.want(t, once(4))
	if !strings.Contains(fmt.Sprint(rep.Items), "index out of range") {
		t.Errorf("the panic is not in the report: %+v", rep.Items)
	}
}

func holding() *counting {
	c := newCounting()
	c.hold, c.held = make(chan struct{}), make(chan string, 16)
	return c
}

// A machine that stops us for a second may do so once, hardly five times in a row.
func TestCancelEndsWithinASecond(t *testing.T) {
	least := time.Hour
	for try := 0; try < 5 && least > time.Second; try++ {
		c := holding()
		b := newBench(t, c)
		r := b.start(t)
		<-c.held
		start := time.Now()
		other, err := b.state.Find("latest")
		check(t, err)
		check(t, other.Control().Cancel(t.Context()))
		wait(t, r, myrmidon.Cancelled)
		least = min(least, time.Since(start))
		c.want(t, map[string]int{})
		if err := other.Control().Cancel(t.Context()); !errors.Is(err, engine.ErrNoOwner) {
			t.Errorf("a cancelled run has an owner: %v", err)
		}
	}
	if least > time.Second {
		t.Errorf("cancelling took %v, at the least of five times", least)
	}
}

func TestPauseHandsOutNothingUntilItEnds(t *testing.T) {
	c := holding()
	b := newBench(t, c)
	r := b.start(t)
	<-c.held
	<-c.held
	control := b.dir.Control()
	check(t, control.Pause(t.Context(), true))
	close(c.hold) // the two under way end; no third may begin
	s, err := control.Stats(t.Context())
	check(t, err)
	if !s.Paused || s.Standing() != "paused" {
		t.Errorf("stats of a paused run: %+v", s)
	}
	select {
	case name := <-c.held:
		t.Errorf("%s began in a paused run", name)
	case <-time.After(1500 * time.Millisecond): // longer than a pull waits
	}
	check(t, control.Pause(t.Context(), false))
	wait(t, r, myrmidon.Succeeded)
	c.want(t, once(4))
}

func TestDrainedRunGoesOnWhereItStopped(t *testing.T) {
	c := holding()
	b := newBench(t, c)
	r := b.start(t)
	<-c.held
	<-c.held
	r.Drain()
	close(c.hold)
	if _, err := r.Wait(); !errors.Is(err, engine.ErrInterrupted) {
		t.Fatalf("a drained run returned %v, want ErrInterrupted", err)
	}
	info, err := b.dir.Info()
	check(t, err)
	if info.Standing() != "interrupted" || info.Counts.Done != 2 {
		t.Errorf("a drained run is %s with %d items done", info.Standing(), info.Counts.Done)
	}
	wait(t, b.again(t, false), myrmidon.Succeeded)
	c.want(t, once(4))
}

func TestKilledJobsComeAgainAndCountNoAttempt(t *testing.T) {
	c := holding()
	b := newBench(t, c)
	r := b.start(t)
	<-c.held
	<-c.held
	if c.repeats > 0 {
		t.Errorf("%d first calls were told that they are not", c.repeats)
	}
	r.Kill()
	if _, err := r.Wait(); !errors.Is(err, engine.ErrInterrupted) {
		t.Fatalf("a killed run returned %v, want ErrInterrupted", err)
	}
	close(c.hold)
	rep := wait(t, b.again(t, false), myrmidon.Succeeded)
	c.want(t, once(4))
	if c.repeats < 2 { // those two; a job may come again that was pulled and not begun
		t.Errorf("%d calls were told that the job may have been begun before, 2 were", c.repeats)
	}
	for _, it := range rep.Items {
		if it.Attempts != 1 {
			t.Errorf("item %d needed %d attempts, want 1", it.Index, it.Attempts)
		}
	}
}

func TestSecondOwnerIsRefusedByName(t *testing.T) {
	c := holding()
	b := newBench(t, c)
	r := b.start(t)
	other, err := b.state.Find(b.dir.RunID()[:12])
	check(t, err)
	err = other.Lock()
	if !errors.Is(err, engine.ErrOwned) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("a second owner got %v, want ErrOwned with the owner's process", err)
	}
	close(c.hold)
	wait(t, r, myrmidon.Succeeded)
}

func TestParkedJobsOfALiveRunAreRetriedAndDropped(t *testing.T) {
	c := newCounting()
	release := make(chan struct{})
	c.fail = func(j myrmidon.Job, call int) error {
		switch {
		case j.Phase > 0:
		case j.First > 1:
			<-release // the run goes on until both others are parked
		case call == 1:
			return myrmidon.Permanent(errors.New("bad luck"))
		}
		return nil
	}
	b := newBench(t, c)
	r := b.start(t)
	control := b.dir.Control()
	var parked []engine.Parked
	for deadline := time.Now().Add(10 * time.Second); len(parked) < 2 && time.Now().Before(deadline); {
		var err error
		parked, err = control.Parked(t.Context())
		check(t, err)
	}
	if len(parked) != 2 {
		t.Fatalf("parked: %+v", parked)
	}
	if n, err := control.Retry(t.Context(), "no-such"); err == nil {
		t.Errorf("an unknown ID was retried: %d", n)
	}
	// The event that parks may come after the parked entry: ask until it is taken.
	for n, deadline := 0, time.Now().Add(10*time.Second); n == 0 && time.Now().Before(deadline); {
		var err error
		if n, err = control.Retry(t.Context(), parked[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	n, err := control.Drop(t.Context(), parked[1].ID)
	check(t, err)
	if n != 1 {
		t.Errorf("dropped %d, want 1", n)
	}
	close(release)
	rep := wait(t, r, myrmidon.Failed)
	if rep.Counts.Done != 3 || rep.Counts.Failed != 1 || len(rep.Parked) != 0 {
		t.Errorf("counts %+v, parked %v", rep.Counts, rep.Parked)
	}
}

func TestControlSocketWorksBelowALongPath(t *testing.T) {
	c := holding()
	long := filepath.Join(t.TempDir(), strings.Repeat("a-long-folder-name/", 8))
	state, err := engine.OpenState(long)
	check(t, err)
	b := newBench(t, c)
	b.state = state
	b.dir, err = state.Create(engine.Info{Workload: "count", Spec: json.RawMessage(`{}`)})
	check(t, err)
	r := b.start(t)
	if _, err := b.dir.Control().Stats(t.Context()); err != nil {
		t.Error(err)
	}
	close(c.hold)
	wait(t, r, myrmidon.Succeeded)
}

func TestFindSaysWhatIsAmbiguousOrMissing(t *testing.T) {
	state, err := engine.OpenState(t.TempDir())
	check(t, err)
	if _, err := state.Find("01"); !errors.Is(err, engine.ErrNoRun) || myrmidon.Hint(err) == "" {
		t.Errorf("no runs: %v", err)
	}
	for range 2 {
		d, err := state.Create(engine.Info{Workload: "count"})
		check(t, err)
		check(t, d.Unlock())
	}
	if _, err := state.Find("0"); err == nil || !strings.Contains(err.Error(), "2 runs begin") {
		t.Errorf("an ambiguous prefix: %v", err)
	}
	infos, problems, err := state.List()
	check(t, err)
	if len(infos) != 2 || len(problems) != 0 || infos[0].ID >= infos[1].ID {
		t.Errorf("list: %v, %v", infos, problems)
	}
	latest, err := state.Find("latest")
	check(t, err)
	if latest.RunID() != infos[1].ID {
		t.Errorf("latest is %s, want %s", latest.RunID(), infos[1].ID)
	}
	check(t, os.WriteFile(folder(latest).Path("run.json"), []byte("{"), 0o600))
	infos, problems, err = state.List()
	check(t, err)
	if len(infos) != 1 || len(problems) != 1 || !strings.Contains(problems[0].Error(), folder(latest).Path("run.json")) {
		t.Errorf("a broken run.json hides others or its name: %v, %v", infos, problems)
	}
}

// folder is where a local run is kept.
func folder(h engine.Home) *engine.RunDir { return h.(*engine.RunDir) }
