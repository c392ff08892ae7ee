package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
)

const run = "01K0000000000000000000TEST"

var twoPhases = []myrmidon.Phase{{Name: "one"}, {Name: "two"}}

func plannedEvent(shard, step, next uint32, done bool) Event {
	return Event{Type: EventPlanned, Run: run, Shard: shard, Step: step, Next: next, Done: done, Units: 5}
}

func resultEvent(shard, first, count, attempt uint32, failed, parked []uint32) Event {
	j := myrmidon.Job{Kind: "k.k", Run: run, Shard: shard, First: first, Count: count, Attempt: attempt, Units: 5}
	e := Event{Type: EventResult, Run: run, Shard: shard, Job: &j, Result: &myrmidon.Result{}, Failed: failed, Parked: parked}
	if len(failed) > 0 {
		e.Error = &myrmidon.Failure{Message: "broke"}
	}
	return e
}

func feed(t *testing.T, tr *tracker, events ...Event) {
	t.Helper()
	for _, e := range events {
		if err := tr.apply(tr.seq+1, e); err != nil {
			t.Fatal(err)
		}
	}
}

// view is what must be the same whatever the order of events.
func view(tr *tracker) map[string]string {
	out := make(map[string]string)
	for p, shards := range tr.shards {
		for id, s := range shards {
			out[fmt.Sprintf("%d/%d", p, id)] = fmt.Sprint(s.group, s.next, s.sealed, s.done, s.failed, s.reissued, s.planFailed)
		}
	}
	out["units"] = fmt.Sprint(tr.totals.UnitsDone, tr.totals.UnitsTotal)
	return out
}

func TestEventsInAnyOrderAndTwiceGiveTheSameItems(t *testing.T) {
	root := Event{Type: EventPlanned, Run: run, Shard: RootShard}
	parent := plannedEvent(0, 1, 4, true)
	parent.Children = []myrmidon.Shard{{ID: 3, Group: "three"}}
	events := []Event{
		root, parent, plannedEvent(3, 1, 2, false), plannedEvent(3, 2, 5, true),
		resultEvent(0, 0, 2, 1, []uint32{1}, nil), resultEvent(0, 2, 2, 1, nil, nil),
		resultEvent(0, 1, 1, 2, nil, nil),
		resultEvent(3, 0, 5, 1, []uint32{4}, []uint32{4}),
	}
	want := newTracker(run, twoPhases)
	feed(t, want, events...)
	if start, end := want.next(); start != -1 || end != myrmidon.Failed {
		t.Fatalf("next: phase %d, end %q; want a failed run, since phase two needs phase one", start, end)
	}
	for seed := range uint64(50) {
		shuffled := slices.Concat(events, events[:4])
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got := newTracker(run, twoPhases)
		feed(t, got, shuffled...)
		if d := cmp.Diff(view(want), view(got)); d != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, d)
		}
	}
}

func TestPhaseIsCompleteOnlyWhenEveryKnownShardIsSealedAndFull(t *testing.T) {
	tr := newTracker(run, twoPhases)
	parent := plannedEvent(0, 1, 1, true)
	parent.Children = []myrmidon.Shard{{ID: 1}}
	steps := []struct {
		name  string
		event Event
		start int
	}{
		{"phase one is stored", Event{Type: EventPlanned, Run: run, Shard: RootShard}, -1},
		{"the parent is sealed with a child that is not planned", parent, -1},
		{"the parent's item is done", resultEvent(0, 0, 1, 1, nil, nil), -1},
		{"the child is planned but not sealed", plannedEvent(1, 1, 1, false), -1},
		{"the child's item is done", resultEvent(1, 0, 1, 1, nil, nil), -1},
		{"the child is sealed with one more item", plannedEvent(1, 2, 2, true), -1},
		{"the last item is done", resultEvent(1, 1, 1, 1, nil, nil), 1},
	}
	if start, _ := tr.next(); start != 0 {
		t.Fatalf("a new run starts phase %d, want 0", start)
	}
	for _, s := range steps {
		feed(t, tr, s.event)
		if start, end := tr.next(); start != s.start || end != "" {
			t.Fatalf("when %s: phase %d, end %q; want phase %d", s.name, start, end, s.start)
		}
	}
}

func TestStaleJobs(t *testing.T) {
	tr := newTracker(run, twoPhases)
	feed(t, tr,
		plannedEvent(0, 1, 4, true),
		resultEvent(0, 0, 1, 1, nil, nil),                 // 0 is done
		resultEvent(0, 1, 1, 3, []uint32{1}, []uint32{1}), // 1 is parked
		resultEvent(0, 2, 1, 1, []uint32{2}, nil),         // 2 has a next attempt
	)
	job := func(attempt, epoch uint32, items ...uint32) myrmidon.Job {
		return myrmidon.Job{Kind: "k.k", Run: run, Only: items, Attempt: attempt, Epoch: epoch}
	}
	for _, c := range []struct {
		name string
		job  myrmidon.Job
		want bool
	}{
		{"a done item", job(1, 0, 0), true},
		{"a parked item", job(3, 0, 1), true},
		{"an attempt that was reported", job(1, 0, 2), true},
		{"the next attempt", job(2, 0, 2), false},
		{"an item that nobody tried", job(1, 0, 3), false},
		{"one of several is left", job(1, 0, 0, 1, 3), false},
		{"a shard that is not known yet", myrmidon.Job{Run: run, Shard: 9, Count: 1, Attempt: 1}, false},
		{"a phase that does not exist", myrmidon.Job{Run: run, Phase: 9, Count: 1, Attempt: 1}, true},
	} {
		if got := tr.stale(c.job); got != c.want {
			t.Errorf("%s: stale %v, want %v", c.name, got, c.want)
		}
	}
	feed(t, tr, Event{Type: EventRetried, Run: run, Epoch: 1, Jobs: []myrmidon.Job{job(1, 1, 1)}})
	for _, c := range []struct {
		name string
		job  myrmidon.Job
		want bool
	}{
		{"the old job of a reissued item", job(3, 0, 1), true},
		{"the new job of a reissued item", job(1, 1, 1), false},
		{"a retry of the old epoch that was under way", job(2, 0, 2), false},
	} {
		if got := tr.stale(c.job); got != c.want {
			t.Errorf("after a retry by hand, %s: stale %v, want %v", c.name, got, c.want)
		}
	}
	// A late failure of the old epoch does not count for a reissued item; done does.
	late := resultEvent(0, 1, 1, 3, []uint32{1}, []uint32{1})
	feed(t, tr, late)
	if n := tr.phase(0).counts.Failed; n != 0 {
		t.Errorf("%d failed after a late failure of an older epoch, want 0", n)
	}
	feed(t, tr, resultEvent(0, 1, 1, 3, nil, nil), late)
	if c := tr.phase(0).counts; c.Done != 2 || c.Failed != 0 {
		t.Errorf("counts %+v, want 2 done", c)
	}
}

func TestSnapshotGivesTheSameTracker(t *testing.T) {
	tr := newTracker(run, twoPhases)
	for shard := range uint32(3000) {
		e := plannedEvent(shard, 1, 100, true)
		e.Group = fmt.Sprintf("a rather long name of a group %d", shard)
		feed(t, tr, e, resultEvent(shard, 0, 100, 1, []uint32{7, 8}, []uint32{8}))
	}
	e := resultEvent(0, 7, 1, 2, nil, nil)
	e.Result.Output = json.RawMessage(`{"a":1}`)
	for i := range uint32(30) { // more output than one blob holds
		big := resultEvent(5000+i, 0, 1, 1, nil, nil)
		big.Result.Output = json.RawMessage(`"` + strings.Repeat("x", 40<<10) + `"`)
		feed(t, tr, big)
	}
	e.Result.Usage = myrmidon.Usage{CPU: time.Second, Written: 5}
	feed(t, tr, e, Event{Type: EventPlanned, Run: run, Phase: 1, Error: myrmidon.AsFailure(errors.New("no plan"))})
	pages, head, err := tr.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 2 {
		t.Fatalf("%d pages: the test is too small", len(pages))
	}
	for i, p := range pages {
		if len(p) > maxBlob {
			t.Errorf("page %d has %d bytes, at most %d fit a blob", i, len(p), maxBlob)
		}
	}
	got := newTracker(run, twoPhases)
	if err := got.restore(pages, head); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(view(tr), view(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(tr.totals, got.totals); d != "" {
		t.Errorf("totals (-want +got):\n%s", d)
	}
	if len(head) > 4096 {
		t.Errorf("the head has %d bytes: it grows with the run", len(head))
	}
	if got.seq != tr.seq || len(got.output) != 31 || !got.stale(myrmidon.Job{Run: run, Shard: 5, Only: []uint32{7}, Attempt: 1}) {
		t.Errorf("sequence %d of %d, %d outputs, or the attempts are lost", got.seq, tr.seq, len(got.output))
	}
	if err := newTracker(run, twoPhases).restore([][]byte{[]byte("{")}, head); err == nil {
		t.Error("a damaged page was taken")
	}
}

func TestForeignEventsAreRefused(t *testing.T) {
	tr := newTracker(run, twoPhases)
	for name, e := range map[string]Event{
		"another run's":                  {Type: EventPlanned, Run: "other"},
		"a phase that does not exist":    {Type: EventPlanned, Run: run, Phase: 2},
		"a result without a job":         {Type: EventResult, Run: run},
		"a type that nobody has defined": {Type: "surprise", Run: run},
	} {
		if err := tr.apply(1, e); err == nil {
			t.Errorf("%s event was taken", name)
		}
	}
}

func TestBackoffDoublesUpToFiveMinutes(t *testing.T) {
	for attempt, want := range map[uint32]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 30: 5 * time.Minute, 4e9: 5 * time.Minute} {
		for range 100 {
			if d := backoff(attempt); d < want*3/4 || d > want*5/4 {
				t.Fatalf("backoff(%d) = %v, want %v ± 25 %%", attempt, d, want)
			}
		}
	}
}
