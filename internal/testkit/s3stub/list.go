package s3stub

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

// listing is what a request for a listing asks for.
type listing struct {
	v2        bool
	prefix    string
	delimiter string
	start     string // start-after or marker, as it was given
	token     string // continuation-token, as it was given
	after     string // the page begins behind this key
	group     string // or behind all keys with this prefix
	max       int
	encode    bool
	owner     bool
}

// paged is what came of it, beside the page itself.
type paged struct {
	n         int
	truncated bool
	group     bool // next is a common prefix
	next      string
}

// owner is who owns everything.
const owner = "<Owner><ID>s3stub</ID><DisplayName>s3stub</DisplayName></Owner>"

func (c *call) list() *apiError {
	q, e := c.readListing()
	if e != nil {
		return e
	}
	c.b.mu.RLock()
	var at paged
	if c.page == nil {
		at = c.scan(q, c)
	} else {
		page := &Page{Prefix: q.prefix, After: max(q.after, q.group)}
		at = c.scan(q, page)
		at = c.changed(q, page, at)
	}
	c.b.mu.RUnlock()
	c.head(q, at)
	c.more = append(append(c.more, c.groups...), "</ListBucketResult>"...)
	return nil
}

func (c *call) readListing() (*listing, *apiError) {
	q := &listing{v2: c.param("list-type") == "2", prefix: c.param("prefix"), delimiter: c.param("delimiter")}
	var e *apiError
	if q.max, e = c.number("max-keys", maxPage, maxPage); e != nil {
		return nil, e
	}
	switch v := c.param("encoding-type"); v {
	case "", "url":
		q.encode = v != ""
	default:
		return nil, invalidArgument("Invalid Encoding Method specified in Request")
	}
	if !q.v2 {
		q.owner, q.start = true, c.param("marker")
		q.after = q.start
		// The marker of a page that ended with a common prefix is that prefix.
		if p, ok := q.common(q.start); ok && p == q.start {
			q.after, q.group = "", p
		}
		return q, nil
	}
	q.owner, q.start, q.token = c.param("fetch-owner") == "true", c.param("start-after"), c.param("continuation-token")
	q.after = q.start
	if c.has("continuation-token") {
		text, err := base64.RawURLEncoding.DecodeString(q.token)
		if err != nil || len(text) == 0 || text[0] != 'k' && text[0] != 'p' {
			return nil, invalidArgument("The continuation token provided is incorrect")
		}
		q.after, q.group = string(text[1:]), ""
		if text[0] == 'p' {
			q.after, q.group = "", q.after
		}
	}
	return q, nil
}

// common returns the common prefix that key is shown as, if it is shown as one.
func (q *listing) common(key string) (string, bool) {
	if q.delimiter == "" || !strings.HasPrefix(key, q.prefix) {
		return "", false
	}
	i := strings.Index(key[len(q.prefix):], q.delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(q.prefix)+i+len(q.delimiter)], true
}

// from returns where the page begins, and whether anything can be there.
func (q *listing) from() (string, bool) {
	from, ok := q.prefix, true
	if q.group != "" {
		var behind string
		behind, ok = successor(q.group)
		from = max(from, behind)
	} else if q.after >= from && q.after != "" {
		from = q.after + "\x00"
	}
	return from, ok
}

// pageWriter takes a page as it is found.
type pageWriter interface {
	object(q *listing, syn *synthetic, key []byte, o *object) // o is nil for one of syn
	group(q *listing, prefix string)
}

// scan goes through the bucket, whose lock is held, and gives a page to w.
func (c *call) scan(q *listing, w pageWriter) (at paged) {
	from, ok := q.from()
	if !ok || q.max == 0 {
		return at
	}
	it := newIter(c.b)
	last := c.last[:0]
	defer func() { c.last = last }()
	for it.seek(from); it.valid(); {
		o := it.object()
		key := it.keyOf(o)
		if len(key) < len(q.prefix) || string(key[:len(q.prefix)]) != q.prefix {
			break
		}
		if at.n == q.max {
			at.truncated, at.next = true, string(last)
			break
		}
		at.n++
		if q.delimiter != "" {
			if p, is := q.common(string(key)); is {
				w.group(q, p)
				last, at.group = append(last[:0], p...), true
				if from, ok = successor(p); !ok {
					break
				}
				it.seek(from)
				continue
			}
		}
		w.object(q, c.b.syn, key, o)
		if at.group = false; at.n == q.max { // the next page begins behind this one
			last = append(last[:0], key...)
		}
		it.pass(o)
	}
	return at
}

// object writes an object into the page.
func (c *call) object(q *listing, syn *synthetic, key []byte, o *object) {
	b := append(c.more, "<Contents><Key>"...)
	if q.encode {
		b = appendURL(b, key)
	} else {
		b = appendText(b, key)
	}
	switch {
	case o != nil:
		b = appendContents(b, o, q.owner)
	case q.owner:
		b = appendContents(b, syn.object(""), true)
	default:
		b = append(b, syn.suffix...)
	}
	c.more = b
}

// appendContents appends what follows the key of an object in a listing.
func appendContents(b []byte, o *object, withOwner bool) []byte {
	b = append(b, "</Key><LastModified>"...)
	b = appendTime(b, o.modified)
	b = append(b, "</LastModified>"...)
	b = appendETag(b, o.etag)
	if o.sum != nil {
		b = appendElem(b, "ChecksumAlgorithm", o.sum.name)
		b = appendElem(b, "ChecksumType", o.sum.kind())
	}
	b = appendInt(b, "Size", o.content.size())
	if withOwner {
		b = append(b, owner...)
	}
	b = appendElem(b, "StorageClass", o.class())
	return append(b, "</Contents>"...)
}

// group writes a common prefix into the page.
func (c *call) group(q *listing, prefix string) {
	c.groups = append(c.groups, "<CommonPrefixes><Prefix>"...)
	c.groups = q.text(c.groups, prefix)
	c.groups = append(c.groups, "</Prefix></CommonPrefixes>"...)
}

// text appends a key, prefix or delimiter as the listing encodes them.
func (q *listing) text(b []byte, text string) []byte {
	if q.encode {
		return appendURL(b, text)
	}
	return appendText(b, text)
}

// elem appends an element in the listing's encoding.
func (q *listing) elem(b []byte, name, text string) []byte {
	b = append(append(append(b, '<'), name...), '>')
	return appendEnd(q.text(b, text), name)
}

// head writes what stands before the page.
func (c *call) head(q *listing, at paged) {
	c.xml("ListBucketResult")
	c.elem("Name", c.bucket)
	c.out = q.elem(c.out, "Prefix", q.prefix)
	if q.v2 {
		if q.start != "" {
			c.out = q.elem(c.out, "StartAfter", q.start)
		}
		if q.token != "" {
			c.elem("ContinuationToken", q.token)
		}
		if at.truncated {
			kind := "k"
			if at.group {
				kind = "p"
			}
			c.elem("NextContinuationToken", base64.RawURLEncoding.EncodeToString([]byte(kind+at.next)))
		}
		c.int("KeyCount", int64(at.n))
	} else {
		c.out = q.elem(c.out, "Marker", q.start)
		if at.truncated && q.delimiter != "" {
			c.out = q.elem(c.out, "NextMarker", at.next)
		}
	}
	c.int("MaxKeys", int64(q.max))
	if q.delimiter != "" {
		c.out = q.elem(c.out, "Delimiter", q.delimiter)
	}
	if q.encode {
		c.elem("EncodingType", "url")
	}
	c.bool("IsTruncated", at.truncated)
}

// object and group collect a page that a fault changes.
func (p *Page) object(_ *listing, syn *synthetic, key []byte, o *object) {
	if o == nil {
		o = syn.object("")
	}
	p.Entries = append(p.Entries, Entry{Key: string(key), Size: o.content.size(), ETag: o.etag, object: o})
}

func (p *Page) group(_ *listing, prefix string) { p.Prefixes = append(p.Prefixes, prefix) }

// changed lets the fault change the page, and writes it.
func (c *call) changed(q *listing, p *Page, at paged) paged {
	p.Truncated, p.Next = at.truncated, at.next
	c.page(p)
	for _, e := range p.Entries {
		o := object{attrs: &noAttributes, modified: c.s.cfg.Now().Unix()}
		if e.object != nil {
			o = *e.object
		}
		o.etag, o.content = e.ETag, pattern{0, e.Size}
		c.object(q, nil, []byte(e.Key), &o)
	}
	for _, prefix := range p.Prefixes {
		c.group(q, prefix)
	}
	at.group = at.group && p.Next == at.next
	at.n, at.truncated, at.next = len(p.Entries)+len(p.Prefixes), p.Truncated, p.Next
	return at
}

// listUploads answers ListMultipartUploads.
func (c *call) listUploads() *apiError {
	most, e := c.number("max-uploads", maxPage, maxPage)
	if e != nil {
		return e
	}
	q := &listing{prefix: c.param("prefix"), delimiter: c.param("delimiter"), encode: c.param("encoding-type") == "url"}
	marker, idMarker := c.param("key-marker"), c.param("upload-id-marker")
	var found []*upload
	var groups []string
	c.b.mu.RLock()
	for _, u := range c.b.uploads {
		past := u.key < marker || u.key == marker && (idMarker == "" || u.id <= idMarker)
		if !strings.HasPrefix(u.key, q.prefix) || past && marker != "" {
			continue
		}
		if p, is := q.common(u.key); is {
			groups = append(groups, p)
			continue
		}
		found = append(found, u)
	}
	c.b.mu.RUnlock()
	slices.SortFunc(found, func(x, y *upload) int {
		if d := strings.Compare(x.key, y.key); d != 0 {
			return d
		}
		return strings.Compare(x.id, y.id)
	})
	truncated := len(found) > most
	found = found[:min(most, len(found))]
	c.xml("ListMultipartUploadsResult")
	c.elem("Bucket", c.bucket)
	c.out = q.elem(c.out, "KeyMarker", marker)
	c.elem("UploadIdMarker", idMarker)
	if truncated && most > 0 {
		c.out = q.elem(c.out, "NextKeyMarker", found[most-1].key)
		c.elem("NextUploadIdMarker", found[most-1].id)
	}
	c.out = q.elem(c.out, "Prefix", q.prefix)
	c.out = q.elem(c.out, "Delimiter", q.delimiter)
	c.int("MaxUploads", int64(most))
	if q.encode {
		c.elem("EncodingType", "url")
	}
	c.bool("IsTruncated", truncated)
	for _, u := range found {
		c.open("Upload")
		c.out = q.elem(c.out, "Key", u.key)
		c.elem("UploadId", u.id)
		c.out = append(c.out, "<Initiator><ID>s3stub</ID></Initiator>"...)
		c.out = append(c.out, owner...)
		c.elem("StorageClass", (&object{attrs: u.attrs}).class())
		c.open("Initiated")
		c.out = appendTime(c.out, u.begun)
		c.end("Initiated")
		c.end("Upload")
	}
	slices.Sort(groups)
	for _, p := range slices.Compact(groups) {
		c.group(q, p)
	}
	c.out = append(c.out, c.groups...)
	c.end("ListMultipartUploadsResult")
	return nil
}

// doBucket answers what is asked of buckets themselves.
func (c *call) doBucket() *apiError {
	switch {
	case c.bucket == "":
		c.listBuckets()
		return nil
	case c.r.Method == http.MethodPut:
		return c.createBucket()
	case c.r.Method == http.MethodDelete:
		return c.deleteBucket()
	case c.r.Method == http.MethodHead:
		c.set("X-Amz-Bucket-Region", c.b.region)
		return nil
	case c.has("location"):
		c.xml("LocationConstraint")
		if c.b.region != "us-east-1" { // which is the empty one
			c.out = appendText(c.out, c.b.region)
		}
		c.end("LocationConstraint")
	default:
		c.xml("VersioningConfiguration") // never enabled
		c.end("VersioningConfiguration")
	}
	return nil
}
