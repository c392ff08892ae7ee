package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"myrmidon/bench/internal/quiet"
)

// step is a set of objects that clients copy or count.
type step struct {
	name    string
	set     objects
	copying bool
	once    bool // measured in the first round only, without peers
	large   bool // measured with -large only
	real    bool // the server is versitygw, with real bytes
	upload  bool // real, from a folder
	atOnce  int  // how many copies ours may have under way; 0 leaves it to ours
	// times are the peers, and how many times longer than ours each is to take.
	times map[string]float64
	saves float64 // how many times less CPU ours takes than the first of times; 0 asks for nothing
	cpu   float64 // us an object that ours may take; 0 asks for nothing, as below
	rss   float64 // MB
	lists float64 // requests of ours for 1,000 keys
}

// steps are what is measured. With quick they are a hundredth or less.
func steps(quick bool) []step {
	all := []step{
		{
			name: "clone 7,500", set: objects{N: 7_500, Prefixes: 195, Size: 170_000}, copying: true,
			times: map[string]float64{"s5cmd": 2, "rclone": 3, "aws": 15}, cpu: 100,
		},
		{
			name: "clone 100,000", set: objects{N: 100_000, Prefixes: 20_000, Size: 170_000}, copying: true,
			times: map[string]float64{"s5cmd": 2.5},
		},
		{name: "clone 100,000, 256 at once", set: objects{N: 100_000, Prefixes: 20_000, Size: 170_000}, copying: true, once: true, atOnce: 256, rss: 64},
		{name: "clone 100,000, 512 at once", set: objects{N: 100_000, Prefixes: 20_000, Size: 170_000}, copying: true, once: true, atOnce: 512, rss: 96},
		{
			name: "clone 1.3 GB, real bytes", set: objects{N: 7_500, Prefixes: 195, Size: 170_000}, real: true,
			times: map[string]float64{"s5cmd": 1}, saves: 2,
		},
		{
			name: "upload 1.3 GB, real bytes", set: objects{N: 7_500, Prefixes: 195, Size: 170_000}, real: true, upload: true,
			times: map[string]float64{"s5cmd": 1}, saves: 2,
		},
		{name: "du 1 M, flat", set: objects{N: 1_000_000, Prefixes: 1, Size: 170_000}, times: map[string]float64{"s5cmd": 8}, lists: 1.2},
		{name: "du 10 M", set: objects{N: 10_000_000, Prefixes: 1_000, Size: 170_000}, once: true, rss: 64},
		{name: "clone 1 M", set: objects{N: 1_000_000, Prefixes: 200_000, Size: 170_000}, copying: true, once: true, large: true},
	}
	if !quick {
		return all
	}
	for i, n := range []int{500, 1_000, 500, 500, 100, 100, 10_000, 50_000, 2_000} {
		s := &all[i]
		s.name += ", cut"
		s.set.Prefixes = max(1, s.set.Prefixes*n/s.set.N)
		s.set.N = n
	}
	return all
}

// result is a step's figures, a round each, by the client's name.
type result struct {
	step    step
	figures map[string][]figure
}

// clients are the names of those that were measured: ours first.
func (r result) clients() (names []string) {
	for name := range r.figures {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return order(a) - order(b) })
	return names
}

// order ranks clients: ours, then the fastest.
func order(name string) int {
	return slices.Index([]string{"myrmidon", "s5cmd", "rclone", "aws"}, name)
}

// round measures a step once, ours and the peers in turn.
func (r *result) round(ctx context.Context, dir string, c clients, settle bool) (err error) {
	measured := []*client{c.myrmidon}
	if !r.step.once {
		for _, peer := range []*client{c.s5cmd, c.rclone, c.aws} {
			if peer != nil && r.step.times[peer.name] != 0 {
				measured = append(measured, peer)
			}
		}
	}
	var server *real
	if r.step.real {
		at, made := os.MkdirTemp(dir, "real-*")
		if made != nil {
			return made
		}
		defer func() { err = errors.Join(err, server.end(), os.RemoveAll(at)) }()
		if server, err = startReal(ctx, at, r.step.set); err != nil {
			return err
		}
	}
	for _, one := range measured {
		if settle {
			quiet.Settle(ctx)
		}
		var f figure
		if r.step.real {
			f, err = measureReal(ctx, dir, one, server, r.step.upload)
		} else {
			f, err = measure(ctx, dir, one, r.step)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "  %s, %s: %.2f s, %.2f s of CPU, %d MB", r.step.name, one.name, f.Wall.Seconds(), f.CPU.Seconds(), f.RSS/1e6)
		if !r.step.real {
			fmt.Fprintf(os.Stderr, "; the stub %.2f s of CPU", f.Asked.CPU.Seconds())
		}
		fmt.Fprintln(os.Stderr)
		r.figures[one.name] = append(r.figures[one.name], f)
	}
	return nil
}

// rows are a step's lines in the table. Without peers no ratio is asked for.
func (r result) rows(peers bool) (rows []row) {
	add := func(what, unit, against string, times, bound float64, of func(figure) float64) {
		values := func(name string) (v []float64) {
			for _, f := range r.figures[name] {
				v = append(v, of(f))
			}
			return v
		}
		line := row{name: r.step.name + ", " + what, unit: unit, ours: values("myrmidon"), bound: bound}
		if peers && against != "" {
			line.against, line.peer, line.times = against, values(against), times
		}
		rows = append(rows, line)
	}
	wall := func(f figure) float64 { return f.Wall.Seconds() }
	n := float64(r.step.set.N)
	names := []string{""}
	if peers && len(r.step.times) > 0 {
		names = names[:0]
		for name := range r.step.times {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int { return order(a) - order(b) })
	}
	for _, name := range names {
		add("wall", "s", name, r.step.times[name], 0, wall)
	}
	add("client's CPU an object", "us", names[0], r.step.saves, r.step.cpu, func(f figure) float64 { return f.CPU.Seconds() * 1e6 / n })
	add("client's memory, peak", "MB", names[0], 0, r.step.rss, func(f figure) float64 { return float64(f.RSS) / 1e6 })
	if r.step.real {
		return rows // the server does not count
	}
	add("LIST for 1,000 keys", "", names[0], 0, r.step.lists, func(f figure) float64 { return float64(f.requests("LIST")) * 1000 / n })
	return rows
}
