package s3

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"myrmidon/object"
)

// isMarker reports whether a server says that it cannot copy a folder's marker: versitygw,
// which keeps it as a folder, takes one only from a Put.
func isMarker(err error) bool { return code(err) == "DirectoryObjectContainsData" }

// putMarker makes target like an object of no bytes, if its ETag is etag or that is "", by
// requests for what belongs to it and one that stores it.
func (s *Store) putMarker(ctx context.Context, f *Store, source, etag, target, to string, opts object.ImportOptions) (object.Imported, error) {
	head, err := f.client.HeadObject(object.FromAccount(ctx), &sdk.HeadObjectInput{Bucket: &f.name, Key: &source})
	if err != nil {
		return object.Imported{}, err
	}
	if etag != "" && bareETag(head.ETag) != etag || aws.ToInt64(head.ContentLength) != 0 {
		return object.Imported{}, errReplaced
	}
	head.TagCount = aws.Int32(1) // not every server says how many there are
	like, err := s.created(ctx, f, source, target, to, head, opts)
	if code(err) == "NoSuchTagSet" {
		head.TagCount = nil
		like, err = s.created(ctx, f, source, target, to, head, opts)
	}
	if err != nil {
		return object.Imported{}, err
	}
	in := &sdk.PutObjectInput{
		Bucket: like.Bucket, Key: like.Key, Body: strings.NewReader(""),
		ContentType: like.ContentType, CacheControl: like.CacheControl, Metadata: like.Metadata,
		ContentDisposition: like.ContentDisposition, ContentEncoding: like.ContentEncoding, ContentLanguage: like.ContentLanguage,
		Expires: like.Expires, Tagging: like.Tagging, StorageClass: like.StorageClass, ACL: like.ACL,
		ServerSideEncryption: like.ServerSideEncryption, SSEKMSKeyId: like.SSEKMSKeyId,
	}
	if opts.IfNone {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := s.client.PutObject(ctx, in)
	if err != nil {
		return object.Imported{}, err
	}
	return object.Imported{ETag: bareETag(out.ETag), Parts: 1}, nil
}
