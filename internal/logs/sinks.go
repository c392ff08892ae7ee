package logs

import (
	"errors"
	"sync"

	"myrmidon/sink"
)

// sinks are the sinks that jobs have open: one for each address, which the jobs of a
// process share. One that confirms nothing is not shared: its Close says whether what was
// sent may be lost, and each job has to know that of its own lines.
type sinks struct {
	open func(address string) (sink.Sink, error)

	mu     sync.Mutex
	shared map[string]*openSink
}

type openSink struct {
	sink.Sink
	address string
	own     bool
	users   int
}

// Traits are the sink's own, which whoever batches for it asks for.
func (o *openSink) Traits() sink.Traits { return sink.TraitsOf(o.Sink) }

// Connections counts connections of sinks.
type Connections struct {
	Created   uint64 `json:"created"`
	Destroyed uint64 `json:"destroyed"`
}

// acquire opens a sink, or returns the one that is open.
func (s *sinks) acquire(address string) (*openSink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.shared[address]; o != nil {
		o.users++
		return o, nil
	}
	opened, err := s.open(address)
	if err != nil {
		return nil, err
	}
	o := &openSink{Sink: opened, address: address, users: 1, own: sink.TraitsOf(opened).Unconfirmed}
	if !o.own {
		if s.shared == nil {
			s.shared = make(map[string]*openSink)
		}
		s.shared[address] = o
	}
	return o, nil
}

// release closes a sink that nobody uses any more, and returns what its connections came
// to; lastErrors are the last failures of those.
func (s *sinks) release(o *openSink) (c Connections, failed uint64, lastErrors []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.users--; o.users > 0 {
		return c, 0, nil, nil
	}
	if !o.own {
		delete(s.shared, o.address)
	}
	if err = o.Sink.Close(); errors.Is(err, sink.ErrClosed) {
		err = nil
	}
	if counts, ok := o.Sink.(interface{ Stats() sink.ConnStats }); ok {
		st := counts.Stats()
		c, failed, lastErrors = Connections{st.Created, st.Destroyed}, st.Failed, st.LastErrors
	}
	return c, failed, lastErrors, err
}
