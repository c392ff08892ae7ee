package limit

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon/internal/testkit/long"
)

// shelves are the servers of the parts of one destination, by their folders.
type shelves map[string]*server

// loadParts keeps n callers a part busy, through l, until stop is called.
func (by shelves) load(t *testing.T, l *Limiter, n map[string]int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for folder, s := range by {
		for i := range n[folder] {
			key := fmt.Sprintf("media/%s/%d.ts", folder, i)
			all.Go(func() {
				for {
					p, err := l.AcquireFor(ctx, key)
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
	}
	return func() {
		cancel()
		all.Wait()
		if got := l.Stats(); got.InFlight != 0 || got.Waiting != 0 {
			t.Errorf("after all callers ended: %+v, want nothing in flight and nobody waiting", got)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for name, at := range l.parts.byName {
			if at.underWay != 0 || at.wanted != 0 {
				t.Errorf("part %q: %d under way, %d wanted", name, at.underWay, at.wanted)
			}
			if at.own != nil && at.own.inFlight != 0 {
				t.Errorf("part %q: its own limiter has %d in flight", name, at.own.inFlight)
			}
		}
	}
}

// TestAFolderThatIsToldToSlowDownSlowsNoOther has one folder that takes a twentieth of
// what the others take, and wants breaks.
func TestAFolderThatIsToldToSlowDownSlowsNoOther(t *testing.T) {
	long.Test(t)
	synctest.Test(t, func(t *testing.T) {
		hot, cool := newServer(10, 50*time.Millisecond), newServer(200, 50*time.Millisecond)
		hot.rejects, hot.after = true, 200*time.Millisecond
		l := New(Config{}).Limiter("clone.copy", "s3://b")
		stop := shelves{"hot": hot, "cool": cool}.load(t, l, map[string]int{"hot": 200, "cool": 400})
		time.Sleep(20 * time.Second)
		_, refusedBefore := hot.count()
		if got := cool.throughput(20 * time.Second); got < 0.9 {
			t.Errorf("the other folder has %.2f of its throughput, want 0.9", got)
		}
		served, refused := hot.count()
		if got := l.Stats().Pushbacks; got == 0 || got > uint64(refused) {
			t.Errorf("%d push-backs are counted, %d were told", got, refused)
		}
		if refused-refusedBefore > served/4 {
			t.Errorf("the folder was asked %d times too often in 20 s, and served %d in all", refused-refusedBefore, served)
		}
		if got := hot.throughput(20 * time.Second); got < 0.4 {
			t.Errorf("the folder itself has %.2f of its throughput, want 0.4", got)
		}

		// It recovers, and is used fully again.
		hot.set(func() { hot.rejects, hot.capacity = false, 200 })
		time.Sleep(2 * time.Minute)
		if got := hot.throughput(10 * time.Second); got < 0.8 {
			t.Errorf("after it recovered it has %.2f of its throughput, want 0.8", got)
		}
		stop()
	})
}

// TestAStoreThatSlowsDownAsAWholeIsNoPartsMatter: the whole's limit is what falls.
func TestAStoreThatSlowsDownAsAWholeIsNoPartsMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newServer(50, 50*time.Millisecond)
		one.rejects = true
		by, n := shelves{}, map[string]int{}
		for i := range 20 {
			folder := fmt.Sprint("f", i)
			by[folder], n[folder] = one, 20
		}
		l := New(Config{}).Limiter("clone.copy", "s3://b")
		stop := by.load(t, l, n)
		time.Sleep(20 * time.Second)
		_, before := one.count()
		if got := one.throughput(20 * time.Second); got < 0.8 {
			t.Errorf("%.2f of the throughput, want 0.8", got)
		}
		if served, refused := one.count(); refused-before > served/10 {
			t.Errorf("%d requests of %d were too many", refused-before, served)
		}
		if got := l.Stats().Limit; got > 100 {
			t.Errorf("the limit is %d, and the store takes 50", got)
		}
		stop()
	})
}

// TestAStoreOfSmallFoldersThatSlowsDown has each folder asked for a few times only: what is
// learned of one is no use.
func TestAStoreOfSmallFoldersThatSlowsDown(t *testing.T) {
	long.Test(t)
	synctest.Test(t, func(t *testing.T) {
		one := newServer(50, 50*time.Millisecond)
		one.rejects = true
		l := New(Config{}).Limiter("clone.copy", "s3://b")
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 400 {
			all.Go(func() {
				for n := 0; ; n++ {
					p, err := l.AcquireFor(ctx, fmt.Sprintf("%d-%d/x", i, n/5))
					if err != nil {
						return
					}
					if one.do() != nil {
						p.Release(Pushback(0))
					} else {
						p.Release(OK)
					}
				}
			})
		}
		time.Sleep(20 * time.Second)
		_, before := one.count()
		if got := one.throughput(20 * time.Second); got < 0.8 {
			t.Errorf("%.2f of the throughput, want 0.8", got)
		}
		if served, refused := one.count(); refused-before > served/10 {
			t.Errorf("%d requests of %d were too many", refused-before, served)
		}
		cancel()
		all.Wait()
	})
}

// TestPartsAreFoldersBelowTheSharedOne tells parts by the first folder that differs.
func TestPartsAreFoldersBelowTheSharedOne(t *testing.T) {
	var ps parts
	for _, step := range []struct {
		key, common string
		same        string // a key of the same part, if any
	}{
		{"a/b/c/1", "a/b/c/", "a/b/c/2"},
		{"a/b/d/1", "a/b/", "a/b/d/e/2"},
		{"a/b/c/1", "a/b/", "a/b/c/2"},
		{"a/bb/1", "a/", "a/bb/2"},
		{"a/1", "a/", "a/2"},
		{"1", "", "2"},
		{"a/b/1", "", "a/c/1"},
		{"/x", "", "//y"},
	} {
		at := ps.of(step.key)
		if ps.common != step.common {
			t.Fatalf("after %q the shared folder is %q, want %q", step.key, ps.common, step.common)
		}
		if ps.of(step.same) != at {
			t.Errorf("%q and %q are of two parts", step.key, step.same)
		}
	}
}

// TestManyFoldersTakeLittle asks for a key each of very many folders.
func TestManyFoldersTakeLittle(t *testing.T) {
	long.Test(t)
	l := New(Config{}).Limiter("clone.copy", "s3://b")
	most := 0
	for i := range 200_000 {
		p, err := l.AcquireFor(t.Context(), fmt.Sprintf("%06d/x", i))
		if err != nil {
			t.Fatal(err)
		}
		p.Release(OK)
		most = max(most, len(l.parts.byName))
	}
	if most > 5000 {
		t.Errorf("%d folders are remembered", most)
	}
}

func TestAPartThatIsGivenUpLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := New(Config{Max: map[string]int{"k": 1}}).Limiter("k", "d")
	held, err := l.AcquireFor(ctx, "a/1")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := l.AcquireFor(ctx, "b/1"); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("error %v", err)
	}
	held.Release(Failed)
	for name, at := range l.parts.byName {
		if at.wanted != 0 || at.underWay != 0 {
			t.Errorf("part %q: %+v", name, *at)
		}
	}
}

func BenchmarkAcquireFor(b *testing.B) {
	l := New(Config{Start: math.MaxInt32, Max: map[string]int{"k": Highest}}).Limiter("k", "d")
	b.ReportAllocs()
	for b.Loop() {
		p, _ := l.AcquireFor(b.Context(), "media/000017/00000123.ts")
		p.Release(OK)
	}
}
