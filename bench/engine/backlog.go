package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

const (
	backlogJobs = 1_000_000
	starts      = 21 // of an empty queue, in a round
)

// startEmpty returns the median time to open a queue in a new folder.
func startEmpty(ctx context.Context, dir string) (_ time.Duration, err error) {
	if dir, err = os.MkdirTemp(dir, "start-*"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var took []time.Duration
	for i := range starts {
		start := time.Now()
		b, err := jetstream.Open(ctx, jetstream.Config{Dir: filepath.Join(dir, strconv.Itoa(i))})
		if err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
		if err := b.Close(); err != nil {
			return 0, err
		}
	}
	return median(took), nil
}

// held is what a process says that holds a backlog.
type held struct {
	Open time.Duration `json:"open_ns"` // until the queue was ready
	Pull time.Duration `json:"pull_ns"` // from there until the first jobs were pulled
	RSS  int64         `json:"rss"`     // resident bytes after that and a collection
	Peak int64         `json:"peak"`    // the most until then
}

// backlog stores backlogJobs jobs and lets another process, this program with -hold, open
// them: its memory is the queue's and nothing else.
func backlog(ctx context.Context, dir string) (h held, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*stuck, fmt.Errorf("backlog: not done after %v", 3*stuck))
	defer cancel()
	if dir, err = os.MkdirTemp(dir, "backlog-*"); err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	jobs, err := benchJobs(benchRun, backlogJobs)
	if err != nil {
		return h, err
	}
	err = withBackend(ctx, dir, jetstream.Power, func(b engine.Backend) error {
		_, err := enqueueSlices(ctx, b, jobs)
		return err
	})
	if err != nil {
		return h, fmt.Errorf("store %d jobs: %w", len(jobs), err)
	}
	self, err := os.Executable()
	if err != nil {
		return h, err
	}
	cmd := exec.CommandContext(ctx, self, "-hold", dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr, cmd.WaitDelay = &stdout, &stderr, ownGroup(), time.Second
	if err := cmd.Run(); err != nil {
		return h, fmt.Errorf("open %d jobs in a process of its own: %w\n%s", len(jobs), err, bytes.TrimSpace(stderr.Bytes()))
	}
	if err := json.Unmarshal(stdout.Bytes(), &h); err != nil {
		return h, fmt.Errorf("read what holding %d jobs gave, %q: %w", len(jobs), stdout.String(), err)
	}
	return h, nil
}

// hold is the other process: it opens dir, pulls once, and says what it took.
func hold(ctx context.Context, dir string, to io.Writer) error {
	var h held
	start := time.Now()
	b, err := jetstream.Open(ctx, jetstream.Config{Dir: dir, Durability: jetstream.Power})
	if err != nil {
		return err
	}
	h.Open = time.Since(start)
	start = time.Now()
	ds, err := b.Pull(ctx, engine.PullRequest{Lane: benchLane, N: engine.MaxPull, Wait: time.Second})
	if err == nil && len(ds) == 0 {
		err = errors.New("the backlog is empty")
	}
	h.Pull = time.Since(start)
	if err == nil {
		debug.FreeOSMemory()
		h.RSS, h.Peak, err = residentMemory()
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	return json.NewEncoder(to).Encode(h)
}

// residentMemory is what this process has in memory, and the most that it had, in bytes
// (proc(5), /proc/pid/status: VmRSS and VmHWM, in kB).
func residentMemory() (now, most int64, err error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, err
	}
	field := func(name string) (n int64) {
		_, rest, _ := strings.Cut(string(text), "\n"+name+":")
		line, _, _ := strings.Cut(rest, "\n")
		value, found := strings.CutSuffix(strings.TrimSpace(line), " kB")
		if found {
			n, err = strconv.ParseInt(value, 10, 64)
		}
		if n <= 0 {
			err = fmt.Errorf("/proc/self/status has no %s", name)
		}
		return n << 10
	}
	return field("VmRSS"), field("VmHWM"), err
}
