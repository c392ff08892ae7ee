package s3stub

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"sort"
	"strings"
	"time"
)

// Synthetic is a set of objects that are made when they are asked for. They all have
// the same bytes, and an ETag that is true of them.
type Synthetic struct {
	N int
	// Key appends the key of object i, 0 <= i < N, to b. Keys ascend in byte order.
	// It is called from many goroutines.
	Key func(b []byte, i int) []byte
	// Size is the bytes of each object.
	Size int64
	// PartSize, if it is not 0, makes them objects of parts of that size, with ETags
	// that say so.
	PartSize int64
	// Modified is when they were stored. Zero means 2024-01-01.
	Modified time.Time
}

// Numbered returns keys of the form prefix, i in digits digits, suffix, for
// [Synthetic]. i must not have more digits.
func Numbered(prefix string, digits int, suffix string) func(b []byte, i int) []byte {
	form := prefix + strings.Repeat("0", digits) + suffix
	return func(b []byte, i int) []byte {
		b = append(b, form...)
		first := len(b) - len(suffix) - digits
		for at := first + digits - 1; i > 0 && at >= first; at-- {
			b[at] = byte('0' + i%10)
			i /= 10
		}
		return b
	}
}

// synthetic is the set of a bucket.
type synthetic struct {
	Synthetic
	prefix   string
	n        int
	etag     string
	modified int64
	parts    []int64
	suffix   []byte // what follows each key in a listing

	present presence
	mirror  bool
	arrived presence
	objects int64       // distinct ones in arrived
	again   map[int]int // how many times more
	wrong   int64
}

// AddSynthetic makes a bucket full of synthetic objects. Deleting them and storing
// others works as in any bucket.
func (s *Server) AddSynthetic(name string, set Synthetic) error {
	if set.Modified.IsZero() {
		set.Modified = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	syn, err := newSynthetic(set, "")
	if err != nil {
		return fmt.Errorf("s3stub: add bucket %s: %w", name, err)
	}
	syn.present.full = true
	return s.addSet(name, syn)
}

// AddMirror makes an empty bucket for copies of set. An object of the set that is
// stored under its key behind prefix, with its bytes and its ETag, by whatever request,
// takes one bit: its attributes, metadata and tags are dropped, and it reads as
// stored when the bucket was made. Anything else is kept as in any bucket.
func (s *Server) AddMirror(name string, set Synthetic, prefix string) error {
	set.Modified = s.cfg.Now()
	syn, err := newSynthetic(set, prefix)
	if err != nil {
		return fmt.Errorf("s3stub: add bucket %s: %w", name, err)
	}
	syn.mirror = true
	return s.addSet(name, syn)
}

func (s *Server) addSet(name string, syn *synthetic) error {
	return s.add(&bucket{
		name: name, region: s.cfg.Region, created: s.cfg.Now().Unix(),
		syn: syn, uploads: make(map[string]*upload),
	})
}

func newSynthetic(set Synthetic, prefix string) (*synthetic, error) {
	if set.N < 0 || set.Key == nil || set.Size < 0 || set.PartSize < 0 {
		return nil, errors.New("a synthetic set needs N, Key and Size that are not negative")
	}
	syn := &synthetic{Synthetic: set, prefix: prefix, n: set.N, modified: set.Modified.Unix(), again: make(map[int]int)}
	if err := syn.ascends(); err != nil {
		return nil, err
	}
	c := syn.content()
	syn.etag = etagOf(pattern{}, nil)
	switch {
	case set.N == 0:
	case set.PartSize > 0 && set.Size > 0:
		syn.parts = partSizes(set.Size, set.PartSize)
		syn.etag = multipartETag(partSums(c, syn.parts))
	default:
		syn.etag = etagOf(c, nil)
	}
	syn.suffix = appendContents(nil, syn.object(""), false)
	return syn, nil
}

// ascends looks at the order of some keys, near and far: all of ten million take long.
func (s *synthetic) ascends() error {
	r := rand.New(rand.NewPCG(1, uint64(s.n)))
	for k := range min(1000, s.n-1) {
		i, j := k, k+1
		if s.n > 1001 {
			i = r.IntN(s.n - 1)
			j = i + 1
		}
		if k%2 == 1 {
			j += r.IntN(s.n - j)
		}
		if a, b := s.key(nil, i), s.key(nil, j); bytes.Compare(a, b) >= 0 {
			return fmt.Errorf("key %d is %.100q and key %d is %.100q: keys must ascend", i, a, j, b)
		}
	}
	return nil
}

func (s *synthetic) key(b []byte, i int) []byte { return s.Key(append(b, s.prefix...), i) }

func (s *synthetic) content() content { return pattern{0, s.Size} }

func (s *synthetic) object(key string) *object {
	return &object{key: key, content: s.content(), etag: s.etag, modified: s.modified, parts: s.parts}
}

// search returns the first i whose key is >= key, and the scratch space grown.
func (s *synthetic) search(key string, scratch []byte) (int, []byte) {
	i := sort.Search(s.n, func(i int) bool {
		scratch = s.key(scratch[:0], i)
		return string(scratch) >= key
	})
	return i, scratch
}

// index returns the number of key, or -1.
func (s *synthetic) index(key string) int {
	var space [128]byte
	i, scratch := s.search(key, space[:0])
	if i == s.n || string(s.key(scratch[:0], i)) != key {
		return -1
	}
	return i
}

// take notes that o is being stored as object i, and reports whether a bit is enough
// to keep it. The bucket's lock is held.
func (s *synthetic) take(o *object, i int) bool {
	if !s.mirror {
		return false
	}
	if !same(o.content, s.content()) {
		s.wrong++
		return false
	}
	if s.arrived.has(i) {
		s.again[i]++
	} else {
		s.arrived.set(i, s.n)
		s.objects++
	}
	if o.etag != s.etag {
		return false
	}
	s.present.set(i, s.n)
	return true
}

func (s *synthetic) forget() {
	s.arrived, s.objects, s.wrong = presence{}, 0, 0
	clear(s.again)
}

// Arrivals is what was stored in a mirror since it was made or since the last Reset.
// What was deleted since stays counted.
type Arrivals struct {
	Objects int64    // distinct objects of the set that arrived with their bytes
	Again   int64    // arrivals beyond the first of each
	Wrong   int64    // arrivals under a key of the set with other bytes
	Missing []string // the first keys that have not arrived, 10 at most
	Twice   []string // some keys that arrived more than once, 10 at most
}

// Arrivals returns what arrived in a mirror; of another bucket it is zero.
func (s *Server) Arrivals(bucket string) Arrivals {
	b := s.bucket(bucket)
	if b == nil || b.syn == nil || !b.syn.mirror {
		return Arrivals{}
	}
	const most = 10
	b.mu.RLock()
	defer b.mu.RUnlock()
	syn := b.syn
	out := Arrivals{Objects: syn.objects, Wrong: syn.wrong}
	for i := 0; i < syn.n && len(out.Missing) < most && syn.objects < int64(syn.n); i++ {
		if !syn.arrived.has(i) {
			out.Missing = append(out.Missing, string(syn.key(nil, i)))
		}
	}
	for i, n := range syn.again {
		out.Again += int64(n)
		if len(out.Twice) < most {
			out.Twice = append(out.Twice, string(syn.key(nil, i)))
		}
	}
	return out
}

// presence is a set of numbers from 0 to n-1: all of them, or a bit each.
type presence struct {
	full  bool
	words []uint64 // nil means none, or all if full
	bits  int
}

func (p *presence) has(i int) bool {
	return p.full || p.words != nil && p.words[i/64]&(1<<(i%64)) != 0
}

func (p *presence) set(i, n int) {
	if p.has(i) {
		return
	}
	if p.words == nil {
		p.words = make([]uint64, (n+63)/64)
	}
	p.words[i/64] |= 1 << (i % 64)
	p.bits++
}

func (p *presence) clear(i, n int) {
	if !p.has(i) {
		return
	}
	if p.full {
		p.full, p.words, p.bits = false, make([]uint64, (n+63)/64), n
		for j := range p.words {
			p.words[j] = ^uint64(0)
		}
		if rest := n % 64; rest > 0 {
			p.words[len(p.words)-1] = 1<<rest - 1
		}
	}
	p.words[i/64] &^= 1 << (i % 64)
	p.bits--
}

// next returns the first member >= i, or n.
func (p *presence) next(i, n int) int {
	if p.full || i >= n {
		return min(i, n)
	}
	if p.words == nil {
		return n
	}
	word := i / 64
	for w := p.words[word] &^ (1<<(i%64) - 1); ; w = p.words[word] {
		if w != 0 {
			return word*64 + bits.TrailingZeros64(w)
		}
		if word++; word == len(p.words) {
			return n
		}
	}
}

func (p *presence) count(n int) int {
	if p.full {
		return n
	}
	return p.bits
}
