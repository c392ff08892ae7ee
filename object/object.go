// Package object stores objects under keys: what every workload reads from and
// writes to. A [Store] is a folder ([Dir]), memory ([Mem]), a read-only folder of an HTTP
// server ([Origin]) or, in packages above, a bucket. What only some stores can do are
// interfaces of their own: [Copier], [Importer], [Describer], [Keeper], [Checksummer].
//
// Keys are UTF-8 or raw bytes, at most 1,024 bytes, with "/" between parts by
// convention. A key never begins with "/" and has no empty, "." or ".." part where
// the store is a folder; see [CheckKey].
//
// # Promises
//
// An object is visible whole or not at all: Put writes under a temporary name and
// renames, or is one request. A reader that holds an object open sees the bytes of
// one version. List is in byte order of keys.
//
// Package myrmidon/object/objecttest holds the conformance suite that every Store
// passes.
package object

import (
	"context"
	"io"
	"iter"
	"time"
)

// Store holds objects. All methods may be called from many goroutines.
//
// Errors wrap [io/fs.ErrNotExist] for a key that is not there, [io/fs.ErrPermission]
// for what is denied, and are marked [myrmidon.Permanent] where a retry cannot help
// (a bad key, no permission, a full disk).
type Store interface {
	// Put stores size bytes of body under key, replacing what was there. It reads
	// body once; on error the store holds the old object or the new one, never a
	// part, and no temporary file. size < 0 means unknown. A body that is shorter or
	// longer than size is an error: shorter wraps [io.ErrUnexpectedEOF]. An error of
	// body itself is wrapped as it is. The end of ctx is noticed between two reads of
	// body, so a body that may block should end with ctx too.
	Put(ctx context.Context, key string, body io.Reader, size int64, attrs Attrs) error

	// Get opens length bytes of the object from offset; length < 0 means to its end.
	// The caller closes the reader. An offset at the object's end gives an empty
	// reader, one beyond it (or below 0) an error wrapping [ErrRange]. Info is of the
	// whole object.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Info, error)

	// Head describes an object without its bytes.
	Head(ctx context.Context, key string) (Info, error)

	// List yields the objects whose keys begin with prefix and are greater than
	// after, in byte order. An error ends the sequence; it comes with a zero Info.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	// Delete removes an object. A key that is not there is not an error.
	Delete(ctx context.Context, key string) error
}

// Copier is a Store that copies its own objects without sending their bytes through
// this process.
type Copier interface {
	// Copy makes to an object with the bytes and attributes of from, atomically.
	Copy(ctx context.Context, from, to string) error
}

// Local is a Store whose objects are files of this machine.
type Local interface {
	// Path returns the file that holds key. It may not exist. The caller only reads it.
	Path(key string) (string, error)
}

// Attrs are the attributes that an object is stored with, and served with where the
// store is an HTTP origin.
type Attrs struct {
	ContentType  string // "" means by the key's ending: see TypeOf
	CacheControl string // "" means none
}

// Info describes an object.
type Info struct {
	Key      string
	Size     int64     // bytes; -1 if an Origin does not say it
	Modified time.Time // UTC; zero if an Origin does not say it
	// ETag changes when the bytes do. For a folder it is made of inode, size and
	// modification time; for memory it is a hash.
	ETag string
	Attrs
}
