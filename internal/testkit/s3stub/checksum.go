package s3stub

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"strings"
)

// checksum is one that a client gave, of an object or a part.
type checksum struct {
	name      string // CRC32 and so on
	value     string // base64; with "-N" if composite
	composite bool   // the checksum of the parts' checksums
}

func (s *checksum) String() string { return s.name + ":" + s.value }

func (s *checksum) kind() string {
	if s.composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// digests are the algorithms of x-amz-checksum-*: "Checking object integrity" in the
// documentation of S3.
var digests = []struct {
	name, header string // header is canonical
	make         func() hash.Hash
}{
	{"CRC32", "X-Amz-Checksum-Crc32", func() hash.Hash { return crc32.NewIEEE() }},
	{"CRC32C", "X-Amz-Checksum-Crc32c", func() hash.Hash { return crc32.New(castagnoli) }},
	{"CRC64NVME", "X-Amz-Checksum-Crc64nvme", func() hash.Hash { return crc64.New(nvme) }},
	{"SHA1", "X-Amz-Checksum-Sha1", sha1.New},
	{"SHA256", "X-Amz-Checksum-Sha256", sha256.New},
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(0x9a6c9329ac4bc9b5) // the polynomial of NVMe, reversed
)

// newHash returns a new hash by name, nil if there is none.
func newHash(name string) hash.Hash {
	for _, d := range digests {
		if d.name == name {
			return d.make()
		}
	}
	return nil
}

// header is the canonical name of the header that a checksum travels in.
func (s *checksum) header() string {
	for _, d := range digests {
		if d.name == s.name {
			return d.header
		}
	}
	return ""
}

// digest returns the checksum of content.
func digest(name string, content content) *checksum {
	h := newHash(name)
	// A hash takes all that is written to it.
	_ = content.writeRange(h, 0, content.size())
	return &checksum{name: name, value: base64.StdEncoding.EncodeToString(h.Sum(nil))}
}

// checkBody compares the body with what its headers and trailers say of it.
func (c *call) checkBody(trailer http.Header) *apiError {
	if v := c.header("Content-Md5"); v != "" {
		want, err := base64.StdEncoding.DecodeString(v)
		if got := c.md5(); err != nil || len(want) != len(got) {
			return failed(http.StatusBadRequest, "InvalidDigest", "The Content-MD5 you specified was invalid.")
		} else if !bytes.Equal(want, got[:]) {
			return failed(http.StatusBadRequest, "BadDigest", "The Content-MD5 you specified did not match what we received.")
		}
	}
	if c.verb == Complete {
		return nil // there it is the object's
	}
	for _, d := range digests {
		want := c.header(d.header)
		if v := trailer[d.header]; len(v) > 0 {
			want = v[0]
		}
		if want == "" {
			continue
		}
		if c.sums != nil {
			return invalidRequest("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		h := d.make()
		h.Write(c.body)
		c.sums = &checksum{name: d.name, value: base64.StdEncoding.EncodeToString(h.Sum(nil))}
		if c.sums.value == want {
			continue
		}
		if raw, err := base64.StdEncoding.DecodeString(want); err != nil || len(raw) != h.Size() {
			return invalidRequest("Value for x-amz-checksum-" + strings.ToLower(d.name) + " header is invalid.")
		}
		return failed(http.StatusBadRequest, "BadDigest", "The "+d.name+" you specified did not match the calculated checksum.")
	}
	return nil
}

// elements appends the elements that listings of parts and results of copies have.
func (s *checksum) elements(b []byte) []byte {
	if s == nil {
		return b
	}
	return appendElem(b, "Checksum"+s.name, s.value)
}

// setChecksum answers with an object's checksum.
func (c *call) setChecksum(s *checksum) {
	if s == nil {
		return
	}
	c.set(s.header(), s.value)
	c.set("X-Amz-Checksum-Type", s.kind())
}

// combine is the checksum of an object made of parts: of all its bytes, or of the
// parts' checksums. It is nil if a part has none of that name.
func combine(name string, whole bool, parts []*part, all content) *checksum {
	if name == "" {
		return nil
	}
	h := newHash(name)
	for _, p := range parts {
		if p.sum == nil || p.sum.name != name {
			return nil
		}
		raw, err := base64.StdEncoding.DecodeString(p.sum.value)
		if err != nil {
			return nil
		}
		h.Write(raw)
	}
	if whole || name == "CRC64NVME" {
		return digest(name, all)
	}
	value := fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts))
	return &checksum{name: name, value: value, composite: true}
}
