package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen is stderr with one line at its foot that is redrawn: progress. Where stderr is
// no terminal, the line is written anew every now and then.
type screen struct {
	mu    sync.Mutex
	w     io.Writer
	fd    int // of the terminal; -1 if it is none
	shown bool
	wrote time.Time
}

// plainEvery is how often progress is written where it cannot be redrawn.
const plainEvery = 10 * time.Second

func newScreen(w io.Writer) *screen {
	s := &screen{w: w, fd: -1}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.fd = int(f.Fd())
	}
	return s
}

// live reports whether the foot can be redrawn.
func (s *screen) live() bool { return s.fd >= 0 }

// foot shows line at the foot of the screen.
func (s *screen) foot(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		if time.Since(s.wrote) >= plainEvery {
			s.wrote = time.Now()
			fmt.Fprintln(s.w, line)
		}
		return
	}
	if width, _, err := term.GetSize(s.fd); err == nil && width > 1 {
		if r := []rune(line); len(r) >= width {
			line = string(r[:width-1])
		}
	}
	fmt.Fprintf(s.w, "\r\x1b[K%s", line)
	s.shown = true
}

// clear takes the foot away.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
}

func (s *screen) wipe() {
	if s.shown {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.shown = false
	}
}

// Write prints above the foot, which comes back with its next update.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	return s.w.Write(p)
}

const barWidth = 20

// bar draws a share of 0 to 1.
func bar(share float64) string {
	n := min(max(int(share*barWidth), 0), barWidth)
	return "[" + strings.Repeat("#", n) + strings.Repeat("-", barWidth-n) + "]"
}

// clock writes a duration as people read a player: 0:24, 1:02:03.
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// size writes bytes in decimal units: 14.2 MB.
func size(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if f < 1000 {
			break
		}
		f, unit = f/1000, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	if f >= 100 {
		return fmt.Sprintf("%.0f %s", f, unit)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// plural counts things: 1 chunk, 2 chunks.
func plural[N int | int64](n N, thing string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, thing)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
