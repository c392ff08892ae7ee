package workloads

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
)

func TestEachNameIsAWorkloadThatAWorkerCanServe(t *testing.T) {
	if !slices.IsSorted(Names()) || len(Names()) == 0 {
		t.Errorf("the names are %q", Names())
	}
	for _, name := range Names() {
		w, err := Named(name, Config{})
		if err != nil || w.Name != name || w.Version == 0 || len(w.Phases) == 0 || w.Planner == nil {
			t.Errorf("%s: got %+v, %v", name, w, err)
		}
		for _, k := range w.Kinds {
			// A kind tells its workload: see [myrmidon.Kind].
			if !strings.HasPrefix(k.Name, name+".") || k.Handler == nil {
				t.Errorf("%s: a kind %q", name, k.Name)
			}
		}
	}
	if _, err := Named("frobnicate", Config{}); err == nil || myrmidon.Hint(err) == "" {
		t.Errorf("an unknown name gives %v", err)
	}
}

func TestAllServesWhatCanRunHere(t *testing.T) {
	t.Setenv("MYRMIDON_FFMPEG", "/nowhere/ffmpeg")
	can, missing, err := All(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		served := slices.ContainsFunc(can, func(w myrmidon.Workload) bool { return w.Name == name })
		if served == NeedsFFmpeg(name) || served == (missing[name] != nil) {
			t.Errorf("without ffmpeg %s is served: %v; missing: %v", name, served, missing[name])
		}
		if m := missing[name]; m != nil && (!myrmidon.IsPermanent(m) || myrmidon.Hint(m) == "") {
			t.Errorf("%s: %v is not permanent or has no hint", name, m)
		}
	}
	// With the tools that it is given it does not look for any.
	can, missing, err = All(t.Context(), Config{Tools: new(ffmpeg.Tools)})
	if err != nil || len(can) != len(Names()) || len(missing) != 0 {
		t.Errorf("with ffmpeg: %d workloads, missing %v, %v", len(can), missing, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := All(ended, Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
