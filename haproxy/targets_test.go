package haproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestTargetsComeAndGoWithoutCountersGoingBack(t *testing.T) {
	one := newStub(t, says(dump(1, 100, 50, "fe,FRONTEND,1,10,1,OPEN,0,\n")))
	two := newStub(t, says(dump(2, 100, 50, "fe,FRONTEND,2,100,1,OPEN,0,\n")))
	a, b := Target{Name: "a", Address: one.path}, Target{Name: "b", Address: two.path}
	c := collector(t, Config{Targets: []Target{a, b}})
	check := func(what, stot, scur string) {
		t.Helper()
		s := poll(t, c)
		if got := cell(t, s.Table, "fe", "FRONTEND", "stot"); got != stot {
			t.Errorf("%s: stot %s, want %s", what, got, stot)
		}
		if got := cell(t, s.Table, "fe", "FRONTEND", "scur"); got != scur {
			t.Errorf("%s: scur %s, want %s", what, got, scur)
		}
	}
	set := func(targets ...Target) {
		t.Helper()
		if err := c.SetTargets(targets); err != nil {
			t.Fatal(err)
		}
	}
	check("both", "110", "3")
	set(a)
	check("one is gone: what it counted stays, its sessions do not", "110", "1")
	two.set(says(dump(2, 100, 60, "fe,FRONTEND,2,107,1,OPEN,0,\n")))
	set(b, a)
	check("it is back, and counts once", "117", "3")
	if rate, ok := c.snap.Rate(0, c.snap.Table.Column("stot")); ok && rate > 0.001 {
		t.Errorf("a rate of %g for what nobody saw happen", rate)
	}
	if err := c.SetTargets([]Target{a, {Name: "x", Address: "ftp://x"}}); err == nil {
		t.Error("a target that is none was taken")
	}
	if err := c.SetTargets([]Target{a, a}); err == nil {
		t.Error("a target was taken twice")
	}
	if c.SetTargets(nil) == nil {
		t.Error("no target was taken")
	}
	check("refused targets change nothing", "117", "3")
	// Many come and go: what they counted is kept when they are forgotten.
	for i := range maxGone + 3 {
		set(Target{Name: fmt.Sprint("t", i), Address: one.path})
		poll(t, c)
	}
	if len(c.gone) != maxGone {
		t.Errorf("%d targets are remembered, not %d", len(c.gone), maxGone)
	}
	if got, want := cell(t, c.snap.Table, "fe", "FRONTEND", "stot"), fmt.Sprint(117+10*(maxGone+3)); got != want {
		t.Errorf("stot %s, want %s", got, want)
	}
}

func TestTargetsThatHangAmongManyHoldUpNobody(t *testing.T) {
	const n = 40
	hung, fine := newStub(t, nil), newStub(t, nil)
	cfg := Config{Timeout: patience / 3, Targets: []Target{{Name: "hung", Address: hung.path}}}
	for i := range n {
		cfg.Targets = append(cfg.Targets, Target{Name: fmt.Sprint(i), Address: fine.path})
	}
	cfg.Targets = append(cfg.Targets, Target{Name: "hung, too", Address: hung.path})
	c := collector(t, cfg)
	if c.late <= 0 || c.late > cfg.Timeout/2 {
		t.Errorf("one that hangs holds up the others for %v", c.late)
	}
	c.late = 100 * time.Millisecond
	for range 3 {
		// What hangs gives up when the others have answered: if one waits for the other, it
		// never does.
		all := make(chan struct{})
		var answered atomic.Int32
		hung.set(func(net.Conn, string) { <-all })
		fine.set(func(conn net.Conn, _ string) {
			says(dump(1, 100, 50, "fe,FRONTEND,1,10,1,OPEN,0,\n"))(conn, "")
			if answered.Add(1) == n {
				close(all)
			}
		})
		s := poll(t, c)
		if err := s.Targets[0].Err; s.Failed() != 2 || !errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), "hung") {
			t.Fatalf("%d targets failed, the first with %v", s.Failed(), err)
		}
		if got, want := cell(t, s.Table, "fe", "FRONTEND", "stot"), fmt.Sprint(10*n); got != want {
			t.Fatalf("stot %s, want %s", got, want)
		}
	}
}

func TestAPollThatWasCancelledLosesAndDoublesNothing(t *testing.T) {
	var total atomic.Int64
	total.Store(10)
	var gone atomic.Bool
	s := newStub(t, func(conn net.Conn, _ string) {
		if gone.Load() {
			return
		}
		says(dump(1, 100, 50, fmt.Sprintf("fe,FRONTEND,1,%d,1,OPEN,0,\n", total.Load())))(conn, "")
	})
	hung := newStub(t, says(dump(2, 100, 50, "fe,FRONTEND,1,1,1,OPEN,0,\n")))
	c := collector(t, Config{Targets: []Target{{Address: s.path}, {Address: hung.path}}})
	poll(t, c)
	for range 5 {
		total.Add(10)
		hung.set(func(conn net.Conn, _ string) { conn.Read(make([]byte, 1)) })
		ctx, cancel := context.WithCancel(context.Background())
		stop := time.AfterFunc(50*time.Millisecond, cancel)
		if err := c.Poll(ctx); err == nil {
			t.Fatal("a poll that was cancelled ended well")
		}
		stop.Stop()
		cancel()
		hung.set(says(dump(2, 100, 50, "fe,FRONTEND,1,1,1,OPEN,0,\n")))
		if got, want := cell(t, poll(t, c).Table, "fe", "FRONTEND", "stot"), fmt.Sprint(total.Load()+1); got != want {
			t.Fatalf("stot %s, want %s", got, want)
		}
	}
	// What a cancelled poll read is what stays when the process is lost then.
	total.Add(10)
	ctx, cancel := context.WithCancel(context.Background())
	hung.set(func(conn net.Conn, _ string) {
		cancelsBehind(c, 0, cancel)
		conn.Read(make([]byte, 1))
	})
	if err := c.Poll(ctx); err == nil {
		t.Fatal("a poll that was cancelled ended well")
	}
	gone.Store(true)
	hung.set(says(dump(2, 100, 50, "fe,FRONTEND,1,1,1,OPEN,0,\n")))
	for range 2 {
		if got, want := cell(t, poll(t, c).Table, "fe", "FRONTEND", "stot"), fmt.Sprint(total.Load()+1); got != want {
			t.Fatalf("stot %s, want %s", got, want)
		}
	}
}
