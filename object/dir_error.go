package object

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"myrmidon"
)

// errNotRegular is the error of reading a folder, a device or a pipe.
var errNotRegular = fmt.Errorf("%w: not a regular file", fs.ErrNotExist)

// errOutside is the error of a key that links lead out of the root.
var errOutside = fmt.Errorf("%w: a link leads out of the folder", fs.ErrPermission)

// errFolder and errFile are the two sides of a key that is both an object and a
// folder.
var (
	errFolder = errors.New("a folder with objects has that name")
	errFile   = errors.New("a part of the key is an object, not a folder")
)

// missing turns the system's other words for "no such object" into fs.ErrNotExist:
// a part of the key is a file, or too long to exist.
func missing(err error) error {
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) {
		return fmt.Errorf("%w (%w)", fs.ErrNotExist, bare(err))
	}
	return err
}

// bare strips the operation and path that package os adds, which repeat what our
// own message says.
func bare(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		// Package os tells of a link out of the root by an error of its own type, the
		// only one here that is not the system's.
		var errno syscall.Errno
		if !errors.As(e.Err, &errno) && !errors.Is(e.Err, fs.ErrClosed) {
			return errOutside
		}
		return bare(e.Err)
	case *os.LinkError:
		return bare(e.Err)
	case *os.SyscallError:
		return bare(e.Err)
	}
	return err
}

// fail wraps an error with what was tried on which key, and marks it.
func (d *Dir) fail(op, key string, err error) error {
	wrapped := fmt.Errorf("object: %s %q in %s: %w", op, key, d.root, bare(err))
	var body *bodyError
	if errors.As(err, &body) {
		return wrapped
	}
	return classify(d.root, wrapped)
}

// classify marks an error of folder as permanent where a retry cannot help, and
// adds what the user can do.
func classify(folder string, err error) error {
	is := func(errno syscall.Errno) bool { return errors.Is(err, errno) }
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case is(syscall.ENOSPC):
		return hint(err, "free some space on the disk of %s, or choose another folder", folder)
	case is(syscall.EDQUOT):
		return hint(err, "your disk quota for %s is used up: free some space, or choose another folder", folder)
	case is(syscall.EFBIG):
		return hint(err, "files in %s may not grow so large: look at `ulimit -f` and the file system's limit", folder)
	case is(syscall.EROFS):
		return hint(fmt.Errorf("%w (%w)", err, fs.ErrPermission),
			"the file system of %s is read-only: choose another folder", folder)
	case errors.Is(err, errOutside):
		return hint(err, "remove the symbolic link in %s, or choose another folder", folder)
	case errors.Is(err, fs.ErrPermission):
		return hint(err, "check the owner and mode of %s and what is in it, or choose another folder", folder)
	case is(syscall.ENAMETOOLONG), is(syscall.EILSEQ):
		return hint(err, "the file system of %s cannot hold this name: choose a shorter or plainer one", folder)
	case errors.Is(err, errFolder), errors.Is(err, errFile):
		return hint(err, `a folder cannot hold both "a" and "a/b": rename one of them, or choose another folder than %s`, folder)
	}
	return err
}

func hint(err error, format, folder string) error {
	return myrmidon.Permanent(myrmidon.WithHint(err, fmt.Sprintf(format, folder)))
}

// notFolder is the error of a root that is a file.
func notFolder(folder string) error {
	err := fmt.Errorf("object: %s is not a folder: %w", folder, syscall.ENOTDIR)
	return hint(err, "remove %s, or choose another folder", folder)
}
