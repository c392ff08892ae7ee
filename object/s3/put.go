package s3

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"myrmidon"
	"myrmidon/object"
)

// Put sends body as one request if it fits into PartSize, else in parts of which
// Config.Parallel are on their way at once. See [object.Store].
//
// A body of unknown size is read up to PartSize before anything is sent. It may be 5
// TiB long with the default PartSize: from the 1,001st part on, parts grow.
func (s *Store) Put(ctx context.Context, key string, body io.Reader, size int64, attrs object.Attrs) error {
	full, err := s.full(key)
	if err != nil {
		return err
	}
	if attrs.ContentType == "" {
		attrs.ContentType = object.TypeOf(key)
	}
	err = s.put(ctx, full, body, size, attrs)
	if isFolder(err) && !s.inTheWay(ctx, full) {
		err = fmt.Errorf("nothing is in the way, but the server says: %s", brief(err)) // at another time it may not
	}
	if err != nil {
		return s.fail(ctx, "put", key, "s3:PutObject", err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, full string, body io.Reader, size int64, attrs object.Attrs) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	limit, err := s.sizeOfPart(size, 1)
	if err != nil {
		return err
	}
	if size > limit {
		return s.putParts(ctx, full, body, size, attrs, nil)
	}
	if size >= 0 {
		limit = size
	}
	first, err := s.bodies.get(ctx, limit)
	if err != nil {
		return err
	}
	lent := true
	defer func() {
		if lent {
			first.release()
		}
	}()
	over, err := first.fill(ctx, body, limit, size >= 0)
	if err != nil {
		return err
	}
	switch n := int64(len(first.data)); {
	case size < 0 && !over:
		lent = false // putParts releases it
		return s.putParts(ctx, full, body, size, attrs, first)
	case size >= 0 && n < size:
		return tooShort(n, size)
	case size >= 0:
		if err := checkEnd(ctx, body, size); err != nil {
			return err
		}
	}
	return s.putWhole(ctx, full, first.data, attrs)
}

// putWhole sends an object as one request. versitygw says that a folder is in the way
// whatever keeps it from placing the object, also when somebody deletes the folder's
// last object at the same time: then it is sent again.
func (s *Store) putWhole(ctx context.Context, full string, data []byte, attrs object.Attrs) error {
	for try := 1; ; try++ {
		err := s.hot.put(ctx, full, data, attrs)
		if !isFolder(err) || try == resumptions || s.inTheWay(ctx, full) {
			return err
		}
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-time.After(rand.N(s.pause << try)):
		}
	}
}

// inTheWay reports whether an object has the name of a folder of key's, or key the
// name of a folder.
func (s *Store) inTheWay(ctx context.Context, full string) bool {
	out, err := s.hot.list(ctx, listQuery{prefix: full + "/", most: 1}, nil)
	if err != nil || len(out.page) > 0 {
		return true
	}
	for i, c := range full {
		if c != '/' {
			continue
		}
		if _, err := s.head(ctx, full[:i]); !isNoObject(err) {
			return true
		}
	}
	return false
}

// sizeOfPart returns how large part number n (from 1) of an object is. The parts of an
// object of known size are all alike. Those of unknown size grow from the 1,001st on,
// so that streams of some GB need little memory and 10,000 parts of 16 MiB hold 5 TiB.
func (s *Store) sizeOfPart(size int64, n int) (int64, error) {
	part := s.partSize
	if size >= 0 {
		const step = 1 << 20
		least := (size + maxParts - 1) / maxParts
		part = max(part, (least+step-1)/step*step)
	} else if n > 1000 {
		part += part * int64((n-1000)/120)
	}
	if part > maxPart || n > maxParts {
		err := fmt.Errorf("an object of more than %d parts, or parts above 5 GiB, cannot be stored", maxParts)
		return 0, myrmidon.Permanent(myrmidon.WithHint(err, "S3 stores objects of up to 5 TiB: send it in several objects"))
	}
	return part, nil
}

// putParts sends body as a multipart upload. first is its first part if that was read
// already, and is released.
func (s *Store) putParts(ctx context.Context, full string, body io.Reader, size int64, attrs object.Attrs, first *buffer) (err error) {
	created, err := s.client.CreateMultipartUpload(ctx, &sdk.CreateMultipartUploadInput{
		Bucket:            &s.name,
		Key:               &full,
		ContentType:       &attrs.ContentType,
		CacheControl:      optional(attrs.CacheControl),
		ChecksumAlgorithm: s.checksum(),
	})
	if err != nil {
		if first != nil {
			first.release()
		}
		return err
	}
	u := s.upload(ctx, full, aws.ToString(created.UploadId))
	complete := false
	defer func() { // also when body panics
		if !complete {
			err = u.giveUp(ctx, err)
		}
	}()
	if err := u.send(body, size, first); err != nil {
		return err
	}
	if err := u.complete(ctx); err != nil {
		return err
	}
	complete = true
	return nil
}

// send reads body part by part and starts the sending of each.
func (u *upload) send(body io.Reader, size int64, next *buffer) error {
	defer func() {
		if next != nil {
			next.release()
		}
	}()
	total, over := int64(0), false
	for n := 1; !over; n++ {
		if err := u.slot(); err != nil {
			return err
		}
		limit, err := u.s.sizeOfPart(size, n)
		if err != nil {
			return err
		}
		if next == nil {
			if size >= 0 {
				limit = min(limit, size-total)
			}
			if next, err = u.s.bodies.get(u.ctx, limit); err != nil {
				return err
			}
			if over, err = next.fill(u.ctx, body, limit, size >= 0 || n > 1); err != nil {
				return err
			}
		}
		total += int64(len(next.data))
		if size >= 0 && total == size {
			over = true
			if err := checkEnd(u.ctx, body, size); err != nil {
				return err
			}
		}
		if size >= 0 && over && total < size {
			return tooShort(total, size)
		}
		if len(next.data) == 0 {
			break // a body of unknown size ended with the part before
		}
		part := next
		next = nil
		u.start(n, part.release, func(ctx context.Context) (done, error) { return u.putPart(ctx, n, part.data) })
	}
	return u.wait()
}

// putPart sends one part.
func (u *upload) putPart(ctx context.Context, n int, data []byte) (done, error) {
	out, err := u.s.hot.putPart(ctx, u.key, u.id, n, data)
	if err != nil {
		return done{}, err
	}
	return out.done(int64(len(data))), nil
}

// done returns what the completion of an upload says of a part.
func (p piece) done(size int64) done {
	d := done{size: size}
	d.part.ETag, d.part.ChecksumCRC32 = optional(p.etag), optional(p.crc32)
	return d
}

// errReplaced is the error of an object that changed while it was read or copied.
var errReplaced error = replacedError{}

type replacedError struct{}

func (replacedError) Error() string        { return "the object was replaced meanwhile" }
func (replacedError) Is(target error) bool { return target == object.ErrChanged }
