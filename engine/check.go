package engine

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"myrmidon"
)

// maxBlob is DESIGN's bound for one value: NATS KV values stop at 1 MiB.
const maxBlob = 512 << 10

// MaxBatch is how many messages one atomic batch may hold.
const MaxBatch = 1000

// MaxMessage bounds what is stored as one message, in bytes: NATS servers take 1 MiB
// unless told otherwise (max_payload), headers included.
const MaxMessage = 768 << 10

// CheckBatch says whether a backend takes b.
func CheckBatch(b Batch) error {
	n := len(b.Jobs) + len(b.Again) + len(b.Held) + len(b.Events)
	if b.Next.Run != "" {
		n++
	}
	if n > MaxBatch {
		return fmt.Errorf("engine: %d messages at once, at most %d fit one batch", n, MaxBatch)
	}
	for _, jobs := range [][]myrmidon.Job{b.Jobs, b.Held} {
		for i := range jobs {
			if err := CheckJob(&jobs[i]); err != nil {
				return err
			}
		}
	}
	for i := range b.Again {
		if err := CheckJob(&b.Again[i].Job); err != nil {
			return err
		}
	}
	for _, e := range b.Events {
		if !isToken(e.Run) {
			return fmt.Errorf("engine: event of run %q, which is not a ULID", e.Run)
		}
	}
	return nil
}

// CheckJob says what is wrong with a job that is to be stored, or that came from a broker
// which others may write to: it must be within the limits of the package myrmidon, and
// its names must be fit for subjects.
func CheckJob(j *myrmidon.Job) error {
	planning := strings.HasSuffix(j.Kind, planSuffix)
	switch {
	case !isToken(j.Run):
		return fmt.Errorf("engine: job %q: run %q is not a ULID", j.Name, j.Run)
	case !isKind(j.Kind):
		return fmt.Errorf("engine: job %q: kind %q is not a workload, a dot and a name, of letters, digits, - and _", j.Name, j.Kind)
	case j.Len() == 0 && !planning:
		return fmt.Errorf("engine: job %q: it has no items", j.Name)
	case j.Count > myrmidon.MaxJobItems || j.Len() > myrmidon.MaxJobItems:
		return fmt.Errorf("engine: job %q: %d items, at most %d fit one job", j.Name, max(int(j.Count), j.Len()), myrmidon.MaxJobItems)
	case j.First > math.MaxUint32-j.Count:
		return fmt.Errorf("engine: job %q: its items %d and following exceed 32 bits", j.Name, j.First)
	case j.Continued > 0 && j.Continued >= j.Attempt: // the attempt that it is at is none of them
		return fmt.Errorf("engine: job %q: %d of its %d attempts were continued", j.Name, j.Continued, j.Attempt)
	case !slices.IsSorted(j.Only):
		return fmt.Errorf("engine: job %q: its items do not ascend", j.Name)
	case len(j.Spec) > myrmidon.MaxJobSpec:
		return fmt.Errorf("engine: job %q: a spec of %d bytes, at most %d fit one job", j.Name, len(j.Spec), myrmidon.MaxJobSpec)
	}
	return nil
}

// isKind reports whether s is "<workload>.<name>".
func isKind(s string) bool {
	workload, name, ok := strings.Cut(s, ".")
	return ok && isToken(workload) && isToken(name)
}

// CheckBlob says whether a backend takes this key and value.
func CheckBlob(key string, value []byte) error {
	for part := range strings.SplitSeq(key, "/") {
		if !isToken(part) {
			return fmt.Errorf("engine: blob key %q: parts are letters, digits, - and _", key)
		}
	}
	if len(value) > maxBlob {
		return fmt.Errorf("engine: blob %s has %d bytes, at most %d are stored", key, len(value), maxBlob)
	}
	return nil
}

func isToken(s string) bool {
	for _, r := range s {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_') {
			return false
		}
	}
	return s != ""
}
