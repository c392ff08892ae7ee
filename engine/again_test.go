package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
)

// TestEvidenceOfItemsThatWereToldOfTwice feeds what workers tell that were handed the same
// jobs: one lost its lease and went on.
func TestEvidenceOfItemsThatWereToldOfTwice(t *testing.T) {
	result := func(first, attempt, epoch uint32, failed, parked []uint32) Event {
		e := Event{
			Type: EventResult, Run: "r", Epoch: epoch, Failed: failed, Parked: parked, Result: &myrmidon.Result{},
			Job: &myrmidon.Job{Kind: "w.k", Run: "r", First: first, Count: 1, Attempt: attempt, Epoch: epoch},
		}
		if len(failed) > 0 {
			e.Error = &myrmidon.Failure{Message: "no"}
		}
		return e
	}
	is := func(x uint32) []uint32 { return []uint32{x} }
	for _, tt := range []struct {
		name   string
		events []Event
		want   []string
	}{
		{"done twice", []Event{result(1, 1, 0, nil, nil), result(1, 1, 0, nil, nil)}, []string{"done"}},
		{"parked twice", []Event{result(1, 3, 0, is(1), is(1)), result(1, 3, 0, is(1), is(1))}, []string{"parked"}},
		{"parked, then done", []Event{result(1, 3, 0, is(1), is(1)), result(1, 3, 0, nil, nil)}, []string{"done"}},
		{"done, then parked", []Event{result(1, 3, 0, nil, nil), result(1, 3, 0, is(1), is(1))}, []string{"done"}},
		{"parked, and again after a retry by hand", []Event{result(1, 3, 0, is(1), is(1)), result(1, 3, 1, is(1), is(1))}, []string{"parked", "parked"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTracker("r", []myrmidon.Phase{{Name: "work"}})
			for i, e := range tt.events {
				if err := tr.apply(uint64(i+1), e); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			lines := newItemLines(tr)
			for _, e := range tt.events {
				if err := lines.of(e, func(it ItemReport) error {
					got = append(got, it.State)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}
