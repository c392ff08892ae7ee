package engine

import (
	"testing"

	"myrmidon"
)

func TestRunThatHasLeftTheMeterTakesNoShare(t *testing.T) {
	var m Meter
	ended, live := new(Run), new(Run)
	m.join(ended)
	m.join(live)
	m.leave(ended)
	if got := m.take(ended); got != 0 {
		t.Errorf("a run that has left used %v", got)
	}
	if _, back := m.active[ended]; back || len(m.active) != 1 {
		t.Error("asking what it used brought a run that has left back among those under way")
	}
}

func TestParkedEntryWhoseItemWasDoneIsForgottenAtTheEnd(t *testing.T) {
	// The worker parked item 0 and died before its event; the job came again and did it.
	// Item 1 is parked for good.
	r := &Run{backend: NewMemory(), info: Info{ID: run}, tracker: newTracker(run, twoPhases)}
	for i := range uint32(2) {
		job := myrmidon.Job{Kind: "k.k", Run: run, First: i, Count: 1, Attempt: 1}
		if err := park(t.Context(), r.backend, Parked{Job: job, Reason: myrmidon.Failure{Message: "broke"}}); err != nil {
			t.Fatal(err)
		}
	}
	feed(t, r.tracker, plannedEvent(0, 1, 2, true), resultEvent(0, 0, 1, 1, nil, nil), resultEvent(0, 1, 1, 1, []uint32{1}, []uint32{1}))
	left, err := r.stillParked(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0].ID != "0-0-1-0" {
		t.Errorf("parked at the end: %+v, want item 1 alone", left)
	}
	stored, err := listParked(t.Context(), r.backend, run)
	if err != nil {
		t.Fatal(err)
	}
	if len(stored) != 1 {
		t.Errorf("%d entries are stored, want 1", len(stored))
	}
}
