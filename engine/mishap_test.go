package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

// rotten makes the named items fail for good.
func rotten(names ...string) func(myrmidon.Job, int) error {
	return func(j myrmidon.Job, _ int) error {
		for _, n := range names {
			if j.Name == n {
				return myrmidon.Permanent(errors.New(n + " is rotten"))
			}
		}
		return nil
	}
}

func TestReportThatCannotBeWrittenLeavesARunThatCanBeResumed(t *testing.T) {
	c := newCounting()
	b := newBench(t, c)
	inTheWay := filepath.Join(folder(b.dir).Path("report.json"), "x")
	check(t, os.MkdirAll(inTheWay, 0o700))
	r := b.start(t)
	if _, err := r.Wait(); err == nil || !strings.Contains(err.Error(), "report.json") {
		t.Fatalf("the run ended with %v, want an error that names report.json", err)
	}
	info, err := b.dir.Info()
	check(t, err)
	if info.Standing() != "interrupted" {
		t.Fatalf("a run without its report is %s, want interrupted", info.Standing())
	}
	check(t, os.RemoveAll(folder(b.dir).Path("report.json")))
	rep := wait(t, b.again(t, false), myrmidon.Succeeded)
	c.want(t, once(4))
	if len(rep.Items) != 5 {
		t.Errorf("%d items in the report, want 5", len(rep.Items))
	}
}

func TestRunThatIsStoppingCannotBePaused(t *testing.T) {
	c := holding()
	b := newBench(t, c)
	r := b.start(t)
	<-c.held
	<-c.held
	r.Drain()
	if err := b.dir.Control().Pause(t.Context(), true); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("pausing a run that drains: %v, want an error that says it is stopping", err)
	}
	if r.Stats().Paused {
		t.Error("a run that drains is paused: its jobs would never end")
	}
	close(c.hold)
	if _, err := r.Wait(); !errors.Is(err, engine.ErrInterrupted) {
		t.Errorf("the drained run returned %v, want ErrInterrupted", err)
	}
}

func TestReportNamesTheCauseThatIsStillParkedAfterARetryOfAnother(t *testing.T) {
	c := newCounting()
	c.fail = rotten("item 0", "item 1")
	b := newBench(t, c)
	rep := wait(t, b.start(t), myrmidon.Failed)
	c.mu.Lock()
	c.fail = nil
	c.mu.Unlock()
	b.cfg.RetryIDs = []string{rep.Parked[0].ID}
	rep = wait(t, b.again(t, true), myrmidon.Failed)
	if rep.Error == nil || rep.Error.Message != "item 1 is rotten" {
		t.Errorf("the report's error is %v, want what is parked", rep.Error)
	}
}

func TestAbandonedRetryHasNothingParked(t *testing.T) {
	c := newCounting()
	c.fail = rotten("item 1")
	b := newBench(t, c)
	wait(t, b.start(t), myrmidon.Failed)
	c.mu.Lock()
	c.hold, c.held = make(chan struct{}), make(chan string, 16)
	c.mu.Unlock()
	r := b.again(t, true)
	<-c.held
	r.Kill()
	if _, err := r.Wait(); !errors.Is(err, engine.ErrInterrupted) {
		t.Fatalf("the killed retry returned %v, want ErrInterrupted", err)
	}
	check(t, b.dir.Lock())
	check(t, b.dir.Abandon())
	check(t, b.dir.Unlock())
	info, err := b.dir.Info()
	check(t, err)
	if info.State != myrmidon.Cancelled || info.Parked != 0 {
		t.Errorf("the abandoned run is %s with %d parked, want cancelled with none: a retry would begin it anew", info.State, info.Parked)
	}
}

func TestListPassesOverFoldersOfNoRunAndNamesDamagedOnes(t *testing.T) {
	c := newCounting()
	b := newBench(t, c)
	runs := filepath.Dir(folder(b.dir).Path("."))
	check(t, os.Mkdir(filepath.Join(runs, "01K0000000000000000000AAAA"), 0o700)) // its maker was killed
	damaged := filepath.Join(runs, "01K0000000000000000000BBBB")
	check(t, os.Mkdir(damaged, 0o700))
	for _, content := range []string{"", "{}", "null", `{"id":"01K0000000000000000000CCCC"}`} {
		check(t, os.WriteFile(filepath.Join(damaged, "run.json"), []byte(content), 0o600))
		infos, problems, err := b.state.List()
		check(t, err)
		if len(infos) != 1 || infos[0].ID != b.dir.RunID() {
			t.Errorf("with %q beside it: %d runs are listed, want the one that is whole", content, len(infos))
		}
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), damaged) || myrmidon.Hint(problems[0]) == "" {
			t.Errorf("with %q: problems %v, want one that names the folder and the remedy", content, problems)
		}
	}
}

func TestControlMayBeUsedFromTheFirstMoment(t *testing.T) {
	c := holding()
	b := newBench(t, c)
	open := b.cfg.Open
	asked := make(chan error, 1)
	b.cfg.Open = func(ctx context.Context, dir string) (engine.Backend, error) {
		go func() {
			for {
				err := b.dir.Control().Cancel(t.Context())
				if !errors.Is(err, engine.ErrNoOwner) {
					asked <- err
					return
				}
			}
		}()
		return open(ctx, dir)
	}
	r := b.start(t)
	check(t, <-asked)
	wait(t, r, myrmidon.Cancelled)
}

func TestJobWhoseLeaseEndedWhileTheProcessSleptIsNotRunTwiceAtOnce(t *testing.T) {
	c := holding()
	b := newBench(t, c)
	b.cfg.Slots = engine.NewSlots(8)
	b.cfg.Lease = time.Hour // never extended, as in a process that is stopped
	b.cfg.Open = func(ctx context.Context, dir string) (engine.Backend, error) {
		return jetstream.Open(ctx, jetstream.Config{Dir: dir, Lease: 200 * time.Millisecond})
	}
	r := b.start(t)
	for range 4 {
		<-c.held
	}
	select {
	case name := <-c.held:
		t.Errorf("%s runs twice at once", name)
	case <-time.After(time.Second): // several leases
	}
	close(c.hold)
	rep := wait(t, r, myrmidon.Succeeded)
	c.want(t, once(4))
	if rep.Usage.Jobs != 5 {
		t.Errorf("%d jobs were done, want 5", rep.Usage.Jobs)
	}
}
