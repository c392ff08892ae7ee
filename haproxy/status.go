package haproxy

import (
	"bytes"
	"slices"
	"strconv"
)

// severity ranks states, the worst first. HAProxy adds to some of them: "DOWN 1/2" is on
// its way up, "UP 1/3" on its way down, "MAINT (via be/srv)" inherited.
func severity(state []byte) int {
	word, rest, more := bytes.Cut(state, []byte(" "))
	if i := bytes.IndexByte(word, '('); i > 0 {
		word = word[:i]
	}
	switch string(word) {
	case "DOWN":
		if more && len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
			return 1
		}
		return 0
	case "STOP":
		return 2
	case "MAINT":
		return 3
	case "PAUSED", "FULL", "WAITING":
		return 4
	case "NOLB":
		return 6
	case "DRAIN":
		return 7
	case "UP":
		if more {
			return 8
		}
		return 11
	case "no": // no check
		return 10
	case "OPEN":
		return 11
	case "":
		return 12
	}
	return 5
}

// worst is the worst state of a cell.
func (t *Table) worst(c int64) []byte {
	if !isMix(c) {
		return t.scalar(c)
	}
	var worst []byte
	found := false
	for _, p := range t.partsOf(c) {
		s := t.scalar(p.cell)
		a, b := severity(s), severity(worst)
		if !found || a < b || a == b && bytes.Compare(s, worst) < 0 {
			worst, found = s, true
		}
	}
	return worst
}

// appendCell appends a cell as people read it.
func (t *Table) appendCell(dst []byte, c int64) []byte {
	switch {
	case c == empty:
		return dst
	case isNumber(c):
		return strconv.AppendInt(dst, c, 10)
	case isText(c):
		return append(dst, t.text(c)...)
	case isMix(c):
		return t.appendMix(dst, c)
	}
	return append(dst, "mixed"...)
}

// appendMix appends who says what, such as "UP 3/4, DOWN 1/4": the most first. Processes
// that say nothing are counted only.
func (t *Table) appendMix(dst []byte, c int64) []byte {
	parts := slices.Clone(t.partsOf(c))
	slices.SortFunc(parts, func(a, b part) int {
		if a.count != b.count {
			return int(b.count) - int(a.count)
		}
		return bytes.Compare(t.scalar(a.cell), t.scalar(b.cell))
	})
	var all int32
	for _, p := range parts {
		all += p.count
	}
	start := len(dst)
	for _, p := range parts {
		if p.cell == empty {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ", "...)
		}
		dst = t.appendCell(dst, p.cell)
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, int64(p.count), 10)
		dst = append(dst, '/')
		dst = strconv.AppendInt(dst, int64(all), 10)
	}
	return dst
}
