package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"myrmidon/internal/logs"
	"myrmidon/internal/notify"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/sink"
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
	f = s.follower("webhook://127.0.0.1:0/other", "--to", "lumberjack://"+silent.Addr())
	f.hook()
	until(t, "the events that wait are mentioned", func() bool {
		return strings.Contains(f.told.String(), "2 events of webhook://127.0.0.1:0/s3 left here, which is not followed now")
	})
	f.end(0)
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

// Who has read that it takes events may end it at once, and gets its summary.
func TestAFollowerEndsInOrderAsSoonAsItIsReady(t *testing.T) {
	s := newLogShop(t, 0, 0)
	var args []string
	for i := range 60 { // the others are still to be opened when the first is announced
		args = append(args, fmt.Sprintf("webhook://127.0.0.1:0/%d", i))
	}
	c := s.command(append([]string{"logs", "ship", "--follow", "--to", "file://" + filepath.Join(s.dir, "out.jsonl")}, args...)...)
	var out bytes.Buffer
	c.Stdout = &out
	said, err := c.StderrPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	lines := bufio.NewScanner(said)
	for lines.Scan() && !strings.Contains(lines.Text(), "taking events at") {
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	var sum logs.Summary
	if err := c.Wait(); err != nil || json.Unmarshal(out.Bytes(), &sum) != nil || len(sum.Sources) != 60 {
		t.Errorf("%v: %s", err, &out)
	}
}

// What is given up is in the parked file, and counted for its source and for all.
func TestAnObjectThatIsGivenUpIsParked(t *testing.T) {
	n := &following{parked: filepath.Join(t.TempDir(), "no", "parked.jsonl")}
	var err error
	cfg := logs.Config{Log: slog.New(slog.DiscardHandler), OpenSink: func(string) (sink.Sink, error) { return sink.NewWriter(io.Discard, "") }}
	if n.ships, err = cfg.NewFollower(logs.Spec{Sink: "x"}); err != nil {
		t.Fatal(err)
	}
	hook := &logFeed{name: "hook", count: logs.NewSourceCount("hook", "webhook://x")}
	o, why := notify.Object{Bucket: "theirs", Key: "a b.log"}, errors.New("given up after 24h0m0s: 403")
	if err := n.giveUp(t.Context(), hook, o, why); err == nil || hook.count.Summary().Objects.Failed != 0 {
		t.Errorf("a parked file that cannot be written: %v, %+v", err, hook.count.Summary())
	}
	n.parked = filepath.Join(t.TempDir(), "parked.jsonl")
	if err := n.giveUp(t.Context(), hook, o, why); err != nil {
		t.Fatal(err)
	}
	var r logs.Reject
	data, err := os.ReadFile(n.parked)
	if err != nil || json.Unmarshal(data, &r) != nil || r.Object != "s3://theirs/a b.log" || r.Reason != why.Error() {
		t.Errorf("%s, %v", data, err)
	}
	sum, err := n.ships.Close()
	sum.Sources = append(sum.Sources, hook.count.Summary())
	if err != nil || sum.Objects.Failed != 1 || sum.Sources[0].Objects.Failed != 1 || sum.Check() != nil {
		t.Errorf("%v %v %+v", err, sum.Check(), sum)
	}
}
