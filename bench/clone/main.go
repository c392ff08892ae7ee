// Command clone measures `myrmidon clone` and `myrmidon du` against s5cmd, rclone and
// awscli, on this machine, in one run. `make bench-clone` runs it.
//
// # What is compared
//
// All clients copy or count the objects of a stub of S3 (internal/testkit/s3stub), a
// process of its own for each measurement, which answers LIST after 80 ms, COPY after 30,
// PUT after 25 and HEAD after 10, about what S3 takes, and otherwise as fast as it can.
// What limits a client is thus how much it has under way, and what an object costs it; what
// S3 would limit (its rate for a prefix) is not shown. Copies are made by the service. Each
// client is a child process: its wall time, its processor time and peak memory (rusage), and
// its requests by verb, as the stub counted them. The stub's own processor time stands
// beside: where client and stub together have all cores, the stub is in the way.
//
//	myrmidon clone s3://from s3://into -q
//	s5cmd --log error cp 's3://from/*' s3://into/
//	rclone copy stub:from stub:into --checkers 256 --transfers 256 --fast-list --no-check-dest
//	    --use-server-modtime --s3-no-head --s3-no-head-object --s3-no-check-bucket
//	    --ignore-checksum --ignore-size
//	aws s3 sync s3://from s3://into --only-show-errors
//
//	myrmidon du s3://from --json
//	s5cmd du 's3://from/*'
//
// s5cmd has its 256 workers (the version that tools/s5cmd pins), rclone as many and the flags
// that spare it requests, awscli its defaults; both are the distribution's. s5cmd cp and
// rclone copy with these flags copy everything, while myrmidon clone and aws s3 sync list
// the destination first and compare. s5cmd du lists serially, page by page.
//
// # What is measured
//
//	clone 7,500     in 195 prefixes, by all clients
//	clone 100,000   in 20,000 prefixes, ours and s5cmd
//	clone 100,000, 256 and 512 at once   ours, once: its memory has a bound
//	clone and upload 1.3 GB   7,500 objects with their bytes, in a bucket and in a folder, by
//	                versitygw, which keeps objects as files; ours and s5cmd
//	du 1 M, flat    one prefix, ours and s5cmd
//	du 10 M         ours, once: its memory has a bound
//	clone 1 M       in 200,000 prefixes, ours, once, with -large: it completes
//
// Clients take turns, ours, theirs, ours, …, each when the machine has come to rest, and
// ratios are taken within a round. An object that has not arrived, came twice or is
// changed, and a wrong count, is an error, never a figure. Nothing here is a test: only
// with -strict is a missed target exit status 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/bench/internal/machine"
)

type flags struct {
	rounds        int
	peers, strict bool
	quick, large  bool
	only, dir     string
}

func main() {
	var f flags
	flag.IntVar(&f.rounds, "rounds", 3, "how often each is measured")
	flag.BoolVar(&f.peers, "peers", true, "measure s5cmd, rclone and awscli too")
	flag.BoolVar(&f.quick, "quick", false, "one round with few objects, to see that all works: no target is judged")
	flag.BoolVar(&f.large, "large", false, "clone a million objects, too")
	flag.StringVar(&f.only, "only", "", "measure only what has this in its name: \"7,500\"")
	flag.BoolVar(&f.strict, "strict", false, "exit with status 1 if a target is missed")
	flag.StringVar(&f.dir, "dir", "", "folder for what the clients write (default: the one for temporary files)")
	flag.Parse()
	if flag.NArg() > 0 || f.rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	misses, err := 0, error(nil)
	if spec := os.Getenv(stubVariable); spec != "" {
		err = serveStub(spec, os.Stdin, os.Stdout)
	} else {
		misses, err = run(ctx, f, os.Stdout)
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

// run measures everything, prints it to out, and returns how many targets were missed.
func run(ctx context.Context, f flags, out io.Writer) (misses int, err error) {
	dir, err := os.MkdirTemp(f.dir, "bench-clone-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c, err := find(ctx, dir, f.peers)
	if err != nil {
		return 0, err
	}
	if f.quick {
		f.rounds = 1
	}
	var results []result
	for _, s := range steps(f.quick) {
		if strings.Contains(s.name, f.only) && (f.large || !s.large) {
			results = append(results, result{s, make(map[string][]figure)})
		}
	}
	if len(results) == 0 {
		return 0, fmt.Errorf("-only %q: nothing has this in its name", f.only)
	}
	printHead(out, c, f)
	for i := range f.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", i+1, f.rounds)
		for k := range results {
			if results[k].step.once && i > 0 {
				continue
			}
			if err := results[k].round(ctx, dir, c, !f.quick); err != nil {
				return 0, err
			}
		}
	}
	printRequests(out, results)
	fmt.Fprintln(out)
	var rows []row
	for _, r := range results {
		rows = append(rows, r.rows(f.peers)...)
	}
	return printTable(out, rows, !f.quick), nil
}

// printHead says what is measured, against what and where.
func printHead(out io.Writer, c clients, f flags) {
	var peers []string
	for _, p := range []*client{c.s5cmd, c.rclone, c.aws} {
		if p != nil {
			peers = append(peers, p.name+" "+p.version)
		}
	}
	if peers == nil {
		peers = []string{"none"}
	}
	fmt.Fprintf(out, "machine  %s, %d cores, %s\nstub     %s\npeers    %s\nstarted  %s, %d rounds\n\n",
		machine.Processor(), runtime.NumCPU(), runtime.Version(), latencyText(), strings.Join(peers, ", "),
		time.Now().UTC().Format("2006-01-02 15:04 MST"), f.rounds)
}
