package elb

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// What is done eight, 16 or 64 bytes at a time is held against the plain way.

func TestMarksAreThoseOfEachByte(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 4_000 {
		line := make([]byte, 1+random.IntN(200))
		for i := range line {
			line[i] = " \"ab-"[random.IntN(5)]
		}
		if random.IntN(2) == 0 {
			line[random.IntN(len(line))] = byte(random.IntN(256))
		}
		var all [maxMarked / marked]marks
		for i := range all {
			all[i] = marks{1, 1} // of the line before
		}
		plain := mark(line, &all)
		want := !slices.ContainsFunc(line, func(c byte) bool { return c < 0x20 || c >= 0x80 || c == '\\' })
		if quotes, is := look(line); plain != want || is != want || quotes != bytes.Count(line, []byte{'"'}) {
			t.Fatalf("%q: plain %t and %t, want %t; %d quotes", line, plain, is, want, quotes)
		}
		for i := range (len(line)/marked + 1) * marked {
			m, bit := all[i/marked], i%marked
			c := byte('x')
			if i < len(line) {
				c = line[i]
			}
			if m.spaces>>bit&1 == 1 != (c == ' ') || m.quotes>>bit&1 == 1 != (c == '"') {
				t.Fatalf("%q: byte %d is marked %t and %t", line, i, m.spaces>>bit&1 == 1, m.quotes>>bit&1 == 1)
			}
		}
	}
}

func TestBlocksAreMarkedAsTheirBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 4_000 {
		line := make([]byte, marked*(1+random.IntN(4)))
		for i := range line {
			if line[i] = " \"ab-"[random.IntN(5)]; random.IntN(100) == 0 {
				line[i] = byte(random.IntN(256))
			}
		}
		n := len(line) / marked
		got, want := make([]marks, n), make([]marks, n)
		special, portable := markBlocks(&line[0], n, &got[0]), markBytes(line, want)
		if special != 0 != (portable != 0) || !slices.Equal(got, want) {
			t.Fatalf("%q: %x and %x, special %t and %t", line, got, want, special != 0, portable != 0)
		}
		special, quotes := lookAtBlocks(&line[0], n)
		portable, count := lookBytes(line)
		if special != 0 != (portable != 0) || quotes != count {
			t.Fatalf("%q: %d and %d quotes, special %t and %t", line, quotes, count, special != 0, portable != 0)
		}
	}
}

func TestManyQuotesAreCounted(t *testing.T) {
	if quotes, plain := look(bytes.Repeat([]byte{'"'}, 5000)); quotes != 5000 || !plain {
		t.Errorf("%d quotes of 5000, plain %t", quotes, plain)
	}
}

// FuzzSplit splits lines by their marks and column by column.
func FuzzSplit(f *testing.F) {
	for _, line := range []string{
		`a "b c" d`, ` a  b `, `"a" "" " "`, `"a"b c`, `a"b" c`, `"a`, `a "`, `""`, `" "`, "a\tb", `a \"b" c`,
		strings.Repeat("a ", 58), strings.Repeat("a ", 59), strings.Repeat("a ", 60), strings.Repeat("b", 63) + ` "c d"`,
		strings.Repeat("b", 62) + ` "c d"`, `"` + strings.Repeat("b", 62) + `" d`, `"` + strings.Repeat("b ", 100) + `" d`,
		`"` + strings.Repeat("b", 62) + `"x d`, strings.Repeat("b", 64) + `"c d" e`, // what is wrong only across blocks
		strings.Repeat(`"c d" `, 30), strings.Repeat("b", 64), strings.Repeat("b", 63) + " ", strings.Repeat("b", maxMarked),
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, format := range []Format{Classic, ALB, NLB, S3Access} {
			fast := Record{schema: schemaOf(format), line: line}
			slow := Record{schema: schemaOf(format), line: line}
			open := slow.splitSpaces()
			if !fast.splitMarked() {
				if fast.n != 0 || fast.quoted != 0 || fast.spans != (Record{}).spans {
					t.Fatalf("%v: %q was not split, and changed the record", format, line)
				}
				continue
			}
			if open >= 0 || fast.n != slow.n || fast.quoted != slow.quoted || !slices.Equal(fast.spans[:fast.n], slow.spans[:slow.n]) {
				t.Fatalf("%v: %q gives %d columns %v, %d of them in quotes; want %d columns %v, %d in quotes, open %d",
					format, line, fast.n, fast.spans[:fast.n], fast.quoted, slow.n, slow.spans[:slow.n], slow.quoted, open)
			}
		}
	})
}

// TestUsualLinesAreSplitByTheirMarks sees to it that the quick way is taken.
func TestUsualLinesAreSplitByTheirMarks(t *testing.T) {
	r := Record{schema: schemaOf(ALB), line: []byte(`http 2018-07-02T22:23:00.186641Z app/x/1 192.0.2.1:2817 - "GET http://a:80/b c HTTP/1.1" "curl/7.46.0" -`)}
	if !r.splitMarked() || r.n != 8 || r.quoted != 2 {
		t.Errorf("%d columns, %d in quotes", r.n, r.quoted)
	}
}

func TestAddressesAtOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	addresses := 0
	for range 40_000 {
		var b []byte
		for i := range 3 + random.IntN(3) {
			if i > 0 && random.IntN(20) > 0 {
				b = append(b, '.')
			}
			for range 1 + random.IntN(4-random.IntN(2)) {
				b = append(b, "0123456789012345678901234567890123456789:a/"[random.IntN(43)])
			}
		}
		n := len(b)
		b = append(b, "1.2.3.4.5.6.7.8.9.0"...) // of the column after
		want := isAddressByByte(b[:n])
		if got := isAddress(b[:n]); got != want {
			t.Fatalf("%q: an address: %t, want %t", b[:n], got, want)
		}
		if want {
			addresses++
		}
		host, port := splitAddress(b[:n])
		if last := bytes.LastIndexByte(b[:n], ':'); last > 0 && b[last-1] != ':' && (string(host) != string(b[:last]) || string(port) != string(b[last+1:n])) {
			t.Fatalf("%q splits into %q and %q", b[:n], host, port)
		}
	}
	if addresses < 500 {
		t.Errorf("%d addresses among what was tried", addresses)
	}
}
