package haproxytop

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"myrmidon/haproxy"
	"myrmidon/internal/textgrid"
)

// The smallest terminal in which anything can be told.
const minWidth, minHeight = 40, 8

// style is how a text looks; the terminal's part says how that is drawn.
type style uint8

const (
	normal style = iota
	bold
	dim
	good
	warn
	bad
	selected style = 1 << 4 // with any of the others
)

// span is a text of one style.
type span struct {
	text  string
	style style
}

type line []span

// draw returns the lines of a screen of w by h.
func (m *model) draw(w, h int) []line {
	if w < minWidth || h < minHeight {
		return []line{{{textgrid.Fit("too small:", w), bad}}, {{textgrid.Fit(fmt.Sprintf("%dx%d needed", minWidth, minHeight), w), normal}}}[:min(2, max(h, 0))]
	}
	out := []line{m.drawSum(w), m.drawTargets(w), m.drawChoice(w)}
	room := h - len(out) - 3 // header, last event, keys
	m.height = room
	if m.detail {
		out = append(out, m.drawMembers(w, room)...)
	} else {
		out = append(out, m.drawRows(w, room)...)
	}
	for len(out) < h-2 {
		out = append(out, nil)
	}
	return append(out, m.drawEvent(w), m.drawKeys(w))
}

func (m *model) drawSum(w int) line {
	if m.at.IsZero() {
		return line{{"myrmidon haproxy top", bold}, {"  reading ...", dim}}
	}
	s := &m.sum
	head := fmt.Sprintf("  frontends: req/s %s  sessions %s  in %s  out %s  5xx/s %s  errors/s %s",
		short(s.requests), short(float64(s.current)), bytesRate(s.in), bytesRate(s.out), short(s.bad), short(s.errors))
	return cut(line{{m.at.Format("15:04:05"), bold}, {head, normal}}, w)
}

func (m *model) drawTargets(w int) line {
	if m.trouble != "" {
		return cut(line{{plain(m.trouble), bad}}, w)
	}
	text := fmt.Sprintf("%d of %d targets, %d processes, %d rows", m.targets-len(m.missing), m.targets, m.procs, len(m.all))
	if len(m.missing) == 0 {
		return cut(line{{text, dim}}, w)
	}
	return cut(line{{text, dim}, {"  missing: " + plain(strings.Join(m.missing, ", ")), bad}}, w)
}

func (m *model) drawChoice(w int) line {
	order := orders[m.order].name
	if m.reverse {
		order += " reversed"
	}
	search := m.search
	if m.typing {
		search += "_"
	} else if search == "" {
		search = "-"
	}
	out := line{{fmt.Sprintf("sort %s  type %s  filter %s  %d shown", order, kinds[m.kind], plain(search), len(m.shown)), normal}}
	if m.window > 0 {
		out = append(out, span{fmt.Sprintf("  rates over %.1fs", m.window.Seconds()), dim})
	}
	if m.paused {
		out = append(out, span{"  PAUSED", warn})
	}
	return cut(out, w)
}

func (m *model) drawEvent(w int) line {
	if len(m.events) == 0 {
		return nil
	}
	e := m.events[len(m.events)-1]
	at, how := e.Time.Format("15:04:05")+"  ", warn
	switch e.Kind {
	case haproxy.EventState:
		name := e.Proxy
		if e.Type != "frontend" && e.Type != "backend" {
			name += "/" + e.Server
		}
		if strings.HasPrefix(e.To, "DOWN") {
			how = bad
		} else if e.To == "UP" || e.To == "OPEN" {
			how = good
		}
		return cut(line{{at, dim}, {plain(fmt.Sprintf("%s %s -> %s", name, e.From, e.To)), how}, {"  " + plain(e.Target), dim}}, w)
	case haproxy.EventLost:
		how = bad
	case haproxy.EventBack:
		how = good
	}
	return cut(line{{at, dim}, {plain(e.Kind + " " + e.Target), how}, {"  " + plain(e.Error), dim}}, w)
}

func (m *model) drawKeys(w int) line {
	switch {
	case m.typing:
		return cut(line{{"type a part of a name   Enter keep   Esc clear", dim}}, w)
	case m.detail:
		return cut(line{{"Esc back   p pause   q quit", dim}}, w)
	}
	return cut(line{{"q quit  s/S sort  r reverse  t type  / filter  Enter processes  p pause  arrows move", dim}}, w)
}

var rowColumns = []textgrid.Column{
	{Title: "PROXY/SERVER", Least: 14},
	{Title: "TYPE", Rank: 4},
	{Title: "STATE", Least: 6},
	{Title: "REQ/S", Right: true},
	{Title: "CUR", Right: true, Rank: 1},
	{Title: "LIMIT", Right: true, Rank: 9},
	{Title: "QUEUE", Right: true, Rank: 2},
	{Title: "5XX/S", Right: true, Rank: 3},
	{Title: "ERR/S", Right: true, Rank: 3},
	{Title: "IN/S", Right: true, Rank: 6},
	{Title: "OUT/S", Right: true, Rank: 6},
	{Title: "MS", Right: true, Rank: 5},
	{Title: "TOTAL", Right: true, Rank: 7},
}

func (m *model) drawRows(w, room int) []line {
	if m.cursor < m.at0 {
		m.at0 = m.cursor
	}
	if m.cursor >= m.at0+room {
		m.at0 = m.cursor - room + 1
	}
	m.at0 = max(0, min(m.at0, len(m.shown)-room))
	grid := textgrid.Table{Columns: rowColumns}
	styles := [][]style{}
	for k := m.at0; k < min(m.at0+room, len(m.shown)); k++ {
		r := m.shown[k]
		state := r.state
		if w >= 110 && r.states != "" {
			state = r.states
		} else if r.states != r.state && r.states != "" {
			state += "*" // not all processes say so
		}
		limit := ""
		if r.limit > 0 {
			limit = short(float64(r.limit))
		}
		cells := []textgrid.Cell{
			{Text: r.name()},
			{Text: r.typ.String()},
			{Text: state},
			{Text: short(r.rate())},
			{Text: short(float64(r.current))},
			{Text: limit},
			{Text: short(float64(r.queue))},
			{Text: short(r.bad)},
			{Text: short(r.errors)},
			{Text: bytesRate(r.in)},
			{Text: bytesRate(r.out)},
			{Text: strconv.FormatInt(r.duration, 10)},
			{Text: short(float64(r.total))},
		}
		look := make([]style, len(cells))
		look[2] = stateStyle(r.state, r.states)
		if r.queue > 0 {
			look[6] = warn
		}
		if r.bad > 0 {
			look[7] = bad
		}
		if r.errors > 0 {
			look[8] = bad
		}
		if k == m.cursor {
			for i := range look {
				look[i] |= selected
			}
		}
		grid.Rows, styles = append(grid.Rows, cells), append(styles, look)
	}
	out := gridLines(&grid, styles, w)
	if len(m.shown) == 0 && !m.at.IsZero() {
		out = append(out, line{{"no row is like that", dim}})
	}
	return out
}

var memberColumns = []textgrid.Column{
	{Title: "PROCESS", Least: 12},
	{Title: "PID", Right: true, Rank: 4},
	{Title: "UP", Right: true, Rank: 6},
	{Title: "STATE", Least: 6},
	{Title: "REQ/S", Right: true},
	{Title: "CUR", Right: true, Rank: 1},
	{Title: "QUEUE", Right: true, Rank: 2},
	{Title: "5XX", Right: true, Rank: 3},
	{Title: "ERRORS", Right: true, Rank: 3},
	{Title: "MS", Right: true, Rank: 5},
	{Title: "TOTAL", Right: true, Rank: 5},
	{Title: "HAPROXY", Rank: 7},
}

func (m *model) drawMembers(w, room int) []line {
	grid := textgrid.Table{Columns: memberColumns}
	styles := [][]style{}
	for _, x := range m.members[:min(len(m.members), max(room-2, 0))] {
		number := func(n int64) textgrid.Cell { return textgrid.Cell{Text: short(float64(n))} }
		grid.Rows = append(grid.Rows, []textgrid.Cell{
			{Text: x.process},
			{Text: strconv.FormatInt(x.pid, 10)},
			{Text: age(x.uptime)},
			{Text: x.state},
			{Text: short(x.rate)},
			number(x.current), number(x.queue), number(x.fives), number(x.errors),
			{Text: strconv.FormatInt(x.duration, 10)},
			number(x.total),
			{Text: x.version},
		})
		look := make([]style, len(memberColumns))
		look[3] = stateStyle(x.state, x.state)
		styles = append(styles, look)
	}
	out := []line{cut(line{{m.selected.name(), bold}, {"  " + m.selected.typ.String() + ", as each process sees it", dim}}, w), nil}
	out = append(out, gridLines(&grid, styles, w)...)
	if len(m.members) == 0 {
		out = append(out, line{{"no process has it any more", dim}})
	}
	return out
}

// gridLines lays a table out. All rows are as wide as the screen.
func gridLines(t *textgrid.Table, styles [][]style, w int) []line {
	widths := t.Layout(w)
	lay := func(cells func(c int) string, look func(c int) style) line {
		var out line
		used := 0
		last := style(0)
		for c, n := range widths {
			if n < 0 {
				continue
			}
			text := textgrid.Fit(cells(c), n)
			pad := strings.Repeat(" ", n-textgrid.Width(text))
			if t.Columns[c].Right {
				text = pad + text
			} else {
				text += pad
			}
			last = look(c)
			if used > 0 {
				out = append(out, span{"  ", last & selected})
				used += 2
			}
			out = append(out, span{text, last})
			used += n
		}
		if used < w {
			out = append(out, span{strings.Repeat(" ", w-used), last & selected})
		}
		return cut(out, w)
	}
	out := []line{lay(func(c int) string { return t.Columns[c].Title }, func(int) style { return bold })}
	for k, row := range t.Rows {
		out = append(out, lay(func(c int) string { return row[c].Text }, func(c int) style { return styles[k][c] }))
	}
	return out
}

func stateStyle(state, states string) style {
	word, _, _ := strings.Cut(state, " ")
	switch {
	case word == "DOWN", word == "STOP":
		return bad
	case word == "UP" && state == states, word == "OPEN":
		return good
	case word == "no", word == "":
		return normal
	}
	return warn
}

// cut keeps a line within w columns.
func cut(l line, w int) line {
	used := 0
	for i, s := range l {
		n := textgrid.Width(s.text)
		if used+n > w {
			l[i].text = textgrid.Fit(s.text, w-used)
			if w-used <= 0 {
				return l[:i]
			}
			return l[:i+1]
		}
		used += n
	}
	return l
}

// short writes a number in at most five characters, nothing for none.
func short(x float64) string {
	switch {
	case math.IsNaN(x):
		return ""
	case x == 0:
		return "0"
	case x < 9.95 && x != math.Trunc(x):
		return strconv.FormatFloat(x, 'f', 1, 64)
	case x < 9999.5:
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	for _, unit := range []string{"k", "M", "G", "T", "P"} {
		x /= 1000
		if x < 99.95 {
			return strconv.FormatFloat(x, 'f', 1, 64) + unit
		}
		if x < 999.5 {
			return strconv.FormatFloat(x, 'f', 0, 64) + unit
		}
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

// bytesRate writes bytes a second.
func bytesRate(x float64) string {
	if s := short(x); s != "" {
		return s + "B"
	}
	return ""
}

// age writes seconds as people say them.
func age(s int64) string {
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm", s/60)
	case s < 86400:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}
