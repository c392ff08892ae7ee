package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sampling is how often a running process tree is looked at. A look takes some 20
// small reads below /proc, well under a millisecond.
const sampling = 100 * time.Millisecond

// usage is what a command took.
type usage struct {
	CPU  time.Duration // user and system, of the whole process tree
	Wall time.Duration
	Peak int64 // bytes resident in the whole tree at once, as sampled; 0 if unknown

	// Of the first process alone, at the last sample: at most 100 ms short.
	OwnCPU time.Duration
	// When an encoder was first and last seen running, since the start. They are good
	// to 100 ms; 0 if unknown.
	FirstEncoder, LastEncoder time.Duration
}

// add appends a command that ran after those of u.
func (u *usage) add(next usage) {
	u.CPU += next.CPU
	u.Wall += next.Wall
	u.Peak = max(u.Peak, next.Peak)
	u.OwnCPU += next.OwnCPU
}

// runMetered runs a command in dir to its end and returns its standard output and what
// it took. Standard error is shown if it fails.
func runMetered(ctx context.Context, dir string, argv []string) ([]byte, usage, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	// An interrupt lets myrmidon end its children; its death would end them too.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	var u usage
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, u, err
	}
	ended, sampled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sampled)
		sample(cmd.Process.Pid, start, &u, ended)
	}()
	err := cmd.Wait()
	u.Wall = time.Since(start)
	close(ended)
	<-sampled
	u.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err != nil {
		return nil, u, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), u, nil
}

// sample looks at the tree below pid until ended is closed, and notes peaks in u.
func sample(pid int, start time.Time, u *usage, ended <-chan struct{}) {
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		var resident int64
		encoding := false
		for i, p := range tree(pid, nil) {
			resident += statusBytes(p, "VmRSS:")
			switch {
			case i == 0:
				u.OwnCPU = max(u.OwnCPU, cpuTime(p))
			case !encoding:
				encoding = encodes(p)
			}
		}
		u.Peak = max(u.Peak, resident)
		if encoding {
			u.LastEncoder = time.Since(start)
			if u.FirstEncoder == 0 {
				u.FirstEncoder = u.LastEncoder
			}
		}
	}
}

// tree appends pid and all its descendants to out. Where there is no /proc, or a
// process has just gone, they are left out.
func tree(pid int, out []int) []int {
	out = append(out, pid)
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return out // only a bad pattern is an error
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for _, child := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(child); err == nil {
				out = tree(n, out)
			}
		}
	}
	return out
}

// statusBytes reads a size from /proc/PID/status, proc(5); 0 if it is not there.
func statusBytes(pid int, field string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b), field)
	if !ok {
		return 0
	}
	words := strings.Fields(rest)
	if len(words) == 0 {
		return 0
	}
	kilobytes, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}

// cpuTime reads user and system time of one process from /proc/PID/stat, proc(5), in
// ticks of 10 ms (USER_HZ is 100 on every architecture that Go runs on).
func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in brackets, may hold spaces; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// encodes reports whether a process is an ffmpeg that encodes pictures.
func encodes(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(line, []byte("\x00libx264\x00"))
}

func cores() int { return runtime.NumCPU() }
