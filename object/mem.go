package object

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mem is a Store in memory, for tests and small things. It promises what other
// stores do, keeps attributes, and copies what it is given; see [NewMem]. It refuses
// the keys that a folder would refuse, so that tests notice them, but takes "a"
// beside "a/b". It is also a [Copier] and a [Pager].
type Mem struct {
	mu      sync.RWMutex
	objects map[string]memObject
	// sorted is the keys of objects in byte order, nil where they have changed since
	// it was made. The slice itself never changes.
	sorted []string
}

// memObject is one version of an object. Its bytes never change.
type memObject struct {
	data []byte
	info Info
}

var (
	_ Store  = (*Mem)(nil)
	_ Copier = (*Mem)(nil)
	_ Pager  = (*Mem)(nil)
)

// NewMem returns an empty store.
func NewMem() *Mem { return &Mem{objects: make(map[string]memObject)} }

// Put reads body to its end and keeps it. See [Store].
func (m *Mem) Put(ctx context.Context, key string, body io.Reader, size int64, attrs Attrs) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	var buf bytes.Buffer
	if _, err := copyBody(ctx, &buf, body, size); err != nil {
		return fmt.Errorf("object: put %q: %w", key, err)
	}
	m.store(key, buf.Bytes(), attrs, false)
	return nil
}

// store keeps a version. It reports false, and keeps none, if there is one and onlyNew is set.
func (m *Mem) store(key string, data []byte, attrs Attrs, onlyNew bool) bool {
	sum := sha256.Sum256(data)
	info := Info{
		Key:      key,
		Size:     int64(len(data)),
		Modified: time.Now().UTC(),
		ETag:     fmt.Sprintf("%x", sum[:16]),
		Attrs:    attrs.complete(key),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[key]; !ok {
		m.sorted = nil
	} else if onlyNew {
		return false
	}
	m.objects[key] = memObject{data, info}
	return true
}

// get returns the present version of key.
func (m *Mem) get(ctx context.Context, op, key string) (memObject, error) {
	if err := ctx.Err(); err != nil {
		return memObject{}, fmt.Errorf("object: %s %q: %w", op, key, err)
	}
	if err := CheckKey(key); err != nil {
		return memObject{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.objects[key]
	if !ok {
		return memObject{}, fmt.Errorf("object: %s %q: %w", op, key, fs.ErrNotExist)
	}
	return o, nil
}

// Get returns a reader of the version that is there now. See [Store].
func (m *Mem) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, Info, error) {
	o, err := m.get(ctx, "get", key)
	if err != nil {
		return nil, Info{}, err
	}
	if err := checkRange(o.info.Size, offset); err != nil {
		return nil, Info{}, fmt.Errorf("object: get %q: %w", key, err)
	}
	data := o.data[offset:]
	if length >= 0 && length < int64(len(data)) {
		data = data[:length]
	}
	return io.NopCloser(bytes.NewReader(data)), o.info, nil
}

// Head describes the object. See [Store].
func (m *Mem) Head(ctx context.Context, key string) (Info, error) {
	o, err := m.get(ctx, "head", key)
	return o.info, err
}

// List yields the objects that are there when it begins and still are when their
// turn comes. See [Store].
func (m *Mem) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(Info{}, fmt.Errorf("object: list %q: %w", prefix, err))
			return
		}
		for _, key := range m.behind(prefix, after) {
			if !strings.HasPrefix(key, prefix) {
				return
			}
			info, err := m.Head(ctx, key)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// Page returns one page of a listing. The first after a change sorts all keys. See
// [Pager].
func (m *Mem) Page(ctx context.Context, prefix, after string, most int) ([]Info, bool, error) {
	return pageOf(m.List(ctx, prefix, after), most)
}

// pageOf reads a page from a listing, and one object more to know whether there is one.
func pageOf(list iter.Seq2[Info, error], most int) (page []Info, more bool, err error) {
	if most <= 0 {
		most = MaxPage
	}
	for info, err := range list {
		if err != nil {
			return nil, false, err
		}
		if len(page) == most {
			return page, true, nil
		}
		page = append(page, info)
	}
	return page, false, nil
}

// behind returns the keys that are there now, from the first that is greater than after
// and not less than prefix. The caller only reads it.
func (m *Mem) behind(prefix, after string) []string {
	m.mu.RLock()
	keys := m.sorted
	m.mu.RUnlock()
	if keys == nil {
		m.mu.Lock()
		if m.sorted == nil {
			m.sorted = slices.AppendSeq(make([]string, 0, len(m.objects)), maps.Keys(m.objects))
			slices.Sort(m.sorted)
		}
		keys = m.sorted
		m.mu.Unlock()
	}
	from, _ := slices.BinarySearch(keys, max(prefix, after+"\x00"))
	return keys[from:]
}

// Delete removes the object. See [Store].
func (m *Mem) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("object: delete %q: %w", key, err)
	}
	if err := CheckKey(key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[key]; ok {
		m.sorted = nil
	}
	delete(m.objects, key)
	return nil
}

// Copy makes to an object with the bytes and attributes of from. See [Copier].
func (m *Mem) Copy(ctx context.Context, from, to string) error {
	if err := CheckKey(to); err != nil {
		return err
	}
	o, err := m.get(ctx, "copy", from)
	if err != nil {
		return err
	}
	m.store(to, o.data, o.info.Attrs, false)
	return nil
}
