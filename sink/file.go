package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/internal/filelock"
)

// FileConfig says which file, and when it is put aside. All but Path may be zero.
type FileConfig struct {
	Path string
	// RotateBytes and RotateAfter put the file aside before it becomes larger, or once it
	// has been written to for so long: never if 0. What one Send has stays together, also
	// where that alone is more. What was put aside is called after the time, as in
	// out-20261121T190000.000Z.ndjson for out.ndjson; nothing is ever deleted.
	RotateBytes int64
	RotateAfter time.Duration
	// TimeField, if not "", adds the record's time to each document, as its first member.
	TimeField string
}

// File appends records to a file, one a line. See [NewFile].
//
// The file holds whole lines only: what could not be written as a whole is taken back, and a
// piece of a document at the end of the file, as a killed process leaves it, is cut off when
// the file is opened; it was never acknowledged. Several processes may write to one file: each
// holds a lock meanwhile. A file that was put aside or removed is made anew by the next Send. Send
// hands lines to the operating system; Flush makes them survive a power cut.
type File struct {
	cfg FileConfig

	mu     sync.Mutex
	file   *os.File // nil before the first Send, and after a failure
	size   int64
	since  time.Time // when the file was begun or opened
	dirty  bool
	closed bool
	buf    []byte
}

// NewFile returns the sink of a file and makes the folder that it is in, if that is missing.
// The file is opened, and made if it is missing, by the first Send.
func NewFile(cfg FileConfig) (*File, error) {
	if cfg.Path == "" || strings.HasSuffix(cfg.Path, string(filepath.Separator)) {
		return nil, myrmidon.Permanent(fmt.Errorf("sink: %q names no file", cfg.Path))
	}
	if err := checkField(cfg.TimeField); err != nil {
		return nil, err
	}
	if info, err := os.Stat(cfg.Path); err == nil && info.IsDir() {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("sink: %s is a folder", cfg.Path), "name a file in it, such as "+filepath.Join(cfg.Path, "records.ndjson")))
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o755); err != nil {
		return nil, fileError("make the folder of", cfg.Path, err)
	}
	return &File{cfg: cfg}, nil
}

// fileError marks what another attempt does not cure.
func fileError(what, path string, err error) error {
	wrapped := fmt.Errorf("sink: %s %s: %w", what, path, err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return myrmidon.Permanent(myrmidon.WithHint(wrapped, "make it writable for this user, or name another file"))
	case errors.Is(err, syscall.ENOSPC):
		return myrmidon.Permanent(myrmidon.WithHint(wrapped, "make room on the disk and start again: what was not acknowledged is written then"))
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return myrmidon.Permanent(wrapped)
	}
	return wrapped
}

// Traits says that a batch is one write.
func (*File) Traits() Traits { return Traits{Bytes: 1 << 20, InOrder: true} }

// String returns the path.
func (f *File) String() string { return f.cfg.Path }

// Send appends records with one write. On an error the file is as it was.
func (f *File) Send(ctx context.Context, records []Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sink: append to %s: %w", f.cfg.Path, err)
	}
	good, at, refused := Sort(records, Check)
	return Merge(len(records), at, refused, f.append(good))
}

func (f *File) append(records []Record) error {
	if len(records) == 0 {
		return nil
	}
	b := f.buf[:0]
	for _, r := range records {
		b = appendLine(b, r, f.cfg.TimeField)
	}
	if cap(b) <= 4<<20 {
		f.buf = b
	}
	if err := f.open(int64(len(b))); err != nil {
		return err
	}
	defer f.unlock()
	n, err := f.file.Write(b)
	if err != nil {
		err = fileError("append to", f.cfg.Path, err)
		if n > 0 {
			err = errors.Join(err, f.file.Truncate(f.size))
		}
		// Opened anew, the file's end is looked at.
		err = errors.Join(err, f.file.Close())
		f.file = nil
		return err
	}
	f.size += int64(n)
	f.dirty = true
	return nil
}

func (f *File) unlock() {
	if f.file != nil {
		_ = filelock.Free(f.file) // closing does it, too
	}
}

// lock locks the file that is open. Where another process has written to it, its end is brought in
// order, and where it has been put aside it is closed.
func (f *File) lock() error {
	// What knows no locks, as some network file systems and systems that are no Unix, is used without:
	// two processes must not write to one file there.
	_ = filelock.Wait(f.file)
	info, err := f.file.Stat()
	if err != nil {
		return fileError("look at", f.cfg.Path, err)
	}
	there, err := os.Stat(f.cfg.Path)
	if info.Mode().IsRegular() && (err != nil || !os.SameFile(info, there)) {
		err = errors.Join(f.sync(), f.file.Close())
		f.file = nil
		return err
	}
	if info.Size() != f.size {
		if f.size, err = mend(f.file); err != nil {
			return fileError("read the end of", f.cfg.Path, err)
		}
	}
	return nil
}

// open opens and locks the file, and puts it aside before if n more bytes are too many or it is
// old. After an error it is closed.
func (f *File) open(n int64) (err error) {
	defer func() {
		if err != nil && f.file != nil {
			err = errors.Join(err, f.file.Close())
			f.file = nil
		}
	}()
	if f.file != nil {
		if err := f.lock(); err != nil {
			return err
		}
	}
	for f.file == nil { // anew where it is put aside before it is locked
		if f.file, err = os.OpenFile(f.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
			f.file = nil
			return fileError("open", f.cfg.Path, err)
		}
		f.size, f.since = -1, time.Now()
		if err := f.lock(); err != nil {
			return err
		}
	}
	full := f.cfg.RotateBytes > 0 && f.size+n > f.cfg.RotateBytes
	old := f.cfg.RotateAfter > 0 && time.Since(f.since) >= f.cfg.RotateAfter
	if f.size == 0 || !full && !old {
		return nil
	}
	if err := f.rotate(); err != nil {
		return err
	}
	return f.open(n)
}

// rotate puts the file aside, whole and durable.
func (f *File) rotate() error {
	if err := f.sync(); err != nil {
		return err
	}
	ending := filepath.Ext(f.cfg.Path)
	stem := strings.TrimSuffix(f.cfg.Path, ending)
	at := time.Now().UTC()
	for ; ; at = at.Add(time.Millisecond) {
		aside := stem + "-" + at.Format("20060102T150405.000Z") + ending
		// Link fails where Rename would replace what another rotation has put there.
		err := os.Link(f.cfg.Path, aside)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = os.Remove(f.cfg.Path)
		}
		if err != nil {
			return fileError("put aside", f.cfg.Path, err)
		}
		break
	}
	err := f.file.Close()
	f.file = nil
	return err
}

// mend brings the end of a file in order, and returns the file's size: a last line without its
// end gets one, unless it is a piece of a document, which is cut off.
func mend(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0, err
	}
	size := info.Size()
	var last []byte // from the last line feed on
	const block = 64 << 10
	for from := size; from > 0; {
		n := min(from, block)
		from -= n
		b := make([]byte, n, n+int64(len(last)))
		if _, err := file.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		i := bytes.LastIndexByte(b, '\n')
		last = append(b[i+1:], last...)
		if i >= 0 {
			break
		}
	}
	if len(last) == 0 {
		return size, nil
	}
	if last[0] == '{' && !json.Valid(last) {
		size -= int64(len(last))
		return size, file.Truncate(size)
	}
	_, err = file.Write([]byte("\n"))
	return size + 1, err
}

// Flush writes to the disk what Send has appended.
func (f *File) Flush(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sync()
}

func (f *File) sync() error {
	if f.file == nil || !f.dirty {
		return nil
	}
	// A pipe or a terminal has nothing to be synced.
	if err := f.file.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return fileError("sync", f.cfg.Path, err)
	}
	f.dirty = false
	return nil
}

// Close flushes and closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	err := f.sync()
	if f.file != nil {
		err = errors.Join(err, f.file.Close())
		f.file = nil
	}
	return err
}
