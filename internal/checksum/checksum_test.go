package checksum

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// The check values of the CRC catalogue are of these digits.
func TestKnownValues(t *testing.T) {
	for name, want := range map[string]string{
		CRC32: "CRC32:y/Q5Jg==", CRC32C: "CRC32C:4waSgw==", CRC64NVME: "CRC64NVME:rosUhgp5mIg=",
		SHA1: "SHA1:98O8HYCOBHMq32eZZczDTKeuNEE=", SHA256: "SHA256:FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=",
	} {
		if got := Of(name, []byte("123456789")); got != want {
			t.Errorf("%s of 123456789 is %s, want %s", name, got, want)
		}
	}
}

func TestAWholeIsMadeOfItsParts(t *testing.T) {
	data := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	for _, name := range []string{CRC32, CRC32C, CRC64NVME} {
		whole := Of(name, data)
		for _, cut := range []int{0, 1, 7, 4096, 65_535, len(data) - 1, len(data)} {
			if got := Combine(Of(name, data[:cut]), Of(name, data[cut:]), int64(len(data)-cut)); got != whole {
				t.Errorf("%s cut at %d: %s, want %s", name, cut, got, whole)
			}
		}
		three := Combine(Combine(Of(name, data[:10]), Of(name, data[10:77]), 67), Of(name, data[77:]), int64(len(data)-77))
		if three != whole {
			t.Errorf("%s of three parts: %s, want %s", name, three, whole)
		}
	}
}

func TestWhatCannotBeCombined(t *testing.T) {
	a := Of(CRC32C, []byte("a"))
	for name, got := range map[string]string{
		"other names":       Combine(a, Of(CRC32, []byte("b")), 1),
		"a hash":            Combine(Of(SHA1, nil), Of(SHA1, nil), 0),
		"a length below 0":  Combine(a, a, -1),
		"too short a value": Combine("CRC32C:AAA=", a, 1),
		"no base64":         Combine("CRC32C:?", a, 1),
		"nothing":           Combine("", "", 0),
	} {
		if got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if name, value := Split("MD5:abc"); name != "" || value != "" {
		t.Errorf("an unknown name gives %q, %q", name, value)
	}
}

func TestAReaderComparesAtTheEnd(t *testing.T) {
	data := []byte("some bytes")
	for _, name := range []string{CRC32, CRC32C, CRC64NVME, SHA1, SHA256} {
		r := Reader(iotest.OneByteReader(bytes.NewReader(data)), Of(name, data))
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		var wrong *Error
		if _, err := io.ReadAll(Reader(bytes.NewReader(data[1:]), Of(name, data))); !errors.As(err, &wrong) {
			t.Errorf("%s of other bytes: %v", name, err)
		}
	}
	if r := bytes.NewReader(data); Reader(r, "CRC32C:abc-3 of an unknown:kind") == io.Reader(r) {
		t.Error("a value that cannot be right is not compared")
	}
	if r := bytes.NewReader(data); Reader(r, "MD5:abc") != io.Reader(r) {
		t.Error("what cannot be computed is compared")
	}
}

// BenchmarkSums prints what each checksum costs, beside copying the bytes.
func BenchmarkSums(b *testing.B) {
	data, to := make([]byte, 1<<20), make([]byte, 1<<20)
	for _, name := range []string{CRC32, CRC32C, CRC64NVME, SHA1, SHA256} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			h := New(name)
			for b.Loop() {
				h.Write(data)
			}
		})
	}
	b.Run("copy", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			copy(to, data)
		}
	})
}

func ExampleCombine() {
	fmt.Println(Combine(Of(CRC32C, []byte("12345")), Of(CRC32C, []byte("6789")), 4))
	// Output: CRC32C:4waSgw==
}

// The CRC64NVME of our own is that of the standard library, however the bytes come.
func TestCRC64IsThatOfTheStandardLibrary(t *testing.T) {
	data := make([]byte, 100_003)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 7, stripe*stripes - 1, stripe * stripes, stripe*stripes + 1, 3*stripe*stripes + 77, len(data)} {
		ours, theirs := newCRC64(), crc64.New(nvme)
		theirs.Write(data[:size])
		for rest := data[:size]; len(rest) > 0; {
			n := min(1+random.IntN(2*stripe*stripes), len(rest))
			ours.Write(rest[:n])
			rest = rest[n:]
		}
		if got, want := ours.Sum(nil), theirs.Sum(nil); !bytes.Equal(got, want) {
			t.Errorf("of %d bytes: %x, want %x", size, got, want)
		}
	}
}
