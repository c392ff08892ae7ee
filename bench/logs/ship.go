package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"myrmidon/bench/internal/machine"
	"myrmidon/bench/internal/role"
)

// shot is what one child took: seconds and megabytes. Own is the peak of the process that
// measured it.
type shot struct{ Wall, CPU, RSS, Own float64 }

// shots runs a program once: args are its name and arguments. Of ours it reads the summary,
// which must say that so many lines were taken.
func shots(ctx context.Context, kind, lines string, args []string) (s shot, err error) {
	want, err := strconv.ParseInt(lines, 10, 64)
	if err != nil {
		return s, err
	}
	env := ""
	if kind == "inflate" {
		self, err := os.Executable()
		if err != nil {
			return s, err
		}
		args, env = append([]string{self}, args...), kind
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = role.Environ(env)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return s, fmt.Errorf("%s: %w\n%s", args[0], err, stderr.String())
	}
	s = shot{
		time.Since(start).Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
		float64(machine.Peak(cmd.ProcessState)) / 1e6, float64(machine.OwnPeak()) / 1e6,
	}
	if kind == "inflate" {
		return s, nil
	}
	var sum struct {
		Lines struct{ Encountered, Acked int64 }
	}
	if err := json.Unmarshal(stdout.Bytes(), &sum); err != nil {
		return s, fmt.Errorf("the summary %q: %w", stdout.String(), err)
	}
	if sum.Lines.Encountered != want || sum.Lines.Acked != want {
		return s, fmt.Errorf("the summary tells of %d lines, %d of them taken: want %d", sum.Lines.Encountered, sum.Lines.Acked, want)
	}
	return s, nil
}

// inflate is the floor: it reads an object and throws it away.
func inflate(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, z)
	return err
}
