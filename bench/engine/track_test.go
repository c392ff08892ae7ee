package main

import (
	"testing"
	"time"
)

func TestTopOfAProfileIsRead(t *testing.T) {
	const head = "File: engine\nType: cpu\nActive filters:\n   focus=x\n"
	for _, tt := range []struct {
		name, out string
		want      time.Duration
		ok        bool
	}{
		{"the sum of what was asked for", head + "Showing nodes accounting for 120000us, 4.04% of 2970000us total\n      flat\n", 120 * time.Millisecond, true},
		{"no sample is no figure", head + "Showing nodes accounting for 0us, 0% of 2970000us total\n", 0, false},
		{"another unit is no figure", head + "Showing nodes accounting for 1.2s, 0% of 2.97s total\n", 0, false},
		{"nothing at all", "", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTop(tt.out)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func BenchmarkTrack(b *testing.B) {
	for _, evidence := range []bool{false, true} {
		b.Run(map[bool]string{false: "items without evidence", true: "items with evidence"}[evidence], func(b *testing.B) {
			for b.Loop() {
				t, err := track(b.Context(), b.TempDir(), evidence)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(t.CPU.Milliseconds()), "tracker-ms")
				b.ReportMetric(t.share(), "%core")
			}
		})
	}
}
