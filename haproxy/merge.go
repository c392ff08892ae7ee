package haproxy

import (
	"errors"
	"fmt"
	"slices"
)

// A Merger folds tables into one, row by row: rows belong together if type, proxy and
// server are the same. The zero Merger is ready, with DefaultRules. Its buffers, and
// those of the result, are used again by the next merge; it is not safe for concurrent
// use.
//
// Merging is exact: the order of the tables, and whether some were merged before, does
// not matter but for the order of rows and columns, which is that of the first table
// that has them.
type Merger struct {
	// Rules are used from the next Reset on.
	Rules *Rules

	out      *Table
	rules    *Rules
	plans    map[planKey]*plan
	last     []*plan    // by row of out: those of the Add before
	schemas  [2]*schema // what columns are for: of out, and of the table added
	columns  []int32    // of the table added: their columns in out
	identity bool       // columns are the same in both
	avg      []int32    // the averaged columns of out
	avgRule  [types][]Rule
	rowMap   []int32  // of the table added: their rows in out
	taken    []uint32 // by row of out: the last Add that had it
	adds     uint32
	index    rowIndex
}

// Merge returns a table of its own that holds all tables merged. Merge of one table is
// the same as that table.
func Merge(rules *Rules, tables ...*Table) (*Table, error) {
	if len(tables) == 0 {
		return nil, errors.New("haproxy: there is no table to merge")
	}
	m := Merger{Rules: rules}
	m.Reset(new(Table))
	for _, t := range tables {
		if err := m.Add(t); err != nil {
			return nil, err
		}
	}
	return m.Table(), nil
}

// Reset begins a merge into out, which is emptied.
func (m *Merger) Reset(out *Table) {
	if r := m.Rules.orDefault(); r != m.rules {
		m.rules, m.schemas = r, [2]*schema{}
		m.forgetPlans()
	}
	out.reset()
	out.schema = nil
	m.out = out
	m.rowMap = m.rowMap[:0]
}

// Add merges t in. The result shares nothing with t. An error leaves out t whole.
func (m *Merger) Add(t *Table) error {
	if m.out == nil {
		m.Reset(new(Table))
	}
	if t.schema == nil {
		return errors.New("haproxy: merge: the table was never filled")
	}
	if m.out.schema == nil {
		m.first(t)
		return nil
	}
	return m.addRest(t, 0)
}

// addRest is Add of a dump whose first rows, as many as given, were merged into those at
// the same place; t has the others.
func (m *Merger) addRest(t *Table, merged int) error {
	if (m.out.rows+t.rows)*(len(m.out.schema.names)+len(t.schema.names)) > maxCells {
		return fmt.Errorf("haproxy: merge: more than %d cells", maxCells)
	}
	m.join(t)
	if len(t.avg) > 0 {
		// A plan says where t has its sums: such a table has plans of its own.
		m.forgetPlans()
		defer m.forgetPlans()
	}
	m.rowMap = m.rowMap[:0]
	// As long as the order is the same, a row is at the same place.
	i := 0
	for at := merged; i < t.rows && at < m.out.rows && sameKey(m.out, at, t, i); at++ {
		m.rowMap = append(m.rowMap, int32(at))
		m.mergeRow(at, t, i)
		i++
	}
	if i == t.rows {
		return nil
	}
	m.match(t, i, merged+i)
	for ; i < t.rows; i++ {
		if at := m.rowMap[i]; at >= 0 {
			m.mergeRow(int(at), t, i)
		} else {
			m.appendRow(t, i)
		}
	}
	return nil
}

// Table ends the merge and returns the table that was given to Reset.
func (m *Merger) Table() *Table {
	t := m.out
	if t == nil || t.schema == nil {
		return t
	}
	for i := range t.rows {
		row, slot := t.row(i), t.shapes[i].slot
		for k, col := range t.avg {
			s := &t.sums[i*len(t.avg)+k]
			if s.weight == 0 {
				continue
			}
			if c := &row[slot[col]]; *c != unmergeable {
				*c = s.mean()
			}
		}
	}
	return t
}

// adopt is Add of a parsed table that is the first, and that nobody needs any longer: its
// cells and its dump become out's, and t is empty.
func (m *Merger) adopt(t *Table) {
	*m.out, *t = *t, *m.out
	t.schema = m.out.schema
	m.begin(nil)
}

// first makes out a copy of t.
func (m *Merger) first(t *Table) {
	m.out.copyFrom(t)
	m.begin(t.avg)
}

// begin prepares out, which is the first table, for those that follow. averaged are the
// columns that it averaged in a merge before.
func (m *Merger) begin(averaged []int32) {
	out := m.out
	m.taken = m.taken[:0]
	m.adds = 0
	m.index.reset()
	m.setAverages()
	m.rowMap = m.rowMap[:0]
	if len(out.procs) == 0 {
		out.sums = out.sums[:0]
		m.addLeaves()
		return
	}
	for i := range out.rows {
		m.rowMap = append(m.rowMap, int32(i))
	}
	if len(averaged) > 0 && slices.Equal(averaged, out.avg) {
		return // it was merged by such rules before, and has its sums
	}
	n := len(out.avg)
	out.sums = resize(out.sums, out.rows*n)
	for i := range out.rows {
		m.leafSums(out.sums[i*n:i*n+n], out, i)
	}
}

// addLeaves prepares the rows that a dump added to out since, or brought.
func (m *Merger) addLeaves() {
	out := m.out
	n, had := len(out.avg), len(out.procs)
	more := cap(out.types) - had // most likely as many come
	out.procs = slices.Grow(out.procs, more)
	out.sums = slices.Grow(out.sums, more*n)
	m.rowMap = slices.Grow(m.rowMap, more)
	out.sums = out.sums[:out.rows*n]
	for i := had; i < out.rows; i++ {
		out.procs = append(out.procs, 1)
		m.rowMap = append(m.rowMap, int32(i))
		m.leafSums(out.sums[i*n:i*n+n], out, i)
	}
}

// setAverages finds the columns of out that are averaged.
func (m *Merger) setAverages() {
	out := m.out
	if m.schemas[0] == out.schema {
		out.avg = append(out.avg[:0], m.avg...)
		return
	}
	m.avg = m.avg[:0]
	for t := range m.avgRule {
		m.avgRule[t] = m.avgRule[t][:0]
	}
	for col, key := range out.schema.keys {
		averaged := false
		for t := range types {
			r := m.rules.Rule(key, t)
			averaged = averaged || r == Average || r == AverageByRequests
		}
		if !averaged {
			continue
		}
		m.avg = append(m.avg, int32(col))
		for t := range types {
			m.avgRule[t] = append(m.avgRule[t], m.rules.Rule(key, t))
		}
	}
	out.avg = append(out.avg[:0], m.avg...)
	m.schemas = [2]*schema{out.schema, nil}
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// A plan is what to do with a row of one type and shape that belongs to one of another
// shape: which cells, by which rule. What neither has is left out.
type plan struct {
	planKey
	wide *shape // that out's row must have, with the columns of both
	// Sums of four cells side by side, and of one.
	fours, ones                     []pair
	maxs, mins, least, limits, same []pair
	avgs                            []averaged
}

type planKey struct {
	typ     Type
	out, in *shape
}

// maxPlans bounds what a merger remembers.
const maxPlans = 4096

func (m *Merger) forgetPlans() {
	clear(m.plans)
	m.last = m.last[:0]
}

// averaged is a cell that is averaged: in the k-th averaged column of out, and in the
// from-th of a table that was merged before, or -1.
type averaged struct {
	pair
	k, from int32
	rule    Rule
}

// A pair is a cell of a row of out and of the table added, -1 if it has none.
type pair struct{ out, in int32 }

// of is the cell of a row of the table added: nothing if it has none.
func (p pair) of(row []int64) int64 {
	if p.in < 0 {
		return empty
	}
	return row[p.in]
}

// join makes out have all columns of t.
func (m *Merger) join(t *Table) {
	out := m.out
	if m.schemas[0] == out.schema && m.schemas[1] == t.schema {
		return
	}
	m.identity = sameNames(out.schema, t.schema)
	m.columns = m.columns[:0]
	if m.identity {
		for i := range out.schema.names {
			m.columns = append(m.columns, int32(i))
		}
	} else {
		m.widen(t.schema)
	}
	m.schemas = [2]*schema{out.schema, t.schema}
}

func sameNames(a, b *schema) bool {
	if a == b {
		return true
	}
	if len(a.keys) != len(b.keys) {
		return false
	}
	for i := range a.keys {
		if a.keys[i] != b.keys[i] {
			return false
		}
	}
	return true
}

// widen maps the columns of s to those of out, and gives out those that it lacks.
func (m *Merger) widen(s *schema) {
	out := m.out
	old := len(out.schema.names)
	names := append([]string(nil), out.schema.names...)
	m.columns = m.columns[:0]
	for i, key := range s.keys {
		at, ok := out.schema.index[key]
		if !ok {
			at = len(names)
			names = append(names, s.names[i])
		}
		m.columns = append(m.columns, int32(at))
	}
	if len(names) == old {
		return
	}
	wide, err := newSchema(names, out.schema.trailing)
	if err != nil {
		panic(err) // out had the keys already
	}
	for i, shape := range out.shapes {
		out.shapes[i] = wide.shape(shape.mask) // old columns stay where they are
	}
	before, sums := len(out.avg), out.sums
	out.schema = wide
	m.setAverages()
	out.sums = make([]average, out.rows*len(out.avg))
	for i := range out.rows {
		// What was averaged before still comes first, in the same order.
		copy(out.sums[i*len(out.avg):], sums[i*before:(i+1)*before])
	}
}

// plan is what to do with row i of t, which belongs to row at of out.
func (m *Merger) plan(at int, t *Table, i int) *plan {
	key := planKey{t.types[i], m.out.shapes[at], t.shapes[i]}
	for len(m.last) <= at {
		m.last = append(m.last, nil)
	}
	// Most likely that of the same row at the time before.
	if p := m.last[at]; p != nil && p.planKey == key {
		return p
	}
	p := m.plans[key]
	if p == nil {
		if m.plans == nil || len(m.plans) >= maxPlans {
			m.plans = make(map[planKey]*plan)
		}
		p = m.newPlan(key, t)
		m.plans[key] = p
	}
	m.last[at] = p
	return p
}

func (m *Merger) newPlan(key planKey, t *Table) *plan {
	out, p := m.out, &plan{planKey: key}
	mask := append(bitset(nil), key.out.mask...)
	in := make([]int32, len(out.schema.names)) // the cell of t, by column of out
	for i := range in {
		in[i] = -1
	}
	for k, col := range key.in.cols {
		mask.add(int(m.columns[col]))
		in[m.columns[col]] = int32(k)
	}
	p.wide = out.schema.shape(mask)
	for k, col := range p.wide.cols {
		col := int(col)
		if col == out.schema.pxname || col == out.schema.svname {
			continue
		}
		rule := m.rules.Rule(out.schema.keys[col], key.typ)
		if col == out.schema.typ {
			rule = Max // the same, unless one dump has no such column
		}
		pr := pair{int32(k), in[col]}
		if rule == Same || rule == Worst || rule == Key {
			p.same = append(p.same, pr)
			continue
		}
		if rule == SumLimits {
			p.limits = append(p.limits, pr)
			continue
		}
		if pr.in < 0 {
			continue // t has nothing to add
		}
		switch rule {
		case Sum:
			p.addSum(pr)
		case Max:
			p.maxs = append(p.maxs, pr)
		case Min:
			p.mins = append(p.mins, pr)
		case Least:
			p.least = append(p.least, pr)
		case Average, AverageByRequests:
			n := slices.Index(m.avg, int32(col))
			from := slices.Index(t.avg, key.in.cols[pr.in])
			p.avgs = append(p.avgs, averaged{pr, int32(n), int32(from), rule})
		}
	}
	return p
}

// addSum adds a cell that is summed: the fourth side by side makes four of them.
func (p *plan) addSum(pr pair) {
	p.ones = append(p.ones, pr)
	k := len(p.ones) - 4
	if k < 0 {
		return
	}
	for i, one := range p.ones[k:] {
		if n := int32(i); one.out != p.ones[k].out+n || one.in != p.ones[k].in+n {
			return
		}
	}
	p.fours = append(p.fours, p.ones[k])
	p.ones = p.ones[:k]
}

// match finds the rows of t from i on in out, by an index; those before have the first of
// out. The n-th of several rows of one key belongs to the n-th.
func (m *Merger) match(t *Table, i, taken int) {
	out := m.out
	for len(m.taken) < out.rows {
		m.taken = append(m.taken, 0)
	}
	m.adds++
	for k := range taken {
		m.taken[k] = m.adds
	}
	m.index.fill(out)
	for ; i < t.rows; i++ {
		at := m.index.find(out, t, i, m.taken, m.adds)
		if at >= 0 {
			m.taken[at] = m.adds
		}
		m.rowMap = append(m.rowMap, at)
	}
}

// appendRow gives out row i of t.
func (m *Merger) appendRow(t *Table, i int) {
	out, in := m.out, t.shapes[i]
	at := out.rows
	var mask bitset
	for _, col := range in.cols {
		mask.add(int(m.columns[col]))
	}
	out.addEmpty(t.types[i], out.schema.shape(mask))
	out.procs = append(out.procs, t.procsOf(i))
	row, slot := out.row(at), out.shapes[at].slot
	for k, c := range t.row(i) {
		row[slot[m.columns[in.cols[k]]]] = out.take(t, c)
	}
	k := len(out.avg)
	for range k {
		out.sums = append(out.sums, average{})
	}
	m.rowSums(out.sums[at*k:at*k+k], m.plan(at, t, i), t, i)
	m.rowMap[i] = int32(at)
}

// take copies what the cell c of u refers to.
func (t *Table) take(u *Table, c int64) int64 {
	switch {
	case isText(c):
		return t.addText(u.text(c))
	case isMix(c):
		first := len(t.parts)
		for _, p := range u.partsOf(c) {
			t.parts = append(t.parts, part{t.take(u, p.cell), p.count})
		}
		t.mixes = append(t.mixes, mix{int32(first), int32(len(t.parts) - first)})
		return firstMix + int64(len(t.mixes)-1)
	}
	return c
}

// plain reports that a cell, or each of several combined by |, is a number from 0 to
// 2^61-1: the sum of two such is a number that a cell holds.
func plain(c int64) bool { return uint64(c) < 1<<61 }

// mergeRow merges row i of t into row at. Cells are mostly plain numbers, and texts the
// same: those are done here, all others by combine and mixIn.
func (m *Merger) mergeRow(at int, t *Table, i int) {
	out, p := m.out, m.plan(at, t, i)
	if p.wide != p.out {
		out.widen(at, p.wide)
	}
	d, s := out.row(at), t.row(i)
	for _, c := range p.fours {
		x, y := (*[4]int64)(d[c.out:]), (*[4]int64)(s[c.in:])
		if plain(x[0] | y[0] | x[1] | y[1] | x[2] | y[2] | x[3] | y[3]) {
			*x = [4]int64{x[0] + y[0], x[1] + y[1], x[2] + y[2], x[3] + y[3]}
			continue
		}
		for k := range x {
			x[k] = out.combine(Sum, x[k], t, y[k])
		}
	}
	for _, c := range p.ones {
		a, b := d[c.out], s[c.in]
		if plain(a | b) {
			d[c.out] = a + b
		} else {
			d[c.out] = out.combine(Sum, a, t, b)
		}
	}
	for _, c := range p.maxs {
		a, b := d[c.out], s[c.in]
		if plain(a | b) {
			d[c.out] = max(a, b)
		} else {
			d[c.out] = out.combine(Max, a, t, b)
		}
	}
	for _, c := range p.mins {
		d[c.out] = out.combine(Min, d[c.out], t, s[c.in])
	}
	for _, c := range p.least {
		a, b := d[c.out], s[c.in]
		if plain(a | b) {
			d[c.out] = min(a, b)
		} else {
			d[c.out] = out.combine(Least, a, t, b)
		}
	}
	for _, c := range p.limits {
		d[c.out] = out.combine(SumLimits, d[c.out], t, c.of(s))
	}
	if len(p.avgs) > 0 {
		m.mergeAverages(p, at, d, t, i, s)
	}
	for _, c := range p.same {
		a, b := d[c.out], c.of(s)
		if a == b && (isNumber(a) || a == empty) {
			continue
		}
		if isMix(a) || isMix(b) || !sameText(out, a, t, b) {
			d[c.out] = out.mixIn(a, out.procs[at], t, b, t.procsOf(i))
		}
	}
	out.procs[at] += t.procsOf(i)
}

// mixIn returns the cell of values a, of n processes, and b of u, of k processes, which
// are not the same or are mixes.
func (t *Table) mixIn(a int64, n int32, u *Table, b int64, k int32) int64 {
	// A mix that is changed moves to the end of parts, where it can grow.
	first := len(t.parts)
	if isMix(a) {
		t.parts = append(t.parts, t.partsOf(a)...)
	} else {
		t.parts = append(t.parts, part{a, n})
	}
	add := func(p part) {
		for i := first; i < len(t.parts); i++ {
			if sameText(t, t.parts[i].cell, u, p.cell) {
				t.parts[i].count += p.count
				return
			}
		}
		t.parts = append(t.parts, part{t.take(u, p.cell), p.count})
	}
	if isMix(b) {
		for _, p := range u.partsOf(b) {
			add(p)
		}
	} else {
		add(part{b, k})
	}
	mx := mix{int32(first), int32(len(t.parts) - first)}
	if isMix(a) {
		old := &t.mixes[a-firstMix]
		if old.n == mx.n { // only counts changed: back into its place
			copy(t.parts[old.first:], t.parts[first:])
			t.parts = t.parts[:first]
			return a
		}
		*old = mx
		return a
	}
	t.mixes = append(t.mixes, mx)
	return firstMix + int64(len(t.mixes)-1)
}
