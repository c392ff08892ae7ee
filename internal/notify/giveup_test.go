package notify

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// said is a log beside a test.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), text)
}

// An event that can never be done gives its place to others; one that waits for what all need
// stays.
func TestAnEventThatCannotBeDoneIsGivenUp(t *testing.T) {
	errDenied, errAway := errors.New("403"), errors.New("the destination is away")
	var mu sync.Mutex
	tried, parked := make(map[string]int), make(map[string]error)
	of := func(key string) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return tried[key], parked[key]
	}
	full := true
	cfg := WebhookConfig{
		Dir: filepath.Join(t.TempDir(), "events"), Most: 3, Patience: time.Nanosecond,
		NotIts: func(err error) bool { return errors.Is(err, errAway) },
		GiveUp: func(_ context.Context, o Object, why error) error {
			mu.Lock()
			defer mu.Unlock()
			if full {
				full = false
				return errors.New("the disk is full")
			}
			parked[o.Key] = why
			return nil
		},
		Address: "webhook://127.0.0.1:0/s3",
	}
	var log said
	c := config(2)
	c.Again, c.Log = time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	f, err := c.Webhook(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{t, f, "http" + strings.TrimPrefix(f.String(), "webhook"), nil}
	h.end = run(t, f, func(_ context.Context, o Object) error {
		mu.Lock()
		defer mu.Unlock()
		tried[o.Key]++
		switch o.Key {
		case "denied":
			return errDenied
		case "waits":
			return errAway
		}
		return nil
	})
	h.post(put("waits"), 200)
	if n := log.count("events pile up"); n != 0 {
		t.Errorf("a third of all is warned of")
	}
	h.post(put("denied"), 200)
	until(t, "it is given up", func() bool { _, why := of("denied"); return errors.Is(why, errDenied) })
	until(t, "its place is free", func() bool { return f.Stats().Waiting == 1 })
	if n, _ := of("denied"); n != mostDoublings+3 || log.count("could not be given up") != 1 || log.count("an object is given up") != 1 {
		t.Errorf("%d tries\n%s", n, log.b.String())
	}
	until(t, "the other is tried on", func() bool { n, _ := of("waits"); return n > mostDoublings+3 })
	if _, why := of("waits"); why != nil {
		t.Errorf("what waits for its destination is given up: %v", why)
	}
	if n := log.count("events pile up"); n != 1 {
		t.Errorf("that two of three wait is told %d times", n)
	}
	h.end()
	if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

// Tries are farther apart each time, and since when is known after a restart.
func TestAnEventIsTriedLessOften(t *testing.T) {
	cfg := WebhookConfig{Dir: filepath.Join(t.TempDir(), "events"), GiveUp: func(context.Context, Object, error) error {
		t.Error("given up before a day is over")
		return nil
	}}
	var mu sync.Mutex
	var came []time.Time
	h := newHook(t, cfg, func(context.Context, Object) error {
		mu.Lock()
		defer mu.Unlock()
		came = append(came, time.Now())
		return errors.New("403")
	})
	h.post(put("k"), 200)
	until(t, "it came four times", func() bool { mu.Lock(); defer mu.Unlock(); return len(came) >= 4 })
	h.end()
	for i, wait := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		if took := came[i+1].Sub(came[i]); took < wait {
			t.Errorf("try %d comes %v after the one before, want %v", i+2, took, wait)
		}
	}
	s, err := openSpool(cfg.Dir, "webhook://x", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	e := <-s.ready
	if e.Failing.Before(came[0].Round(0)) || e.Failing.After(came[1].Round(0)) {
		t.Errorf("it fails since %v, want a time from %v, when it first came, to %v", e.Failing, came[0], came[1])
	}
	if err := s.fails(e, time.Time{}); err != nil || !e.Failing.IsZero() {
		t.Error(err)
	}
	if data, err := os.ReadFile(e.file); err != nil || strings.Contains(string(data), "failing") {
		t.Errorf("%s %v", data, err)
	}
}
