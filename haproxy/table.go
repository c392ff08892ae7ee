package haproxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// Type is what a row describes.
type Type uint8

// The types of rows, as the column "type" numbers them (management guide of HAProxy,
// 9.1 "CSV format").
const (
	Frontend Type = iota
	Backend
	Server
	Listener
	// Other is a row of a type that this package does not know.
	Other
	types
)

var typeNames = [types]string{"frontend", "backend", "server", "listener", "other"}

func (t Type) String() string {
	if t >= types {
		t = Other
	}
	return typeNames[t]
}

// ParseType reads what String writes.
func ParseType(s string) (Type, error) {
	for t, name := range typeNames[:Other] {
		if s == name {
			return Type(t), nil
		}
	}
	return Other, fmt.Errorf("haproxy: there is no type %q: use frontend, backend, server or listener", s)
}

// A cell is one int64. Its two highest bits say what it holds:
//
//	00, 11  the number itself, from -2^62 to 2^62-1
//	01      text: 34 bits of offset and 28 bits of length; so are larger numbers
//	10      nothing (the least int64), unmergeable, or the index of a mix
//
// So a table has no pointer in it for the collector of garbage to follow.
const (
	empty       int64 = math.MinInt64
	unmergeable int64 = math.MinInt64 + 1
	firstMix    int64 = math.MinInt64 + 2

	textLenBits = 28
	maxText     = 1<<textLenBits - 1
	maxTexts    = 1 << (62 - textLenBits)
	extraTexts  = maxTexts / 2
)

func isNumber(c int64) bool { return c^c<<1 >= 0 }
func isText(c int64) bool   { return c >= 1<<62 }
func isMix(c int64) bool    { return c >= firstMix && c < -1<<62 }

func textCell(off, n int) int64 { return 1<<62 | int64(off)<<textLenBits | int64(n) }

// A Table holds the rows of one dump, or of a merge. The zero Table is empty and ready
// for ParseCSV. Its buffers are used again by the next parse or merge into it. It may
// be read from many goroutines as long as nobody changes it.
//
// Of a row only the cells that are not empty are kept, side by side: its shape says
// which they are. Half of the columns of a real dump are empty, and a merge is as fast as
// memory is read.
type Table struct {
	schema *schema
	rows   int
	cells  []int64
	types  []Type   // of each row
	starts []int    // of each row in cells
	shapes []*shape // of each row, of schema

	// Text lies in raw, the dump as far as it was read, or in extra, from extraTexts on.
	raw, extra []byte
	copied     []byte // what raw is in a copy

	// What a merge must remember beyond the cells, so that it can go on; all empty in a
	// parsed table.
	procs []int32 // processes behind each row
	mixes []mix
	parts []part
	sums  []average // rows × average columns
	avg   []int32   // the columns of sums
}

// A mix is what processes say differently: parts[first : first+n].
type mix struct{ first, n int32 }

// A part is one of the values of a mix, and how many processes say it.
type part struct {
	cell  int64
	count int32
}

// Len is the number of rows.
func (t *Table) Len() int { return t.rows }

// Columns are the names of the columns in the order of the dump. Do not change them.
func (t *Table) Columns() []string {
	if t.schema == nil {
		return nil
	}
	return t.schema.names
}

// Column is the index of a column, -1 if there is none of that name.
func (t *Table) Column(name string) int {
	if t.schema != nil {
		if i, ok := t.schema.index[name]; ok {
			return i
		}
	}
	return -1
}

// Type is the type of row i.
func (t *Table) Type(i int) Type { return t.types[i] }

// Proxy is the name of the frontend or backend of row i. The bytes belong to t.
func (t *Table) Proxy(i int) []byte { return t.textAt(i, t.schema.pxname) }

// Server is the name of row i in its proxy: that of a server or listener, or FRONTEND or
// BACKEND. The bytes belong to t.
func (t *Table) Server(i int) []byte { return t.textAt(i, t.schema.svname) }

// Processes is how many processes row i was merged from: 1 in a parsed table.
func (t *Table) Processes(i int) int { return int(t.procsOf(i)) }

// Int is the number in row i and column col. It is not ok if the cell is empty, is no
// integer or was not mergeable, or if col is -1. Numbers beyond an int64 are cut to its
// greatest and least.
func (t *Table) Int(i, col int) (n int64, ok bool) {
	if col < 0 {
		return 0, false
	}
	c := t.cell(i, col)
	if isNumber(c) {
		return c, true
	}
	if !isText(c) {
		return 0, false
	}
	big, ok := parseBig(t.text(c))
	if !ok {
		return 0, false
	}
	if !big.IsInt64() {
		if big.Sign() < 0 {
			return math.MinInt64, true
		}
		return math.MaxInt64, true
	}
	return big.Int64(), true
}

// Mixed reports whether the processes behind row i differ in column col, and cannot be
// merged there: AppendText then says who says what, such as "UP 3/4, DOWN 1/4".
func (t *Table) Mixed(i, col int) bool {
	if col < 0 {
		return false
	}
	c := t.cell(i, col)
	return c == unmergeable || isMix(c)
}

// AppendText appends row i's column col as people read it: nothing if it is empty or
// col is -1, "mixed" if numbers could not be merged.
func (t *Table) AppendText(dst []byte, i, col int) []byte {
	if col < 0 {
		return dst
	}
	return t.appendCell(dst, t.cell(i, col))
}

// Text is AppendText as a string.
func (t *Table) Text(i, col int) string { return string(t.AppendText(nil, i, col)) }

// State is the worst of the states that the processes behind row i report, such as "UP"
// or "DOWN".
func (t *Table) State(i int) string {
	if t.schema.status < 0 {
		return ""
	}
	return string(t.worst(t.cell(i, t.schema.status)))
}

// States calls yield with each state that processes behind row i report, and how many
// do.
func (t *Table) States(i int, yield func(state []byte, processes int)) {
	if t.schema.status >= 0 {
		t.values(i, t.schema.status, yield)
	}
}

// values calls yield with each of the texts that processes behind row i have in a column,
// and with how many have it.
func (t *Table) values(i, col int, yield func(text []byte, processes int)) {
	c := t.cell(i, col)
	if !isMix(c) {
		if c != empty {
			yield(t.scalar(c), t.Processes(i))
		}
		return
	}
	for _, p := range t.partsOf(c) {
		if p.cell != empty {
			yield(t.scalar(p.cell), int(p.count))
		}
	}
}

func (t *Table) cell(i, col int) int64 {
	k := t.shapes[i].slot[col]
	if k < 0 {
		return empty
	}
	return t.cells[t.starts[i]+int(k)]
}

// set changes a cell. That of an empty one moves the row.
func (t *Table) set(i, col int, c int64) {
	s := t.shapes[i]
	if s.slot[col] < 0 {
		if c == empty {
			return
		}
		mask := append(bitset(nil), s.mask...)
		mask.add(col)
		t.widen(i, t.schema.shape(mask))
		s = t.shapes[i]
	}
	t.cells[t.starts[i]+int(s.slot[col])] = c
}

// row are the cells of row i, as its shape has them.
func (t *Table) row(i int) []int64 {
	from, n := t.starts[i], len(t.shapes[i].cols)
	return t.cells[from : from+n : from+n]
}

// widen gives row i a shape that has more columns: it moves to the end of cells.
func (t *Table) widen(i int, wide *shape) {
	from, s := t.starts[i], t.shapes[i]
	t.starts[i], t.shapes[i] = len(t.cells), wide
	for _, col := range wide.cols {
		c := empty
		if k := s.slot[col]; k >= 0 {
			c = t.cells[from+int(k)]
		}
		t.cells = append(t.cells, c)
	}
}

// add appends a row of all columns of the schema.
func (t *Table) add(typ Type, cells []int64) {
	var mask bitset
	for i, c := range cells {
		if c != empty {
			mask.add(i)
		}
	}
	t.addEmpty(typ, t.schema.shape(mask))
	to := t.row(t.rows - 1)
	for k, col := range t.shapes[t.rows-1].cols {
		to[k] = cells[col]
	}
}

// addEmpty appends a row whose cells are all empty, but will not be.
func (t *Table) addEmpty(typ Type, s *shape) {
	t.starts, t.shapes, t.types = append(t.starts, len(t.cells)), append(t.shapes, s), append(t.types, typ)
	for range s.cols {
		t.cells = append(t.cells, empty)
	}
	t.rows++
}

// text are the bytes of a cell that holds text.
func (t *Table) text(c int64) []byte {
	off := int(c >> textLenBits & (maxTexts - 1))
	n := int(c & maxText)
	if off < extraTexts {
		return t.raw[off : off+n : off+n]
	}
	off -= extraTexts
	return t.extra[off : off+n : off+n]
}

func (t *Table) textAt(i, col int) []byte { return t.scalar(t.cell(i, col)) }

// scalar is the text of a cell that is no mix; it allocates for a number.
func (t *Table) scalar(c int64) []byte {
	switch {
	case isText(c):
		return t.text(c)
	case isNumber(c):
		return strconv.AppendInt(nil, c, 10)
	}
	return nil
}

// addText keeps b and returns its cell.
func (t *Table) addText(b []byte) int64 {
	off := extraTexts + len(t.extra)
	if len(b) > maxText || off+len(b) > maxTexts {
		return unmergeable
	}
	t.extra = append(t.extra, b...)
	return textCell(off, len(b))
}

func (t *Table) procsOf(i int) int32 {
	if len(t.procs) == 0 {
		return 1
	}
	return t.procs[i]
}

func (t *Table) partsOf(c int64) []part {
	m := t.mixes[c-firstMix]
	return t.parts[m.first : m.first+m.n]
}

// sameKey reports whether row i of t and row j of u are of the same type, proxy and
// server.
func sameKey(t *Table, i int, u *Table, j int) bool {
	if t.types[i] != u.types[j] {
		return false
	}
	a, b := t.cell(i, t.schema.pxname), t.cell(i, t.schema.svname)
	c, d := u.cell(j, u.schema.pxname), u.cell(j, u.schema.svname)
	if a < b && a-c == b-d && a&maxText == c&maxText && isText(a) && isText(b) && isText(c) && isText(d) {
		// They lie at the same distance: compare both, and what is between them, at once.
		if x, ok := t.reach(a, b); ok {
			if y, ok := u.reach(c, d); ok && bytes.Equal(x, y) {
				return true
			}
		}
	}
	return sameText(t, b, u, d) && sameText(t, a, u, c)
}

// reach are the bytes from the beginning of the text a to the end of the text b, if they
// lie in one piece.
func (t *Table) reach(a, b int64) ([]byte, bool) {
	from, to := int(a>>textLenBits&(maxTexts-1)), int(b>>textLenBits&(maxTexts-1))+int(b&maxText)
	if to < extraTexts {
		return t.raw[from:to], true
	}
	if from >= extraTexts && from <= to {
		return t.extra[from-extraTexts : to-extraTexts], true
	}
	return nil, false
}

// sameText compares two cells that are no mixes.
func sameText(t *Table, a int64, u *Table, b int64) bool {
	if !isText(a) || !isText(b) {
		return a == b
	}
	n := a & maxText
	if n != b&maxText {
		return false
	}
	// States, modes, addresses: one or two comparisons of words are faster than a call.
	x, y := t.from(a), u.from(b)
	if n > 16 || len(x) < 8 || len(y) < 8 {
		return bytes.Equal(x[:n], y[:n])
	}
	differ := binary.LittleEndian.Uint64(x) ^ binary.LittleEndian.Uint64(y)
	if n <= 8 {
		return differ<<(64-8*n) == 0
	}
	return differ == 0 && binary.LittleEndian.Uint64(x[n-8:]) == binary.LittleEndian.Uint64(y[n-8:])
}

// from are the bytes from the beginning of the text c on.
func (t *Table) from(c int64) []byte {
	off := int(c >> textLenBits & (maxTexts - 1))
	if off < extraTexts {
		return t.raw[off:]
	}
	return t.extra[off-extraTexts:]
}

// reset forgets the rows and keeps the buffers.
func (t *Table) reset() {
	t.rows = 0
	t.cells, t.types, t.starts, t.shapes = t.cells[:0], t.types[:0], t.starts[:0], t.shapes[:0]
	t.raw, t.extra = nil, t.extra[:0]
	t.procs, t.mixes, t.parts = t.procs[:0], t.mixes[:0], t.parts[:0]
	t.sums, t.avg = t.sums[:0], t.avg[:0]
}

// copyFrom makes t the same as u, with memory of its own.
func (t *Table) copyFrom(u *Table) {
	t.reset()
	t.schema, t.rows = u.schema, u.rows
	t.cells = append(t.cells, u.cells...)
	t.types = append(t.types, u.types...)
	t.starts = append(t.starts, u.starts...)
	t.shapes = append(t.shapes, u.shapes...)
	t.copied = append(t.copied[:0], u.raw...)
	t.raw, t.extra = t.copied, append(t.extra, u.extra...)
	t.procs = append(t.procs, u.procs...)
	t.mixes = append(t.mixes, u.mixes...)
	t.parts = append(t.parts, u.parts...)
	t.sums = append(t.sums, u.sums...)
	t.avg = append(t.avg, u.avg...)
}

// Clone returns a copy that shares nothing with t.
func (t *Table) Clone() *Table {
	c := new(Table)
	c.copyFrom(t)
	return c
}
