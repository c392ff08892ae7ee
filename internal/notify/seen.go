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

// Seen is what a feed of [Config.Listing] knows of a prefix: it survives as JSON. The zero Seen knows nothing.
type Seen struct {
	mu sync.Mutex
	// Newest is when the newest object that is done was modified.
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

// Finish remembers that an object is done. pending is when the oldest object was modified
// that is not: what is older than that by more than overlap is forgotten.
func (s *Seen) Finish(o object.Info, pending time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Done == nil {
		s.Done = make(map[string]Mark)
	}
	s.Done[o.Key] = Mark{o.ETag, o.Modified}
	newest := s.Newest
	for _, m := range s.Done {
		if m.Modified.After(newest) {
			newest = m.Modified
		}
	}
	// The mark does not pass what is not done: it would be looked for in vain after a restart.
	if !pending.IsZero() && pending.Before(newest) {
		newest = pending
	}
	if newest.After(s.Newest) {
		s.Newest = newest
	}
	for k, m := range s.Done {
		if m.Modified.Before(s.Newest.Add(-overlap)) {
			delete(s.Done, k)
		}
	}
}

// New reports whether an object has not been done.
func (s *Seen) New(o object.Info, start time.Time) bool {
	after := s.After(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	m, known := s.Done[o.Key]
	return !o.Modified.Before(after) && (!known || m.ETag != o.ETag)
}
