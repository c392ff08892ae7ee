package haproxytop

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/vt"

	"myrmidon/haproxy"
)

// terminal is one that tcell draws on as on a real one, in escape sequences, and that
// sends keys.
type terminal struct {
	vt.MockTerm
	t    *testing.T
	w, h int
}

// screen is what the terminal shows.
func (s *terminal) screen() string {
	var b strings.Builder
	for y := range s.h {
		for x := range s.w {
			c := s.GetCell(vt.Coord{X: vt.Col(x), Y: vt.Row(y)}).C
			if c == "" {
				c = " "
			}
			b.WriteString(c)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// await waits until the terminal shows want.
func (s *terminal) await(want string) {
	s.t.Helper()
	s.until(want, true)
}

// until waits until the terminal shows text, or does not.
func (s *terminal) until(text string, shows bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); strings.Contains(s.screen(), text) != shows; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("showing %q does not become %v:\n%s", text, shows, s.screen())
		}
	}
}

// start runs the loop on a terminal of 120 by 20, before a collector that was polled.
func start(t *testing.T) (s *terminal, c *haproxy.Collector, polled chan error, done chan error, stop func()) {
	t.Helper()
	_, c = shown(t)
	s = &terminal{vt.NewMockTerm(vt.MockOptSize{X: 120, Y: 20}), t, 120, 20}
	screen, err := tcell.NewTerminfoScreenFromTty(s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	polled, done = make(chan error), make(chan error, 1)
	go func() { done <- loop(ctx, Config{Collector: c, Polled: polled}, screen) }()
	t.Cleanup(stop)
	return s, c, polled, done, stop
}

func ended(t *testing.T, done chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the loop does not end")
	}
}

func TestTheLoopDrawsPollsAndTakesKeys(t *testing.T) {
	s, c, polled, done, _ := start(t)
	s.await("reading ...")
	polled <- nil
	s.await("2 of 2 targets, 2 processes, 4 rows")
	s.await("frontends: req/s")
	for _, step := range []struct{ keys, want string }{
		{"s", "sort errors"},
		{"t", "type frontend"},
		{"/a", "filter a_"},
		{"\r", "filter a "},
		{"tttt", "type all"},
		{"j\r", "Esc back"},
		{"p", "PAUSED"},
	} {
		s.SendRaw([]byte(step.keys))
		s.await(step.want)
	}
	// Nothing moves while it is paused, and everything goes on after that: here with one
	// other target.
	other := process(t, 3, func() string { return "www,FRONTEND,,2,100,0,0,0,0,,,OPEN,0,0,0,0,,\n" })
	if err := c.SetTargets([]haproxy.Target{{Name: "three", Address: other}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Poll(context.Background()); err != nil {
		t.Fatal(err)
	}
	polled <- errors.New("one: gone\ntwo: gone")
	s.await("one: gone; two: gone")
	polled <- nil
	s.await("2 of 2 targets")
	s.SendRaw([]byte("p"))
	s.until("PAUSED", false)
	polled <- nil
	s.await("1 of 1 targets")
	s.w, s.h = 60, 10
	s.SetSize(vt.Coord{X: 60, Y: 10})
	s.await("Esc back   p pause   q quit")
	s.SendRaw([]byte("q"))
	ended(t, done)
}

func TestTheLoopEndsWithItsContextAndByCtrlC(t *testing.T) {
	s, _, polled, done, stop := start(t)
	polled <- nil
	s.await("www")
	stop()
	ended(t, done)
	s, _, polled, done, _ = start(t)
	polled <- nil
	s.await("www")
	s.SendRaw([]byte{3})
	ended(t, done)
}
