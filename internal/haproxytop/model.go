// Package haproxytop shows the statistics of many HAProxy processes live in a terminal.
package haproxytop

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"myrmidon/haproxy"
)

// rowKey is what a row is known by from poll to poll.
type rowKey struct {
	typ           haproxy.Type
	proxy, server string
}

func (k rowKey) name() string {
	if k.typ == haproxy.Frontend || k.typ == haproxy.Backend {
		return plain(k.proxy)
	}
	return plain(k.proxy + "/" + k.server)
}

// row is what is shown of a row. Rates are NaN where there is none.
type row struct {
	rowKey
	state, states                          string // the worst, and who says what
	severity                               int
	requests, sessions, errors, bad        float64 // a second; bad are answers 5xx
	in, out                                float64
	current, limit, queue, total, duration int64
}

// sortOrder is one of the orders of rows.
type sortOrder struct {
	name string
	less func(a, b *row) int
}

// descending puts NaN last.
func descending(value func(r *row) float64) func(a, b *row) int {
	return func(a, b *row) int { return cmp.Compare(value(b), value(a)) }
}

var orders = []sortOrder{
	{"requests", descending(func(r *row) float64 { return r.rate() })},
	{"errors", descending(func(r *row) float64 { return zero(r.errors) + zero(r.bad) })},
	{"state", func(a, b *row) int { return cmp.Compare(a.severity, b.severity) }},
	{"sessions", descending(func(r *row) float64 { return float64(r.current) })},
	{"queue", descending(func(r *row) float64 { return float64(r.queue) })},
	{"bytes", descending(func(r *row) float64 { return zero(r.in) + zero(r.out) })},
	{"time", descending(func(r *row) float64 { return float64(r.duration) })},
	{"name", func(a, b *row) int {
		return cmp.Or(strings.Compare(a.proxy, b.proxy), cmp.Compare(a.typ, b.typ), strings.Compare(a.server, b.server))
	}},
}

func zero(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return x
}

// rate is requests a second, or sessions where requests are not counted: servers of old
// versions and everything in TCP mode.
func (r *row) rate() float64 {
	if math.IsNaN(r.requests) || r.requests == 0 {
		return r.sessions
	}
	return r.requests
}

// kinds are what t chooses between: all, then one type each.
var kinds = []string{"all", "frontend", "backend", "server", "listener"}

// model is what the terminal shows and what keys change. It knows nothing of terminals.
type model struct {
	filter haproxy.Filter // what the command was asked for

	all     []row // of the last snapshot
	shown   []*row
	sum     row // of frontends, of which a request may pass several: HAProxy counts it in each
	at      time.Time
	window  time.Duration
	targets int
	procs   int
	missing []string
	events  []haproxy.Event // the latest last
	trouble string

	order    int
	reverse  bool
	kind     int
	search   string
	typing   bool
	paused   bool
	selected rowKey
	at0      int // the first row on the screen
	cursor   int
	height   int // rows on the screen when it was drawn last

	detail  bool
	members []member
	before  map[string]sample
}

// member is one process's view of the selected row.
type member struct {
	process, state, version                string
	pid, uptime                            int64
	current, queue, total, requests, fives int64
	errors, duration                       int64
	rate                                   float64
}

// sample is what a process had counted at a time.
type sample struct {
	at time.Time
	n  int64
}

const keptEvents = 50

// take copies what is shown of a snapshot.
func (m *model) take(s *haproxy.Snapshot) {
	t := s.Table
	m.at, m.window, m.targets, m.procs = s.Time, s.Window, len(s.Targets), 0
	m.missing = m.missing[:0]
	for i := range s.Targets {
		m.procs += len(s.Targets[i].Processes)
		if s.Targets[i].Err != nil {
			m.missing = append(m.missing, s.Targets[i].Name)
		}
	}
	m.events = append(m.events, s.Events...)
	if n := len(m.events) - keptEvents; n > 0 {
		m.events = slices.Delete(m.events, 0, n)
	}
	view := t.View(m.filter)
	m.all = m.all[:0]
	m.sum = row{}
	cols := newColumns(t)
	for _, i := range view.Rows {
		r := cols.row(s, i)
		m.all = append(m.all, r)
		if r.typ == haproxy.Frontend {
			m.sum.requests += zero(r.requests)
			m.sum.errors += zero(r.errors)
			m.sum.bad += zero(r.bad)
			m.sum.in += zero(r.in)
			m.sum.out += zero(r.out)
			m.sum.current += r.current
		}
	}
	// Severity is the library's: its order of states, as numbers.
	if view.Sort("state") == nil {
		index := make(map[int]int, len(view.Rows))
		last, rank := "", 0
		for _, i := range view.Rows {
			if st := t.State(i); st != last {
				last, rank = st, rank+1
			}
			index[i] = rank
		}
		for k, i := range t.View(m.filter).Rows {
			m.all[k].severity = index[i]
		}
	}
	m.takeMembers(s)
	m.arrange()
}

// takeMembers copies what each process says of the selected row.
func (m *model) takeMembers(s *haproxy.Snapshot) {
	m.members = m.members[:0]
	if !m.detail {
		return
	}
	before := m.before
	m.before = make(map[string]sample)
	s.Each(func(p *haproxy.Process, t *haproxy.Table) {
		for _, i := range t.View(haproxy.Filter{Types: []haproxy.Type{m.selected.typ}}).Rows {
			if string(t.Proxy(i)) != m.selected.proxy || string(t.Server(i)) != m.selected.server {
				continue
			}
			get := func(fields ...string) (n int64) {
				for _, f := range fields {
					k, _ := t.Int(i, t.Column(f))
					n += k
				}
				return n
			}
			x := member{
				process: plain(p.Target), pid: p.PID, uptime: p.Uptime, version: plain(p.Version), state: plain(t.State(i)),
				current: get("scur"), queue: get("qcur"), total: get("stot"), requests: get("req_tot"), fives: get("hrsp_5xx"),
				errors: get("ereq", "econ", "eresp", "eint"), duration: get("ttime"), rate: math.NaN(),
			}
			now := sample{s.Time, x.requests}
			if _, ok := t.Int(i, t.Column("req_tot")); !ok {
				now.n = x.total
			}
			key := p.Target + "\x00" + time.Unix(p.Start, p.PID).String()
			if b, ok := before[key]; ok && now.n >= b.n && s.Time.After(b.at) {
				x.rate = float64(now.n-b.n) / s.Time.Sub(b.at).Seconds()
			}
			m.before[key] = now
			m.members = append(m.members, x)
			return
		}
	})
}

// columns are where a table has what is shown.
type columns struct {
	t                                                                      *haproxy.Table
	req, stot, ereq, econ, eresp, eint, bad, bin, bout, scur, slim, q, dur int
	status                                                                 int
}

func newColumns(t *haproxy.Table) columns {
	at := t.Column
	return columns{
		t, at("req_tot"), at("stot"), at("ereq"), at("econ"), at("eresp"), at("eint"), at("hrsp_5xx"), at("bin"), at("bout"),
		at("scur"), at("slim"), at("qcur"), at("ttime"), at("status"),
	}
}

func (c *columns) row(s *haproxy.Snapshot, i int) row {
	t := c.t
	rate := func(cols ...int) float64 {
		sum := math.NaN()
		for _, col := range cols {
			if x, ok := s.Rate(i, col); ok {
				sum = zero(sum) + x
			}
		}
		return sum
	}
	number := func(col int) int64 {
		n, _ := t.Int(i, col)
		return n
	}
	r := row{
		rowKey: rowKey{t.Type(i), string(t.Proxy(i)), string(t.Server(i))},
		state:  plain(t.State(i)), states: plain(t.Text(i, c.status)),
		requests: rate(c.req), sessions: rate(c.stot), errors: rate(c.ereq, c.econ, c.eresp, c.eint), bad: rate(c.bad),
		in: rate(c.bin), out: rate(c.bout),
		current: number(c.scur), limit: number(c.slim), queue: number(c.q), total: number(c.stot), duration: number(c.dur),
	}
	return r
}

// arrange chooses and orders the rows to show, and keeps the cursor on its row.
func (m *model) arrange() {
	m.shown = m.shown[:0]
	search := strings.ToLower(m.search)
	for i := range m.all {
		r := &m.all[i]
		if m.kind > 0 && r.typ.String() != kinds[m.kind] {
			continue
		}
		if search != "" && !strings.Contains(strings.ToLower(r.name()), search) {
			continue
		}
		m.shown = append(m.shown, r)
	}
	less := orders[m.order].less
	slices.SortStableFunc(m.shown, func(a, b *row) int {
		n := less(a, b)
		if m.reverse {
			n = -n
		}
		return n
	})
	if at := slices.IndexFunc(m.shown, func(r *row) bool { return r.rowKey == m.selected }); at >= 0 && m.selected != (rowKey{}) && (m.detail || m.cursor > 0) {
		m.cursor = at
	}
	m.move(0)
}

// move moves the cursor.
func (m *model) move(by int) {
	m.cursor = max(0, min(m.cursor+by, len(m.shown)-1))
	if len(m.shown) > 0 && !m.detail {
		m.selected = m.shown[m.cursor].rowKey
	}
}

// plain makes what came from outside fit a cell: control characters, which could move the
// cursor, become question marks.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}
