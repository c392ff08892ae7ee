package logs

import (
	"fmt"
	"sync"
	"time"
)

// SourceSummary is what became of a source that is followed, and how it is.
type SourceSummary struct {
	Name    string  `json:"name"`
	Source  string  `json:"source"`
	Lines   Counts  `json:"lines"`
	Objects Objects `json:"objects"`
	// Waiting are objects that are known and not done, with those at work; of a queue its
	// messages, about.
	Waiting int64 `json:"waiting"`
	// Strange are messages that were no notification, each time they came.
	Strange int64 `json:"strange,omitempty"`
	// LastSeen is when the source last told of an object.
	LastSeen time.Time `json:"lastSeen,omitzero"`
	// Newest is the time of the newest line, and Lag its age in seconds; absent before the
	// first line.
	Newest time.Time `json:"newest,omitzero"`
	Lag    *float64  `json:"lagSeconds,omitempty"`
	// Quiet says that no line has come for longer than is expected.
	Quiet bool `json:"quiet,omitempty"`
	// LastError is why the last object could not be shipped for now; absent once one is.
	LastError string `json:"lastError,omitempty"`
	// Failing says why the source cannot be followed for now, and Since since when.
	Failing string    `json:"failing,omitempty"`
	Since   time.Time `json:"failingSince,omitzero"`
}

// SourceCount counts what becomes of a source's objects. Its methods may be called from many
// goroutines.
type SourceCount struct {
	mu     sync.Mutex
	counts SourceSummary
	busy   int
	last   time.Time // when a line came last, or the counting began
}

// NewSourceCount begins to count.
func NewSourceCount(name, source string) *SourceCount {
	return &SourceCount{counts: SourceSummary{Name: name, Source: source}, last: time.Now()}
}

// Begin says that an object is under way, and End that it is not, or not now.
func (s *SourceCount) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
}

// End is told what became of the object if err is nil.
func (s *SourceCount) End(o Shipped, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	if err != nil {
		s.counts.LastError = err.Error()
		return
	}
	s.counts.LastError = ""
	s.counts.Lines.add(o.Counts)
	s.counts.Objects.Read++
	s.counts.Objects.Bytes += o.Bytes
	if len(o.Rejects) > 0 {
		s.counts.Objects.Failed++
	}
	if o.Counts.Encountered > 0 {
		s.last = time.Now()
	}
	if o.Newest.After(s.counts.Newest) {
		s.counts.Newest = o.Newest
	}
}

// Quiet is for how long no line has come: 0 while an object is under way, whose lines are
// counted at its end.
func (s *SourceCount) Quiet() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy > 0 {
		return 0
	}
	return time.Since(s.last)
}

// Summary returns the counts of this moment.
func (s *SourceCount) Summary() SourceSummary {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.counts
	if !sum.Newest.IsZero() {
		lag := time.Since(sum.Newest).Round(time.Millisecond).Seconds()
		sum.Lag = &lag
	}
	return sum
}

// Check says whether the counts add up: those of all, and those of the sources to all.
func (s Summary) Check() error {
	if len(s.Sources) == 0 {
		return s.Lines.Check()
	}
	var lines Counts
	var read, failed int64
	for _, of := range s.Sources {
		lines.add(of.Lines)
		read += of.Objects.Read
		failed += of.Objects.Failed
	}
	if lines != s.Lines || read != s.Objects.Read || failed != s.Objects.Failed {
		return fmt.Errorf("logs: the sources have %+v in %d objects, %d of them failed; all have %+v in %d and %d: please report this",
			lines, read, failed, s.Lines, s.Objects.Read, s.Objects.Failed)
	}
	return s.Lines.Check()
}
