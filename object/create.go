package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"myrmidon"
)

// Creator is a Store that can store an object only where there is none.
type Creator interface {
	// PutNew is Put, but leaves an object that is there alone: the error then wraps
	// [io/fs.ErrExist], and is permanent. Of several at once for one key, one succeeds. It
	// may return before body is read.
	PutNew(ctx context.Context, key string, body io.Reader, size int64, attrs Attrs) error
}

var (
	_ Creator = (*Mem)(nil)
	_ Creator = (*Dir)(nil)
)

type onlyNewKey struct{}

// onlyNew reports whether a Put may replace nothing.
func onlyNew(ctx context.Context) bool { return ctx.Value(onlyNewKey{}) != nil }

func withOnlyNew(ctx context.Context) context.Context {
	return context.WithValue(ctx, onlyNewKey{}, true)
}

// PutNew implements [Creator].
func (m *Mem) PutNew(ctx context.Context, key string, body io.Reader, size int64, attrs Attrs) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	var buf bytes.Buffer
	if _, err := copyBody(ctx, &buf, body, size); err != nil {
		return fmt.Errorf("object: put %q: %w", key, err)
	}
	if !m.store(key, buf.Bytes(), attrs, true) {
		return isThere(fmt.Errorf("object: put %q: %w", key, fs.ErrExist))
	}
	return nil
}

// PutNew implements [Creator]. It needs a file system with hard links.
func (d *Dir) PutNew(ctx context.Context, key string, body io.Reader, size int64, attrs Attrs) error {
	if _, err := d.Head(ctx, key); err == nil { // said before a large body is read for nothing
		return isThere(d.fail("put", key, fs.ErrExist))
	}
	err := d.Put(withOnlyNew(ctx), key, body, size, attrs)
	if errors.Is(err, fs.ErrExist) {
		return isThere(err)
	}
	return err
}

func isThere(err error) error {
	return myrmidon.Permanent(myrmidon.WithHint(err, "another object has this key, and it was not to be replaced"))
}

// placeNew gives a temporary file its key, where there is no file. The temporary name is
// left for its caller to remove.
func placeNew(root *os.Root, name, key string) error {
	for range attempts {
		err := root.Link(name, key)
		switch {
		case errors.Is(err, fs.ErrExist) && isFolder(root, key):
			// An empty folder holds no object.
			err = unlink(root, key, unix.AT_REMOVEDIR)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return errFolder
			}
			continue
		case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EPERM):
			return myrmidon.WithHint(fmt.Errorf("this file system has no hard links: %w", err), "without them nothing can be stored on the condition that it is new")
		}
		return err
	}
	return errFolder
}
