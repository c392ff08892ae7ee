package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// sockets serves what process n, from 1, answers, and returns the paths.
func sockets(t *testing.T, answers ...func() string) (paths []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hap") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for n, answer := range answers {
		path := filepath.Join(dir, fmt.Sprintf("%d.sock", n+1))
		fakeSocket(t, path, func(conn net.Conn) { says(answer())(conn) })
		paths = append(paths, path)
	}
	return paths
}

func always(text string) func() string { return func() string { return text } }

// haproxyRun runs a command within the test.
func haproxyRun(args ...string) (status int, stdout, stderr string) {
	var out, screen bytes.Buffer
	a := &app{stdout: &out, stderr: &screen}
	status = a.run(context.Background(), append([]string{"haproxy"}, args...))
	return status, out.String(), screen.String()
}

func TestCheckKnowsItsLimits(t *testing.T) {
	const rows = "www,FRONTEND,,25,50,50,10,100,200,1,,,OPEN,0,3,10,0,,\n" +
		"api,a,20,1,2,0,4,40,80,,0,0,DOWN 1/2,2,1,4,0,12,\n" +
		"api,b,0,1,2,,4,40,80,,0,0,DOWN (agent),2,1,4,0,12,\n" +
		"api,c,0,1,2,,4,40,80,,0,0,MAINT,2,1,4,0,12,\n" +
		"api,d,0,1,2,,4,40,80,,0,0,UP 1/3,2,1,4,0,12,\n" +
		"api,BACKEND,0,1,2,50,4,40,80,,0,0,DOWN,1,1,4,0,12,\n"
	paths := sockets(t, always(statsOf(1, rows)))
	for _, c := range []struct {
		flags  string
		status int
		want   string
	}{
		{"--max-down 2", checkOK, "servers_down=2;;2;0"},
		{"--max-down 1", checkCritical, "2 servers down (at most 1)"},
		{"--max-backends-down 1", checkOK, "backends_down=1;;1;0"},
		{"--max-backends-down 0", checkCritical, "1 backend down"},
		{"--max-queue 20", checkOK, "queue=20;;20;0"},
		{"--max-queue 19", checkCritical, "queue  server api/a  20 (at most 19)"},
		// Half of the frontend's; what has no limit or a limit of 0 does not count.
		{"--max-session-use 50", checkOK, "session_use=50;;50;0"},
		{"--max-session-use 49.9", checkCritical, "session use  frontend www  50 (at most 49.9)"},
		{"--max-down 2 --match api/[cd]", checkOK, "servers_down=0;;2;0"},
	} {
		status, out, _ := haproxyRun(append(append([]string{"check"}, strings.Fields(c.flags)...), paths...)...)
		if status != c.status || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d, want %d and %q:\n%s", c.flags, status, c.status, c.want, out)
		}
	}
}

func TestCheckAddsErrorsOfAllKinds(t *testing.T) {
	// Each row has what HAProxy counts in rows of its type.
	for _, kind := range []string{
		"www,FRONTEND,,2,5,100,10,100,200,%d,,,OPEN,0,3,10,0,,", "www,FRONTEND,,2,5,100,10,100,200,0,,,OPEN,0,3,10,%d,,",
		"www,BACKEND,,2,5,100,10,100,200,,%d,0,UP,1,3,10,0,,", "www,BACKEND,,2,5,100,10,100,200,,0,%d,UP,1,3,10,0,,",
	} {
		var polls atomic.Int64
		paths := sockets(t, func() string { return statsOf(1, fmt.Sprintf(kind, 1000*polls.Add(1))+"\n") })
		status, out, _ := haproxyRun("check", "--max-errors-rate", "10", "--over", "20ms", paths[0])
		if status != checkCritical || !strings.Contains(out, "end www ") {
			t.Errorf("%s: %d\n%s", kind, status, out)
		}
	}
}

func TestUnusedIsWhatTookNothingSinceTheYoungestBegan(t *testing.T) {
	const rows = "www,FRONTEND,,0,0,50,0,0,0,0,,,OPEN,0,0,0,0,,\n" +
		"tcp,FRONTEND,,0,0,50,7,0,0,0,,,OPEN,0,0,,0,,\n" + // sessions, and no requests counted
		"push,FRONTEND,,0,0,50,0,0,9,0,,,OPEN,0,0,0,0,,\n" + // bytes alone
		"api,web-1,0,0,0,,%d,0,0,,0,0,UP,2,0,0,0,0,\n"
	paths := sockets(t, always(statsOf(1, fmt.Sprintf(rows, 0))),
		always(strings.Replace(statsOf(2, fmt.Sprintf(rows, 1)), "Uptime_sec: 3700", "Uptime_sec: 100", 1)),
		always(strings.Replace(statsOf(3, fmt.Sprintf(rows, 0)), "Uptime_sec: 3700", "Uptime_sec: 200", 1)))
	status, out, screen := haproxyRun(append([]string{"unused"}, paths...)...)
	if status != 0 || !strings.Contains(out, "\nwww ") || strings.Count(out, "\n") != 2 {
		t.Errorf("%d:\n%s", status, out)
	}
	if !strings.Contains(screen, "1 of 4 rows took no traffic in the last 1m40s, since the start of the youngest of 3 processes") {
		t.Errorf("it says %s", screen)
	}
}

func TestUnusedShowsHowManyProcessesAreInTheWorstState(t *testing.T) {
	paths := sockets(t, always(statsOf(1, goodRows)), always(statsOf(2, goodRows)), always(strings.Replace(statsOf(3, goodRows), ",UP,2,", ",DOWN,2,", 1)))
	_, out, _ := haproxyRun(append([]string{"unused", "--type", "server", "--match", "api"}, paths...)...)
	if out != "" {
		t.Errorf("a server with traffic is unused:\n%s", out)
	}
	none := strings.Replace(goodRows, "0,1,2,50,4,40,80,,0,0,UP,2,1,4", "0,0,0,50,0,0,0,,0,0,UP,2,0,0", 1)
	paths = sockets(t, always(statsOf(1, none)), always(statsOf(2, none)), always(strings.Replace(statsOf(3, none), ",UP,2,", ",DOWN,2,", 1)))
	_, out, _ = haproxyRun(append([]string{"unused", "--type", "server"}, paths...)...)
	if !strings.Contains(out, "DOWN 1/3") {
		t.Errorf("it does not say that one of three is down:\n%s", out)
	}
}

func TestWatchHasCountersAsRatesAlone(t *testing.T) {
	var polls atomic.Int64
	paths := sockets(t, func() string {
		return statsOf(1, fmt.Sprintf("www,FRONTEND,,2,5,100,%d,100,200,1,,,OPEN,0,3,10,0,,\n", 10*polls.Add(1)))
	})
	status, out, _ := haproxyRun("watch", "--count", "2", "--every", "20ms", "--fields", "stot,scur,smax", paths[0])
	var rows []watchRow
	for line := range strings.Lines(out) {
		var r watchRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r.What == "row" {
			rows = append(rows, r)
		}
	}
	if status != 0 || len(rows) != 2 {
		t.Fatalf("%d:\n%s", status, out)
	}
	for k, r := range rows {
		if _, raw := r.Values["stot"]; raw || r.Values["scur"] != 2.0 || r.Values["smax"] != 5.0 {
			t.Errorf("poll %d has the values %v", k, r.Values)
		}
		if rate, ok := r.Rates["stot"]; ok != (k > 0) || k > 0 && rate <= 0 || len(r.Rates) > 1 {
			t.Errorf("poll %d has the rates %v", k, r.Rates)
		}
	}
}
