package engine

import (
	"cmp"
	"context"
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
	cursors map[Cursor]Cursor // by run, phase and shard
	events  []memoryEvent
	blobs   map[string][]byte
}

type memoryJob struct {
	job       myrmidon.Job
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

// Enqueue implements Queue.
func (m *Memory) Enqueue(_ context.Context, jobs []myrmidon.Job) error {
	if err := CheckJobs(jobs); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(jobs)
	m.wake()
	return nil
}

func (m *Memory) add(jobs []myrmidon.Job) {
	for _, j := range jobs {
		m.fresh = append(m.fresh, &memoryJob{job: j})
	}
}

func cursorKey(run string, phase, shard uint32) Cursor {
	return Cursor{Run: run, Phase: phase, Shard: shard}
}

// EnqueueSlice implements Queue.
func (m *Memory) EnqueueSlice(_ context.Context, jobs []myrmidon.Job, event Event, next Cursor) error {
	if err := CheckJobs(jobs); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := cursorKey(next.Run, next.Phase, next.Shard)
	if m.cursors[key].Seq != next.Seq {
		return ErrStaleSlice
	}
	m.add(jobs)
	m.append(event)
	if next.Run != "" {
		m.seq++
		next.Seq = m.seq
		m.cursors[key] = next
	}
	m.wake()
	return nil
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
		m.seq++
		j.delivery = m.seq
		j.leased = now.Add(m.Lease)
		out = append(out, &memoryDelivery{m: m, j: j, id: j.delivery})
	}
	return out, next, m.changed
}

// Retry implements Queue.
func (m *Memory) Retry(_ context.Context, job myrmidon.Job, notBefore time.Time) error {
	if err := CheckJobs([]myrmidon.Job{job}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retries = append(m.retries, &memoryJob{job: job, notBefore: notBefore})
	m.wake()
	return nil
}

// Purge implements Queue.
func (m *Memory) Purge(_ context.Context, run string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	of := func(j *memoryJob) bool { return j.job.Run == run }
	m.fresh = slices.DeleteFunc(m.fresh, of)
	m.retries = slices.DeleteFunc(m.retries, of)
	m.events = slices.DeleteFunc(m.events, func(e memoryEvent) bool { return e.event.Run == run })
	for key := range m.cursors {
		if key.Run == run {
			delete(m.cursors, key)
		}
	}
	return nil
}

type memoryDelivery struct {
	m  *Memory
	j  *memoryJob
	id uint64
}

func (d *memoryDelivery) Job() myrmidon.Job { return d.j.job }

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

// Append implements Log.
func (m *Memory) Append(_ context.Context, event Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.append(event)
	m.wake()
	return nil
}

func (m *Memory) append(event Event) {
	m.seq++
	m.events = append(m.events, memoryEvent{m.seq, event})
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

// Unset implements Blobs.
func (m *Memory) Unset(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, key)
	return nil
}

// Close implements Backend.
func (m *Memory) Close() error { return nil }
