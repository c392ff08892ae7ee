package elb

import (
	"bytes"
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
// returns the longer slice. It allocates only to make dst longer. A Record without fields
// is {}.
//
// Under ECS names, the protocol HTTP/1.1 is the version 1.1.
func (e Encoder) AppendJSON(dst []byte, r *Record) []byte {
	s := r.schema
	if s == nil {
		return append(dst, '{', '}')
	}
	names := min(e.Names, ECS)
	k := &s.keys[names]
	dst = slices.Grow(dst, len(r.line)+k.size+2)
	w := writer{dst: append(dst, '{'), keys: k.fields, nulls: e.Nulls, ecs: names == ECS, clean: r.isClean()}
	for i := range s.columns {
		c := &s.columns[i]
		if b := r.column(i); len(b) == 0 || isAbsent(b) {
			w.empty(c, b)
		} else {
			w.column(r, c, b)
		}
	}
	if r.n > len(s.columns) {
		w.extra(r, k.extra)
	}
	if w.bad != 0 {
		w.malformed(r, k)
	}
	if last := len(w.dst) - 1; w.dst[last] == ',' {
		w.dst[last] = '}'
		return w.dst
	}
	return append(w.dst, '}')
}

// isClean tells whether no column's text needs an escape in JSON: whether the line's only
// bytes that do are the quotes around columns. One look at the whole line is cheaper than
// one at each of 34 columns. CloudFront's tabs make it look at the columns.
func (r *Record) isClean() bool {
	return r.schema.format != CloudFront && isPlain(r.line) &&
		bytes.IndexByte(r.line, '\\') < 0 && bytes.Count(r.line, quote) == 2*r.quoted
}

var quote = []byte{'"'}

// writer is the state of one AppendJSON. Each field ends in a comma, the last of which
// becomes the brace.
type writer struct {
	dst   []byte
	keys  []string
	nulls bool
	ecs   bool
	clean bool
	bad   uint64 // fields that are malformed, as bits: there are less than 64
}

// key appends the name of a field whose value is no string.
func (w *writer) key(field int) {
	k := w.keys[field]
	w.dst = append(w.dst, k[:len(k)-1]...)
}

func (w *writer) null(field int) {
	if w.nulls {
		w.key(field)
		w.dst = append(w.dst, "null,"...)
	}
}

func (w *writer) malform(field int) {
	w.bad |= 1 << field
	w.null(field)
}

func (w *writer) string(field int, b []byte) {
	dst := append(w.dst, w.keys[field]...)
	if w.clean {
		dst = append(dst, b...)
	} else {
		dst = appendText(dst, b)
	}
	w.dst = append(dst, '"', ',')
}

// empty writes a column that is "-", empty or not there: b is nil only in the last case.
func (w *writer) empty(c *column, b []byte) {
	if c.shape == asText && b != nil && len(b) == 0 {
		w.string(c.first, b)
		return
	}
	if w.nulls {
		for i := range c.fields {
			w.null(c.first + i)
		}
	}
}

// column writes the fields of a column that has a value.
func (w *writer) column(r *Record, c *column, b []byte) {
	switch c.shape {
	case asText:
		if w.ecs && w.keys[c.first] == versionKey {
			b = version(b)
		}
		w.string(c.first, b)
	case asInteger:
		w.number(c.first, b, isInteger(b))
	case asDecimal:
		w.number(c.first, b, isNumber(b))
	case asInstant:
		w.instant(c.first, b)
	case asAddress:
		w.address(c.first, b)
	case asEndpoint:
		host, port := splitAddress(b)
		w.endpoint(c.first, host, port)
	case asTarget:
		parts := r.target(b)
		if parts[0] != nil {
			w.string(c.first, b)
			w.null(c.first + 1)
			w.null(c.first + 2)
		} else {
			w.null(c.first)
			w.endpoint(c.first+1, parts[1], parts[2])
		}
	case asRequest:
		w.request(c.first, b)
	case asSpaced, asALPN:
		w.strings(c, b)
	case asCodes:
		w.codes(c, b)
	case asBracketed, asClock:
		w.time(c.first, r.At(c.first))
	case asDate:
		if r.schema.date < 0 {
			w.string(c.first, b)
		}
	}
}

func (w *writer) number(field int, b []byte, ok bool) {
	if !ok {
		w.malform(field)
		return
	}
	w.key(field)
	w.dst = append(appendNumber(w.dst, b), ',')
}

func (w *writer) address(field int, b []byte) {
	if !isAddress(b) {
		w.malform(field)
		return
	}
	w.string(field, b)
}

func (w *writer) endpoint(first int, host, port []byte) {
	w.address(first, host)
	if port == nil {
		w.null(first + 1)
	} else {
		w.number(first+1, port, isInteger(port))
	}
}

// instant writes a time in ISO 8601, which is copied if it is in UTC already.
func (w *writer) instant(field int, b []byte) {
	switch isoZone(b) {
	case notTime:
		w.malform(field)
	case zulu:
		w.string(field, b)
	case noZone:
		w.dst = append(w.dst, w.keys[field]...)
		w.dst = append(append(w.dst, b...), `Z",`...)
	case offset:
		w.dst = append(w.dst, w.keys[field]...)
		w.dst = isoTime(b).AppendFormat(w.dst, isoFormat)
		w.dst = append(w.dst, '"', ',')
	}
}

const isoFormat = isoShort + ".999999999Z"

func (w *writer) time(field int, v Value) {
	if v.kind != Time {
		w.string(field, v.text)
		return
	}
	t, ok := v.Time()
	if !ok {
		w.malform(field)
		return
	}
	w.dst = append(w.dst, w.keys[field]...)
	w.dst = t.AppendFormat(w.dst, isoFormat)
	w.dst = append(w.dst, '"', ',')
}

func (w *writer) request(first int, b []byte) {
	method, url, protocol := splitRequest(b)
	if method != nil && url != nil && protocol != nil || isNothing(b) {
		w.null(first)
	} else {
		w.string(first, b)
	}
	if w.ecs {
		protocol = version(protocol)
	}
	for i, part := range [...][]byte{method, url, protocol} {
		if part == nil {
			w.null(first + 1 + i)
		} else {
			w.string(first+1+i, part)
		}
	}
}

const versionKey = `"http.version":"`

// version returns 1.1 of HTTP/1.1.
func version(protocol []byte) []byte {
	return bytes.TrimPrefix(protocol, []byte("HTTP/"))
}

func (w *writer) strings(c *column, b []byte) {
	w.key(c.first)
	w.dst = append(w.dst, '[')
	for item := range (Value{shape: c.shape, text: b}).Items() {
		w.dst = append(w.dst, '"')
		w.dst = appendText(w.dst, item)
		w.dst = append(w.dst, '"', ',')
	}
	w.closeList()
}

// codes writes Numbers: an item that is absent is null, so that the others keep their
// places beside those of the list of targets.
func (w *writer) codes(c *column, b []byte) {
	start := len(w.dst)
	w.key(c.first)
	w.dst = append(w.dst, '[')
	for item := range (Value{shape: c.shape, text: b}).Items() {
		switch {
		case isAbsent(item):
			w.dst = append(w.dst, "null,"...)
		case isInteger(item):
			w.dst = append(appendNumber(w.dst, item), ',')
		default:
			w.dst = w.dst[:start]
			w.malform(c.first)
			return
		}
	}
	w.closeList()
}

// closeList turns the comma behind the last item into a bracket.
func (w *writer) closeList() {
	if last := len(w.dst) - 1; w.dst[last] == ',' {
		w.dst[last] = ']'
	} else {
		w.dst = append(w.dst, ']')
	}
	w.dst = append(w.dst, ',')
}

// extra writes the columns that have no name, in their order.
func (w *writer) extra(r *Record, key string) {
	w.dst = append(w.dst, key...)
	for i := len(r.schema.columns); i < r.n; i++ {
		w.dst = append(w.dst, '"')
		w.dst = appendText(w.dst, r.column(i))
		w.dst = append(w.dst, '"', ',')
	}
	w.closeList()
}

// malformed writes the text of the fields that do not fit their kind, by name.
func (w *writer) malformed(r *Record, k *keys) {
	w.dst = append(w.dst, k.malformed...)
	for i := range k.fields {
		if w.bad&(1<<i) != 0 {
			w.dst = append(w.dst, w.keys[i]...)
			w.dst = appendText(w.dst, r.At(i).text)
			w.dst = append(w.dst, '"', ',')
		}
	}
	w.dst[len(w.dst)-1] = '}'
	w.dst = append(w.dst, ',')
}
