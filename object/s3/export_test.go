package s3

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"myrmidon/object"
)

// OpenFast is New without the pauses between attempts.
func OpenFast(ctx context.Context, cfg Config) (*Store, error) {
	s, err := open(ctx, cfg, func(o *sdk.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = attempts
			o.MaxBackoff = 5 * time.Millisecond
		})
	})
	if err == nil {
		s.pause = time.Millisecond
	}
	return s, err
}

// SetCopyPart makes copies in parts use parts of n bytes.
func (s *Store) SetCopyPart(n int64) { s.copyPart = n }

// SizeOfPart is what Put cuts objects by.
func (s *Store) SizeOfPart(size int64, n int) (int64, error) { return s.sizeOfPart(size, n) }

// AllGivenBack reports whether no Put holds memory.
func (s *Store) AllGivenBack() bool {
	ok := s.bodies.budget.TryAcquire(s.bodies.total)
	if ok {
		s.bodies.budget.Release(s.bodies.total)
	}
	return ok
}

// SetCopyMost makes n bytes what one request copies.
func (s *Store) SetCopyMost(n int64) { s.copyMost = n }

// ClientName returns which client sends the hot requests.
func (s *Store) ClientName() string {
	if _, ok := s.hot.(*own); ok {
		return ownClient
	}
	return sdkClient
}

// Listing is what the XML of a page says, before it is made sense of.
type Listing struct {
	Truncated, Next, Encoding, Count string
	Prefixes                         int
	Entries                          [][4]string // key, time, ETag, size
}

func (r *result) export() Listing {
	l := Listing{string(r.truncated), string(r.next), string(r.encoding), string(r.count), r.prefixes, nil}
	for _, e := range r.entries {
		l.Entries = append(l.Entries, [4]string{string(e.key), string(e.modified), string(e.etag), string(e.size)})
	}
	return l
}

// ScanListing reads a page by the scanner, and reports false if that leaves it to encoding/xml.
func ScanListing(data []byte) (Listing, bool) {
	var r result
	ok := r.scan(data)
	return r.export(), ok
}

// DecodeListing reads a page by encoding/xml.
func DecodeListing(data []byte) (Listing, error) {
	var r result
	err := r.decode(data)
	return r.export(), err
}

// ParseListing reads a page.
func ParseListing(data []byte) ([]object.Info, error) {
	l, err := parseListing(data, nil)
	return l.page, err
}

// SizeOfCopied is what a copy of an object of n parts is cut by.
func (s *Store) SizeOfCopied(size int64, n int, first int64) int64 {
	return s.sizeOfCopied(size, n, first)
}

// Keys says what the credentials come from, and from nowhere else.
func (s *Store) Keys(from aws.CredentialsProvider) { s.keys.Use(from) }

// SetTags gives an object tags.
func (s *Store) SetTags(ctx context.Context, key string, tags map[string]string) error {
	in := &sdk.PutObjectTaggingInput{Bucket: &s.name, Key: aws.String(s.prefix + key), Tagging: &types.Tagging{}}
	for name, value := range tags {
		in.Tagging.TagSet = append(in.Tagging.TagSet, types.Tag{Key: &name, Value: &value})
	}
	_, err := s.client.PutObjectTagging(ctx, in)
	return err
}

// Tags returns an object's tags.
func (s *Store) Tags(ctx context.Context, key string) (map[string]string, error) {
	out, err := s.client.GetObjectTagging(ctx, &sdk.GetObjectTaggingInput{Bucket: &s.name, Key: aws.String(s.prefix + key)})
	if err != nil {
		return nil, err
	}
	tags := make(map[string]string)
	for _, t := range out.TagSet {
		tags[*t.Key] = *t.Value
	}
	return tags, nil
}

// Asked returns the URL that a GET of key would be sent to.
func (s *Store) Asked(ctx context.Context, key string) string {
	if o, ok := s.hot.(*own); ok {
		c := call{method: "GET", key: key}
		return o.request(&c, &sending{x: &exchange{ctx: ctx}}).URL.String()
	}
	signed, err := sdk.NewPresignClient(s.client).PresignGetObject(ctx, &sdk.GetObjectInput{Bucket: &s.name, Key: &key})
	if err != nil {
		return err.Error()
	}
	url, _, _ := strings.Cut(signed.URL, "?")
	return url
}
