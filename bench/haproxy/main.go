// Command haproxy measures the library haproxy and `myrmidon haproxy stats` against
// programs that do less, on this machine, in one run. `make bench-haproxy` runs it.
//
// # What is compared
//
// Four real HAProxy processes with about 1,550 rows each. Child processes take turns, each
// round in the order below, and ratios are taken within a round:
//
//	floor    a Go program that sends "show info;show stat" to the four sockets at once,
//	         reads until they close, and does nothing with it: it links what it needs
//	ours     myrmidon haproxy stats --csv, as it is built for users, output discarded
//	library  a Go program that links package haproxy alone, and writes the same CSV
//	seed     the rules of the library that this one follows (HAProxyGoStat), as written
//	         down in this house, in seed.go: a map for each row, rows paired by their
//	         index, 82 fields by the rules pass, average, max and sum
//
// Wall time is from the start of the child to its end; memory is the most that was
// resident (ru_maxrss). A measuring process starts the children: the kernel counts what
// a child shares with its parent until it is another program, so it is a small one, and
// its own peak is printed.
//
// A daemon is measured in a process of its own, by its own processor time (getrusage): a
// Collector beside a poller that only reads into buffers that it uses again, in turns of
// twenty polls. Parsing and merging are measured there too, with the processes' dumps in
// memory, and what they allocate, and beside them encoding/csv on the same dumps. 64 sockets
// are a child that replays one dump; 16 are measured beside them, to see whether time grows
// with their number and not faster.
//
// Nothing here is a test: only with -strict is a missed target exit status 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"myrmidon/bench/internal/machine"
	"myrmidon/bench/internal/quiet"
	"myrmidon/bench/internal/role"
	"myrmidon/internal/testkit/haproxyd"
)

type flags struct {
	rounds        int
	quick, strict bool
}

func main() {
	var err error
	misses, f := 0, flags{}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	switch role.Name() {
	case "":
		flag.IntVar(&f.rounds, "rounds", 5, "how often each is measured")
		flag.BoolVar(&f.quick, "quick", false, "one round, to see that all works: no target is judged")
		flag.BoolVar(&f.strict, "strict", false, "exit with status 1 if a target is missed")
		flag.Parse()
		if flag.NArg() > 0 || f.rounds < 1 {
			flag.Usage()
			os.Exit(2)
		}
		misses, err = run(ctx, f, os.Stdout)
	case "seed":
		err = seed(os.Args[1:], os.Stdout)
	case "shots":
		err = role.Reply(shots(ctx, os.Args[1:]))
	case "daemon":
		err = role.Reply(daemon(ctx, os.Args[1:]))
	case "replay":
		err = replay(ctx, os.Args[1], os.Args[2:])
	case "many":
		err = role.Reply(many(ctx, os.Args[1:]))
	default:
		err = role.Unknown()
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	if misses > 0 && f.strict {
		os.Exit(1)
	}
}

const processes = 4

// run measures everything, prints it, and returns how many targets were missed.
func run(ctx context.Context, f flags, out io.Writer) (misses int, err error) {
	dir, err := os.MkdirTemp("", "bench-haproxy-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if f.quick {
		f.rounds = 1
	}
	programs, err := build(ctx, dir)
	if err != nil {
		return 0, err
	}
	var sockets []string
	for i := range processes {
		s, err := haproxyd.Launch(haproxyd.Config{Frontends: 48, Backends: 150, Servers: 9})
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(s.Dir)
		defer s.Stop()
		sockets = append(sockets, s.Socket)
		for k := range 20 {
			if err := errors.Join(s.Request(k, 1+i, "/missing"), s.Request(k, 1, "/")); err != nil {
				return 0, err
			}
		}
	}
	var r results
	for i := range f.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, f.rounds)
		quiet.Settle(ctx)
		var s shotResult
		if err := role.Ask(ctx, &s, "shots", append(programs, sockets...)...); err != nil {
			return 0, err
		}
		var d daemonResult
		if err := role.Ask(ctx, &d, "daemon", sockets...); err != nil {
			return 0, err
		}
		var m manyResult
		if err := measureMany(ctx, dir, sockets[0], &m); err != nil {
			return 0, err
		}
		r.shots, r.daemons, r.many = append(r.shots, s), append(r.daemons, d), append(r.many, m)
	}
	fmt.Fprintf(out, "machine  %s, %d cores, %s\nHAProxy  %s, %d processes, %d rows of %d columns, %d kB each\nstarted  %s, %d rounds\n\n",
		machine.Processor(), runtime.NumCPU(), runtime.Version(), r.daemons[0].Version, processes, r.daemons[0].Rows, r.daemons[0].Columns, r.daemons[0].Bytes/1000,
		time.Now().UTC().Format("2006-01-02 15:04 MST"), f.rounds)
	return r.print(out, !f.quick), nil
}

// build makes the programs that are compared: the floor, ours, the library's.
func build(ctx context.Context, dir string) ([]string, error) {
	var out []string
	for name, pkg := range map[string]string{"floor": "./bench/haproxy/floor", "myrmidon": "./cmd/myrmidon", "library": "./bench/haproxy/library"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s (run this in the repository's folder): %w\n%s", pkg, err, strings.TrimSpace(string(text)))
		}
	}
	for _, name := range []string{"floor", "myrmidon", "library"} {
		out = append(out, filepath.Join(dir, name))
	}
	return out, nil
}
