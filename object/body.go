package object

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	bufferSize = 128 << 10
	// fileStep is how much of a file the kernel copies between two looks at the
	// context.
	fileStep = 16 << 20
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// bodyError is an error of the body that Put was given. It is kept apart from
// errors of the store: a body that fails with "no space left on device" says
// nothing of our disk.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// copyBody writes body to w and returns how many bytes that were. size < 0 means
// unknown; otherwise a body of another length is a *bodyError, found at the latest
// one buffer behind size.
func copyBody(ctx context.Context, w io.Writer, body io.Reader, size int64) (int64, error) {
	if src, ok := body.(*os.File); ok {
		if dst, ok := w.(*os.File); ok && isRegular(src) {
			return copyFile(ctx, dst, src, size)
		}
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	var n int64
	for idle := 0; ; {
		if err := ctx.Err(); err != nil {
			return n, &bodyError{context.Cause(ctx)}
		}
		m, err := body.Read(buf[:])
		if m < 0 || m > len(buf) {
			return n, &bodyError{fmt.Errorf("the body's Read returned %d of %d bytes", m, len(buf))}
		}
		if n += int64(m); size >= 0 && n > size {
			return n, tooLong(size)
		}
		if _, werr := w.Write(buf[:m]); werr != nil {
			return n, werr
		}
		switch {
		case err == io.EOF:
			return n, checkLength(n, size)
		case err != nil:
			return n, &bodyError{fmt.Errorf("read the body: %w", err)}
		case m > 0:
			idle = 0
		default:
			if idle++; idle == 100 {
				return n, &bodyError{fmt.Errorf("read the body: %w", io.ErrNoProgress)}
			}
		}
	}
}

// copyFile is copyBody between files: the kernel copies (copy_file_range), or only
// notes that both share their blocks where the file system can.
func copyFile(ctx context.Context, dst, src *os.File, size int64) (int64, error) {
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return n, &bodyError{context.Cause(ctx)}
		}
		m, err := io.CopyN(dst, src, fileStep)
		if n += m; size >= 0 && n > size {
			return n, tooLong(size)
		}
		if err == io.EOF {
			return n, checkLength(n, size)
		}
		if err != nil {
			return n, err
		}
	}
}

func isRegular(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

func tooLong(size int64) error {
	return &bodyError{fmt.Errorf("the body is longer than the %d bytes announced", size)}
}

func checkLength(n, size int64) error {
	if size >= 0 && n < size {
		return &bodyError{fmt.Errorf("the body ended after %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)}
	}
	return nil
}
