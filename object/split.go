package object

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// A Cursor is a listing of one range under way, which can hand out parts of what it has
// not read. It sends no request: its owner asks the store for
// Page(ctx, c.Range.Prefix, c.Range.After, MaxPage), gives the answer to Read, and goes
// on until Done.
//
// Where to cut is guessed from the keys read, byte by byte and without regard to "/":
//
//	keys read   obj-00000000 … obj-00000999, which share the prefix obj-00000
//	deeper      where all keys read share more than the range's ends do, nothing is
//	            known of what follows them: all behind obj-00000* is handed out whole,
//	            and its first key shows where keys part next
//	across      where keys are known to part (obj-0001… has been seen as well),
//	            the range is cut into equal parts, counting in the bytes seen there
//
// The first page of a part handed out is the probe that shows whether anything is
// there. It is a page like others, so a wrong guess costs one request and a right one
// about half of one, where the part in front of it ends within a page.
//
// As JSON a cursor is its range and a key or two, so that it can travel in a job. What
// it knows of the pages is not kept: a cursor that was stored must read a page before it
// splits. Its methods may not be called at once.
type Cursor struct {
	Range Range // what is left: Read moves After, Split moves Before
	Pages int   // read so far
	Done  bool  // nothing is left

	below   string // a key that is known to be below the range, "" if none
	first   string // the first key read
	started bool   // After is a key that was read
	empty   int    // pages without keys in a row

	head string // the first key of the last page, or of one key, the one before
	seen *alphabets
}

type jsonCursor struct {
	Range   Range   `json:"range"`
	Pages   int     `json:"pages,omitempty"`
	Done    bool    `json:"done,omitempty"`
	Below   JSONKey `json:"below,omitempty"`
	First   JSONKey `json:"first,omitempty"`
	Started bool    `json:"started,omitempty"`
	Empty   int     `json:"empty,omitempty"`
}

// MarshalJSON writes c without what it knows of the pages, at most 9 KiB.
func (c Cursor) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonCursor{c.Range, c.Pages, c.Done, JSONKey(c.below), JSONKey(c.first), c.started, c.empty})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Cursor) UnmarshalJSON(data []byte) error {
	var j jsonCursor
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("object: read a cursor: %w", err)
	}
	*c = Cursor{
		Range: j.Range, Pages: j.Pages, Done: j.Done,
		below: string(j.Below), first: string(j.First), started: j.Started, empty: j.Empty,
	}
	return nil
}

// maxEmpty is how many pages without a key may follow one another while the store says
// that there are more. A page asked for by key cannot go on behind an empty one.
const maxEmpty = 8

// Read takes the answer for the page behind c.Range.After. It returns the infos that
// belong to the range, and the part that they cover: every key that was listed there is
// in mine. The parts of all reads and of all cursors split off are disjoint and cover
// the range. mine is a part of page. The error is CheckPage's; c is then as before.
func (c *Cursor) Read(page []Info, more bool) (part Range, mine []Info, err error) {
	r := &c.Range
	part = Range{r.Prefix, r.After, r.Before}
	if err := CheckPage(r.Prefix, r.After, page); err != nil {
		return Range{}, nil, err
	}
	if len(page) == 0 && more {
		if c.empty++; c.empty == maxEmpty {
			return Range{}, nil, fmt.Errorf("object: list %s after %s: the store gave no keys %d times and says that there are more", short(r.Prefix), short(r.After), maxEmpty)
		}
		part.Before = r.After + "\x00"
		return part, nil, nil
	}
	c.empty = 0
	c.Pages++
	mine = page
	if r.Before != "" {
		n, _ := slices.BinarySearchFunc(page, r.Before, func(i Info, key string) int { return strings.Compare(i.Key, key) })
		mine = page[:n]
	}
	c.Done = len(mine) < len(page) || !more
	if len(mine) == 0 {
		return part, nil, nil
	}
	if !c.started {
		c.started, c.first = true, mine[0].Key
	}
	if c.seen == nil {
		c.seen = newAlphabets()
	}
	c.seen.learn(mine)
	if c.head = mine[0].Key; len(mine) == 1 && part.After != "" && c.Pages > 1 {
		c.head = part.After
	}
	r.After = mine[len(mine)-1].Key
	if c.Done = c.Done || r.isEmpty(); !c.Done {
		part.Before = r.After + "\x00"
	}
	return part, mine, nil
}

// Split hands out up to n parts of what c has not read, in order; c keeps the front. A
// part may turn out to be empty. Split returns none where c has read nothing since it
// was made or stored, is done, or has no room. A page under way may be asked for before
// Split and read after it.
//
// A lister that hands out a part for each page read doubles the listers from round to
// round; n ≤ c.Pages/8 or so keeps what is asked in vain at a tenth.
func (c *Cursor) Split(n int) []Cursor {
	cuts := c.cuts(n)
	if len(cuts) == 0 {
		return nil
	}
	parts := make([]Cursor, len(cuts))
	before := c.Range.Before
	for i := len(cuts) - 1; i >= 0; i-- {
		parts[i] = Cursor{Range: Range{c.Range.Prefix, cuts[i], before}, below: c.Range.After, seen: c.seen}
		before = cuts[i] + "\x00"
	}
	c.Range.Before = before
	return parts
}

// shape is where the keys of a range part, as lengths of prefixes of After.
type shape struct {
	open   int    // up to here all keys of the range are alike
	known  int    // the first length from open on at which keys are known to part
	shared int    // the last page is alike up to here
	end    string // no key reaches it; "" if there is no end
}

func (c *Cursor) shape() shape {
	at := c.Range.After
	s := shape{open: len(c.Range.Prefix), shared: sharedLen(c.head, at), end: c.Range.end()}
	if s.end != "" {
		l := sharedLen(at, s.end)
		// Between obj-3… and obj-4 there is nothing but obj-3…, which has no end.
		if l < len(at) && l+1 >= len(s.end)-zeros(s.end) && l < len(s.end) && c.seen.of(spotOf(at[:l])).full.between(at[l], s.end[l]) == 0 {
			l++
		}
		s.open = max(s.open, min(l, len(at)))
	}
	s.known = max(s.shared, s.open)
	for _, key := range [2]string{c.below, c.first} {
		if l := sharedLen(key, at); key != "" && l >= s.open && l < s.known {
			s.known = l
		}
	}
	return s
}

// zeros counts the NUL bytes at the end of a bound, which are there to include a key.
func zeros(s string) int { return len(s) - len(strings.TrimRight(s, "\x00")) }

// steep is the estimate where the last page is more likely to lie in a corner of the
// range, deep below a prefix, than to be like the rest of it. That is so where the rest
// would be more than a hundred million keys.
const (
	steep     = 32
	steepFrom = 1e5
)

// Left estimates how many pages are left, from how far the last one led: 1 or more
// where it may pay to split. It is 0 while Split cannot split.
func (c *Cursor) Left() float64 {
	if c.Done || c.head == "" {
		return 0
	}
	s := c.shape()
	left := c.left(s)
	if c.deeper(s) != "" {
		left += 2 // nobody knows what is behind
	}
	return left
}

// left estimates the pages up to the end of the branch that the last page is in.
func (c *Cursor) left(s shape) float64 {
	level := min(s.known, s.shared)
	from, at := c.seen.place(c.head, level, false), c.seen.place(c.Range.After, level, false)
	to := c.ceiling(s, level, false)
	switch {
	case to <= at:
		return 0
	case to-at >= steepFrom*(at-from):
		return steep
	}
	return (to - at) / (at - from)
}

// ceiling is the place of the end among the keys that are like After up to level.
func (c *Cursor) ceiling(s shape, level int, seen bool) float64 {
	if s.end == "" || sharedLen(s.end, c.Range.After) < level {
		return 1
	}
	return c.seen.place(s.end, level, seen)
}

// cuts returns up to n keys strictly between After and the end, rising.
func (c *Cursor) cuts(n int) []string {
	if c.Done || c.head == "" || n < 1 {
		return nil
	}
	s := c.shape()
	var cuts []string
	if cut := c.deeper(s); cut != "" {
		cuts = append(cuts, cut)
	}
	from, to := c.seen.place(c.Range.After, s.known, true), c.ceiling(s, s.known, true)
	parts := n - len(cuts) + 1
	step := (to - from) / float64(parts)
	for i := 1; i < parts; i++ {
		cuts = append(cuts, c.seen.key(c.Range.After, s.known, from+float64(i)*step, step/8))
	}
	slices.Sort(cuts)
	return slices.DeleteFunc(slices.Compact(cuts), func(cut string) bool {
		return cut <= c.Range.After || s.end != "" && cut+"\x00" >= s.end
	})
}

// deeper returns the cut behind the branch that the last page is in, where nothing is
// known of what follows it; "" where none is due.
func (c *Cursor) deeper(s shape) string {
	cut := ""
	switch {
	case s.known > s.open:
		cut = c.behind(s.known)
	case s.shared > s.known+1 && c.left(s) == steep:
		cut = c.behind(s.shared)
	}
	if cut == "" || s.end != "" && cut >= s.end {
		return ""
	}
	// Where no byte that was seen, or goes with those, leads behind it, there will
	// hardly be a key.
	if sharedLen(cut, c.Range.After) >= s.open && c.ceiling(s, s.open, true)-c.seen.place(cut, s.open, true) < unlikely {
		return ""
	}
	return cut
}

// unlikely is the share of a branch below which a key is not looked for.
const unlikely = 1e-9

// behind returns the bound behind all keys that share the first n bytes of After.
func (c *Cursor) behind(n int) string {
	runes := utf8.ValidString(c.Range.After)
	return next(cutOff(c.Range.After, n, runes), MaxKey, runes)
}

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) add(b byte)      { s[b>>6] |= 1 << (b & 63) }
func (s *byteSet) has(b byte) bool { return s[b>>6]&(1<<(b&63)) != 0 }

func (s *byteSet) addAll(first, last byte) {
	for b := int(first); b <= int(last); b++ {
		s.add(byte(b))
	}
}

func (s *byteSet) len() int {
	return bits.OnesCount64(s[0]) + bits.OnesCount64(s[1]) + bits.OnesCount64(s[2]) + bits.OnesCount64(s[3])
}

// below counts the members less than b.
func (s *byteSet) below(b byte) int {
	n := bits.OnesCount64(s[b>>6] & (1<<(b&63) - 1))
	for i := range b >> 6 {
		n += bits.OnesCount64(s[i])
	}
	return n
}

// between counts the members strictly between a and b.
func (s *byteSet) between(a, b byte) int {
	n := s.below(b) - s.below(a)
	if s.has(a) {
		n--
	}
	return max(n, 0)
}

// nth returns the member that n others are below.
func (s *byteSet) nth(n int) byte {
	for i, word := range s {
		if count := bits.OnesCount64(word); n >= count {
			n -= count
			continue
		}
		for ; n > 0; n-- {
			word &= word - 1
		}
		return byte(i<<6 + bits.TrailingZeros64(word))
	}
	return 0xff
}

// overlaps reports whether a member lies in first … last.
func (s *byteSet) overlaps(first, last byte) bool {
	return s.has(last) || s.below(last) > s.below(first)
}

// complete adds what goes with the members: who uses one digit uses all.
func (s byteSet) complete() byteSet {
	digits := s.overlaps('0', '9')
	if digits {
		s.addAll('0', '9')
	}
	for _, c := range [2]struct{ a, f, z byte }{{'A', 'F', 'Z'}, {'a', 'f', 'z'}} {
		switch {
		case s.overlaps(c.f+1, c.z):
			s.addAll(c.a, c.z)
		case s.overlaps(c.a, c.f):
			s.addAll(c.a, c.f)
		}
	}
	if s.below(0xc0)-s.below(0x80) >= 4 { // fewer may follow a byte that allows no others
		s.addAll(0x80, 0xbf)
	}
	return s
}

// A spot is a place in keys that are alike in form: how many words and characters of the
// present word come before it. Words end at ASCII that is no letter or digit. So
// class-7/seg-00001 and class-12/seg-00001 have their digits at the same spots. Within
// a character, the spot is the bytes that it begins with. All this guides guesses only;
// a key may be of any form.
type spot struct {
	word, char int16
	begun      uint32 // the bytes of a character that is not complete
	missing    int8   // how many it lacks
}

// spotOf returns the spot behind key.
func spotOf(key string) (s spot) {
	for i := range len(key) {
		s = s.next(key[i])
	}
	return s
}

func (s spot) next(b byte) spot {
	switch {
	case b >= 0x80 && b < 0xc0 && s.missing > 1:
		s.begun, s.missing = s.begun<<8|uint32(b), s.missing-1
		return s
	case b >= 0xc0:
		return spot{s.word, s.char, uint32(b), int8(bits.LeadingZeros8(^b) - 1)}
	case b >= 0x80, '0' <= b && b <= '9', 'a' <= b|0x20 && b|0x20 <= 'z':
		return spot{word: s.word, char: min(s.char+1, 63)}
	}
	return spot{word: min(s.word+1, 63)}
}

// alike returns what spots with one alphabet have in common.
func (s spot) alike() spot {
	if s.missing > 0 {
		s.word, s.char = 0, 0
	}
	return s
}

// alphabets are the bytes that keys have at each spot, as a walk learns them. They make
// keys to numbers and numbers to keys.
type alphabets struct {
	at     map[spot]*alphabet
	common alphabet // of the spots that were not seen
}

// alphabet is the bytes of one spot.
type alphabet struct {
	raw, full byteSet // full is raw with what goes with it
}

func newAlphabets() *alphabets {
	a := &alphabets{at: make(map[spot]*alphabet)}
	a.common.full.addAll('0', '9')
	a.common.full.addAll('a', 'z')
	return a
}

// samples is how many keys of a page are learned from.
const samples = 64

func (a *alphabets) learn(page []Info) {
	step := max(1, len(page)/samples)
	for i := 0; i < len(page); i += step {
		a.learnKey(page[i].Key)
	}
	a.learnKey(page[len(page)-1].Key)
}

func (a *alphabets) learnKey(key string) {
	var s spot
	for i := range len(key) {
		here := a.at[s.alike()]
		if here == nil {
			here = new(alphabet)
			a.at[s.alike()] = here
		}
		if b := key[i]; !here.raw.has(b) {
			here.raw.add(b)
			here.full = here.raw.complete()
		}
		s = s.next(key[i])
	}
}

func (a *alphabets) of(s spot) *alphabet {
	if here := a.at[s.alike()]; here != nil {
		return here
	}
	return &a.common
}

// weight returns how much of an alphabet lies below b, what b itself has, and the sum.
// All bytes weigh the same, or, to find a cut, those seen more than those that only go
// with them: the more so the more were seen, since sixteen digits of seventeen leave
// little hope for another, and one of ten much.
func (a *alphabet) weight(b byte, seen bool) (below, own, sum float64) {
	more := 0
	if seen {
		more = 2*a.raw.len() + 1
	}
	below = float64(a.full.below(b) + more*a.raw.below(b))
	sum = float64(a.full.len() + more*a.raw.len())
	switch {
	case a.raw.has(b):
		own = float64(more + 1)
	case a.full.has(b):
		own = 1
	}
	return below, own, sum
}

// fine is the least difference of places that matters: the precision of a float64, with
// some to spare.
const fine = 1e-14

// place returns where key lies among all keys that are like it up to level, 0 for the
// first and at most 1, by weight.
func (a *alphabets) place(key string, level int, seen bool) float64 {
	sum, width := 0.0, 1.0
	s := spotOf(key[:min(level, len(key))])
	for i := level; i < len(key) && width > fine; i++ {
		below, own, all := a.of(s).weight(key[i], seen)
		sum += width * below / all
		if own == 0 {
			break
		}
		width *= own / all
		s = s.next(key[i])
	}
	return min(sum, 1)
}

// key returns a short string whose place, with what was seen weighing more, is within
// about slack of to, and which is like key up to level. It is UTF-8 if key is.
func (a *alphabets) key(key string, level int, to, slack float64) string {
	out := []byte(key[:level])
	slack = math.Max(slack, fine)
	s := spotOf(key[:level])
	for width := 1.0; width > slack && len(out) < MaxKey; {
		here := a.of(s)
		// The greatest member that begins at or below to.
		n := sort.Search(here.full.len()-1, func(n int) bool {
			below, _, all := here.weight(here.full.nth(n+1), true)
			return below/all > to
		})
		b := here.full.nth(n)
		below, own, all := here.weight(b, true)
		out = append(out, b)
		to = math.Max(to-below/all, 0) * all / own
		width *= own / all
		s = s.next(b)
	}
	if utf8.ValidString(key) {
		return repair(string(out))
	}
	return string(out)
}

// repair returns s up to where it is no UTF-8; of a character that s ends within, the
// first such one.
func repair(s string) string {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError || size > 1 {
			i += size
			continue
		}
		head, rest := s[:i], s[i:]
		for len(rest) < utf8.UTFMax && !utf8.FullRuneInString(rest) {
			rest += string([]byte{firstTail(rest)})
		}
		if utf8.ValidString(rest) && len(head)+len(rest) <= MaxKey {
			return head + rest
		}
		return head
	}
	return s
}

// firstTail returns the least byte that may follow the beginning of a character
// (RFC 3629, section 4).
func firstTail(s string) byte {
	switch s {
	case "\xe0":
		return 0xa0
	case "\xf0":
		return 0x90
	}
	return 0x80
}
