package s3server

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// get asks the server for anything: 403 is an answer, too.
func get(ctx context.Context, s *Server, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/b/k", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func TestAServerStopsPausesAndComesBack(t *testing.T) {
	s := Start(t)
	s.Bucket(t, "b")
	if err := get(t.Context(), s, 30*time.Second); err != nil {
		t.Fatalf("a running server: %v", err)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := get(t.Context(), s, 500*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused server: %v, want no answer in time", err)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := get(t.Context(), s, 30*time.Second); err != nil {
		t.Errorf("a resumed server: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := get(t.Context(), s, 30*time.Second); err == nil {
		t.Error("a stopped server answers")
	}
	if s.Pause() == nil {
		t.Error("a stopped server can be paused")
	}
	before := s.Endpoint
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := get(t.Context(), s, 30*time.Second); err != nil || s.Endpoint != before {
		t.Errorf("a restarted server at %s: %v, want an answer at %s", s.Endpoint, err, before)
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), "b")); err != nil {
		t.Errorf("the bucket after a restart: %v", err)
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	_, err := Open(t.Context(), filepath.Join(t.TempDir(), "missing"))
	if err == nil {
		t.Fatal("Open of a missing folder = nil")
	}
	t.Log(err)
}
