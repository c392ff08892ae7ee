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
		ratio   string
		verdict verdict
	}{
		{
			"a rate meets its target where the median ratio of the rounds does",
			row{unit: perSecond, target: 2, ours: []float64{200, 100, 900}, peer: []float64{100, 100, 300}},
			"2.00 (1.00 to 3.00)", met,
		},
		{
			"a ratio is taken within a round, never of two medians",
			row{unit: perSecond, target: 1, ours: []float64{1, 10, 100}, peer: []float64{10, 100, 1}},
			"0.10 (0.10 to 100.00)", missed,
		},
		{"a time wants to be less", row{unit: microseconds, target: 0.5, ours: []float64{40}, peer: []float64{100}}, "0.40", met},
		{"a time that is more misses", row{unit: microseconds, target: 0.5, ours: []float64{60}, peer: []float64{100}}, "0.60", missed},
		{"a figure is held against its bound where there is no peer", row{unit: microseconds, bound: 150, ours: []float64{140, 120, 900}}, "-", met},
		{"a figure above its bound misses", row{unit: megabytes, bound: 64, ours: []float64{65}}, "-", missed},
		{"a share wants to be more", row{unit: ofPulls, bound: 45, ours: []float64{44}}, "-", missed},
		{"a bound without a figure is missed", row{unit: milliseconds, bound: 10}, "-", missed},
		{"a row without a target has no verdict", row{unit: perSecond, ours: []float64{1}, peer: []float64{2}}, "0.50", noTarget},
		{"a target without the peer's figures is missed", row{unit: perSecond, target: 1, ours: []float64{1}}, "-", missed},
		{"rounds of one side only give no ratio", row{unit: perSecond, target: 1, ours: []float64{1, 2}, peer: []float64{1}}, "-", missed},
		{"a peer that did nothing is no proof", row{unit: perSecond, target: 1, ours: []float64{0}, peer: []float64{0}}, "NaN", missed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "-"
			if s, ok := tt.row.ratio(); ok {
				text = s.Format("%.2f")
			}
			if text != tt.ratio && !(tt.ratio == "NaN" && strings.HasPrefix(text, "NaN")) {
				t.Errorf("ratio %s, want %s", text, tt.ratio)
			}
			if got := tt.row.verdict(); got != tt.verdict {
				t.Errorf("verdict %q, want %q", got, tt.verdict)
			}
		})
	}
}

func TestPrintTable(t *testing.T) {
	ours := []Figure{{Enqueue: 60000, Consume: 80000, P50: 400 * time.Microsecond}, {Enqueue: 80000, Consume: 80000, P50: 400 * time.Microsecond}}
	peer := []Figure{{Enqueue: 40000, Consume: 100000, ConsumeMultiple: 120000, P50: 800 * time.Microsecond}, {Enqueue: 40000, Consume: 100000, ConsumeMultiple: 120000, P50: 800 * time.Microsecond}}
	var out strings.Builder
	misses := printTable(&out, "RabbitMQ 3.10.8", []row{
		newRow("enqueue", perSecond, 1.5, ours, peer, enqueue),
		newRow("pull and ack", perSecond, 1, ours, peer, consume),
		newRow("pull, acked together", perSecond, 0, nil, peer, consumeMultiple),
		newRow("to the handler, p50", microseconds, 1, ours, peer, p50),
	})
	const want = `                      unit    myrmidon                RabbitMQ 3.10.8  ratio                target
enqueue               jobs/s  70000 (60000 to 80000)  40000            1.75 (1.50 to 2.00)  at least 1.5 x  met
pull and ack          jobs/s  80000                   100000           0.80                 at least 1 x    MISSED
pull, acked together  jobs/s  -                       120000           -                                   
to the handler, p50   us      400                     800              0.50                 at most 1 x     met

1 of 3 targets are missed
`
	if got := trimLines(out.String()); misses != 1 || got != trimLines(want) {
		t.Errorf("%d missed, want 1:\n%s\nwant:\n%s", misses, got, want)
	}
}

// trimLines drops the spaces at the ends of lines, which nobody sees.
func trimLines(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return out.String()
}
