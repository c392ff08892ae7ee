package notify

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"myrmidon/internal/filelock"
)

// spool keeps events in a folder until they are done, a file each. An event that comes again
// while it waits is kept once.
type spool struct {
	dir   string
	most  int
	ready chan *event // has room for all
	lock  *os.File

	put  sync.Mutex // held while an event is written: a second one of its kind waits
	mu   sync.Mutex
	kept map[string]*event // by file
}

// event is an object that has come, as it is kept.
type event struct {
	Bucket    string    `json:"bucket"`
	Key       string    `json:"key"` // escaped, as S3 has it: a key need not be UTF-8
	ETag      string    `json:"etag,omitempty"`
	Size      int64     `json:"size,omitempty"`
	Sequencer string    `json:"sequencer,omitempty"`
	At        time.Time `json:"at"`
	// Failing is since when the object could not be done, each time by its own fault.
	Failing time.Time `json:"failing,omitzero"`
	file    string
	tries   int // in vain, of this process
}

// object returns what has come.
func (e *event) object() (Object, error) {
	key, err := url.QueryUnescape(e.Key)
	o := Object{e.Bucket, key, e.ETag, e.Size, e.Sequencer}
	return o, errors.Join(err, o.valid())
}

// errFull is the error of a spool that takes nothing more for now.
var errFull = errors.New("notify: too many events wait")

// openSpool opens a folder with what is in it, the oldest first; of is the webhook's address. The folder is this spool's until
// it is closed: two would each do what is in it, and remove what the other is writing.
func openSpool(dir, of string, most int) (_ *spool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFolder(dir, of)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, filelock.Close(lock))
		}
	}()
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := &spool{dir: dir, most: most, lock: lock, kept: make(map[string]*event)}
	var all []*event
	for _, entry := range files {
		file := filepath.Join(dir, entry.Name())
		if strings.HasSuffix(file, partial) {
			if err := os.Remove(file); err != nil { // it was never answered
				return nil, err
			}
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		e := &event{file: file}
		if err = json.Unmarshal(data, e); err == nil {
			_, err = e.object()
		}
		if err != nil {
			return nil, fmt.Errorf("%s is no event that was kept: %w", file, err)
		}
		s.kept[file] = e
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *event) int { return cmp.Or(a.At.Compare(b.At), strings.Compare(a.file, b.file)) })
	s.ready = make(chan *event, max(most, len(all)))
	for _, e := range all {
		s.ready <- e
	}
	return s, nil
}

// close leaves the folder to others.
func (s *spool) close() error { return filelock.Close(s.lock) }

// keep has an object on disk when it returns nil; fresh is false if it was there. The error is
// errFull, or that of the disk.
func (s *spool) keep(o Object) (fresh bool, err error) {
	which := o.ETag + "\x00" + o.Sequencer
	if which == "\x00" {
		which = rand.Text() // nobody knows whether two are one
	}
	sum := sha256.Sum256([]byte(o.Bucket + "\x00" + o.Key + "\x00" + which))
	e := &event{
		Bucket: o.Bucket, Key: url.QueryEscape(o.Key), ETag: o.ETag, Size: o.Size, Sequencer: o.Sequencer, At: time.Now().UTC(),
		file: filepath.Join(s.dir, hex.EncodeToString(sum[:16])+".json"),
	}
	data, err := json.Marshal(e)
	if err != nil {
		return false, err
	}
	s.put.Lock()
	defer s.put.Unlock()
	s.mu.Lock()
	_, there := s.kept[e.file]
	full := len(s.kept) >= s.most
	s.mu.Unlock()
	switch {
	case there:
		return false, nil
	case full:
		return false, errFull
	}
	if err := writeSynced(e.file, data); err != nil {
		return false, err
	}
	s.mu.Lock()
	s.kept[e.file] = e
	s.mu.Unlock()
	s.ready <- e
	return true, nil
}

// fails remembers since when an event could not be done: not at all if since is zero.
func (s *spool) fails(e *event, since time.Time) error {
	if e.Failing.IsZero() == since.IsZero() {
		return nil
	}
	e.Failing = since
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return writeSynced(e.file, data)
}

// drop forgets an event that is done.
func (s *spool) drop(e *event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept, e.file)
	return os.Remove(e.file)
}

// waiting is how many events are not done.
func (s *spool) waiting() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.kept))
}

// partial is what names of files end with that are being written.
const partial = ".part"

// writeSynced replaces a file, whole or not at all, and has it on disk when it returns.
func writeSynced(file string, data []byte) error {
	f, err := os.OpenFile(file+partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(file+partial, file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
