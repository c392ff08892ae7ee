package ffmpeg

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// get reads length bytes from at on as ffmpeg does: it asks for all, and hangs up.
func (r *readAhead) get(t *testing.T, at, length int64) []byte {
	t.Helper()
	var out []byte
	for int64(len(out)) < length {
		b, err := r.from(t.Context(), at+int64(len(out)), r.size-at-int64(len(out)), firstStep)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b[:min(int64(len(b)), length-int64(len(out)))]...)
	}
	return out
}

func TestReadAheadReadsLittleMoreThanIsAskedFor(t *testing.T) {
	const size = 64 << 20
	content := noise(size)
	for _, test := range []struct {
		name        string
		ask         func(t *testing.T, r *readAhead) (needed int64)
		most, reads int64 // bytes beyond what was needed
	}{
		{"all of it, in pieces", func(t *testing.T, r *readAhead) int64 {
			for at := int64(0); at < size; at += 32 << 10 {
				r.get(t, at, 32<<10)
			}
			return size
		}, 0, 36},
		{"a header", func(t *testing.T, r *readAhead) int64 { r.get(t, 5<<20, 100); return 100 }, firstStep, 1},
		{"a chunk of 13 MB", func(t *testing.T, r *readAhead) int64 {
			r.get(t, 20<<20, 13<<20)
			return 13 << 20
		}, 13 << 20 / 4, 22},
		{"pictures and sound far apart, by turns", func(t *testing.T, r *readAhead) int64 {
			for i := range int64(100) {
				r.get(t, i*40<<10, 40<<10)
				r.get(t, 50<<20+i*2<<10, 2<<10)
			}
			return 100 * 42 << 10
		}, 2 << 20, 24},
		{"back a little, again and again", func(t *testing.T, r *readAhead) int64 {
			for i := range int64(200) {
				r.get(t, i*20<<10, 40<<10)
				r.get(t, max(0, i*20-200)<<10, 1<<10)
			}
			return 201 * 20 << 10
		}, 1 << 20, 22},
	} {
		c := &counted{content: content}
		r := &readAhead{size: size, read: c.read}
		needed := test.ask(t, r)
		if over := c.taken.Load() - needed; over > test.most || over < 0 || c.reads.Load() > test.reads {
			t.Errorf("%s: %d bytes in %d reads, for %d; want at most %d more, in %d reads", test.name,
				c.taken.Load(), c.reads.Load(), needed, test.most, test.reads)
		}
		held := 0
		for _, w := range r.windows {
			held += cap(w.data)
		}
		if held > maxWindows*(maxStep+keptBehind)*5/4 {
			t.Errorf("%s: %d bytes are held", test.name, held)
		}
	}
}

// TestReadAheadGivesTheObjectsBytes asks here and there, and of a source that gives up
// in the middle now and then.
func TestReadAheadGivesTheObjectsBytes(t *testing.T) {
	content := noise(8 << 20)
	size := int64(len(content))
	rng := rand.New(rand.NewPCG(1, 2))
	c := &counted{content: content, err: io.ErrUnexpectedEOF}
	r := &readAhead{size: size, read: c.read}
	places := make([]int64, 6)
	for range 5000 {
		i := rng.IntN(len(places))
		if rng.IntN(10) == 0 {
			places[i] = rng.Int64N(size)
		}
		if c.failAt = 0; rng.IntN(5) == 0 {
			c.failAt = places[i] + 1 + rng.Int64N(100<<10)
		}
		first := int64(headStep)
		if rng.IntN(2) == 0 {
			first = firstStep
		}
		limit := 1 + rng.Int64N(size-places[i])
		b, err := r.from(t.Context(), places[i], limit, first)
		if err != nil && len(b) > 0 || err == nil && (len(b) == 0 || int64(len(b)) > limit) {
			t.Fatalf("%d bytes of %d, with %v", len(b), limit, err)
		}
		if !bytes.Equal(b, content[places[i]:][:len(b)]) {
			t.Fatalf("other bytes at %d", places[i])
		}
		if places[i] += int64(len(b)); places[i] == size {
			places[i] = 0
		}
	}
}
