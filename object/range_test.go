package object_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"myrmidon/object"
)

func TestRangeContains(t *testing.T) {
	for _, test := range []struct {
		name    string
		r       object.Range
		in, out []string
	}{
		{"no bounds hold all", object.Range{}, []string{"a", "\xff", "\x00"}, nil},
		{"a prefix", object.Range{Prefix: "a/"}, []string{"a/", "a/b"}, []string{"a", "a0", "b"}},
		{"bounds are left out", object.Range{After: "b", Before: "d"}, []string{"b\x00", "c"}, []string{"b", "d", "a", "e"}},
		{"a bound with NUL behind takes its key in", object.Range{Before: "d\x00"}, []string{"d"}, []string{"d\x00", "da"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, key := range test.in {
				if !test.r.Contains(key) {
					t.Errorf("%v does not hold %q", test.r, key)
				}
			}
			for _, key := range test.out {
				if test.r.Contains(key) {
					t.Errorf("%v holds %q", test.r, key)
				}
			}
		})
	}
}

func TestRangeIsReadableAsJSON(t *testing.T) {
	for want, r := range map[string]object.Range{
		`{}`:                            {},
		`{"prefix":"ü/","after":"ü/7"}`: {Prefix: "ü/", After: "ü/7"},
		`{"prefix":"a","before":{"bytes":"Yf8="}}`: {Prefix: "a", Before: "a\xff"},
	} {
		got, err := json.Marshal(r)
		if err != nil || string(got) != want {
			t.Errorf("Marshal(%v) = %s, %v, want %s", r, got, err, want)
		}
	}
	var r object.Range
	for _, bad := range []string{`7`, `{"prefix":7}`, `{"after":{"bytes":"!"}}`} {
		if err := json.Unmarshal([]byte(bad), &r); err == nil {
			t.Errorf("%s was read as %v", bad, r)
		}
	}
}

func FuzzRangeSurvivesJSON(f *testing.F) {
	f.Add("a/", "a/\xff", "\x00\u2028")
	f.Add("", "\xed\xa0\x80", "\ufffd")
	f.Fuzz(func(t *testing.T, prefix, after, before string) {
		want := object.Range{Prefix: prefix, After: after, Before: before}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got object.Range
		if err := json.Unmarshal(data, &got); err != nil || got != want {
			t.Errorf("%s became %v, %v, want %v", data, got, err, want)
		}
	})
}

func TestBetweenIsNearTheMiddle(t *testing.T) {
	for _, test := range []struct{ name, a, b, alphabet, want string }{
		// Where the places are no binary fractions, a neighbour of the middle will do.
		{"digits", "obj-0", "obj-9", "0123456789", "obj-4"},
		{"digits, without an end", "obj-0", "obj-:", "0123456789", "obj-5"},
		{"digits of neighbours", "obj-3", "obj-4", "0123456789", "obj-34"},
		{"hexadecimal", "00", "ff", "0123456789abcdef", "7"},
		{"Cyrillic", "а", "я", "абвгдежзийклмнопрстуфхцчшщъыьэюя", "п"},
		{"neighbours by a byte", "a", "a\x00", "", ""},
		{"one key apart", "a", "a\x00\x00", "", "a\x00"},
		{"the same", "a", "a", "", ""},
		{"the wrong way round", "b", "a", "", ""},
		{"characters of one lead", "è", "ê", "", "èP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := object.Between(test.a, test.b, test.alphabet)
			if got != test.want {
				t.Errorf("Between(%q, %q) = %q, want %q", test.a, test.b, got, test.want)
			}
		})
	}
}

func FuzzBetween(f *testing.F) {
	full := strings.Repeat("z", object.MaxKey)
	for _, seed := range [][3]string{
		{"a", "b", ""},
		{"", "", "01"},
		{"é", "ê", "aé"},
		{"a\xff", "b", ""},
		{"\u07ff", "\u0800", ""},
		{"\ud7ff", "\ue000", ""},
		{full, "", ""},
		{full[:1021] + "\ud7ff", full[:1021] + "\ue001", ""},
		{full[:1023] + "\x7f", full[:1023] + "\u0080", ""},
		{full[:1022], full[:1022] + "\x00\x00", ""},
		{"\U0010ffff", "", ""},
		{full + "a", full + "b", ""},
		{full[:1023] + "é", "", "z"},
		{"", "\x00", ""},
		{"\xf4\x8f\xbf\xbf", "\xf5", ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, a, b, alphabet string) {
		got := object.Between(a, b, alphabet)
		valid := utf8.ValidString(a) && utf8.ValidString(b)
		if got == "" {
			if least := leastAfter(a, valid); least != "" && (b == "" || least < b) {
				t.Fatalf("Between(%q, %q) found none, %q is one", a, b, least)
			}
			return
		}
		if got <= a || b != "" && got >= b || len(got) > object.MaxKey || valid && !utf8.ValidString(got) {
			t.Fatalf("Between(%q, %q) = %q", a, b, got)
		}
	})
}

// leastAfter returns the least key greater than a, by trying what may follow each of
// its beginnings, from the longest.
func leastAfter(a string, valid bool) string {
	if len(a) < object.MaxKey {
		return a + "\x00"
	}
	for i := object.MaxKey - 1; i >= 0; i-- {
		if !valid {
			if a[i] < 0xff {
				return a[:i] + string([]byte{a[i] + 1})
			}
			continue
		}
		if !utf8.RuneStart(a[i]) {
			continue
		}
		r, _ := utf8.DecodeRuneInString(a[i:])
		for r++; r <= utf8.MaxRune; r++ {
			if utf8.ValidRune(r) {
				if i+utf8.RuneLen(r) <= object.MaxKey {
					return a[:i] + string(r)
				}
				break // greater ones are no shorter
			}
		}
	}
	return ""
}

func TestRemainingIsWhatIsNotDone(t *testing.T) {
	got := object.Remaining(object.Range{Prefix: "p", Before: "pz"}, []object.Range{
		{Prefix: "p", After: "pm", Before: "pq\x00"},
		{Prefix: "p", Before: "pc\x00"},
		{Prefix: "q", Before: "z"},
		{Prefix: "p", After: "pd", Before: "pe\x00"},
		{Prefix: "p", After: "pc", Before: "pd\x00"},
	})
	want := []object.Range{{Prefix: "p", After: "pe", Before: "pm\x00"}, {Prefix: "p", After: "pq", Before: "pz"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("remaining (-want +got):\n%s", diff)
	}
	// By plain definition: ranges of any bounds, keys of any bytes.
	for seed := range 300 {
		r := rand.New(rand.NewPCG(3, uint64(seed)))
		keys := randomKeys(r)
		rg := randomRange(r, keys)
		var done []object.Range
		for range r.IntN(5) {
			d := randomRange(r, keys)
			d.Prefix = rg.Prefix
			done = append(done, d)
		}
		var got []string
		for _, left := range object.Remaining(rg, done) {
			got = append(got, within(keys, left)...)
		}
		want := slices.DeleteFunc(within(keys, rg), func(k string) bool {
			return slices.ContainsFunc(done, func(d object.Range) bool { return d.Contains(k) })
		})
		if diff := cmp.Diff(want, append([]string{}, got...)); diff != "" {
			t.Fatalf("seed %d: %v without %v (-want +got):\n%s", seed, rg, done, diff)
		}
	}
}
