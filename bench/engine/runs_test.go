package main

import "testing"

func BenchmarkRetryBehind(b *testing.B) {
	for b.Loop() {
		n, err := retryBehind(b.Context(), b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(n, "batches")
	}
}

func BenchmarkRetryStorm(b *testing.B) {
	for b.Loop() {
		s, err := retryStorm(b.Context(), b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(s.pulls, "%pulls")
		b.ReportMetric(s.jobs, "%jobs")
	}
}

func BenchmarkHandlerLatency(b *testing.B) {
	for _, level := range levels {
		b.Run(string(level), func(b *testing.B) {
			for b.Loop() {
				p50, err := handlerLatency(b.Context(), b.TempDir(), level)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(p50.Microseconds()), "p50-us")
			}
		})
	}
}
