package s3

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"myrmidon/internal/checksum"
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

func (o *own) checksum(ctx context.Context, key string) (info object.Info, sum string, err error) {
	c := call{verb: isHead, method: http.MethodHead, key: key, header: make(http.Header, 4), payload: sigv4.Empty}
	set(c.header, "X-Amz-Checksum-Mode", "ENABLED")
	err = o.do(ctx, &c, func(resp *http.Response) error {
		info, sum = infoOfAnswer(resp), checksumIn(resp.Header)
		info.Size = max(resp.ContentLength, 0)
		return discard(resp)
	})
	return info, sum, err
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
			etag: resp.Header.Get("Etag"), info: infoOfAnswer(resp), checksum: checksumIn(resp.Header), validate: o.validates,
		}
		out.describe = func() (object.Description, int) { return descriptionIn(resp.Header, out.info.Attrs) }
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
// hash, which S3 demands then. The checksum is sum, or computed here if that is "".
func (o *own) seal(c *call, sum string) {
	if o.checksums {
		if sum == "" {
			sum = checksum.Of(checksum.CRC32, c.body)
		}
		name, value := checksum.Split(sum)
		set(c.header, checksumHeader(name), value)
	}
	c.payload = sigv4.Unsigned
	if o.scheme != "https" || !o.checksums {
		c.payload = sigv4.Hash(c.body)
	}
}

func (o *own) put(ctx context.Context, key string, data []byte, sum string, opts *object.PutOptions) (piece, error) {
	c := call{verb: isPut, method: http.MethodPut, key: key, body: data, header: make(http.Header, 12)}
	describe(c.header, &opts.Description)
	placement(c.header, opts.StorageClass, opts.Encryption, opts.KMSKey, opts.ACL, opts.IfNone)
	o.seal(&c, sum)
	return o.stored(ctx, &c)
}

func (o *own) putPart(ctx context.Context, key, upload string, n int, data []byte, sum string) (piece, error) {
	c := call{verb: isPut, method: http.MethodPut, key: key, query: partQuery(upload, n), body: data, header: make(http.Header, 8)}
	o.seal(&c, sum)
	return o.stored(ctx, &c)
}

// stored sends a body, and returns what the answer says of it.
func (o *own) stored(ctx context.Context, c *call) (out piece, err error) {
	err = o.do(ctx, c, func(resp *http.Response) error {
		out = piece{etag: resp.Header.Get("Etag"), checksum: checksumIn(resp.Header)}
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
	placement(h, opts.StorageClass, opts.Encryption, opts.KMSKey, opts.ACL, opts.IfNone)
	return o.copied(ctx, &call{verb: isCopy, method: http.MethodPut, key: key, header: h, payload: sigv4.Empty, limit: patience, paced: object.IsPaced(ctx)})
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

var errNoETag = errors.New("the answer names no ETag")
