package s3stub

import (
	"slices"
	"sort"
	"sync"
)

// bucket is a bucket: stored objects, and perhaps a synthetic set.
type bucket struct {
	name, region string
	created      int64

	mu      sync.RWMutex
	keys    keyset
	syn     *synthetic // nil if the bucket has none; keys has none of the present ones
	uploads map[string]*upload
}

// get returns the object of that key, or nil.
func (b *bucket) get(key string) *object {
	i := b.index(key)
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.lookup(key, i)
}

// index returns the number of a key in the synthetic set, or -1. It needs no lock,
// because keys of synthetic sets do not change.
func (b *bucket) index(key string) int {
	if b.syn == nil {
		return -1
	}
	return b.syn.index(key)
}

// lookup is get with the lock held and the index known.
func (b *bucket) lookup(key string, i int) *object {
	if i >= 0 && b.syn.present.has(i) {
		return b.syn.object(key)
	}
	return b.keys.get(key)
}

// put stores an object, if check (which may be nil) has nothing against what is there,
// which may be nil.
func (b *bucket) put(o *object, check func(old *object) *apiError) *apiError {
	i := b.index(o.key)
	b.mu.Lock()
	defer b.mu.Unlock()
	if check != nil {
		if e := check(b.lookup(o.key, i)); e != nil {
			return e
		}
	}
	b.store(o, i)
	return nil
}

// store is put with the lock held and the index known.
func (b *bucket) store(o *object, i int) {
	if i >= 0 {
		if b.syn.take(o, i) {
			b.keys.remove(o.key)
			return
		}
		b.syn.present.clear(i, b.syn.n)
	}
	b.keys.put(o)
}

// remove deletes an object, if check (which may be nil) has nothing against what is
// there, which may be nil.
func (b *bucket) remove(key string, check func(old *object) *apiError) *apiError {
	i := b.index(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	if check != nil {
		if e := check(b.lookup(key, i)); e != nil {
			return e
		}
	}
	if i >= 0 {
		b.syn.present.clear(i, b.syn.n)
	}
	b.keys.remove(key)
	return nil
}

// empty reports whether the bucket holds nothing.
func (b *bucket) empty() bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.keys.n == 0 && (b.syn == nil || b.syn.present.count(b.syn.n) == 0)
}

func (b *bucket) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.syn != nil {
		b.syn.forget()
	}
}

// keyset is objects in byte order of their keys: blocks of at most blockLen, each in
// order, none empty. Inserting moves half a block; ascending inserts fill blocks up.
type keyset struct {
	blocks [][]*object
	n      int
}

const blockLen = 512

// find returns where the first object with a key >= key is: a block and a place in it.
// Past the last one, the block is len(k.blocks).
func (k *keyset) find(key string) (block, at int) {
	block = sort.Search(len(k.blocks), func(i int) bool {
		b := k.blocks[i]
		return b[len(b)-1].key >= key
	})
	if block < len(k.blocks) {
		b := k.blocks[block]
		at = sort.Search(len(b), func(i int) bool { return b[i].key >= key })
	}
	return block, at
}

func (k *keyset) get(key string) *object {
	if block, at := k.find(key); block < len(k.blocks) && k.blocks[block][at].key == key {
		return k.blocks[block][at]
	}
	return nil
}

func (k *keyset) put(o *object) {
	block, at := k.find(o.key)
	if block < len(k.blocks) && k.blocks[block][at].key == o.key {
		k.blocks[block][at] = o
		return
	}
	k.n++
	if block == len(k.blocks) {
		if block == 0 || len(k.blocks[block-1]) == blockLen {
			k.blocks = append(k.blocks, append(make([]*object, 0, blockLen), o))
			return
		}
		k.blocks[block-1] = append(k.blocks[block-1], o)
		return
	}
	b := k.blocks[block]
	if len(b) == blockLen {
		half := append(make([]*object, 0, blockLen), b[blockLen/2:]...)
		clear(b[blockLen/2:])
		b = b[:blockLen/2]
		k.blocks[block] = b
		k.blocks = slices.Insert(k.blocks, block+1, half)
		if at > blockLen/2 {
			block, at, b = block+1, at-blockLen/2, half
		}
	}
	k.blocks[block] = slices.Insert(b, at, o)
}

func (k *keyset) remove(key string) {
	block, at := k.find(key)
	if block == len(k.blocks) || k.blocks[block][at].key != key {
		return
	}
	k.n--
	k.blocks[block] = slices.Delete(k.blocks[block], at, at+1)
	if len(k.blocks[block]) == 0 {
		k.blocks = slices.Delete(k.blocks, block, block+1)
	}
}

// iter goes through a bucket's objects in byte order, stored and synthetic. The
// bucket's lock is held as long as it is used.
type iter struct {
	b         *bucket
	block, at int
	i         int    // of the synthetic set; its length past the end
	synKey    []byte // of i
	scratch   []byte
}

func newIter(b *bucket) *iter { return &iter{b: b} }

// seek goes to the first object with a key >= from.
func (it *iter) seek(from string) {
	it.block, it.at = it.b.keys.find(from)
	if syn := it.b.syn; syn != nil {
		var i int
		i, it.scratch = syn.search(from, it.scratch)
		it.place(i)
	}
}

// place goes to the first present one of the synthetic set from i on.
func (it *iter) place(i int) {
	syn := it.b.syn
	if it.i = syn.present.next(i, syn.n); it.i < syn.n {
		it.synKey = syn.key(it.synKey[:0], it.i)
	}
}

func (it *iter) stored() *object {
	if it.block >= len(it.b.keys.blocks) {
		return nil
	}
	return it.b.keys.blocks[it.block][it.at]
}

func (it *iter) synthetic() bool { return it.b.syn != nil && it.i < it.b.syn.n }

func (it *iter) valid() bool { return it.stored() != nil || it.synthetic() }

// object returns the stored object here, or nil where a synthetic one comes first.
func (it *iter) object() *object {
	o := it.stored()
	if o != nil && it.synthetic() && string(it.synKey) < o.key {
		return nil
	}
	return o
}

// key returns the key here, until the iterator moves.
func (it *iter) key() []byte { return it.keyOf(it.object()) }

// keyOf is key where the object here is known.
func (it *iter) keyOf(o *object) []byte {
	if o != nil {
		it.scratch = append(it.scratch[:0], o.key...)
		return it.scratch
	}
	return it.synKey
}

func (it *iter) next() { it.pass(it.object()) }

// pass is next where the object here is known.
func (it *iter) pass(o *object) {
	if o == nil {
		it.place(it.i + 1)
		return
	}
	if it.at++; it.at == len(it.b.keys.blocks[it.block]) {
		it.block, it.at = it.block+1, 0
	}
}

// successor returns the first string after all that begin with prefix, in byte order,
// and whether there is one.
func successor(prefix string) (string, bool) {
	last := len(prefix) - 1
	for last >= 0 && prefix[last] == 0xff {
		last--
	}
	if last < 0 {
		return "", false
	}
	return prefix[:last] + string([]byte{prefix[last] + 1}), true
}
