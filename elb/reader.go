package elb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// DefaultMaxLine is the longest line that a [Reader] takes unless told otherwise: 1 MiB.
// A load balancer takes request headers of 64 KiB in all, so its own lines stay far below.
const DefaultMaxLine = 1 << 20

var (
	// ErrUnknown is the error of a line that looks like no format's.
	ErrUnknown = errors.New("looks like no known format of log: name one, if it is one")
	// ErrTooLong is the error of a line longer than [Config.MaxLine].
	ErrTooLong = errors.New("too long")
)

// LineError is the error of one line, after which reading goes on. It wraps a
// *[SyntaxError], [ErrUnknown] or [ErrTooLong].
type LineError struct {
	Line   int64  // its number, from 1
	Offset int64  // where it begins, in inflated bytes
	End    int64  // where the next one begins
	Length int64  // without its line break
	Text   []byte // the line, or the first bytes of one that is too long; until the next line
	Err    error
}

// Error says which line and why. It holds nothing of the line's text.
func (e *LineError) Error() string {
	return fmt.Sprintf("elb: line %d at byte %d, %d bytes long: %v", e.Line, e.Offset, e.Length, e.Err)
}

func (e *LineError) Unwrap() error { return e.Err }

// Config says what a [Reader] reads. The zero Config takes any format.
type Config struct {
	// Format is the format of all lines. Unknown detects it: by the first line, then
	// again by each line that is not of the format of the one before.
	Format Format
	// Key is the object's name, which helps to detect the format.
	Key string
	// MaxLine is the longest line taken, in bytes; 0 means DefaultMaxLine. No more than
	// about twice that is held in memory.
	MaxLine int
	// Offset and Line say where the reader stands that is given: how many inflated bytes
	// and lines of the object lie before. Zero means its beginning.
	Offset, Line int64
	// Header is the #Fields line in force at Offset, as [Reader.Header] returned it.
	Header string
}

// Reader reads the lines of an object that is inflated already. It is for one goroutine.
type Reader struct {
	src        io.Reader
	cfg        Config
	record     Record
	schema     *schema // of the line before, or as the key has it
	cloudFront *schema // as the header has it
	header     []byte

	buf        []byte
	start, end int   // what of buf is read from src and not used
	offset     int64 // of buf[start], in the object
	line       int64 // how many lines lie before buf[start]
	skipped    int64
	err        error // of src
}

// NewReader returns a reader of r's lines.
func NewReader(r io.Reader, cfg Config) *Reader {
	if cfg.MaxLine <= 0 {
		cfg.MaxLine = DefaultMaxLine
	}
	rd := &Reader{
		src: r, cfg: cfg, offset: cfg.Offset, line: cfg.Line,
		schema: schemaOf(cfg.Format), cloudFront: schemaOf(CloudFront),
	}
	rd.useHeader([]byte(cfg.Header))
	return rd
}

// Lines returns the records of the lines that are left. A record holds until the next.
//
// A line that is no record yields nil and a *[LineError], and reading goes on. The last
// pair may be nil and the error of the reader below, with the byte at which it happened:
// a line that it cut off is no record. At the end of the object the loop just ends; its
// last line needs no line break.
//
// A loop that was left early can be taken up again by another call.
func (r *Reader) Lines() iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		for {
			offset := r.offset
			text, length, err := r.next()
			if err == io.EOF {
				return
			}
			if err != nil && err != ErrTooLong {
				yield(nil, err)
				return
			}
			if err != nil {
				err = fmt.Errorf("%w: a line may have %d bytes", ErrTooLong, r.cfg.MaxLine)
			} else {
				text = r.trim(text)
				length = int64(len(text))
				if r.skip(text) {
					r.skipped++
					continue
				}
				err = r.parse(text)
			}
			record := &r.record
			record.Line, record.Offset, record.End = r.line, offset, r.offset
			if err != nil {
				record = nil
				err = &LineError{Line: r.line, Offset: offset, End: r.offset, Length: length, Text: text, Err: err}
			}
			if !yield(record, err) {
				return
			}
		}
	}
}

// Skipped returns how many lines were empty or comments so far.
func (r *Reader) Skipped() int64 { return r.skipped }

// Header returns the #Fields line in force, or "". Who goes on later in the middle of the
// object passes it on as [Config.Header].
func (r *Reader) Header() string { return string(r.header) }

// trim takes off the carriage return of a line, and the byte order mark of an object.
func (r *Reader) trim(text []byte) []byte {
	if r.line == 1 {
		text = bytes.TrimPrefix(text, byteOrderMark)
	}
	return bytes.TrimSuffix(text, carriageReturn)
}

var (
	byteOrderMark  = []byte("\xef\xbb\xbf")
	carriageReturn = []byte("\r")
)

// skip tells whether a line is empty or a comment. It takes note of headers.
func (r *Reader) skip(text []byte) bool {
	if len(text) == 0 {
		return true
	}
	if text[0] != '#' {
		return false
	}
	r.useHeader(text)
	return true
}

// useHeader makes the names of a #Fields line those of the lines after it.
func (r *Reader) useHeader(text []byte) {
	if !bytes.HasPrefix(text, fieldsHeader) || r.cfg.Format != Unknown && r.cfg.Format != CloudFront {
		return
	}
	if !bytes.Equal(text, r.header) {
		r.header = bytes.Clone(text)
		r.cloudFront = newHeader(text)
	}
	r.schema = r.cloudFront
}

// parse makes r.record the record of a line, of the format of the line before if it can
// be, else of the one that it looks like.
func (r *Reader) parse(text []byte) error {
	if r.schema == nil {
		if r.schema = r.schemaOf(Detect(r.cfg.Key, text)); r.schema == nil {
			return ErrUnknown
		}
	}
	err := r.record.parse(r.schema, text)
	if err == nil || r.cfg.Format != Unknown {
		return err
	}
	other := r.schemaOf(detectLine(text))
	if other == nil || other == r.schema || r.record.parse(other, text) != nil {
		return err
	}
	r.schema = other
	return nil
}

func (r *Reader) schemaOf(f Format) *schema {
	if f == CloudFront {
		return r.cloudFront
	}
	return schemaOf(f)
}

const (
	firstBuffer = 64 << 10
	// prefixKept is how much of a line that is too long goes into its error.
	prefixKept = 1 << 10
)

// next returns the next line without its line feed. Of a line that is too long it returns
// the first bytes, its length and ErrTooLong. At the end it returns io.EOF, and where
// reading failed another error.
func (r *Reader) next() (text []byte, length int64, err error) {
	for seen := 0; ; {
		if i := bytes.IndexByte(r.buf[r.start+seen:r.end], '\n'); i >= 0 {
			return r.cut(seen+i, 1)
		}
		if seen = r.end - r.start; seen > r.cfg.MaxLine+len(carriageReturn) {
			return r.passOver()
		}
		if r.err != nil {
			if r.err == io.EOF && seen > 0 {
				return r.cut(seen, 0)
			}
			return nil, 0, r.failure()
		}
		r.fill()
	}
}

// cut takes a line of n bytes and its line feed, if there is one, from the buffer.
func (r *Reader) cut(n, feed int) (text []byte, length int64, err error) {
	text = r.buf[r.start : r.start+n : r.start+n]
	r.start += n + feed
	r.offset += int64(n + feed)
	r.line++
	if len(bytes.TrimSuffix(text, carriageReturn)) > r.cfg.MaxLine {
		return text[:min(n, prefixKept)], int64(n), ErrTooLong
	}
	return text, int64(n), nil
}

// passOver reads up to the end of a line that is too long to be held.
func (r *Reader) passOver() (text []byte, length int64, err error) {
	prefix := bytes.Clone(r.buf[r.start : r.start+min(r.end-r.start, prefixKept)])
	for {
		n := bytes.IndexByte(r.buf[r.start:r.end], '\n')
		if n >= 0 {
			_, _, _ = r.cut(n, 1)
			return prefix, length + int64(n), ErrTooLong
		}
		n = r.end - r.start
		length += int64(n)
		r.offset += int64(n)
		r.start, r.end = 0, 0
		if r.err == io.EOF {
			r.line++
			return prefix, length, ErrTooLong
		}
		if r.err != nil {
			return nil, 0, r.failure()
		}
		r.fill()
	}
}

// failure returns the error of the reader below, and where it is, or io.EOF.
func (r *Reader) failure() error {
	if r.err == io.EOF {
		return io.EOF
	}
	return fmt.Errorf("elb: read line %d at byte %d: %w", r.line+1, r.offset+int64(r.end-r.start), r.err)
}

// fill reads once, into a buffer that grows up to twice MaxLine.
func (r *Reader) fill() {
	if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.start, r.end = 0, r.end-r.start
	}
	if r.end == len(r.buf) {
		grown := make([]byte, max(2*len(r.buf), firstBuffer))
		copy(grown, r.buf)
		r.buf = grown
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.end:])
		if n < 0 || n > len(r.buf)-r.end {
			n, err = 0, fmt.Errorf("the reader below returned %d for a buffer of %d bytes", n, len(r.buf)-r.end)
		}
		r.end += n
		if r.err = err; n > 0 || err != nil {
			return
		}
	}
	r.err = io.ErrNoProgress
}
