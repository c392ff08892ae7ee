// Package checksum names and computes the checksums that stores keep with objects, and makes
// that of a whole out of those of its parts.
//
// A checksum is written as "CRC32C:yZRlqg==": a name of Amazon S3's, and the bytes in
// base64, big endian (Amazon S3 User Guide, "Checking object integrity").
//
// Of the three that S3 keeps of whole objects in parts, CRC32 and CRC32C cost little more than
// copying the bytes, and CRC64NVME some ten times as much (BenchmarkSums). So [Default] is
// CRC32C, and CRC64NVME is for what has one already.
package checksum

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"strings"
)

// Names of checksums.
const (
	CRC32     = "CRC32"
	CRC32C    = "CRC32C"
	CRC64NVME = "CRC64NVME"
	SHA1      = "SHA1"
	SHA256    = "SHA256"

	// Default is for bytes that have none yet.
	Default = CRC32C
)

const nvmePolynomial = 0x9a6c_9329_ac4b_c9b5 // NVM Express, "64b CRC", reflected

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(nvmePolynomial)
)

// New returns the hash of a name, nil if it is not known.
func New(name string) hash.Hash {
	switch name {
	case CRC32:
		return crc32.NewIEEE()
	case CRC32C:
		return crc32.New(castagnoli)
	case CRC64NVME:
		return newCRC64()
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	}
	return nil
}

// Combines reports whether the checksum of a whole can be made of those of its parts.
func Combines(name string) bool { return name == CRC32 || name == CRC32C || name == CRC64NVME }

// Join writes a checksum: its name, and its value in base64. Without a value it is "".
func Join(name, value string) string {
	if value == "" {
		return ""
	}
	return name + ":" + value
}

// Split takes a checksum apart. name is "" if it is not one of those that are known.
func Split(sum string) (name, value string) {
	name, value, ok := strings.Cut(sum, ":")
	if h := New(name); !ok || h == nil {
		return "", ""
	}
	return name, value
}

// Sum writes what a hash of a name has come to.
func Sum(name string, h hash.Hash) string {
	return Join(name, base64.StdEncoding.EncodeToString(h.Sum(nil)))
}

// Of returns the checksum of data.
func Of(name string, data []byte) string {
	h := New(name)
	h.Write(data) // which never fails
	return Sum(name, h)
}

// Error is that of bytes which do not have the checksum that they should have.
type Error struct{ Got, Want string }

func (e *Error) Error() string {
	return fmt.Sprintf("the checksum of the bytes is wrong: %.100q, not %.100q", e.Got, e.Want)
}

// Reader reads r and fails with an [*Error] in place of io.EOF if the bytes do not have the
// checksum want. What it cannot compute, it does not compare.
func Reader(r io.Reader, want string) io.Reader {
	name, _ := Split(want)
	if name == "" {
		return r
	}
	return &reader{r, name, New(name), want}
}

type reader struct {
	r    io.Reader
	name string
	sum  hash.Hash
	want string
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum.Write(p[:n])
	if err == io.EOF {
		if got := Sum(r.name, r.sum); got != r.want {
			return n, &Error{got, r.want}
		}
	}
	return n, err
}
