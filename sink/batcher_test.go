package sink_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon"
	"myrmidon/sink"
)

// fake is a sink that a function answers for.
type fake struct {
	traits sink.Traits
	send   func(ctx context.Context, rs []sink.Record) error

	mu    sync.Mutex
	calls [][]string // the IDs of each Send
	at    []time.Time
}

func (f *fake) Traits() sink.Traits { return f.traits }
func (f *fake) Close() error        { return nil }

func (f *fake) Send(ctx context.Context, rs []sink.Record) error {
	ids := make([]string, len(rs))
	for i, r := range rs {
		ids[i] = r.ID
	}
	f.mu.Lock()
	f.calls = append(f.calls, ids)
	f.at = append(f.at, time.Now())
	f.mu.Unlock()
	if f.send == nil {
		return nil
	}
	return f.send(ctx, rs)
}

func add(t *testing.T, b *sink.Batcher, rs ...sink.Record) {
	t.Helper()
	for _, r := range rs {
		if _, err := b.Add(t.Context(), r); err != nil {
			t.Fatalf("Add: %v", err)
		}
	}
}

func TestBatchesAreBoundedByRecordsBytesAndLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{traits: sink.Traits{Records: 10}}
		b := sink.NewBatcher(f, sink.BatcherConfig{Records: 100, Bytes: 60, Linger: time.Second, Parallel: 1})
		start := time.Now()
		add(t, b, records(3)...) // of 14 bytes each
		synctest.Wait()
		if len(f.calls) != 0 {
			t.Fatalf("sent before it lingered: %v", f.calls)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(f.calls) != 1 || len(f.calls[0]) != 3 || f.at[0].Sub(start) != time.Second {
			t.Fatalf("after a second: %v at %v", f.calls, f.at)
		}
		add(t, b, records(9)...) // by bytes: 4, 4, and 1 that lingers
		synctest.Wait()
		if n := len(f.calls); n != 3 || len(f.calls[1]) != 4 || len(f.calls[2]) != 4 {
			t.Fatalf("by bytes: %v", f.calls)
		}
		if err := b.Flush(t.Context()); err != nil || len(f.calls) != 4 || !time.Now().Equal(start.Add(time.Second)) {
			t.Errorf("Flush lingered, or left some: %v, %v", f.calls, err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestTheSinksOwnLimitHolds(t *testing.T) {
	f := &fake{traits: sink.Traits{Records: 10}, send: func(context.Context, []sink.Record) error { return nil }}
	b := sink.NewBatcher(f, sink.BatcherConfig{Records: 100, Linger: time.Hour})
	add(t, b, records(95)...)
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if longest := slices.MaxFunc(f.calls, func(a, b []string) int { return len(a) - len(b) }); len(longest) != 10 {
		t.Errorf("the longest batch has %d records, want 10", len(longest))
	}
}

func TestWhoeverAddsWaitsForMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		f := &fake{send: func(context.Context, []sink.Record) error { <-let; return nil }}
		b := sink.NewBatcher(f, sink.BatcherConfig{Memory: 2000, Linger: time.Hour})
		done := 0
		go func() {
			for i := range 1000 {
				if _, err := b.Add(t.Context(), record(i)); err != nil {
					t.Error(err)
				}
				done = i + 1
			}
		}()
		synctest.Wait()
		if s := b.Stats(); done > 20 || s.Held > 2000 || s.Sent == 0 {
			t.Errorf("%d were added, %+v; want some to be sent though they linger, and the rest to wait", done, s)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := b.Add(short, record(5000)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Add while there is no room: %v, want the end of its context", err)
		}
		close(let)
		synctest.Wait()
		if err := b.Close(t.Context()); err != nil || done != 1000 || b.Stats().Acked != 1000 || b.Stats().Peak > 2000 {
			t.Errorf("%d were added, %+v, %v", done, b.Stats(), err)
		}
	})
}

func TestOnlyWhatFailedIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := map[string]int{"id-1": 2, "id-3": 100, "id-4": 5}
		f := &fake{}
		f.send = func(_ context.Context, rs []sink.Record) error {
			p := &sink.PartialError{Total: len(rs)}
			for i, r := range rs {
				switch {
				case r.ID == "id-2":
					p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.Permanent(errors.New("a mapping error"))})
				case r.ID == "id-4" && failures[r.ID] > 0:
					failures[r.ID]--
					p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.RetryAfter(errors.New("pushed back"), time.Minute)})
				case failures[r.ID] > 0:
					failures[r.ID]--
					p.Failed = append(p.Failed, sink.Failed{Index: i, Err: errors.New("not now")})
				}
			}
			if p.Failed == nil {
				return nil
			}
			return p
		}
		var acked []string
		parked := make(map[string]string)
		b := sink.NewBatcher(f, sink.BatcherConfig{
			Records: 5, Linger: time.Hour, Parallel: 1, Attempts: 3, Backoff: time.Second,
			Acked: func(rs []sink.Record) {
				for _, r := range rs {
					acked = append(acked, r.ID+string(r.Data))
				}
			},
			Parked: func(r sink.Record, why error) error { parked[r.ID] = why.Error(); return nil },
		})
		add(t, b, records(5)...)
		synctest.Wait()
		if n := b.Settled(); n != 1 {
			t.Errorf("settled are the first %d, want 1: id-1 is still to be sent", n)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(acked)
		want := []string{`id-0{"n":0}`, `id-1{"n":1}`, `id-4{"n":4}`}
		if !slices.Equal(acked, want) {
			t.Errorf("acked %v, want %v", acked, want)
		}
		if len(parked) != 2 || parked["id-2"] != "a mapping error" || !strings.Contains(parked["id-3"], "given up after 3 attempts: not now") {
			t.Errorf("parked %v", parked)
		}
		s := b.Stats()
		if s.Added != 5 || s.Sent != 5 || s.Acked != 3 || s.Failed != 2 || s.Held != 0 || s.Retried != 2+2+5 || b.Settled() != 5 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAnOrderedLaneWaitsForItsFailures(t *testing.T) {
	for _, inOrder := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{traits: sink.Traits{InOrder: inOrder}}
			f.send = func(_ context.Context, rs []sink.Record) error {
				if len(f.calls) == 1 {
					return &sink.PartialError{Total: len(rs), Failed: []sink.Failed{{Index: 0, Err: myrmidon.RetryAfter(errors.New("pushed back"), time.Minute)}}}
				}
				return nil
			}
			b := sink.NewBatcher(f, sink.BatcherConfig{Ordered: true, Parallel: 1})
			add(t, b, records(1)...)
			synctest.Wait()
			add(t, b, records(3)...)
			if err := b.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(f.calls) < 2 || f.calls[1][0] != "id-0" || f.at[1].Sub(f.at[0]) < time.Minute {
				t.Errorf("in order %v: sent %v at %v; want the second after a minute", inOrder, f.calls, f.at)
			}
		})
	}
}

func TestADestinationThatIsAwayIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f := &fake{}
		f.send = func(context.Context, []sink.Record) error {
			time.Sleep(10 * time.Millisecond)
			if time.Since(start) < time.Hour {
				return errors.New("connection refused")
			}
			return nil
		}
		b := sink.NewBatcher(f, sink.BatcherConfig{Records: 10, Attempts: 2, Parallel: 4})
		add(t, b, records(1000)...)
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := b.Stats(); s.Acked != 1000 || s.Failed != 0 || len(s.LastErrors) != 5 {
			t.Errorf("%+v", s)
		}
		// Four senders meet the same failure once: the pause after it is the first one.
		if again := f.at[4].Sub(f.at[0]); again > 110*time.Millisecond || again < 50*time.Millisecond {
			t.Errorf("tried again after %s, want 60 to 110 ms", again)
		}
		// 100 ms, doubled to 30 s: some 130 times an hour and a half of that at random,
		// for each of four senders.
		if n := len(f.calls); n > 4*300 {
			t.Errorf("%d calls in an hour", n)
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{send: func(context.Context, []sink.Record) error { return errors.New("connection refused") }}
		b := sink.NewBatcher(f, sink.BatcherConfig{Patience: time.Minute})
		add(t, b, records(10)...)
		err := b.Flush(t.Context())
		if err == nil || !strings.Contains(err.Error(), "nothing was taken for") || myrmidon.Hint(err) == "" {
			t.Errorf("Flush: %v, want one that says so, with a hint", err)
		}
		if _, again := b.Add(t.Context(), record(1)); !errors.Is(again, err) {
			t.Errorf("Add after that: %v", again)
		}
		if again := b.Close(t.Context()); !errors.Is(again, err) {
			t.Errorf("Close after that: %v", again)
		}
	})
}

func TestWhatEndsABatcher(t *testing.T) {
	permanent := myrmidon.Permanent(errors.New("wrong password"))
	refuse := func(_ context.Context, rs []sink.Record) error {
		return &sink.PartialError{Total: len(rs), Failed: []sink.Failed{{Index: 0, Err: permanent}}}
	}
	for _, c := range []struct {
		name string
		send func(context.Context, []sink.Record) error
		cfg  sink.BatcherConfig
		want string
	}{
		{"a permanent error of all", func(context.Context, []sink.Record) error { return permanent }, sink.BatcherConfig{}, "wrong password"},
		{"a record to park where nothing parks", refuse, sink.BatcherConfig{}, "can never be delivered"},
		{"a failure to park", refuse, sink.BatcherConfig{Parked: func(sink.Record, error) error { return errors.New("disk full") }}, "disk full"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := sink.NewBatcher(&fake{send: c.send}, c.cfg)
			add(t, b, records(1)...)
			if err := b.Close(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: Close: %v, want %q", c.name, err, c.want)
			}
			if s := b.Stats(); s.Acked != 0 || b.Settled() != 0 {
				t.Errorf("%s: %+v, settled %d", c.name, s, b.Settled())
			}
		})
	}
}

func TestCloseSaysWhatItHasNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{send: func(ctx context.Context, _ []sink.Record) error { <-ctx.Done(); return ctx.Err() }}
		b := sink.NewBatcher(f, sink.BatcherConfig{})
		add(t, b, records(7)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "7 records") {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestWhatIsNoLineIsParked(t *testing.T) {
	var parked []string
	b := sink.NewBatcher(&fake{}, sink.BatcherConfig{Memory: 1000, Parked: func(r sink.Record, _ error) error {
		parked = append(parked, r.ID)
		return nil
	}})
	add(t, b, record(0), sink.Record{ID: "two lines", Data: []byte("{\n}")}, sink.Record{ID: "large", Data: make([]byte, 1000)}, record(1))
	b2 := []byte(strings.Repeat("x", 2000))
	add(t, b, sink.Record{ID: "larger", Data: b2})
	if err := b.Close(t.Context()); err != nil || !slices.Equal(parked, []string{"two lines", "large", "larger"}) {
		t.Errorf("parked %v, %v", parked, err)
	}
	if s := b.Stats(); s.Added != 5 || s.Acked != 2 || s.Failed != 3 || b.Settled() != 5 {
		t.Errorf("%+v", s)
	}
}

// schedule is a destination that fails by chance, and remembers what it has.
type schedule struct {
	*rand.Rand
	mu      sync.Mutex
	inOrder bool
	has     map[string]int      // times
	last    map[string]int      // of each key, the last that came for the first time
	broken  []string            // keys whose order was not kept
	refused map[string]struct{} // records that never are taken
}

func (s *schedule) take(r sink.Record) {
	s.has[r.ID]++
	if s.has[r.ID] > 1 {
		return
	}
	var n int
	if _, err := fmt.Sscanf(r.ID, "id-%d", &n); err != nil {
		panic(err)
	}
	if before, ok := s.last[r.Key]; ok && n < before {
		s.broken = append(s.broken, r.Key)
	}
	s.last[r.Key] = n
}

func (s *schedule) Send(ctx context.Context, rs []sink.Record) error {
	s.mu.Lock()
	wait := time.Duration(s.IntN(300)) * time.Millisecond
	s.mu.Unlock()
	time.Sleep(wait)
	s.mu.Lock()
	defer s.mu.Unlock()
	fate := s.IntN(8)
	if fate == 0 { // away
		return errors.New("refused")
	}
	if fate == 1 { // killed within, or before the answer
		for _, r := range rs[:s.IntN(len(rs)+1)] {
			if _, never := s.refused[r.ID]; !never {
				s.take(r)
			}
		}
		return errors.New("reset")
	}
	p := &sink.PartialError{Total: len(rs)}
	stopped := false
	for i, r := range rs {
		_, never := s.refused[r.ID]
		switch {
		case stopped && s.inOrder:
			p.Failed = append(p.Failed, sink.Failed{Index: i, Err: errors.New("after the break")})
		case never:
			p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.Permanent(errors.New("mapping"))})
		case fate == 2 && s.IntN(4) == 0:
			stopped = true
			p.Failed = append(p.Failed, sink.Failed{Index: i, Err: errors.New("not now")})
		case fate == 3 && s.IntN(4) == 0:
			stopped = true
			p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.RetryAfter(errors.New("slow down"), time.Second)})
		default:
			s.take(r)
		}
	}
	if p.Failed == nil {
		return nil
	}
	return p
}

func (s *schedule) Close() error        { return nil }
func (s *schedule) Traits() sink.Traits { return sink.Traits{InOrder: s.inOrder} }

// TestNothingIsLostInAThousandSchedules is the promise of the package: each record is taken, or
// parked if it never can be, whatever fails, and the order of keys is kept where it was asked for.
func TestNothingIsLostInAThousandSchedules(t *testing.T) {
	doubles := 0
	for seed := range uint64(1000) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(6, seed))
			s := &schedule{Rand: rand.New(rand.NewPCG(seed, 6)), inOrder: seed%2 == 0, has: make(map[string]int), last: make(map[string]int), refused: make(map[string]struct{})}
			n := 20 + r.IntN(200)
			for range r.IntN(4) {
				s.refused[record(r.IntN(n)).ID] = struct{}{}
			}
			var mu sync.Mutex
			acked, parked := make(map[string]int), make(map[string]int)
			cfg := sink.BatcherConfig{
				Records: 1 + r.IntN(30), Bytes: 50 + r.IntN(500), Memory: 500 + r.IntN(8000), Parallel: 1 + r.IntN(4),
				Linger: time.Duration(r.IntN(2)*r.IntN(500)) * time.Millisecond, Ordered: r.IntN(2) == 0, Attempts: 1000,
				Acked: func(rs []sink.Record) {
					mu.Lock()
					defer mu.Unlock()
					for _, r := range rs {
						acked[r.ID]++
					}
				},
				Parked: func(r sink.Record, _ error) error {
					mu.Lock()
					defer mu.Unlock()
					parked[r.ID]++
					return nil
				},
			}
			b := sink.NewBatcher(s, cfg)
			for i := range n {
				add(t, b, record(i))
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
				if done := b.Settled(); r.IntN(10) == 0 {
					mu.Lock()
					for j := range done {
						if id := record(int(j)).ID; acked[id]+parked[id] != 1 {
							t.Errorf("seed %d: the first %d are settled, but %s is not", seed, done, id)
						}
					}
					mu.Unlock()
				}
				if r.IntN(50) == 0 {
					if err := b.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := b.Close(t.Context()); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for i := range n {
				id := record(i).ID
				_, never := s.refused[id]
				if never && (parked[id] != 1 || acked[id] != 0 || s.has[id] != 0) || !never && (acked[id] != 1 || parked[id] != 0 || s.has[id] == 0) {
					t.Errorf("seed %d: %s: acked %d, parked %d, there %d times; refused for ever: %v", seed, id, acked[id], parked[id], s.has[id], never)
				}
				doubles += max(0, s.has[id]-1)
			}
			if cfg.Ordered && len(s.broken) > 0 {
				t.Errorf("seed %d: the order of %v was not kept", seed, s.broken)
			}
			st := b.Stats()
			if st.Added != uint64(n) || st.Acked+st.Failed != st.Added || st.Held != 0 || st.Peak > int64(cfg.Memory) || b.Settled() != uint64(n) {
				t.Errorf("seed %d: %+v, settled %d of %d", seed, st, b.Settled(), n)
			}
		})
	}
	if doubles == 0 {
		t.Error("no record came twice: no acknowledgement was lost, and the schedules test nothing")
	}
	t.Logf("%d records came twice, and are one by their ID", doubles)
}
