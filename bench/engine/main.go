// Command engine measures the durable queue and the engine on it against RabbitMQ's
// quorum queues with publisher confirms, on this machine, in one run. `make bench-engine`
// runs it.
//
// # What is compared
//
// Both sides keep 300-byte jobs in folders of one file system and have synced them to it
// before they say that they are safe: ours with power durability, as a server embedded
// in this process, RabbitMQ's node as a process of its own, loaded over TCP by another
// (see bench/engine/rabbit, which also says how its settings were found). That the
// queue is in the process is what is for sale, not a trick: a command has it so. They are
// loaded in turn, ours, theirs, ours, …, each when the machine has come to rest, after a
// load of each that does not count; and ratios are taken within a round.
//
//	enqueue         from the first call until all jobs are confirmed: slices of 900 from
//	                8 goroutines, 7,200 unconfirmed; theirs message by message from 8
//	                connections, 8,192 unconfirmed
//	enqueue, one    ours alone: single jobs from 256 goroutines, whose commits are gathered
//	pull and ack    each job acknowledged by itself, until the server has answered a
//	                question that was sent behind the last acknowledgement
//	to the handler  median from the call that enqueues one job, the queue idle, to the
//	                waiting pull, or consumer, that has it
//
// What an acknowledgement promises is not the same. RabbitMQ's goes through the log of
// the quorum queue and is synced some time later; nobody is told when. Ours is a hint,
// kept in the server's memory and written within seconds: after a crash the job comes
// again, and is dropped because its event is stored. Neither client waits for either. When
// our queue is closed and opened again, each job must stay acknowledged.
//
// # What has a bound
//
// The time to start a queue, the memory of one that holds a million jobs (a process of its
// own that opens it and pulls once: /proc/self/status after a collection), the processor
// time of tracking a million items (from a profile), and what a worker does with retries
// when there is fresh work: see the functions.
//
// Each job is numbered and counted. One that is lost, comes twice or is changed is an
// error, never a figure. Nothing here is a test: only with -strict is a missed target exit
// status 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/bench/internal/machine"
	"myrmidon/bench/internal/quiet"
	"myrmidon/engine/jetstream"
)

type flags struct {
	rounds, n    int
	peer, strict bool
	backlog      bool
	dir          string
}

func main() {
	var f flags
	flag.IntVar(&f.rounds, "rounds", 5, "how often each is measured")
	flag.IntVar(&f.n, "n", 100_000, "jobs of a measurement of throughput")
	flag.BoolVar(&f.peer, "peer", true, "measure RabbitMQ too")
	flag.BoolVar(&f.backlog, "backlog", true, "store a million jobs and measure the memory that they take")
	flag.BoolVar(&f.strict, "strict", false, "exit with status 1 if a target is missed")
	flag.StringVar(&f.dir, "dir", "", "folder on the file system to measure (default: the one for temporary files)")
	child := flag.String("hold", "", "the program's own: hold the backlog in this folder")
	flag.Parse()
	if flag.NArg() > 0 || f.rounds < 1 || f.n < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	misses, err := 0, error(nil)
	if *child != "" {
		err = hold(ctx, *child, os.Stdout)
	} else {
		misses, err = run(ctx, f)
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		if hint := myrmidon.Hint(err); hint != "" {
			fmt.Fprintf(os.Stderr, "  %s\n", hint)
		}
		os.Exit(1)
	}
	if misses > 0 && f.strict {
		os.Exit(1)
	}
}

// figures are what the rounds gave; peer is empty if it was not measured.
type figures struct {
	power, process, peer []Figure
	handler              map[jetstream.Durability][]float64 // us
	start                []float64                          // ms
	behind, storm        []float64
	bare, evidence       []tracked
	held                 []held
}

// run measures everything, prints it, and returns how many targets were missed.
func run(ctx context.Context, f flags) (misses int, err error) {
	dir, err := os.MkdirTemp(f.dir, "bench-engine-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var peer *rabbit
	against := "-"
	if f.peer {
		if peer, err = startRabbit(ctx, dir); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, peer.stop()) }()
		against = "RabbitMQ " + peer.Version
	}
	fmt.Printf("machine  %s, %d cores, %s\nserver   nats-server %s, embedded; %s\nstarted  %s, %d rounds of %d jobs\n\n",
		machine.Processor(), runtime.NumCPU(), runtime.Version(), natsVersion(), against, time.Now().UTC().Format("2006-01-02 15:04 MST"), f.rounds, f.n)
	if _, err := ourRound(ctx, dir, jetstream.Power, warming); err != nil {
		return 0, fmt.Errorf("warm up: %w", err)
	}
	got := figures{handler: make(map[jetstream.Durability][]float64)}
	for i := range f.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, f.rounds)
		if err := got.round(ctx, dir, peer, f.n); err != nil {
			return 0, err
		}
	}
	if f.backlog {
		fmt.Fprintf(os.Stderr, "a backlog of %d jobs\n", backlogJobs)
		h, err := backlog(ctx, dir)
		if err != nil {
			return 0, err
		}
		got.held = append(got.held, h)
	}
	return printTable(os.Stdout, against, got.rows(f)), nil
}

// round measures all that is measured in each round. What compares comes first, side by
// side.
func (g *figures) round(ctx context.Context, dir string, peer *rabbit, n int) error {
	quiet.Settle(ctx)
	ours, err := ourRound(ctx, dir, jetstream.Power, n)
	if err != nil {
		return err
	}
	g.power = append(g.power, ours)
	if peer != nil {
		quiet.Settle(ctx)
		theirs, err := peer.round(ctx, n)
		if err != nil {
			return err
		}
		g.peer = append(g.peer, theirs)
	}
	quiet.Settle(ctx)
	if ours, err = ourRound(ctx, dir, jetstream.Process, n); err != nil {
		return err
	}
	g.process = append(g.process, ours)
	for _, level := range []jetstream.Durability{jetstream.Process, jetstream.Power} {
		p50, err := handlerLatency(ctx, dir, level)
		if err != nil {
			return fmt.Errorf("latency of a run with %s durability: %w", level, err)
		}
		g.handler[level] = append(g.handler[level], in(time.Microsecond, p50))
	}
	started, err := startEmpty(ctx, dir)
	if err != nil {
		return fmt.Errorf("start a queue: %w", err)
	}
	g.start = append(g.start, in(time.Millisecond, started))
	late, err := retryBehind(ctx, dir)
	if err != nil {
		return fmt.Errorf("a retry behind a backlog: %w", err)
	}
	g.behind = append(g.behind, late)
	s, err := retryStorm(ctx, dir)
	if err != nil {
		return fmt.Errorf("a storm of failures: %w", err)
	}
	g.storm = append(g.storm, s.pulls)
	for evidence, to := range map[bool]*[]tracked{false: &g.bare, true: &g.evidence} {
		t, err := track(ctx, dir, evidence)
		if err != nil {
			return fmt.Errorf("track a million items: %w", err)
		}
		*to = append(*to, t)
	}
	return nil
}

// rows are the lines of the table, with what is asked for.
func (g *figures) rows(f flags) []row {
	bound := func(name, unit string, bound float64, ours []float64) row {
		return row{name: name, unit: unit, bound: bound, ours: ours}
	}
	us := func(f []Figure) (v []float64) {
		for _, x := range f {
			v = append(v, p50(x))
		}
		return v
	}
	ratio := func(target float64) float64 {
		if !f.peer {
			return 0
		}
		return target
	}
	rows := []row{
		newRow("power: enqueue, slices of 900", perSecond, ratio(2), g.power, g.peer, enqueue),
		newRow("power: enqueue, one at a time", perSecond, 0, g.power, nil, singles),
		newRow("power: pull and ack, one by one", perSecond, ratio(1.5), g.power, g.peer, consume),
		newRow("(theirs acked many at a time)", perSecond, 0, nil, g.peer, consumeMultiple),
		newRow("power: to a waiting pull, p50", microseconds, 0, g.power, g.peer, p50),
		bound("power: to the handler of a run, p50", microseconds, 1000, g.handler[jetstream.Power]),
		newRow("process: enqueue, slices of 900", perSecond, 0, g.process, nil, enqueue),
		newRow("process: enqueue, one at a time", perSecond, 0, g.process, nil, singles),
		newRow("process: pull and ack, one by one", perSecond, 0, g.process, nil, consume),
		bound("process: to a waiting pull, p50", microseconds, 150, us(g.process)),
		bound("process: to the handler of a run, p50", microseconds, 0, g.handler[jetstream.Process]),
		bound("start, empty folder, p50", milliseconds, 10, g.start),
		bound("a retry behind 100,000 jobs, after its wait", batches, 2, g.behind),
		bound("fresh work while half of all jobs fail", ofPulls, 45, g.storm),
	}
	for _, t := range []struct {
		name string
		of   []tracked
	}{{"a million items", g.bare}, {"a million items with evidence", g.evidence}} {
		var cpu, share []float64
		for _, x := range t.of {
			cpu, share = append(cpu, in(time.Millisecond, x.CPU)), append(share, x.share())
		}
		rows = append(rows, bound("tracking "+t.name, milliseconds, 0, cpu), bound(fmt.Sprintf("  at %d items/s", pace), coreShare, 5, share))
	}
	for _, h := range g.held {
		rows = append(rows,
			bound("memory with 1,000,000 jobs", megabytes, 64, []float64{float64(h.RSS) / 1e6}),
			bound("  the most until then", megabytes, 0, []float64{float64(h.Peak) / 1e6}),
			bound("  start with them", milliseconds, 0, []float64{in(time.Millisecond, h.Open)}),
			bound("  first pull of them", milliseconds, 0, []float64{in(time.Millisecond, h.Pull)}))
	}
	return rows
}

func in(unit, d time.Duration) float64 { return float64(d) / float64(unit) }

// natsVersion is the version of the server that this program was built with.
func natsVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "?"
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/nats-io/nats-server/v2" {
			return m.Version
		}
	}
	return "?"
}
