// Package enginetest holds the conformance suite of engine.Backend: what every backend
// promises, checked from outside.
package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"myrmidon"
	"myrmidon/engine"
)

// Options says how to make a backend, and what it can do.
type Options struct {
	// Open returns an empty backend whose leases end after lease.
	Open func(t *testing.T, lease time.Duration) engine.Backend
	// Reopen, if not nil, closes a backend as a killed process would and opens it again
	// on the same state.
	Reopen func(t *testing.T, b engine.Backend) engine.Backend
	// KeepsLeases says that jobs which a dead process held come again when their lease
	// ends: others may be at work on what the backend has handed out.
	KeepsLeases bool
}

const (
	runID = "01K0000000000000000000TEST"
	long  = 30 * time.Second // a lease that does not end in a test
	soon  = 20 * time.Second // how long to wait for what must come
	brief = time.Second      // a lease whose end is waited for
)

// Run runs the suite.
func Run(t *testing.T, o Options) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Options)
	}{
		{"jobs come in the order of their enqueueing, once each", inOrder},
		{"a pull without jobs returns nothing after its wait", emptyPull},
		{"a pull that waits sees a job that comes meanwhile", waitingPull},
		{"a job whose lease ends comes again, and not when it was extended or acknowledged", leases},
		{"a released job comes again at once", release},
		{"a retry is handed out after its time and only to pulls of retries", retries},
		{"a batch with one bad job is refused whole", badJobs},
		{"a slice stores jobs, event and cursor, and a second one with the same cursor nothing", slice},
		{"of many planners with one cursor, one stores its slice", racingSlices},
		{"900 jobs fit a slice", largeSlice},
		{"events are read in order, from any place, for one run", logOrder},
		{"a follower sees events that come later and ends with its context", follow},
		{"purge forgets one run and leaves others", purge},
		{"blobs are set, listed by prefix, replaced and unset", blobs},
		{"pullers never share a job", sharedPull},
		{"jobs of other workloads, versions and lengths stand in other lanes", lanes},
		{"held jobs are not handed out until they are unheld", holding},
		{"a failure's event and its next attempt are stored together or not at all", together},
		{"many commits at once are all stored, whole, each in its order", manyCommits},
		{"a job that comes again says so", comesAgain},
		{"a purge up to a sequence leaves what came later", purgeThrough},
		{"a retry waits no longer than it was told to, and is not lost by early pulls", earlyPulls},
		{"a log that is purged while it is read ends", purgedLog},
		{"a follower whose context has ended is told of no error", followNothing},
		{"after a kill everything acknowledged is there and unacknowledged jobs come again", reopen},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, o) })
	}
}

func job(i int) myrmidon.Job {
	return myrmidon.Job{
		Kind: "test.work", Run: runID, First: uint32(i), Count: 1, Attempt: 1,
		Spec: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i)),
	}
}

func jobs(from, n int) (out []myrmidon.Job) {
	for i := range n {
		out = append(out, job(from+i))
	}
	return out
}

// lane is where the suite's jobs stand.
var lane = engine.Lane{Workload: "test"}

func enqueue(t *testing.T, b engine.Backend, jobs []myrmidon.Job) error {
	return b.Commit(t.Context(), engine.Batch{Jobs: jobs})
}

func store(t *testing.T, b engine.Backend, jobs []myrmidon.Job, e engine.Event, next engine.Cursor) error {
	return b.Commit(t.Context(), engine.Batch{Jobs: jobs, Events: []engine.Event{e}, Next: next})
}

func again(t *testing.T, b engine.Backend, j myrmidon.Job, wait time.Duration) error {
	return b.Commit(t.Context(), engine.Batch{Again: []engine.Again{{Job: j, Wait: wait}}})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, o Options) engine.Backend {
	return o.Open(t, long)
}

// openToKill returns a backend that is to be reopened: what it holds then comes again
// within soon.
func openToKill(t *testing.T, o Options) engine.Backend {
	if o.KeepsLeases {
		return o.Open(t, brief)
	}
	return o.Open(t, long)
}

// pull gets exactly n jobs, in as many pulls as it takes.
func pull(t *testing.T, b engine.Backend, n int, retries bool) (out []engine.Delivery) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for len(out) < n {
		if time.Now().After(deadline) {
			t.Fatalf("got %d jobs in %v, want %d", len(out), soon, n)
		}
		ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: min(n-len(out), engine.MaxPull), Wait: time.Second, Retries: retries})
		must(t, err)
		out = append(out, ds...)
	}
	return out
}

func none(t *testing.T, b engine.Backend, retries bool) {
	t.Helper()
	ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: 10, Retries: retries})
	must(t, err)
	if len(ds) > 0 {
		t.Fatalf("pulled %d jobs, the first is %+v; want none", len(ds), ds[0].Job())
	}
}

func firsts(ds []engine.Delivery) (out []int) {
	for _, d := range ds {
		out = append(out, int(d.Job().First))
	}
	return out
}

func numbers(from, n int) (out []int) {
	for i := range n {
		out = append(out, from+i)
	}
	return out
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func inOrder(t *testing.T, o Options) {
	b := open(t, o)
	must(t, enqueue(t, b, jobs(0, 5)))
	must(t, enqueue(t, b, jobs(5, 1)))
	first := pull(t, b, 4, false)
	rest := pull(t, b, 2, false)
	same(t, "order", firsts(append(first, rest...)), numbers(0, 6))
	same(t, "job", first[1].Job(), job(1))
	none(t, b, false)
}

func emptyPull(t *testing.T, o Options) {
	b := open(t, o)
	none(t, b, false)
	none(t, b, true)
	start := time.Now()
	ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: 1, Wait: 50 * time.Millisecond})
	must(t, err)
	if took := time.Since(start); len(ds) != 0 || took < 40*time.Millisecond {
		t.Errorf("got %d jobs after %v, want none after 50ms", len(ds), took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ds, _ := b.Pull(ctx, engine.PullRequest{Lane: lane, N: 1, Wait: soon}); len(ds) != 0 || time.Since(start) > soon {
		t.Errorf("a cancelled pull went on")
	}
}

func waitingPull(t *testing.T, o Options) {
	b := open(t, o)
	got := make(chan []engine.Delivery)
	go func() {
		ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: 5, Wait: soon})
		if err != nil {
			t.Error(err)
		}
		got <- ds
	}()
	start := time.Now()
	must(t, enqueue(t, b, jobs(0, 1)))
	var all []engine.Delivery
	select {
	case all = <-got:
	case <-time.After(2 * soon):
		t.Fatal("the pull did not return")
	}
	same(t, "jobs", firsts(all), []int{0})
	if took := time.Since(start); took > soon/2 {
		t.Errorf("the pull came back %v after the job was there", took)
	}
}

func leases(t *testing.T, o Options) {
	b := o.Open(t, 3*time.Second) // longer than a busy machine lets those who extend it wait
	must(t, enqueue(t, b, jobs(0, 3)))
	ds := pull(t, b, 3, false)
	must(t, ds[0].Ack(t.Context()))
	stop := make(chan struct{})
	var keeping sync.WaitGroup
	keeping.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				if err := ds[1].Extend(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	again := pull(t, b, 1, false)
	same(t, "the job that came again", firsts(again), []int{2})
	must(t, again[0].Ack(t.Context()))
	none(t, b, false)
	close(stop)
	keeping.Wait()
}

func release(t *testing.T, o Options) {
	b := open(t, o)
	must(t, enqueue(t, b, jobs(0, 1)))
	must(t, pull(t, b, 1, false)[0].Release(t.Context()))
	must(t, pull(t, b, 1, false)[0].Ack(t.Context()))
	none(t, b, false)
}

func retries(t *testing.T, o Options) {
	b := open(t, o)
	due := time.Now().Add(3 * time.Second)
	late, now := job(1), job(2)
	must(t, again(t, b, late, time.Until(due)))
	must(t, again(t, b, now, 0))
	none(t, b, false)
	var got []int
	for i := 0; len(got) < 2; i++ {
		wait := time.Duration(0) // the second pull comes before the time, unless the machine is slow
		if i != 1 {
			wait = soon
		}
		ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: 1, Wait: wait, Retries: true})
		must(t, err)
		early := time.Until(due)
		got = append(got, firsts(ds)...)
		if early > 0 && !slices.Equal(got, []int{2}) {
			t.Fatalf("%v before the time of job 1 the retries %v are there, want job 2 alone", early, got)
		}
		if wait > 0 && len(ds) == 0 {
			t.Fatalf("after %v the retries %v are there, want jobs 1 and 2", soon, got)
		}
	}
	slices.Sort(got)
	same(t, "retries", got, []int{1, 2})
	none(t, b, true)
}

func badJobs(t *testing.T, o Options) {
	b := open(t, o)
	for name, spoil := range map[string]func(*myrmidon.Job){
		"a run that is no token": func(j *myrmidon.Job) { j.Run = "a.b" },
		"a kind with a wildcard": func(j *myrmidon.Job) { j.Kind = "test.>" },
		"no items":               func(j *myrmidon.Job) { j.Count = 0 },
		"too many items":         func(j *myrmidon.Job) { j.Count = myrmidon.MaxJobItems + 1 },
		"too large a spec": func(j *myrmidon.Job) {
			j.Spec = json.RawMessage(`"` + strings.Repeat("x", myrmidon.MaxJobSpec) + `"`)
		},
	} {
		bad := job(1)
		spoil(&bad)
		batch := []myrmidon.Job{job(0), bad, job(2)}
		if err := enqueue(t, b, batch); err == nil {
			t.Errorf("%s: Enqueue took it", name)
		}
		if err := store(t, b, batch, planned(1), engine.Cursor{Run: runID, Steps: 1}); err == nil {
			t.Errorf("%s: EnqueueSlice took it", name)
		}
		if err := again(t, b, bad, 0); err == nil {
			t.Errorf("%s: Retry took it", name)
		}
	}
	none(t, b, false)
	none(t, b, true)
}

func planned(step uint32) engine.Event {
	return engine.Event{Type: engine.EventPlanned, Run: runID, Step: step, Next: step}
}

func slice(t *testing.T, o Options) {
	b := open(t, o)
	ctx := t.Context()
	c, err := b.Cursor(ctx, runID, 0, 7)
	must(t, err)
	same(t, "no cursor", c.Steps, 0)
	c = engine.Cursor{Run: runID, Shard: 7, Steps: 1}
	must(t, store(t, b, jobs(0, 3), planned(1), c))
	if err := store(t, b, jobs(0, 3), planned(1), c); !errors.Is(err, engine.ErrStaleSlice) {
		t.Fatalf("the same slice again: %v, want ErrStaleSlice", err)
	}
	// Another shard's and another phase's cursors are their own.
	must(t, store(t, b, jobs(10, 1), planned(1), engine.Cursor{Run: runID, Shard: 8, Steps: 1}))
	must(t, store(t, b, nil, planned(1), engine.Cursor{Run: runID, Phase: 1, Shard: 7, Steps: 1}))
	c, err = b.Cursor(ctx, runID, 0, 7)
	must(t, err)
	same(t, "steps", c.Steps, 1)
	c.Steps = 2
	must(t, store(t, b, jobs(3, 1), planned(2), c))
	same(t, "jobs", firsts(pull(t, b, 5, false)), []int{0, 1, 2, 10, 3})
	none(t, b, false)
	// Jobs and an event without a cursor.
	must(t, store(t, b, jobs(20, 1), planned(3), engine.Cursor{}))
	must(t, store(t, b, jobs(21, 1), planned(4), engine.Cursor{}))
	same(t, "jobs without a cursor", firsts(pull(t, b, 2, false)), []int{20, 21})
	same(t, "events", len(read(t, b, runID, 0)), 6)
}

func racingSlices(t *testing.T, o Options) {
	b := open(t, o)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 8 {
		wg.Go(func() {
			err := store(t, b, jobs(i*10, 2), planned(1), engine.Cursor{Run: runID, Steps: 1})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, engine.ErrStaleSlice) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	same(t, "slices stored", won, 1)
	pull(t, b, 2, false)
	none(t, b, false)
	same(t, "events", len(read(t, b, runID, 0)), 1)
}

func largeSlice(t *testing.T, o Options) {
	b := open(t, o)
	must(t, store(t, b, jobs(0, engine.MaxSliceJobs), planned(1), engine.Cursor{Run: runID, Steps: 1}))
	same(t, "jobs", firsts(pull(t, b, engine.MaxSliceJobs, false)), numbers(0, engine.MaxSliceJobs))
}

func sharedPull(t *testing.T, o Options) {
	b := open(t, o)
	const n = 400
	must(t, enqueue(t, b, jobs(0, n)))
	var mu sync.Mutex
	var got []int
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: 7})
				if err != nil {
					t.Error(err)
				}
				if len(ds) == 0 {
					return
				}
				for _, d := range ds {
					if err := d.Ack(t.Context()); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				got = append(got, firsts(ds)...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	// A pull without wait may come back empty while others hold the stream; what is
	// left is pulled here.
	for len(got) < n {
		got = append(got, firsts(pull(t, b, 1, false))...)
	}
	slices.Sort(got)
	same(t, "jobs", got, numbers(0, n))
}

func reopen(t *testing.T, o Options) {
	if o.Reopen == nil {
		t.Skip("this backend ends with its process")
	}
	b := openToKill(t, o)
	ctx := t.Context()
	must(t, store(t, b, jobs(0, 4), planned(1), engine.Cursor{Run: runID, Steps: 1}))
	must(t, again(t, b, job(9), 0))
	must(t, b.Set(ctx, "k", []byte("v")))
	must(t, store(t, b, nil, planned(2), engine.Cursor{}))
	ds := pull(t, b, 3, false)
	must(t, ds[0].Ack(ctx))
	must(t, ds[1].Ack(ctx))
	pull(t, b, 1, true)

	b = o.Reopen(t, b)
	got := firsts(pull(t, b, 2, false)) // fails if they are not there soon
	// Acknowledgements are hints: jobs 0 and 1 may come as well, 2 and 3 must, and come again
	// when a lease ends. A pull fails if nothing comes soon.
	for len(got) < 20 && (!slices.Contains(got, 2) || !slices.Contains(got, 3)) {
		got = append(got, firsts(pull(t, b, 1, false))...)
	}
	if !slices.Contains(got, 2) || !slices.Contains(got, 3) {
		t.Errorf("jobs after the kill: %v, want 2 and 3 among them", got)
	}
	same(t, "retries", firsts(pull(t, b, 1, true)), []int{9})
	if events := read(t, b, runID, 0); len(events) != 2 {
		t.Errorf("events %v, want 2", events)
	}
	v, err := b.Value(ctx, "k")
	must(t, err)
	same(t, "blob", string(v), "v")
	c, err := b.Cursor(ctx, runID, 0, 0)
	must(t, err)
	same(t, "steps", c.Steps, 1)
}

func lanes(t *testing.T, o Options) {
	b := open(t, o)
	other, newer, slow := job(1), job(2), job(3)
	other.Kind, newer.Version, slow.Long = "other.work", 2, true
	must(t, enqueue(t, b, []myrmidon.Job{job(0), other, newer, slow}))
	same(t, "the lane of job 0", firsts(pull(t, b, 1, false)), []int{0})
	none(t, b, false)
	for i, j := range []myrmidon.Job{other, newer, slow} {
		ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: engine.LaneOf(j), N: 5, Wait: soon})
		must(t, err)
		same(t, "another lane", firsts(ds), []int{i + 1})
	}
}

func holding(t *testing.T, o Options) {
	b := open(t, o)
	ctx := t.Context()
	foreign := job(9)
	foreign.Run = "01K000000000000000000OTHER"
	must(t, b.Commit(ctx, engine.Batch{Held: append(jobs(0, 5), foreign)}))
	none(t, b, false)
	none(t, b, true)
	n, err := b.Unhold(ctx, runID)
	must(t, err)
	same(t, "jobs unheld", n, 5)
	same(t, "jobs", firsts(pull(t, b, 5, false)), numbers(0, 5))
	none(t, b, false)
	n, err = b.Unhold(ctx, runID)
	must(t, err)
	same(t, "jobs unheld the second time", n, 0)
}

func together(t *testing.T, o Options) {
	b := open(t, o)
	ctx := t.Context()
	must(t, b.Commit(ctx, engine.Batch{Again: []engine.Again{{Job: job(1)}}, Events: []engine.Event{planned(1)}}))
	same(t, "retries", firsts(pull(t, b, 1, true)), []int{1})
	same(t, "events", len(read(t, b, runID, 0)), 1)
	bad := job(2)
	bad.Run = "not a run"
	if err := b.Commit(ctx, engine.Batch{Again: []engine.Again{{Job: bad}}, Events: []engine.Event{planned(2)}}); err == nil {
		t.Error("a batch with a bad job was taken")
	}
	same(t, "events after a batch that was refused", len(read(t, b, runID, 0)), 1)
	var many []engine.Event
	for range engine.MaxBatch {
		many = append(many, planned(3))
	}
	if err := b.Commit(ctx, engine.Batch{Jobs: jobs(5, 1), Events: many}); err == nil {
		t.Error("a batch of 1,001 was taken")
	}
	same(t, "events after a batch that was too large", len(read(t, b, runID, 0)), 1)
}

func manyCommits(t *testing.T, o Options) {
	b := open(t, o)
	const callers, each = 40, 15
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				n := uint32(c*each + i)
				// A stale slice of one caller harms no other that shares its batch.
				stale := engine.Batch{Jobs: jobs(9999, 1), Next: engine.Cursor{Run: runID, Shard: n, Steps: 1, Seq: 77}}
				if i%5 == 0 {
					if err := b.Commit(t.Context(), stale); !errors.Is(err, engine.ErrStaleSlice) {
						t.Errorf("a slice behind a cursor that is not there: %v", err)
					}
				}
				if err := b.Commit(t.Context(), engine.Batch{Jobs: jobs(int(n), 1), Events: []engine.Event{planned(n)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := firsts(pull(t, b, callers*each, false))
	last := make(map[int]int)
	for _, n := range got {
		if n/each >= callers || n < last[n/each] {
			t.Fatalf("job %d of caller %d came after job %d", n, n/each, last[n/each])
		}
		last[n/each] = n
	}
	slices.Sort(got)
	same(t, "jobs", got, numbers(0, callers*each))
	same(t, "events", len(read(t, b, runID, 0)), callers*each)
	none(t, b, false)
}

func comesAgain(t *testing.T, o Options) {
	b := openToKill(t, o)
	must(t, enqueue(t, b, jobs(0, 1)))
	d := pull(t, b, 1, false)[0]
	same(t, "the first time", d.Again(), false)
	must(t, d.Release(t.Context()))
	d = pull(t, b, 1, false)[0]
	same(t, "the second time", d.Again(), true)
	if o.Reopen == nil {
		return
	}
	b = o.Reopen(t, b)
	if !o.KeepsLeases { // else it would overtake the job whose lease has not ended
		must(t, enqueue(t, b, jobs(1, 1)))
	}
	d = pull(t, b, 1, false)[0]
	same(t, "after a kill", d.Again(), true)
	if o.KeepsLeases {
		must(t, d.Ack(t.Context())) // or it comes once more
		must(t, enqueue(t, b, jobs(1, 1)))
	}
	same(t, "a new job after a kill", pull(t, b, 1, false)[0].Again(), false)
}

func earlyPulls(t *testing.T, o Options) {
	b := open(t, o)
	const n, wait = 50, time.Second
	due := time.Now().Add(wait) // of the first
	for i := range n {
		must(t, again(t, b, job(i), wait))
	}
	start := time.Now()
	var got []int
	for range 5 {
		ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: 10, Retries: true})
		must(t, err)
		if early := time.Until(due); early > 0 && len(ds) > 0 {
			t.Fatalf("pulled %d retries %v before their time", len(ds), early)
		}
		got = append(got, firsts(ds)...)
	}
	got = append(got, firsts(pull(t, b, n-len(got), true))...)
	// What was lost would come again after its lease, which is long.
	if took := time.Since(start); took > wait+long/2 {
		t.Errorf("the retries came after %v, they were to wait %v", took, wait)
	}
	slices.Sort(got)
	same(t, "retries", got, numbers(0, n))
}
