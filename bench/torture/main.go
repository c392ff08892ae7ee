// Command torture runs runs of a fleet while their processes are killed, stopped and cut
// off, and checks from outside that every item's effect is there exactly once. `make
// torture` runs it.
//
// # What is done
//
// Each run has a world of its own: a NATS broker (one server, or in one run of four a
// cluster of three), three workers that also adopt runs, an owner, and a server that
// stands for the store that effects are written to. Every few hundred ms one of them is
// struck: killed (SIGKILL) and started again later, stopped (SIGSTOP) for 0.2 to 15 s, or
// cut off from all others for as long. An owner that was killed comes back in half of the
// cases and takes its run up; in the others a worker adopts it. Of a cluster's servers
// one at a time is struck. After 5 to 12 s the faults end, and the run must come to its
// end.
//
// Items are cut into jobs of 10 to 100, short and long, in a tree of shards. Of a
// thousand items, ten fail once, five twice, three for ever and two for good; one job of
// 32 fails as a whole at first. Deliveries are leased for 3 s and runs for
// [engine.LeaseTime], so that many faults outlast them.
//
// # What is checked
//
// The server has each expected name with exactly the expected content, and no other; the
// run's evidence has each item exactly once, done or parked and after the attempts that
// it must take; parked is what failed three times or for good, and nothing else; counts,
// bytes and outputs agree; the second phase began after all effects of the first. No
// worker ends by itself. Writes that were done again are counted: they are allowed,
// since they are idempotent, and show that the faults struck.
//
// # Seeds
//
// What becomes of each item, the plan, and the schedule of faults follow from the run's
// seed, which is printed; the scheduling of processes does not. Of a run that fails, the
// folder with all logs stays and is named.
//
// Namespaces need Linux, root and iproute2. Without them TCP proxies cut the workers and
// the owner off, and brokers are not cut off but killed.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/internal/testkit/netfault"
)

// flags are the command line.
type flags struct {
	runs, items, parallel int
	seed                  uint64
	keep                  string
	calm, proxies         bool
}

func main() {
	if status, played := play(); played {
		os.Exit(status)
	}
	var f flags
	flag.IntVar(&f.runs, "runs", 100, "how many runs")
	flag.IntVar(&f.items, "items", 10_000, "items of a run")
	flag.IntVar(&f.parallel, "parallel", 1, "runs at once, each in a world of its own")
	flag.Uint64Var(&f.seed, "seed", 0, "of the first run; the others count on (default: drawn)")
	flag.StringVar(&f.keep, "keep", "", "folder to keep all logs in (default: a temporary one, kept if a run fails)")
	flag.BoolVar(&f.calm, "calm", false, "without faults")
	flag.BoolVar(&f.proxies, "proxies", false, "proxies instead of network namespaces")
	flag.Parse()
	if flag.NArg() > 0 || f.runs < 1 || f.items < 1 || f.parallel < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if f.seed == 0 {
		f.seed = rand.Uint64N(1_000_000_000) + 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed, err := f.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "torture: %v\n", err)
		if hint := myrmidon.Hint(err); hint != "" {
			fmt.Fprintf(os.Stderr, "  %s\n", hint)
		}
	}
	if err != nil || failed > 0 {
		os.Exit(1)
	}
}

// run carries out all runs and returns how many failed.
func (f flags) run(ctx context.Context) (failed int, err error) {
	dir := f.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "torture-*"); err != nil {
			return 0, err
		}
	} else if dir, err = filepath.Abs(dir); err != nil {
		return 0, err
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	namespaces := !f.proxies
	if namespaces {
		if err := netfault.Available(); err != nil {
			namespaces = false
			fmt.Printf("no network namespaces here (%v): proxies cut workers and owners off, brokers are killed instead\n", err)
		}
	}
	fmt.Printf("%d runs of %d items, seeds from %d\n", f.runs, f.items, f.seed)
	began := time.Now()
	var sum summary
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan uint64)
	var hands sync.WaitGroup
	for range min(f.parallel, f.runs) {
		hands.Go(func() {
			for seed := range next {
				t := newTrial(seed, f.items, namespaces, filepath.Join(dir, fmt.Sprintf("run-%d", seed)))
				if f.calm {
					t.strikes = nil
				}
				out, err := t.run(ctx)
				if err != nil {
					cancel(fmt.Errorf("run with seed %d, logs in %s: %w", seed, t.dir, err))
					return
				}
				sum.add(t, out)
				if len(out.violations) == 0 && f.keep == "" {
					if err := os.RemoveAll(t.dir); err != nil {
						cancel(err)
					}
				}
			}
		})
	}
	for i := 0; i < f.runs && ctx.Err() == nil; i++ {
		select {
		case next <- f.seed + uint64(i):
		case <-ctx.Done():
		}
	}
	close(next)
	hands.Wait()
	sum.print(time.Since(began))
	if cause := context.Cause(ctx); cause != nil {
		return sum.failed, cause
	}
	if sum.failed == 0 && f.keep == "" {
		err = os.RemoveAll(dir)
	}
	return sum.failed, err
}

// summary adds runs up and prints each.
type summary struct {
	mu           sync.Mutex
	runs, failed int
	faults       [3]int
	repeats      int
	items        int
	owners       uint64
	parked       int64
}

func (s *summary) add(t *trial, out outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs++
	s.items += t.spec.Items
	s.repeats += out.repeats
	s.parked += out.parked
	for i, n := range out.faults {
		s.faults[i] += n
	}
	if out.owners > 0 {
		s.owners += out.owners - 1
	}
	verdict := "ok"
	if len(out.violations) > 0 {
		s.failed++
		verdict = "FAILED"
	}
	fmt.Printf("run %3d  seed %-10d %6.1fs  brokers %d  kill %2d pause %2d cut %2d  repeats %5d  takeovers %d  parked %3d  left %d  %s\n",
		s.runs, t.spec.Seed, out.wall.Seconds(), t.brokers, out.faults[kill], out.faults[pause], out.faults[cut],
		out.repeats, max(out.owners, 1)-1, out.parked, out.left, verdict)
	if len(out.violations) == 0 {
		return
	}
	for _, v := range out.violations {
		fmt.Printf("    %s\n", v)
	}
	fmt.Printf("    logs: %s\n    again: go run ./bench/torture -runs 1 -items %d -seed %d\n", t.dir, t.spec.Items, t.spec.Seed)
}

func (s *summary) print(wall time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("%d runs, %d items, %.0fs: kills %d, pauses %d, cuts %d; repeated writes %d, takeovers %d, parked %d; %d failed\n",
		s.runs, s.items, wall.Seconds(), s.faults[kill], s.faults[pause], s.faults[cut], s.repeats, s.owners, s.parked, s.failed)
}
