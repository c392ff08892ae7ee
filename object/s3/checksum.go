package s3

import (
	"crypto/sha1"
	"crypto/sha256"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"strings"
)

// checksum is one of those that S3 keeps with objects (Amazon S3 User Guide, "Checking
// object integrity").
type checksum struct {
	hash.Hash
	name string
}

// algorithms are the checksums that are looked for in an answer, the fastest first.
var algorithms = [...]struct {
	name, header string
	make         func() hash.Hash
}{
	{"CRC32", "X-Amz-Checksum-Crc32", func() hash.Hash { return crc32.NewIEEE() }},
	{"CRC32C", "X-Amz-Checksum-Crc32c", func() hash.Hash { return crc32.New(castagnoli) }},
	{"CRC64NVME", "X-Amz-Checksum-Crc64nvme", func() hash.Hash { return crc64.New(nvme) }},
	{"SHA256", "X-Amz-Checksum-Sha256", sha256.New},
	{"SHA1", "X-Amz-Checksum-Sha1", sha1.New},
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(0x9a6c_9329_ac4b_c9b5) // NVM Express, "64b CRC", reflected
)

// validated returns the body of an answer, which is compared with its checksum if it has
// one. That of an object stored in parts may be one of their checksums ("…-3"), which says
// nothing of the body.
func validated(resp *http.Response) io.ReadCloser {
	for _, a := range algorithms {
		if want := resp.Header.Get(a.header); want != "" && !strings.Contains(want, "-") {
			return &validatedBody{ReadCloser: resp.Body, sum: checksum{a.make(), a.name}, want: want}
		}
	}
	return resp.Body
}
