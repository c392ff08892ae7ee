package haproxy

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

// Errors that a caller may branch on.
var (
	// ErrTruncated says that a dump ended before its closing blank line.
	ErrTruncated = errors.New("haproxy: the dump is cut off")
	// ErrNotStats says that what was read is no dump of statistics.
	ErrNotStats = errors.New("haproxy: not a dump of statistics")
)

const (
	// maxColumns bounds a header; HAProxy 3.2 has fewer than 200.
	maxColumns = 4096
	// maxCells bounds a table to 2 GiB.
	maxCells = 1 << 28
)

// ParseCSV makes t hold the dump data, the answer to "show stat" with its closing blank
// line: a dump without it is cut off, and gives an error that wraps [ErrTruncated].
// Columns are known by the names in the header; those that this package does not know
// are kept. On an error t is empty.
//
// t keeps data, and its text refers to it: leave it as it is until the next parse.
func (t *Table) ParseCSV(data []byte) error {
	t.reset()
	err := t.parseCSV(data)
	if err != nil {
		t.reset()
	}
	return err
}

// ParseCSV returns the dump data as a table of its own: see [Table.ParseCSV].
func ParseCSV(data []byte) (*Table, error) {
	t := new(Table)
	if err := t.ParseCSV(data); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Table) parseCSV(data []byte) error {
	if !bytes.HasPrefix(data, []byte("# ")) {
		if bytes.HasPrefix([]byte("# "), data) {
			return fmt.Errorf("%w: after %d bytes", ErrTruncated, len(data))
		}
		return fmt.Errorf("%w: it begins with %.60q", ErrNotStats, firstLine(data))
	}
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		return fmt.Errorf("%w: in its header, after %d bytes", ErrTruncated, len(data))
	}
	if err := t.readHeader(data[2:end]); err != nil {
		return err
	}
	if err := checkEnd(data); err != nil {
		return err
	}
	t.raw = data
	return t.readRows(end + 1)
}

func checkEnd(data []byte) error {
	if !bytes.HasSuffix(data, []byte("\n\n")) {
		return fmt.Errorf("%w: no blank line ends it, after %d bytes", ErrTruncated, len(data))
	}
	if len(data) >= extraTexts {
		return fmt.Errorf("haproxy: a dump of %d bytes is too large: 8 GiB at most", len(data))
	}
	return nil
}

// readHeader takes the schema of the last dump again if the header is the same.
func (t *Table) readHeader(line []byte) error {
	if t.schema != nil && t.schema.isOf(line) {
		return nil
	}
	t.schema = nil
	line = bytes.Clone(line)
	r := csv.NewReader(bytes.NewReader(line))
	names, err := r.Read()
	if err != nil {
		return fmt.Errorf("%w: its header: %w", ErrNotStats, err)
	}
	trailing := len(names) > 1 && names[len(names)-1] == ""
	if trailing {
		names = names[:len(names)-1]
	}
	if len(names) > maxColumns {
		return fmt.Errorf("%w: its header names %d columns: %d at most", ErrNotStats, len(names), maxColumns)
	}
	s, err := newSchema(names, trailing)
	if err != nil {
		return err
	}
	s.header = string(line)
	t.schema = s
	return nil
}

// readRows adds the rows that begin at p, to the end of the dump.
func (t *Table) readRows(p int) error {
	data, cols, end := t.raw, len(t.schema.names), len(t.cells)
	var mask [maxColumns / 64]uint64
	t.cells = t.cells[:cap(t.cells)]
	var s *shape
	for data[p] != '\n' {
		if (t.rows+1)*cols > maxCells {
			return fmt.Errorf("haproxy: too many rows: %d of %d columns at most", maxCells/cols, cols)
		}
		if end+cols > len(t.cells) {
			t.growFor(end, p, len(data))
		}
		next, n, err := t.readRow(t.cells[end:end+cols], p, &mask)
		if err != nil {
			return fmt.Errorf("haproxy: row %d: %w", t.rows+1, err)
		}
		p = next
		s, end = t.addRow(s, mask[:], end, n), end+n
	}
	t.cells = t.cells[:end]
	if p != len(data)-1 {
		return fmt.Errorf("%w: %d bytes follow its blank line", ErrNotStats, len(data)-1-p)
	}
	return nil
}

// addRow adds the row of the n cells behind the first end, which are in the columns of mask,
// and returns its shape; s is that of the row before.
func (t *Table) addRow(s *shape, mask []uint64, end, n int) *shape {
	mask = mask[:(len(t.schema.names)+63)/64]
	// Most likely the rows are as in the last dump, whose shapes lie in t still.
	if before, i := t.shapes[:cap(t.shapes)], t.rows; i < len(before) && before[i] != nil && before[i].of == t.schema {
		s = before[i]
	}
	if s == nil || !s.mask.same(mask) {
		s = t.schema.shape(mask)
	}
	t.starts, t.shapes = append(t.starts, end), append(t.shapes, s)
	t.types = append(t.types, t.typeOf(t.rows))
	t.rows++
	return s
}

// growFor makes room for what the dump may hold from p on, behind the first end cells. Of a
// dump that is not whole yet, whole is how long it may be.
func (t *Table) growFor(end, p, whole int) {
	rest, cols := max(len(t.raw), whole)-p, len(t.schema.names)
	// The first rows tell how many there may be and how many of their cells are not empty.
	sample := t.raw[p:min(len(t.raw), p+growSample)]
	lines, cells := 1, 0
	before := byte(',')
	for _, c := range sample {
		if c == '\n' {
			lines++
		} else if before == ',' && c != ',' {
			cells++
		}
		before = c
	}
	scale := float64(rest) / float64(max(len(sample), 1)) * 17 / 16
	rows := min(int(float64(lines)*scale), rest/cols+1) // as each has a comma a column
	want := end + cols + max(int(float64(cells)*scale), end/2)
	t.cells = append(make([]int64, 0, want), t.cells[:end]...)[:want]
	if n := t.rows + rows; n > cap(t.types) {
		t.types = append(make([]Type, 0, n), t.types...)
		t.starts = append(make([]int, 0, n), t.starts...)
		t.shapes = append(make([]*shape, 0, n), t.shapes...)
	}
}

// growSample is from how many bytes growFor tells what is in the others.
const growSample = 32 << 10

// emptyFields are eight fields that are empty.
const emptyFields = 0x2c2c2c2c2c2c2c2c // ",,,,,,,,"

var errCells = errors.New("it has not as many cells as the header")

// readRow reads the row that begins at p, those of its cells that are not empty, into
// cells, which has room for all columns. It returns where the next row begins and how many
// cells there are, and sets mask to their columns.
func (t *Table) readRow(cells []int64, p int, mask *[maxColumns / 64]uint64) (next, n int, err error) {
	if next, n, ok := t.readRowAtOnce(cells, p, mask); ok {
		return next, n, nil
	}
	return t.readRowByField(cells, p, mask)
}

// readRowByField is readRow of any row, on any machine.
func (t *Table) readRowByField(cells []int64, p int, mask *[maxColumns / 64]uint64) (next, n int, err error) {
	// The line end of the closing blank line bounds every loop over digits.
	data := t.raw
	for base := 0; base < len(cells); base += 64 {
		var seen uint64
		limit := min(64, len(cells)-base)
		for i := 0; i < limit; i++ {
			c := data[p]
			if c == ',' {
				k := 1
				if p+8 <= len(data) {
					// Half of the fields are empty, in runs: up to eight at once.
					word := binary.LittleEndian.Uint64(data[p:])
					k = min(bits.TrailingZeros64(word^emptyFields)/8, limit-i)
				}
				p += k
				i += k - 1
				continue
			}
			start := p
			if d := c - '0'; d <= 9 {
				number := int64(d)
				for {
					p++
					c = data[p]
					d = c - '0'
					if d > 9 {
						break
					}
					number = number*10 + int64(d)
				}
				// Longer ones, and leading zeros, are kept to the letter.
				if c == ',' && p-start <= 18 && (data[start] != '0' || p-start == 1) {
					cells[n] = number
					n++
					seen |= 1 << (i & 63)
					p++
					continue
				}
			}
			if c > '9' && p == start { // text that does not begin as a number or a quote does
				for p++; data[p] != ',' && data[p] != '\n'; p++ {
				}
				if data[p] == ',' && p-start <= maxText {
					cells[n] = textCell(start, p-start)
					n++
					seen |= 1 << (i & 63)
					p++
					continue
				}
			}
			cell, end, err := t.readField(start)
			if err != nil {
				return 0, 0, err
			}
			if cell != empty {
				cells[n] = cell
				n++
				seen |= 1 << (i & 63)
			}
			if end >= len(data) {
				return 0, 0, ErrTruncated
			}
			p = end
			last := base+i == len(cells)-1
			if data[p] == ',' {
				p++ // behind the last, too: one comma more says nothing more
			} else if !last || t.schema.trailing {
				return 0, 0, errCells
			}
		}
		mask[base>>6] = seen
	}
	if data[p] != '\n' || p+1 >= len(data) {
		return 0, 0, errCells
	}
	return p + 1, n, nil
}

// readField reads any field that begins at p, and returns its cell and where its comma
// or line end is.
func (t *Table) readField(p int) (cell int64, end int, err error) {
	data := t.raw
	if data[p] == '"' {
		return t.readQuoted(p + 1)
	}
	end = p
	for data[end] != ',' && data[end] != '\n' {
		end++
	}
	if end-p > maxText {
		return 0, 0, fmt.Errorf("a field of %d bytes is too long", end-p)
	}
	if end == p {
		return empty, end, nil
	}
	if n, ok := parseNumber(data[p:end]); ok {
		return n, end, nil
	}
	return textCell(p, end-p), end, nil
}

// readQuoted reads a field in quotes (RFC 4180) from behind the first.
func (t *Table) readQuoted(p int) (cell int64, end int, err error) {
	data := t.raw
	start, unescaped := p, -1
	for {
		i := bytes.IndexByte(data[p:], '"')
		if i < 0 {
			return 0, 0, fmt.Errorf("%w: in a quoted field", ErrTruncated)
		}
		p += i
		if p+1 >= len(data) {
			return 0, 0, fmt.Errorf("%w: in a quoted field", ErrTruncated)
		}
		if data[p+1] != '"' {
			break
		}
		if unescaped < 0 {
			unescaped = len(t.extra)
		}
		t.extra = append(t.extra, data[start:p+1]...)
		p += 2
		start = p
	}
	end = p + 1
	if c := data[end]; c != ',' && c != '\n' {
		return 0, 0, errors.New("text follows a closing quote")
	}
	if unescaped >= 0 {
		t.extra = append(t.extra, data[start:p]...)
		start, p = extraTexts+unescaped, extraTexts+len(t.extra)
	}
	if p-start > maxText || p >= maxTexts {
		return 0, 0, fmt.Errorf("a field of %d bytes is too long", p-start)
	}
	if p == start {
		return empty, end, nil
	}
	cell = textCell(start, p-start)
	if n, ok := parseNumber(t.text(cell)); ok {
		return n, end, nil
	}
	return cell, end, nil
}

// parseNumber reads a number that a cell holds and that is written as it would be
// written again; others stay text.
func parseNumber(b []byte) (int64, bool) {
	digits := b
	if len(b) > 0 && b[0] == '-' {
		digits = b[1:]
	}
	if len(digits) == 0 || len(digits) > 19 || digits[0] == '0' && len(b) > 1 {
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if n >= 1<<62 {
		return 0, false
	}
	if len(digits) < len(b) {
		return -int64(n), true
	}
	return int64(n), true
}

func firstLine(data []byte) string {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return strings.ToValidUTF8(string(line[:min(len(line), 200)]), "?")
}
