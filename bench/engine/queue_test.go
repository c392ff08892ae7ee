package main

import (
	"syscall"
	"testing"
	"time"

	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

// levels are those that benchmarks compare.
var levels = []jetstream.Durability{jetstream.Process, jetstream.Power}

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
