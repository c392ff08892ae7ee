package haproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestAMasterThatReloadsIsWaitedFor: between its old self and its new one, a master has its
// socket and does not listen.
func TestAMasterThatReloadsIsWaitedFor(t *testing.T) {
	dir, err := os.MkdirTemp("", "master") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "m.sock")
	var resets atomic.Int32
	var wg sync.WaitGroup
	listen := func() *net.UnixListener {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".new", Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				if resets.Add(-1) >= 0 {
					conn.Close() // with or without what was sent unread: reset or closed
					continue
				}
				answer := "Unknown command\n\n"
				buf := make([]byte, 4096)
				n, _ := conn.Read(buf)
				switch command := string(buf[:n]); {
				case strings.HasPrefix(command, "show proc"):
					answer = "10 master 1 0d 2.6\n# workers\n12 worker 0 0d 2.6\n\n"
				case strings.HasPrefix(command, "@!12 "):
					answer = dump(12, 100, 5, "app,s,1,10,2,UP,2,\n")
				}
				io.WriteString(conn, answer)
				conn.Close()
			}
		})
		return l
	}
	l := listen()
	c := collector(t, Config{Targets: []Target{{Address: path}}})
	poll(t, c)
	l.Close()
	polled := make(chan error, 1)
	go func() { polled <- c.Poll(context.Background()) }()
	select {
	case err := <-polled:
		t.Fatalf("it was not waited for: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	l = listen()
	if err := <-polled; err != nil || len(c.snap.Events) != 0 {
		t.Errorf("%v, events %+v", err, c.snap.Events)
	}
	resets.Store(3)
	if snap := poll(t, c); len(snap.Events) != 0 {
		t.Errorf("events %+v", snap.Events)
	}
	l.Close()
	wg.Wait()

	// One that is gone is not waited for to the end of its time, and is named.
	c.cfg.Timeout = 100 * time.Millisecond
	if err := c.Poll(context.Background()); err == nil || !strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) {
		t.Errorf("a master that is gone: %v", err)
	}
}

// TestARestartWithTheSamePIDIsKnownByItsUptime: before HAProxy 2.5 there is no start time, and
// in a container the PID is always the same.
func TestARestartWithTheSamePIDIsKnownByItsUptime(t *testing.T) {
	s := newStub(t, nil)
	c := collector(t, Config{Targets: []Target{{Address: s.path}}})
	for _, x := range []struct {
		uptime     int
		stot, want string
		restarts   int
	}{
		{100, "50", "50", 0},
		{101, "55", "55", 0},
		{1, "60", "115", 1}, // it took more since it began than the one before had
		{2, "61", "116", 0},
	} {
		s.set(says(dump(1, 0, x.uptime, "app,s,1,"+x.stot+",2,UP,2,\n")))
		snap := poll(t, c)
		if got := cell(t, snap.Table, "app", "s", "stot"); got != x.want || len(snap.Events) != x.restarts {
			t.Errorf("up %d s: %s, want %s; events %+v", x.uptime, got, x.want, snap.Events)
		}
	}
}

func TestAWorkerThatTheMasterHasAndDoesNotFindIsMissing(t *testing.T) {
	const proc = "10 master 1 0d 2.6\n# workers\n12 worker 0 0d 2.6\n13 worker 0 0d 2.6\n# old workers\n11 worker 1 0d 2.6\n\n"
	s := newMaster(t, proc, func(command string) string {
		if strings.HasPrefix(command, "@!12 ") {
			return dump(12, 100, 5, "app,s,1,10,2,UP,2,\n")
		}
		return "Can't find the target PID matching the prefix '@!13'\n"
	})
	snap := poll(t, collector(t, Config{Targets: []Target{{Address: s.path}}}))
	err := snap.Targets[0].Err
	if err == nil || !strings.Contains(err.Error(), "worker 13") || strings.Contains(err.Error(), "worker 11") || len(snap.Targets[0].Processes) != 1 {
		t.Errorf("%v, %+v", err, snap.Targets[0].Processes)
	}
}

// TestWhatAProcessCountedLongBeforeItTookAPlaceIsNoRate: another process may answer behind an
// address, one that began long ago.
func TestWhatAProcessCountedLongBeforeItTookAPlaceIsNoRate(t *testing.T) {
	s := newStub(t, nil)
	c := collector(t, Config{Targets: []Target{{Address: s.path}}, Window: 10 * time.Second})
	clock := time.Unix(1_700_000_000, 0)
	c.now = func() time.Time { return clock }
	for k, x := range []struct {
		pid, start, uptime, stot int
		rate                     float64
	}{
		{1, 100, 5000, 1000, 0},
		{1, 100, 5001, 1010, 10},
		{2, 200, 4000, 900_000, 5}, // ten in two seconds
		{2, 200, 4001, 900_020, 10},
		{3, 4000, 0, 30, 15}, // it began in the window: all that it counted is of it
	} {
		clock = clock.Add(time.Second)
		s.set(says(dump(x.pid, x.start, x.uptime, fmt.Sprintf("app,s,1,%d,2,UP,2,\n", x.stot))))
		snap := poll(t, c)
		if r, _ := snap.Rate(0, snap.Table.Column("stot")); r != x.rate {
			t.Errorf("poll %d: %v a second over %v, want %v", k, r, snap.Window, x.rate)
		}
	}
}

func TestAWorkerThatFailsForAPollCountsOnce(t *testing.T) {
	var fails atomic.Bool
	var polls atomic.Int64
	const proc = "10 master 1 0d 2.6\n# workers\n12 worker 0 0d 2.6\n# old workers\n11 worker 1 0d 2.6\n\n"
	s := newMaster(t, proc, func(command string) string {
		switch {
		case strings.HasPrefix(command, "@!12 "):
			return dump(12, 100, 5, fmt.Sprintf("app,s,1,%d,2,UP,2,\n", polls.Load()))
		case fails.Load():
			return "Name: HAPro"
		}
		return dump(11, 50, 55, "app,s,1,1000,2,UP,2,\n")
	})
	c := collector(t, Config{Targets: []Target{{Address: s.path}}})
	for k, failing := range []bool{false, true, true, false, true, false} {
		fails.Store(failing)
		polls.Store(int64(k))
		snap := poll(t, c)
		if got := cell(t, snap.Table, "app", "s", "stot"); got != fmt.Sprint(1000+k) || (snap.Failed() == 1) != failing {
			t.Errorf("poll %d: %s sessions, want %d; %d failed", k, got, 1000+k, snap.Failed())
		}
	}
}
