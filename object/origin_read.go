package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"myrmidon"
)

// originReader is the body of one version of an origin's object.
type originReader struct {
	o      *Origin
	ctx    context.Context         // of the Get, whose body it is
	cancel context.CancelCauseFunc // of the present request
	key    string
	info   Info // of the whole object
	header http.Header

	offset, end int64 // the next byte, and the one behind the last; end < 0 is not known
	begun       int64 // the offset of the first
	body        io.ReadCloser
	tries       int // since mark
	mark        int64
	err         error // what Read returns from now on
}

// errNoEnd is the error of a body whose end cannot be told from a broken connection
// (HTTP/1.0 without a length).
var errNoEnd = myrmidon.Permanent(errors.New("the server sends neither a length nor chunks, so that nobody could tell a broken connection from the end"))

// errStalled is the error of a connection that was given up.
var errStalled = errors.New("the connection stood still")

func (o *Origin) open(ctx context.Context, key string, offset, length int64) (*originReader, error) {
	if offset < 0 {
		return nil, checkRange(0, offset)
	}
	r := &originReader{o: o, ctx: ctx, key: key, offset: offset, begun: offset, mark: offset, end: -1}
	end := int64(-1)
	if offset+length < offset {
		length = -1
	}
	if length > 0 {
		end = offset + length
	}
	resp, err := r.request(offset, end)
	if err != nil {
		return nil, err
	}
	r.body, r.header, r.info = resp.Body, resp.Header, infoOfResponse(key, resp)
	if resp.StatusCode == http.StatusPartialContent {
		r.info.Size = totalOf(resp)
	}
	switch size := r.info.Size; {
	case size >= 0:
		r.end = size
		if length >= 0 {
			r.end = min(size, offset+length)
		}
		err = checkRange(size, offset)
	case length >= 0:
		r.end = offset + length
	}
	if err == nil && resp.StatusCode == http.StatusOK {
		err = r.skip(offset)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// request asks for the bytes from offset up to end, or to the last if end < 0: of the version
// that info describes, once there is one. The answer ends with r.cancel.
func (r *originReader) request(offset, end int64) (_ *http.Response, err error) {
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer func() {
		if err != nil {
			cancel(nil)
		}
	}()
	h := make(http.Header)
	if end >= 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, end-1))
	} else if offset > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	if isStrong(r.info.ETag) {
		h.Set("If-Match", `"`+r.info.ETag+`"`)
	} else if !r.info.Modified.IsZero() {
		h.Set("If-Unmodified-Since", r.info.Modified.Format(http.TimeFormat))
	}
	resp, err := r.o.send(ctx, http.MethodGet, r.key, h)
	var a *answered
	if errors.As(err, &a) && a.status == http.StatusRequestedRangeNotSatisfiable {
		// An empty rest, or an offset outside: the whole says which.
		h.Del("Range")
		resp, err = r.o.send(ctx, http.MethodGet, r.key, h)
	}
	if err != nil {
		return nil, err
	}
	first, ok := int64(0), true
	if resp.StatusCode == http.StatusPartialContent {
		first, ok = firstOf(resp)
	}
	switch {
	case !ok || first != offset && resp.StatusCode == http.StatusPartialContent:
		err = fmt.Errorf("the answer to a range from %d has Content-Range %.80q", offset, resp.Header.Get("Content-Range"))
	case resp.ContentLength < 0 && resp.ProtoMajor < 2 && len(resp.TransferEncoding) == 0:
		err = errNoEnd
	}
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	r.cancel = cancel
	return resp, nil
}

// firstOf returns where a part of an object begins.
func firstOf(resp *http.Response) (int64, bool) {
	spec, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	first, _, dash := strings.Cut(spec, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, ok && dash && err == nil && n >= 0
}

// totalOf returns the size of the whole object that an answer is a part of, -1 if it is not
// said.
func totalOf(resp *http.Response) int64 {
	_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
	if n, err := strconv.ParseInt(total, 10, 64); err == nil && n >= 0 {
		return n
	}
	return -1
}

// skip reads over the first n bytes, where a server knows no ranges.
func (r *originReader) skip(n int64) error {
	got, err := io.CopyN(io.Discard, r.body, n)
	if err == io.EOF {
		return checkRange(got, n)
	}
	return err
}

// Read reads on, and over broken connections.
func (r *originReader) Read(p []byte) (int, error) {
	for {
		if r.err != nil {
			return 0, r.err
		}
		if r.end >= 0 && r.offset == r.end {
			r.err = r.finish()
			continue
		}
		if r.end >= 0 && int64(len(p)) > r.end-r.offset {
			p = p[:r.end-r.offset]
		}
		cancel := r.cancel
		stall := time.AfterFunc(r.o.stall, func() { cancel(errStalled) })
		n, err := r.body.Read(p)
		if !stall.Stop() && err != nil {
			err = errStalled
		}
		r.offset += int64(n)
		switch {
		case err == nil:
			return n, nil
		case err == io.EOF && (r.end < 0 || r.offset == r.end || r.info.Size < 0):
			r.end = r.offset
		default:
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			r.resume(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// finish is the end of the body, or what has become of the object meanwhile.
func (r *originReader) finish() error {
	if r.offset-r.begun <= originAgain || r.info.ETag == "" && r.info.Modified.IsZero() {
		return io.EOF
	}
	now, err := r.o.Head(r.ctx, r.key)
	var a *answered
	switch {
	case errors.As(err, &a) && (a.status == http.StatusMethodNotAllowed || a.status == http.StatusNotImplemented):
		return io.EOF
	case err != nil:
		return err
	case !sameVersion(r.info, now):
		return r.failed(fmt.Errorf("%w while it was read", ErrChanged))
	}
	return io.EOF
}

// resume opens the rest of the body after the error broken, or sets r.err.
func (r *originReader) resume(broken error) {
	if r.info.ETag == "" && r.info.Modified.IsZero() {
		r.err = r.failed(fmt.Errorf("the body broke off at byte %d, and the server names no version to go on with: %w", r.offset, broken))
		return
	}
	if r.offset-r.mark >= originAgain {
		r.tries, r.mark = 0, r.offset
	}
	for ; r.tries < originTries; r.tries++ {
		if err := sleep(r.ctx, min(r.o.pause<<r.tries, 5*time.Second)); err != nil {
			r.err = r.failed(err)
			return
		}
		end := int64(-1)
		if r.end >= 0 && r.end != r.info.Size {
			end = r.end
		}
		old := r.cancel
		resp, err := r.request(r.offset, end)
		if err == nil {
			old(nil)
			if now := infoOfResponse(r.key, resp); now.ETag != r.info.ETag || !now.Modified.Equal(r.info.Modified) {
				r.err = r.failed(errors.Join(fmt.Errorf("%w while it was read", ErrChanged), resp.Body.Close()))
				return
			}
			_ = r.body.Close() // it is broken
			r.body = resp.Body
			if resp.StatusCode == http.StatusOK {
				err = r.skip(r.offset)
			}
			if err == nil {
				r.tries++
				return
			}
		}
		var a *answered
		if errors.As(err, &a) {
			r.err = r.failed(err)
			return
		}
		broken = err
	}
	r.err = r.failed(fmt.Errorf("the body broke off at byte %d, and after %d attempts again: %w", r.offset, originTries, broken))
}

func (r *originReader) failed(err error) error { return r.o.fail(r.ctx, "read", r.key, err) }

// Close ends the reader. What is left of the body is not read.
func (r *originReader) Close() error {
	if r.err == nil {
		r.err = errors.New("object: read after Close")
	}
	err := r.body.Close()
	r.cancel(nil)
	return err
}
