package haproxy

import (
	"time"
)

// finding is what a poll finds out about processes, for publish.
type finding struct {
	arrived  []arrival
	restarts []Event
}

// An arrival is a process whose counters are new to the sum, though not new traffic.
type arrival struct {
	now    []byte
	before []byte // what the sum had of it already, or nil
}

// counted is what of a dump is added to a table.
type counted uint8

const (
	counters counted = iota // fields that only grow
	sums                    // and what else is summed
)

// find returns the known process that answered as q, or nil.
func (s *slot) find(q *Process) *process {
	for _, p := range s.known {
		if q.same(&p.Process) {
			return p
		}
	}
	return nil
}

// process returns the known process that answered as q, and knows it from now on.
func (s *slot) process(q *Process) *process {
	p := s.find(q)
	if p == nil {
		p = &process{Process: *q}
		s.known = append(s.known, p)
	}
	return p
}

// hasCurrent reports whether a process answered that was not told to end.
func (s *slot) hasCurrent() bool {
	for i := range s.replies {
		if !s.replies[i].Process.Stopping {
			return true
		}
	}
	return false
}

// settle makes the counters of the merged table monotone: it adds old workers, and what
// processes had counted that are gone, out of reach or cleared.
func (c *Collector) settle() {
	out := c.merger.Table()
	c.found.arrived, c.found.restarts = c.found.arrived[:0], c.found.restarts[:0]
	for _, s := range c.slots {
		c.settleSlot(s, out)
	}
	for _, s := range c.gone {
		for _, p := range s.known {
			c.addDump(out, p.raw, counters, 1)
		}
	}
	if c.carry != nil {
		c.addTable(out, c.carry, counters, 1)
	}
}

func (c *Collector) settleSlot(s *slot, out *Table) {
	if len(s.replies) == 0 {
		// Out of reach: what it had counted stays in the sums.
		for _, p := range s.known {
			c.addDump(out, p.raw, counters, 1)
		}
		return
	}
	soft := s.hasCurrent()
	for i := range s.replies {
		r := &s.replies[i]
		if soft && r.Process.Stopping {
			c.addDump(out, r.CSV, sums, 1)
		}
		c.settleProcess(s, r)
	}
	kept := s.known[:0]
	for _, p := range s.known {
		if p.seen {
			p.seen = false
			kept = append(kept, p)
			continue
		}
		if s.err != nil {
			// Some workers failed, maybe this one.
			c.addDump(out, p.raw, counters, 1)
			kept = append(kept, p)
			continue
		}
		c.carryDump(p.raw, nil)
		s.source.keep(p.buf)
	}
	clear(s.known[len(kept):])
	s.known = kept
}

// supersede lets the dump of a process that just went on counting take the place of the one
// before, whose memory is then free for the target that is read next.
func (s *slot) supersede(r *Reply) {
	p := s.find(&r.Process)
	if p == nil || p.raw == nil || p.seen || s.failed || r.marks.wentBack(&p.marks) {
		return // settleProcess has more to do
	}
	p.seen = true
	s.remember(p, r)
	r.buf = nil // it is the process's now
}

// settleProcess compares a reply with what is known of its process.
func (c *Collector) settleProcess(s *slot, r *Reply) {
	p := s.process(&r.Process)
	if p.seen {
		return // superseded
	}
	p.seen = true
	switch {
	case p.raw == nil:
		// A new process. Its counters are traffic of the window only if it began then, in
		// place of another.
		restarted := s.polled && len(s.known) > 1
		if restarted && !r.Process.Stopping {
			c.found.restarts = append(c.found.restarts, Event{Kind: EventRestart, Target: s.target.Name, PID: r.Process.PID})
		}
		age := c.now().Sub(c.base.at)
		if c.base.table == nil {
			age = c.now().Sub(c.last)
		}
		if c.polls > 0 && (!restarted || time.Duration(r.Process.Uptime)*time.Second > age) {
			c.found.arrived = append(c.found.arrived, arrival{now: r.CSV})
		}
	case r.marks.wentBack(&p.marks):
		c.carryDump(p.raw, r.CSV)
	case s.failed:
		// What it counted unseen did not happen within one interval.
		before := append([]byte(nil), p.raw...)
		c.found.arrived = append(c.found.arrived, arrival{now: r.CSV, before: before})
	}
	s.remember(p, r)
}

// remember keeps a reply as the last of its process.
func (s *slot) remember(p *process, r *Reply) {
	s.source.keep(p.buf)
	if p.marks.rows != nil {
		s.spare = append(s.spare, p.marks.rows)
	}
	p.Process, p.raw, p.buf, p.marks = r.Process, r.CSV, r.buf, r.marks
}

func (c *Collector) parse(t *Table, raw []byte) error {
	if t.schema == nil {
		t.schema = c.schema
	}
	return t.ParseCSV(raw)
}

// carryDump keeps what a process had counted for good. If now is its dump after its
// counters were cleared, it keeps what went back.
func (c *Collector) carryDump(raw, now []byte) {
	var t Table
	if c.parse(&t, raw) != nil {
		return
	}
	if now != nil {
		var u Table
		if c.parse(&u, now) != nil {
			return
		}
		// What did not go back is in the sum already.
		c.eachMatch(&t, &u, func(i, j int) {
			cells := t.row(i)
			for k, col := range t.shapes[i].cols {
				at, ok := u.schema.index[t.schema.keys[col]]
				if !ok {
					continue
				}
				later := u.cell(j, at)
				if isNumber(cells[k]) && isNumber(later) && later >= cells[k] {
					cells[k] = 0
				}
			}
		})
	}
	if c.carry == nil {
		c.carry = t.Clone()
		return
	}
	// Rows of the carry may go beyond those of the table: they wait there.
	if merged, err := Merge(c.rules, c.carry, &t); err == nil {
		c.carry = merged
	}
}

// addDump adds a dump, which was parsed without error before.
func (c *Collector) addDump(dst *Table, raw []byte, what counted, sign int64) {
	t := &c.scratch
	if raw != nil && c.parse(t, raw) == nil {
		c.addTable(dst, t, what, sign)
	}
}

// addTable adds what is summed of the rows that dst has, and nothing else.
func (c *Collector) addTable(dst, t *Table, what counted, sign int64) {
	if dst.schema == nil {
		return
	}
	type column struct{ to, from int }
	var cols [types][]column
	for to, key := range dst.schema.keys {
		from, ok := t.schema.index[key]
		if !ok {
			continue
		}
		for typ := range types {
			f := c.rules.field(key, typ)
			if f.Rule == Sum && (what == sums || f.Tag.Nature == 'C') {
				cols[typ] = append(cols[typ], column{to, from})
			}
		}
	}
	c.eachMatch(dst, t, func(i, j int) {
		for _, col := range cols[t.types[j]] {
			d, s := dst.cell(i, col.to), t.cell(j, col.from)
			if sign > 0 {
				dst.set(i, col.to, dst.combine(Sum, d, t, s))
			} else if isNumber(d) && isNumber(s) {
				dst.set(i, col.to, d-s)
			}
		}
	})
}

// eachMatch calls f with the rows of t and u that have the same key.
func (c *Collector) eachMatch(t, u *Table, f func(i, j int)) {
	j := 0
	for j < u.rows && j < t.rows && sameKey(t, j, u, j) {
		f(j, j)
		j++
	}
	if j == u.rows {
		return
	}
	var x rowIndex
	x.fill(t)
	taken := make([]uint32, t.rows)
	for k := range j {
		taken[k] = 1
	}
	for ; j < u.rows; j++ {
		if at := x.find(t, u, j, taken, 1); at >= 0 {
			taken[at] = 1
			f(int(at), j)
		}
	}
}
