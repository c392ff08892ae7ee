package transcode

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestInOrder(t *testing.T) {
	for _, n := range []int{0, 1, 3, 4, 5, 100} {
		synctest.Test(t, func(t *testing.T) {
			var under, most atomic.Int64
			next := 0
			start := time.Now()
			err := inOrder(t.Context(), n, func(_ context.Context, i int) (string, error) {
				now := under.Add(1)
				defer under.Add(-1)
				for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
				}
				time.Sleep(time.Duration(1+i%3) * time.Second)
				return fmt.Sprint(i), nil
			}, func(i int, v string) error {
				if i != next || v != fmt.Sprint(i) {
					t.Errorf("of %d: %q came as number %d where %d is due", n, v, i, next)
				}
				next++
				return nil
			})
			if err != nil || next != n || most.Load() != int64(min(n, sideBySide)) {
				t.Errorf("of %d: %d were used, %d at once, %v", n, next, most.Load(), err)
			}
			if took := time.Since(start); took > time.Duration(n)*time.Second {
				t.Errorf("%d took %v", n, took)
			}
		})
	}
}

func TestInOrderEndsWithTheFirstError(t *testing.T) {
	first := errors.New("the first")
	for _, tt := range []struct {
		name string
		get  int // fails here
		use  int // or here
	}{
		{"of getting", 6, -1},
		{"of using", -1, 6},
	} {
		synctest.Test(t, func(t *testing.T) {
			var under atomic.Int64
			used := 0
			err := inOrder(t.Context(), 100, func(ctx context.Context, i int) (int, error) {
				under.Add(1)
				defer under.Add(-1)
				if i == tt.get {
					time.Sleep(time.Second)
					return 0, first
				}
				if i > 6 {
					<-ctx.Done() // it is told to end
					return 0, fmt.Errorf("a later one: %w", ctx.Err())
				}
				return i, nil
			}, func(i, _ int) error {
				if i == tt.use {
					return first
				}
				used++
				return nil
			})
			if !errors.Is(err, first) || used != 6 || under.Load() != 0 {
				t.Errorf("%s: %v after %d, and %d calls are left", tt.name, err, used, under.Load())
			}
		})
	}
}
