package s3

import (
	"bytes"
	"context"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"myrmidon/object"
)

// viaSDK leaves the hot requests to the AWS SDK, too.
type viaSDK struct{ b *bucket }

func (v viaSDK) list(ctx context.Context, q listQuery, page []object.Info) (listing, error) {
	in := &sdk.ListObjectsV2Input{
		Bucket:       &v.b.name,
		Prefix:       &q.prefix,
		EncodingType: types.EncodingTypeUrl,
	}
	if q.token != "" {
		in.ContinuationToken = &q.token
	} else {
		in.StartAfter = optional(q.after)
	}
	if q.most > 0 {
		in.MaxKeys = aws.Int32(int32(q.most))
	}
	out, err := v.b.client.ListObjectsV2(ctx, in)
	if err != nil {
		return listing{}, err
	}
	l := listing{next: aws.ToString(out.NextContinuationToken), more: aws.ToBool(out.IsTruncated), count: -1}
	if out.KeyCount != nil {
		l.count = int(*out.KeyCount) - len(out.CommonPrefixes)
	}
	for _, o := range out.Contents {
		key, err := keyOf(o, out.EncodingType)
		if err != nil {
			return listing{}, err
		}
		page = append(page, object.Info{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified).UTC(), ETag: bareETag(o.ETag)})
	}
	l.page = page
	return l, nil
}

// keyOf returns an entry's key. Not every server heeds the encoding that was asked for; the
// answer says whether it did.
func keyOf(o types.Object, encoding types.EncodingType) (string, error) {
	key := aws.ToString(o.Key)
	if encoding != types.EncodingTypeUrl {
		return key, nil
	}
	decoded, err := url.QueryUnescape(key)
	if err != nil {
		return "", badKey(key)
	}
	return decoded, nil
}

func (v viaSDK) head(ctx context.Context, key string) (object.Info, error) {
	out, err := v.b.client.HeadObject(ctx, &sdk.HeadObjectInput{Bucket: &v.b.name, Key: &key})
	if err != nil {
		return object.Info{}, err
	}
	return object.Info{
		Size:     aws.ToInt64(out.ContentLength),
		Modified: aws.ToTime(out.LastModified).UTC(),
		ETag:     bareETag(out.ETag),
		Attrs:    object.Attrs{ContentType: aws.ToString(out.ContentType), CacheControl: aws.ToString(out.CacheControl)},
	}, nil
}

func (v viaSDK) get(ctx context.Context, key, byteRange, ifMatch string) (*opened, error) {
	out, err := v.b.client.GetObject(ctx, &sdk.GetObjectInput{Bucket: &v.b.name, Key: &key, Range: optional(byteRange), IfMatch: optional(ifMatch)})
	if err != nil {
		return nil, err
	}
	o := &opened{body: out.Body, length: -1, contentRange: aws.ToString(out.ContentRange), etag: aws.ToString(out.ETag)}
	if out.ContentLength != nil {
		o.length = *out.ContentLength
	}
	o.info = object.Info{
		Modified: aws.ToTime(out.LastModified).UTC(),
		ETag:     bareETag(out.ETag),
		Attrs:    object.Attrs{ContentType: aws.ToString(out.ContentType), CacheControl: aws.ToString(out.CacheControl)},
	}
	return o, nil
}

func (v viaSDK) put(ctx context.Context, key string, data []byte, attrs object.Attrs) error {
	in := &sdk.PutObjectInput{
		Bucket:        &v.b.name,
		Key:           &key,
		Body:          bytes.NewReader(data),
		ContentLength: aws.Int64(int64(len(data))),
		ContentType:   &attrs.ContentType,
		CacheControl:  optional(attrs.CacheControl),
	}
	if onlyNew(ctx) {
		in.IfNoneMatch = aws.String("*")
	}
	_, err := v.b.client.PutObject(ctx, in)
	return err
}

func (v viaSDK) putPart(ctx context.Context, key, upload string, n int, data []byte) (piece, error) {
	out, err := v.b.client.UploadPart(ctx, &sdk.UploadPartInput{
		Bucket:            &v.b.name,
		Key:               &key,
		UploadId:          &upload,
		PartNumber:        aws.Int32(int32(n)),
		Body:              bytes.NewReader(data),
		ContentLength:     aws.Int64(int64(len(data))),
		ChecksumAlgorithm: v.b.checksum(),
	})
	if err != nil {
		return piece{}, err
	}
	return piece{etag: aws.ToString(out.ETag), crc32: aws.ToString(out.ChecksumCRC32)}, nil
}

func (v viaSDK) copy(ctx context.Context, key string, c copying) (piece, error) {
	opts := &c.opts
	in := &sdk.CopyObjectInput{
		Bucket:               &v.b.name,
		Key:                  &key,
		CopySource:           &c.source,
		CopySourceIfMatch:    optional(c.ifMatch),
		StorageClass:         types.StorageClass(opts.StorageClass),
		ServerSideEncryption: types.ServerSideEncryption(opts.Encryption),
		SSEKMSKeyId:          optional(opts.KMSKey),
		ACL:                  types.ObjectCannedACL(opts.ACL),
	}
	if opts.Replace {
		attrs := complete(opts.Attrs, c.target)
		in.MetadataDirective = types.MetadataDirectiveReplace
		in.ContentType, in.CacheControl, in.Metadata = &attrs.ContentType, optional(attrs.CacheControl), opts.Metadata
	}
	if opts.Tags != nil {
		in.TaggingDirective, in.Tagging = types.TaggingDirectiveReplace, optional(tagging(opts.Tags))
	}
	if opts.IfNone {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := v.b.client.CopyObject(patiently(ctx), in)
	if err != nil {
		return piece{}, err
	}
	if out.CopyObjectResult == nil || aws.ToString(out.CopyObjectResult.ETag) == "" {
		return piece{}, errNoETag
	}
	r := out.CopyObjectResult
	return piece{
		etag:     *r.ETag,
		checksum: checksumOf(aws.ToString(r.ChecksumCRC64NVME), aws.ToString(r.ChecksumCRC32), aws.ToString(r.ChecksumCRC32C), aws.ToString(r.ChecksumSHA256), aws.ToString(r.ChecksumSHA1)),
		modified: aws.ToTime(r.LastModified).UTC(),
	}, nil
}

func (v viaSDK) copyPart(ctx context.Context, key, upload string, n int, c copying) (piece, error) {
	out, err := v.b.client.UploadPartCopy(patiently(ctx), &sdk.UploadPartCopyInput{
		Bucket:            &v.b.name,
		Key:               &key,
		UploadId:          &upload,
		PartNumber:        aws.Int32(int32(n)),
		CopySource:        &c.source,
		CopySourceRange:   optional(c.byteRange),
		CopySourceIfMatch: optional(c.ifMatch),
	})
	if err != nil {
		return piece{}, err
	}
	if out.CopyPartResult == nil || aws.ToString(out.CopyPartResult.ETag) == "" {
		return piece{}, errNoETag
	}
	return piece{etag: *out.CopyPartResult.ETag, crc32: aws.ToString(out.CopyPartResult.ChecksumCRC32)}, nil
}

// optional returns nil for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// bareETag strips the quotes.
func bareETag(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }
