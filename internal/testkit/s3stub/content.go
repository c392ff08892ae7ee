package s3stub

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
)

// content is the bytes of an object. They never change, so copies share them.
type content interface {
	size() int64
	// writeRange writes n bytes from off on, which must lie within.
	writeRange(w io.Writer, off, n int64) error
	// md5 may take as long as reading all of it, the first time.
	md5() [md5.Size]byte
	// slice returns n bytes from off on, which must lie within.
	slice(off, n int64) content
}

// raw is bytes in memory.
type raw struct {
	data []byte
	sum  [md5.Size]byte
}

func newRaw(data []byte) *raw { return &raw{data, md5.Sum(data)} }

func (r *raw) size() int64         { return int64(len(r.data)) }
func (r *raw) md5() [md5.Size]byte { return r.sum }

func (r *raw) slice(off, n int64) content {
	if n == r.size() {
		return r
	}
	return newRaw(r.data[off : off+n])
}

func (r *raw) writeRange(w io.Writer, off, n int64) error {
	_, err := w.Write(r.data[off : off+n])
	return err
}

// pattern is n bytes of an endless sequence that repeats after period bytes, from
// its byte off on: the content of synthetic objects. Patterns are compared with ==.
type pattern struct {
	off, n int64 // 0 <= off < period
}

const period = 1 << 20

// sequence is random, so that no two ranges of it within a period are alike.
var sequence = sync.OnceValue(func() []byte {
	data := make([]byte, period)
	// Read of ChaCha8 never fails.
	_, _ = rand.NewChaCha8([32]byte([]byte("the bytes of a synthetic object."))).Read(data)
	return data
})

// patternSums are the MD5 sums of patterns, which many objects and parts share.
var patternSums sync.Map // pattern: [md5.Size]byte

func (p pattern) size() int64 { return p.n }

func (p pattern) slice(off, n int64) content { return pattern{(p.off + off) % period, n} }

func (p pattern) writeRange(w io.Writer, off, n int64) error {
	data := sequence()
	for at := (p.off + off) % period; n > 0; at = 0 {
		piece := data[at:min(at+n, period)]
		if _, err := w.Write(piece); err != nil {
			return err
		}
		n -= int64(len(piece))
	}
	return nil
}

func (p pattern) md5() [md5.Size]byte {
	if sum, ok := patternSums.Load(p); ok {
		return sum.([md5.Size]byte)
	}
	sum := sumOf(p)
	patternSums.Store(p, sum)
	return sum
}

// joined is the parts of a multipart upload, one after the other.
type joined struct {
	parts []content
	n     int64
	sum   func() [md5.Size]byte
}

// join joins parts. Patterns that go on from one another become one again.
func join(parts []content) content {
	if p, ok := joinPatterns(parts); ok {
		return p
	}
	j := &joined{parts: parts}
	for _, p := range parts {
		j.n += p.size()
	}
	j.sum = sync.OnceValue(func() [md5.Size]byte { return sumOf(j) })
	return j
}

func joinPatterns(parts []content) (content, bool) {
	var all pattern
	for i, part := range parts {
		p, ok := part.(pattern)
		switch {
		case !ok:
			return nil, false
		case i == 0:
			all = p
		case p.off != (all.off+all.n)%period:
			return nil, false
		default:
			all.n += p.n
		}
	}
	return all, len(parts) > 0
}

func (j *joined) size() int64         { return j.n }
func (j *joined) md5() [md5.Size]byte { return j.sum() }

func (j *joined) slice(off, n int64) content {
	var out []content
	for _, p := range j.parts {
		if n == 0 {
			break
		}
		if off >= p.size() {
			off -= p.size()
			continue
		}
		take := min(n, p.size()-off)
		out = append(out, p.slice(off, take))
		off, n = 0, n-take
	}
	if len(out) == 0 {
		return newRaw(nil)
	}
	return join(out)
}

func (j *joined) writeRange(w io.Writer, off, n int64) error {
	for _, p := range j.parts {
		if n == 0 {
			break
		}
		if off >= p.size() {
			off -= p.size()
			continue
		}
		take := min(n, p.size()-off)
		if err := p.writeRange(w, off, take); err != nil {
			return err
		}
		off, n = 0, n-take
	}
	return nil
}

// sumOf reads all of c.
func sumOf(c content) (sum [md5.Size]byte) {
	h := md5.New()
	// A hash takes all that is written to it.
	_ = c.writeRange(h, 0, c.size())
	h.Sum(sum[:0])
	return sum
}

// bytesOf returns all of c.
func bytesOf(c content) []byte {
	var b bytes.Buffer
	// A buffer takes all that is written to it.
	_ = c.writeRange(&b, 0, c.size())
	return b.Bytes()
}

// same reports whether a and b are the same bytes.
func same(a, b content) bool {
	if a.size() != b.size() {
		return false
	}
	if p, ok := a.(pattern); ok {
		if q, ok := b.(pattern); ok {
			return p == q
		}
	}
	return a.md5() == b.md5()
}

// multipartETag is the ETag of an object made of parts with these MD5 sums.
func multipartETag(sums [][md5.Size]byte) string {
	h := md5.New()
	for _, s := range sums {
		h.Write(s[:])
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(sums))
}

// etagOf is the ETag of an object stored by one request. With a KMS key it is, in S3,
// no MD5 of the content; here it is one of something else.
func etagOf(c content, a *Attributes) string {
	sum := c.md5()
	if a != nil && len(a.Encryption) >= 7 && a.Encryption[:7] == "aws:kms" {
		sum = md5.Sum(append(sum[:], a.Encryption...))
	}
	return hex.EncodeToString(sum[:])
}

// partSizes cuts size bytes into parts of part bytes.
func partSizes(size, part int64) []int64 {
	out := make([]int64, 0, size/part+1)
	for ; size > 0; size -= part {
		out = append(out, min(part, size))
	}
	return out
}

// partSums are the MD5 sums of the parts of c.
func partSums(c content, sizes []int64) [][md5.Size]byte {
	out := make([][md5.Size]byte, len(sizes))
	off := int64(0)
	for i, n := range sizes {
		out[i] = c.slice(off, n).md5()
		off += n
	}
	return out
}
