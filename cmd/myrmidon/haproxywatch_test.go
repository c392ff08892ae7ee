package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/testkit/haproxyd"
)

func TestWatchTellsOfChanges(t *testing.T) {
	s := haproxyd.Start(t, haproxyd.Config{Frontends: 1, Backends: 1, Servers: 3, Master: true})
	s.WaitState("be_000", "web-000-00", "UP")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var stdout, stderr lockedBuffer
	a := &app{stdout: &stdout, stderr: &stderr}
	done := make(chan int, 1)
	go func() {
		done <- a.run(ctx, []string{"haproxy", "watch", "--every", "50ms", "--timeout", "500ms", "--type", "server", "--match", "be_000/web-000-00", s.Socket})
	}()
	event := func(parts ...string) {
		t.Helper()
		waitFor(t, func() bool {
			for line := range strings.Lines(stdout.String()) {
				found := strings.HasPrefix(line, `{"what":"event",`)
				for _, p := range parts {
					found = found && strings.Contains(line, p)
				}
				if found {
					return true
				}
			}
			return false
		})
	}
	waitFor(t, func() bool { return strings.Contains(stdout.String(), `"state":"UP"`) })
	for _, command := range []string{"disable server be_000/web-000-00", "disable server be_000/web-000-01"} {
		if _, err := s.Ask(command); err != nil {
			t.Fatal(err)
		}
	}
	event(`"kind":"state"`, `"server":"web-000-00","from":"UP","to":"MAINT"`)
	s.Freeze()
	event(`"kind":"lost"`, "did not answer in time")
	s.Thaw()
	event(`"kind":"back"`)
	s.Reload()
	event(`"kind":"restart"`)
	cancel()
	select {
	case status := <-done:
		if status != 0 {
			t.Errorf("it ended with %d: %s", status, stderr.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	if strings.Contains(stdout.String(), "web-000-01") {
		t.Error("a row that was not asked for is told of")
	}
}
