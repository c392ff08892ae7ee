package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"myrmidon"
	"myrmidon/internal/checksum"
)

var _ Keeper = (*Dir)(nil)

// Keeps refuses all that is not a file's: of what is stored with an object, a folder keeps
// the time. See [Keeper].
func (d *Dir) Keeps(opts PutOptions) error {
	what := ""
	switch {
	case opts.Tags != nil:
		what = "tags"
	case len(opts.Metadata) > 0:
		what = "user metadata"
	case opts.Attrs != Attrs{}, opts.ContentEncoding+opts.ContentDisposition+opts.ContentLanguage+opts.Expires != "":
		what = "content headers"
	case opts.StorageClass != "":
		what = "a storage class"
	case opts.Encryption != "", opts.KMSKey != "":
		what = "encryption"
	case opts.ACL != "":
		what = "an ACL"
	default:
		return nil
	}
	err := fmt.Errorf("object: the folder %s cannot hold %s", d.root, what)
	return myrmidon.Permanent(myrmidon.WithHint(err, "leave that away, or choose a bucket"))
}

// PutWith writes the object's file, with the time and the checksum of opts and on its
// condition; what else opts describe is not kept. Imported.Checksum is that of the bytes that
// were written, CRC32C if opts has none. IfNone needs a file system with hard links. See
// [Keeper].
func (d *Dir) PutWith(ctx context.Context, key string, body io.Reader, size int64, opts PutOptions) (Imported, error) {
	if err := d.check(key); err != nil {
		return Imported{}, err
	}
	if opts.IfNone {
		if _, err := d.Head(ctx, key); err == nil { // said before a large body is read for nothing
			return Imported{}, isThere(d.fail("put", key, fs.ErrExist))
		}
	}
	made := Imported{Checksum: opts.Checksum, Parts: 1, Modified: opts.Modified}
	sum := checksum.New(checksum.Default)
	if name, _ := checksum.Split(opts.Checksum); name != "" {
		body = checksum.Reader(body, opts.Checksum)
	} else {
		made.Checksum = ""
		body = io.TeeReader(body, sum)
	}
	if err := d.put(ctx, key, body, size, opts); err != nil {
		if err = d.fail("put", key, err); opts.IfNone && errors.Is(err, fs.ErrExist) {
			err = isThere(err)
		}
		return Imported{}, err
	}
	if made.Checksum == "" {
		made.Checksum = checksum.Sum(checksum.Default, sum)
	}
	return made, nil
}

// isThere is the error of an object that was not to be replaced.
func isThere(err error) error {
	return myrmidon.Permanent(myrmidon.WithHint(err, "another object has this key, and it was not to be replaced"))
}

// placeNew gives a temporary file the name key besides its own, if nothing has it.
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
