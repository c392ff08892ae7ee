package s3

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

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
	p := putting{body: body, size: size, opts: &object.PutOptions{Description: object.Description{Attrs: complete(attrs, key)}}}
	if _, err := s.store(ctx, full, p); err != nil {
		return s.fail(ctx, "put", key, "s3:PutObject", err)
	}
	return nil
}

// putting is what is put.
type putting struct {
	body io.Reader
	size int64    // below 0 if it is not known
	sum  *summing // body, where its checksum is computed while it is read; else nil
	opts *object.PutOptions
}

// store puts an object of the bucket.
func (s *Store) store(ctx context.Context, full string, p putting) (object.Imported, error) {
	made, err := s.put(ctx, full, p)
	if isFolder(err) && !s.inTheWay(ctx, full) {
		err = fmt.Errorf("nothing is in the way, but the server says: %s", brief(err)) // at another time it may not
	}
	return made, err
}

func (s *Store) put(ctx context.Context, full string, p putting) (made object.Imported, err error) {
	if ctx.Err() != nil {
		return made, ended(ctx)
	}
	body, size := p.body, p.size
	limit, err := s.sizeOfPart(size, 1)
	if err != nil {
		return made, err
	}
	if size > limit {
		return s.putParts(ctx, full, p, nil)
	}
	if size >= 0 {
		limit = size
	}
	first, err := s.bodies.get(ctx, limit)
	if err != nil {
		return made, err
	}
	lent := true
	defer func() {
		if lent {
			first.release()
		}
	}()
	over, err := first.fill(ctx, body, limit, size >= 0)
	if err != nil {
		return made, err
	}
	switch n := int64(len(first.data)); {
	case size < 0 && !over:
		lent = false // putParts releases it
		return s.putParts(ctx, full, p, first)
	case size >= 0 && n < size:
		return made, tooShort(n, size)
	case size >= 0:
		if err := checkEnd(ctx, body, size); err != nil {
			return made, err
		}
	}
	sum := p.sum.cut()
	if err := p.sum.check(); err != nil {
		return made, err
	}
	got, err := s.putWhole(ctx, full, first.data, sum, p.opts)
	if err != nil {
		return made, err
	}
	made = object.Imported{ETag: strings.Trim(got.etag, `"`), Parts: 1}
	made.Checksum, err = confirmed(sum, got.checksum)
	return made, err
}

// putWhole sends an object as one request. versitygw says that a folder is in the way
// whatever keeps it from placing the object, also when somebody deletes the folder's
// last object at the same time: then it is sent again.
func (s *Store) putWhole(ctx context.Context, full string, data []byte, sum string, opts *object.PutOptions) (piece, error) {
	for try := 1; ; try++ {
		got, err := s.hot.put(ctx, full, data, sum, opts)
		if !isFolder(err) || try == resumptions || s.inTheWay(ctx, full) {
			return got, err
		}
		select {
		case <-ctx.Done():
			return piece{}, ended(ctx)
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

// putParts sends a body as a multipart upload. first is its first part if that was read
// already, and is released.
func (s *Store) putParts(ctx context.Context, full string, p putting, first *buffer) (made object.Imported, err error) {
	u, err := s.begin(ctx, full, &p)
	if err != nil {
		if first != nil {
			first.release()
		}
		return made, err
	}
	complete := false
	defer func() { // also when body panics
		if !complete {
			err = u.giveUp(ctx, err)
		}
	}()
	if err := u.send(&p, first); err != nil {
		return made, err
	}
	if err := p.sum.check(); err != nil {
		return made, err
	}
	whole := ""
	if u.whole {
		whole = p.sum.whole
	}
	got, err := u.completed(ctx, p.opts.IfNone, whole)
	if err != nil {
		return made, err
	}
	complete = true
	made = object.Imported{ETag: strings.Trim(got.etag, `"`), Checksum: got.checksum, Parts: len(u.parts)}
	if u.whole {
		made.Checksum, err = confirmed(whole, got.checksum)
	}
	return made, err
}

// begin begins a multipart upload. If the body's checksum is computed while it is read, it
// becomes that of each part, and where the server can, of the object; not every server keeps
// one of the whole.
func (s *Store) begin(ctx context.Context, full string, p *putting) (*upload, error) {
	d, usual := &p.opts.Description, s.checksum()
	in := &sdk.CreateMultipartUploadInput{
		Bucket:               &s.name,
		Key:                  &full,
		ContentType:          optional(d.ContentType),
		CacheControl:         optional(d.CacheControl),
		ContentEncoding:      optional(d.ContentEncoding),
		ContentDisposition:   optional(d.ContentDisposition),
		ContentLanguage:      optional(d.ContentLanguage),
		Expires:              timeIn(d.Expires),
		Metadata:             d.Metadata,
		Tagging:              optional(tagging(d.Tags)),
		StorageClass:         types.StorageClass(p.opts.StorageClass),
		ServerSideEncryption: types.ServerSideEncryption(p.opts.Encryption),
		SSEKMSKeyId:          optional(p.opts.KMSKey),
		ACL:                  types.ObjectCannedACL(p.opts.ACL),
		ChecksumAlgorithm:    usual,
	}
	if p.sum != nil && usual != "" && !s.noWhole.Load() {
		in.ChecksumAlgorithm, in.ChecksumType = types.ChecksumAlgorithm(p.sum.name), types.ChecksumTypeFullObject
	}
	out, err := s.client.CreateMultipartUpload(ctx, in)
	if st := status(err); in.ChecksumType != "" && (st == http.StatusBadRequest || st == http.StatusNotImplemented) {
		in.ChecksumAlgorithm, in.ChecksumType = usual, ""
		if out, err = s.client.CreateMultipartUpload(ctx, in); err == nil {
			s.noWhole.Store(true)
		}
	}
	if err != nil {
		return nil, err
	}
	u := s.upload(ctx, full, aws.ToString(out.UploadId))
	u.whole = in.ChecksumType != "" && out.ChecksumType == types.ChecksumTypeFullObject
	u.summed = p.sum != nil && string(in.ChecksumAlgorithm) == p.sum.name
	return u, nil
}

// send reads a body part by part and starts the sending of each.
func (u *upload) send(p *putting, next *buffer) error {
	defer func() {
		if next != nil {
			next.release()
		}
	}()
	body, size := p.body, p.size
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
		part, sum := next, p.sum.cut()
		if !u.summed {
			sum = ""
		}
		next = nil
		u.start(n, part.release, func(ctx context.Context) (done, error) { return u.putPart(ctx, n, part.data, sum) })
	}
	return u.wait()
}

// putPart sends one part.
func (u *upload) putPart(ctx context.Context, n int, data []byte, sum string) (done, error) {
	out, err := u.s.hot.putPart(ctx, u.key, u.id, n, data, sum)
	if err == nil {
		_, err = confirmed(sum, out.checksum)
	}
	if err != nil {
		return done{}, err
	}
	return out.done(int64(len(data))), nil
}

// done returns what the completion of an upload says of a part.
func (p piece) done(size int64) done {
	d := done{size: size}
	d.part.ETag = optional(p.etag)
	sum := sumsOf(p.checksum)
	d.part.ChecksumCRC32, d.part.ChecksumCRC32C, d.part.ChecksumCRC64NVME = sum.crc32, sum.crc32c, sum.crc64nvme
	return d
}

// errReplaced is the error of an object that changed while it was read or copied.
var errReplaced error = replacedError{}

type replacedError struct{}

func (replacedError) Error() string        { return "the object was replaced meanwhile" }
func (replacedError) Is(target error) bool { return target == object.ErrChanged }
