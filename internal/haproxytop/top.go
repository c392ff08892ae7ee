package haproxytop

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gdamore/tcell/v3"
	"github.com/gdamore/tcell/v3/color"

	"myrmidon/haproxy"
)

// Config is what Run shows.
type Config struct {
	// Collector keeps its processes, and is polled by somebody else.
	Collector *haproxy.Collector
	// Polled says that a poll ended, and how. It must not be closed.
	Polled <-chan error
	Filter haproxy.Filter
	// Plain shows no colours.
	Plain bool
}

// Run shows the collector's snapshots on the terminal of the process until the user quits
// or ctx ends. It leaves the terminal as it was.
func Run(ctx context.Context, cfg Config) error {
	screen, err := tcell.NewScreen()
	if err != nil {
		return fmt.Errorf("haproxytop: the terminal: %w", err)
	}
	return loop(ctx, cfg, screen)
}

// loop is Run on any terminal.
func loop(ctx context.Context, cfg Config, screen tcell.Screen) error {
	if err := screen.Init(); err != nil {
		return fmt.Errorf("haproxytop: the terminal: %w", err)
	}
	defer screen.Fini()
	screen.HideCursor()
	m := &model{filter: cfg.Filter}
	for {
		show(screen, m, cfg.Plain)
		select {
		case <-ctx.Done():
			return nil
		case err := <-cfg.Polled:
			m.trouble = ""
			if err != nil {
				m.trouble = strings.ReplaceAll(err.Error(), "\n", "; ")
			}
			if !m.paused {
				cfg.Collector.Use(m.take)
			}
		case ev, ok := <-screen.EventQ():
			if !ok {
				return nil
			}
			switch ev := ev.(type) {
			case *tcell.EventResize:
				screen.Sync()
			case *tcell.EventKey:
				detail := m.detail
				if m.press(keyOf(ev)) {
					return nil
				}
				if m.detail && !detail {
					m.before = nil
					cfg.Collector.Use(m.takeMembers)
				}
			}
		}
	}
}

// keyOf names a key: a character, or a word such as "up".
func keyOf(ev *tcell.EventKey) string {
	switch ev.Key() {
	case tcell.KeyRune:
		return ev.Str()
	case tcell.KeyUp:
		return "up"
	case tcell.KeyDown:
		return "down"
	case tcell.KeyPgUp:
		return "pageup"
	case tcell.KeyPgDn:
		return "pagedown"
	case tcell.KeyHome:
		return "home"
	case tcell.KeyEnd:
		return "end"
	case tcell.KeyEnter:
		return "enter"
	case tcell.KeyEscape:
		return "escape"
	case tcell.KeyBackspace, tcell.KeyDelete:
		return "backspace"
	case tcell.KeyCtrlC:
		return "interrupt"
	}
	return ""
}

// press does what a key is for, and reports whether that is to quit.
func (m *model) press(key string) (quit bool) {
	if key == "interrupt" {
		return true
	}
	if m.typing {
		m.typed(key)
		return false
	}
	switch key {
	case "q":
		return true
	case "p", " ":
		m.paused = !m.paused
	case "escape":
		if m.detail {
			m.detail = false
		} else {
			m.search = ""
		}
	case "enter":
		m.detail = !m.detail && len(m.shown) > 0
	}
	if m.detail {
		return false
	}
	switch key {
	case "s":
		m.order = (m.order + 1) % len(orders)
	case "S":
		m.order = (m.order + len(orders) - 1) % len(orders)
	case "r":
		m.reverse = !m.reverse
	case "t":
		m.kind = (m.kind + 1) % len(kinds)
	case "/":
		m.typing = true
	case "up", "k":
		m.move(-1)
		return false
	case "down", "j":
		m.move(1)
		return false
	case "pageup":
		m.move(-m.height)
		return false
	case "pagedown":
		m.move(m.height)
		return false
	case "home", "g":
		m.move(-len(m.shown))
		return false
	case "end", "G":
		m.move(len(m.shown))
		return false
	}
	m.arrange()
	return false
}

// typed takes a key while a filter is typed.
func (m *model) typed(key string) {
	switch key {
	case "enter":
		m.typing = false
	case "escape":
		m.typing, m.search = false, ""
	case "backspace":
		_, n := utf8.DecodeLastRuneInString(m.search)
		m.search = m.search[:len(m.search)-n]
	default:
		if utf8.RuneCountInString(key) == 1 {
			m.search += key
		}
	}
	m.arrange()
}

// looks are the styles of a terminal.
func looks(s style, plainly bool) tcell.Style {
	out := tcell.StyleDefault
	switch s &^ selected {
	case bold:
		out = out.Bold(true)
	case dim:
		out = out.Dim(true)
	case good:
		out = out.Foreground(color.Green)
	case warn:
		out = out.Foreground(color.Olive).Bold(plainly)
	case bad:
		out = out.Foreground(color.Maroon).Bold(true)
	}
	if plainly {
		out = out.Foreground(color.Default)
	}
	return out.Reverse(s&selected != 0)
}

func show(screen tcell.Screen, m *model, plainly bool) {
	w, h := screen.Size()
	screen.Clear()
	for y, l := range m.draw(w, h) {
		x := 0
		for _, s := range l {
			look := looks(s.style, plainly)
			for rest := s.text; rest != "" && x < w; {
				var n int
				rest, n = screen.Put(x, y, rest, look)
				x += max(n, 1)
			}
		}
	}
	screen.Show()
}
