package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"myrmidon/bench/internal/spread"
)

// row is one measurement, ours and the peer's, taken in the same rounds: ours[i] and
// peer[i] are of round i.
type row struct {
	name string
	unit string // one of the units below
	ours []float64
	peer []float64 // none: there is nothing to compare with
	// target is the ratio of ours to the peer's that is asked for, and bound the figure of
	// ours: at least so much where more is better, else at most. 0 asks for nothing.
	target float64
	bound  float64
}

// The units of a row.
const (
	perSecond    = "jobs/s"
	microseconds = "us"
	milliseconds = "ms"
	megabytes    = "MB"
	coreShare    = "% of a core"
	batches      = "batch times"
	ofPulls      = "% of pulls"
)

// more reports whether more is better.
func (r row) more() bool { return r.unit == perSecond || r.unit == ofPulls }

// newRow collects what figure gives for each round's figures; peer may be empty, else
// it has as many rounds as ours.
func newRow(name, unit string, target float64, ours, peer []Figure, figure func(Figure) float64) row {
	r := row{name: name, unit: unit, target: target}
	for _, f := range ours {
		r.ours = append(r.ours, figure(f))
	}
	for _, f := range peer {
		r.peer = append(r.peer, figure(f))
	}
	return r
}

func enqueue(f Figure) float64         { return f.Enqueue }
func consume(f Figure) float64         { return f.Consume }
func singles(f Figure) float64         { return f.Single }
func consumeMultiple(f Figure) float64 { return f.ConsumeMultiple }
func p50(f Figure) float64             { return float64(f.P50) / float64(time.Microsecond) }

// ratio is ours to the peer's within each round, and false where either is missing.
func (r row) ratio() (spread.Spread, bool) { return spread.Ratio(r.ours, r.peer) }

// verdict is how a row stands to its target.
type verdict string

const (
	noTarget verdict = ""
	met      verdict = "met"
	missed   verdict = "MISSED"
)

// verdict compares the median ratio with the target, or the median figure with the bound.
// What was not measured was not met.
func (r row) verdict() verdict {
	got, want, measured := 0.0, r.bound, len(r.ours) > 0
	switch {
	case r.target != 0:
		var ratio spread.Spread
		ratio, measured = r.ratio()
		got, want = ratio.Median, r.target
	case r.bound == 0:
		return noTarget
	case measured:
		got = spread.Of(r.ours).Median
	}
	if measured && (r.more() && got >= want || !r.more() && got <= want) {
		return met
	}
	return missed
}

// targetText says what a row asks for: a ratio with an x, or a figure.
func (r row) targetText() string {
	word := "at most "
	if r.more() {
		word = "at least "
	}
	switch {
	case r.target != 0:
		return word + strconv.FormatFloat(r.target, 'f', -1, 64) + " x"
	case r.bound != 0:
		return word + strconv.FormatFloat(r.bound, 'f', -1, 64)
	}
	return ""
}

// printTable writes a line for each row, figures as the median with the least and the
// largest round, and returns how many targets were missed.
func printTable(to io.Writer, peer string, rows []row) (misses int) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\tunit\tmyrmidon\t%s\tratio\ttarget\t\n", peer)
	targets := 0
	for _, r := range rows {
		ratio := "-"
		if s, ok := r.ratio(); ok {
			ratio = s.Format("%.2f")
		}
		verdict := r.verdict()
		if verdict != noTarget {
			targets++
		}
		if verdict == missed {
			misses++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.name, r.unit,
			spread.Text(r.ours, "-"), spread.Text(r.peer, "-"), ratio, r.targetText(), verdict)
	}
	w.Flush() // tabwriter hands on the error of to, which is standard output: nowhere to say it
	spread.Verdict(to, targets, misses)
	return misses
}
