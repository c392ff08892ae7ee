package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/sinkfault"
)

// worker starts a fleet's worker with a state folder of its own; says is what it says.
func (s *logShop) worker(name string) (c *exec.Cmd, says *told) {
	s.t.Helper()
	c, says = s.command("worker", "--slots", "1"), new(told)
	c.Env = append(c.Env, "MYRMIDON_STATE="+filepath.Join(s.dir, name))
	c.Stderr = says
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	return c, says
}

// A worker that is killed is not told from one that is stopped at once, but that its jobs come
// again when their leases end, which takes 30 seconds.
func TestAFleetShipsLogsThoughAWorkerIsCutOff(t *testing.T) {
	long.Test(t)
	s := newLogShop(t, 40, 800)
	broker := natsserver.Start(t, natsserver.Options{})
	s.env = []string{"MYRMIDON_NATS=" + broker.URL()}
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	server := sinkfault.NewLumberjack(l, func(int) sinkfault.Window { return sinkfault.Window{Late: 40 * time.Millisecond} })
	defer server.Close()
	first, _ := s.worker("one")
	var second *exec.Cmd
	var says *told
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		for began := time.Now(); len(server.Received()) < s.lines/4 && time.Since(began) < 30*time.Second; {
			time.Sleep(5 * time.Millisecond)
		}
		second, says = s.worker("two") // it has all that the first leaves, which is most
		for range 2 {                  // the first signal lets jobs end, the second stops at once
			if err := first.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			time.Sleep(30 * time.Millisecond)
		}
		if err := first.Wait(); err != nil {
			t.Error(err)
		}
	}()
	sum, problems := s.run(0, "logs", "ship", "s3://logs/AWSLogs/", "--to", "lumberjack://"+server.Addr(), "-q")
	<-cut
	until(t, "the second takes jobs: the first may have done all of them", func() bool { return strings.Contains(says.String(), " takes ") })
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := second.Wait(); err != nil {
		t.Error(err)
	}
	docs := server.Received()
	got := ids(t, docs)
	if len(got) != s.lines || sum.Lines.Encountered != int64(s.lines) || sum.Lines.Acked != int64(s.lines) || sum.Objects.Read != 40 {
		t.Errorf("%d of %d lines arrived; %+v\n%s", len(got), s.lines, sum, problems)
	}
	t.Logf("%d lines came twice", len(docs)-len(got))
}
