package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

const (
	jobSize = 300 // bytes of a stored job, as of the peer's messages

	committers = 8   // goroutines that commit slices, as that many planners do; the peer has 8 publishers
	single     = 256 // goroutines that commit one job at a time, as that many handlers do
	pullers    = 8   // goroutines that pull and acknowledge
	latencies  = 301 // jobs to take a latency of, as of the peer's messages

	// stuck is how long a measurement may take: it is broken then, and no figure.
	stuck = time.Minute
)

// benchRun is the run of jobs that no owner works on.
const benchRun = "01BENCH0000000000000000000"

var benchLane = engine.Lane{Workload: "bench", Version: 1}

// benchJob returns job i of a run, which is stored as jobSize bytes of JSON.
func benchJob(run string, i int) (myrmidon.Job, error) {
	j := myrmidon.Job{Kind: "bench.job", Version: 1, Run: run, First: uint32(i), Count: 1, Attempt: 1, Spec: json.RawMessage(`""`)}
	data, err := json.Marshal(j)
	if err != nil {
		return j, err
	}
	if len(data) > jobSize {
		return j, fmt.Errorf("job %d has %d bytes, more than %d", i, len(data), jobSize)
	}
	j.Spec = json.RawMessage(`"` + strings.Repeat("x", jobSize-len(data)) + `"`)
	return j, nil
}

func benchJobs(run string, n int) ([]myrmidon.Job, error) {
	jobs := make([]myrmidon.Job, n)
	for i := range jobs {
		var err error
		if jobs[i], err = benchJob(run, i); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

// ourRound loads a backend of ours, opened for the round on an empty folder below dir,
// with n jobs, as round does the peer: enqueue and consume, then the same once more with
// single jobs, and at last the latency. A job that is lost, or comes twice, is an error.
func ourRound(ctx context.Context, dir string, level jetstream.Durability, n int) (f Figure, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stuck, fmt.Errorf("our queue: not done after %v", stuck))
	defer cancel()
	if dir, err = os.MkdirTemp(dir, "ours-*"); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	jobs, err := benchJobs(benchRun, n)
	if err != nil {
		return f, err
	}
	lone := jobs[:min(n, loneJobs(level))]
	for _, part := range []struct {
		name string
		do   func(b engine.Backend) error
	}{
		{"enqueue", func(b engine.Backend) (err error) { f.Enqueue, err = enqueueSlices(ctx, b, jobs); return err }},
		{"consume", func(b engine.Backend) (err error) { f.Consume, err = consumeAll(ctx, b, jobs); return err }},
		{"see that nothing is left", func(b engine.Backend) error { return nothingLeft(ctx, b) }},
		{"enqueue singles", func(b engine.Backend) (err error) { f.Single, err = enqueueSingles(ctx, b, lone); return err }},
		{"consume singles", func(b engine.Backend) error { _, err := consumeAll(ctx, b, lone); return err }},
		{"latency", func(b engine.Backend) (err error) { f.P50, err = latency(ctx, b); return err }},
	} {
		// Each part has a server of its own: what one has left in the acknowledgements'
		// memory, or not, is seen by the next.
		if err := withBackend(ctx, filepath.Join(dir, "queue"), level, part.do); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return f, fmt.Errorf("%s queue: %s: %w", level, part.name, err)
		}
	}
	return f, nil
}

// loneJobs is how many jobs are committed one by one: about two seconds' worth.
func loneJobs(level jetstream.Durability) int {
	if level == jetstream.Power {
		return 20_000
	}
	return 50_000
}

// withBackend calls do with a backend on dir.
func withBackend(ctx context.Context, dir string, level jetstream.Durability, do func(b engine.Backend) error) (err error) {
	b, err := jetstream.Open(ctx, jetstream.Config{Dir: dir, Durability: level})
	if err != nil {
		return err
	}
	return errors.Join(do(b), b.Close())
}

// parallel calls fn in n goroutines and returns how long it took until all had returned.
func parallel(n int, fn func(worker int) error) (time.Duration, error) {
	var wg sync.WaitGroup
	errs := make([]error, n)
	start := time.Now()
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return time.Since(start), errors.Join(errs...)
}

// enqueueSlices commits jobs as planners do, a slice at a time, and returns jobs a second
// until all are stored.
func enqueueSlices(ctx context.Context, b engine.Backend, jobs []myrmidon.Job) (float64, error) {
	slice := make(chan []myrmidon.Job, len(jobs)/engine.MaxSliceJobs+1)
	for s := range slices.Chunk(jobs, engine.MaxSliceJobs) {
		slice <- s
	}
	close(slice)
	took, err := parallel(committers, func(int) error {
		for s := range slice {
			if err := b.Commit(ctx, engine.Batch{Jobs: s}); err != nil {
				return err
			}
		}
		return nil
	})
	return float64(len(jobs)) / took.Seconds(), err
}

// enqueueSingles commits jobs one by one from many goroutines.
func enqueueSingles(ctx context.Context, b engine.Backend, jobs []myrmidon.Job) (float64, error) {
	var next atomic.Int64
	took, err := parallel(single, func(int) error {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(jobs) {
				return nil
			}
			if err := b.Commit(ctx, engine.Batch{Jobs: jobs[i : i+1]}); err != nil {
				return err
			}
		}
	})
	return float64(len(jobs)) / took.Seconds(), err
}

// consumeAll pulls the jobs that are stored and acknowledges each by itself. It returns
// jobs a second until the server has answered a question that was sent behind the last
// acknowledgement.
func consumeAll(ctx context.Context, b engine.Backend, stored []myrmidon.Job) (float64, error) {
	t := newTally(stored)
	var left atomic.Int64
	left.Store(int64(len(stored)))
	took, err := parallel(pullers, func(int) error {
		for left.Load() > 0 {
			ds, err := b.Pull(ctx, engine.PullRequest{Lane: benchLane, N: engine.MaxPull, Wait: 20 * time.Millisecond})
			if err != nil {
				return err
			}
			if len(ds) == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			for _, d := range ds {
				if err := t.note(d.Job()); err != nil {
					return err
				}
				if err := d.Ack(ctx); err != nil {
					return err
				}
			}
			if left.Add(-int64(len(ds))) == 0 {
				return nothingLeft(ctx, b)
			}
		}
		return nil
	})
	if err == nil {
		err = t.missing()
	}
	return float64(len(stored)) / took.Seconds(), err
}

// nothingLeft is an error if a job comes that was acknowledged before the backend was
// opened.
func nothingLeft(ctx context.Context, b engine.Backend) error {
	ds, err := b.Pull(ctx, engine.PullRequest{Lane: benchLane, N: engine.MaxPull})
	if err == nil && len(ds) > 0 {
		err = fmt.Errorf("%d jobs came again that were acknowledged before the queue was closed", len(ds))
	}
	return err
}

// latency returns the median time from the call that commits a job to the waiting pull
// that returns it, of one job at a time. The next goes out when the former is stored.
func latency(ctx context.Context, b engine.Backend) (time.Duration, error) {
	type arrival struct {
		at  time.Time
		err error
	}
	asked, arrived := make(chan bool, 1), make(chan arrival, 1)
	defer close(asked)
	go func() {
		for range asked {
			ds, err := b.Pull(ctx, engine.PullRequest{Lane: benchLane, N: engine.MaxPull, Wait: 10 * time.Second})
			at := time.Now()
			if err == nil && len(ds) != 1 {
				err = fmt.Errorf("%d jobs came, one was sent", len(ds))
			}
			for _, d := range ds {
				err = errors.Join(err, d.Ack(ctx))
			}
			arrived <- arrival{at, err}
		}
	}()
	took := make([]time.Duration, 0, latencies)
	for i := range latencies {
		j, err := benchJob(benchRun, i)
		if err != nil {
			return 0, err
		}
		asked <- true
		time.Sleep(2 * time.Millisecond) // until the pull waits
		start := time.Now()
		if err := b.Commit(ctx, engine.Batch{Jobs: []myrmidon.Job{j}}); err != nil {
			return 0, err
		}
		a := <-arrived
		if a.err != nil {
			return 0, a.err
		}
		took = append(took, a.at.Sub(start))
	}
	return median(took), nil
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

// tally counts jobs as they come. It may be used from many goroutines.
type tally struct {
	stored []myrmidon.Job
	seen   []atomic.Bool
}

func newTally(stored []myrmidon.Job) *tally { return &tally{stored, make([]atomic.Bool, len(stored))} }

// note takes a job that came; an error is one that should not have.
func (t *tally) note(j myrmidon.Job) error {
	switch {
	case int64(j.First) >= int64(len(t.stored)):
		return fmt.Errorf("job %d came; only %d were stored", j.First, len(t.stored))
	case string(j.Spec) != string(t.stored[j.First].Spec):
		return fmt.Errorf("job %d was changed on its way", j.First)
	case t.seen[j.First].Swap(true):
		return fmt.Errorf("job %d came twice", j.First)
	}
	return nil
}

// missing is an error if a job has not come.
func (t *tally) missing() error {
	for i := range t.seen {
		if !t.seen[i].Load() {
			return fmt.Errorf("job %d has not come", i)
		}
	}
	return nil
}
