package engine

import (
	"fmt"
	"strings"

	"myrmidon"
)

// maxBlob is DESIGN's bound for one value: NATS KV values stop at 1 MiB.
const maxBlob = 512 << 10

// CheckJobs says whether a backend takes these jobs: at most MaxSliceJobs, each within
// the limits of the package myrmidon and with names that can be part of a subject.
func CheckJobs(jobs []myrmidon.Job) error {
	if len(jobs) > MaxSliceJobs+2 {
		return fmt.Errorf("engine: %d jobs at once, at most %d fit one batch", len(jobs), MaxSliceJobs)
	}
	for _, j := range jobs {
		switch {
		case !isToken(j.Run):
			return fmt.Errorf("engine: job %q: run %q is not a ULID", j.Name, j.Run)
		case !isToken(strings.ReplaceAll(j.Kind, ".", "-")):
			return fmt.Errorf("engine: job %q: kind %q is not a name of letters, digits and dots", j.Name, j.Kind)
		case j.Len() == 0 && !strings.HasSuffix(j.Kind, planSuffix):
			return fmt.Errorf("engine: job %q: it has no items", j.Name)
		case j.Len() > myrmidon.MaxJobItems:
			return fmt.Errorf("engine: job %q: %d items, at most %d fit one job", j.Name, j.Len(), myrmidon.MaxJobItems)
		case len(j.Spec) > myrmidon.MaxJobSpec:
			return fmt.Errorf("engine: job %q: a spec of %d bytes, at most %d fit one job", j.Name, len(j.Spec), myrmidon.MaxJobSpec)
		}
	}
	return nil
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
