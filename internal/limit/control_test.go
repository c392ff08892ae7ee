package limit

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon/internal/testkit/long"
)

// roundTrips returns how many round trips it takes until, in one of them, s serves
// share of its capacity; it gives up after most.
func roundTrips(s *server, share float64, most int) int {
	for i := range most {
		if s.throughput(s.latency) >= share {
			return i + 1
		}
	}
	return most + 1
}

// restsAt returns the limit between trials.
func (l *Limiter) restsAt() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.control.base
}

func TestTheLimitFindsWhatGivesFullThroughput(t *testing.T) {
	long.Test(t)
	for _, latency := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond} {
		for _, test := range []struct{ capacity, trips int }{
			{64, 3},
			{100, 4},
			{256, 5},
			{700, 7},
			{1024, 8},
		} {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(test.capacity, latency)
				l := new(Set).Limiter("clone.copy", "s3://bucket")
				stop := load(t, l, s, 2000)
				defer stop()
				trips := roundTrips(s, 0.9, 100)
				soon := s.throughput(20 * latency)
				time.Sleep(80 * latency)
				late := s.throughput(50 * latency)
				limit := l.restsAt()
				t.Logf("capacity %d, latency %v: 90%% after %d round trips, then %.3f, later %.3f at limit %d, at most %d in the server",
					test.capacity, latency, trips, soon, late, limit, s.mostSeen)
				if trips > test.trips {
					t.Errorf("capacity %d, latency %v: 90 %% of it after %d round trips, want %d at most", test.capacity, latency, trips, test.trips)
				}
				if soon < 0.95 || late < 0.95 {
					t.Errorf("capacity %d, latency %v: throughput %.3f, later %.3f of it, want 0.95", test.capacity, latency, soon, late)
				}
				if low, high := test.capacity*95/100, test.capacity*5/4; limit < low || limit > high {
					t.Errorf("capacity %d, latency %v: limit %d, want %d to %d", test.capacity, latency, limit, low, high)
				}
				if s.mostSeen > 3*test.capacity {
					t.Errorf("capacity %d, latency %v: %d requests in the server, want three times the capacity at most", test.capacity, latency, s.mostSeen)
				}
			})
		}
	}
}

func TestTheLimitFollowsTheCapacity(t *testing.T) {
	long.Test(t)
	synctest.Test(t, func(t *testing.T) {
		s := newServer(400, 50*time.Millisecond)
		l := new(Set).Limiter("clone.copy", "s3://bucket")
		stop := load(t, l, s, 2000)
		defer stop()
		for _, capacity := range []int{400, 60, 400} {
			s.set(func() { s.capacity = capacity })
			time.Sleep(30 * time.Second)
			got := s.throughput(5 * time.Second)
			limit := l.restsAt()
			t.Logf("capacity %d: throughput %.3f at limit %d", capacity, got, limit)
			if got < 0.93 || limit < capacity*9/10 || limit > capacity*3/2 {
				t.Errorf("capacity %d: throughput %.3f of it at limit %d", capacity, got, limit)
			}
		}
	})
}

func TestTheLimitPassesAnOldCeiling(t *testing.T) {
	long.Test(t)
	synctest.Test(t, func(t *testing.T) {
		s := newServer(100, 20*time.Millisecond)
		s.rejects = true
		l := new(Set).Limiter("clone.copy", "s3://bucket")
		stop := load(t, l, s, 2000)
		defer stop()
		time.Sleep(10 * time.Second)
		s.set(func() { s.capacity = 800 }) // as a store does that splits its partitions
		time.Sleep(8 * time.Second)
		if got := s.throughput(2 * time.Second); got < 0.9 {
			t.Errorf("8 s after the capacity grew from 100 to 800, throughput %.3f of it at limit %d, want 0.9", got, l.restsAt())
		}
	})
}

func TestAServerThatPushesBackIsUsedFullyAndGently(t *testing.T) {
	long.Test(t)
	for _, capacity := range []int{1, 3, 10, 64, 100, 1000} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(capacity, 20*time.Millisecond)
			s.rejects = true
			l := new(Set).Limiter("clone.copy", "s3://bucket")
			stop := load(t, l, s, 2000)
			defer stop()
			time.Sleep(4 * time.Second)
			served, refused := s.count()
			got := s.throughput(6 * time.Second)
			servedLater, refusedLater := s.count()
			share := float64(refusedLater-refused) / float64(servedLater-served)
			t.Logf("capacity %d: throughput %.3f, %.4f pushed back for each one served, limit %d", capacity, got, share, l.Stats().Limit)
			if got < 0.95 {
				t.Errorf("capacity %d: throughput %.3f of it, want 0.95", capacity, got)
			}
			if share > 0.01 {
				t.Errorf("capacity %d: %.4f push-backs a success, want one in a hundred at most", capacity, share)
			}
		})
	}
}

func TestAStormEndsAndIsForgotten(t *testing.T) {
	for _, after := range []time.Duration{0, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(500, 50*time.Millisecond)
			s.after = after
			l := new(Set).Limiter("clone.copy", "s3://bucket")
			stop := load(t, l, s, 2000)
			defer stop()
			time.Sleep(5 * time.Second)
			s.set(func() { s.down = true })
			time.Sleep(10 * time.Second)
			_, refused := s.count()
			if got := l.Stats(); got.Limit > 32 || after == 0 && got.Limit != 1 {
				t.Errorf("after ten seconds of 503 the limit is %d", got.Limit)
			}
			// 500 were on their way when it began, and what was sent until then decides
			// how many came back. Afterwards it is one a second.
			if refused > 1200 {
				t.Errorf("%d requests were sent into the storm, want 1,200 at most", refused)
			}
			s.set(func() { s.down = false })
			start := time.Now()
			roundTrips(s, 0.9, 400)
			t.Logf("Retry-After %v: %d sent into the storm; 90 %% of the throughput %v after it", after, refused, time.Since(start))
			if took := time.Since(start); took > 7*time.Second {
				t.Errorf("back at 90 %% of the throughput %v after the storm, want 7 s", took)
			}
			if got := s.throughput(10 * time.Second); got < 0.95 {
				t.Errorf("throughput %.3f after the storm, want 0.95", got)
			}
		})
	}
}

// permits takes n permits at once.
func permits(t *testing.T, l *Limiter, n int) []Permit {
	t.Helper()
	out := make([]Permit, n)
	for i := range out {
		p, err := l.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out[i] = p
	}
	return out
}

func TestAPushbackHalvesOnceARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Start: 100}).Limiter("clone.copy", "s3://bucket")
		for _, want := range []int{50, 25, 12, 6, 3, 1, 1} {
			// All that are under way are pushed back; only the first of them counts.
			held := permits(t, l, l.Stats().Limit)
			for i := range held {
				held[i].Release(Pushback(0))
			}
			if got := l.Stats().Limit; got != want {
				t.Fatalf("limit %d after a push-back, want %d", got, want)
			}
		}
	})
}

func TestAFailureThatIsNoPushbackChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(Set).Limiter("clone.copy", "s3://bucket")
		for range 50 {
			held := permits(t, l, 64)
			time.Sleep(10 * time.Millisecond)
			for i := range held {
				held[i].Release(Failed)
			}
		}
		if got := l.Stats(); got.Limit != 64 || got.Pushbacks != 0 || got.Completed != 0 {
			t.Errorf("after failures: %+v, want limit 64 and nothing counted", got)
		}
	})
}

func TestAStrayPushbackAmongThousandsIsNoCongestion(t *testing.T) {
	// Also while the limit is small yet, where another is far away.
	for _, first := range []int64{25, 70, 1500} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(1024, 20*time.Millisecond)
			l := new(Set).Limiter("clone.copy", "s3://bucket")
			stop := strayLoad(t, l, s, 2000, first, 2000)
			defer stop()
			time.Sleep(2 * time.Second)
			if got := s.throughput(4 * time.Second); got < 0.95 {
				t.Errorf("throughput %.3f with one 503 in 2,000 from the %dth on, want 0.95", got, first)
			}
			if got := l.Stats(); got.Pushbacks < 50 {
				t.Errorf("only %d push-backs: the test tests nothing", got.Pushbacks)
			}
		})
	}
}

// strayLoad is load, with one push-back in every requests, from a first one on.
func strayLoad(t *testing.T, l *Limiter, s *server, n int, first, every int64) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var requests atomic.Int64
	for range n {
		all.Go(func() {
			for {
				p, err := l.Acquire(ctx)
				if err != nil {
					return
				}
				outcome := OK
				if err := s.do(); err != nil || requests.Add(1)%every == first {
					outcome = Pushback(0)
				}
				p.Release(outcome)
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

func TestALimitThatIsNotUsedUpDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(1024, 20*time.Millisecond)
		l := new(Set).Limiter("clone.copy", "s3://bucket")
		stop := load(t, l, s, 40)
		defer stop()
		time.Sleep(10 * time.Second)
		if got := l.Stats(); got.Limit != 64 || got.InFlight != 40 {
			t.Errorf("with 40 callers: limit %d, %d in flight, want 64 and 40", got.Limit, got.InFlight)
		}
	})
}

func TestARequestRateIsALimitToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 3500 // of a partition: 3,500 writes a second
		l := new(Set).Limiter("clone.copy", "s3://bucket")
		var mu sync.Mutex
		tokens, last, served := 350.0, time.Now(), 0
		rnd := rand.New(rand.NewPCG(3, 4))
		admit := func() (took time.Duration, ok bool) {
			mu.Lock()
			defer mu.Unlock()
			now := time.Now()
			tokens, last = min(350, tokens+rate*now.Sub(last).Seconds()), now
			if tokens < 1 {
				return 5 * time.Millisecond, false
			}
			tokens--
			served++
			return time.Duration((0.5 + rnd.Float64()) * 30e6), true
		}
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				for {
					p, err := l.Acquire(ctx)
					if err != nil {
						return
					}
					took, ok := admit()
					time.Sleep(took)
					if ok {
						p.Release(OK)
					} else {
						p.Release(Pushback(0))
					}
				}
			})
		}
		time.Sleep(4 * time.Second)
		mu.Lock()
		before := served
		mu.Unlock()
		refused := l.Stats().Pushbacks
		time.Sleep(40 * time.Second)
		mu.Lock()
		got := float64(served-before) / 40
		mu.Unlock()
		share := float64(l.Stats().Pushbacks-refused) / 40 / got
		t.Logf("%.0f requests a second of %d, %.5f pushed back", got, rate, share)
		if got < 0.85*rate || share > 0.01 {
			t.Errorf("%.0f requests a second of %d, %.4f push-backs each; want 85 %% of it, and 1 %% at most", got, rate, share)
		}
		cancel()
		all.Wait()
	})
}
