package s3

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// abortTime is how long an upload that failed may take to abort.
const abortTime = 30 * time.Second

// upload is a multipart upload under way.
type upload struct {
	s       *Store
	key, id string
	ctx     context.Context // of its parts: it ends with the first that fails
	fail    context.CancelCauseFunc

	slots chan struct{}
	group sync.WaitGroup
	mu    sync.Mutex
	parts []done
	err   error // of the first part that failed
}

// done is a part that the server has.
type done struct {
	part types.CompletedPart
	size int64
}

func (s *Store) upload(ctx context.Context, key, id string) *upload {
	u := &upload{s: s, key: key, id: id, slots: make(chan struct{}, s.parallel)}
	u.ctx, u.fail = context.WithCancelCause(ctx)
	return u
}

// slot waits until another part may be started.
func (u *upload) slot() error {
	select {
	case u.slots <- struct{}{}:
		return u.failure()
	case <-u.ctx.Done():
		return ended(u.ctx)
	}
}

// start sends part n, which has a slot, in the background. release is called when its
// bytes are no longer needed.
func (u *upload) start(n int, release func(), send func(context.Context) (done, error)) {
	u.group.Go(func() {
		defer func() { <-u.slots }()
		defer release()
		d, err := send(u.ctx)
		u.mu.Lock()
		defer u.mu.Unlock()
		if err != nil {
			if u.ctx.Err() == nil { // else it is what ended ctx that went wrong
				u.err = err
				u.fail(err)
			}
			return
		}
		d.part.PartNumber = aws.Int32(int32(n))
		u.parts = append(u.parts, d)
	})
}

// failure returns the error of the first part that failed.
func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// wait waits for all parts.
func (u *upload) wait() error {
	u.group.Wait()
	if u.ctx.Err() != nil && u.failure() == nil {
		return ended(u.ctx)
	}
	return u.failure()
}

// giveUp ends what is under way and aborts the upload, which the end of ctx does not
// keep it from. It returns the error that began it: that of a part comes before that
// of reading on.
func (u *upload) giveUp(ctx context.Context, err error) error {
	u.fail(err)
	u.group.Wait()
	if first := u.failure(); first != nil && ctx.Err() == nil {
		err = first
	}
	if aerr := u.s.abort(ctx, u.key, u.id); aerr != nil {
		u.s.log.Warn("s3: an upload could not be aborted; its parts are billed until a lifecycle rule removes them",
			"bucket", u.s.name, "key", u.key, "upload", u.id, "error", brief(aerr))
	}
	return err
}

// abort removes an upload and its parts. One that is not there is fine.
func (s *bucket) abort(ctx context.Context, key, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
	defer cancel()
	_, err := s.client.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadInput{Bucket: &s.name, Key: &key, UploadId: &id})
	if code(err) == "NoSuchUpload" {
		return nil
	}
	return err
}

// complete makes the object of the parts.
func (u *upload) complete(ctx context.Context) error {
	_, err := u.completed(ctx, onlyNew(ctx))
	return err
}

// completed is complete, where there is no object yet if ifNone is set. It returns what
// the server says of the object.
func (u *upload) completed(ctx context.Context, ifNone bool) (piece, error) {
	defer u.fail(nil)
	slices.SortFunc(u.parts, func(a, b done) int { return int(*a.part.PartNumber - *b.part.PartNumber) })
	parts, size := make([]types.CompletedPart, len(u.parts)), int64(0)
	for i, d := range u.parts {
		parts[i] = d.part
		size += d.size
	}
	in := &sdk.CompleteMultipartUploadInput{
		Bucket:          &u.s.name,
		Key:             &u.key,
		UploadId:        &u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		MpuObjectSize:   &size,
	}
	if ifNone {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := u.s.client.CompleteMultipartUpload(patiently(ctx), in)
	switch {
	case err == nil && aws.ToString(out.ETag) == "":
		// The SDK tells an error document behind a status of 200; this is neither.
		return piece{}, errors.New("the upload was completed by an answer that names no ETag")
	case code(err) == "NoSuchUpload":
		if etag, ok := u.isThere(ctx, parts); ok {
			return piece{etag: etag}, nil // the answer to an earlier attempt was lost
		}
	}
	if err != nil {
		return piece{}, err
	}
	return piece{
		etag:     *out.ETag,
		checksum: checksumOf(aws.ToString(out.ChecksumCRC64NVME), aws.ToString(out.ChecksumCRC32), aws.ToString(out.ChecksumCRC32C), aws.ToString(out.ChecksumSHA256), aws.ToString(out.ChecksumSHA1)),
	}, nil
}

// isThere reports whether the object is the one that these parts make: S3's ETag is
// the MD5 of the parts' MD5s, and their number, unless a KMS key encrypts it.
func (u *upload) isThere(ctx context.Context, parts []types.CompletedPart) (etag string, ok bool) {
	h := md5.New()
	for _, p := range parts {
		sum, err := hex.DecodeString(bareETag(p.ETag))
		if err != nil || len(sum) != md5.Size {
			return "", false
		}
		h.Write(sum)
	}
	out, err := u.s.head(ctx, u.key)
	return out.ETag, err == nil && strings.EqualFold(out.ETag, fmt.Sprintf("%x-%d", h.Sum(nil), len(parts)))
}

// checksum is the algorithm of the checksums of parts, which has to be announced.
func (s *bucket) checksum() types.ChecksumAlgorithm {
	if s.client.Options().RequestChecksumCalculation == aws.RequestChecksumCalculationWhenRequired {
		return ""
	}
	return types.ChecksumAlgorithmCrc32
}
