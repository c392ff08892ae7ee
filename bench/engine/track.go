package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strconv"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

const (
	trackJobs  = 10_000
	trackItems = myrmidon.MaxJobItems // of each job
)

// pace is how many items a second a run counts that is as fast as any that was measured:
// files moved by one process with 512 connections, on two cores, 20 ms to the first byte.
// A run whose handlers do nothing is no measure: it is as fast as the machine tracks it.
const pace = 12_900

// tracked is what tracking trackJobs x trackItems items took.
type tracked struct {
	CPU  time.Duration // of following the log and applying it, snapshots included
	Wall time.Duration // of a run whose handlers do nothing, with its report
}

// share is the tracker's part of a core in a run that has pace, in percent.
func (t tracked) share() float64 { return 100 * t.CPU.Seconds() * pace / (trackJobs * trackItems) }

// trackerCode names the functions under which the owner's tracking is done: following
// and decoding events, applying them, counting, snapshots and run.json. The report is
// written when all is tracked.
const trackerCode = `engine\.\(\*Run\)\.(carry\.func1|steer)`

// track runs trackJobs jobs of trackItems items each, whose handlers do nothing, to
// their end, and takes the tracker's CPU time from a profile. evidence says whether each
// item comes with a name, a size and a note, as a copied object's does.
func track(ctx context.Context, dir string, evidence bool) (t tracked, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, stuck, fmt.Errorf("not done after %v", stuck))
	defer cancel()
	profile := filepath.Join(dir, "track.pprof")
	f, err := os.Create(profile)
	if err != nil {
		return t, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return t, errors.Join(err, f.Close())
	}
	start := time.Now()
	rep, err := trackRun(ctx, dir, evidence)
	t.Wall = time.Since(start)
	pprof.StopCPUProfile()
	if err = errors.Join(err, f.Close()); err != nil {
		return t, err
	}
	if want := int64(trackJobs * trackItems); rep.State != myrmidon.Succeeded || rep.Counts.Done != want {
		return t, fmt.Errorf("the run ended %s with %d items done, not %d", rep.State, rep.Counts.Done, want)
	}
	t.CPU, err = profiled(ctx, profile, trackerCode)
	return t, err
}

// trackRun carries the run and returns its report. The report itself, which lists a
// million items, is written after the last event and is not tracking.
func trackRun(ctx context.Context, dir string, evidence bool) (*engine.Report, error) {
	note := json.RawMessage(`{"etag":"0123456789abcdef0123456789abcdef"}`)
	w, err := startWhole(ctx, dir, jetstream.Process, 16,
		func(_ context.Context, s myrmidon.Step) (out myrmidon.Slice, err error) {
			for i := int(s.Next) / trackItems; i < trackJobs && len(out.Jobs) < engine.MaxSliceJobs; i++ {
				out.Jobs = append(out.Jobs, myrmidon.Planned{Kind: "bench.job", Count: trackItems, Units: trackItems})
			}
			out.Done = int(s.Next)/trackItems+len(out.Jobs) == trackJobs
			return out, nil
		},
		func(_ context.Context, j myrmidon.Job) (res myrmidon.Result, err error) {
			for i := range j.Items() {
				if !evidence {
					break
				}
				res.Items = append(res.Items, myrmidon.ItemResult{Index: i, Name: fmt.Sprintf("video/2026/11/%08d.ts", i), Bytes: 1 << 20, Note: note})
			}
			return res, nil
		})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, w.run.Kill)
	defer stop()
	rep, err := w.run.Wait()
	return rep, errors.Join(err, os.RemoveAll(w.dir))
}

// profiled returns the CPU time that a profile shows below functions which code matches.
func profiled(ctx context.Context, profile, code string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-unit=us", "-nodefraction=0", "-edgefraction=0", "-nodecount=1000000", "-focus="+code, profile)
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("go tool pprof %s: %w", profile, err)
	}
	return parseTop(string(out))
}

var topLine = regexp.MustCompile(`(?m)^Showing nodes accounting for (\d+)us, `)

// parseTop reads the sum out of what `go tool pprof -top -focus` prints.
func parseTop(out string) (time.Duration, error) {
	sum := topLine.FindStringSubmatch(out)
	if sum == nil || sum[1] == "0" {
		return 0, fmt.Errorf("no sample of what was asked for: %q", out)
	}
	us, err := strconv.ParseInt(sum[1], 10, 64)
	return time.Duration(us) * time.Microsecond, err
}
