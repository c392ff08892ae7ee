package elb

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Names says which names an [Encoder] writes.
type Names uint8

const (
	Flat Names = iota // [Field.Name]: client_ip
	ECS               // [Field.ECS]: source.ip, which Elasticsearch takes for source{ip}
)

// Encoder writes records as JSON. The zero Encoder is ready; it may be used from many
// goroutines.
type Encoder struct {
	Names Names
	// Nulls writes fields that are absent as null: every record of a format then has
	// the same keys. Else they are left out.
	Nulls bool
}

// AppendJSON appends the record as one JSON object on one line, without a line break, and
// returns the longer slice. It allocates only to make dst longer, and may overwrite what
// is behind dst's end. A Record without fields is {}.
//
// Under ECS names, the protocol HTTP/1.1 is the version 1.1.
func (e Encoder) AppendJSON(dst []byte, r *Record) []byte {
	s := r.schema
	if s == nil {
		return append(dst, '{', '}')
	}
	names := min(e.Names, ECS)
	k := &s.keys[names]
	dst = append(slices.Grow(dst, len(r.line)+k.size+slack), '{')
	w := writer{
		buf: dst[:cap(dst)], keys: k.fields,
		nulls: e.Nulls, ecs: names == ECS, clean: r.isClean(),
	}
	n := len(dst)
	spans := r.spans[:r.n]
	for i, c := range s.steps {
		var b []byte
		if i < len(spans) {
			b = r.line[spans[i].start:spans[i].end]
		}
		switch {
		case len(b) == 0 || isAbsent(b):
			n = w.empty(n, c, b)
		case c.shape == asText:
			n = w.string(n, c.first, b)
		case c.shape == asInteger:
			n = w.number(n, c.first, b, isInteger(b))
		case c.shape == asDecimal:
			n = w.number(n, c.first, b, isNumber(b))
		case i == r.timed:
			n = w.instant(n, c.first, b, r.zone)
		default:
			n = w.column(n, r, c, b)
		}
	}
	if r.n > len(s.columns) {
		n = w.extra(n, r, k.extra)
	}
	if w.bad != 0 {
		n = w.malformed(n, r, k.malformed)
	}
	if w.buf[n-1] == ',' {
		n--
	}
	return append(w.buf[:n], '}')
}

// isClean tells whether no column's text needs an escape in JSON: whether the line's only
// bytes that do are the quotes around columns. One look at the whole line is cheaper than
// one at each of 34 columns. CloudFront's tabs make it look at the columns.
func (r *Record) isClean() bool {
	if r.schema.format == CloudFront {
		return false
	}
	quotes, plain := look(r.line)
	return plain && quotes == 2*r.quoted
}

// writer is the state of one AppendJSON. Its methods write at buf[n:] and return the new
// n: as a field, it would be stored and loaded again for each of them. Each JSON field
// ends in a comma; the last is taken back.
//
// Names and values are short and many, and a call of memmove costs more than their bytes.
// So they are copied in blocks of a fixed length, which are a few moves, and what a block
// writes too much is overwritten by the next. Blocks stay inside of buf and of the line.
type writer struct {
	buf   []byte
	keys  []key
	nulls bool
	ecs   bool
	clean bool
	bad   uint64 // fields that are malformed, as bits: there are less than 64
}

const (
	block = len(key{}.block)
	// slack is what there must be room for besides a name and a value: blocks that reach
	// too far, and punctuation.
	slack = 3 * block
)

// copyBlock copies a block. An assignment would call memmove, since the compiler does not
// know that the two are not one memory.
func copyBlock(to, from *[block]byte) {
	a, b := binary.LittleEndian.Uint64(from[0:8]), binary.LittleEndian.Uint64(from[8:16])
	c, d := binary.LittleEndian.Uint64(from[16:24]), binary.LittleEndian.Uint64(from[24:32])
	binary.LittleEndian.PutUint64(to[0:8], a)
	binary.LittleEndian.PutUint64(to[8:16], b)
	binary.LittleEndian.PutUint64(to[16:24], c)
	binary.LittleEndian.PutUint64(to[24:32], d)
}

// key writes the name of a field and makes room for a value of that length, and slack.
func (w *writer) key(n, field, value int) int {
	k := &w.keys[field]
	size := len(k.long)
	if n+size+value+slack > len(w.buf) {
		w.grow(n, size+value+slack)
	}
	copyBlock((*[block]byte)(w.buf[n:]), &k.block)
	if size > block {
		copy(w.buf[n:], k.long)
	}
	return n + size
}

//go:noinline
func (w *writer) grow(n, more int) {
	b := slices.Grow(w.buf[:n], more)
	w.buf = b[:cap(b)]
}

// appended takes note of what was appended to w.buf.
func (w *writer) appended(b []byte) int {
	w.buf = b[:cap(b)]
	return len(b)
}

// null writes a field that is absent, if such are wanted.
func (w *writer) null(n, field int) int {
	if !w.nulls {
		return n
	}
	n = w.key(n, field, 0) - 1
	to := w.buf[n : n+5]
	to[0], to[1], to[2], to[3], to[4] = 'n', 'u', 'l', 'l', ','
	return n + 5
}

func (w *writer) malform(n, field int) int {
	w.bad |= 1 << field
	return w.null(n, field)
}

func (w *writer) string(n, field int, b []byte) int {
	if !w.clean {
		n = w.key(n, field, len(b))
		return w.appended(append(appendText(w.buf[:n], b), `",`...))
	}
	// This is key, once more: most fields pass here, and a call counts.
	k := &w.keys[field]
	size := len(k.long)
	end := n + size + len(b)
	if end+slack > len(w.buf) {
		w.grow(n, size+len(b)+slack)
	}
	to := w.buf[n:]
	copyBlock((*[block]byte)(to), &k.block)
	if size > block {
		copy(to, k.long)
	}
	to = to[size:]
	if len(b) <= block && cap(b) >= block {
		copyBlock((*[block]byte)(to), (*[block]byte)(b[:block]))
	} else {
		copy(to, b)
	}
	to = to[len(b):]
	to[0], to[1] = '"', ','
	return end + 2
}

func (w *writer) number(n, field int, b []byte, ok bool) int {
	if !ok {
		return w.malform(n, field)
	}
	n = w.key(n, field, len(b)) - 1
	if len(b) > 1 && (b[0] == '0' && b[1] != '.' || b[0] == '-') {
		return w.appended(append(appendNumber(w.buf[:n], b), ','))
	}
	to := w.buf[n:]
	if len(b) <= 8 && cap(b) >= 8 {
		binary.LittleEndian.PutUint64(to, binary.LittleEndian.Uint64(b[:8]))
	} else {
		copy(to, b)
	}
	to[len(b)] = ','
	return n + len(b) + 1
}

// empty writes a column that is "-", empty or not there: b is nil only in the last case.
func (w *writer) empty(n int, c step, b []byte) int {
	if c.shape == asText && b != nil && len(b) == 0 {
		return w.string(n, c.first, b)
	}
	if !w.nulls {
		return n
	}
	for i := range c.fields {
		n = w.null(n, c.first+i)
	}
	return n
}

// column writes the fields of a column that has a value and is neither plain text nor a
// number.
func (w *writer) column(n int, r *Record, c step, b []byte) int {
	switch c.shape {
	case asInstant:
		return w.instant(n, c.first, b, isoZone(b))
	case asAddress:
		return w.address(n, c.first, b)
	case asEndpoint:
		host, port := splitAddress(b)
		return w.endpoint(n, c.first, host, port)
	case asTarget:
		parts := splitTarget(b)
		if parts[0] == nil {
			return w.endpoint(w.null(n, c.first), c.first+1, parts[1], parts[2])
		}
		n = w.string(n, c.first, b)
		return w.null(w.null(n, c.first+1), c.first+2)
	case asRequest:
		return w.request(n, c.first, b)
	case asProtocol:
		return w.string(n, c.first, w.version(b))
	case asSpaced, asALPN:
		return w.strings(n, c, b)
	case asCodes:
		return w.codes(n, c, b)
	case asBracketed, asClock:
		return w.time(n, c.first, r.At(c.first))
	case asDate:
		if r.schema.date < 0 {
			return w.string(n, c.first, b)
		}
	}
	return n
}

func (w *writer) address(n, field int, b []byte) int {
	if !isAddress(b) {
		return w.malform(n, field)
	}
	return w.string(n, field, b)
}

func (w *writer) endpoint(n, first int, host, port []byte) int {
	n = w.address(n, first, host)
	if port == nil {
		return w.null(n, first+1)
	}
	return w.number(n, first+1, port, isInteger(port))
}

// instant writes a time in ISO 8601, which is copied if it is in UTC already.
func (w *writer) instant(n, field int, b []byte, z zone) int {
	switch z {
	case zulu:
		return w.string(n, field, b)
	case noZone:
		n = w.key(n, field, len(b))
		return w.appended(append(append(w.buf[:n], b...), `Z",`...))
	case offset:
		n = w.key(n, field, 0)
		return w.appended(append(isoTime(b).AppendFormat(w.buf[:n], isoFormat), `",`...))
	}
	return w.malform(n, field)
}

const isoFormat = isoShort + ".999999999Z"

func (w *writer) time(n, field int, v Value) int {
	if v.kind != Time {
		return w.string(n, field, v.text)
	}
	t, ok := v.Time()
	if !ok {
		return w.malform(n, field)
	}
	n = w.key(n, field, 0)
	return w.appended(append(t.AppendFormat(w.buf[:n], isoFormat), `",`...))
}

func (w *writer) request(n, first int, b []byte) int {
	method, url, protocol := splitRequest(b)
	if method != nil && url != nil && protocol != nil || isNothing(b) {
		n = w.null(n, first)
	} else {
		n = w.string(n, first, b)
	}
	for i, part := range [...][]byte{method, url, w.version(protocol)} {
		if part == nil {
			n = w.null(n, first+1+i)
		} else {
			n = w.string(n, first+1+i, part)
		}
	}
	return n
}

// version returns the protocol HTTP/1.1 as ECS has it: 1.1.
func (w *writer) version(protocol []byte) []byte {
	if w.ecs {
		return bytes.TrimPrefix(protocol, []byte("HTTP/"))
	}
	return protocol
}

func (w *writer) strings(n int, c step, b []byte) int {
	n = w.key(n, c.first, len(b)) - 1
	if w.clean && find(b, 0, ' ') < 0 { // one item, as mostly
		to := w.buf[n:]
		to[0], to[1] = '[', '"'
		copy(to[2:], b)
		to = to[2+len(b):]
		to[0], to[1], to[2] = '"', ']', ','
		return n + len(b) + 5
	}
	dst := append(w.buf[:n], '[')
	for v := (Value{shape: c.shape}); b != nil; {
		var item []byte
		if item, b = v.next(b); len(item) > 0 {
			dst = append(appendText(append(dst, '"'), item), `",`...)
		}
	}
	return w.appended(append(closeWith(dst, ']'), ','))
}

// codes writes Numbers: an item that is absent is null, so that the others keep their
// places beside those of the list of targets.
func (w *writer) codes(n int, c step, b []byte) int {
	start := n
	n = w.key(n, c.first, len(b)) - 1
	if len(b) == 3 && isInteger(b) && b[0] != '0' && b[0] != '-' { // one status, as mostly
		to := w.buf[n : n+6]
		to[0], to[1], to[2], to[3], to[4], to[5] = '[', b[0], b[1], b[2], ']', ','
		return n + 6
	}
	dst := append(w.buf[:n], '[')
	for v := (Value{shape: c.shape}); b != nil; {
		var item []byte
		switch item, b = v.next(b); {
		case len(item) == 0:
		case isAbsent(item):
			dst = append(dst, "null,"...)
		case isInteger(item):
			dst = append(appendNumber(dst, item), ',')
		default:
			return w.malform(start, c.first)
		}
	}
	return w.appended(append(closeWith(dst, ']'), ','))
}

// closeWith puts a bracket in the place of the comma behind the last item.
func closeWith(dst []byte, bracket byte) []byte {
	if last := len(dst) - 1; dst[last] == ',' {
		dst = dst[:last]
	}
	return append(dst, bracket)
}

// extra writes the columns that have no name, in their order.
func (w *writer) extra(n int, r *Record, name string) int {
	dst := append(w.buf[:n], name...)
	for i := len(r.schema.columns); i < r.n; i++ {
		dst = append(appendText(append(dst, '"'), r.column(i)), `",`...)
	}
	return w.appended(append(closeWith(dst, ']'), ','))
}

// malformed writes the text of the fields that do not fit their kind, by name.
func (w *writer) malformed(n int, r *Record, name string) int {
	dst := append(w.buf[:n], name...)
	for i := range w.keys {
		if w.bad&(1<<i) != 0 {
			dst = append(appendText(append(dst, w.keys[i].long...), r.At(i).text), `",`...)
		}
	}
	return w.appended(append(closeWith(dst, '}'), ','))
}
