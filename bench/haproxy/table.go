package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"myrmidon/bench/internal/spread"
)

// results are of all rounds.
type results struct {
	shots   []shotResult
	daemons []daemonResult
	many    []manyResult
}

// row is a figure of each round, and the most that its median may be; 0 asks for nothing.
type row struct {
	name, unit string
	values     []float64
	most       float64
}

// of takes a figure from each round.
func of[T any](rounds []T, f func(T) float64) []float64 {
	var out []float64
	for _, r := range rounds {
		out = append(out, f(r))
	}
	return out
}

func median[T any](list []T, f func(T) float64) float64 {
	return spread.Of(slices.Clone(of(list, f))).Median
}

func (r *results) rows() []row {
	s, d, m := r.shots, r.daemons, r.many
	shotOf := func(f func(shotResult) float64) []float64 { return of(s, f) }
	return []row{
		{"one shot, floor: only reads", "ms", shotOf(func(x shotResult) float64 { return x.Floor.Wall }), 0},
		{"one shot, myrmidon haproxy stats --csv", "ms", shotOf(func(x shotResult) float64 { return x.Ours.Wall }), 0},
		{"  to the floor", "ratio", shotOf(func(x shotResult) float64 { return x.Ours.ToFloor }), 1.35},
		{"  most that was resident", "MB", shotOf(func(x shotResult) float64 { return x.Ours.RSS }), 20},
		{"one shot, a program with the library alone", "ms", shotOf(func(x shotResult) float64 { return x.Library.Wall }), 0},
		{"  to the floor", "ratio", shotOf(func(x shotResult) float64 { return x.Library.ToFloor }), 0},
		{"  most that was resident", "MB", shotOf(func(x shotResult) float64 { return x.Library.RSS }), 0},
		{"one shot, the seed's rules (its article: 220 to 270)", "ms", shotOf(func(x shotResult) float64 { return x.Seed.Wall }), 0},
		{"  to the floor", "ratio", shotOf(func(x shotResult) float64 { return x.Seed.ToFloor }), 0},
		{"  most that was resident", "MB", shotOf(func(x shotResult) float64 { return x.Seed.RSS }), 0},
		{"resident in the process that measures", "MB", shotOf(func(x shotResult) float64 { return x.Own }), 0},
		{"processor time: floor", "ms", shotOf(func(x shotResult) float64 { return x.Floor.CPU }), 0},
		{"processor time: myrmidon", "ms", shotOf(func(x shotResult) float64 { return x.Ours.CPU }), 0},
		{"processor time: the seed's rules", "ms", shotOf(func(x shotResult) float64 { return x.Seed.CPU }), 0},
		{"parse, processor time", "us a row", of(d, func(x daemonResult) float64 { return x.Parse }), 0.35},
		{"  to encoding/csv, which only splits the dumps", "ratio", of(d, func(x daemonResult) float64 { return x.Parse / x.Split }), 0},
		{"merge, processor time", "us a row", of(d, func(x daemonResult) float64 { return x.Merge }), 0.2},
		{"parse, steady", "allocations", of(d, func(x daemonResult) float64 { return x.ParseAllocs }), 0.5},
		{"merge, steady", "allocations", of(d, func(x daemonResult) float64 { return x.MergeAllocs }), 0.5},
		{"steady poll, processor time", "ms", of(d, func(x daemonResult) float64 { return x.Poll }), 0},
		{"  beyond a poller that only reads", "ms", of(d, func(x daemonResult) float64 { return x.Poll - x.ReadOnly }), 4},
		{"steady poll beyond a poller that only reads", "allocations", of(d, func(x daemonResult) float64 { return x.PollAllocs - x.ReadOnlyAllocs }), 0.5},
		{"64 sockets, processor time a poll", "ms", of(m, func(x manyResult) float64 { return x.Many }), 0},
		{"  a socket, to that with 16", "ratio", of(m, func(x manyResult) float64 { return x.Many / lots / (x.Few / few) }), 1.2},
		{"  most that was resident", "MB", of(m, func(x manyResult) float64 { return x.RSS }), 64},
	}
}

// print writes a line for each figure, as the median with the least and the largest round,
// and returns how many targets were missed. Without judging, none is spoken of.
func (r *results) print(to io.Writer, judging bool) (misses int) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\tunit\tmeasured\tat most\t\n")
	targets := 0
	for _, x := range r.rows() {
		s := spread.Of(x.values)
		most, verdict := "", ""
		if x.most > 0 && judging {
			targets++
			most, verdict = fmt.Sprint(x.most), "met"
			if !(s.Median <= x.most) {
				verdict = "MISSED"
				misses++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", x.name, x.unit, s.Format("%.2f"), most, verdict)
	}
	w.Flush() // tabwriter hands on the error of to, which is standard output: nowhere to say it
	spread.Verdict(to, targets, misses)
	return misses
}
