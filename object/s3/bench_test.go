package s3_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"myrmidon/object"
	"myrmidon/object/s3"
)

// benchStore opens a new bucket as a command would.
func benchStore(b *testing.B) *s3.Store {
	b.Helper()
	s, err := s3.New(b.Context(), s3.Config{Bucket: newBucket(b)})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkPut64K(b *testing.B) {
	s := benchStore(b)
	data := make([]byte, 64<<10)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := s.Put(b.Context(), fmt.Sprintf("k%d", i%100), bytes.NewReader(data), int64(len(data)), object.Attrs{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet64K(b *testing.B) {
	s := benchStore(b)
	data := make([]byte, 64<<10)
	if err := s.Put(b.Context(), "k", bytes.NewReader(data), int64(len(data)), object.Attrs{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r, _, err := s.Get(b.Context(), "k", 0, -1)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPutParts is a stream of unknown size, in parts.
func BenchmarkPutParts(b *testing.B) {
	s := benchStore(b)
	const size = 64 << 20
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		body := &breaking{size, func() (int, error) { return 0, io.EOF }}
		if err := s.Put(b.Context(), "k", body, -1, object.Attrs{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList1000(b *testing.B) {
	s := benchStore(b)
	for i := range 1000 {
		put(b, s, fmt.Sprintf("class/%d/seg.ts", i), "")
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range s.List(b.Context(), "", "") {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 1000 {
			b.Fatalf("%d objects", n)
		}
	}
}
