package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"myrmidon/internal/sigv4"
	"myrmidon/object"
)

// patience is how long a server may take to answer to a copy of gigabytes.
const patience = 10 * time.Minute

func (o *own) list(ctx context.Context, q listQuery, page []object.Info) (listing, error) {
	// The parameters are in the order of their names, as a signature has them.
	query := make([]byte, 0, 256)
	add := func(name, value string) {
		if len(query) > 0 {
			query = append(query, '&')
		}
		query = append(query, name...)
		query = append(query, '=')
		query = sigv4.AppendEncoded(query, value, false)
	}
	if q.token != "" {
		add("continuation-token", q.token)
	}
	add("encoding-type", "url") // keys may hold what XML cannot
	add("list-type", "2")
	if q.most > 0 {
		add("max-keys", strconv.Itoa(q.most))
	}
	add("prefix", q.prefix)
	if q.after != "" && q.token == "" {
		add("start-after", q.after)
	}
	c := call{verb: isList, method: http.MethodGet, query: string(query), header: make(http.Header, 4), payload: sigv4.Empty}
	var out listing
	before := len(page)
	err := o.do(ctx, &c, func(resp *http.Response) error {
		return document(resp, func(data []byte) (err error) {
			out, err = parseListing(data, page[:before])
			return err
		})
	})
	return out, err
}

func (o *own) head(ctx context.Context, key string) (object.Info, error) {
	c := call{verb: isHead, method: http.MethodHead, key: key, header: make(http.Header, 4), payload: sigv4.Empty}
	var info object.Info
	err := o.do(ctx, &c, func(resp *http.Response) error {
		info = infoOfAnswer(resp)
		info.Size = max(resp.ContentLength, 0)
		return discard(resp)
	})
	return info, err
}

// infoOfAnswer reads the headers that describe an object.
func infoOfAnswer(resp *http.Response) object.Info {
	h := resp.Header
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		modified = time.Time{} // not every server sends it
	}
	return object.Info{
		Modified: modified.UTC(),
		ETag:     strings.Trim(h.Get("Etag"), `"`),
		Attrs:    object.Attrs{ContentType: h.Get("Content-Type"), CacheControl: h.Get("Cache-Control")},
	}
}

func (o *own) get(ctx context.Context, key, byteRange, ifMatch string) (*opened, error) {
	c := call{verb: isGet, method: http.MethodGet, key: key, header: make(http.Header, 8), payload: sigv4.Empty}
	set(c.header, "Range", byteRange)
	set(c.header, "If-Match", ifMatch)
	if o.validates {
		set(c.header, "X-Amz-Checksum-Mode", "ENABLED")
	}
	var out *opened
	err := o.do(ctx, &c, func(resp *http.Response) error {
		out = &opened{
			body: resp.Body, length: resp.ContentLength, contentRange: resp.Header.Get("Content-Range"),
			etag: resp.Header.Get("Etag"), info: infoOfAnswer(resp),
		}
		if o.validates {
			out.body = validated(resp)
		}
		return nil
	})
	return out, err
}

// set sets a header, or leaves it out if it is empty. The name is canonical.
func set(h http.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

// seal sets the checksum of a body, and what is signed of it: over TLS nothing, else its
// hash, which S3 demands then.
func (o *own) seal(c *call) (crc string) {
	if o.checksums {
		var sum [crc32.Size]byte
		binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE(c.body))
		crc = base64.StdEncoding.EncodeToString(sum[:])
		set(c.header, "X-Amz-Checksum-Crc32", crc)
	}
	c.payload = sigv4.Unsigned
	if o.scheme != "https" || !o.checksums {
		c.payload = sigv4.Hash(c.body)
	}
	return crc
}

func (o *own) put(ctx context.Context, key string, data []byte, attrs object.Attrs) error {
	c := call{verb: isPut, method: http.MethodPut, key: key, body: data, header: make(http.Header, 8)}
	set(c.header, "Content-Type", attrs.ContentType)
	set(c.header, "Cache-Control", attrs.CacheControl)
	if onlyNew(ctx) {
		set(c.header, "If-None-Match", "*")
	}
	o.seal(&c)
	return o.do(ctx, &c, discard)
}

func (o *own) putPart(ctx context.Context, key, upload string, n int, data []byte) (piece, error) {
	c := call{verb: isPut, method: http.MethodPut, key: key, query: partQuery(upload, n), body: data, header: make(http.Header, 8)}
	o.seal(&c)
	var out piece
	err := o.do(ctx, &c, func(resp *http.Response) error {
		out = piece{etag: resp.Header.Get("Etag"), crc32: resp.Header.Get("X-Amz-Checksum-Crc32")}
		return discard(resp)
	})
	return out, err
}

func partQuery(upload string, n int) string {
	return string(sigv4.AppendEncoded([]byte("partNumber="+strconv.Itoa(n)+"&uploadId="), upload, false))
}

func (o *own) copy(ctx context.Context, key string, c copying) (piece, error) {
	h := make(http.Header, 12)
	set(h, "X-Amz-Copy-Source", c.source)
	set(h, "X-Amz-Copy-Source-If-Match", c.ifMatch)
	opts := &c.opts
	if opts.Replace {
		attrs := complete(opts.Attrs, c.target)
		set(h, "X-Amz-Metadata-Directive", "REPLACE")
		set(h, "Content-Type", attrs.ContentType)
		set(h, "Cache-Control", attrs.CacheControl)
		for name, value := range opts.Metadata {
			h.Set("X-Amz-Meta-"+name, value)
		}
	}
	if opts.Tags != nil {
		set(h, "X-Amz-Tagging-Directive", "REPLACE")
		set(h, "X-Amz-Tagging", tagging(opts.Tags))
	}
	set(h, "X-Amz-Storage-Class", opts.StorageClass)
	set(h, "X-Amz-Server-Side-Encryption", opts.Encryption)
	set(h, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", opts.KMSKey)
	set(h, "X-Amz-Acl", opts.ACL)
	if opts.IfNone {
		set(h, "If-None-Match", "*")
	}
	return o.copied(ctx, &call{verb: isCopy, method: http.MethodPut, key: key, header: h, payload: sigv4.Empty, limit: patience})
}

func (o *own) copyPart(ctx context.Context, key, upload string, n int, c copying) (piece, error) {
	h := make(http.Header, 8)
	set(h, "X-Amz-Copy-Source", c.source)
	set(h, "X-Amz-Copy-Source-If-Match", c.ifMatch)
	set(h, "X-Amz-Copy-Source-Range", c.byteRange)
	return o.copied(ctx, &call{verb: isPartCopy, method: http.MethodPut, key: key, query: partQuery(upload, n), header: h, payload: sigv4.Empty, limit: patience})
}

// copied sends the request for a copy.
func (o *own) copied(ctx context.Context, c *call) (piece, error) {
	var out piece
	err := o.do(ctx, c, func(resp *http.Response) error {
		return document(resp, func(data []byte) (err error) {
			out, err = parseCopied(data)
			return err
		})
	})
	return out, err
}

// complete fills in what attrs leave to the key.
func complete(a object.Attrs, key string) object.Attrs {
	if a.ContentType == "" {
		a.ContentType = object.TypeOf(key)
	}
	return a
}

// tagging writes tags as their header has them.
func tagging(tags map[string]string) string {
	values := make(url.Values, len(tags))
	for name, value := range tags {
		values.Set(name, value)
	}
	return values.Encode()
}

// sourceOf writes the object to copy as its header has it.
func sourceOf(bucket, key string) string {
	return string(sigv4.AppendEncoded([]byte(bucket+"/"), key, true))
}

// validatedBody compares a body with its checksum when it has ended.
type validatedBody struct {
	io.ReadCloser
	sum  checksum
	want string
}

func (v *validatedBody) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.sum.Write(p[:n]) // a hash never fails
	if err == io.EOF {
		if got := base64.StdEncoding.EncodeToString(v.sum.Sum(nil)); got != v.want {
			return n, fmt.Errorf("the checksum of the bytes is wrong: %s %s, not %s", v.sum.name, got, plain(v.want, 100))
		}
	}
	return n, err
}

var errNoETag = errors.New("the answer names no ETag")
