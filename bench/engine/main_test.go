package main

import (
	"encoding/json"
	"strings"
	"testing"

	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

func TestWithoutThePeerNoRatioIsAskedFor(t *testing.T) {
	for _, peer := range []bool{true, false} {
		for _, r := range new(figures).rows(flags{peer: peer}) {
			if !peer && r.target != 0 {
				t.Errorf("%s wants %s of a peer that is not there", r.name, r.targetText())
			}
			if peer && r.target != 0 && r.verdict() != missed {
				t.Errorf("%s: %s, and nothing was measured", r.name, r.verdict())
			}
		}
	}
}

func TestHoldSaysWhatABacklogTakes(t *testing.T) {
	dir := t.TempDir()
	var out strings.Builder
	if err := hold(t.Context(), dir, &out); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty folder: error %v, want that it is empty", err)
	}
	jobs, err := benchJobs(benchRun, 10)
	if err != nil {
		t.Fatal(err)
	}
	err = withBackend(t.Context(), dir, jetstream.Power, func(q engine.Backend) error {
		_, err := enqueueSlices(t.Context(), q, jobs)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := hold(t.Context(), dir, &out); err != nil {
		t.Fatal(err)
	}
	var h held
	if err := json.Unmarshal([]byte(out.String()), &h); err != nil {
		t.Fatal(err)
	}
	if !(h.Open > 0 && h.Pull > 0 && h.RSS > 1<<20 && h.Peak >= h.RSS) {
		t.Errorf("it says %s", out.String())
	}
}
