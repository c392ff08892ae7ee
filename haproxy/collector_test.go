package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"myrmidon/internal/testkit/haproxyd"
)

// stub answers on a unix socket, whatever it is asked, by answer.
type stub struct {
	path   string
	mu     sync.Mutex
	answer func(conn net.Conn, command string)
}

func newStub(tb testing.TB, answer func(conn net.Conn, command string)) *stub {
	tb.Helper()
	dir, err := os.MkdirTemp("", "stub")
	if err != nil {
		tb.Fatal(err)
	}
	s := &stub{path: filepath.Join(dir, "s.sock"), answer: answer}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				defer conn.Close()
				buf := make([]byte, 4096)
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				s.mu.Lock()
				answer := s.answer
				s.mu.Unlock()
				answer(conn, string(buf[:n]))
			})
		}
	})
	tb.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
		os.RemoveAll(dir)
	})
	return s
}

func (s *stub) set(answer func(conn net.Conn, command string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// says answers with text.
func says(text string) func(net.Conn, string) {
	return func(conn net.Conn, _ string) { io.WriteString(conn, text) }
}

// process is what a process answers to "show info;show stat".
func dump(pid, start, uptime int, rows string) string {
	return fmt.Sprintf("Name: HAProxy\nVersion: 2.6.12\nPid: %d\nUptime_sec: %d\nStart_time_sec: %d\nStopping: 0\n\n", pid, uptime, start) +
		"# pxname,svname,scur,stot,smax,status,type,\n" + rows + "\n"
}

func collector(tb testing.TB, cfg Config) *Collector {
	tb.Helper()
	cfg.FixedRules = true
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	c, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func poll(tb testing.TB, c *Collector) *Snapshot {
	tb.Helper()
	if err := c.Poll(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return &c.snap
}

// cell is a field of the row of proxy and server.
func cell(tb testing.TB, t *Table, proxy, server, field string) string {
	tb.Helper()
	for i := range t.Len() {
		if string(t.Proxy(i)) == proxy && string(t.Server(i)) == server {
			return t.Text(i, t.Column(field))
		}
	}
	tb.Fatalf("there is no row %s/%s", proxy, server)
	return ""
}

func TestBadTargetsAreNamedAndTheOthersServed(t *testing.T) {
	good := newStub(t, says(dump(1, 100, 5, "app,s,1,10,2,UP,2,\n")))
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	whole := dump(2, 100, 5, "app,s,1,10,2,UP,2,\n")
	hang := func(conn net.Conn, _ string) { io.Copy(io.Discard, conn) }
	var next atomic.Pointer[chan struct{}] // to be closed when what hangs does, and all that it said before was read
	hangBehind := func(text string) string {
		return newStub(t, func(conn net.Conn, s string) {
			hung := next.Swap(nil)
			io.WriteString(conn, text)
			taken(t, conn)
			if hung != nil {
				close(*hung)
			}
			hang(conn, s)
		}).path
	}
	for _, c := range []struct {
		name, address string
		want          string
		is            error
	}{
		{"missing", filepath.Join(dir, "none.sock"), "is HAProxy running", fs.ErrNotExist},
		{"not a socket", file, "it is not a socket", nil},
		{"hangs", hangBehind(""), "did not answer in time", os.ErrDeadlineExceeded},
		{"hangs halfway", hangBehind(whole[:140]), "read after 140 bytes", os.ErrDeadlineExceeded},
		{"closes at once", newStub(t, says("")).path, "said nothing", ErrTruncated},
		{"closes in info", newStub(t, says(whole[:20])).path, "after 20 bytes", ErrTruncated},
		{"closes in the dump", newStub(t, says(whole[:len(whole)-1])).path, "no blank line", ErrTruncated},
		{"denies", newStub(t, says("Permission denied\n\n")).path, "level user", fs.ErrPermission},
		{"knows nothing", newStub(t, says("Unknown command. Please enter one of the following commands only :\n\n")).path, "knows neither", ErrNotStats},
		{"speaks HTTP", newStub(t, says("HTTP/1.1 400 Bad request\r\n\r\n")).path, "is this a stats socket", ErrNotStats},
		{"has a damaged row", newStub(t, says(dump(2, 100, 5, "app,s,1,\n"))).path, "row 1", nil},
	} {
		c := c
		t.Run(c.name, func(t *testing.T) {
			single, err := newOnce(Config{
				Targets: []Target{{Address: good.path, Name: "good"}, {Address: c.address, Name: "bad"}}, FixedRules: true, Timeout: patience,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer single.Close()
			var wg sync.WaitGroup
			if c.is == os.ErrDeadlineExceeded {
				hung := make(chan struct{})
				next.Store(&hung)
				timesOut(t, &wg, single, 1, hung)
			}
			snap := poll(t, single)
			wg.Wait()
			if got := cell(t, snap.Table, "app", "s", "stot"); got != "10" || snap.Failed() != 1 || snap.Targets[0].Err != nil {
				t.Errorf("stot is %s, %d failed, the good one: %v", got, snap.Failed(), snap.Targets[0].Err)
			}
			bad := snap.Targets[1].Err
			if bad == nil || !strings.Contains(bad.Error(), c.want) || !strings.Contains(bad.Error(), "bad") || c.is != nil && !errors.Is(bad, c.is) {
				t.Errorf("the error is %v", bad)
			}
			// And in real time, which is short only for what does not answer.
			timeout := patience
			if c.is == os.ErrDeadlineExceeded {
				timeout = 200 * time.Millisecond
			}
			began := time.Now()
			_, err = ReadAll(context.Background(), Config{Targets: []Target{{Address: c.address}}, FixedRules: true, Timeout: timeout})
			if took := time.Since(began); took > patience/2 {
				t.Errorf("it took %v", took)
			}
			if !errors.Is(err, ErrNone) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("alone: %v", err)
			}
		})
	}
}

func TestASocketThatClosesAtAnyByteIsCutOff(t *testing.T) {
	whole := dump(2, 100, 5, "app,s,1,10,2,UP,2,\napp,\"t,\"\"u\",1,10,2,UP,2,\n")
	s, ctx := newStub(t, nil), within(t)
	for n := range len(whole) {
		s.set(says(whole[:n]))
		replies, err := Read(ctx, Target{Address: s.path})
		if err == nil {
			_, err = ParseCSV(replies[0].CSV)
		}
		if !errors.Is(err, ErrTruncated) {
			t.Fatalf("%d bytes of %d: %v", n, len(whole), err)
		}
	}
}

func TestPasswordsAreInNoError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, address := range []string{"http://admin:hunter2@" + addr + "/stats", "http://admin:hunter2@bad host/", "http://admin:hunter2%zz@h/", "ftp://admin:hunter2@h/"} {
		_, err := Read(context.Background(), Target{Address: address})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}

func TestCountersNeverGoBack(t *testing.T) {
	a := newStub(t, says(dump(1, 100, 50, "app,s,5,100,9,UP,2,\n")))
	b := newStub(t, says(dump(2, 100, 50, "app,s,3,1000,4,UP,2,\n")))
	c := collector(t, Config{Targets: []Target{{Address: a.path, Name: "a"}, {Address: b.path, Name: "b"}}})
	check := func(what, stot, scur string) {
		t.Helper()
		s := poll(t, c)
		if got := cell(t, s.Table, "app", "s", "stot"); got != stot {
			t.Errorf("%s: stot is %s, want %s", what, got, stot)
		}
		if got := cell(t, s.Table, "app", "s", "scur"); got != scur {
			t.Errorf("%s: scur is %s, want %s", what, got, scur)
		}
	}
	check("at first", "1100", "8")
	a.set(says(dump(1, 100, 51, "app,s,4,110,9,UP,2,\n")))
	check("traffic", "1110", "7")
	a.set(says(dump(7, 160, 0, "app,s,1,2,1,UP,2,\n")))
	check("restarted", "1112", "4")
	a.set(says(dump(7, 160, 1, "app,s,1,3,1,UP,2,\n")))
	check("and on", "1113", "4")
	b.set(says("Permission denied\n"))
	check("out of reach", "1113", "1")
	check("still", "1113", "1")
	b.set(says(dump(2, 100, 60, "app,s,2,1010,4,UP,2,\n")))
	check("back", "1123", "3")
	b.set(says("Permission denied\n"))
	check("away again", "1123", "1")
	b.set(says(dump(3, 180, 0, "app,s,2,5,4,UP,2,\n")))
	check("back as another", "1128", "3")
	b.set(says(dump(3, 180, 1, "app,s,2,1,4,UP,2,\n")))
	check("cleared", "1129", "3")
	// The same PID after a reboot.
	b.set(says(dump(3, 999, 1, "app,s,2,1,4,UP,2,\n")))
	check("the same PID", "1130", "3")
	b.set(says(dump(3, 999, 2, "new,s,2,1,4,UP,2,\napp,s,2,3,4,UP,2,\n")))
	check("another order", "1132", "3")
}

func TestRatesCountWhatHappenedInTheWindow(t *testing.T) {
	a := newStub(t, says(dump(1, 100, 500, "app,s,5,100,9,UP,2,\n")))
	b := newStub(t, says("Permission denied\n"))
	c := collector(t, Config{Targets: []Target{{Address: a.path}, {Address: b.path}}, Window: time.Nanosecond})
	rate := func(want float64) {
		t.Helper()
		s := poll(t, c)
		r, ok := s.Rate(0, s.Table.Column("stot"))
		if got := r * s.Window.Seconds(); !ok || got < want-.01 || got > want+.01 {
			t.Errorf("the growth is %v, %v, want %v", got, ok, want)
		}
		if _, ok := s.Rate(0, s.Table.Column("scur")); ok {
			t.Error("a gauge has a rate")
		}
	}
	if _, ok := poll(t, c).Rate(0, 3); ok {
		t.Error("the first poll has a rate")
	}
	a.set(says(dump(1, 100, 501, "app,s,5,130,9,UP,2,\n")))
	rate(30)
	a.set(says(dump(2, 150, 0, "app,s,5,4,9,UP,2,\n")))
	rate(4)
	b.set(says(dump(9, 10, 5000, "app,s,5,1000000,9,UP,2,\n")))
	rate(0) // it counted that before it was seen
	b.set(says(dump(9, 10, 5001, "app,s,5,1000007,9,UP,2,\n")))
	rate(7)
	b.set(says("Permission denied\n"))
	rate(0)
	b.set(says(dump(9, 10, 5003, "app,s,5,1000900,9,UP,2,\n")))
	rate(0) // unseen
	b.set(says(dump(9, 10, 5004, "app,s,5,1000901,9,UP,2,\nnew,s,1,77,1,UP,2,\n")))
	rate(1)
	b.set(says(dump(9, 10, 5004, "new,s,1,78,1,UP,2,\napp,s,5,1000902,9,UP,2,\n")))
	s := poll(t, c)
	r, _ := s.Rate(1, s.Table.Column("stot"))
	if got := r * s.Window.Seconds(); string(s.Table.Proxy(1)) != "new" || got < .99 || got > 1.01 {
		t.Errorf("the growth of %s is %v", s.Table.Proxy(1), got)
	}
}

func TestChangesAreEvents(t *testing.T) {
	a := newStub(t, says(dump(1, 100, 5, "app,s,5,100,9,UP,2,\napp,t,5,100,9,UP,2,\n")))
	b := newStub(t, says(dump(2, 100, 5, "app,s,5,100,9,UP,2,\napp,t,5,100,9,UP,2,\n")))
	c := collector(t, Config{Targets: []Target{{Address: a.path, Name: "a"}, {Address: b.path, Name: "b"}}})
	check := func(want ...string) {
		t.Helper()
		var got []string
		for _, e := range poll(t, c).Events {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s/%s %s>%s", e.Kind, e.Target, e.Proxy, e.Server, e.From, e.To)))
			if e.Time.IsZero() {
				t.Error("an event has no time")
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check()
	a.set(says(dump(1, 100, 5, "app,s,5,100,9,UP 1/3,2,\napp,t,5,100,9,UP,2,\n")))
	check()
	a.set(says(dump(1, 100, 5, "app,s,5,100,9,DOWN,2,\napp,t,5,100,9,UP,2,\n")))
	check("state a app/s UP>DOWN")
	check()
	a.set(says("Permission denied\n"))
	check("lost a / >")
	check()
	a.set(says(dump(1, 100, 9, "app,t,5,100,9,UP,2,\napp,s,5,100,9,UP,2,\n")))
	check("back a / >", "state a app/s DOWN>UP")
	b.set(says(dump(3, 200, 0, "app,s,5,1,9,UP,2,\napp,t,5,1,9,DOWN,2,\n")))
	check("restart b / >", "state b app/t UP>DOWN")
}

func TestAReloadBehindAMasterSocketLosesNothing(t *testing.T) {
	s := haproxyd.Start(t, haproxyd.Config{Frontends: 1, Backends: 1, Servers: 3, Master: true})
	s.Get(0, 5, "/")
	c, err := New(Config{Targets: []Target{{Address: s.Master}}, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	snap := poll(t, c)
	if got := cell(t, snap.Table, "fe_000", "FRONTEND", "hrsp_2xx"); got != "5" {
		t.Fatalf("before: %s", got)
	}
	held := s.Hold(0)
	s.Reload()
	s.Get(0, 2, "/")
	snap = poll(t, c)
	if n := len(snap.Targets[0].Processes); n != 2 {
		t.Fatalf("%d processes, want the old worker and the new: %+v", n, snap.Targets[0])
	}
	if got := cell(t, snap.Table, "fe_000", "FRONTEND", "hrsp_2xx"); got != "7" {
		t.Errorf("with the old worker: %s", got)
	}
	if got := cell(t, snap.Table, "fe_000", "FRONTEND", "status"); got != "OPEN" {
		t.Errorf("the old worker's state counts: %s", got)
	}
	if got := cell(t, snap.Table, "fe_000", "FRONTEND", "scur"); got != "1" {
		t.Errorf("the connection of the old worker is missing: %s", got)
	}
	held.Close()
	deadline := time.Now().Add(patience)
	for len(snap.Targets[0].Processes) > 1 && time.Now().Before(deadline) {
		snap = poll(t, c)
		if got := cell(t, snap.Table, "fe_000", "FRONTEND", "hrsp_2xx"); got != "7" {
			t.Fatalf("while it ends: %s", got)
		}
	}
	if n := len(snap.Targets[0].Processes); n != 1 {
		t.Errorf("%d processes are left", n)
	}
	if got := cell(t, snap.Table, "fe_000", "FRONTEND", "hrsp_2xx"); got != "7" {
		t.Errorf("after it ended: %s", got)
	}
}

func TestTagsOfANewVersionAreLearnedOnce(t *testing.T) {
	var asked atomic.Int32
	var fails atomic.Bool
	fails.Store(true)
	answer := func(conn net.Conn, command string) {
		if strings.HasPrefix(command, "show info") {
			io.WriteString(conn, "Name: HAProxy\nVersion: 3.9.1\nPid: 1\nUptime_sec: 5\nStart_time_sec: 100\n\n"+
				"# pxname,svname,stot,iid,sid,type,h9_frames,h9_peak,\nweb,FRONTEND,5,7,0,0,10,4,\nweb,sock-1,5,7,1,3,10,4,\n\n")
			return
		}
		if command != "show stat 7 -1 -1 typed\n" {
			t.Errorf("it asks %q", command)
		}
		if asked.Add(1); fails.Load() {
			return
		}
		io.WriteString(conn, "F.7.0.0.pxname.1:KNS:str:web\nF.7.0.1.svname.1:KNS:str:FRONTEND\n"+
			"F.7.0.9.h9_frames.1:MCP:u64:10\nF.7.0.10.h9_peak.1:MMP:u64:4\n\n")
	}
	a, b := newStub(t, answer), newStub(t, answer)
	c, err := New(Config{Targets: []Target{{Address: a.path}, {Address: b.path}}, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	show := func() string {
		tab := poll(t, c).Table
		return cell(t, tab, "web", "FRONTEND", "h9_frames") + " " + cell(t, tab, "web", "FRONTEND", "h9_peak")
	}
	if got := show(); got != "10 4" {
		t.Errorf("by no tags: %s", got)
	}
	fails.Store(false)
	asked.Store(0)
	for range 3 {
		if got := show(); got != "20 4" {
			t.Errorf("by its tags: %s", got)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("it asked %d times", n)
	}
	if f := c.Rules().field("h9_frames", Frontend); f.Source != SourceLearned || f.Version != "3.9.1" {
		t.Errorf("the field is %+v", f)
	}
}

// newMaster is a stub of a master socket: proc is what it says of its workers, and worker
// what they answer.
func newMaster(t *testing.T, proc string, worker func(command string) string) *stub {
	t.Helper()
	return newStub(t, func(conn net.Conn, command string) {
		answer := "Unknown command\n\n"
		switch {
		case strings.HasPrefix(command, "show proc"):
			answer = proc
		case strings.HasPrefix(command, "@!"):
			answer = worker(command)
		}
		io.WriteString(conn, answer)
	})
}

func TestOldWorkersAreThoseThatTheMasterSays(t *testing.T) {
	// The second is as HAProxy 2.2 writes it.
	for name, proc := range map[string]string{
		"2.6": "#<PID> <type> <reloads> <uptime> <version>\n10 master 1 0d 2.6\n# workers\n12 worker 0 0d 2.6\n# old workers\n11 worker 1 0d 2.6\n# programs\n\n",
		"2.2": "#<PID> <type> <relative PID> <reloads> <uptime> <version>\n10 master 0 1 0d 2.2\n# workers\n12 worker 1 0 0d 2.2\n# old workers\n11 [was: 1] 1 0d 2.2\n13 [was: 1] 2 0d 2.2\n# programs\n\n",
	} {
		s := newMaster(t, proc, func(command string) string {
			switch {
			case strings.HasPrefix(command, "@!12 show info;@!12 show stat;quit"):
				return dump(12, 100, 5, "app,s,1,10,2,UP,2,\n")
			case strings.HasPrefix(command, "@!11 "):
				return dump(11, 50, 55, "app,s,1,5,2,DOWN,2,\n")
			}
			return "Can't find the target PID matching the prefix '@!13'\n"
		})
		snap := poll(t, collector(t, Config{Targets: []Target{{Address: s.path}}}))
		got := cell(t, snap.Table, "app", "s", "stot") + " " + cell(t, snap.Table, "app", "s", "status")
		if got != "15 UP" || snap.Failed() != 0 || len(snap.Targets[0].Processes) != 2 {
			t.Errorf("%s: %s, %+v", name, got, snap.Targets[0])
		}
	}
}

func TestAFrozenProcessDoesNotHoldUpTheOthers(t *testing.T) {
	cfg := haproxyd.Config{Frontends: 1, Backends: 1, Servers: 2}
	a, b := haproxyd.Start(t, cfg), haproxyd.Start(t, cfg)
	a.Get(0, 3, "/")
	b.Get(0, 4, "/")
	c := collector(t, Config{Targets: []Target{{Address: a.Socket}, {Address: b.Socket}}})
	poll(t, c)
	b.Freeze()
	var wg sync.WaitGroup
	timesOut(t, &wg, c, 1, nil)
	snap := poll(t, c)
	wg.Wait()
	if got := cell(t, snap.Table, "fe_000", "FRONTEND", "hrsp_2xx"); got != "7" || snap.Failed() != 1 {
		t.Errorf("%s, %d failed", got, snap.Failed())
	}
	if _, err := ReadAll(context.Background(), Config{Targets: []Target{{Address: b.Socket}}, Timeout: 200 * time.Millisecond}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("alone: %v", err)
	}
	b.Thaw()
	b.Get(0, 1, "/")
	snap = poll(t, c)
	if got := cell(t, snap.Table, "fe_000", "FRONTEND", "hrsp_2xx"); got != "8" || snap.Failed() != 0 {
		t.Errorf("%s, %d failed", got, snap.Failed())
	}
}

func TestASnapshotMayBeReadDuringPolls(t *testing.T) {
	s := newStub(t, says(dump(1, 100, 5, "app,s,5,100,9,UP,2,\napp,t,5,100,9,UP,2,\n")))
	c := collector(t, Config{Targets: []Target{{Address: s.path}}, KeepProcesses: true})
	poll(t, c)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				c.Use(func(s *Snapshot) {
					n := 0
					s.Each(func(p *Process, tab *Table) { n += tab.Len() })
					if s.Table.Len() != 2 || n != 2 || cell(t, s.Table, "app", "t", "stot") != "100" {
						t.Errorf("%d rows, %d of processes", s.Table.Len(), n)
					}
					s.Rate(0, 3)
				})
				runtime.Gosched()
			}
		})
	}
	for range 200 {
		if err := c.Poll(context.Background()); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}

func TestACancelledPollPublishesNothing(t *testing.T) {
	s := newStub(t, says(dump(1, 100, 5, "app,s,5,100,9,UP,2,\n")))
	c := collector(t, Config{Targets: []Target{{Address: s.path}}})
	poll(t, c)
	at := c.snap.Time
	s.set(func(conn net.Conn, _ string) { io.Copy(io.Discard, conn) })
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := c.Poll(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := Read(ctx, Target{Address: s.path}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if took := time.Since(at); took > 20*time.Second {
		t.Errorf("it took %v to end", took)
	}
	if c.snap.Time != at || c.snap.Failed() != 0 {
		t.Error("it published")
	}
}
