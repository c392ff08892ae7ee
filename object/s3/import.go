package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"myrmidon"
	"myrmidon/object"
)

// source is what two buckets share between which the service copies: where they are, and by
// whose credentials both are reached.
type source struct{ profile, endpoint, role string }

// CanImport reports whether from is a bucket, or a folder of one, at the same endpoint and by
// the same profile. It may be in another region. See [object.Importer].
func (s *Store) CanImport(from object.Store) bool {
	f, ok := from.(*Store)
	return ok && f.source == s.source
}

// Import copies an object of a bucket that [Store.CanImport] reports, by one request, under
// the condition that its ETag is src.ETag. src may be as a listing yields it, whose keys
// [object.CheckKey] may refuse.
//
// An object above 5 GiB is copied in parts, of the size that the source's parts have, so that
// the copy gets the same ETag (unless a key encrypts one of them). Its attributes, metadata
// and tags are read and written again.
//
// It needs s3:GetObject and s3:GetObjectTagging of the source, s3:PutObject and
// s3:PutObjectTagging (s3:PutObjectAcl for an ACL) of the destination. An object that is
// there, with [object.ImportOptions].IfNone, is a permanent error wrapping [fs.ErrExist].
func (s *Store) Import(ctx context.Context, from object.Store, src object.Info, to string, opts object.ImportOptions) (object.Imported, error) {
	f, ok := from.(*Store)
	if !ok || !s.CanImport(from) {
		err := fmt.Errorf("s3: copy %q to %q in %s: its store is not reached by the same profile and endpoint", src.Key, to, s)
		return object.Imported{}, myrmidon.Permanent(err)
	}
	source, err := f.anyFull(src.Key)
	if err != nil {
		return object.Imported{}, err
	}
	target, err := s.anyFull(to)
	if err != nil {
		return object.Imported{}, err
	}
	if ctx.Err() == nil {
		var made object.Imported
		if made, err = s.importAs(ctx, f, source, src, target, to, opts); err == nil {
			return made, nil
		}
	}
	return object.Imported{}, s.importFailed(ctx, f, src, target, to, opts, err)
}

// importAs copies by one request, or in parts.
func (s *Store) importAs(ctx context.Context, f *Store, source string, src object.Info, target, to string, opts object.ImportOptions) (object.Imported, error) {
	if src.Size <= s.copyMost {
		c := copying{source: sourceOf(f.name, source), ifMatch: quoted(src.ETag), target: to, opts: opts}
		got, err := s.hot.copy(ctx, target, c)
		if err == nil {
			return object.Imported{ETag: strings.Trim(got.etag, `"`), Checksum: got.checksum, Parts: 1, Modified: got.modified}, nil
		}
		if isMarker(err) && src.Size == 0 {
			return s.putMarker(ctx, f, source, src.ETag, target, to, opts)
		}
		if !tooLargeToCopy(err) {
			return object.Imported{}, err
		}
	}
	return s.copyParts(ctx, f, source, src.ETag, target, to, opts)
}

// importFailed explains the error of a copy.
func (s *Store) importFailed(ctx context.Context, f *Store, src object.Info, target, to string, opts object.ImportOptions, err error) error {
	what := fmt.Sprintf("copy %q of %s to %q in %s", src.Key, f, to, s)
	if ctx.Err() == nil && opts.IfNone && isUnmet(err) && (src.ETag == "" || s.isTaken(ctx, target, err)) {
		err = myrmidon.Permanent(fmt.Errorf("%w: %s", fs.ErrExist, brief(err)))
	}
	return s.failed(ctx, what, "s3:GetObject, s3:GetObjectTagging of the source, s3:PutObject and s3:PutObjectTagging", err)
}

// isUnmet reports whether a condition was not met.
func isUnmet(err error) bool {
	return status(err) == http.StatusPreconditionFailed || code(err) == "PreconditionFailed"
}

// isTaken reports which of two conditions was not met: that there is no object yet, or that
// the source is what it was. S3 says which; of another server the object is asked for.
func (s *Store) isTaken(ctx context.Context, target string, err error) bool {
	var own *refusal
	if errors.As(err, &own) && own.condition != "" {
		return strings.EqualFold(own.condition, "If-None-Match")
	}
	_, herr := s.head(ctx, target)
	return herr == nil
}

// quoted returns an ETag as conditions have it; "" stays "".
func quoted(etag string) string {
	if etag == "" {
		return ""
	}
	return `"` + etag + `"`
}

// copyParts makes the bucket's object target of f's object source, by ranges, if its ETag is
// etag or that is "".
func (s *Store) copyParts(ctx context.Context, f *Store, source, etag, target, to string, opts object.ImportOptions) (made object.Imported, err error) {
	head, size, part, err := s.inspect(ctx, f, source, etag)
	if err != nil {
		return made, err
	}
	in, err := s.created(ctx, f, source, target, to, head, opts)
	if err != nil {
		return made, err
	}
	created, err := s.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return made, err
	}
	u := s.upload(ctx, target, aws.ToString(created.UploadId))
	complete := false
	defer func() {
		if !complete {
			err = u.giveUp(ctx, err)
		}
	}()
	c := copying{source: sourceOf(f.name, source), ifMatch: aws.ToString(head.ETag)}
	for n, offset := 1, int64(0); offset < size; n, offset = n+1, offset+part {
		if err := u.slot(); err != nil {
			return made, err
		}
		end := min(offset+part, size)
		u.start(n, func() {}, func(ctx context.Context) (done, error) { return u.copyRange(ctx, n, c, offset, end) })
		made.Parts++
	}
	if err := u.wait(); err != nil {
		return made, err
	}
	got, err := u.completed(ctx, opts.IfNone, "")
	if err != nil {
		return made, err
	}
	complete = true
	made.ETag, made.Checksum = strings.Trim(got.etag, `"`), got.checksum
	// The completion does not say when: it is the time at which the upload was begun.
	if info, err := s.head(ctx, target); err == nil {
		made.Modified = info.Modified
	} else {
		s.log.Debug("s3: the time of a copy is not known", "object", s.String()+"/"+to, "error", brief(err))
	}
	return made, nil
}

// copyRange makes part n of the bytes from offset up to end.
func (u *upload) copyRange(ctx context.Context, n int, c copying, offset, end int64) (done, error) {
	c.byteRange = fmt.Sprintf("bytes=%d-%d", offset, end-1)
	out, err := u.s.hot.copyPart(ctx, u.key, u.id, n, c)
	if err != nil {
		return done{}, err
	}
	return out.done(end - offset), nil
}

// inspect describes the object to copy in parts, and returns its size and that of its parts.
func (s *Store) inspect(ctx context.Context, f *Store, source, etag string) (head *sdk.HeadObjectOutput, size, part int64, err error) {
	ctx = object.FromAccount(ctx)
	in := &sdk.HeadObjectInput{Bucket: &f.name, Key: &source}
	parts := partsOf(etag)
	if parts > 1 {
		in.PartNumber = aws.Int32(1) // whose length is that of all but the last
	}
	head, err = f.client.HeadObject(ctx, in)
	if parts > 1 && err != nil && status(err) != http.StatusNotFound { // not every server knows it
		in.PartNumber = nil
		head, err = f.client.HeadObject(ctx, in)
	}
	if err != nil {
		return nil, 0, 0, err
	}
	if etag != "" && bareETag(head.ETag) != etag {
		return nil, 0, 0, errReplaced
	}
	size = aws.ToInt64(head.ContentLength)
	first := int64(0)
	if _, total, ok := strings.Cut(aws.ToString(head.ContentRange), "/"); ok && in.PartNumber != nil {
		first = size
		if size, err = strconv.ParseInt(total, 10, 64); err != nil {
			return nil, 0, 0, fmt.Errorf("the answer has Content-Range %.80q", aws.ToString(head.ContentRange))
		}
	}
	return head, size, s.sizeOfCopied(size, partsOf(bareETag(head.ETag)), first), nil
}

// partsOf returns how many parts an ETag says that its object was stored in, 0 if it says
// nothing ("…-3").
func partsOf(etag string) int {
	_, n, ok := strings.Cut(etag, "-")
	parts, err := strconv.Atoi(n)
	if !ok || err != nil || parts < 1 || parts > maxParts {
		return 0
	}
	return parts
}

// usual are the sizes of parts, MiB, that tools cut objects into, the commonest first.
var usual = [...]int64{8, 16, 5, 64, 10, 32, 128, 100, 50, 256, 512, 1024}

// sizeOfCopied returns the size of the parts of a copy. An object of n parts, the first of
// which has first bytes if that is not 0, is cut as it was, for the same ETag.
func (s *Store) sizeOfCopied(size int64, n int, first int64) int64 {
	const step = 1 << 20
	fits := func(part int64) bool {
		return part > 0 && part <= maxPart && (part >= minPart || n == 1) && (size+part-1)/part == int64(n)
	}
	if n > 0 {
		if fits(first) {
			return first
		}
		for _, m := range usual {
			if fits(m * step) {
				return m * step
			}
		}
		least := (size + int64(n) - 1) / int64(n)
		if part := (least + step - 1) / step * step; fits(part) {
			return part
		}
		if fits(least) {
			return least
		}
	}
	return max(s.copyPart, (size+maxParts-1)/maxParts)
}

// created is the upload that becomes the copy, with what a single request would have copied.
func (s *Store) created(ctx context.Context, f *Store, source, target, to string, head *sdk.HeadObjectOutput, opts object.ImportOptions) (*sdk.CreateMultipartUploadInput, error) {
	in := &sdk.CreateMultipartUploadInput{
		Bucket:               &s.name,
		Key:                  &target,
		StorageClass:         types.StorageClass(opts.StorageClass),
		ServerSideEncryption: types.ServerSideEncryption(opts.Encryption),
		SSEKMSKeyId:          optional(opts.KMSKey),
		ACL:                  types.ObjectCannedACL(opts.ACL),
	}
	if opts.Replace {
		attrs := complete(opts.Attrs, to)
		in.ContentType, in.CacheControl, in.Metadata = &attrs.ContentType, optional(attrs.CacheControl), opts.Metadata
	} else {
		in.ContentType, in.CacheControl, in.Metadata = head.ContentType, head.CacheControl, head.Metadata
		in.ContentDisposition, in.ContentEncoding, in.ContentLanguage = head.ContentDisposition, head.ContentEncoding, head.ContentLanguage
		if at, err := http.ParseTime(aws.ToString(head.ExpiresString)); err == nil {
			in.Expires = &at
		}
	}
	tags := opts.Tags
	if tags == nil && aws.ToInt32(head.TagCount) > 0 {
		var err error
		if tags, err = f.tags(object.FromAccount(ctx), source); err != nil {
			return nil, err
		}
	}
	in.Tagging = optional(tagging(tags))
	return in, nil
}

var _ object.Importer = (*Store)(nil)
