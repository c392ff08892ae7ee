package haproxy

import (
	"hash/maphash"
	"math/big"
)

// combine returns the cell of t for its cell a and the cell b of u, by a rule of
// arithmetic. Nothing is the neutral element, but for limits. What is no integer cannot
// be merged, and neither can the result, whatever else comes.
func (t *Table) combine(rule Rule, a int64, u *Table, b int64) int64 {
	if rule == SumLimits {
		if noLimit(a) && noLimit(b) {
			return max(a, b) // 0 rather than nothing
		}
		if noLimit(a) || noLimit(b) {
			return unmergeable
		}
	}
	switch {
	case b == empty:
		return a
	case a == empty:
		return t.take(u, b)
	}
	if isNumber(a) && isNumber(b) {
		switch rule {
		case Max:
			return max(a, b)
		case Min:
			return min(a, b)
		case Least:
			if a < 0 || b < 0 {
				return max(a, b)
			}
			return min(a, b)
		}
		if c := a + b; isNumber(c) {
			return c
		}
	}
	x, ok := t.bigCell(a)
	y, ok2 := u.bigCell(b)
	if !ok || !ok2 {
		return unmergeable
	}
	switch order := x.Cmp(y); rule {
	case Max:
		if order < 0 {
			x = y
		}
	case Min:
		if order > 0 {
			x = y
		}
	case Least:
		never := x.Sign() < 0 || y.Sign() < 0
		if never == (order < 0) {
			x = y
		}
	default:
		x = x.Add(x, y)
	}
	return t.addBig(x)
}

func noLimit(c int64) bool { return c == empty || c == 0 }

// bigCell is the integer in a cell, of whatever size.
func (t *Table) bigCell(c int64) (*big.Int, bool) {
	if isNumber(c) {
		return big.NewInt(c), true
	}
	if isText(c) {
		return parseBig(t.text(c))
	}
	return nil, false
}

// maxDigits bounds what is taken for a number; 64 bits have 20 digits.
const maxDigits = 64

// parseBig reads an integer as it would be written again.
func parseBig(b []byte) (*big.Int, bool) {
	digits := b
	if len(b) > 0 && b[0] == '-' {
		digits = b[1:]
	}
	if len(digits) == 0 || len(digits) > maxDigits || digits[0] == '0' && len(b) > 1 {
		return nil, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return nil, false
		}
	}
	return new(big.Int).SetString(string(b), 10)
}

func (t *Table) addBig(x *big.Int) int64 {
	if x.IsInt64() && isNumber(x.Int64()) {
		return x.Int64()
	}
	text := x.Append(nil, 10)
	if len(text) > maxDigits {
		return unmergeable
	}
	return t.addText(text)
}

// A rowIndex finds rows by their keys: a hash table of row numbers, so that it has no
// key of its own.
type rowIndex struct {
	seed  maphash.Seed
	slots []int32 // row + 1
	rows  int     // in slots
}

func (x *rowIndex) reset() { x.rows = 0 }

func (x *rowIndex) hash(t *Table, i int) uint64 {
	h := maphash.Bytes(x.seed, t.Proxy(i))
	return h*31 + maphash.Bytes(x.seed, t.Server(i)) + uint64(t.types[i])
}

// fill takes in all rows of t. Those of one key are found in the order of the rows.
func (x *rowIndex) fill(t *Table) {
	if x.seed == (maphash.Seed{}) {
		x.seed = maphash.MakeSeed()
	}
	if len(x.slots) == 0 || 2*t.rows > len(x.slots) {
		n := 1024
		for n < 4*t.rows {
			n *= 2
		}
		x.slots, x.rows = make([]int32, n), 0
	} else if x.rows == 0 {
		clear(x.slots)
	}
	mask := uint64(len(x.slots) - 1)
	for ; x.rows < t.rows; x.rows++ {
		at := x.hash(t, x.rows) & mask
		for x.slots[at] != 0 {
			at = (at + 1) & mask
		}
		x.slots[at] = int32(x.rows + 1)
	}
}

// find returns the first row of t that has the key of row i of u and is not taken by
// this turn yet, or -1.
func (x *rowIndex) find(t, u *Table, i int, taken []uint32, turn uint32) int32 {
	mask := uint64(len(x.slots) - 1)
	for at := x.hash(u, i) & mask; x.slots[at] != 0; at = (at + 1) & mask {
		row := int(x.slots[at] - 1)
		if taken[row] != turn && sameKey(t, row, u, i) {
			return int32(row)
		}
	}
	return -1
}
