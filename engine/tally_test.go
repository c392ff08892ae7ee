package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
)

// Requests are counted as often as they were made, what was done once, and a snapshot
// forgets neither.
func TestRequestsAndTalliesAreAddedUp(t *testing.T) {
	tr := newTracker(run, twoPhases)
	plan := plannedEvent(0, 1, 4, true)
	plan.Result = &myrmidon.Result{Usage: myrmidon.Usage{Requests: map[string]int64{"list": 2}}}
	job := func(attempt uint32, failed []uint32, nonce uint64) Event {
		e := resultEvent(0, 0, 4, attempt, failed, nil)
		e.Nonce = nonce
		e.Result.Usage.Requests = map[string]int64{"copy": 4, "list": 1}
		e.Result.Tally = map[string]int64{"skipped": 3}
		return e
	}
	feed(t, tr, plan, job(1, []uint32{0, 1, 2, 3}, 1), job(2, nil, 2), job(2, nil, 2), job(2, nil, 3))
	requests, tally := map[string]int64{"copy": 12, "list": 5}, map[string]int64{"skipped": 3}
	check := func(tr *tracker) {
		t.Helper()
		if diff := cmp.Diff(requests, tr.totals.Requests); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(tally, tr.totals.Tally); diff != "" {
			t.Error(diff)
		}
	}
	check(tr) // the event that came twice by its nonce counts once
	pages, head, err := tr.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	again := newTracker(run, twoPhases)
	if err := again.restore(pages, head); err != nil {
		t.Fatal(err)
	}
	check(again)
	feed(t, again, plannedEvent(0, 1, 4, true))
	check(again)
}
