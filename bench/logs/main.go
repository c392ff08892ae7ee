// Command logs measures package elb and `myrmidon logs ship`, on this machine, in one run.
// `make bench-logs` runs it.
//
// # What is measured
//
//	parse     lines of an Application Load Balancer, all different and 702 bytes long, to JSON
//	          on one processor (GOMAXPROCS=1), in turns with the way that most scripts take:
//	          a regular expression with a group a column, a map, json.Marshal. Lines a second
//	          are of processor time, and allocations are counted by the runtime
//	ship      a packed object in a folder, to the end of the process that ships it:
//	            myrmidon logs ship FOLDER --to lumberjack://127.0.0.1:PORT
//	            myrmidon logs ship FOLDER --to tcp://127.0.0.1:PORT
//	            a program that only inflates the object and throws it away: the floor
//	memory    the most that was resident (ru_maxrss) in the first of those, for an object of
//	          1 GB inflated; with -large also for one of 10 GB, once
//	the seed  an object of 76,464 lines, as the article's
//
// The object of the seed and the others hold the same kind of lines. What is shipped to is a
// process of its own that reads, counts and acknowledges, and nothing more: no JSON is decoded
// there, so that it is in nobody's way. Lumberjack's lines are all acknowledged, one window
// after the other; tcp's are confirmed by nobody. A count that is not that of the object's
// lines is an error, never a figure.
//
// A measuring process starts what is shipped with: the kernel counts what a child shares with
// its parent until it is another program, so it is a small one, and its own peak is printed.
// Programs take turns, in an order that changes with each round, each when the machine has come
// to rest; ratios are taken within a round.
//
// There is no peer of another house: Debian 12 has no package of filebeat, Vector or Fluent
// Bit, and this bench uses what setup.sh installs.
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
	"strconv"
	"strings"
	"syscall"
	"time"

	"myrmidon/bench/internal/machine"
	"myrmidon/bench/internal/quiet"
	"myrmidon/bench/internal/role"
)

type flags struct {
	rounds               int
	quick, strict, large bool
	dir                  string
}

func main() {
	var err error
	misses, f := 0, flags{}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	switch role.Name() {
	case "":
		flag.IntVar(&f.rounds, "rounds", 5, "how often each is measured")
		flag.BoolVar(&f.quick, "quick", false, "one round with few lines, to see that all works: no target is judged")
		flag.BoolVar(&f.large, "large", false, "ship an object of 10 GB, too: needs 2 GB on disk")
		flag.BoolVar(&f.strict, "strict", false, "exit with status 1 if a target is missed")
		flag.StringVar(&f.dir, "dir", "", "folder for the objects (default: the one for temporary files)")
		flag.Parse()
		if flag.NArg() > 0 || f.rounds < 1 {
			flag.Usage()
			os.Exit(2)
		}
		misses, err = run(ctx, f, os.Stdout)
	case "parse":
		err = role.Reply(parse(os.Args[1]))
	case "shots":
		err = role.Reply(shots(ctx, os.Args[1], os.Args[2], os.Args[3:]))
	case "write":
		err = writeObject(os.Args[1], os.Args[2])
	case "inflate":
		err = inflate(os.Args[1])
	case "receive":
		err = receive(ctx, os.Stdin, os.Stdout)
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

// Lines of the objects. A GB is 10^9 bytes.
const (
	seedLines   = 76_464
	shipLines   = 300_000
	memoryLines = 1_000_000_000/(lineLength+1) + 1
	largeLines  = 10 * memoryLines
	quickLines  = 20_000
)

// run measures everything, prints it, and returns how many targets were missed.
func run(ctx context.Context, f flags, out io.Writer) (misses int, err error) {
	dir, err := os.MkdirTemp(f.dir, "bench-logs-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	counts := map[string]int{"ship": shipLines, "seed": seedLines, "memory": memoryLines}
	if f.large {
		counts["large"] = largeLines
	}
	if f.quick {
		f.rounds = 1
		for name := range counts {
			counts[name] = quickLines
		}
	}
	program := filepath.Join(dir, "myrmidon")
	if err := build(ctx, program); err != nil {
		return 0, err
	}
	fmt.Fprintln(os.Stderr, "writing the objects")
	for name, n := range counts {
		// A child does, so that this process stays small: see shots.
		if err := role.Do(ctx, "write", filepath.Join(dir, name), strconv.Itoa(n)); err != nil {
			return 0, err
		}
	}
	to, err := startReceiver(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, to.stop()) }()
	b := &bench{dir: dir, program: program, counts: counts, to: to, quick: f.quick}
	var r results
	for i := range f.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, f.rounds)
		one, err := b.round(ctx, i)
		if err != nil {
			return 0, err
		}
		r.rounds = append(r.rounds, one)
	}
	if f.large {
		fmt.Fprintln(os.Stderr, "the large object")
		if r.large, err = b.shot(ctx, "lumberjack", "large"); err != nil {
			return 0, err
		}
	}
	fmt.Fprintf(out, "machine  %s, %d cores, %s\nobjects  %d lines to compare, %d for memory, %d as the seed's, %d bytes each\npeers    regexp with json.Marshal; of other houses none\nstarted  %s, %d rounds\n\n",
		machine.Processor(), runtime.NumCPU(), runtime.Version(), counts["ship"], counts["memory"], counts["seed"], lineLength,
		time.Now().UTC().Format("2006-01-02 15:04 MST"), f.rounds)
	return r.print(out, !f.quick), nil
}

// bench is what rounds have in common.
type bench struct {
	dir, program string
	counts       map[string]int
	to           *receiver
	quick        bool
}

// round is what one round measured.
type round struct {
	Parse                                  parseResult
	Lumberjack, TCP, Inflate, Memory, Seed shot
}

func (b *bench) round(ctx context.Context, i int) (r round, err error) {
	quiet.Settle(ctx)
	size := "long"
	if b.quick {
		size = "short"
	}
	if err := role.Ask(ctx, &r.Parse, "parse", size); err != nil {
		return r, err
	}
	turns := []struct {
		way, object string
		to          *shot
	}{{"lumberjack", "ship", &r.Lumberjack}, {"tcp", "ship", &r.TCP}, {"inflate", "ship", &r.Inflate}, {"lumberjack", "memory", &r.Memory}, {"lumberjack", "seed", &r.Seed}}
	if i%2 == 1 {
		turns[0], turns[1] = turns[1], turns[0]
	}
	for _, t := range turns {
		if *t.to, err = b.shot(ctx, t.way, t.object); err != nil {
			return r, err
		}
	}
	return r, nil
}

// shot measures one way for one object, and looks whether all of its lines have arrived.
func (b *bench) shot(ctx context.Context, way, object string) (s shot, err error) {
	quiet.Settle(ctx)
	folder := filepath.Join(b.dir, object)
	if way == "inflate" {
		return s, role.Ask(ctx, &s, "shots", "inflate", "0", filepath.Join(folder, objectName))
	}
	state, err := os.MkdirTemp(b.dir, "state-*")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	address := b.to.Lumberjack
	if way == "tcp" {
		address = b.to.TCP
	}
	n := b.counts[object]
	if err := role.Ask(ctx, &s, "shots", "myrmidon", strconv.Itoa(n), b.program, "logs", "ship", folder, "--to", way+"://"+address, "--state", state, "--quiet"); err != nil {
		return s, err
	}
	got, err := b.to.count()
	if err != nil {
		return s, err
	}
	if got != int64(n) {
		return s, fmt.Errorf("%s: %d lines of %d have arrived", way, got, n)
	}
	return s, nil
}

// build makes the program as it is released.
func build(ctx context.Context, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", to, "./cmd/myrmidon")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build ./cmd/myrmidon (run this in the repository's folder): %w\n%s", err, strings.TrimSpace(string(text)))
	}
	return nil
}
