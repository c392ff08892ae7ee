package haproxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"strconv"
	"unicode/utf8"
)

// writeSize is after how many bytes a writer hands on what it has.
const writeSize = 32 << 10

// WriteCSV writes the rows as "show stat" does: the header, the rows, a blank line. What
// processes say differently is text such as "UP 3/4, DOWN 1/4", or "mixed".
func (v *View) WriteCSV(w io.Writer) error {
	cols, err := v.columns()
	if err != nil {
		return err
	}
	t := v.Table
	trailing := t.schema.trailing
	out := make([]byte, 0, writeSize+writeSize/4)
	out = append(out, "# "...)
	for k, col := range cols {
		if k > 0 {
			out = append(out, ',')
		}
		out = appendQuoted(out, []byte(t.schema.names[col]))
	}
	if trailing {
		out = append(out, ',')
	}
	out = append(out, '\n')
	row := csvRow{t: t, commas: bytes.Repeat([]byte{','}, len(cols))}
	for _, i := range v.Rows {
		if len(v.Fields) == 0 {
			out = row.appendAll(out, i)
		} else {
			out = row.appendSome(out, i, cols)
		}
		if trailing {
			out = append(out, ',')
		}
		out = append(out, '\n')
		if len(out) >= writeSize {
			if _, err := w.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	_, err = w.Write(append(out, '\n'))
	return err
}

// csvRow writes rows of t.
type csvRow struct {
	t      *Table
	commas []byte // as many as there are columns
	field  []byte
}

// appendAll appends row i with all columns: what is between two cells that are not empty
// in one piece. Up to eight commas are a word, of which the next cell overwrites what is too
// much: most are one or two, and a call of memmove takes longer than those.
func (r *csvRow) appendAll(out []byte, i int) []byte {
	const (
		word  = 8
		eight = ',' * 0x0101010101010101 // commas
	)
	at, last := 0, len(r.t.schema.names)-1
	cells := r.t.row(i)
	for k, col := range r.t.shapes[i].cols {
		gap := int(col) - at
		at = int(col)
		if n := len(out); gap <= word && cap(out)-n > word {
			binary.NativeEndian.PutUint64(out[n:n+word], eight)
			out = out[:n+gap]
		} else {
			out = append(out, r.commas[:gap]...)
		}
		if c := cells[k]; uint64(c) < 10 {
			out = append(out, '0'+byte(c))
		} else {
			out = r.appendCell(out, c)
		}
	}
	return append(out, r.commas[:last-at]...)
}

// appendSome appends row i with some columns.
func (r *csvRow) appendSome(out []byte, i int, cols []int) []byte {
	for k, col := range cols {
		if k > 0 {
			out = append(out, ',')
		}
		out = r.appendCell(out, r.t.cell(i, col))
	}
	return out
}

func (r *csvRow) appendCell(out []byte, c int64) []byte {
	switch {
	case c >= 0 && c < 10:
		return append(out, '0'+byte(c))
	case c == empty:
		return out
	case isNumber(c):
		return strconv.AppendInt(out, c, 10)
	case isText(c):
		return appendQuoted(out, r.t.text(c))
	}
	r.field = r.t.appendCell(r.field[:0], c)
	return appendQuoted(out, r.field)
}

// appendQuoted appends a field of CSV, in quotes where it needs them (RFC 4180).
func appendQuoted(dst, field []byte) []byte {
	if !needsQuotes(field) {
		return append(dst, field...)
	}
	dst = append(dst, '"')
	for _, c := range field {
		if c == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// needsQuotes looks at each byte once: fields are short.
func needsQuotes(field []byte) bool {
	for _, c := range field {
		if c <= ',' && (c == ',' || c == '"' || c == '\n' || c == '\r') {
			return true
		}
	}
	return false
}

// WriteJSON writes an object a row, each on a line of its own: the fields by name as
// numbers or strings, without those that are empty. "kind" is the type in words,
// "processes" says how many processes the row was merged from, "state" is the worst of
// their states, and "mixed" lists the fields that could not be merged. A byte that is no
// UTF-8 becomes U+FFFD.
func (v *View) WriteJSON(w io.Writer) error {
	out := make([]byte, 0, writeSize+writeSize/4)
	cols, err := v.columns()
	if err != nil {
		return err
	}
	for _, i := range v.Rows {
		out = append(v.appendJSON(out, i, cols), '\n')
		if len(out) >= writeSize {
			if _, err := w.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	if len(out) == 0 {
		return nil
	}
	_, err = w.Write(out)
	return err
}

func (v *View) appendJSON(dst []byte, i int, cols []int) []byte {
	t := v.Table
	dst = append(dst, `{"kind":"`...)
	dst = append(dst, t.types[i].String()...)
	dst = append(dst, `","processes":`...)
	dst = strconv.AppendInt(dst, int64(t.Processes(i)), 10)
	if state := t.State(i); state != "" {
		dst = append(dst, `,"state":`...)
		dst = appendJSONString(dst, []byte(state))
	}
	var text []byte
	mixed := 0
	for _, col := range cols {
		c := t.cell(i, col)
		if c == empty {
			continue
		}
		dst = append(dst, ',')
		dst = appendJSONString(dst, []byte(t.schema.keys[col]))
		dst = append(dst, ':')
		if isNumber(c) {
			dst = strconv.AppendInt(dst, c, 10)
			continue
		}
		text = t.appendCell(text[:0], c)
		if _, ok := t.bigCell(c); ok {
			dst = append(dst, text...)
			continue
		}
		dst = appendJSONString(dst, text)
		if !isText(c) {
			mixed++
		}
	}
	if mixed > 0 {
		sep := `,"mixed":[`
		for _, col := range cols {
			if t.Mixed(i, col) {
				dst = append(dst, sep...)
				dst = appendJSONString(dst, []byte(t.schema.keys[col]))
				sep = ","
			}
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// appendJSONString appends s in quotes, escaped as encoding/json does.
func appendJSONString(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for len(s) > 0 {
		c := s[0]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s)
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, `\ufffd`...)
			case r == '\u2028' || r == '\u2029': // line ends in JavaScript
				dst = append(dst, `\u202`...)
				dst = append(dst, hex[r&0xf])
			default:
				dst = append(dst, s[:n]...)
			}
			s = s[n:]
			continue
		}
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c < 0x20 || c == 0x7f:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&0xf])
		default:
			dst = append(dst, c)
		}
		s = s[1:]
	}
	return append(dst, '"')
}
