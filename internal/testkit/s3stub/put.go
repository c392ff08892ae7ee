package s3stub

import (
	"encoding/xml"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// plainFields are the attributes that travel as headers, as they are.
var plainFields = []struct {
	header string // canonical
	field  func(*Attributes) *string
}{
	{"Content-Type", func(a *Attributes) *string { return &a.ContentType }},
	{"Cache-Control", func(a *Attributes) *string { return &a.CacheControl }},
	{"Content-Disposition", func(a *Attributes) *string { return &a.ContentDisposition }},
	{"Content-Encoding", func(a *Attributes) *string { return &a.ContentEncoding }},
	{"Content-Language", func(a *Attributes) *string { return &a.ContentLanguage }},
	{"Expires", func(a *Attributes) *string { return &a.Expires }},
	{"X-Amz-Website-Redirect-Location", func(a *Attributes) *string { return &a.Redirect }},
}

// Limits of S3: "Working with object metadata" and "Categorizing your storage using
// tags" in its documentation.
const (
	maxMetadata = 2 << 10 // bytes of names and values
	maxTags     = 10
	maxTagKey   = 128
	maxTagValue = 256
)

var classes = map[string]bool{
	"": true, "STANDARD": true, "REDUCED_REDUNDANCY": true, "STANDARD_IA": true, "ONEZONE_IA": true, "INTELLIGENT_TIERING": true,
	"GLACIER": true, "DEEP_ARCHIVE": true, "GLACIER_IR": true, "OUTPOSTS": true, "SNOW": true, "EXPRESS_ONEZONE": true,
}

// readAttributes reads an object's attributes from the request's headers.
func (c *call) readAttributes() (*Attributes, *apiError) {
	a := new(Attributes)
	for _, f := range plainFields {
		*f.field(a) = c.header(f.header)
	}
	a.ContentEncoding = withoutChunked(a.ContentEncoding)
	size := 0
	for name, values := range c.r.Header {
		if rest, ok := strings.CutPrefix(name, "X-Amz-Meta-"); ok {
			if a.Metadata == nil {
				a.Metadata = make(map[string]string)
			}
			value := strings.Join(values, ",")
			a.Metadata[strings.ToLower(rest)] = value
			size += len(rest) + len(value)
		}
	}
	if size > maxMetadata {
		return nil, failed(http.StatusBadRequest, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
	}
	return a, c.readPlacement(a)
}

// readPlacement reads what is never copied from a source: class, ACL, encryption.
func (c *call) readPlacement(a *Attributes) *apiError {
	a.StorageClass = c.header("X-Amz-Storage-Class")
	a.ACL = c.header("X-Amz-Acl")
	a.Encryption = c.header("X-Amz-Server-Side-Encryption")
	a.KMSKey = c.header("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id")
	if !classes[a.StorageClass] {
		return failed(http.StatusBadRequest, "InvalidStorageClass", "The storage class you specified is not valid")
	}
	switch a.Encryption {
	case "", "AES256", "aws:kms", "aws:kms:dsse":
		return nil
	}
	return invalidArgument("The encryption method specified is not supported")
}

// withoutChunked is a Content-Encoding without aws-chunked, which is of the request.
func withoutChunked(v string) string {
	if !strings.Contains(v, "aws-chunked") {
		return v
	}
	var kept []string
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "aws-chunked" && part != "" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ",")
}

// compact is a, or nil if it says nothing.
func (a *Attributes) compact() *Attributes {
	for _, f := range plainFields {
		if *f.field(a) != "" {
			return a
		}
	}
	if len(a.Metadata) > 0 || len(a.Tags) > 0 || a.StorageClass != "" || a.ACL != "" || a.Encryption != "" || a.KMSKey != "" {
		return a
	}
	return nil
}

// headerTags reads the tags of a header.
func (c *call) headerTags() (map[string]string, *apiError) {
	v := c.header("X-Amz-Tagging")
	if v == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(v)
	if err != nil {
		return nil, invalidArgument("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
	}
	out := make(map[string]string)
	for name, v := range values {
		if len(v) > 1 {
			return nil, invalidArgument("The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
		}
		out[name] = v[0]
	}
	return out, checkTags(out)
}

func checkTags(tags map[string]string) *apiError {
	if len(tags) > maxTags {
		return failed(http.StatusBadRequest, "BadRequest", "Object tags cannot be greater than 10")
	}
	for name, value := range tags {
		if name == "" || len([]rune(name)) > maxTagKey {
			return failed(http.StatusBadRequest, "InvalidTag", "The TagKey you have provided is invalid")
		}
		if len([]rune(value)) > maxTagValue {
			return failed(http.StatusBadRequest, "InvalidTag", "The TagValue you have provided is invalid")
		}
	}
	return nil
}

// writable checks If-Match and If-None-Match of a request that stores an object where
// old, or nil, is.
func (c *call) writable(old *object) *apiError {
	if none := c.header("If-None-Match"); none != "" {
		if none != "*" {
			return notImplemented()
		}
		if old != nil {
			return preconditionFailed("If-None-Match")
		}
	}
	if match := c.header("If-Match"); match != "" {
		if old == nil {
			return noSuchKey(c.key)
		}
		if !names(match, old.etag) {
			return preconditionFailed("If-Match")
		}
	}
	return nil
}

func (c *call) put() *apiError {
	a, e := c.readAttributes()
	if e != nil {
		return e
	}
	if a.Tags, e = c.headerTags(); e != nil {
		return e
	}
	a = a.compact()
	o := &object{key: c.key, content: c.content(), modified: c.s.cfg.Now().Unix(), attrs: a, sum: c.sums}
	o.etag = etagOf(o.content, a)
	if e := c.b.put(o, c.writable); e != nil {
		return e
	}
	c.set("Etag", `"`+o.etag+`"`)
	c.setChecksum(o.sum)
	c.setEncryption(o.attributes())
	return nil
}

func (c *call) delete() *apiError {
	e := c.b.remove(c.key, func(old *object) *apiError {
		match := c.header("If-Match")
		if match == "" {
			return nil
		}
		if old == nil {
			return noSuchKey(c.key)
		}
		if !names(match, old.etag) {
			return preconditionFailed("If-Match")
		}
		return nil
	})
	c.status = http.StatusNoContent
	return e
}

func (c *call) deleteMany() *apiError {
	var in struct {
		Quiet   bool `xml:"Quiet"`
		Objects []struct {
			Key string `xml:"Key"`
		} `xml:"Object"`
	}
	if c.header("Content-Md5") == "" && c.sums == nil {
		return invalidRequest("Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
	}
	if xml.Unmarshal(c.body, &in) != nil || len(in.Objects) == 0 || len(in.Objects) > maxPage {
		return malformedXML()
	}
	c.xml("DeleteResult")
	for _, o := range in.Objects {
		// Without a condition nothing is refused.
		_ = c.b.remove(o.Key, nil)
		if !in.Quiet {
			c.open("Deleted")
			c.elem("Key", o.Key)
			c.end("Deleted")
		}
	}
	c.end("DeleteResult")
	return nil
}

func (c *call) getTags() *apiError {
	o := c.b.get(c.key)
	if o == nil {
		return noSuchKey(c.key)
	}
	c.xml("Tagging")
	c.open("TagSet")
	for _, name := range slices.Sorted(maps.Keys(o.attributes().Tags)) {
		c.open("Tag")
		c.elem("Key", name)
		c.elem("Value", o.attrs.Tags[name])
		c.end("Tag")
	}
	c.end("TagSet")
	c.end("Tagging")
	return nil
}

func (c *call) putTags() *apiError {
	var in struct {
		Tags []struct {
			Key   string `xml:"Key"`
			Value string `xml:"Value"`
		} `xml:"TagSet>Tag"`
	}
	if xml.Unmarshal(c.body, &in) != nil {
		return malformedXML()
	}
	tags := make(map[string]string)
	for _, t := range in.Tags {
		tags[t.Key] = t.Value
	}
	if len(tags) < len(in.Tags) {
		return failed(http.StatusBadRequest, "InvalidTag", "Cannot provide multiple Tags with the same key")
	}
	if e := checkTags(tags); e != nil {
		return e
	}
	return c.retag(tags)
}

func (c *call) deleteTags() *apiError {
	c.status = http.StatusNoContent
	return c.retag(nil)
}

// retag gives the object other tags, and nothing else: not even a modification time.
func (c *call) retag(tags map[string]string) *apiError {
	i := c.b.index(c.key)
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	old := c.b.lookup(c.key, i)
	if old == nil {
		return noSuchKey(c.key)
	}
	if len(tags) == 0 && len(old.attributes().Tags) == 0 {
		return nil
	}
	o, a := *old, *old.attributes()
	a.Tags = tags
	o.attrs = a.compact()
	if i >= 0 { // no arrival: the object is the one that was there
		c.b.syn.present.clear(i, c.b.syn.n)
	}
	c.b.keys.put(&o)
	return nil
}
