package limit

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// server is a simulated destination in a synctest bubble: it serves capacity requests
// at once, each in latency, give or take jitter times latency. What comes above queues,
// or, if rejects is set, is pushed back at once. All in virtual time.
type server struct {
	latency time.Duration
	jitter  float64
	rejects bool
	after   time.Duration // what push-back asks for

	mu       sync.Mutex
	capacity int
	busy     int
	queue    []chan struct{}
	down     bool // pushes everything back
	rnd      *rand.Rand

	served, refused  int
	inside, mostSeen int // requests under way, queued ones included
}

func newServer(capacity int, latency time.Duration) *server {
	return &server{capacity: capacity, latency: latency, jitter: 0.2, rnd: rand.New(rand.NewPCG(1, 2))}
}

var errSlowDown = errors.New("503 SlowDown")

func (s *server) do() error {
	s.mu.Lock()
	if s.down || s.rejects && s.busy >= s.capacity {
		s.refused++
		s.mu.Unlock()
		time.Sleep(time.Millisecond) // on its way
		return errSlowDown
	}
	s.inside++
	s.mostSeen = max(s.mostSeen, s.inside)
	d := time.Duration(float64(s.latency) * (1 + s.jitter*(2*s.rnd.Float64()-1)))
	if s.busy >= s.capacity {
		turn := make(chan struct{})
		s.queue = append(s.queue, turn)
		s.mu.Unlock()
		<-turn
	} else {
		s.busy++
		s.mu.Unlock()
	}
	time.Sleep(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside--
	s.served++
	if s.busy > s.capacity || len(s.queue) == 0 {
		s.busy--
	} else {
		close(s.queue[0])
		s.queue = s.queue[1:]
	}
	return nil
}

func (s *server) count() (served, refused int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served, s.refused
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// load keeps n callers busy with s through l until stop is called, which waits for them.
func load(t *testing.T, l *Limiter, s *server, n int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for {
				p, err := l.Acquire(ctx)
				if err != nil {
					return
				}
				if err := s.do(); err != nil {
					p.Release(Pushback(s.after))
				} else {
					p.Release(OK)
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
		if got := l.Stats(); got.InFlight != 0 || got.Waiting != 0 {
			t.Errorf("after all callers ended: %+v, want nothing in flight and nobody waiting", got)
		}
	}
}

// throughput is the share of s's capacity that is used during the next d.
func (s *server) throughput(d time.Duration) float64 {
	before, _ := s.count()
	time.Sleep(d)
	after, _ := s.count()
	return float64(after-before) / (float64(s.capacity) * d.Seconds() / s.latency.Seconds())
}
