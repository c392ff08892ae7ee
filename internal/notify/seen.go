package notify

import (
	"sync"
	"time"

	"myrmidon/object"
)

// overlap is how long before the newest object that was seen objects are looked at again.
// Objects of one moment, and those that a listing shows late, are not missed; each is told
// once, by its key and ETag.
const overlap = 15 * time.Minute

// Seen is what a feed of [Config.Listing] knows of a prefix: it survives as JSON. The zero Seen
// knows nothing.
type Seen struct {
	mu sync.Mutex
	// Newest is when the newest object that is done was modified, but not later than any that
	// is not done.
	Newest time.Time `json:"newest,omitzero"`
	// Done are the objects that are done and not older than Newest by more than overlap, by
	// key.
	Done map[string]Mark `json:"done,omitempty"`
}

// Mark is an object that is done.
type Mark struct {
	ETag     string    `json:"etag"`
	Modified time.Time `json:"modified"`
}

// After is from when on objects are looked at.
func (s *Seen) After(start time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after := s.Newest.Add(-overlap); !s.Newest.IsZero() && after.After(start) {
		return after
	}
	return start
}

// Finish remembers that an object is done.
func (s *Seen) Finish(o object.Info) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Done == nil {
		s.Done = make(map[string]Mark)
	}
	s.Done[o.Key] = Mark{o.ETag, o.Modified}
}

// Advance moves Newest up to the newest object that is done, but not past pending, and reports
// whether it moved: each object that was modified before pending is done. What is older than
// Newest by more than overlap is forgotten.
func (s *Seen) Advance(pending time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !pending.After(s.Newest) {
		return false // mostly so while a pass goes on, and Done may be large then
	}
	newest := s.Newest
	for _, m := range s.Done {
		if m.Modified.After(newest) {
			newest = m.Modified
		}
	}
	// Past what is not done, it would be looked for in vain after a restart.
	if pending.Before(newest) {
		newest = pending
	}
	if !newest.After(s.Newest) {
		return false
	}
	s.Newest = newest
	for k, m := range s.Done {
		if m.Modified.Before(s.Newest.Add(-overlap)) {
			delete(s.Done, k)
		}
	}
	return true
}

// New reports whether an object that was modified at after, or later, has not been done.
func (s *Seen) New(o object.Info, after time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, known := s.Done[o.Key]
	return !o.Modified.Before(after) && (!known || m.ETag != o.ETag)
}
