package engine_test

import (
	"testing"

	"myrmidon"
	"myrmidon/engine"
)

// The attempt that a job is at has not ended, so fewer than its attempts were continued: a backoff
// counts from the others.
func TestAJobIsAtAnAttemptOfItsOwn(t *testing.T) {
	for _, c := range []struct {
		attempt, continued uint32
		good               bool
	}{{0, 0, true}, {1, 0, true}, {3, 2, true}, {1, 1, false}, {3, 3, false}, {3, 4, false}} {
		j := myrmidon.Job{Run: "R", Kind: "count.item", Count: 1, Attempt: c.attempt, Continued: c.continued}
		if err := engine.CheckJob(&j); (err == nil) != c.good {
			t.Errorf("attempt %d, %d continued: %v", c.attempt, c.continued, err)
		}
	}
}
