package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"myrmidon/bench/internal/spread"
)

// results are of all rounds.
type results struct {
	rounds []round
	large  shot // zero if it was not asked for
}

// row is a figure of each round, and what its median may be at least, or at most; 0 asks for
// nothing.
type row struct {
	name, unit  string
	values      []float64
	least, most float64
}

func (r *results) rows() []row {
	of := func(f func(*round) float64) []float64 {
		var out []float64
		for i := range r.rounds {
			out = append(out, f(&r.rounds[i]))
		}
		return out
	}
	const none = 0.001 // a line in a thousand: what the runtime allocates meanwhile
	rows := []row{
		{"parse to JSON, one processor", "M lines/s", of(func(x *round) float64 { return x.Parse.Ours / 1e6 }), 1.2, 0},
		{"  allocations", "a line", of(func(x *round) float64 { return x.Parse.Allocs }), 0, none},
		{"  regexp, map, json.Marshal", "M lines/s", of(func(x *round) float64 { return x.Parse.Regexp / 1e6 }), 0, 0},
		{"  ours to that", "times", of(func(x *round) float64 { return x.Parse.Ours / x.Parse.Regexp }), 50, 0},
		{"ship, every line acknowledged by Lumberjack", "s", of(func(x *round) float64 { return x.Lumberjack.Wall }), 0, 0},
		{"ship, unconfirmed by TCP", "s", of(func(x *round) float64 { return x.TCP.Wall }), 0, 0},
		{"  Lumberjack to TCP", "ratio", of(func(x *round) float64 { return x.Lumberjack.Wall / x.TCP.Wall }), 0, 1.1},
		{"  processor time: Lumberjack", "s", of(func(x *round) float64 { return x.Lumberjack.CPU }), 0, 0},
		{"  processor time: TCP", "s", of(func(x *round) float64 { return x.TCP.CPU }), 0, 0},
		{"only inflated", "s", of(func(x *round) float64 { return x.Inflate.Wall }), 0, 0},
		{"  Lumberjack to that", "ratio", of(func(x *round) float64 { return x.Lumberjack.Wall / x.Inflate.Wall }), 0, 0},
		{"an object of 1 GB inflated, Lumberjack", "s", of(func(x *round) float64 { return x.Memory.Wall }), 0, 0},
		{"  most that was resident", "MB", of(func(x *round) float64 { return x.Memory.RSS }), 0, 32},
		{"the seed's 76,464 lines (it took 95)", "s", of(func(x *round) float64 { return x.Seed.Wall }), 0, 0},
		{"  most that was resident (it had 165)", "MB", of(func(x *round) float64 { return x.Seed.RSS }), 0, 0},
		{"resident in the process that measures", "MB", of(func(x *round) float64 { return x.Memory.Own }), 0, 0},
	}
	if r.large != (shot{}) {
		rows = append(rows,
			row{"an object of 10 GB inflated, Lumberjack", "s", []float64{r.large.Wall}, 0, 0},
			row{"  most that was resident", "MB", []float64{r.large.RSS}, 0, 32})
	}
	return rows
}

// target says what a row asks for, and whether it is so.
func (r row) target() (text string, met bool) {
	s := spread.Of(r.values)
	switch {
	case r.least > 0:
		return fmt.Sprintf("at least %v", r.least), s.Median >= r.least
	case r.most > 0:
		return fmt.Sprintf("at most %v", r.most), s.Median <= r.most
	}
	return "", true
}

// print writes a line for each figure, as the median with the least and the largest round,
// and returns how many targets were missed. Without judging, none is spoken of.
func (r *results) print(to io.Writer, judging bool) (misses int) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\tunit\tmeasured\ttarget\t\n")
	targets := 0
	for _, x := range r.rows() {
		target, verdict := "", ""
		if text, met := x.target(); judging && text != "" {
			targets++
			target, verdict = text, "met"
			if !met {
				verdict = "MISSED"
				misses++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", x.name, x.unit, spread.Of(x.values).Format("%.3f"), target, verdict)
	}
	w.Flush() // tabwriter hands on the error of to, which is standard output: nowhere to say it
	spread.Verdict(to, targets, misses)
	return misses
}
