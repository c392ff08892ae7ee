package s3

import (
	"context"
	"fmt"
	"io"
	"math/bits"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	firstBuffer = 64 << 10 // what a body of unknown size begins with
	classes     = 11       // pooled buffers are of 64 KiB << class: up to 64 MiB
)

// bodyError is an error of the body that Put was given, which says nothing of S3.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// buffers lends memory to Puts, up to a total, and uses it again.
type buffers struct {
	total  int64
	budget *semaphore.Weighted
	pools  [classes]sync.Pool // of *[]byte
}

func newBuffers(total int64) *buffers {
	return &buffers{total: total, budget: semaphore.NewWeighted(total)}
}

// buffer holds the bytes of one request's body. It is not for concurrent use.
type buffer struct {
	data   []byte
	memory *[]byte // what data lies in
	weight int64
	from   *buffers
}

// get waits until there is room for n bytes, and returns an empty buffer for them.
func (b *buffers) get(ctx context.Context, n int64) (*buffer, error) {
	weight := min(roundUp(n), b.total)
	if err := b.budget.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return &buffer{weight: weight, from: b}, nil
}

// release gives the memory back. Nobody may read data any more.
func (f *buffer) release() {
	f.put()
	f.from.budget.Release(f.weight)
}

func (f *buffer) put() {
	if f.memory == nil {
		return
	}
	if c := class(int64(cap(*f.memory))); c < classes {
		f.from.pools[c].Put(f.memory)
	}
	f.memory, f.data = nil, nil
}

// class is the smallest class of buffers that holds n bytes.
func class(n int64) int { return bits.Len64(uint64(max(n, 1)-1) >> 16) }

// roundUp returns the memory that a buffer of n bytes takes.
func roundUp(n int64) int64 {
	if c := class(n); c < classes {
		return firstBuffer << c
	}
	return n
}

// grow gives the buffer room for n bytes and keeps its data.
func (f *buffer) grow(n int64) {
	n = roundUp(n)
	var memory *[]byte
	if c := class(n); c < classes {
		memory, _ = f.from.pools[c].Get().(*[]byte)
	}
	if memory == nil {
		m := make([]byte, n)
		memory = &m
	}
	kept := copy(*memory, f.data)
	f.put()
	f.memory, f.data = memory, (*memory)[:kept]
}

// fill reads body until the buffer holds limit bytes or body ends, and reports whether
// it ended. Memory for a known limit is taken at once, else it doubles with the body.
func (f *buffer) fill(ctx context.Context, body io.Reader, limit int64, known bool) (ended bool, err error) {
	switch {
	case limit == 0:
	case known:
		f.grow(limit)
	default:
		f.grow(min(limit, firstBuffer))
	}
	for idle := 0; int64(len(f.data)) < limit; {
		if len(f.data) == cap(f.data) {
			f.grow(min(limit, 2*int64(cap(f.data))))
		}
		room := f.data[len(f.data):min(int64(cap(f.data)), limit)]
		n, err := read(ctx, body, room)
		f.data = f.data[:len(f.data)+n]
		switch {
		case err == io.EOF:
			return true, nil
		case err != nil:
			return false, err
		case n > 0:
			idle = 0
		default:
			if idle++; idle == 100 {
				return false, noProgress()
			}
		}
	}
	return false, nil
}

// read is one Read of a body which may be anything. Its errors are io.EOF and
// *bodyError.
func read(ctx context.Context, body io.Reader, p []byte) (int, error) {
	if ctx.Err() != nil {
		return 0, &bodyError{ended(ctx)}
	}
	n, err := body.Read(p)
	if n < 0 || n > len(p) {
		return 0, &bodyError{fmt.Errorf("the body's Read returned %d of %d bytes", n, len(p))}
	}
	if err != nil && err != io.EOF {
		err = &bodyError{fmt.Errorf("read the body: %w", err)}
	}
	return n, err
}

// checkEnd says whether a body has ended where its announced size does.
func checkEnd(ctx context.Context, body io.Reader, size int64) error {
	var one [1]byte
	for range 100 {
		n, err := read(ctx, body, one[:])
		if n > 0 {
			return &bodyError{fmt.Errorf("the body is longer than the %d bytes announced", size)}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return noProgress()
}

func noProgress() error { return &bodyError{fmt.Errorf("read the body: %w", io.ErrNoProgress)} }

// tooShort is the error of a body that ends after n of size bytes.
func tooShort(n, size int64) error {
	return &bodyError{fmt.Errorf("the body ended after %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)}
}

// ended is the error of a context that has ended, with the cause if there is another.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
