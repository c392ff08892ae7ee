package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// readMaster reads all workers through a master socket (management guide, 9.4).
func (s *source) readMaster(ctx context.Context, deadline time.Time, replies []Reply) ([]Reply, error) {
	data, err := s.askMaster(ctx, deadline, "show proc;quit\n")
	if err != nil {
		return replies, err
	}
	workers := readWorkers(data)
	if len(workers) == 0 {
		s.master = false
		return replies, fmt.Errorf("haproxy: %s: %w: it knows neither \"show stat\" nor workers: it answers %.80q",
			s.name, ErrNotStats, firstLine(data))
	}
	s.keep(data)
	var failures []error
	for _, w := range workers {
		prefix := "@!" + strconv.FormatInt(w.pid, 10) + " "
		data, err := s.ask(ctx, deadline, prefix+"show info;"+prefix+"show stat;quit\n", untilUnknown)
		if err == nil {
			if w.old && bytes.HasPrefix(data, []byte("Can't find the target")) {
				s.keep(data)
				continue // it has ended since
			}
			var r Reply
			if r, err = s.split(data); err == nil {
				r.Process.Stopping = r.Process.Stopping || w.old
				replies = append(replies, r)
				continue
			}
		}
		failures = append(failures, fmt.Errorf("worker %d: %w", w.pid, err))
	}
	return replies, errors.Join(failures...)
}

// askMaster is ask, and again for half of the time while the master reloads: for a moment it
// refuses, or drops what it had accepted.
func (s *source) askMaster(ctx context.Context, deadline time.Time, command string) ([]byte, error) {
	until := time.Now().Add(time.Until(deadline) / 2)
	for {
		data, err := s.ask(ctx, deadline, command, untilUnknown)
		reloads := err == nil && len(data) == 0 ||
			errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
		if !reloads || !time.Now().Before(until) {
			return data, err
		}
		s.keep(data)
		select {
		case <-ctx.Done():
			return nil, s.failed(ctx, "dial", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

type worker struct {
	pid int64
	old bool
}

// readWorkers reads the answer to "show proc".
func readWorkers(data []byte) []worker {
	var out []worker
	old := false
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("#")) {
			old = bytes.HasPrefix(line, []byte("# old workers"))
			continue
		}
		f := bytes.Fields(line)
		// Before HAProxy 2.5 an old worker's type is "[was: 1]", a worker's "worker".
		if len(f) < 2 || string(f[1]) != "worker" && !bytes.HasPrefix(f[1], []byte("[was:")) {
			continue
		}
		if pid, ok := parseNumber(f[0]); ok && pid > 0 {
			out = append(out, worker{pid, old})
		}
	}
	return out
}
