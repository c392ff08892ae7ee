package haproxy

import (
	"slices"
	"strings"
	"time"
)

// A Snapshot is what one poll found. It belongs to its Collector: see [Collector.Use].
// That of ReadAll stays.
type Snapshot struct {
	// Time is when the poll began.
	Time time.Time
	// Table is all processes as one; its counters never go back between two polls. It is
	// empty before the first poll that reached a target.
	Table *Table
	// Window is what rates are over; 0 with the first poll, when there is none.
	Window time.Duration
	// Targets are all targets in the order of the configuration.
	Targets []TargetStatus
	// Events are what changed since the poll before.
	Events []Event

	base  *Table
	rules *Rules
}

// TargetStatus is how one target answered.
type TargetStatus struct {
	Name string
	// Err is nil if the target answered. A master socket may have processes and an error.
	Err       error
	Took      time.Duration
	Processes []Process

	tables []*Table
}

// Kinds of events.
const (
	EventState   = "state"   // a row changed its state in one target
	EventRestart = "restart" // a target answers by another process
	EventLost    = "lost"    // a target stopped answering
	EventBack    = "back"    // it answers again
)

// An Event is a change between two polls.
type Event struct {
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Target string    `json:"target"`
	PID    int64     `json:"pid,omitempty"`
	// Of a state: the row, and its states in that target. Progress of checks, as in
	// "UP 1/3", is no change.
	Type   string `json:"type,omitempty"`
	Proxy  string `json:"proxy,omitempty"`
	Server string `json:"server,omitempty"`
	From   string `json:"from,omitempty"`
	To     string `json:"to,omitempty"`
	// Why a target is lost.
	Error string `json:"error,omitempty"`
}

// Failed is how many targets did not answer, or not in full.
func (s *Snapshot) Failed() int {
	n := 0
	for i := range s.Targets {
		if s.Targets[i].Err != nil {
			n++
		}
	}
	return n
}

// Rate is by how much row i's counter in column col grew a second, over Window. It is
// not ok without a window, and of what is no counter. What a target counted while it was
// out of reach is left out.
func (s *Snapshot) Rate(i, col int) (rate float64, ok bool) {
	if s.base == nil || s.Window <= 0 || col < 0 {
		return 0, false
	}
	if !s.Counter(i, col) {
		return 0, false
	}
	now, before := s.Table.cell(i, col), s.base.cell(i, col)
	if !isNumber(now) || !isNumber(before) {
		return 0, false
	}
	return max(0, float64(now-before)) / s.Window.Seconds(), true
}

// Counter reports whether row i's column col is a counter, one that Rate is for.
func (s *Snapshot) Counter(i, col int) bool {
	if col < 0 {
		return false
	}
	f := s.rules.field(s.Table.schema.keys[col], s.Table.types[i])
	return f.Rule == Sum && f.Tag.Nature == 'C'
}

// Each calls yield with each process and its own table, without what the collector adds
// to counters. There are none without KeepProcesses.
func (s *Snapshot) Each(yield func(p *Process, t *Table)) {
	for i := range s.Targets {
		t := &s.Targets[i]
		for k, table := range t.tables {
			if table != nil {
				yield(&t.Processes[k], table)
			}
		}
	}
}

// publish makes the poll the snapshot. The lock is held.
func (c *Collector) publish(now time.Time) {
	out, old := c.next, c.snap.Table
	if c.polls > 0 {
		c.rotate(now)
		if !sameLayout(out, old) {
			c.relayout(out, old)
		}
		for _, a := range c.found.arrived {
			for _, cp := range []*checkpoint{&c.base, &c.mid} {
				c.addDump(cp.table, a.now, counters, 1)
				c.addDump(cp.table, a.before, counters, -1)
			}
		}
		if now.Before(c.last) {
			// The clock was set back, where there is no monotonic one: rates count from here.
			for _, cp := range []*checkpoint{&c.base, &c.mid} {
				cp.at = now
				cp.table.copyFrom(out)
			}
		}
	}
	c.snap.Table, c.next = out, old
	c.snap.rules = c.rules
	if c.polls > 0 {
		c.snap.base, c.snap.Window = c.base.table, now.Sub(c.base.at)
	}
	c.publishTargets(now)
	c.last = now
	for i := range c.found.restarts {
		e := c.found.restarts[i]
		e.Time = now
		c.snap.Events = append(c.snap.Events, e)
	}
	for _, s := range c.slots {
		c.publishStates(s, out, now)
		s.failed = len(s.replies) == 0
		s.polled = s.polled || !s.failed
		s.replies = s.replies[:0]
	}
}

// rotate moves the moments from which rates count.
func (c *Collector) rotate(now time.Time) {
	last := c.last
	switch {
	case c.base.table == nil:
		// Not with the first poll: it may be the only one.
		c.base = checkpoint{last, c.snap.Table.Clone()}
		c.mid = checkpoint{last, c.snap.Table.Clone()}
	case now.Sub(last) >= c.cfg.Window:
		c.base.at = last
		c.base.table.copyFrom(c.snap.Table)
		c.mid.at = last
		c.mid.table.copyFrom(c.snap.Table)
	case last.Sub(c.mid.at) >= c.cfg.Window/2:
		c.base, c.mid = c.mid, c.base
		c.mid.at = last
		c.mid.table.copyFrom(c.snap.Table)
	}
}

func sameLayout(t, u *Table) bool {
	if t.rows != u.rows || u.schema == nil || !sameNames(t.schema, u.schema) {
		return false
	}
	for i := range t.rows {
		if !sameKey(t, i, u, i) {
			return false
		}
	}
	return true
}

// relayout brings what is remembered of rows to the rows of out.
func (c *Collector) relayout(out, old *Table) {
	rows := make([]int32, out.rows)
	for i := range rows {
		rows[i] = -1
	}
	c.eachMatch(out, old, func(i, j int) { rows[i] = int32(j) })
	for _, cp := range []*checkpoint{&c.base, &c.mid} {
		t := out.Clone() // a new row has no rate yet
		for i, j := range rows {
			if j < 0 {
				continue
			}
			cells := t.row(i)
			for k, col := range t.shapes[i].cols {
				if at, ok := cp.table.schema.index[t.schema.keys[col]]; ok {
					if b := cp.table.cell(int(j), at); isNumber(b) {
						cells[k] = b
					}
				}
			}
		}
		cp.table = t
	}
	for _, s := range c.slots {
		states := make([]uint16, out.rows)
		for i, j := range rows {
			if j >= 0 && int(j) < len(s.states) {
				states[i] = s.states[j]
			}
		}
		s.states = states
	}
}

// publishTargets says how the targets answered.
func (c *Collector) publishTargets(now time.Time) {
	c.snap.Time = now
	c.snap.Events = c.snap.Events[:0]
	c.snap.Targets = slices.Grow(c.snap.Targets[:0], len(c.slots))[:len(c.slots)]
	for i, s := range c.slots {
		t := &c.snap.Targets[i]
		t.Name, t.Err, t.Took = s.target.Name, s.err, s.took
		t.Processes, t.tables = t.Processes[:0], t.tables[:0]
		if len(s.replies) > 0 {
			for _, p := range s.known {
				t.Processes = append(t.Processes, p.Process)
				if c.cfg.KeepProcesses {
					p.table, p.next = p.next, p.table
					t.tables = append(t.tables, p.table)
				}
			}
		}
		lost := len(s.replies) == 0
		if lost && !s.failed {
			c.snap.Events = append(c.snap.Events, Event{Time: now, Kind: EventLost, Target: t.Name, Error: s.err.Error()})
		} else if !lost && s.failed {
			c.snap.Events = append(c.snap.Events, Event{Time: now, Kind: EventBack, Target: t.Name})
		}
	}
}

// publishStates compares the states of a target's rows with those before.
func (c *Collector) publishStates(s *slot, out *Table, now time.Time) {
	if len(s.replies) == 0 || len(s.newStates) == 0 {
		return
	}
	for len(s.newStates) < out.rows {
		s.newStates = append(s.newStates, 0)
	}
	for i, after := range s.newStates {
		if i >= len(s.states) {
			break
		}
		before := s.states[i]
		if before == after || before == 0 || after == 0 {
			continue
		}
		c.snap.Events = append(c.snap.Events, Event{
			Time: now, Kind: EventState, Target: s.target.Name,
			Type: out.types[i].String(), Proxy: string(out.Proxy(i)), Server: string(out.Server(i)),
			From: c.states.names[before], To: c.states.names[after],
		})
	}
	s.states, s.newStates = s.newStates, s.states[:0]
}

// stateNames numbers states from 1.
type stateNames struct {
	names []string
	index map[string]uint16
}

// collect appends the state of each row of t to states, at its place in the merged
// table.
func (n *stateNames) collect(states []uint16, t *Table, rowMap []int32) []uint16 {
	if n.index == nil {
		n.index = make(map[string]uint16)
		n.names = []string{""}
	}
	if t.schema.status < 0 {
		return states
	}
	last := uint16(0)
	for i, at := range rowMap {
		for len(states) <= int(at) {
			states = append(states, 0)
		}
		c := t.cell(i, t.schema.status)
		if !isText(c) {
			continue
		}
		state := steady(t.text(c))
		if n.names[last] != string(state) {
			last = n.number(state)
		}
		states[at] = last
	}
	return states
}

func (n *stateNames) number(state []byte) uint16 {
	if k, ok := n.index[string(state)]; ok {
		return k
	}
	if len(n.names) == 1<<16-1 {
		return 0 // a hostile process: no events of it
	}
	name := strings.ToValidUTF8(string(state), "\ufffd")
	n.names = append(n.names, name)
	n.index[string(state)] = uint16(len(n.names) - 1)
	return uint16(len(n.names) - 1)
}

// steady cuts the progress of checks off a state.
func steady(state []byte) []byte {
	for i, c := range state {
		if c == ' ' && i+1 < len(state) && state[i+1] >= '0' && state[i+1] <= '9' {
			return state[:i]
		}
	}
	return state
}
