package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"myrmidon"
)

// Memory is a Backend that ends with its process: for tests and for handlers that
// run where no run needs to survive. Leases end Lease after a pull.
type Memory struct {
	Lease time.Duration // default 30 s

	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever something can be pulled or read
	seq     uint64
	fresh   []*memoryJob
	retries []*memoryJob
	held    []*memoryJob
	cursors map[Cursor]Cursor // by run, phase and shard
	events  []memoryEvent
	blobs   map[string][]byte
}

type memoryJob struct {
	job       myrmidon.Job
	seq       uint64
	notBefore time.Time
	leased    time.Time // end of the lease; zero when free
	delivery  uint64
	done      bool
}

type memoryEvent struct {
	seq   uint64
	event Event
}

var _ Backend = (*Memory)(nil)

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{
		Lease:   30 * time.Second,
		changed: make(chan struct{}),
		cursors: make(map[Cursor]Cursor),
		blobs:   make(map[string][]byte),
	}
}

// wake must be called with the lock held.
func (m *Memory) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Memory) add(list *[]*memoryJob, jobs ...myrmidon.Job) {
	for _, j := range jobs {
		m.seq++
		*list = append(*list, &memoryJob{job: j, seq: m.seq})
	}
}

func cursorKey(run string, phase, shard uint32) Cursor {
	return Cursor{Run: run, Phase: phase, Shard: shard}
}

// Commit implements Queue.
func (m *Memory) Commit(_ context.Context, b Batch) error {
	if err := CheckBatch(b); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.Next.Run != "" {
		key := cursorKey(b.Next.Run, b.Next.Phase, b.Next.Shard)
		if m.cursors[key].Seq != b.Next.Seq {
			return ErrStaleSlice
		}
		m.seq++
		b.Next.Seq = m.seq
		m.cursors[key] = b.Next
	}
	m.add(&m.fresh, b.Jobs...)
	m.add(&m.held, b.Held...)
	for _, a := range b.Again {
		m.seq++
		m.retries = append(m.retries, &memoryJob{job: a.Job, seq: m.seq, notBefore: time.Now().Add(a.Wait)})
	}
	for _, e := range b.Events {
		m.seq++
		m.events = append(m.events, memoryEvent{m.seq, e})
	}
	m.wake()
	return nil
}

// Unhold implements Queue.
func (m *Memory) Unhold(_ context.Context, run string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := len(m.fresh)
	m.held = slices.DeleteFunc(m.held, func(j *memoryJob) bool {
		if j.job.Run == run {
			m.fresh = append(m.fresh, j)
		}
		return j.job.Run == run
	})
	m.wake()
	return len(m.fresh) - before, nil
}

// Cursor implements Queue.
func (m *Memory) Cursor(_ context.Context, run string, phase, shard uint32) (Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursors[cursorKey(run, phase, shard)], nil
}

// Pull implements Queue.
func (m *Memory) Pull(ctx context.Context, req PullRequest) ([]Delivery, error) {
	deadline := time.Now().Add(req.Wait)
	for {
		out, next, changed := m.take(req)
		if len(out) > 0 {
			return out, nil
		}
		if req.Wait <= 0 {
			return nil, ctx.Err()
		}
		wait := time.Until(deadline)
		if wait <= 0 {
			return nil, ctx.Err()
		}
		if !next.IsZero() {
			wait = min(wait, max(time.Until(next), time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// take hands out what is free now; next is when something may become free by itself.
func (m *Memory) take(req PullRequest) (out []Delivery, next time.Time, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := &m.fresh
	if req.Retries {
		list = &m.retries
	}
	*list = slices.DeleteFunc(*list, func(j *memoryJob) bool { return j.done })
	now := time.Now()
	for _, j := range *list {
		if len(out) >= req.N {
			break
		}
		if LaneOf(j.job) != req.Lane {
			continue
		}
		free := j.notBefore
		if j.leased.After(free) {
			free = j.leased
		}
		if free.After(now) {
			if next.IsZero() || free.Before(next) {
				next = free
			}
			continue
		}
		again := j.delivery > 0
		m.seq++
		j.delivery = m.seq
		j.leased = now.Add(m.Lease)
		out = append(out, &memoryDelivery{m: m, j: j, id: j.delivery, again: again})
	}
	return out, next, m.changed
}

// Purge implements Queue.
func (m *Memory) Purge(_ context.Context, run string, through uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := func(seq uint64) bool { return through == 0 || seq <= through }
	of := func(j *memoryJob) bool { return j.job.Run == run && old(j.seq) }
	m.fresh = slices.DeleteFunc(m.fresh, of)
	m.retries = slices.DeleteFunc(m.retries, of)
	m.held = slices.DeleteFunc(m.held, of)
	m.events = slices.DeleteFunc(m.events, func(e memoryEvent) bool { return e.event.Run == run && old(e.seq) })
	for key, c := range m.cursors {
		if key.Run == run && old(c.Seq) {
			delete(m.cursors, key)
		}
	}
	return nil
}

type memoryDelivery struct {
	m  *Memory
	j  *memoryJob
	id uint64

	again bool
}

func (d *memoryDelivery) Job() myrmidon.Job { return d.j.job }
func (d *memoryDelivery) Again() bool       { return d.again }

// update calls fn unless the lease has gone to another delivery.
func (d *memoryDelivery) update(fn func()) error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.j.delivery == d.id {
		fn()
		d.m.wake()
	}
	return nil
}

func (d *memoryDelivery) Extend(context.Context) error {
	return d.update(func() { d.j.leased = time.Now().Add(d.m.Lease) })
}

func (d *memoryDelivery) Ack(context.Context) error {
	return d.update(func() { d.j.done = true })
}

func (d *memoryDelivery) Release(context.Context) error {
	return d.update(func() { d.j.leased = time.Time{} })
}

// Read implements Log.
func (m *Memory) Read(ctx context.Context, run string, after uint64, follow bool, fn func(uint64, Event) error) error {
	for {
		m.mu.Lock()
		i, _ := slices.BinarySearchFunc(m.events, after+1, func(e memoryEvent, seq uint64) int {
			return cmp.Compare(e.seq, seq)
		})
		batch := slices.Clone(m.events[i:])
		changed := m.changed
		m.mu.Unlock()
		for _, e := range batch {
			after = e.seq
			if e.event.Run != run {
				continue
			}
			if err := fn(e.seq, e.event); err != nil {
				return err
			}
		}
		if len(batch) > 0 {
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Set implements Blobs.
func (m *Memory) Set(_ context.Context, key string, value []byte) error {
	if err := CheckBlob(key, value); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[key] = slices.Clone(value)
	return nil
}

// Value implements Blobs.
func (m *Memory) Value(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.blobs[key]
	if !ok {
		return nil, fmt.Errorf("engine: blob %s: %w", key, fs.ErrNotExist)
	}
	return slices.Clone(v), nil
}

// Keys implements Blobs.
func (m *Memory) Keys(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for k := range m.blobs {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// Each implements Blobs.
func (m *Memory) Each(ctx context.Context, prefix string, fn func(string, []byte) error) error {
	keys, err := m.Keys(ctx, prefix)
	if err != nil {
		return err
	}
	for _, k := range keys {
		v, err := m.Value(ctx, k)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = fn(k, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Unset implements Blobs.
func (m *Memory) Unset(_ context.Context, keys ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		delete(m.blobs, k)
	}
	return nil
}

// Close implements Backend.
func (m *Memory) Close() error { return nil }
