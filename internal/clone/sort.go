package clone

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const (
	// sortMemory bounds the keys in memory, with what a key takes to be sorted.
	sortMemory = 8 << 20
	// sortFiles is how many sorted files are merged at once, each with a buffer of its own.
	sortFiles = 64
)

// sorter puts keys into byte order and leaves out those that come again. What does not fit
// into memory is sorted piece by piece into files, which are merged.
type sorter struct {
	dir   string
	most  int // bytes in memory
	arena []byte
	spans []span
	files []string
	made  int
}

// span is a key in the arena.
type span struct{ from, to uint32 }

const spanSize = 8

func (s *sorter) add(key []byte) error {
	if len(s.arena)+len(key)+(len(s.spans)+1)*spanSize > s.most && len(s.spans) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	from := uint32(len(s.arena))
	s.arena = append(s.arena, key...)
	s.spans = append(s.spans, span{from, uint32(len(s.arena))})
	return nil
}

func (s *sorter) key(p span) []byte { return s.arena[p.from:p.to] }

func (s *sorter) sort() {
	slices.SortFunc(s.spans, func(a, b span) int { return bytes.Compare(s.key(a), s.key(b)) })
}

// spill writes what is in memory into a file.
func (s *sorter) spill() error {
	s.sort()
	err := s.write(func(put func([]byte) error) error {
		for _, p := range s.spans {
			if err := put(s.key(p)); err != nil {
				return err
			}
		}
		return nil
	})
	s.arena, s.spans = s.arena[:0], s.spans[:0]
	if err == nil && len(s.files) == sortFiles {
		old := s.files
		s.files = nil
		err = s.write(func(put func([]byte) error) error { return merge(old, put) })
		for _, name := range old {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}

// write makes a file of the keys that fill puts.
func (s *sorter) write(fill func(put func([]byte) error) error) error {
	name := fmt.Sprintf("%s/keys-%d", s.dir, s.made)
	s.made++
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(f, 64<<10)
	var line []byte
	err = fill(func(key []byte) error {
		line = appendKey(line[:0], key)
		_, err := out.Write(line)
		return err
	})
	if err == nil {
		err = out.Flush()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		s.files = append(s.files, name)
	}
	return err
}

// each calls fn with each key once, in byte order. fn may not keep the key.
func (s *sorter) each(fn func(key []byte) error) error {
	var last []byte
	any := false
	once := func(key []byte) error {
		if any && bytes.Equal(key, last) {
			return nil
		}
		any, last = true, append(last[:0], key...)
		return fn(key)
	}
	if len(s.files) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
		s.arena, s.spans = nil, nil
		return merge(s.files, once)
	}
	s.sort()
	for _, p := range s.spans {
		if err := once(s.key(p)); err != nil {
			return err
		}
	}
	return nil
}

// merge calls fn with the keys of all files, in byte order.
func merge(files []string, fn func(key []byte) error) (err error) {
	var h sortedFiles
	defer func() {
		for _, f := range h { // also those that have ended
			err = errors.Join(err, f.file.Close())
		}
	}()
	for _, name := range files {
		file, oerr := os.Open(name)
		if oerr != nil {
			return oerr
		}
		f := &sortedFile{file: file, in: bufio.NewReaderSize(file, 64<<10)}
		h = append(h, f)
		if err := f.next(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	heap.Init(&h)
	for len(h) > 0 && !h[0].ended {
		if err := fn(h[0].key); err != nil {
			return err
		}
		if err := h[0].next(); err != nil {
			return err
		}
		heap.Fix(&h, 0)
	}
	return nil
}

// sortedFile is a file under way.
type sortedFile struct {
	file  *os.File
	in    *bufio.Reader
	key   []byte
	ended bool
}

func (f *sortedFile) next() error {
	size, err := binary.ReadUvarint(f.in)
	if errors.Is(err, io.EOF) {
		f.ended = true
		return nil
	}
	if err != nil {
		return err
	}
	f.key = slices.Grow(f.key[:0], int(size))[:size]
	_, err = io.ReadFull(f.in, f.key)
	return err
}

// sortedFiles is a heap: those that have ended are last.
type sortedFiles []*sortedFile

func (h sortedFiles) Len() int { return len(h) }
func (h sortedFiles) Less(i, j int) bool {
	if h[i].ended || h[j].ended {
		return !h[i].ended
	}
	return bytes.Compare(h[i].key, h[j].key) < 0
}
func (h sortedFiles) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push and Pop are for heap.Interface: files neither come nor go.
func (h *sortedFiles) Push(any) {}
func (h *sortedFiles) Pop() any { return nil }
