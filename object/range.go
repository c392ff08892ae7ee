package object

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Range is a part of a store: the keys k that begin with Prefix and lie between two
// others, After < k < Before, in byte order. "" is no bound. The bounds may be any
// bytes and need be no keys: cut at m, a range falls into {Before: m + "\x00"}, which m
// belongs to, and {After: m}.
//
// A Range survives JSON with every byte: {"prefix":"a/","after":"a/7"}, and what is not
// UTF-8 as {"bytes":"…"}.
type Range struct {
	Prefix, After, Before string
}

// Contains reports whether key lies in r.
func (r Range) Contains(key string) bool {
	return strings.HasPrefix(key, r.Prefix) && key > r.After && (r.Before == "" || key < r.Before)
}

// end returns the least bound that no key of r reaches, "" if there is none.
func (r Range) end() string {
	end := afterAll(r.Prefix)
	if end == "" || r.Before != "" && r.Before < end {
		return r.Before
	}
	return end
}

// isEmpty reports whether no key can lie in r.
func (r Range) isEmpty() bool {
	end := r.end()
	return end != "" && r.After+"\x00" >= end
}

type jsonRange struct {
	Prefix JSONKey `json:"prefix,omitempty"`
	After  JSONKey `json:"after,omitempty"`
	Before JSONKey `json:"before,omitempty"`
}

// MarshalJSON writes r as its comment says.
func (r Range) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonRange{JSONKey(r.Prefix), JSONKey(r.After), JSONKey(r.Before)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Range) UnmarshalJSON(data []byte) error {
	var j jsonRange
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("object: read a range: %w", err)
	}
	*r = Range{string(j.Prefix), string(j.After), string(j.Before)}
	return nil
}

// String shows r in errors and logs: "a/"("a/1", "a/7").
func (r Range) String() string {
	after, before := short(r.After), short(r.Before)
	if r.Before == "" {
		before = "end"
	}
	return fmt.Sprintf("%s(%s, %s)", short(r.Prefix), after, before)
}

// short quotes a key for an error; a message does not repeat a kilobyte of it.
func short(key string) string {
	if len(key) <= 120 {
		return fmt.Sprintf("%q", key)
	}
	return fmt.Sprintf("%q…%q (%d bytes)", key[:60], key[len(key)-40:], len(key))
}

// Remaining returns what of r is in none of done, in order: with the ranges that [Walk]
// told of, what a walk that was stopped has left. Ranges of another prefix count as not
// done. If a done range ends at a Before that is no key with a NUL byte behind, which
// Walk's do not, the next remaining one begins with 1,024 bytes that are not UTF-8.
func Remaining(r Range, done []Range) []Range {
	done = slices.Clone(done)
	slices.SortFunc(done, func(a, b Range) int { return strings.Compare(a.After, b.After) })
	var left []Range
	at, end := r.After, r.end()
	for _, d := range done {
		if d.Prefix != r.Prefix || d.isEmpty() || d.Before != "" && d.Before <= at {
			continue
		}
		if end != "" && d.After >= end {
			break
		}
		if d.After > at {
			gap := Range{r.Prefix, at, d.After + "\x00"}
			if r.Before != "" && gap.Before > r.Before {
				gap.Before = r.Before
			}
			if !gap.isEmpty() {
				left = append(left, gap)
			}
		}
		if d.Before == "" || end != "" && d.Before >= end {
			return left
		}
		at = max(at, lastBefore(d.Before))
	}
	if rest := (Range{r.Prefix, at, r.Before}); !rest.isEmpty() {
		left = append(left, rest)
	}
	return left
}

// lastBefore returns the greatest key of at most MaxKey bytes that is less than bound.
func lastBefore(bound string) string {
	head, last := bound[:len(bound)-1], bound[len(bound)-1]
	if last == 0 {
		return head
	}
	head += string([]byte{last - 1})
	return head + strings.Repeat("\xff", max(0, MaxKey-len(head)))
}

// afterAll returns the least bound above all keys that begin with prefix, UTF-8 if
// prefix is; "" if there is none.
func afterAll(prefix string) string {
	return next(prefix, len(prefix)+utf8.UTFMax, utf8.ValidString(prefix))
}

// next returns the least string of at most most bytes that is greater than s and does
// not begin with it, "" if there is none. With runes it is UTF-8, as s must be.
func next(s string, most int, runes bool) string {
	for len(s) > 0 {
		if !runes {
			last := s[len(s)-1]
			s = s[:len(s)-1]
			if last < 0xff && len(s) < most {
				return s + string([]byte{last + 1})
			}
			continue
		}
		r, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
		r++
		if r == 0xd800 { // surrogates are no characters
			r = 0xe000
		}
		if r <= utf8.MaxRune && len(s)+utf8.RuneLen(r) <= most {
			return s + string(r)
		}
	}
	return ""
}

// Between returns a string strictly between a and b in byte order, at most MaxKey bytes
// long, and UTF-8 if both are; "" if there is none. b == "" is no bound. It lies near
// the middle of the keys that are made of the characters in alphabet, each as likely
// as the others; if that is "", of printable ASCII and what a and b hold.
func Between(a, b, alphabet string) string {
	if b != "" && a >= b {
		return ""
	}
	seen := newAlphabets()
	seen.common.full = byteSet{}
	if alphabet == "" {
		seen.common.full.addAll(' ', '~')
		alphabet = a + b
	}
	for i, r := range alphabet {
		seen.common.full.add(alphabet[i])
		if r != utf8.RuneError {
			seen.learnKey(string(r))
		}
	}
	delete(seen.at, spot{}) // characters are as likely at the beginning as elsewhere
	level := sharedLen(a, b)
	if b == "" {
		level = 0
	}
	from, to := seen.place(a, level, true), 1.0
	if b != "" {
		to = seen.place(b, level, true)
	}
	if level < MaxKey {
		if m := seen.key(a, level, (from+to)/2, (to-from)/4); m > a && (b == "" || m < b) {
			return m
		}
	}
	return justAfter(a, b)
}

// justAfter returns the least string between a and b of at most MaxKey bytes, UTF-8 if
// both are.
func justAfter(a, b string) string {
	m := a + "\x00"
	if len(m) > MaxKey {
		runes := utf8.ValidString(a) && utf8.ValidString(b)
		// What is cut off is less than a, and whatever follows it is too long.
		m = next(cutOff(a, MaxKey, runes), MaxKey, runes)
	}
	if m == "" || b != "" && m >= b {
		return ""
	}
	return m
}

// cutOff returns the first most bytes of s, with runes less what is left of a character
// that they cut through.
func cutOff(s string, most int, runes bool) string {
	if len(s) <= most {
		return s
	}
	for runes && most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// sharedLen returns the length in bytes of the longest common prefix.
func sharedLen(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// CheckPage says whether page can be what a listing of prefix gives behind after: keys
// that begin with prefix, are greater than after, and rise. A store that repeats keys,
// goes back or leaves the prefix would lead to objects that are missed or deleted, so
// that is an error naming both keys. See [Pager].
func CheckPage(prefix, after string, page []Info) error {
	last := after
	for i := range page {
		key := page[i].Key
		switch {
		case !strings.HasPrefix(key, prefix):
			return fmt.Errorf("object: list %s: the store gave the key %s, which does not begin with it", short(prefix), short(key))
		case key <= last && i == 0:
			return fmt.Errorf("object: list %s after %s: the store gave the key %s, which is not behind it", short(prefix), short(after), short(key))
		case key == last:
			return fmt.Errorf("object: list %s: the store gave the key %s twice", short(prefix), short(key))
		case key < last:
			return fmt.Errorf("object: list %s: the store gave the key %s behind %s: it does not list in byte order", short(prefix), short(key), short(last))
		}
		last = key
	}
	return nil
}
