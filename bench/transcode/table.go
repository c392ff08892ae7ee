package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"myrmidon/bench/internal/spread"

	"myrmidon"
)

// table holds every measurement: runs[w][i] is way w in round i.
type table struct {
	ways []way
	dirs [][]string // what each run has written, as runs
	runs [][]result
}

// The targets, as ratios within a round, and as a share of CPU time.
const (
	targetRungs = 0.60 // CPU of A to that of B
	targetCPU   = 1.05 // CPU of A to that of C
	targetWall  = 0.62 // wall time of A to that of C, on two cores, for 24 s
	targetOwn   = 0.02 // CPU of what is not ffmpeg to all of A's
)

// measure runs the rounds. Each run writes into a new folder, so that none finds what
// another has made. Only the first round's output of the peers is kept: it fills disks.
func (b *bench) measure(ctx context.Context, rounds int) (*table, error) {
	t := &table{ways: b.ways()}
	t.dirs, t.runs = make([][]string, len(t.ways)), make([][]result, len(t.ways))
	for round := range rounds {
		for i, w := range t.ways {
			dir := filepath.Join(b.dir, fmt.Sprintf("%s-%d", w.key, round+1))
			if err := os.Mkdir(dir, 0o755); err != nil {
				return nil, myrmidon.WithHint(err, "keep what is made in a new folder")
			}
			fmt.Fprintf(b.progress, "round %d of %d: %-8s ", round+1, rounds, w.key)
			r, err := w.run(ctx, dir)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			fmt.Fprintf(b.progress, "%6.1f CPU-s  %6.1f s\n", r.CPU.Seconds(), r.Wall.Seconds())
			t.dirs[i], t.runs[i] = append(t.dirs[i], dir), append(t.runs[i], r)
			if i > 0 && round > 0 {
				if err := os.RemoveAll(dir); err != nil {
					return nil, err
				}
			}
		}
	}
	return t, nil
}

// of collects a figure of way w over the rounds.
func (t *table) of(w int, figure func(result) float64) spread.Spread {
	var v []float64
	for _, r := range t.runs[w] {
		v = append(v, figure(r))
	}
	return spread.Of(v)
}

// ratio collects, over the rounds, a figure of way w as a multiple of way base's.
func (t *table) ratio(w, base int, figure func(result) float64) spread.Spread {
	var v []float64
	for i := range t.runs[w] {
		v = append(v, figure(t.runs[w][i])/figure(t.runs[base][i]))
	}
	return spread.Of(v)
}

func cpu(r result) float64  { return r.CPU.Seconds() }
func wall(r result) float64 { return r.Wall.Seconds() }
func peak(r result) float64 { return float64(r.Peak) / 1e6 }

// print writes what each way took, and how our own command spends its time.
func (t *table) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "way\t\tCPU-s\twall s\tpeak MB")
	for i, way := range t.ways {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", way.key, way.name,
			t.of(i, cpu).Format("%.1f"), t.of(i, wall).Format("%.1f"), t.of(i, peak).Format("%.0f"))
	}
	w.Flush() // tabwriter hands on the error of to, which is standard output: nowhere to say it
	ms := func(d time.Duration) float64 { return float64(d.Milliseconds()) }
	fmt.Fprintf(to, "\nof A: until the first encoder runs %s ms, after the last one %s ms (verify, publish, report)\n",
		t.of(0, func(r result) float64 { return ms(r.FirstEncoder) }).Format("%.0f"),
		t.of(0, func(r result) float64 { return ms(r.Wall - r.LastEncoder) }).Format("%.0f"))
	fmt.Fprintf(to, "of A: its report says %s of the CPU-s that the kernel counted; myrmidon's own %s s, at the last look in /proc %s s\n",
		t.of(0, func(r result) float64 { return 100 * r.report.Usage.CPU / r.CPU.Seconds() }).Format("%.1f %%"),
		t.of(0, func(r result) float64 { return r.report.Usage.OwnCPU }).Format("%.2f"),
		t.of(0, func(r result) float64 { return r.OwnCPU.Seconds() }).Format("%.2f"))
	fmt.Fprintf(to, "C-split to C: %s of the CPU\n\n", t.ratio(3, 2, cpu).Format("%.2f"))
}

// verdicts compares ratios with their targets.
func (t *table) verdicts() []verdict {
	most := func(what string, s spread.Spread, verb string, target float64) verdict {
		return verdict{what, s.Format(verb), fmt.Sprintf("at most "+verb, target), s.Median <= target}
	}
	own := t.of(0, func(r result) float64 { return 100 * max(r.report.Usage.OwnCPU, r.OwnCPU.Seconds()) / r.CPU.Seconds() })
	return []verdict{
		most("CPU of A to B", t.ratio(0, 1, cpu), "%.3f", targetRungs),
		most("CPU of A to C", t.ratio(0, 2, cpu), "%.3f", targetCPU),
		most("wall of A to C", t.ratio(0, 2, wall), "%.3f", targetWall),
		most("CPU of A that is not ffmpeg's", own, "%.2f %%", 100*targetOwn),
	}
}

// verdict is one line of the result.
type verdict struct {
	what, got, target string
	pass              bool
}

// printVerdicts writes a line each and returns how many were missed.
func printVerdicts(to io.Writer, verdicts []verdict) (missed int) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, v := range verdicts {
		word := "PASS"
		if !v.pass {
			word = "MISS"
			missed++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", word, v.what, v.target, v.got)
	}
	w.Flush() // as above
	if missed == 0 {
		fmt.Fprintf(to, "\nall %d targets are met\n", len(verdicts))
	} else {
		fmt.Fprintf(to, "\n%d of %d targets are missed\n", missed, len(verdicts))
	}
	return missed
}
