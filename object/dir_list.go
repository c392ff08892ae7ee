package object

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"syscall"
)

var _ Pager = (*Dir)(nil)

// List yields the files below the root in byte order of their keys. See [Store]. It
// reads one folder at a time and skips folders that hold no key asked for; in memory
// are the names of the folders that lead to the present one. Objects that come or go
// meanwhile are listed or not.
func (d *Dir) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(Info{}, d.fail("list", prefix, err))
			return
		}
		root, err := d.open()
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(Info{}, d.fail("list", prefix, err))
			return
		}
		l := listing{ctx: ctx, root: root, prefix: prefix, after: after, yield: yield}
		err = closing(root, l.start())
		if err != nil && !errors.Is(err, errStopped) {
			yield(Info{}, d.fail("list", prefix, err))
		}
	}
}

// Page returns one page of a listing. It reads the folders on the way to its keys anew,
// whole, so a folder of very many files is cheaper to List. See [Pager].
func (d *Dir) Page(ctx context.Context, prefix, after string, most int) ([]Info, bool, error) {
	return pageOf(d.List(ctx, prefix, after), most)
}

// errStopped says that the caller of List wants no more.
var errStopped = errors.New("stopped")

// listing is one List under way.
type listing struct {
	ctx           context.Context // of this one call, which is all that a listing lives for
	root          *os.Root
	prefix, after string
	yield         func(Info, error) bool
}

// entry is a name in a folder. A folder's ends in "/", which is what puts "a-b"
// before "a/b" although "a" comes before "a-b".
type entry struct {
	name string
	link bool
}

// folderOf returns the folder that all keys with this prefix are below, "" for the
// root.
func folderOf(prefix string) string {
	return prefix[:max(0, strings.LastIndexByte(prefix, '/'))]
}

// start goes down to the deepest folder that holds all keys with the prefix, without
// following links, and walks it.
func (l *listing) start() error {
	folder := folderOf(l.prefix)
	if folder == "" && strings.HasPrefix(l.prefix, "/") {
		return nil
	}
	if folder == "" {
		return l.walk(l.root, "")
	}
	if CheckKey(folder) != nil {
		return nil // so no key begins with it
	}
	at := l.root
	for part := range strings.SplitSeq(folder, "/") {
		next, err := openFolder(at, part)
		if at != l.root {
			err = closing(at, err)
		}
		if err != nil || next == nil {
			return err
		}
		at = next
	}
	return closing(at, l.walk(at, folder+"/"))
}

// openFolder opens the folder name in parent; nil if there is none.
func openFolder(parent *os.Root, name string) (*os.Root, error) {
	stat, err := parent.Lstat(name)
	if err == nil && !stat.IsDir() {
		return nil, nil
	}
	var next *os.Root
	if err == nil {
		next, err = parent.OpenRoot(name)
	}
	if errors.Is(missing(err), fs.ErrNotExist) {
		return nil, nil
	}
	return next, err
}

// walk yields what is in folder and below it. base is "" or the folder's key with a
// "/" behind it.
func (l *listing) walk(folder *os.Root, base string) error {
	entries, err := l.read(folder, base)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		if name, ok := strings.CutSuffix(e.name, "/"); ok {
			sub, err := openFolder(folder, name)
			if err != nil {
				return err
			}
			if sub == nil {
				continue
			}
			if err := closing(sub, l.walk(sub, base+e.name)); err != nil {
				return err
			}
			continue
		}
		if err := l.file(folder, base+e.name, e); err != nil {
			return err
		}
	}
	return nil
}

// file yields one file.
func (l *listing) file(folder *os.Root, key string, e entry) error {
	var stat fs.FileInfo
	var err error
	if e.link {
		// From the top: the link may lead to another folder of the root. Links to
		// nothing, or to the outside, are no objects.
		if stat, err = l.root.Stat(key); err != nil {
			return nil
		}
	} else {
		stat, err = folder.Lstat(e.name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if stat.Mode().IsRegular() && !l.yield(infoOf(key, stat), nil) {
		return errStopped
	}
	return nil
}

// read returns the entries of a folder that may be, or hold, a key asked for, in the
// order of keys.
func (l *listing) read(folder *os.Root, base string) ([]entry, error) {
	f, err := folder.OpenFile(".", os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	var entries []entry
	for {
		batch, err := f.ReadDir(1024)
		for _, e := range batch {
			if got, ok := l.want(base, e); ok {
				entries = append(entries, got)
			}
		}
		if err == nil {
			err = l.ctx.Err()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, closing(f, err)
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return entries, closing(f, nil)
}

// want decides on one entry by its name alone.
func (l *listing) want(base string, e fs.DirEntry) (entry, bool) {
	name := e.Name()
	key := base + name
	switch {
	case isTemp(name), len(key) > MaxKey:
		return entry{}, false
	case e.IsDir():
		// All keys below begin with key. They end before after, unless after is
		// one of them or key is behind it. The walk began in the prefix's own folder,
		// so the prefix never reaches below key.
		key += "/"
		inside := strings.HasPrefix(key, l.prefix)
		ahead := key > l.after || strings.HasPrefix(l.after, key)
		return entry{name: name + "/"}, inside && ahead
	case e.Type().IsRegular(), e.Type()&fs.ModeSymlink != 0:
		wanted := strings.HasPrefix(key, l.prefix) && key > l.after
		return entry{name: name, link: !e.Type().IsRegular()}, wanted
	}
	return entry{}, false
}
