package s3

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	"myrmidon"
	"myrmidon/internal/checksum"
	"myrmidon/object"
)

const (
	// resumptions of a body that breaks off, without resumeProgress bytes between.
	resumptions    = 5
	resumeProgress = 1 << 20
	maxPause       = 5 * time.Second
	// beyond is larger than any object: a longer range is one to the object's end.
	beyond = 1 << 50
)

// Get opens an object, or a range of it. The reader ends with ctx. See [object.Store].
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, object.Info, error) {
	full, err := s.full(key)
	if err != nil {
		return nil, object.Info{}, err
	}
	r, info, err := s.get(ctx, key, full, offset, length)
	if err != nil {
		return nil, object.Info{}, s.fail(ctx, "get", key, "s3:GetObject", err)
	}
	return r, info, nil
}

func (s *Store) get(ctx context.Context, key, full string, offset, length int64) (io.ReadCloser, object.Info, error) {
	if offset < 0 {
		return nil, object.Info{}, outside(offset, -1)
	}
	if length == 0 {
		return s.nothing(ctx, key, full, offset)
	}
	end := int64(-1)
	if length > 0 && length < beyond && offset < beyond {
		end = offset + length
	}
	r := &reader{s: s, ctx: ctx, key: key, full: full, offset: offset}
	out, size, err := r.request(offset, end, "")
	if isOutside(err) {
		return s.nothing(ctx, key, full, offset)
	}
	if err != nil {
		return nil, object.Info{}, err
	}
	r.body, r.etag, r.end = out.body, out.etag, size
	if end >= 0 {
		r.end = min(end, size)
	}
	if out.validate && offset == 0 && r.end == size {
		if name, _ := checksum.Split(out.checksum); name != "" {
			r.sumName, r.sum, r.want = name, checksum.New(name), out.checksum
		}
	}
	out.info.Key, out.info.Size = key, size
	return r, out.info, nil
}

// nothing is a Get of no bytes, which no range of HTTP can say.
func (s *Store) nothing(ctx context.Context, key, full string, offset int64) (io.ReadCloser, object.Info, error) {
	info, err := s.head(ctx, full)
	if err != nil {
		return nil, object.Info{}, err
	}
	info.Key = key
	if offset > info.Size {
		return nil, object.Info{}, outside(offset, info.Size)
	}
	return io.NopCloser(strings.NewReader("")), info, nil
}

// outside is the error of an offset that no byte has; size < 0 is unknown.
func outside(offset, size int64) error {
	if size < 0 {
		return myrmidon.Permanent(fmt.Errorf("%w: offset %d", object.ErrRange, offset))
	}
	return myrmidon.Permanent(fmt.Errorf("%w: offset %d of %d bytes", object.ErrRange, offset, size))
}

// reader is the body of one version of an object. When the connection breaks, it goes
// on with another one.
type reader struct {
	s    *Store
	ctx  context.Context // the caller's: it governs the body as it does the request
	key  string
	full string
	etag string // with its quotes

	offset, end int64 // of the object: the next byte, and the one behind the last
	body        io.ReadCloser
	tries       int   // resumptions since mark
	mark        int64 // offset when tries was 0
	err         error // what Read returns from now on

	// The checksum of all bytes, where it is to be compared; else sum is nil.
	sumName, want string
	sum           hash.Hash
}

// request sends a GET for the bytes from offset up to end, or to the object's last if
// end < 0, and returns the answer and the object's size.
func (r *reader) request(offset, end int64, etag string) (*opened, int64, error) {
	byteRange := ""
	if end >= 0 {
		byteRange = fmt.Sprintf("bytes=%d-%d", offset, end-1)
	} else if offset > 0 {
		byteRange = fmt.Sprintf("bytes=%d-", offset)
	}
	out, err := r.s.hot.get(r.ctx, r.full, byteRange, etag)
	if err != nil {
		return nil, 0, tooLong(err)
	}
	size, err := wholeSize(out, offset, end, byteRange != "")
	if err == nil && etag != "" && out.etag != etag {
		err = errReplaced // by a server that knows no If-Match
	}
	if err != nil {
		return nil, 0, errors.Join(err, out.body.Close())
	}
	return out, size, nil
}

// wholeSize returns the size of the whole object, and an error if the answer is not
// what was asked for.
func wholeSize(out *opened, offset, end int64, ranged bool) (int64, error) {
	got := out.length
	if got < 0 {
		return 0, errors.New("the answer does not say its length")
	}
	if !ranged {
		return got, nil
	}
	said := out.contentRange
	spec, ok := strings.CutPrefix(said, "bytes ")
	first, rest, ok1 := strings.Cut(spec, "-")
	last, total, ok2 := strings.Cut(rest, "/")
	a, err1 := strconv.ParseInt(first, 10, 64)
	b, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	want := size
	if end >= 0 {
		want = min(end, size)
	}
	if !ok || !ok1 || !ok2 || errors.Join(err1, err2, err3) != nil || a != offset || b != want-1 || got != want-offset {
		return 0, fmt.Errorf("the answer to a range from %d has Content-Range %.80q and %d bytes", offset, said, got)
	}
	return size, nil
}

// Read reads on, and over broken connections. Only the last bytes are followed by an
// error of the checksum.
func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.err != nil {
			return 0, r.err
		}
		n, err := r.body.Read(p)
		r.offset += int64(n)
		if r.sum != nil {
			r.sum.Write(p[:n])
		}
		switch {
		case r.offset > r.end:
			r.err = r.failed(errors.New("the server sent more than it announced"))
			return 0, r.err
		case err == nil:
			return n, nil
		case err == io.EOF && r.offset == r.end:
			r.err = r.compare()
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
			fallthrough
		default:
			r.resume(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// compare is the end of the body, or the error of a wrong checksum.
func (r *reader) compare() error {
	if r.sum != nil {
		if got := checksum.Sum(r.sumName, r.sum); got != r.want {
			return r.failed(&checksum.Error{Got: got, Want: r.want})
		}
	}
	return io.EOF
}

// resume opens the rest of the body after the error broken, or sets r.err.
func (r *reader) resume(broken error) {
	if r.offset == r.end || r.etag == "" {
		r.err = r.failed(broken) // a bad checksum, or a version that cannot be named
		return
	}
	if r.offset-r.mark >= resumeProgress {
		r.tries, r.mark = 0, r.offset
	}
	for ; r.tries < resumptions; r.tries++ {
		pause := min(r.s.pause<<r.tries, maxPause)
		select {
		case <-r.ctx.Done():
			r.err = r.failed(ended(r.ctx))
			return
		case <-time.After(pause):
		}
		r.s.log.Debug("s3: resume a body", "object", r.s.String()+"/"+r.key, "offset", r.offset, "after", brief(broken))
		out, _, err := r.request(r.offset, r.end, r.etag)
		if err == nil {
			r.s.counts.resumed.Add(1)
			_ = r.body.Close() // it is broken
			r.body = out.body
			r.tries++
			return
		}
		if status(err) != 0 || errors.Is(err, errReplaced) {
			r.err = r.failed(err)
			return
		}
		broken = err
	}
	r.err = r.failed(fmt.Errorf("the body broke off at byte %d of %d, and after %d attempts again: %w", r.offset, r.end, resumptions, broken))
}

func (r *reader) failed(err error) error {
	return r.s.fail(r.ctx, "read", r.key, "s3:GetObject", err)
}

// Close ends the reader. What is left of the body is not read.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = r.failed(errors.New("read after Close"))
	}
	return r.body.Close()
}
