package elb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// Record is a line that was split into columns. It refers to the line's bytes and copies
// none: those of [Reader.Lines] hold until the next line. The zero Record has no fields.
//
// A Record may be read from many goroutines, and reused for the next line by Parse.
type Record struct {
	Line   int64 // the line's number in the object, from 1; set by a Reader
	Offset int64 // where the line begins, in inflated bytes; set by a Reader
	End    int64 // where the next one begins: a reader that starts there goes on after this one

	schema *schema
	line   []byte
	n      int // columns, with extra ones
	quoted int // columns in quotes
	timed  int // the column that check found to be a time in ISO 8601
	zone   zone
	spans  [maxColumns]span

	// Of splitMarked, which nobody else reads.
	marks [maxMarked / marked]marks
	ends  [maxColumns + 4]uint32
}

// span is where a column's text stands in the line, without its quotes.
type span struct{ start, end uint32 }

// SyntaxError says why a line is not of a format. It holds nothing of the line itself,
// which may hold secrets.
type SyntaxError struct {
	Format Format
	Column int    // from 0
	Name   string // of the column, as AWS has it; empty behind the last that has one
	Byte   int    // where in the line the column begins, from 0
	Reason string
}

func (e *SyntaxError) Error() string {
	name := ""
	if e.Name != "" {
		name = " (" + e.Name + ")"
	}
	return fmt.Sprintf("not a line of format %s: column %d%s at byte %d %s", e.Format, e.Column+1, name, e.Byte, e.Reason)
}

// Parse makes r the record of a line, which has no line break at its end and must not
// change while r is in use. What does not look like a line of the format is a
// *[SyntaxError], and r is then empty; see the package comment for what is no error.
//
// CloudFront's lines are taken to have the standard columns: a [Reader] honours headers.
func (r *Record) Parse(f Format, line []byte) error {
	s := schemaOf(f)
	if s == nil {
		r.schema, r.n = nil, 0
		return ErrUnknown
	}
	return r.parse(s, line)
}

func (r *Record) parse(s *schema, line []byte) error {
	r.schema, r.line, r.n, r.quoted = s, line[:len(line):len(line)], 0, 0
	r.timed = -1
	var err *SyntaxError
	switch {
	case len(line) >= math.MaxInt32:
		err = &SyntaxError{Reason: "makes the line longer than 2 GiB"}
	case s.format == CloudFront:
		r.splitTabs()
		err = r.check()
	case r.splitMarked():
		err = r.check()
	default:
		if i := r.splitSpaces(); i >= 0 {
			err = r.badAt(r.n, i, "opens a quote that is never closed")
		} else {
			err = r.check()
		}
	}
	if err != nil {
		err.Format = s.format
		r.schema, r.n = nil, 0
		return err
	}
	return nil
}

// splitTabs splits at each tab. The last column kept holds the rest of a line of more
// than maxColumns.
func (r *Record) splitTabs() {
	line := r.line
	start := 0
	for {
		i := bytes.IndexByte(line[start:], '\t')
		if i < 0 || r.n == maxColumns-1 {
			r.add(start, len(line))
			return
		}
		r.add(start, start+i)
		start += i + 1
	}
}

// splitSpaces splits at each space that is not inside of quotes (in S3's logs: nor of
// brackets). It returns -1, or where a quote opens that nothing closes.
func (r *Record) splitSpaces() (open int) {
	line, s3 := r.line, r.schema.format == S3Access
	n, i := 0, 0
	for ; i < len(line) && n < maxColumns-1; n++ {
		var start, end int
		switch c := line[i]; {
		case c == '"':
			start = i + 1
			if end = closingQuote(line, start, s3); end < 0 {
				r.n = n
				return i
			}
			r.quoted++
			i = end + 2
		case c == '[' && s3:
			start = i + 1
			if end = bytes.Index(line[i:], bracketEnd); end < 0 {
				end = len(line) - i
			}
			end += i
			i = end + 2
		default:
			start, end = i, i+8
			if end <= len(line) { // find's first step, without a call
				end = i + firstZero(binary.LittleEndian.Uint64(line[i:])^' '*ones)
			}
			if end >= i+8 {
				if end = find(line, i, ' '); end < 0 {
					end = len(line)
				}
			}
			i = end + 1
		}
		r.spans[n] = span{uint32(start), uint32(end)}
	}
	r.n = n
	if i < len(line) {
		r.add(i, len(line))
	}
	return -1
}

var bracketEnd = []byte("] ")

func (r *Record) add(start, end int) {
	r.spans[r.n] = span{uint32(start), uint32(end)}
	r.n++
}

// closingQuote returns where the quote stands that closes the column whose text begins at
// i, or -1: see Quotes in the package comment. raw means that clients' quotes are not
// escaped.
func closingQuote(line []byte, i int, raw bool) int {
	for ; ; i++ {
		if i = find(line, i, '"'); i < 0 || i+1 == len(line) {
			return i
		}
		if line[i+1] == ' ' && (!raw && line[i-1] != '\\' || nextOpens(line[i+1:])) {
			return i
		}
	}
}

// nextOpens tells whether the next quote opens a column, or there is none.
func nextOpens(rest []byte) bool {
	k := bytes.IndexByte(rest, '"')
	return k < 0 || k > 0 && rest[k-1] == ' '
}

// check looks at the few columns that tell a format's lines from any other text: the
// time, and what tells those formats apart whose times stand in the same place.
func (r *Record) check() *SyntaxError {
	switch r.schema.format {
	case Classic:
		if err := r.checkTime(0); err != nil {
			return err
		}
		if r.n > 2 && !isAbsent(r.column(2)) && bytes.IndexByte(r.column(2), ':') < 0 {
			return r.bad(2, "is no address and port")
		}
	case ALB:
		if r.n > 2 && (isAbsent(r.column(2)) || isNumber(r.column(2))) {
			return r.bad(2, "is no load balancer's name")
		}
		return r.checkTime(1)
	case ALBConnection:
		if r.n > 2 && !isAbsent(r.column(2)) && !isInteger(r.column(2)) {
			return r.bad(2, "is no port")
		}
		return r.checkTime(0)
	case ALBHealthCheck:
		if r.n > 2 && !isAbsent(r.column(2)) && !isNumber(r.column(2)) {
			return r.bad(2, "is no number")
		}
		return r.checkTime(1)
	case NLB:
		if !isNumber(r.column(1)) {
			return r.bad(1, "is no version")
		}
		return r.checkTime(2)
	case S3Access:
		if _, ok := bracketTime(r.column(2)); !ok {
			return r.bad(2, "is no time such as [06/Feb/2019:00:00:38 +0000]")
		}
	case CloudFront:
		for i, c := range r.schema.columns {
			if c.shape == asDate && !isDate(r.column(i)) {
				return r.bad(i, "is no day such as 2019-12-04")
			}
			if c.shape == asClock && !isClock(r.column(i)) {
				return r.bad(i, "is no time of day such as 21:02:31")
			}
		}
	}
	return nil
}

func (r *Record) checkTime(i int) *SyntaxError {
	if r.timed, r.zone = i, isoZone(r.column(i)); r.zone == notTime {
		return r.bad(i, "is no time such as 2018-07-02T22:23:00.186641Z")
	}
	return nil
}

func (r *Record) bad(i int, reason string) *SyntaxError {
	at := len(r.line)
	if i < r.n {
		at = int(r.spans[i].start)
	}
	return r.badAt(i, at, reason)
}

func (r *Record) badAt(i, at int, reason string) *SyntaxError {
	err := &SyntaxError{Column: i, Byte: at, Reason: reason}
	if i < len(r.schema.columns) {
		err.Name = r.schema.columns[i].aws
	}
	return err
}

// Format returns the line's format, Unknown if Parse failed.
func (r *Record) Format() Format {
	if r.schema == nil {
		return Unknown
	}
	return r.schema.format
}

// Text returns the whole line.
func (r *Record) Text() []byte { return r.line }

// Columns returns how many columns the line has, those without a name included. Behind
// the 60th, the rest of the line counts as one.
func (r *Record) Columns() int { return r.n }

// Column returns the text of the i-th column, from 0, without its quotes or brackets; nil
// if the line ends before it.
func (r *Record) Column(i int) []byte {
	if i < 0 {
		return nil
	}
	return slices.Clip(r.column(i))
}

// column is Column without a look at i < 0, and without the end of the text as capacity.
func (r *Record) column(i int) []byte {
	if i >= r.n {
		return nil
	}
	s := r.spans[i]
	return r.line[s.start:s.end]
}

// Fields returns the fields of this record, as [Fields] does for its format; they differ
// if a #Fields header was met. The slice is shared: it must not be changed.
func (r *Record) Fields() []Field {
	if r.schema == nil {
		return nil
	}
	return r.schema.fields
}

// Get returns the field of that name, which may be the one in the Elastic Common Schema.
// A name that the format does not have gives an absent value: see [Lookup].
func (r *Record) Get(name string) Value {
	if r.schema == nil {
		return Value{}
	}
	i, ok := r.schema.byName[name]
	if !ok {
		return Value{}
	}
	return r.At(i)
}

// At returns the field at a position, as [Fields] and [Lookup] have it.
func (r *Record) At(position int) Value {
	if r.schema == nil || position < 0 || position >= len(r.schema.fields) {
		return Value{}
	}
	f := &r.schema.fields[position]
	if f.Column >= r.n {
		return Value{}
	}
	c := &r.schema.columns[f.Column]
	b := r.column(f.Column)
	if isAbsent(b) {
		return Value{}
	}
	part := position - r.schema.steps[f.Column].first
	switch c.shape {
	case asEndpoint:
		host, port := splitAddress(b)
		b = [...][]byte{host, port}[part]
	case asTarget:
		parts := splitTarget(b)
		b = parts[part]
	case asRequest:
		method, url, protocol := splitRequest(b)
		if method != nil && url != nil && protocol != nil || isNothing(b) {
			b = nil
		}
		b = [...][]byte{b, method, url, protocol}[part]
	case asClock:
		if r.schema.date >= 0 {
			return Value{kind: f.Kind, shape: c.shape, text: slices.Clip(b), day: r.column(r.schema.date)}
		}
	}
	if len(b) == 0 && (f.Kind != String || c.shape == asRequest || c.shape == asTarget) {
		return Value{}
	}
	return Value{kind: f.Kind, shape: c.shape, text: slices.Clip(b)}
}

// Time returns when the line's request or connection ended, in UTC: every format has that
// column, and a record does not exist without it, except of CloudFront if the header
// names no date and time.
func (r *Record) Time() (time.Time, bool) { return r.Get("time").Time() }
