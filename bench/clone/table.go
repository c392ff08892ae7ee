package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"myrmidon/bench/internal/spread"
)

// row is one measurement, ours and a peer's, taken in the same rounds: ours[i] and
// peer[i] are of round i. Less is better in every unit.
type row struct {
	name    string
	unit    string
	against string // the peer; "" if there is nothing to compare with
	ours    []float64
	peer    []float64
	// times is how many times less than the peer's ours is to be, and bound the most that
	// ours may be. 0 asks for nothing.
	times float64
	bound float64
}

// ratio is ours to the peer's within each round, and false where either is missing.
func (r row) ratio() (spread.Spread, bool) { return spread.Ratio(r.ours, r.peer) }

// verdict is how a row stands to its target.
type verdict string

const (
	noTarget verdict = ""
	met      verdict = "met"
	missed   verdict = "MISSED"
)

// verdict compares the median ratio with the target, and the median figure with the
// bound. What was not measured was not met.
func (r row) verdict() verdict {
	if r.times == 0 && r.bound == 0 {
		return noTarget
	}
	if r.times != 0 {
		ratio, ok := r.ratio()
		if !ok || !(ratio.Median <= 1/r.times) {
			return missed
		}
	}
	if r.bound != 0 && (len(r.ours) == 0 || !(spread.Of(r.ours).Median <= r.bound)) {
		return missed
	}
	return met
}

// targetText says what a row asks for: a share of the peer's, or a figure.
func (r row) targetText() string {
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	var parts []string
	if r.times != 0 {
		parts = append(parts, "at most 1/"+number(r.times))
	}
	if r.bound != 0 {
		parts = append(parts, "at most "+number(r.bound))
	}
	return strings.Join(parts, ", ")
}

// printTable writes a line for each row, figures as the median with the least and the
// largest round, and returns how many targets were missed. Without judging, none is
// spoken of.
func printTable(to io.Writer, rows []row, judging bool) (misses int) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\tunit\tmyrmidon\tpeer\t\tratio\ttarget\t\n")
	targets := 0
	for _, r := range rows {
		ratio := "-"
		if s, ok := r.ratio(); ok {
			ratio = s.Format("%.3f")
		}
		target, verdict := "", noTarget
		if judging {
			target, verdict = r.targetText(), r.verdict()
		}
		if verdict != noTarget {
			targets++
		}
		if verdict == missed {
			misses++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.name, r.unit,
			spread.Text(r.ours, ""), cmp.Or(r.against, "-"), spread.Text(r.peer, ""), ratio, target, verdict)
	}
	w.Flush() // tabwriter hands on the error of to, which is standard output: nowhere to say it
	spread.Verdict(to, targets, misses)
	return misses
}

// printRequests writes what each client asked the stub for in its last round, and how many
// cores the stub and the client used meanwhile: together they cannot have more than there
// are, and a client is not measured where the stub has what it would need.
func printRequests(to io.Writer, results []result) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\t\tclient\tstub\trequests\n\t\tcores\tcores\t\n")
	for _, r := range results {
		if r.step.real {
			continue // its server does not tell
		}
		for _, name := range r.clients() {
			f := r.figures[name][len(r.figures[name])-1]
			var verbs []string
			for _, verb := range slices.Sorted(maps.Keys(f.Asked.Counts)) {
				n := f.Asked.Counts[verb]
				text := fmt.Sprintf("%s %d", verb, n.Requests)
				if n.Failed > 0 {
					text += fmt.Sprintf(" (%d failed)", n.Failed)
				}
				verbs = append(verbs, fmt.Sprintf("%s, %d at once", text, n.Peak))
			}
			fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%s\n", r.step.name, name,
				f.CPU.Seconds()/f.Wall.Seconds(), f.Asked.CPU.Seconds()/f.Wall.Seconds(), strings.Join(verbs, "; "))
		}
	}
	w.Flush() // as above
}
