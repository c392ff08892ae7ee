package haproxy

import "hash/maphash"

// marks are what a dump is compared by with the next one of its process, to see that
// counters went back: all of them were cleared, or a server was deleted, maybe for another of
// its name. Of a sum over all rows, the traffic of others could hide that.
type marks struct {
	keys uint64  // a hash of the rows' names in their order
	rows []int64 // of each row the sum of the counters that any traffic changes
}

var markSeed = maphash.MakeSeed()

// marks fills the memory of rows.
func (t *Table) marks(rows []int64) marks {
	m := marks{rows: rows[:0]}
	var room [6]int
	cols := room[:0]
	for _, name := range [...]string{"stot", "bin", "bout", "req_tot", "conn_tot", "chkfail"} {
		if col := t.Column(name); col >= 0 {
			cols = append(cols, col)
		}
	}
	for i := range t.rows {
		var n int64
		for _, col := range cols {
			if c := t.cell(i, col); isNumber(c) {
				n += c
			}
		}
		m.rows = append(m.rows, n)
		m.keys = m.keys*31 + t.keyHash(i)
	}
	return m
}

// keyHash is a hash of the proxy and server of a row.
func (t *Table) keyHash(i int) uint64 {
	a, b := t.cell(i, t.schema.pxname), t.cell(i, t.schema.svname)
	// Mostly one follows the other, so that they are hashed at once.
	if isText(a) && isText(b) && b>>textLenBits-a>>textLenBits == a&maxText+1 {
		if both, ok := t.reach(a, b); ok {
			return maphash.Bytes(markSeed, both) + uint64(t.types[i])
		}
	}
	return maphash.Bytes(markSeed, t.scalar(a))*31 + maphash.Bytes(markSeed, t.scalar(b)) + uint64(t.types[i])
}

// wentBack reports whether a row of before is gone or has counted less since.
func (m *marks) wentBack(before *marks) bool {
	if m.keys != before.keys || len(m.rows) != len(before.rows) {
		return true
	}
	for i, n := range before.rows {
		if m.rows[i] < n {
			return true
		}
	}
	return false
}

func (s *slot) spareMarks() []int64 {
	n := len(s.spare)
	if n == 0 {
		return nil
	}
	rows := s.spare[n-1]
	s.spare = s.spare[:n-1]
	return rows
}
