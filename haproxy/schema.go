package haproxy

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"sync"
)

// A schema is what a header says.
type schema struct {
	header string // the first line of the dump, without "# "; "" where it is of no CSV, such as a merge of several headers
	names  []string
	keys   []string // names; a repeated one is numbered
	index  map[string]int
	// trailing says that a comma ends each line, as HAProxy's own do.
	trailing bool

	// Columns that the package itself looks at; -1 where there is none.
	pxname, svname, typ, status, stot, reqTot int

	mu     sync.Mutex
	shapes map[string]*shape // by the bytes of mask
}

func newSchema(names []string, trailing bool) (*schema, error) {
	s := &schema{names: names, trailing: trailing, index: make(map[string]int, len(names))}
	for i, name := range names {
		key := name
		for n := 2; ; n++ {
			if _, ok := s.index[key]; !ok {
				break
			}
			key = name + "#" + strconv.Itoa(n)
		}
		s.index[key] = i
		s.keys = append(s.keys, key)
	}
	at := func(name string) int {
		if i, ok := s.index[name]; ok {
			return i
		}
		return -1
	}
	s.pxname, s.svname, s.typ, s.status = at("pxname"), at("svname"), at("type"), at("status")
	s.stot, s.reqTot = at("stot"), at("req_tot")
	if s.pxname < 0 || s.svname < 0 {
		return nil, fmt.Errorf("%w: the header names no pxname and svname", ErrNotStats)
	}
	return s, nil
}

// isOf is whether a dump with this header has the schema. None has that of a merge, whose header is
// not one of no columns.
func (s *schema) isOf(header []byte) bool { return s.header != "" && s.header == string(header) }

// typeOf reads the type of row i from its cells.
func (t *Table) typeOf(i int) Type {
	if col := t.schema.typ; col >= 0 {
		if c := t.cell(i, col); c >= 0 && c < int64(Other) {
			return Type(c)
		}
		return Other
	}
	switch c := t.cell(i, t.schema.svname); {
	case isText(c) && string(t.text(c)) == "FRONTEND":
		return Frontend
	case isText(c) && string(t.text(c)) == "BACKEND":
		return Backend
	}
	return Server
}

// A shape is a set of columns of a schema: those that some rows have cells in. Rows of one
// type mostly have one of a few.
type shape struct {
	of   *schema
	mask bitset
	cols []int32 // ascending
	slot []int32 // by column, its index in cols; -1 for others
	reqs []int32 // the indices of requests and sessions, as far as it has them
}

// maxShapes bounds what a schema remembers; a real configuration has dozens.
const maxShapes = 4096

// shape returns the shape of these columns, which is the same one each time, unless there
// are too many of them. It is safe for concurrent use.
func (s *schema) shape(mask bitset) *shape {
	// Masks of one set may differ in length; of one parser they do not.
	for len(mask) > 0 && mask[len(mask)-1] == 0 {
		mask = mask[:len(mask)-1]
	}
	var room [8 * 4]byte
	key := room[:0]
	for _, w := range mask {
		key = binary.LittleEndian.AppendUint64(key, w)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.shapes[string(key)]; found != nil {
		return found
	}
	out := &shape{of: s, mask: append(bitset(nil), mask...), slot: make([]int32, len(s.names))}
	for i := range out.slot {
		out.slot[i] = -1
	}
	for w, b := range mask {
		for ; b != 0; b &= b - 1 {
			col := w<<6 + bits.TrailingZeros64(b)
			out.slot[col] = int32(len(out.cols))
			out.cols = append(out.cols, int32(col))
		}
	}
	for _, col := range [...]int{s.reqTot, s.stot} {
		if col >= 0 && out.slot[col] >= 0 {
			out.reqs = append(out.reqs, out.slot[col])
		}
	}
	if s.shapes == nil || len(s.shapes) >= maxShapes {
		s.shapes = make(map[string]*shape)
	}
	s.shapes[string(key)] = out
	return out
}

// A bitset is a set of columns.
type bitset []uint64

func (b *bitset) add(i int) {
	for len(*b) <= i>>6 {
		*b = append(*b, 0)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

// same reports whether b holds what c does; c may be longer.
func (b bitset) same(c []uint64) bool {
	for i, w := range c {
		if i < len(b) && b[i] != w || i >= len(b) && w != 0 {
			return false
		}
	}
	return true
}
