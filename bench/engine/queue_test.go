package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

// levels are those that benchmarks compare.
var levels = []jetstream.Durability{jetstream.Process, jetstream.Power}

func TestARoundGivesEachFigure(t *testing.T) {
	for _, level := range levels {
		t.Run(string(level), func(t *testing.T) {
			f, err := ourRound(t.Context(), t.TempDir(), level, 2000)
			if err != nil {
				t.Fatal(err)
			}
			if !(f.Enqueue > 0 && f.Single > 0 && f.Consume > 0 && f.P50 > 0) {
				t.Errorf("a figure is missing: %+v", f)
			}
		})
	}
}

func TestAJobHasTheSizeOfThePeersMessages(t *testing.T) {
	for _, i := range []int{0, 9, 99_999, backlogJobs - 1} {
		j, err := benchJob(benchRun, i)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(j)
		if err != nil || len(data) != jobSize {
			t.Errorf("job %d is stored as %d bytes, want %d (%v)", i, len(data), jobSize, err)
		}
	}
}

func TestTallyOfJobs(t *testing.T) {
	stored, err := benchJobs(benchRun, 3)
	if err != nil {
		t.Fatal(err)
	}
	other, err := benchJob(benchRun, 3)
	if err != nil {
		t.Fatal(err)
	}
	changed := stored[1]
	changed.Spec = json.RawMessage(`"y"`)
	for _, tt := range []struct {
		name string
		come []myrmidon.Job
		want string // of the last error; "" for none
	}{
		{"all have come, in any order", []myrmidon.Job{stored[2], stored[0], stored[1]}, ""},
		{"one has not come", stored[:2], "job 2 has not come"},
		{"one comes twice", []myrmidon.Job{stored[0], stored[0]}, "twice"},
		{"one that was not stored", []myrmidon.Job{other}, "only 3"},
		{"one that was changed", []myrmidon.Job{changed}, "changed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tally := newTally(stored)
			var err error
			for _, j := range tt.come {
				err = tally.note(j)
			}
			if err == nil {
				err = tally.missing()
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want one that says %q", err, tt.want)
			}
		})
	}
}

func TestAJobThatComesAgainAfterItsAcknowledgementIsAnError(t *testing.T) {
	dir := t.TempDir()
	with := func(do func(q engine.Backend) error) {
		t.Helper()
		if err := withBackend(t.Context(), dir, jetstream.Process, do); err != nil {
			t.Fatal(err)
		}
	}
	jobs, err := benchJobs(benchRun, 2)
	if err != nil {
		t.Fatal(err)
	}
	with(func(q engine.Backend) error {
		_, err := enqueueSlices(t.Context(), q, jobs)
		return err
	})
	with(func(q engine.Backend) error {
		if err := nothingLeft(t.Context(), q); err == nil {
			t.Error("two jobs are left, and nobody says so")
		}
		return nil
	})
}

func benchOn(b *testing.B, do func(b *testing.B, q engine.Backend)) {
	for _, level := range levels {
		b.Run(string(level), func(b *testing.B) {
			if err := withBackend(b.Context(), b.TempDir(), level, func(q engine.Backend) error { do(b, q); return nil }); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// reportCPU reports what the process used until the function that it returns is called:
// of a busy machine a truer figure than the time.
func reportCPU(b *testing.B) func() {
	before := ownCPU(b)
	return func() { b.ReportMetric(float64((ownCPU(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

func ownCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkEnqueueSlices(b *testing.B) {
	benchOn(b, func(b *testing.B, q engine.Backend) {
		jobs, err := benchJobs(benchRun, b.N)
		if err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		defer reportCPU(b)()
		rate, err := enqueueSlices(b.Context(), q, jobs)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(rate, "jobs/s")
	})
}

func BenchmarkEnqueueSingles(b *testing.B) {
	benchOn(b, func(b *testing.B, q engine.Backend) {
		jobs, err := benchJobs(benchRun, b.N)
		if err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		defer reportCPU(b)()
		rate, err := enqueueSingles(b.Context(), q, jobs)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(rate, "jobs/s")
	})
}

func BenchmarkConsume(b *testing.B) {
	benchOn(b, func(b *testing.B, q engine.Backend) {
		jobs, err := benchJobs(benchRun, b.N)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := enqueueSlices(b.Context(), q, jobs); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		defer reportCPU(b)()
		rate, err := consumeAll(b.Context(), q, jobs)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(rate, "jobs/s")
	})
}

func BenchmarkLatency(b *testing.B) {
	benchOn(b, func(b *testing.B, q engine.Backend) {
		p50, err := latency(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(p50.Microseconds()), "p50-us")
	})
}
