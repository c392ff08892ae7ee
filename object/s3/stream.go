package s3

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"myrmidon"
	"myrmidon/internal/checksum"
	"myrmidon/object"
)

var (
	_ object.Describer   = (*Store)(nil)
	_ object.Keeper      = (*Store)(nil)
	_ object.Checksummer = (*Store)(nil)
)

// Open gets an object with all that the bucket keeps with it, on the condition that its ETag
// is src.ETag. Tags are a second request, which also needs s3:GetObjectTagging, and is sent
// where S3 says that there are any; they are those of the moment. See [object.Describer].
func (s *Store) Open(ctx context.Context, src object.Info, tags bool) (*object.Opened, error) {
	full, err := s.full(src.Key)
	if err != nil {
		return nil, err
	}
	r := &reader{s: s, ctx: ctx, key: src.Key, full: full}
	out, size, err := r.request(0, -1, quoted(src.ETag))
	if err != nil {
		return nil, s.fail(ctx, "get", src.Key, "s3:GetObject", err)
	}
	r.body, r.etag, r.end = out.body, out.etag, size
	o := &object.Opened{Body: r, Info: out.info, Checksum: out.checksum}
	o.Info.Key, o.Info.Size = src.Key, size
	n := 0
	if o.Description, n = out.describe(); tags && n > 0 {
		if o.Tags, err = s.tags(ctx, full); err != nil {
			err = s.fail(ctx, "get the tags of", src.Key, "s3:GetObjectTagging", err)
			return nil, errors.Join(err, r.Close())
		}
	}
	return o, nil
}

// tags returns those of an object of the bucket.
func (s *bucket) tags(ctx context.Context, full string) (map[string]string, error) {
	got, err := s.client.GetObjectTagging(ctx, &sdk.GetObjectTaggingInput{Bucket: &s.name, Key: &full})
	if err != nil {
		return nil, err
	}
	tags := make(map[string]string, len(got.TagSet))
	for _, t := range got.TagSet {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags, nil
}

// Checksum sends a HEAD. See [object.Checksummer].
func (s *Store) Checksum(ctx context.Context, key string) (string, object.Info, error) {
	full, err := s.full(key)
	if err != nil {
		return "", object.Info{}, err
	}
	info, sum, err := s.hot.checksum(ctx, full)
	if err != nil {
		return "", object.Info{}, s.fail(ctx, "head", key, "s3:GetObject", err)
	}
	info.Key = key
	return sum, info, nil
}

// Keeps reports no option: a bucket can do all, or its server says of an object that it
// cannot.
func (s *Store) Keeps(object.PutOptions) error { return nil }

// PutWith is Put with all that a bucket keeps. A checksum is computed while body is read, of
// the kind of opts.Checksum or else CRC32C, and S3 compares it with what arrives: with the
// object where that is one request, else with each part, and where the server can with the
// object as well. Imported.Checksum is what the server has confirmed.
//
// IfNone is If-None-Match: *, which a server that does not know it ignores. An answer that was
// lost makes the second attempt find the object of the first, which is then an error as well.
// See [object.Keeper].
func (s *Store) PutWith(ctx context.Context, key string, body io.Reader, size int64, opts object.PutOptions) (object.Imported, error) {
	full, err := s.full(key)
	if err != nil {
		return object.Imported{}, err
	}
	if err := checkMetadata(opts.Metadata); err != nil {
		return object.Imported{}, fmt.Errorf("s3: put %q in %s: %w", key, s, err)
	}
	opts.Attrs = complete(opts.Attrs, key)
	sum := newSumming(body, opts.Checksum)
	made, err := s.store(ctx, full, putting{sum, size, sum, &opts})
	if err != nil && ctx.Err() == nil && opts.IfNone && isUnmet(err) {
		err = myrmidon.Permanent(fmt.Errorf("%w: %s", fs.ErrExist, brief(err)))
	}
	if err != nil {
		return object.Imported{}, s.fail(ctx, "put", key, "s3:PutObject, for tags s3:PutObjectTagging and for an ACL s3:PutObjectAcl", err)
	}
	return made, nil
}

// checkMetadata refuses what cannot be the header that user metadata travels in, which
// another store may have held.
func checkMetadata(metadata map[string]string) error {
	for name, value := range metadata {
		ok := name != ""
		for _, c := range []byte(name) {
			ok = ok && c > ' ' && c < 0x7f && strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) < 0
		}
		for _, c := range []byte(value) {
			ok = ok && (c >= ' ' || c == '\t') && c != 0x7f
		}
		if !ok {
			return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("the user metadata %.100q cannot be sent", name),
				"names are letters, digits and hyphens, and values one line of text; --metadata replace copies without them"))
		}
	}
	return nil
}

// describe sets the headers that an object is described by.
func describe(h http.Header, d *object.Description) {
	set(h, "Content-Type", d.ContentType)
	set(h, "Cache-Control", d.CacheControl)
	set(h, "Content-Encoding", d.ContentEncoding)
	set(h, "Content-Disposition", d.ContentDisposition)
	set(h, "Content-Language", d.ContentLanguage)
	set(h, "Expires", d.Expires)
	for name, value := range d.Metadata {
		h.Set(metaPrefix+name, value)
	}
	if len(d.Tags) > 0 {
		set(h, "X-Amz-Tagging", tagging(d.Tags))
	}
}

const metaPrefix = "X-Amz-Meta-"

// descriptionIn is the opposite of describe; tags are only counted.
func descriptionIn(h http.Header, attrs object.Attrs) (d object.Description, tags int) {
	d = object.Description{
		Attrs: attrs, ContentEncoding: h.Get("Content-Encoding"), ContentDisposition: h.Get("Content-Disposition"),
		ContentLanguage: h.Get("Content-Language"), Expires: h.Get("Expires"),
	}
	for name, values := range h {
		if rest, ok := strings.CutPrefix(name, metaPrefix); ok {
			if d.Metadata == nil {
				d.Metadata = make(map[string]string)
			}
			d.Metadata[strings.ToLower(rest)] = strings.Join(values, ",")
		}
	}
	tags, _ = strconv.Atoi(h.Get("X-Amz-Tagging-Count")) // without one there are none
	return d, tags
}

// placement sets the headers that say how an object is stored.
func placement(h http.Header, class, encryption, key, acl string, ifNone bool) {
	set(h, "X-Amz-Storage-Class", class)
	set(h, "X-Amz-Server-Side-Encryption", encryption)
	set(h, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", key)
	set(h, "X-Amz-Acl", acl)
	if ifNone {
		set(h, "If-None-Match", "*")
	}
}

// timeIn reads the time of a header; nil if it is none.
func timeIn(text string) *time.Time {
	if t, err := http.ParseTime(text); err == nil {
		return &t
	}
	return nil
}

// summing computes the checksum of a body while it is read, part by part, and of the whole.
// A nil *summing computes none.
type summing struct {
	r     io.Reader
	name  string // of the checksum
	want  string // what the whole should have; "" if nobody knows
	part  hash.Hash
	n     int64  // bytes read since the last cut
	whole string // of the parts that were cut; "" before the first
}

func newSumming(body io.Reader, want string) *summing {
	s := &summing{r: body, name: checksum.Default}
	switch name, _ := checksum.Split(want); {
	case checksum.Combines(name):
		s.name, s.want = name, want
	case name != "":
		s.r = checksum.Reader(body, want)
	}
	s.part = checksum.New(s.name)
	return s
}

func (s *summing) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if n > 0 && n <= len(p) {
		s.part.Write(p[:n])
		s.n += int64(n)
	}
	return n, err
}

// cut returns the checksum of what was read since it was last called, "" for a nil s.
func (s *summing) cut() string {
	if s == nil {
		return ""
	}
	sum := checksum.Sum(s.name, s.part)
	if s.whole == "" {
		s.whole = sum
	} else {
		s.whole = checksum.Combine(s.whole, sum, s.n)
	}
	s.part.Reset()
	s.n = 0
	return sum
}

// check says whether the whole is what it should be, once the body has ended and was cut.
func (s *summing) check() error {
	if s == nil || s.want == "" || s.whole == s.want {
		return nil
	}
	return &bodyError{&checksum.Error{Got: s.whole, Want: s.want}}
}

// confirmed compares the checksum that was sent with what the server says, and returns it if
// the server has it too.
func confirmed(sent, got string) (string, error) {
	name, _ := checksum.Split(sent)
	other, _ := checksum.Split(got)
	switch {
	case name == "" || name != other:
		return "", nil
	case sent != got:
		return "", fmt.Errorf("the server stored other bytes than it was sent: %w", &checksum.Error{Got: got, Want: sent})
	}
	return sent, nil
}
