package haproxytop

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3"

	"myrmidon/haproxy"
	"myrmidon/internal/textgrid"
)

const header = "# pxname,svname,qcur,scur,slim,stot,bin,bout,ereq,econ,eresp,status,type,req_tot,hrsp_5xx,eint,ttime,\n"

// process serves what answer returns on a socket, and returns its path.
func process(t *testing.T, pid int, answer func() string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "top")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			fmt.Fprintf(conn, "Name: HAProxy\nVersion: 2.6.12\nPid: %d\nUptime_sec: 90\nStart_time_sec: 100\nStopping: 0\n\n", pid)
			io.WriteString(conn, header+answer()+"\n")
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait(); os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// shown is a model that has seen two polls of two processes with a second between them.
func shown(t *testing.T) (*model, *haproxy.Collector) {
	t.Helper()
	var polls atomic.Int64
	rows := func(state string) func() string {
		return func() string {
			n := polls.Load()
			return fmt.Sprintf("www,FRONTEND,,2,100,%d,%d,0,0,,,OPEN,0,%d,0,0,,\n", 10*n, 1000*n, 100*n) +
				fmt.Sprintf("api,web-1,3,1,50,%d,0,0,,%d,0,%s,2,%d,%d,0,12,\n", 5*n, 7*n, state, 50*n, 9*n) +
				fmt.Sprintf("api,BACKEND,3,1,50,%d,0,0,,%d,0,UP,1,%d,0,0,12,\n", 5*n, 7*n, 60*n) +
				"old\x1b[2J,BACKEND,0,0,50,0,0,0,,0,0,UP,1,0,0,0,0,\n"
		}
	}
	cfg := haproxy.Config{FixedRules: true, KeepProcesses: true, Timeout: time.Minute, Targets: []haproxy.Target{
		{Name: "one", Address: process(t, 1, rows("UP"))}, {Name: "two", Address: process(t, 2, rows("DOWN"))},
	}}
	c, err := haproxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	m := &model{}
	for range 2 {
		polls.Add(1)
		if err := c.Poll(context.Background()); err != nil {
			t.Fatal(err)
		}
		c.Use(m.take)
		time.Sleep(20 * time.Millisecond)
	}
	return m, c
}

func text(lines []line) string {
	var b strings.Builder
	for _, l := range lines {
		for _, s := range l {
			b.WriteString(s.text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// names are the rows in the order in which they are shown.
func names(m *model) string {
	var out []string
	for _, r := range m.shown {
		out = append(out, r.name())
	}
	return strings.Join(out, " ")
}

func TestEveryScreenFitsItsTerminal(t *testing.T) {
	m, _ := shown(t)
	for _, detail := range []bool{false, true} {
		m.detail = detail
		for w := 1; w < 220; w += 7 {
			for h := 1; h < 60; h += 5 {
				lines := m.draw(w, h)
				if len(lines) > h {
					t.Fatalf("%dx%d: %d lines", w, h, len(lines))
				}
				for _, l := range lines {
					if n := textgrid.Width(strings.TrimRight(text([]line{l}), "\n")); n > w {
						t.Fatalf("%dx%d: a line takes %d columns: %q", w, h, n, text([]line{l}))
					}
				}
			}
		}
	}
	if got := text(m.draw(20, 4)); !strings.Contains(got, "too small") {
		t.Errorf("a terminal of 20x4 shows %q", got)
	}
}

func TestRowsAreOrderedChosenAndNamed(t *testing.T) {
	m, _ := shown(t)
	const all = "www api api/web-1 old?[2J"
	if got := names(m); got != all {
		t.Errorf("by requests: %s", got)
	}
	screen := text(m.draw(160, 24))
	for _, want := range []string{"2 of 2 targets, 2 processes, 4 rows", "sort requests", "UP 1/2", "DOWN 1/2", "old?[2J", "rates over"} {
		if !strings.Contains(screen, want) {
			t.Errorf("the screen lacks %q:\n%s", want, screen)
		}
	}
	if strings.Contains(screen, "\x1b") {
		t.Error("a name steers the terminal")
	}
	if !strings.Contains(text(m.draw(80, 24)), "DOWN*") {
		t.Errorf("a narrow screen does not say that processes differ:\n%s", text(m.draw(80, 24)))
	}
	for _, step := range []struct{ key, want string }{
		{"s", "api/web-1 api www old?[2J"}, // errors
		{"s", "api/web-1 www api old?[2J"}, // state
		{"r", "api old?[2J www api/web-1"},
		{"r", "api/web-1 www api old?[2J"},
		{"S", "api/web-1 api www old?[2J"},
		{"t", "www"},         // frontends
		{"t", "api old?[2J"}, // backends
		{"t", "api/web-1"},   // servers
		{"t", ""},            // listeners
		{"t", "api/web-1 api www old?[2J"},
		{"/", "api/web-1 api www old?[2J"},
		{"A", "api/web-1 api"},
		{"q", ""},
		{"backspace", "api/web-1 api"},
		{"enter", "api/web-1 api"},
		{"escape", "api/web-1 api www old?[2J"},
	} {
		if m.press(step.key) {
			t.Fatalf("%q quits", step.key)
		}
		if got := names(m); got != step.want {
			t.Errorf("after %q: %q, want %q", step.key, got, step.want)
		}
	}
	if !m.press("q") || !m.press("interrupt") {
		t.Error("q and Ctrl-C do not quit")
	}
}

func TestEnterShowsTheRowAsEachProcessSeesIt(t *testing.T) {
	m, c := shown(t)
	m.press("down")
	m.press("down")
	m.press("enter")
	for range 2 {
		if err := c.Poll(context.Background()); err != nil {
			t.Fatal(err)
		}
		c.Use(m.take)
	}
	screen := text(m.draw(120, 20))
	for _, want := range []string{"api/web-1  server", "one ", "two ", " UP ", " DOWN ", "Esc back"} {
		if !strings.Contains(screen, want) {
			t.Errorf("the screen lacks %q:\n%s", want, screen)
		}
	}
	if m.members[0].rate != 0 {
		t.Errorf("a rate of %g where nothing happened", m.members[0].rate)
	}
	m.press("escape")
	if m.detail || m.cursor != 2 {
		t.Errorf("back: detail %v, cursor %d", m.detail, m.cursor)
	}
	m.press("p")
	if !m.paused || !strings.Contains(text(m.draw(120, 20)), "PAUSED") {
		t.Error("p does not pause")
	}
}

func TestKeysAreNamed(t *testing.T) {
	for want, ev := range map[string]*tcell.EventKey{
		"x": tcell.NewEventKey(tcell.KeyRune, "x", 0), "up": tcell.NewEventKey(tcell.KeyUp, "", 0), "enter": tcell.NewEventKey(tcell.KeyEnter, "", 0),
		"interrupt": tcell.NewEventKey(tcell.KeyCtrlC, "", 0), "": tcell.NewEventKey(tcell.KeyF5, "", 0),
	} {
		if got := keyOf(ev); got != want {
			t.Errorf("%v is called %q, want %q", ev.Name(), got, want)
		}
	}
}

func TestShortNumbersHaveFiveCharacters(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.25: "0.2", 5: "5", 9.94: "9.9", 12.5: "12", 9999: "9999", 12345: "12.3k", 999_999: "1.0M", 5e9: "5.0G"} {
		if got := short(x); got != want {
			t.Errorf("short(%g) = %s, want %s", x, got, want)
		}
	}
}

// TestTheFirstLineAddsUpFrontendsAlone, as a request passes a listener, a frontend, a backend
// and a server.
func TestTheFirstLineAddsUpFrontendsAlone(t *testing.T) {
	m, c := shown(t)
	c.Use(func(s *haproxy.Snapshot) {
		col := s.Table.Column("req_tot")
		want, ok := s.Rate(0, col) // of www, the only frontend
		if !ok || m.sum.requests != want || m.sum.current != 4 || m.sum.in <= 0 {
			t.Errorf("%g requests a second, want %g; %d sessions, want 4; %g bytes", m.sum.requests, want, m.sum.current, m.sum.in)
		}
	})
}

func TestARateIsOfRequestsOrOfSessionsWhereNoneAreCounted(t *testing.T) {
	for _, c := range []struct{ requests, sessions, want float64 }{
		{3, 5, 3}, {math.NaN(), 5, 5}, {0, 5, 5}, {0, 0, 0},
	} {
		r := row{requests: c.requests, sessions: c.sessions}
		if got := r.rate(); got != c.want {
			t.Errorf("of %g requests and %g sessions: %g", c.requests, c.sessions, got)
		}
	}
}

func TestAProcessHasRatesOfItsOwn(t *testing.T) {
	var stot atomic.Int64
	path := process(t, 1, func() string {
		return fmt.Sprintf("tcp,FRONTEND,,2,100,%d,0,0,0,,,OPEN,0,,0,0,,\n", stot.Load()) // without req_tot
	})
	c, err := haproxy.New(haproxy.Config{FixedRules: true, KeepProcesses: true, Timeout: time.Minute, Targets: []haproxy.Target{{Address: path}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	m := &model{}
	var last time.Time
	for k, step := range []struct {
		stot  int64
		grown float64 // NaN for no rate
	}{
		{1000, math.NaN()}, {1500, 500}, {1500, 0}, {20, math.NaN()}, {50, 30},
	} {
		stot.Store(step.stot)
		if err := c.Poll(context.Background()); err != nil {
			t.Fatal(err)
		}
		if k == 0 {
			c.Use(m.take)
			m.press("enter")
		}
		c.Use(m.take)
		got := m.members[0].rate
		want := step.grown / m.at.Sub(last).Seconds()
		if k > 0 && got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("poll %d: %g a second, want %g", k, got, want)
		}
		last = m.at
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTheRowThatIsChosenIsOnTheScreen(t *testing.T) {
	m := &model{at: time.Now(), targets: 3, missing: []string{"two"}}
	for k := range 40 {
		m.all = append(m.all, row{rowKey: rowKey{haproxy.Backend, fmt.Sprintf("be-%02d", k), "BACKEND"}})
	}
	m.arrange()
	for step, key := range slices.Concat(slices.Repeat([]string{"down"}, 45), slices.Repeat([]string{"up"}, 45), []string{"pagedown", "pagedown", "end", "pageup", "home"}) {
		m.press(key)
		lines := m.draw(80, 20)
		chosen := 0
		for _, l := range lines {
			if len(l) > 0 && l[0].style&selected != 0 && strings.HasPrefix(l[0].text, m.selected.proxy) {
				chosen++
			}
		}
		if chosen != 1 || len(lines) != 20 {
			t.Fatalf("step %d, %s: %s is chosen %d times on\n%s", step, key, m.selected.proxy, chosen, text(lines))
		}
	}
	if screen := text(m.draw(80, 20)); !strings.Contains(screen, "2 of 3 targets") || !strings.Contains(screen, "missing: two") {
		t.Errorf("a target is missing on\n%s", screen)
	}
}
