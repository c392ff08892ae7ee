package s3

import (
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"myrmidon/internal/checksum"
)

// algorithms are the checksums that are looked for in an answer, the fastest first.
var algorithms = [...]struct{ name, header string }{
	{checksum.CRC32, "X-Amz-Checksum-Crc32"},
	{checksum.CRC32C, "X-Amz-Checksum-Crc32c"},
	{checksum.CRC64NVME, "X-Amz-Checksum-Crc64nvme"},
	{checksum.SHA256, "X-Amz-Checksum-Sha256"},
	{checksum.SHA1, "X-Amz-Checksum-Sha1"},
}

// checksumHeader is the canonical name of the header that a checksum travels in.
func checksumHeader(name string) string {
	for _, a := range algorithms {
		if a.name == name {
			return a.header
		}
	}
	return ""
}

// checksumIn returns the checksum of all bytes of an object that an answer has. That of an
// object stored in parts may be one of their checksums ("…-3"), which says nothing of the
// bytes.
func checksumIn(h http.Header) string {
	for _, a := range algorithms {
		if v := h[a.header]; len(v) > 0 && isWhole(v[0]) {
			return checksum.Join(a.name, v[0])
		}
	}
	return ""
}

func isWhole(value string) bool { return value != "" && !strings.Contains(value, "-") }

// sums are the fields of the SDK for the checksums of an object or part.
type sums struct{ crc32, crc32c, crc64nvme, sha256, sha1 *string }

// whole is checksumIn.
func (s sums) whole() string {
	for i, v := range [...]*string{s.crc32, s.crc32c, s.crc64nvme, s.sha256, s.sha1} {
		if isWhole(aws.ToString(v)) {
			return checksum.Join(algorithms[i].name, *v)
		}
	}
	return ""
}

// sumsOf returns the fields for a checksum.
func sumsOf(sum string) (s sums) {
	name, value := checksum.Split(sum)
	for i, to := range [...]**string{&s.crc32, &s.crc32c, &s.crc64nvme, &s.sha256, &s.sha1} {
		if name == algorithms[i].name {
			*to = &value
		}
	}
	return s
}
