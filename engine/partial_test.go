package engine

import (
	"testing"

	"myrmidon"
)

func TestHowARunWithFailuresEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		second myrmidon.Phase
		failed []uint32
		want   myrmidon.State
	}{
		"a phase that is needed could not run": {myrmidon.Phase{}, []uint32{2}, myrmidon.Failed},
		"an optional one could not run":        {myrmidon.Phase{Optional: true}, []uint32{2}, myrmidon.Partial},
		"nothing was done":                     {myrmidon.Phase{Optional: true}, []uint32{0, 1, 2}, myrmidon.Failed},
	} {
		tr := newTracker(run, []myrmidon.Phase{{Name: "one"}, tt.second})
		root := Event{Type: EventPlanned, Run: run, Shard: RootShard, Done: true, Children: []myrmidon.Shard{{ID: 0}}}
		feed(t, tr, root, plannedEvent(0, 1, 3, true), resultEvent(0, 0, 3, 1, tt.failed, tt.failed))
		if _, state := tr.next(); state != tt.want {
			t.Errorf("%s: %q, want %q", name, state, tt.want)
		}
	}
}

func TestUnitsOfAJobThatComesAgainAreCountedOnce(t *testing.T) {
	tr := newTracker(run, twoPhases)
	again := resultEvent(0, 0, 5, 2, nil, nil)
	again.Job.Only = []uint32{3, 4}
	feed(t, tr, plannedEvent(0, 1, 5, true), resultEvent(0, 0, 5, 1, []uint32{3, 4}, nil), again)
	if got := tr.totals; got.UnitsDone != 5 || got.UnitsTotal != 5 {
		t.Errorf("%d of %d units are done", got.UnitsDone, got.UnitsTotal)
	}
}
