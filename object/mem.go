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
	"slices"
	"strings"
	"sync"
	"time"
)

// Mem is a Store in memory, for tests and small things. It promises what other
// stores do, keeps attributes, and copies what it is given; see [NewMem]. It refuses
// the keys that a folder would refuse, so that tests notice them, but takes "a"
// beside "a/b". It is also a [Copier].
type Mem struct {
	mu      sync.RWMutex
	objects map[string]memObject
}

// memObject is one version of an object. Its bytes never change.
type memObject struct {
	data []byte
	info Info
}

var (
	_ Store  = (*Mem)(nil)
	_ Copier = (*Mem)(nil)
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
	m.store(key, buf.Bytes(), attrs)
	return nil
}

func (m *Mem) store(key string, data []byte, attrs Attrs) {
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
	m.objects[key] = memObject{data, info}
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
		m.mu.RLock()
		var keys []string
		for key := range m.objects {
			if strings.HasPrefix(key, prefix) && key > after {
				keys = append(keys, key)
			}
		}
		m.mu.RUnlock()
		slices.Sort(keys)
		for _, key := range keys {
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
	m.store(to, o.data, o.info.Attrs)
	return nil
}
