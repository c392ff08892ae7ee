package elb

import (
	"encoding/binary"
	"math/bits"
)

// marks tells of 64 bytes of a line which are spaces and which are quotes, a bit a byte.
type marks struct{ spaces, quotes uint64 }

const (
	marked = 64 // bytes of one marks
	// maxMarked is how long a line may be to be split by its marks. Nearly all are shorter.
	maxMarked = 32 * marked
)

// mark fills in the marks of a line, and tells whether all of it is plain: no control
// character, nothing outside of ASCII, no backslash. The line is not empty, and shorter than
// maxMarked. Behind its end there are no marks.
func mark(line []byte, all *[maxMarked / marked]marks) (plain bool) {
	whole, rest := len(line)/marked, len(line)%marked
	special := uint64(0)
	if whole > 0 {
		special = markBlocks(&line[0], whole, &all[0])
	}
	last := &all[whole]
	switch {
	case rest == 0:
		*last = marks{}
	case whole > 0: // the last 64 bytes, without those that are marked
		special |= markBlocks(&line[len(line)-marked], 1, last)
		last.spaces >>= marked - rest
		last.quotes >>= marked - rest
	default:
		block := filler
		copy(block[:], line)
		special = markBlocks(&block[0], 1, last)
	}
	return special == 0
}

// look counts the quotes of a line of any length, and tells whether all of it is plain.
func look(line []byte) (quotes int, plain bool) {
	whole, special, count := len(line)/marked, uint64(0), uint64(0)
	if whole > 0 {
		special, count = lookAtBlocks(&line[0], whole)
	}
	block := filler
	copy(block[:], line[whole*marked:])
	s, n := lookAtBlocks(&block[0], 1)
	return int(count + n), special|s == 0
}

// filler is a block that has nothing to mark.
var filler = [marked]byte([]byte("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"))

// markWord is the portable way to mark eight bytes: it returns the bits of the spaces, of the
// quotes, and whether a byte is special (not 0).
func markWord(x uint64) (spaces, quotes, special uint64) {
	return zeros(x ^ ' '*ones), zeros(x ^ '"'*ones), x&highs | (x-0x20*ones)&^x&highs | zeros(x^'\\'*ones)
}

// zeros returns a bit for each byte of x that is 0: none of its lower bits carries into the
// highest, which is not set either. The product gathers the eight bits.
func zeros(x uint64) uint64 {
	x = ^((x&^highs + ^uint64(highs)) | x | ^uint64(highs)) >> 7
	return x * 0x0102040810204080 >> 56
}

// markBytes is markBlocks where there is none in assembly, and what that is tested against.
func markBytes(b []byte, to []marks) (special uint64) {
	for i := range to {
		block := (*[marked]byte)(b[i*marked:])
		var m marks
		for k := 0; k < marked; k += 8 {
			s, q, other := markWord(binary.LittleEndian.Uint64(block[k : k+8]))
			m.spaces |= s << k
			m.quotes |= q << k
			special |= other
		}
		to[i] = m
	}
	return special
}

// lookBytes is lookAtBlocks where there is none in assembly.
func lookBytes(b []byte) (special, quotes uint64) {
	for ; len(b) >= 8; b = b[8:] {
		_, q, other := markWord(binary.LittleEndian.Uint64(b[:8]))
		special |= other
		quotes += uint64(bits.OnesCount64(q))
	}
	return special, quotes
}

// splitMarked splits a line at once, by its marks, as splitSpaces does column by column. It
// takes lines that are plain, in which each quote opens or closes a column, and which are not
// S3's; of others it returns false, and has done nothing.
func (r *Record) splitMarked() bool {
	line := r.line
	if len(line) == 0 || len(line) >= maxMarked || r.schema.format == S3Access {
		return false
	}
	all := &r.marks
	if !mark(line, all) {
		return false
	}
	last := len(line) / marked
	all[last].spaces |= 1 << (len(line) % marked) // the end closes what a space would
	ends := &r.ends
	n := 0
	inside := uint64(0) // all ones if the marks before end between quotes
	begins := uint64(1) // whether a column may begin with the first byte
	closed := uint64(0) // whether the byte before closes a quote
	for w := range all[:last+1] {
		m := all[w]
		between := parity(m.quotes) ^ inside // from a quote that opens to before the one that closes
		opens, closes := m.quotes&between, m.quotes&^between
		if (opens&^(m.spaces<<1|begins))|((closes<<1|closed)&^m.spaces) != 0 {
			return false
		}
		inside, begins, closed = uint64(int64(between)>>63), m.spaces>>63, closes>>63
		cuts := m.spaces &^ between
		count := bits.OnesCount64(cuts)
		if n+count >= maxColumns {
			return false
		}
		// Four at a time, since to ask after each whether it is the last would be guessed
		// wrong too often. Those behind the last are overwritten.
		for at := n; at < n+count; at += 4 {
			to := (*[4]uint32)(ends[at:])
			for i := range to {
				to[i] = uint32(w*marked + bits.TrailingZeros64(cuts))
				cuts &= cuts - 1
			}
		}
		n += count
	}
	if inside != 0 {
		return false
	}
	r.cut(ends[:n])
	return true
}

// cut makes columns of the line that end at the spaces between them.
func (r *Record) cut(ends []uint32) {
	start, quoted := uint32(0), uint32(0)
	if last := len(ends) - 1; last > 0 && ends[last-1]+1 == uint32(len(r.line)) {
		ends = ends[:last] // a space ends the line: nothing follows it
	}
	for i, end := range ends {
		q := uint32(0)
		if start < end && r.line[start] == '"' {
			q = 1
		}
		r.spans[i] = span{start + q, end - q}
		quoted += q
		start = end + 1
	}
	r.n, r.quoted = len(ends), int(quoted)
}

// parity returns for each bit whether x has an odd number of bits up to and with it.
func parity(x uint64) uint64 {
	x ^= x << 1
	x ^= x << 2
	x ^= x << 4
	x ^= x << 8
	x ^= x << 16
	return x ^ x<<32
}
