package s3stub

import (
	"fmt"
	"net/http"
	"strings"
)

// source finds the object that a copy is made of.
func (c *call) source() (*object, *apiError) {
	v := c.header("X-Amz-Copy-Source")
	path, query, _ := strings.Cut(v, "?")
	if query != "" && query != "versionId=null" {
		return nil, notImplemented()
	}
	// It is escaped like a path: a plus is a plus.
	path, ok := unescape(strings.TrimPrefix(path, "/"), false)
	bucket, key, ok2 := strings.Cut(path, "/")
	if !ok || !ok2 || bucket == "" || key == "" || !keyed(key) {
		e := invalidArgument("Invalid copy source object key")
		e.detail = [][2]string{{"ArgumentName", "x-amz-copy-source"}, {"ArgumentValue", v}}
		return nil, e
	}
	from := c.s.bucket(bucket)
	if from == nil {
		return nil, noSuchBucket(bucket)
	}
	o := from.get(key)
	if o == nil {
		return nil, noSuchKey(key)
	}
	if e := c.conditions(o, "X-Amz-Copy-Source-"); e != nil {
		return nil, e
	}
	if from == c.b && key == c.key && c.verb == Copy {
		return o, c.selfCopy(o)
	}
	return o, nil
}

// selfCopy refuses a copy of an object to itself that changes nothing.
func (c *call) selfCopy(o *object) *apiError {
	class, encryption := c.header("X-Amz-Storage-Class"), c.header("X-Amz-Server-Side-Encryption")
	if c.header("X-Amz-Metadata-Directive") == "REPLACE" || class != "" && class != o.class() ||
		encryption != "" && encryption != o.attributes().Encryption || c.header("X-Amz-Website-Redirect-Location") != "" {
		return nil
	}
	return invalidRequest("This copy request is illegal because it is trying to copy an object to itself without changing the " +
		"object's metadata, storage class, website redirect location or encryption attributes.")
}

// directive reads a directive, which is COPY unless told otherwise.
func (c *call) directive(name string) (replace bool, e *apiError) {
	switch v := c.header(name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, invalidArgument("Unknown %s: %.100q", strings.ToLower(name), v)
	}
}

// copiedAttributes are the attributes of a copy of o.
func (c *call) copiedAttributes(o *object) (*Attributes, *apiError) {
	replace, e := c.directive("X-Amz-Metadata-Directive")
	if e != nil {
		return nil, e
	}
	retag, e := c.directive("X-Amz-Tagging-Directive")
	if e != nil {
		return nil, e
	}
	old := o.attributes()
	a := new(Attributes)
	if replace {
		a, e = c.readAttributes()
	} else {
		*a = *old
		// Where the copy is, and whose, it does not take from its source.
		a.Redirect = c.header("X-Amz-Website-Redirect-Location")
		e = c.readPlacement(a)
	}
	if e != nil {
		return nil, e
	}
	a.Tags = old.Tags
	if retag {
		if a.Tags, e = c.headerTags(); e != nil {
			return nil, e
		}
	}
	return a.compact(), nil
}

func (c *call) copy() *apiError {
	from, e := c.source()
	if e != nil {
		return e
	}
	if limit := c.s.cfg.MaxCopy; from.content.size() > limit {
		return invalidRequest(fmt.Sprintf("The specified copy source is larger than the maximum allowable size for a copy source: %d", limit))
	}
	a, e := c.copiedAttributes(from)
	if e != nil {
		return e
	}
	o := &object{key: c.key, content: from.content, modified: c.s.cfg.Now().Unix(), attrs: a, sum: from.sum}
	if from.parts == nil && a == nil {
		o.etag = from.etag // the same bytes; saves making the string
	} else {
		o.etag = etagOf(o.content, a)
	}
	name := c.header("X-Amz-Checksum-Algorithm")
	if name == "" && o.sum != nil && o.sum.composite {
		name = o.sum.name // one request makes one part
	}
	if name != "" {
		if newHash(name) == nil {
			return invalidRequest("Checksum algorithm provided is unsupported. Please try again with any of the valid types: " + algorithms())
		}
		o.sum = digest(name, o.content)
	}
	if e := c.b.put(o, c.writable); e != nil {
		return e
	}
	c.setEncryption(o.attributes())
	c.copied("CopyObjectResult", o.etag, o.modified, o.sum)
	return nil
}

// algorithms lists the names of digests.
func algorithms() string {
	var all []string
	for _, d := range digests {
		all = append(all, d.name)
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func (c *call) copied(name, etag string, modified int64, sum *checksum) {
	c.xml(name)
	c.out = appendModified(c.out, modified)
	c.out = appendETag(c.out, etag)
	if c.out = sum.elements(c.out); sum != nil && name == "CopyObjectResult" {
		c.elem("ChecksumType", sum.kind())
	}
	c.end(name)
}

// copyPart answers UploadPartCopy.
func (c *call) copyPart() *apiError {
	number, e := c.partNumber()
	if e != nil {
		return e
	}
	from, e := c.source()
	if e != nil {
		return e
	}
	off, n := int64(0), from.content.size()
	if v := c.header("X-Amz-Copy-Source-Range"); v != "" {
		// Both ends are given, and within the source.
		var first, last int64
		if k, err := fmt.Sscanf(v, "bytes=%d-%d", &first, &last); err != nil || k != 2 || first < 0 || last < first {
			return invalidArgument("The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are " +
				"the zero-based offsets of the first and last bytes to copy")
		}
		if last >= n {
			return invalidArgument("Range specified is not valid for source object of size: %d", n)
		}
		off, n = first, last-first+1
	}
	if n > c.s.cfg.MaxPut {
		return invalidRequest(fmt.Sprintf("The specified copy source is larger than the maximum allowable size for a copy source: %d", c.s.cfg.MaxPut))
	}
	p := &part{number: number, content: from.content.slice(off, n), modified: c.s.cfg.Now().Unix()}
	if e := c.addPart(p); e != nil {
		return e
	}
	c.status = http.StatusOK
	c.copied("CopyPartResult", p.etag, p.modified, p.sum)
	return nil
}
