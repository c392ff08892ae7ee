package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"myrmidon"
)

// Dir is a folder as a Store: the object "a/b.m4s" is the file a/b.m4s below the
// root. The zero Dir is not usable; see [NewDir]. It is also a [Copier] and [Local].
//
// A root that does not exist is an empty store; the first Put creates it. Folders
// come with the objects in them and go with the last one: they are no objects, so
// "a" and "a/b" cannot both exist, and Put says so. Attributes are not kept:
// ContentType follows the key's ending.
//
// # Symbolic links
//
// No key leads out of the root, whatever links the tree holds: such a key is denied.
// A link to a file inside is read as that file, and replaced or deleted as a link.
// List does not descend into links to folders.
//
// # What a crash leaves
//
// Put writes to a file named .myrmidon-*.part beside the object and renames it. A
// killed process leaves such a file at worst. Keys with such a part are refused, and
// the files are never listed; [Dir.Sweep] removes them. A power cut may undo what Put
// did in the seconds before, or on some file systems leave an empty object, unless
// Sync is set.
//
// # Limits
//
// A part of a key has at most 255 bytes on most file systems. Where the file system
// folds letter case (macOS by default), keys that differ in case only are one
// object. An ETag could repeat if an object were replaced twice by bodies of one
// length within one tick of the file system's clock (about 4 ms on Linux), or by
// PutWith with the same time.
type Dir struct {
	// Sync makes Put wait until the object would survive a power cut: fsync of the
	// file and of the folders that name it. Set it before the first use.
	Sync bool

	root string // absolute
}

var (
	_ Store  = (*Dir)(nil)
	_ Copier = (*Dir)(nil)
	_ Local  = (*Dir)(nil)
)

// NewDir returns the store of the folder root. It fails if root is something else
// than a folder; that root can be written to is for [Dir.Writable] to say.
func NewDir(root string) (*Dir, error) {
	if root == "" {
		return nil, myrmidon.Permanent(errors.New("object: the folder's name is empty"))
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("object: open folder %s: %w", root, err)
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, classify(abs, fmt.Errorf("object: open folder %s: %w", abs, bare(err)))
	case !info.IsDir():
		return nil, notFolder(abs)
	}
	return &Dir{root: abs}, nil
}

// String returns the folder's absolute path.
func (d *Dir) String() string { return d.root }

// Writable says whether Put could write, by making and removing a file: in the root,
// or where the root would be created. It leaves nothing behind. The error names the
// folder and has a hint.
func (d *Dir) Writable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("object: check folder %s: %w", d.root, err)
	}
	folder := d.root
	for {
		info, err := os.Stat(folder)
		if err == nil && !info.IsDir() {
			return notFolder(folder)
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) || folder == filepath.Dir(folder) {
			break // what else is wrong, the attempt to write says
		}
		folder = filepath.Dir(folder)
	}
	err := tryWrite(folder)
	if err != nil {
		return classify(d.root, fmt.Errorf("object: write to folder %s: %w", d.root, bare(err)))
	}
	return nil
}

// tryWrite makes a file of one byte in folder and removes it.
func tryWrite(folder string) error {
	f, err := os.CreateTemp(folder, tempPrefix+"*"+tempSuffix)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte{0})
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// open opens the root. Each operation opens it anew, so that a Dir holds nothing
// that must be closed and follows when the folder is replaced by another.
func (d *Dir) open() (*os.Root, error) {
	root, err := os.OpenRoot(d.root)
	if err != nil {
		if info, serr := os.Stat(d.root); serr == nil && !info.IsDir() {
			return nil, notFolder(d.root)
		}
	}
	return root, err
}

// closing closes c and returns err, else the error of closing. c was only read, so
// what closing says beside another error has no worth.
func closing(c io.Closer, err error) error {
	if cerr := c.Close(); err == nil {
		return cerr
	}
	return err
}

// Path returns the absolute path of key's file, which need not exist. It is an
// error if links lead the key out of the root.
func (d *Dir) Path(key string) (string, error) {
	if err := d.check(key); err != nil {
		return "", err
	}
	root, err := d.open()
	if err == nil {
		_, err = root.Stat(key)
		err = closing(root, err)
	}
	if err = missing(err); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", d.fail("find", key, err)
	}
	return filepath.Join(d.root, filepath.FromSlash(key)), nil
}

// Get opens the object's file. See [Store].
func (d *Dir) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Info, error) {
	if err := d.check(key); err != nil {
		return nil, Info{}, err
	}
	f, info, err := d.openFile(ctx, key)
	if err != nil {
		return nil, Info{}, d.fail("get", key, err)
	}
	r, err := section(f, info.Size, offset, length)
	if err != nil {
		return nil, Info{}, d.fail("get", key, closing(f, err))
	}
	return r, info, nil
}

// section returns length bytes of f from offset, as Get promises. It returns f
// itself for a whole object, so that io.Copy can leave the work to the kernel.
func section(f *os.File, size, offset, length int64) (io.ReadCloser, error) {
	if err := checkRange(size, offset); err != nil {
		return nil, err
	}
	if offset == 0 && length < 0 {
		return f, nil
	}
	rest := size - offset
	if length >= 0 && length < rest {
		rest = length
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, rest), f}, nil
}

// checkRange says whether a Get may begin at offset of an object of size bytes.
func checkRange(size, offset int64) error {
	if offset >= 0 && offset <= size {
		return nil
	}
	return myrmidon.Permanent(fmt.Errorf("%w: offset %d of %d bytes", ErrRange, offset, size))
}

// openFile opens key's file for reading, if it is a regular one.
func (d *Dir) openFile(ctx context.Context, key string) (*os.File, Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, Info{}, err
	}
	root, err := d.open()
	if err != nil {
		return nil, Info{}, missing(err)
	}
	// O_NONBLOCK: opening a FIFO must not wait for its writer.
	f, err := root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err := closing(root, err); err != nil {
		return nil, Info{}, missing(err)
	}
	stat, err := f.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return nil, Info{}, closing(f, err)
	}
	return f, infoOf(key, stat), nil
}

// Head describes the object's file. See [Store].
func (d *Dir) Head(ctx context.Context, key string) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, d.fail("head", key, err)
	}
	if err := d.check(key); err != nil {
		return Info{}, err
	}
	root, err := d.open()
	if err != nil {
		return Info{}, d.fail("head", key, missing(err))
	}
	stat, err := root.Stat(key)
	if err := closing(root, err); err != nil {
		return Info{}, d.fail("head", key, missing(err))
	}
	if !stat.Mode().IsRegular() {
		return Info{}, d.fail("head", key, errNotRegular)
	}
	return infoOf(key, stat), nil
}

// Delete removes the object's file and the folders that are empty then, up to the
// root. See [Store].
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return d.fail("delete", key, err)
	}
	if err := d.check(key); err != nil {
		return err
	}
	root, err := d.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return d.fail("delete", key, err)
	}
	err = unlink(root, key, 0)
	switch {
	case err == nil:
		prune(root, path.Dir(key))
	case errors.Is(missing(err), fs.ErrNotExist), isFolder(root, key):
		err = nil // a folder is no object
	}
	if err := closing(root, err); err != nil {
		return d.fail("delete", key, err)
	}
	return nil
}

// unlink removes one name, never the target of a link: a file, or with
// unix.AT_REMOVEDIR an empty folder. os.Root.Remove takes either, and so could
// remove an object that was put where an empty folder has just been.
func unlink(root *os.Root, name string, flags int) error {
	parent, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	for {
		err = unix.Unlinkat(int(parent.Fd()), path.Base(name), flags)
		if err != unix.EINTR {
			return closing(parent, err)
		}
	}
}

func isFolder(root *os.Root, name string) bool {
	stat, err := root.Lstat(name)
	return err == nil && stat.IsDir()
}

// infoOf describes a file.
func infoOf(key string, stat fs.FileInfo) Info {
	info := Info{Key: key, Size: stat.Size(), Modified: stat.ModTime().UTC(), Attrs: Attrs{}.complete(key)}
	var inode uint64
	if sys, ok := stat.Sys().(*syscall.Stat_t); ok {
		inode = sys.Ino
	}
	info.ETag = fmt.Sprintf("%x-%x-%x", inode, info.Size, stat.ModTime().UnixNano())
	return info
}

// check is CheckKey, and refuses the names of temporary files.
func (d *Dir) check(key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if strings.Contains(key, tempPrefix) {
		for part := range strings.SplitSeq(key, "/") {
			if isTemp(part) {
				return BadKey(fmt.Errorf("object: %q cannot be a key: %q names temporary files", key, part))
			}
		}
	}
	return nil
}
