package documents

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

const (
	segmentRequest  = "-segment-request"
	segmentResponse = "-segment-response"
	segmentPartial  = "-segment-partial"
	cloneRequest    = "clone-request"
	cloneResponse   = "clone-response"
	pagesFolder     = "clone-response-pages"
)

// In names "!" begins what is not itself: an escaped byte, the middle of a range, a hash. All
// characters of a name are safe in keys (Amazon S3 User Guide, "Naming Amazon S3 objects") and
// in names of files.
const (
	between = "!-"
	hashed  = "!."
	// maxName leaves room for a suffix within the 255 bytes of a file's name.
	maxName = 200
	// cut is how many bytes of a key a name has if it would be longer.
	cut = 28
)

// PrefixName names the segment of all keys below folder + "/". Names of different segments
// differ; the article's drop the "/", so that "a/b" and "ab" had one.
func PrefixName(folder string) string {
	if name := escape(folder); len(name) <= maxName {
		return name
	}
	return escape(folder[:cut]) + hashed + hash(folder)
}

// RangeName names the segment of the keys from first to last, neither of them "".
func RangeName(first, last string) string {
	if name := escape(first) + between + escape(last); len(name) <= maxName {
		return name
	}
	return escape(first[:min(len(first), cut)]) + between + escape(last[:min(len(last), cut)]) + hashed + hash(first+"\x00"+last)
}

func hash(s string) string { return fmt.Sprintf("%.8x", sha256.Sum256([]byte(s))) }

// escape writes every byte but letters, digits, ".", "_" and "-" as "!" and two digits.
func escape(s string) string {
	var out strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0 {
			out.WriteByte(c)
			continue
		}
		fmt.Fprintf(&out, "!%02X", c)
	}
	return out.String()
}

// ResponseKey returns the key of the response to a segment-request, "" if key is none's.
func ResponseKey(key string) string {
	name, ok := strings.CutSuffix(key, segmentRequest)
	if !ok {
		return ""
	}
	return name + segmentResponse
}
