package s3stub

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// get answers GetObject and HeadObject.
func (c *call) get() *apiError {
	o := c.b.get(c.key)
	if o == nil {
		return noSuchKey(c.key)
	}
	c.set("Etag", `"`+o.etag+`"`)
	c.set("Last-Modified", time.Unix(o.modified, 0).UTC().Format(http.TimeFormat))
	if e := c.conditions(o, ""); e != nil {
		return e
	}
	c.file, c.off, c.n = o.content, 0, o.content.size()
	c.set("Accept-Ranges", "bytes")
	if e := c.choose(o); e != nil {
		return e
	}
	c.describe(o)
	if c.header("X-Amz-Checksum-Mode") == "ENABLED" && c.status == http.StatusOK {
		c.setChecksum(o.sum)
	}
	return nil
}

// describe answers with the object's attributes.
func (c *call) describe(o *object) {
	a := o.attributes()
	if a.ContentType == "" {
		c.set("Content-Type", "binary/octet-stream")
	}
	for _, f := range plainFields {
		c.set(f.header, *f.field(a))
	}
	for name, value := range a.Metadata { // clients see the case of these names
		c.w.Header()["x-amz-meta-"+name] = []string{value}
	}
	if n := len(a.Tags); n > 0 {
		c.set("X-Amz-Tagging-Count", strconv.Itoa(n))
	}
	if class := o.class(); class != "STANDARD" {
		c.set("X-Amz-Storage-Class", class)
	}
	c.setEncryption(a)
}

func (c *call) setEncryption(a *Attributes) {
	c.set("X-Amz-Server-Side-Encryption", a.Encryption)
	c.set("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", a.KMSKey)
}

// conditions checks If-Match and its kin, or with a prefix those of a copy's source:
// RFC 9110, section 13.2.2.
func (c *call) conditions(o *object, prefix string) *apiError {
	unmet := func(condition string) *apiError { return preconditionFailed(strings.ToLower(prefix) + condition) }
	match, none := c.header(prefix+"If-Match"), c.header(prefix+"If-None-Match")
	if match != "" {
		if !names(match, o.etag) {
			return unmet("If-Match")
		}
	} else if t, err := http.ParseTime(c.header(prefix + "If-Unmodified-Since")); err == nil && o.modified > t.Unix() {
		return unmet("If-Unmodified-Since")
	}
	if none != "" {
		if names(none, o.etag) {
			if prefix != "" {
				return unmet("If-None-Match")
			}
			return failed(http.StatusNotModified, "NotModified", "Not Modified")
		}
	} else if t, err := http.ParseTime(c.header(prefix + "If-Modified-Since")); err == nil && o.modified <= t.Unix() && !t.After(c.s.cfg.Now()) {
		if prefix != "" {
			return unmet("If-Modified-Since")
		}
		return failed(http.StatusNotModified, "NotModified", "Not Modified")
	}
	return nil
}

// names reports whether a list of ETags names etag, or all of them.
func names(list, etag string) bool {
	for v := range strings.SplitSeq(list, ",") {
		if v = strings.TrimSpace(v); v == "*" || strings.Trim(strings.TrimPrefix(v, "W/"), `"`) == etag {
			return true
		}
	}
	return false
}

// choose narrows the answer to the range or part that is asked for.
func (c *call) choose(o *object) *apiError {
	size := o.content.size()
	if v := c.param("partNumber"); v != "" {
		return c.choosePart(o, v)
	}
	v := c.header("Range")
	if v == "" {
		return nil
	}
	off, n, ok := parseRange(v, size)
	if !ok {
		return nil // S3 ignores what is no range, or is several
	}
	if n <= 0 {
		e := failed(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable")
		e.detail = [][2]string{{"RangeRequested", v}, {"ActualObjectSize", strconv.FormatInt(size, 10)}}
		return e
	}
	c.ranged(off, n, size)
	return nil
}

func (c *call) ranged(off, n, size int64) {
	c.off, c.n, c.status = off, n, http.StatusPartialContent
	c.set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, size))
}

func (c *call) choosePart(o *object, v string) *apiError {
	number, err := strconv.Atoi(v)
	if err != nil || number < 1 || number > maxParts {
		return invalidArgument("Part number must be an integer between 1 and %d, inclusive", maxParts)
	}
	parts := o.parts
	if parts == nil {
		parts = []int64{o.content.size()}
	} else {
		c.set("X-Amz-Mp-Parts-Count", strconv.Itoa(len(parts)))
	}
	if number > len(parts) {
		return failed(http.StatusRequestedRangeNotSatisfiable, "InvalidPartNumber", "The requested partnumber is not satisfiable")
	}
	off := int64(0)
	for _, n := range parts[:number-1] {
		off += n
	}
	if n := parts[number-1]; n > 0 {
		c.ranged(off, n, o.content.size())
	}
	return nil
}

// parseRange reads a Range header of one range: RFC 9110, section 14.1.2. ok is false
// if it is none; n is 0 if nothing of it is within size bytes.
func parseRange(v string, size int64) (off, n int64, ok bool) {
	spec, is := strings.CutPrefix(v, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !is || !dash {
		return 0, 0, false
	}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, false
		}
		n = min(n, size)
		return size - n, n, true
	}
	off, err := strconv.ParseInt(first, 10, 64)
	if err != nil || off < 0 {
		return 0, 0, false
	}
	end := size - 1
	if last != "" {
		if end, err = strconv.ParseInt(last, 10, 64); err != nil || end < off {
			return 0, 0, false
		}
		end = min(end, size-1)
	}
	return off, max(end-off+1, 0), true
}
