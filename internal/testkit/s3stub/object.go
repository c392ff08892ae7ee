package s3stub

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Attributes is what an object has beside its bytes. Its maps are nobody's to change.
type Attributes struct {
	ContentType        string // "" is answered as binary/octet-stream
	CacheControl       string
	ContentDisposition string
	ContentEncoding    string
	ContentLanguage    string
	Expires            string
	Redirect           string            // x-amz-website-redirect-location
	Metadata           map[string]string // lower-case names, without x-amz-meta-
	Tags               map[string]string
	StorageClass       string // "" is STANDARD
	ACL                string // x-amz-acl, as the request had it
	Encryption         string // x-amz-server-side-encryption
	KMSKey             string
}

// Object is an object as the server has it.
type Object struct {
	Attributes
	Key      string
	Size     int64     // bytes
	ETag     string    // without quotes
	Modified time.Time // whole seconds
	Parts    []int64   // their sizes in bytes; nil if it was not made of parts
	Checksum string    // "CRC32:" and so on, and the value in base64; "" if it has none
}

// object is an Object as it is kept: small, since there may be millions, and never
// changed once it is stored.
type object struct {
	key      string
	content  content
	etag     string
	modified int64 // Unix seconds
	attrs    *Attributes
	parts    []int64
	sum      *checksum
}

var noAttributes Attributes

// attributes returns o's attributes, which are not nil and not to be changed.
func (o *object) attributes() *Attributes {
	if o.attrs == nil {
		return &noAttributes
	}
	return o.attrs
}

func (o *object) class() string {
	if o.attrs == nil || o.attrs.StorageClass == "" {
		return "STANDARD"
	}
	return o.attrs.StorageClass
}

func (o *object) public() Object {
	out := Object{
		Attributes: *o.attributes(), Key: o.key, Size: o.content.size(), ETag: o.etag,
		Modified: time.Unix(o.modified, 0).UTC(), Parts: slices.Clone(o.parts),
	}
	out.Metadata, out.Tags = maps.Clone(out.Metadata), maps.Clone(out.Tags)
	if o.sum != nil {
		out.Checksum = o.sum.String()
	}
	return out
}

// AddBucket makes an empty bucket in the server's region.
func (s *Server) AddBucket(name string) error { return s.AddBucketIn(name, s.cfg.Region) }

// AddBucketIn makes an empty bucket in a region. Requests for it that are signed for
// another are told so, as S3 does: 301 PermanentRedirect where the signature is for
// the server's region, else 400 AuthorizationHeaderMalformed, both with
// x-amz-bucket-region.
func (s *Server) AddBucketIn(name, region string) error {
	return s.add(&bucket{name: name, region: region, created: s.cfg.Now().Unix(), uploads: make(map[string]*upload)})
}

func (s *Server) add(b *bucket) error {
	if b.name == "" {
		return errors.New("s3stub: add a bucket: its name is missing")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[b.name] != nil {
		return fmt.Errorf("s3stub: add bucket %s: it is there", b.name)
	}
	s.buckets[b.name] = b
	return nil
}

func (s *Server) known(name string) (*bucket, error) {
	b := s.bucket(name)
	if b == nil {
		return nil, fmt.Errorf("s3stub: bucket %s: there is none; add it first", name)
	}
	return b, nil
}

// PutObject stores an object with data, without a request. o.Size and o.ETag are not
// looked at; o.Modified may be zero for now; o.Parts, if any, must have the sum of
// len(data) and give the object a multipart ETag. The server keeps data and o's maps.
func (s *Server) PutObject(bucket string, o Object, data []byte) error {
	b, err := s.known(bucket)
	if err != nil {
		return err
	}
	attrs := o.Attributes
	n := &object{key: o.Key, content: newRaw(data), modified: s.cfg.Now().Unix(), attrs: &attrs, parts: slices.Clone(o.Parts)}
	if !o.Modified.IsZero() {
		n.modified = o.Modified.Unix()
	}
	n.etag = etagOf(n.content, n.attrs)
	if len(o.Parts) > 0 {
		sum := int64(0)
		for _, p := range o.Parts {
			sum += p
		}
		if sum != int64(len(data)) {
			return fmt.Errorf("s3stub: put %s: the parts have %d bytes, the object %d", o.Key, sum, len(data))
		}
		n.etag = multipartETag(partSums(n.content, o.Parts))
	}
	if e := b.put(n, nil); e != nil {
		return fmt.Errorf("s3stub: put %s: %s", o.Key, e.message)
	}
	return nil
}

// Object returns an object of a bucket, and whether it is there.
func (s *Server) Object(bucket, key string) (Object, bool) {
	if b := s.bucket(bucket); b != nil {
		if o := b.get(key); o != nil {
			return o.public(), true
		}
	}
	return Object{}, false
}

// Data returns the bytes of an object, and whether it is there.
func (s *Server) Data(bucket, key string) ([]byte, bool) {
	if b := s.bucket(bucket); b != nil {
		if o := b.get(key); o != nil {
			return bytesOf(o.content), true
		}
	}
	return nil, false
}

// Keys returns the keys of a bucket's objects in byte order, nil if there is no such
// bucket. A large synthetic bucket is better asked by requests.
func (s *Server) Keys(bucket string) []string {
	b := s.bucket(bucket)
	if b == nil {
		return nil
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []string
	it := newIter(b)
	for it.seek(""); it.valid(); it.next() {
		out = append(out, string(it.key()))
	}
	return out
}

// Len returns the number of objects of a bucket.
func (s *Server) Len(bucket string) int {
	b := s.bucket(bucket)
	if b == nil {
		return 0
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	n := b.keys.n
	if b.syn != nil {
		n += b.syn.present.count(b.syn.n)
	}
	return n
}

// Uploads returns how many multipart uploads of a bucket were begun and neither
// completed nor aborted.
func (s *Server) Uploads(bucket string) int {
	b := s.bucket(bucket)
	if b == nil {
		return 0
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.uploads)
}
