package s3stub

import (
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// upload is a multipart upload that was neither completed nor aborted.
type upload struct {
	id, key string
	begun   int64
	attrs   *Attributes
	sumName string // the algorithm of its checksum, "" for none
	whole   bool   // the checksum is of all bytes
	parts   map[int]*part
}

type part struct {
	number   int
	content  content
	etag     string
	modified int64
	sum      *checksum
}

func (c *call) createUpload() *apiError {
	a, e := c.readAttributes()
	if e != nil {
		return e
	}
	if a.Tags, e = c.headerTags(); e != nil {
		return e
	}
	u := &upload{
		id: rand.Text(), key: c.key, begun: c.s.cfg.Now().Unix(), attrs: a.compact(),
		sumName: c.header("X-Amz-Checksum-Algorithm"), whole: c.header("X-Amz-Checksum-Type") == "FULL_OBJECT", parts: make(map[int]*part),
	}
	if u.sumName != "" && newHash(u.sumName) == nil {
		return invalidRequest("Checksum algorithm provided is unsupported. Please try again with any of the valid types: " + algorithms())
	}
	if u.whole && strings.HasPrefix(u.sumName, "SHA") {
		return invalidRequest("The FULL_OBJECT checksum type cannot be used with the " + strings.ToLower(u.sumName) + " checksum algorithm.")
	}
	c.b.mu.Lock()
	c.b.uploads[u.id] = u
	c.b.mu.Unlock()
	if u.sumName != "" {
		c.set("X-Amz-Checksum-Algorithm", u.sumName)
		c.set("X-Amz-Checksum-Type", (&checksum{composite: !u.whole && u.sumName != "CRC64NVME"}).kind())
	}
	c.setEncryption(a)
	c.xml("InitiateMultipartUploadResult")
	c.elem("Bucket", c.bucket)
	c.elem("Key", c.key)
	c.elem("UploadId", u.id)
	c.end("InitiateMultipartUploadResult")
	return nil
}

// upload finds the request's upload. The bucket's lock is held.
func (c *call) upload() (*upload, *apiError) {
	id := c.param("uploadId")
	u := c.b.uploads[id]
	if u == nil || u.key != c.key {
		return nil, noSuchUpload(id)
	}
	return u, nil
}

func (c *call) partNumber() (int, *apiError) {
	n, err := strconv.Atoi(c.param("partNumber"))
	if err != nil || n < 1 || n > maxParts {
		return 0, invalidArgument("Part number must be an integer between 1 and %d, inclusive", maxParts)
	}
	return n, nil
}

func (c *call) uploadPart() *apiError {
	number, e := c.partNumber()
	if e != nil {
		return e
	}
	p := &part{number: number, content: c.content(), modified: c.s.cfg.Now().Unix(), sum: c.sums}
	if e := c.addPart(p); e != nil {
		return e
	}
	c.set("Etag", `"`+p.etag+`"`)
	if p.sum != nil {
		c.set(p.sum.header(), p.sum.value)
	}
	return nil
}

// addPart adds a part to the request's upload, in place of another of its number.
func (c *call) addPart(p *part) *apiError {
	sum := p.content.md5()
	p.etag = hex.EncodeToString(sum[:])
	c.b.mu.RLock()
	u, e := c.upload()
	c.b.mu.RUnlock()
	if e != nil {
		return e
	}
	switch {
	case u.sumName == "":
	case p.sum == nil: // S3 makes it itself, so that all parts have one
		p.sum = digest(u.sumName, p.content)
	case p.sum.name != u.sumName:
		return invalidRequest("Checksum Type mismatch occurred, expected checksum Type: " + strings.ToLower(u.sumName) +
			", actual checksum Type: " + strings.ToLower(p.sum.name))
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if u, e = c.upload(); e == nil {
		u.parts[p.number] = p
	}
	return e
}

// completion is the body of CompleteMultipartUpload.
type completion struct {
	Parts []struct {
		Number int    `xml:"PartNumber"`
		ETag   string `xml:"ETag"`
	} `xml:"Part"`
}

func (c *call) complete() *apiError {
	var in completion
	if xml.Unmarshal(c.body, &in) != nil || len(in.Parts) == 0 || len(in.Parts) > maxParts {
		return malformedXML()
	}
	c.b.mu.RLock()
	u, e := c.upload()
	var parts []*part
	if e == nil {
		parts, e = u.chosen(&in, c.s.cfg.MinPart)
	}
	c.b.mu.RUnlock()
	if e != nil {
		return e
	}
	o := assemble(u, parts)
	o.modified = c.s.cfg.Now().Unix()
	if e := c.expected(o); e != nil {
		return e
	}
	i := c.b.index(c.key)
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if _, e := c.upload(); e != nil {
		return e
	}
	if e := c.writable(c.b.lookup(c.key, i)); e != nil {
		return e
	}
	delete(c.b.uploads, u.id)
	c.b.store(o, i)
	c.setEncryption(o.attributes())
	c.xml("CompleteMultipartUploadResult")
	c.elem("Location", c.s.url+"/"+c.bucket+"/"+c.key)
	c.elem("Bucket", c.bucket)
	c.elem("Key", c.key)
	c.out = appendETag(c.out, o.etag)
	if c.out = o.sum.elements(c.out); o.sum != nil {
		c.elem("ChecksumType", o.sum.kind())
	}
	c.end("CompleteMultipartUploadResult")
	return nil
}

// chosen returns the parts that a completion names. The bucket's lock is held.
func (u *upload) chosen(in *completion, least int64) ([]*part, *apiError) {
	var out []*part
	for i, want := range in.Parts {
		if i > 0 && want.Number <= in.Parts[i-1].Number {
			return nil, failed(http.StatusBadRequest, "InvalidPartOrder",
				"The list of parts was not in ascending order. Parts must be ordered by part number.")
		}
		p := u.parts[want.Number]
		if p == nil || p.etag != strings.Trim(want.ETag, `"`) {
			e := failed(http.StatusBadRequest, "InvalidPart", "One or more of the specified parts could not be found. "+
				"The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
			e.detail = [][2]string{{"UploadId", u.id}, {"PartNumber", strconv.Itoa(want.Number)}, {"ETag", want.ETag}}
			return nil, e
		}
		out = append(out, p)
	}
	for _, p := range out[:len(out)-1] {
		if size := p.content.size(); size < least {
			e := failed(http.StatusBadRequest, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
			e.detail = [][2]string{
				{"ProposedSize", strconv.FormatInt(size, 10)},
				{"MinSizeAllowed", strconv.FormatInt(least, 10)},
				{"PartNumber", strconv.Itoa(p.number)},
				{"ETag", p.etag},
			}
			return nil, e
		}
	}
	return out, nil
}

// assemble makes an object of parts.
func assemble(u *upload, parts []*part) *object {
	o := &object{key: u.key, attrs: u.attrs}
	var contents []content
	var sums [][md5.Size]byte
	for _, p := range parts {
		contents = append(contents, p.content)
		sums = append(sums, p.content.md5())
		o.parts = append(o.parts, p.content.size())
	}
	o.content = join(contents)
	o.etag = multipartETag(sums)
	o.sum = combine(u.sumName, u.whole, parts, o.content)
	return o
}

// expected compares a completed object with what the request says of it.
func (c *call) expected(o *object) *apiError {
	if v := c.header("X-Amz-Mp-Object-Size"); v != "" && v != strconv.FormatInt(o.content.size(), 10) {
		return invalidRequest("The provided 'x-amz-mp-object-size' header does not match what was computed.")
	}
	for _, d := range digests {
		if v := c.header(d.header); v != "" && (o.sum == nil || o.sum.name != d.name || o.sum.value != v) {
			return failed(http.StatusBadRequest, "BadDigest", "The "+d.name+" you specified did not match the calculated checksum.")
		}
	}
	return nil
}

func (c *call) abort() *apiError {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	u, e := c.upload()
	if e != nil {
		return e
	}
	delete(c.b.uploads, u.id)
	c.status = http.StatusNoContent
	return nil
}

func (c *call) listParts() *apiError {
	most, e := c.number("max-parts", maxPage, maxPage)
	if e != nil {
		return e
	}
	marker, e := c.number("part-number-marker", 0, maxParts)
	if e != nil {
		return e
	}
	c.b.mu.RLock()
	u, e := c.upload()
	var parts []*part
	if e == nil {
		for _, number := range slices.Sorted(maps.Keys(u.parts)) {
			if number > marker {
				parts = append(parts, u.parts[number])
			}
		}
	}
	c.b.mu.RUnlock()
	if e != nil {
		return e
	}
	truncated := len(parts) > most
	parts = parts[:min(most, len(parts))]
	c.xml("ListPartsResult")
	c.elem("Bucket", c.bucket)
	c.elem("Key", c.key)
	c.elem("UploadId", u.id)
	c.out = append(c.out, "<Initiator><ID>s3stub</ID></Initiator>"...)
	c.out = append(c.out, owner...)
	c.elem("StorageClass", (&object{attrs: u.attrs}).class())
	c.int("PartNumberMarker", int64(marker))
	if len(parts) > 0 {
		c.int("NextPartNumberMarker", int64(parts[len(parts)-1].number))
	}
	c.int("MaxParts", int64(most))
	c.bool("IsTruncated", truncated)
	for _, p := range parts {
		c.open("Part")
		c.int("PartNumber", int64(p.number))
		c.out = appendModified(c.out, p.modified)
		c.out = appendETag(c.out, p.etag)
		c.int("Size", p.content.size())
		c.out = p.sum.elements(c.out)
		c.end("Part")
	}
	c.end("ListPartsResult")
	return nil
}
