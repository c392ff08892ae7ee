package transcode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/internal/limit"
	"myrmidon/object"
)

// crowded counts how many requests are under way at once. The first waits for another.
type crowded struct {
	object.Store
	now, most atomic.Int64
	two       chan struct{} // closed when there were two at once
	once      sync.Once
}

func (c *crowded) Put(ctx context.Context, key string, body io.Reader, size int64, attrs object.Attrs) error {
	now := c.now.Add(1)
	defer c.now.Add(-1)
	for was := c.most.Load(); now > was && !c.most.CompareAndSwap(was, now); was = c.most.Load() {
	}
	if now > 1 {
		c.once.Do(func() { close(c.two) })
	}
	select {
	case <-c.two:
	case <-time.After(20 * time.Second):
		c.once.Do(func() { close(c.two) })
	}
	time.Sleep(time.Millisecond) // for a third
	return c.Store.Put(ctx, key, body, size, attrs)
}

func TestRequestsKeepToTheLimitOfTheirDestination(t *testing.T) {
	set := limit.New(limit.Config{Max: map[string]int{"transcode.encode@s3://b": 2}})
	ctx := limit.With(t.Context(), set, KindEncode)
	store := &crowded{Store: object.NewMem(), two: make(chan struct{})}
	w := newWorker(Config{Open: func(string) (object.Store, error) { return store, nil }})
	var all sync.WaitGroup
	for job := range 4 { // each has a meteredStore of its own
		s, err := w.store(ctx, fmt.Sprintf("s3://b/folder-%d?region=x", job))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			all.Go(func() {
				if err := s.put(ctx, fmt.Sprintf("%d-%d", job, i), []byte("x"), ""); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if n := store.most.Load(); n != 2 {
		t.Errorf("%d requests at once, want 2", n)
	}
}

func TestOutcomesOfRequests(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want limit.Outcome
	}{
		{"what worked", nil, limit.OK},
		{"an object that is not there", fmt.Errorf("head: %w", fs.ErrNotExist), limit.OK},
		{"a store that asks for time", myrmidon.RetryAfter(errors.New("503"), time.Second), limit.Pushback(time.Second)},
		{"another error", errors.New("reset"), limit.Failed},
	} {
		if got := outcome(c.err); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
