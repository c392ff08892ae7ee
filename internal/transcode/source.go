package transcode

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
	"myrmidon/object"
)

const hintStay = "the file must stay where it is until the run has ended"

// maxAddress bounds a source's address: it is in every job's spec.
const maxAddress = 8 << 10

// isObject reports whether a source is named by an address, "scheme://…", and not by a
// path.
func isObject(source string) bool {
	scheme, _, ok := strings.Cut(source, "://")
	return ok && scheme != "" && !strings.Contains(scheme, "/")
}

// checkAddress reports what is wrong with a source's path or address.
func checkAddress(source string) error {
	switch {
	case !filepath.IsAbs(source) && !isObject(source):
		return fmt.Errorf("%q is neither an absolute path nor an address (scheme://…)", source)
	case len(source) > maxAddress:
		return fmt.Errorf("an address of %d bytes is longer than %d", len(source), maxAddress)
	}
	return nil
}

// source is a run's input as it was found: a file of this machine, or an object of a
// store. It belongs to one job.
type source struct {
	name string // base name, for people
	path string // of a file; "" for an object
	size int64
	// modified is when it was written, nanoseconds since 1970. etag is an object's, or ""
	// where its store has none.
	modified int64
	etag     string

	store object.Store
	key   string
	taken atomic.Int64 // bytes read of the object
}

// find looks for the source at an address. What is not there is a permanent error.
func (c Config) find(ctx context.Context, address string) (*source, error) {
	if !isObject(address) {
		return findFile(address)
	}
	if c.OpenObject == nil {
		return nil, myrmidon.Permanent(fmt.Errorf("transcode: source %s: only files of this machine can be read here", address))
	}
	store, key, err := c.OpenObject(address)
	if err != nil {
		return nil, fmt.Errorf("transcode: open the source %s: %w", address, err)
	}
	if local, ok := store.(object.Local); ok {
		file, err := local.Path(key)
		if err != nil {
			return nil, fmt.Errorf("transcode: source %s: %w", address, err)
		}
		return findFile(file)
	}
	var info object.Info
	err = again(ctx, func() (err error) {
		info, err = store.Head(ctx, key)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("transcode: source %s: %w", address, err),
			"check the address; "+hintStay))
	}
	if err != nil {
		return nil, fmt.Errorf("transcode: source %s: %w", address, err)
	}
	s := &source{name: path.Base(key), size: info.Size, etag: info.ETag, store: store, key: key}
	if !info.Modified.IsZero() {
		s.modified = info.Modified.UnixNano()
	}
	if s.etag == "" && s.modified == 0 {
		return nil, myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("transcode: source %s: its store tells neither an ETag nor a time, so that a change could not be noticed", address),
			"copy the file to a folder or to another store first"))
	}
	return s, nil
}

func findFile(file string) (*source, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("transcode: source: %w", err), "check the path; "+hintStay))
	}
	return &source{
		name: filepath.Base(file), path: file, size: info.Size(), modified: info.ModTime().UnixNano(),
	}, nil
}

// identify returns what names are made of. A file is hashed: read whole. An object is
// what its store says that it is; nothing is read.
func (s *source) identify(ctx context.Context) (Source, error) {
	if s.path != "" {
		return identify(ctx, s.path)
	}
	id := Source{Name: s.name, Size: s.size, ETag: s.etag}
	if id.ETag == "" {
		id.ETag = "modified " + time.Unix(0, s.modified).UTC().Format(time.RFC3339Nano)
	}
	return id, nil
}

// identify hashes the file at path.
func identify(ctx context.Context, path string) (_ Source, err error) {
	src := Source{Name: filepath.Base(path)}
	f, err := os.Open(path)
	if err != nil {
		return src, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("transcode: %w", err), "check the path and its permissions"))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		n, readErr := f.Read(buf)
		sum.Write(buf[:n])
		src.Size += int64(n)
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return src, fmt.Errorf("transcode: hash %s: %w", src.Name, readErr)
		}
		if err := ctx.Err(); err != nil {
			return src, err
		}
	}
	src.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return src, nil
}

// open makes the source readable for ffmpeg. The caller closes what it gets.
func (s *source) open(ctx context.Context) (*ffmpeg.Media, error) {
	if s.path != "" {
		return ffmpeg.Local(s.path), nil
	}
	return ffmpeg.Serve(ctx, s.name, s.size, s.read)
}

// read fills b with the object's bytes from offset on. Of an object that is not the one
// that was found it gives none. See [ffmpeg.ReadRange].
func (s *source) read(ctx context.Context, offset int64, b []byte) (n int, err error) {
	err = again(ctx, func() error {
		got, err := s.readOnce(ctx, offset+int64(n), b[n:])
		n += got
		s.taken.Add(int64(got))
		return err
	})
	return n, err
}

func (s *source) readOnce(ctx context.Context, offset int64, b []byte) (n int, err error) {
	r, info, err := s.store.Get(ctx, s.key, offset, int64(len(b)))
	switch {
	case errors.Is(err, object.ErrRange):
		return 0, s.changed()
	case errors.Is(err, fs.ErrNotExist):
		return 0, myrmidon.Permanent(myrmidon.WithHint(err, hintStay))
	case err != nil:
		return 0, err
	}
	defer func() {
		if closeErr := r.Close(); err == nil && closeErr != nil {
			err = closeErr
		}
	}()
	if !s.is(info) {
		return 0, s.changed()
	}
	return io.ReadFull(r, b)
}

// is reports whether info describes the object that was found.
func (s *source) is(info object.Info) bool {
	if info.Size != s.size || info.ETag != s.etag {
		return false
	}
	return s.etag != "" || info.Modified.UnixNano() == s.modified
}

// changed is the error for a source that is not the one that was planned.
func (s *source) changed() error {
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s has changed since it was planned", s.name),
		"start a new run when the file is complete"))
}

// note is what later jobs compare the source with.
func (s *source) note(o *origin) {
	o.Size, o.ETag = s.size, s.etag
	if s.etag == "" {
		o.Modified = s.modified
	}
}

// check refuses a source that is not the one that was planned.
func (s *source) check(o origin) error {
	var now origin
	s.note(&now)
	if now.Size != o.Size || now.ETag != o.ETag || now.Modified != o.Modified {
		return s.changed()
	}
	return nil
}
