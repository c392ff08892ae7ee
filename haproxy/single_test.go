package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// checkSingle fails unless one look at the targets finds what the first poll of a collector
// does, and returns it.
func checkSingle(t *testing.T, cfg Config) *Snapshot {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pollErr := c.Poll(context.Background())
	snap, err := ReadAll(context.Background(), cfg)
	if fmt.Sprint(err) != fmt.Sprint(pollErr) {
		t.Fatalf("one look gives %v, a poll %v", err, pollErr)
	}
	if err != nil {
		return snap
	}
	for i := range snap.Targets {
		got, want := &snap.Targets[i], &c.snap.Targets[i]
		if fmt.Sprint(got.Err) != fmt.Sprint(want.Err) || !slices.Equal(got.Processes, want.Processes) {
			t.Fatalf("%s: got %v, %v, want %v, %v", got.Name, got.Err, got.Processes, want.Err, want.Processes)
		}
	}
	if got, want := rows(snap.Table), rows(c.snap.Table); !slices.Equal(got, want) || csvOf(t, snap.Table) != csvOf(t, c.snap.Table) {
		t.Fatalf("%d rows, want %d: got\n%.2000s\nwant\n%.2000s", len(got), len(want), csvOf(t, snap.Table), csvOf(t, c.snap.Table))
	}
	return snap
}

// Dumps of more than a few rows are merged while they come, by rules that are learned then.
func TestALargeFleetOfHAProxy30IsOne(t *testing.T) {
	old, young := headers26and30()
	large := func(n int) []map[string]string {
		var out []map[string]string
		for i := range n {
			out = append(out, map[string]string{
				"pxname": fmt.Sprint("www", i), "svname": "FRONTEND", "type": "0", "iid": fmt.Sprint(i + 2), "status": "OPEN", "stot": "1", "h1sess": "1", "-": "-",
				"last_chk": strings.Repeat("x", 200),
			})
		}
		return out
	}
	typed := "F.2.0.0.pxname.1:KNS:str:www0\nF.2.0.1.svname.1:KNS:str:FRONTEND\nF.2.0.103.h1sess.1:MCP:u64:2\n"
	var asked atomic.Int32
	target := func(version string, pid int, columns []string) Target {
		answer := answer30(version, pid, columns, typed, large(500)...)
		return Target{Address: newStub(t, func(conn net.Conn, command string) {
			if strings.HasPrefix(command, question) {
				asked.Add(1)
			}
			if pid > 1 {
				time.Sleep(10 * time.Millisecond) // the first has its rows by then
			}
			answer(conn, command)
		}).path}
	}
	of26 := func(pid int) Target { return target("2.6.12", pid, old) }
	of30 := func(pid int) Target { return target("3.0.11", pid, young) }
	for name, c := range map[string]struct {
		want    string
		targets []Target
	}{
		"3.0":          {"3", []Target{of30(1), of30(2), of30(3)}},
		"2.6 and 3.0":  {"2", []Target{of26(1), of30(2), of26(3), of30(4), of26(5)}},
		"3.0 then 2.6": {"1", []Target{of30(1), of26(2), of26(3)}},
	} {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			snap := checkSingle(t, Config{Targets: c.targets})
			if n := asked.Load(); name == "3.0" && n != 6 {
				t.Errorf("a poll and a look asked three targets %d times", n)
			}
			if got := cell(t, snap.Table, "www499", "FRONTEND", "h1sess"); got != c.want {
				t.Errorf("h1sess is %s, want %s", got, c.want)
			}
		})
	}
}

func TestADamagedRowSpoilsOnlyItsDump(t *testing.T) {
	row := func(i int) string { return fmt.Sprintf("app,s%d,1,10,2,UP,2,\n", i) }
	targets := make([]Target, 3)
	for bad := range targets {
		for i := range targets {
			rows := row(1) + row(2) + row(3)
			if i == bad {
				rows = row(1) + row(2) + "app,s3,1,\n"
			}
			targets[i] = Target{Address: newStub(t, says(dump(i+1, 100, 5, rows))).path}
		}
		if snap := checkSingle(t, Config{Targets: targets, FixedRules: true}); cell(t, snap.Table, "app", "s3", "stot") != "20" {
			t.Errorf("with the damaged one at %d:\n%s", bad, csvOf(t, snap.Table))
		}
	}
}

// A dump of which rows were merged already is forgotten by reading all others again. What
// hung has had its time.
func TestATargetThatHangsHalfwayIsWaitedForOnce(t *testing.T) {
	var rows strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&rows, "app,s%d,1,10,2,UP,2,\n", i)
	}
	for hangs := range 3 {
		var c *Collector
		var asked [3]atomic.Int32
		hung := make(chan struct{})
		targets := make([]Target, 3)
		for i := range targets {
			answer := dump(i+1, 100, 5, rows.String())
			targets[i] = Target{Address: newStub(t, func(conn net.Conn, _ string) {
				again := asked[i].Add(1) > 1
				if i != hangs {
					io.WriteString(conn, answer)
				}
				if i != hangs || again {
					return
				}
				for k, other := range c.slots {
					if k != hangs {
						other.read.Wait() // the others have their rows
					}
				}
				io.WriteString(conn, answer[:len(answer)*3/4])
				taken(t, conn)
				close(hung)
				io.Copy(io.Discard, conn)
			}).path}
		}
		c, err := newOnce(Config{Targets: targets, FixedRules: true, Timeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		timesOut(t, &wg, c, hangs, hung)
		snap := poll(t, c)
		wg.Wait()
		c.Close()
		for i := range asked {
			want := int32(2)
			if i == hangs {
				want = 1
			}
			if n := asked[i].Load(); n != want {
				t.Errorf("the target %d hangs: target %d was asked %d times, want %d", hangs, i, n, want)
			}
		}
		if got := cell(t, snap.Table, "app", "s1999", "stot"); got != "20" || snap.Failed() != 1 || !errors.Is(snap.Targets[hangs].Err, os.ErrDeadlineExceeded) {
			t.Errorf("the target %d hangs: stot is %s, its error %v", hangs, got, snap.Targets[hangs].Err)
		}
	}
}

// Memory for sums grows in other steps than that for rows.
func TestRowsThatGetShorterFlowIn(t *testing.T) {
	var dump strings.Builder
	dump.WriteString("# pxname,svname,weight,uweight,throttle,rtime,cookie,type,\n")
	for i := range 6000 {
		fmt.Fprintf(&dump, "p,s%d,1,2,3,4,%s,2,\n", i, strings.Repeat("c", 200*(6000-i)/6000))
	}
	dump.WriteString("\n")
	for _, step := range []int{16 << 10, 100 << 10} {
		if !checkStream(t, step, dump.String()) {
			t.Errorf("by %d: it is not whole", step)
		}
	}
}
