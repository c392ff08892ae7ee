package main

import (
	"strings"
	"testing"
	"time"
)

func TestRow(t *testing.T) {
	for _, tt := range []struct {
		name    string
		row     row
		verdict verdict
		target  string
	}{
		{"the median ratio of the rounds meets", row{times: 2, ours: []float64{1, 9, 2}, peer: []float64{2, 10, 9}}, met, "at most 1/2"},
		{"a ratio is taken within a round, never of two medians", row{times: 1, ours: []float64{1, 10, 100}, peer: []float64{0.9, 9, 1000}}, missed, "at most 1/1"},
		{"a little more misses", row{times: 2.5, ours: []float64{41}, peer: []float64{100}}, missed, "at most 1/2.5"},
		{"a target without the peer's figures is missed", row{times: 2, ours: []float64{1}}, missed, "at most 1/2"},
		{"rounds of one side only give no ratio", row{times: 2, ours: []float64{1, 1}, peer: []float64{9}}, missed, "at most 1/2"},
		{"a peer that did nothing is no proof", row{times: 2, ours: []float64{0}, peer: []float64{0}}, missed, "at most 1/2"},
		{"the median figure meets its bound", row{bound: 64, ours: []float64{60, 99, 64}}, met, "at most 64"},
		{"a figure above its bound misses", row{bound: 64, ours: []float64{65}}, missed, "at most 64"},
		{"a bound without a figure is missed", row{bound: 64}, missed, "at most 64"},
		{"without a target there is no verdict", row{ours: []float64{9}, peer: []float64{1}}, noTarget, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.row.verdict(); got != tt.verdict {
				t.Errorf("verdict %q, want %q", got, tt.verdict)
			}
			if got := tt.row.targetText(); got != tt.target {
				t.Errorf("target %q, want %q", got, tt.target)
			}
		})
	}
}

func TestPrintTable(t *testing.T) {
	took := func(wall ...float64) (f []figure) {
		for _, w := range wall {
			f = append(f, figure{Wall: time.Duration(w * float64(time.Second)), CPU: time.Millisecond, RSS: 20e6})
		}
		return f
	}
	r := result{steps(false)[0], map[string][]figure{"myrmidon": took(1, 2), "s5cmd": took(4, 4), "rclone": took(4, 4), "aws": took(60, 80)}}
	var out strings.Builder
	if misses := printTable(&out, r.rows(true), true); misses != 1 {
		t.Errorf("%d missed, want 1", misses)
	}
	const want = `
clone 7,500, wall                    s   1.50 (1.00 to 2.00)  s5cmd  4.00                    0.375 (0.250 to 0.500)  at most 1/2   met
clone 7,500, wall                    s   1.50 (1.00 to 2.00)  rclone 4.00                    0.375 (0.250 to 0.500)  at most 1/3   MISSED
clone 7,500, wall                    s   1.50 (1.00 to 2.00)  aws    70.00 (60.00 to 80.00)  0.021 (0.017 to 0.025)  at most 1/15  met
clone 7,500, client's CPU an object  us  0.13                 s5cmd  0.13                    1.000                   at most 100   met
1 of 4 targets are missed
`
	got := squeeze(out.String())
	for line := range strings.Lines(strings.TrimPrefix(want, "\n")) {
		if !strings.Contains(got, squeeze(line)) {
			t.Errorf("no line %q in\n%s", line, out.String())
		}
	}
	for _, r := range (result{steps(false)[0], nil}).rows(false) {
		if r.times != 0 || r.against != "" {
			t.Errorf("%s is held against %q, which was not measured", r.name, r.against)
		}
	}
}

// squeeze makes one space of many.
func squeeze(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return out.String()
}
