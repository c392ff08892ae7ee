package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"myrmidon/internal/testkit/s3stub"
)

// latencies are what S3 takes for small requests from within its region, beyond what the
// requests cost this machine.
var latencies = map[s3stub.Verb]time.Duration{
	s3stub.List: 80 * time.Millisecond,
	s3stub.Copy: 30 * time.Millisecond,
	s3stub.Put:  25 * time.Millisecond,
	s3stub.Head: 10 * time.Millisecond,
}

// The buckets of a stub.
const (
	fromBucket = "from" // full of a set
	intoBucket = "into" // an empty mirror of it
)

// stubVariable makes this program a stub: its value is the objects as JSON.
const stubVariable = "MYRMIDON_BENCH_STUB"

// objects is a set of objects of one size, spread evenly over prefixes.
type objects struct {
	N        int   `json:"n"`
	Prefixes int   `json:"prefixes"` // 1 is a flat bucket
	Size     int64 `json:"size"`     // bytes of each
}

// synthetic gives the objects keys of the form media/000017/00000123.ts, both numbers
// ascending.
func (o objects) synthetic() s3stub.Synthetic {
	prefix, name := s3stub.Numbered("media/", 6, "/"), s3stub.Numbered("", 8, ".ts")
	return s3stub.Synthetic{N: o.N, Size: o.Size, Key: func(b []byte, i int) []byte {
		return name(prefix(b, i*o.Prefixes/o.N), i)
	}}
}

// ready is the first line that the stub's process writes.
type ready struct {
	URL string   `json:"url"`
	Env []string `json:"env"`
}

// asked is its last line: what it was asked for.
type asked struct {
	Counts  map[string]s3stub.Count `json:"counts"` // by verb
	Arrived s3stub.Arrivals         `json:"arrived"`
	CPU     time.Duration           `json:"cpu_ns"` // user and system, since it listened
}

// serveStub is the stub's process: a server that is gone when in ends.
func serveStub(spec string, in io.Reader, out io.Writer) (err error) {
	var set objects
	if err := json.Unmarshal([]byte(spec), &set); err != nil {
		return fmt.Errorf("stub: %w", err)
	}
	s, err := s3stub.Start(s3stub.Config{Latency: latencies})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := errors.Join(s.AddSynthetic(fromBucket, set.synthetic()), s.AddMirror(intoBucket, set.synthetic(), "")); err != nil {
		return err
	}
	before, err := ownCPU()
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	if err := enc.Encode(ready{s.URL(), s.Env()}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("stub: %w", err)
	}
	after, err := ownCPU()
	if err != nil {
		return err
	}
	a := asked{Counts: make(map[string]s3stub.Count), Arrived: s.Arrivals(intoBucket), CPU: after - before}
	for verb, n := range s.Counts() {
		a.Counts[verb.String()] = n
	}
	return enc.Encode(a)
}

// ownCPU returns what this process has used, user and system.
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("stub: getrusage: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// stub is a stub's process, seen from here.
type stub struct {
	ready
	cmd    *exec.Cmd
	stdin  io.Closer
	answer *json.Decoder
	stderr strings.Builder
}

// startStub starts this program as a stub, so that its processor time and memory are
// nobody else's. The caller calls finish; if this process dies before that, the stub
// finds its standard input closed and ends.
func startStub(ctx context.Context, set objects) (*stub, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	s := &stub{cmd: exec.CommandContext(ctx, self)}
	s.cmd.Stderr, s.cmd.WaitDelay = &s.stderr, time.Second
	s.cmd.Env = append(os.Environ(), stubVariable+"="+string(spec))
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the stub of S3: %w", err)
	}
	s.answer = json.NewDecoder(out)
	if err := s.answer.Decode(&s.ready); err != nil {
		return nil, errors.Join(fmt.Errorf("the stub of S3 did not start: %w", err), s.end())
	}
	return s, nil
}

// finish ends the stub and returns what it was asked for.
func (s *stub) finish() (a asked, err error) {
	if err = s.stdin.Close(); err == nil {
		err = s.answer.Decode(&a)
	}
	if err != nil {
		err = fmt.Errorf("ask the stub of S3 what it did: %w", err)
	}
	return a, errors.Join(err, s.end())
}

// end waits for the stub's end.
func (s *stub) end() error {
	_ = s.stdin.Close() // closed twice is no failure here
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the stub of S3: %w\n%s", err, strings.TrimSpace(s.stderr.String()))
	}
	return nil
}

// wrong says what is not as it must be after a copy of set: each object has arrived, with
// its bytes, once.
func (a asked) wrong(set objects) error {
	r := a.Arrived
	if r.Objects == int64(set.N) && r.Again == 0 && r.Wrong == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d objects arrived, %d times again, %d wrong; missing %q, twice %q", r.Objects, set.N, r.Again, r.Wrong, r.Missing, r.Twice)
}

// latencyText names the latencies, the longest first.
func latencyText() string {
	verbs := slices.SortedFunc(maps.Keys(latencies), func(a, b s3stub.Verb) int { return cmp.Compare(latencies[b], latencies[a]) })
	var parts []string
	for _, v := range verbs {
		parts = append(parts, fmt.Sprintf("%v %v", v, latencies[v]))
	}
	return strings.Join(parts, ", ")
}
