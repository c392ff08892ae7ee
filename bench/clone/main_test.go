package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3stub"
)

// TestMain lets the tests' program be a stub, as the benchmark's is.
func TestMain(m *testing.M) {
	if spec := os.Getenv(stubVariable); spec != "" {
		if err := serveStub(spec, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestAQuickRunMeasuresEachStep(t *testing.T) {
	long.Test(t)
	var out strings.Builder
	misses, err := run(t.Context(), flags{quick: true, large: true, rounds: 1, dir: t.TempDir()}, &out)
	if err != nil {
		t.Fatal(err)
	}
	if misses != 0 || strings.Contains(out.String(), "MISSED") || strings.Contains(out.String(), "NaN") {
		t.Errorf("%d missed: a quick run judges nothing\n%s", misses, out.String())
	}
	for _, s := range steps(true) {
		want := fmt.Sprintf("COPY %d,", s.set.N)
		if !s.copying {
			want = "LIST "
		}
		if line := lineOf(out.String(), s.name+" "); !s.real && !strings.Contains(line, want) || strings.Contains(line, "failed") {
			t.Errorf("%s: requests %q, want %s, and none that failed", s.name, line, want)
		}
		for _, what := range []string{"wall", "client's CPU an object", "client's memory, peak"} {
			fields := strings.Fields(strings.TrimPrefix(lineOf(out.String(), s.name+", "+what), s.name+", "+what))
			if len(fields) < 2 || strings.Trim(fields[1], "0.") == "" {
				t.Errorf("%s, %s: %q, want a figure", s.name, what, fields)
			}
		}
	}
	if _, err := run(t.Context(), flags{quick: true, only: "nothing like it", dir: t.TempDir()}, &out); err == nil {
		t.Error("a step that there is not was measured")
	}
}

// lineOf returns the first line of out that begins so.
func lineOf(out, start string) string {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, start) {
			return line
		}
	}
	return ""
}

func TestWhatDidNotArriveOnceIsAnError(t *testing.T) {
	set := objects{N: 3}
	for _, tt := range []struct {
		name    string
		arrived s3stub.Arrivals
		ok      bool
	}{
		{"all, once", s3stub.Arrivals{Objects: 3}, true},
		{"one is missing", s3stub.Arrivals{Objects: 2}, false},
		{"one came twice", s3stub.Arrivals{Objects: 3, Again: 1}, false},
		{"one was changed", s3stub.Arrivals{Objects: 3, Wrong: 1}, false},
	} {
		if err := (asked{Arrived: tt.arrived}).wrong(set); (err == nil) != tt.ok {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
}

func TestWhatDuPrintsIsChecked(t *testing.T) {
	for _, tt := range []struct {
		name, out string
		ok        bool
	}{
		{"ours", `{"objects":1000,"bytes":17000,"key":""}` + "\n", true},
		{"s5cmd's", "170000000 bytes in 1000 objects: s3://from/*\n", true},
		{"too few", `{"objects":999,"bytes":1000,"key":""}` + "\n", false},
		{"nothing", "", false},
	} {
		if err := counted(tt.out, 1000); (err == nil) != tt.ok {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
}

func TestKeysAscendInEvenPrefixes(t *testing.T) {
	for _, s := range append(steps(false), steps(true)...) {
		set := s.set.synthetic()
		var before string
		prefixes := make(map[string]int)
		for i := range min(s.set.N, 200_000) {
			key := string(set.Key(nil, i))
			if key <= before {
				t.Fatalf("%s: key %d is %s, behind %s", s.name, i, key, before)
			}
			before = key
			prefixes[key[:strings.LastIndexByte(key, '/')]]++
		}
		last := string(set.Key(nil, s.set.N-1))
		if want := fmt.Sprintf("media/%06d/%08d.ts", s.set.Prefixes-1, s.set.N-1); last != want {
			t.Errorf("%s: the last key is %s, want %s", s.name, last, want)
		}
		if s.set.N <= 200_000 && len(prefixes) != s.set.Prefixes {
			t.Errorf("%s: %d prefixes, want %d", s.name, len(prefixes), s.set.Prefixes)
		}
	}
}

func TestAStubTellsWhatItWasAskedForAndEnds(t *testing.T) {
	s, err := startStub(t.Context(), objects{N: 10, Prefixes: 2, Size: 5})
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.finish()
	if err != nil || len(a.Counts) != 0 || a.Arrived.Objects != 0 || len(a.Arrived.Missing) != 10 {
		t.Errorf("nobody asked: %+v, %v", a, err)
	}
	if s.cmd.ProcessState == nil {
		t.Error("the stub still runs")
	}
	if _, err := startStub(t.Context(), objects{N: -1}); err == nil || !strings.Contains(err.Error(), "did not start") {
		t.Errorf("a set that there cannot be: error %v", err)
	}
}
