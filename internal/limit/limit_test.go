package limit

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// one returns a limiter whose limit is n and stays there.
func one(n int) *Limiter {
	return New(Config{Start: n, Most: n}).Limiter("clone.copy", "s3://bucket")
}

func TestPermitsAreHandedOutFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := one(2)
		held := permits(t, l, 2)
		var mu sync.Mutex
		var got, want []int
		var all sync.WaitGroup
		for i := range 50 {
			want = append(want, i)
			all.Go(func() {
				p, err := l.Acquire(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				got = append(got, i)
				mu.Unlock()
				time.Sleep(time.Millisecond)
				p.Release(OK)
			})
			synctest.Wait() // i waits before i+1 comes
		}
		held[0].Release(OK) // the other one stays: one at a time from here
		all.Wait()
		if !slices.Equal(got, want) {
			t.Errorf("order of 50 waiters: %v", got)
		}
		held[1].Release(OK)
	})
}

func TestEachOfManyCallersGetsItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(50, 10*time.Millisecond)
		l := one(50)
		counts := make([]int, 200)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var all sync.WaitGroup
		for i := range counts {
			all.Go(func() {
				for {
					p, err := l.Acquire(ctx)
					if err != nil {
						return
					}
					if err := s.do(); err != nil {
						t.Error(err)
					}
					p.Release(OK)
					counts[i]++
				}
			})
		}
		all.Wait()
		if low, high := slices.Min(counts), slices.Max(counts); high-low > 10 || low < 490 {
			t.Errorf("200 callers got from %d to %d permits each, want 500 or so, and ten apart at most", low, high)
		}
	})
}

func TestAWaiterThatGivesUpTakesNoPermitAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := one(1)
		held := permits(t, l, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				p, err := l.Acquire(ctx)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("error %v, want context.Canceled", err)
				}
				if err != nil && !strings.Contains(err.Error(), `clone.copy to "s3://bucket"`) {
					t.Errorf("error %q does not say what was waited for", err)
				}
				p.Release(OK) // of no permit: does nothing
			})
		}
		synctest.Wait()
		if got := l.Stats(); got.Waiting != 10 || got.InFlight != 1 {
			t.Errorf("before: %+v, want 10 waiting, 1 in flight", got)
		}
		cancel()
		all.Wait()
		if got := l.Stats(); got.Waiting != 0 || got.InFlight != 1 {
			t.Errorf("after: %+v, want nobody waiting, 1 in flight", got)
		}
		held[0].Release(OK)
		if _, err := l.Acquire(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Acquire with a context that is done: %v, want context.Canceled", err)
		}
		again := permits(t, l, 1)
		again[0].Release(OK)
	})
}

func TestAPermitThatComesWithTheCancellationGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := one(1)
		held := permits(t, l, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := l.Acquire(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("the one that gave up: %v, want context.Canceled", err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			p, err := l.Acquire(t.Context())
			if err != nil {
				t.Errorf("the next one: %v", err)
			}
			p.Release(OK)
		})
		synctest.Wait()
		// What Release does, at a moment when the first one is woken by the cancellation
		// and waits for the mutex.
		l.mu.Lock()
		cancel()
		l.inFlight--
		held[0].l = nil
		l.handOut()
		l.mu.Unlock()
		all.Wait()
		if got := l.Stats(); got.InFlight != 0 || got.Waiting != 0 {
			t.Errorf("at the end: %+v, want nothing in flight and nobody waiting", got)
		}
	})
}

func TestANewcomerAtTheEndOfAHoldDoesNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := one(1)
		held := permits(t, l, 1)
		held[0].Release(Pushback(time.Second))
		order := make(chan string, 2)
		var all sync.WaitGroup
		wait := func(name string) {
			all.Go(func() {
				p, err := l.Acquire(t.Context())
				if err != nil {
					t.Error(err)
				}
				order <- name
				p.Release(OK)
			})
			synctest.Wait()
		}
		wait("first")
		l.mu.Lock()
		l.wake.Stop() // as if the timer were late
		l.mu.Unlock()
		time.Sleep(2 * time.Second)
		wait("newcomer")
		l.awake()
		all.Wait()
		if got := <-order; got != "first" {
			t.Errorf("the %s got the permit first", got)
		}
	})
}

// The permit and the cancellation may come at the same moment: whichever the waiter
// sees, no permit is lost, and the bound holds. Run with -race.
func TestUnderStressNoPermitIsLostAndTheBoundHolds(t *testing.T) {
	l := New(Config{Start: 8, Most: 8}).Limiter("clone.copy", "s3://bucket")
	var inside, most, done atomic.Int64
	var all sync.WaitGroup
	for n := range 64 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			for range 400 {
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					for range rnd.IntN(3) * 20 {
						_ = ctx.Err()
					}
					cancel()
				}()
				p, err := l.Acquire(ctx)
				if err == nil {
					now := inside.Add(1)
					for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
					}
					done.Add(1)
					inside.Add(-1)
					p.Release([]Outcome{OK, Failed, OK, Pushback(time.Microsecond)}[n%4])
					p.Release(OK) // twice does nothing
				}
				<-ctx.Done()
			}
		})
	}
	all.Wait()
	if got := l.Stats(); got.InFlight != 0 || got.Waiting != 0 {
		t.Errorf("at the end: %+v, want nothing in flight and nobody waiting", got)
	}
	if most.Load() > 8 {
		t.Errorf("%d in flight at once, want 8 at most", most.Load())
	}
	if done.Load() == 0 {
		t.Error("nobody got a permit")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	p, err := l.Acquire(ctx)
	if err != nil {
		t.Fatalf("after the stress: %v", err)
	}
	p.Release(OK)
}

func TestRetryAfterHoldsAllPermitsBack(t *testing.T) {
	for _, test := range []struct {
		name        string
		after, want time.Duration
	}{
		{"for the time asked", 3 * time.Second, 3 * time.Second},
		{"for MaxHold at most", time.Hour, 20 * time.Second},
		{"for MaxHold at most, however much is asked", 1<<63 - 1, 20 * time.Second},
		{"not at all, if no time is named", 0, 0},
		{"not at all, if the time is negative", -time.Hour, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Config{Start: 10, MaxHold: 20 * time.Second}).Limiter("clone.copy", "s3://bucket")
				held := permits(t, l, 10)
				start := time.Now()
				var all sync.WaitGroup
				for range 3 { // they wait before the push-back
					all.Go(func() {
						p, err := l.Acquire(t.Context())
						if took := time.Since(start); err != nil || took != test.want {
							t.Errorf("a permit after %v, %v; want %v", took, err, test.want)
						}
						p.Release(OK)
					})
				}
				synctest.Wait()
				held[0].Release(Pushback(test.after))
				if got := l.Stats().Held; got != test.want {
					t.Errorf("Stats().Held is %v, want %v", got, test.want)
				}
				for i := range held {
					held[i].Release(OK) // nobody gets these before the time
				}
				all.Go(func() { // comes after it
					p, err := l.Acquire(t.Context())
					if took := time.Since(start); err != nil || took != test.want {
						t.Errorf("a newcomer's permit after %v, %v; want %v", took, err, test.want)
					}
					p.Release(OK)
				})
				all.Wait()
			})
		})
	}
}

func TestAWaiterGivesUpDuringAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := one(1)
		held := permits(t, l, 1)
		held[0].Release(Pushback(time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := l.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Acquire during a hold: %v, want context.DeadlineExceeded", err)
		}
		start := time.Now()
		held = permits(t, l, 1)
		if took := time.Since(start); took != 900*time.Millisecond {
			t.Errorf("the next permit came after %v, want 900ms", took)
		}
		held[0].Release(OK)
	})
}

func TestAtALimitOfOnePushbacksMeanPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := one(1)
		pause := func() time.Duration {
			start := time.Now()
			held := permits(t, l, 1)
			defer func() { held[0].Release(Pushback(0)) }()
			return time.Since(start)
		}
		var got []time.Duration
		for range 8 {
			got = append(got, pause()/time.Millisecond)
		}
		if want := []time.Duration{0, 50, 100, 200, 400, 800, 1000, 1000}; !slices.Equal(got, want) {
			t.Errorf("milliseconds before each permit: %d, want %d", got, want)
		}
		held := permits(t, l, 1)
		held[0].Release(OK) // forgets the pauses
		pause()
		if got := pause(); got != 50*time.Millisecond {
			t.Errorf("the pause after a success is %v, want 50ms", got)
		}
	})
}

func TestAnIdleLimiterHasNoGoroutineAndAPermitNoAllocation(t *testing.T) {
	l := one(4)
	ctx := t.Context()
	if got := testing.AllocsPerRun(1000, func() {
		p, err := l.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p.Release(OK)
	}); got != 0 {
		t.Errorf("%v allocations for a permit, want none", got)
	}
	// synctest.Test fails if a goroutine is left.
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			held := permits(t, New(Config{}).Limiter("clone.copy", "s3://bucket"), 3)
			for i := range held {
				held[i].Release(Pushback(time.Hour))
			}
		}
	})
}

func BenchmarkPermit(b *testing.B) {
	b.Run("free", func(b *testing.B) {
		l, ctx := new(Set).Limiter("clone.copy", "s3://bucket"), b.Context()
		b.ReportAllocs()
		for b.Loop() {
			p, _ := l.Acquire(ctx)
			p.Release(OK)
		}
	})
	b.Run("limit used up", func(b *testing.B) { // each permit completes a full limit
		l, ctx := one(1), b.Context()
		b.ReportAllocs()
		for b.Loop() {
			p, _ := l.Acquire(ctx)
			p.Release(OK)
		}
	})
	b.Run("handed to a waiter", func(b *testing.B) {
		l, ctx := one(4), b.Context()
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				p, _ := l.Acquire(ctx)
				p.Release(OK)
			}
		})
	})
	b.Run("peer: a channel as semaphore", func(b *testing.B) {
		c, done := make(chan struct{}, 64), b.Context().Done()
		for b.Loop() {
			select {
			case c <- struct{}{}:
			case <-done:
			}
			<-c
		}
	})
}
