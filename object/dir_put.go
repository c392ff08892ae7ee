package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"myrmidon/internal/filelock"
)

const (
	tempPrefix = ".myrmidon-"
	tempSuffix = ".part"
	// attempts bounds the loops below that start over when somebody else removes an
	// empty folder, or a file, in between.
	attempts = 1000
)

// isTemp reports whether a file of this name is a Put under way, or left by a
// killed one.
func isTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix)
}

// Put writes the object's file. See [Store]; attrs are not kept. If body is an
// *os.File, the kernel does the copying.
func (d *Dir) Put(ctx context.Context, key string, body io.Reader, size int64, _ Attrs) error {
	if err := d.check(key); err != nil {
		return err
	}
	if err := d.put(ctx, key, body, size, PutOptions{}); err != nil {
		return d.fail("put", key, err)
	}
	return nil
}

// Copy makes to a file with the bytes of from. On Linux file systems that can (btrfs,
// XFS) both then share their blocks.
func (d *Dir) Copy(ctx context.Context, from, to string) error {
	if err := errors.Join(d.check(from), d.check(to)); err != nil {
		return err
	}
	src, info, err := d.openFile(ctx, from)
	if err != nil {
		return d.fail("copy", from, err)
	}
	if err := closing(src, d.put(ctx, to, src, info.Size, PutOptions{})); err != nil {
		return d.fail(fmt.Sprintf("copy %q to", from), to, err)
	}
	return nil
}

// put writes body under a temporary name and renames it. Of opts it does what a file can.
func (d *Dir) put(ctx context.Context, key string, body io.Reader, size int64, opts PutOptions) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := d.open()
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(d.root, 0o777); err != nil {
			return err
		}
		root, err = d.open()
	}
	if err != nil {
		return err
	}
	defer func() { err = closing(root, err) }()
	if stat, err := root.Lstat(key); err == nil && stat.IsDir() && !isEmpty(root, key) {
		return errFolder // said before a large body is written for nothing
	}

	f, name, made, err := createTemp(ctx, root, path.Dir(key))
	if err != nil {
		return err
	}
	placed := false
	defer func() {
		if placed {
			return
		}
		// Also when body panics. The file is ours alone, so closing it twice is the
		// one error that may come, and no news.
		_ = f.Close()
		if rerr := root.Remove(name); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove the temporary file: %w", rerr))
		}
		if made {
			prune(root, path.Dir(key))
		}
	}()
	if _, err := copyBody(ctx, f, body, size); err != nil {
		return err
	}
	if d.Sync {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	// Close comes before the rename: NFS reports a full disk only here.
	if err := f.Close(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !opts.Modified.IsZero() {
		if err := root.Chtimes(name, time.Time{}, opts.Modified); err != nil {
			return err
		}
	}
	if opts.IfNone {
		err = placeNew(root, name, key) // the temporary name goes
	} else {
		err = place(root, name, key)
		placed = err == nil
	}
	if err != nil {
		return err
	}
	if d.Sync {
		return syncFolders(root, path.Dir(key))
	}
	return nil
}

// createTemp makes a temporary file in folder, and folder where it is missing. Once
// the file is there, nobody can remove the folder, so the rename finds it.
func createTemp(ctx context.Context, root *os.Root, folder string) (f *os.File, name string, made bool, err error) {
	for range attempts {
		if err := ctx.Err(); err != nil {
			return nil, "", made, err
		}
		name = path.Join(folder, fmt.Sprintf("%s%016x%s", tempPrefix, rand.Uint64(), tempSuffix))
		f, err = root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_CLOEXEC, 0o666)
		switch {
		case err == nil:
			var ours bool
			if ours, err = hold(f); ours {
				return f, name, made, nil
			}
			if err = closing(f, err); err != nil {
				return nil, "", made, errors.Join(err, root.Remove(name))
			}
		case errors.Is(err, fs.ErrNotExist):
			// A Delete may remove the empty folder again before the next turn, or
			// a parent in the middle of MkdirAll, or the folder that MkdirAll has
			// found there before it has looked what it is.
			made = true
			err = root.MkdirAll(folder, 0o777)
			vanished := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) && !inTheWay(root, folder)
			if err != nil && !vanished {
				return nil, "", made, noFolder(err)
			}
		case !errors.Is(err, fs.ErrExist):
			return nil, "", made, noFolder(err)
		}
	}
	return nil, "", made, fmt.Errorf("the folder vanished %d times while it was made: %w", attempts, err)
}

// inTheWay reports whether a file, or a link to nowhere, has the name of a folder.
func inTheWay(root *os.Root, name string) bool {
	stat, err := root.Lstat(name)
	return err == nil && !stat.IsDir()
}

// noFolder names the cause where a part of the key is a file.
func noFolder(err error) error {
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist) {
		return errFile
	}
	return err
}

// hold locks a new temporary file for as long as it is open, so that Sweep can tell
// it from one whose process was killed. It reports false if Sweep was faster. File
// systems without locks are fine: there only its age protects the file.
func hold(f *os.File) (bool, error) {
	if err := filelock.Share(f); errors.Is(err, filelock.ErrHeld) {
		return false, nil
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return false, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return stat.Nlink > 0, nil
}

// place renames a temporary file to its key, over an object or an empty folder.
func place(root *os.Root, name, key string) error {
	for range attempts {
		err := root.Rename(name, key)
		if err == nil || !isFolder(root, key) {
			return err
		}
		err = unlink(root, key, unix.AT_REMOVEDIR)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errFolder
		}
	}
	return errFolder
}

// prune removes folder and its parents as long as they are empty. It stops at the
// first that is not, or that cannot be removed, which does no harm.
func prune(root *os.Root, folder string) {
	for ; folder != "."; folder = path.Dir(folder) {
		if unlink(root, folder, unix.AT_REMOVEDIR) != nil {
			return
		}
	}
}

// isEmpty reports whether a folder has no entry.
func isEmpty(root *os.Root, folder string) bool {
	f, err := root.Open(folder)
	if err != nil {
		return false
	}
	_, err = f.Readdirnames(1)
	return closing(f, nil) == nil && err == io.EOF
}

// syncFolders makes the names of folder's entries survive a power cut, and those of
// its parents up to the root, any of which may be new.
func syncFolders(root *os.Root, folder string) error {
	for {
		f, err := root.Open(folder)
		if err != nil {
			return err
		}
		if err := closing(f, f.Sync()); err != nil {
			return err
		}
		if folder == "." {
			return nil
		}
		folder = path.Dir(folder)
	}
}

// Sweep removes what killed processes left in the folders below prefix (up to its
// last "/"): temporary files that no living process of this machine holds and that
// were not written to for the time older. It returns how many it removed.
//
// Where other machines write to the same folder, let older be longer than a Put may
// pause: not all file systems show their locks to other machines. A Put whose file
// is swept fails, and stores nothing.
func (d *Dir) Sweep(ctx context.Context, prefix string, older time.Duration) (int, error) {
	root, err := d.open()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var n int
	if err == nil {
		if folder := folderOf(prefix); folder == "" || CheckKey(folder) == nil {
			n, err = sweep(ctx, root, path.Join(".", folder), time.Now().Add(-older))
		}
		err = closing(root, err)
	}
	if err != nil {
		return n, d.fail("sweep", prefix, err)
	}
	return n, nil
}

// sweep removes the abandoned temporary files in folder and below it that were last
// written before limit.
func sweep(ctx context.Context, root *os.Root, folder string, limit time.Time) (int, error) {
	f, err := root.Open(folder)
	if err != nil {
		if errors.Is(missing(err), fs.ErrNotExist) {
			return 0, nil
		}
		return 0, err
	}
	entries, err := f.ReadDir(-1)
	if err := closing(f, err); err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		name := path.Join(folder, e.Name())
		switch {
		case e.IsDir() && len(name) < MaxKey:
			m, err := sweep(ctx, root, name, limit)
			if n += m; err != nil {
				return n, err
			}
		case e.Type().IsRegular() && isTemp(e.Name()):
			gone, err := sweepFile(root, name, limit)
			if err != nil {
				return n, err
			}
			if gone {
				n++
			}
		}
	}
	return n, nil
}

// sweepFile removes one temporary file if it is abandoned.
func sweepFile(root *os.Root, name string, limit time.Time) (bool, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // its Put has ended
	}
	if err != nil {
		return false, err
	}
	stat, err := f.Stat()
	if err != nil || stat.ModTime().After(limit) {
		return false, closing(f, err)
	}
	if errors.Is(filelock.Take(f), filelock.ErrHeld) {
		return false, closing(f, nil)
	}
	err = unlink(root, name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, closing(f, nil)
	}
	return err == nil, closing(f, err)
}
