package main

import (
	"path/filepath"
	"strings"
	"testing"

	"myrmidon/internal/testkit/sinkfault"
)

// Events that were answered arrive though --to is another when the command runs again.
func TestEventsOutliveAnotherDestination(t *testing.T) {
	s := newLogShop(t, 0, 0)
	silent := lumberjackServer(t, func(int) sinkfault.Window { return sinkfault.Window{Silent: true} })
	objects := s.upload(escapedLogs, 2, 20)
	f := s.follower("webhook://127.0.0.1:0/s3", "--to", "lumberjack://"+silent.Addr())
	at := f.hook()
	for _, o := range objects {
		post(t, at, event(o, "1"), 200)
	}
	f.kill()
	server := lumberjackServer(t, func(int) sinkfault.Window { return sinkfault.Window{} })
	f = s.follower("webhook://127.0.0.1:0/s3", "--to", "lumberjack://"+server.Addr()+"?connections=3")
	until(t, "each line has arrived at the other", func() bool { return len(ids(t, server.Received())) == s.lines })
	until(t, "all events are done", func() bool {
		left, err := filepath.Glob(filepath.Join(s.dir, "state", "follow", "events", "*", "*.json"))
		return err == nil && len(left) == 0
	})
	if sum := f.end(0); sum.Lines.Acked != int64(s.lines) || !strings.Contains(f.told.String(), "2 events left here before") {
		t.Errorf("%+v\n%s", sum, f.told)
	}
}
