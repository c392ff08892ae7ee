package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"myrmidon/object"
)

// Copy copies inside of S3: with one request, or in parts where the object is larger
// than S3 copies at once (5 GiB). It is of one version of from. See [object.Copier].
func (s *Store) Copy(ctx context.Context, from, to string) error {
	source, err := s.full(from)
	if err != nil {
		return err
	}
	target, err := s.full(to)
	if err != nil {
		return err
	}
	if source == target { // which S3 refuses
		_, err = s.head(ctx, source)
	} else {
		err = s.copy(ctx, source, target)
	}
	if err != nil {
		return s.fail(ctx, fmt.Sprintf("copy %q to", from), to, "s3:GetObject and s3:PutObject", err)
	}
	return nil
}

func (s *Store) copy(ctx context.Context, source, target string) error {
	out, err := s.client.CopyObject(patiently(ctx), &sdk.CopyObjectInput{
		Bucket:     &s.name,
		Key:        &target,
		CopySource: s.source(source),
	})
	if tooLargeToCopy(err) {
		return s.copyParts(ctx, source, target)
	}
	if err == nil && (out.CopyObjectResult == nil || aws.ToString(out.CopyObjectResult.ETag) == "") {
		return errors.New("the answer names no ETag")
	}
	return err
}

// source is how a request names the object to copy.
func (s *Store) source(key string) *string {
	// PathEscape leaves "+" alone, which some servers read as a space.
	escaped := strings.ReplaceAll(url.PathEscape(key), "+", "%2B")
	return aws.String(s.name + "/" + strings.ReplaceAll(escaped, "%2F", "/"))
}

// tooLargeToCopy reports whether S3 asks for a copy in parts. It is tried first and
// asked then: hardly any object is above 5 GiB, and a HEAD for each is billed.
func tooLargeToCopy(err error) bool {
	switch code(err) {
	case "EntityTooLarge":
		return true
	case "InvalidRequest", "InvalidArgument":
		return strings.Contains(err.Error(), "larger than the maximum")
	}
	return false
}

// copyParts copies a large object by ranges.
func (s *Store) copyParts(ctx context.Context, source, target string) (err error) {
	head, err := s.head(ctx, source)
	if err != nil {
		return err
	}
	created, err := s.client.CreateMultipartUpload(ctx, &sdk.CreateMultipartUploadInput{
		Bucket:             &s.name,
		Key:                &target,
		ContentType:        head.ContentType,
		CacheControl:       head.CacheControl,
		ContentDisposition: head.ContentDisposition,
		ContentEncoding:    head.ContentEncoding,
		ContentLanguage:    head.ContentLanguage,
		Metadata:           head.Metadata,
	})
	if err != nil {
		return err
	}
	u := s.upload(ctx, target, aws.ToString(created.UploadId))
	complete := false
	defer func() {
		if !complete {
			err = u.giveUp(ctx, err)
		}
	}()
	size := aws.ToInt64(head.ContentLength)
	part := max(s.copyPart, (size+maxParts-1)/maxParts)
	for n, offset := 1, int64(0); offset < size; n, offset = n+1, offset+part {
		if err := u.slot(); err != nil {
			return err
		}
		end := min(offset+part, size)
		u.start(n, func() {}, func(ctx context.Context) (done, error) { return u.copyRange(ctx, n, source, head.ETag, offset, end) })
	}
	if err := u.wait(); err != nil {
		return err
	}
	if err := u.complete(ctx); err != nil {
		return err
	}
	complete = true
	return nil
}

// copyRange makes part n of the bytes from offset up to end, if the source is still
// the version etag.
func (u *upload) copyRange(ctx context.Context, n int, source string, etag *string, offset, end int64) (done, error) {
	out, err := u.s.client.UploadPartCopy(patiently(ctx), &sdk.UploadPartCopyInput{
		Bucket:            &u.s.name,
		Key:               &u.key,
		UploadId:          &u.id,
		PartNumber:        aws.Int32(int32(n)),
		CopySource:        u.s.source(source),
		CopySourceRange:   aws.String(fmt.Sprintf("bytes=%d-%d", offset, end-1)),
		CopySourceIfMatch: etag,
	})
	if err != nil {
		return done{}, err
	}
	if out.CopyPartResult == nil || aws.ToString(out.CopyPartResult.ETag) == "" {
		return done{}, errors.New("the answer names no ETag")
	}
	d := done{size: end - offset}
	d.part.ETag, d.part.ChecksumCRC32 = out.CopyPartResult.ETag, out.CopyPartResult.ChecksumCRC32
	return d, nil
}

var _ object.Copier = (*Store)(nil)
