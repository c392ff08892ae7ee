package sink

import (
	"context"
	"fmt"
	"sync"
	"time"

	"myrmidon"
)

// item is a record that is held.
type item struct {
	Record
	n        uint64
	size     int64
	attempts int       // failures of its own
	from     *chunk    // that holds Data; nil if it has memory of its own
	sent     bool      // it was handed to the sink before
	at       time.Time // when it was added, if batches linger; when it is due, after a failure
}

// lane is a queue of records, and what of it has failed. All of it is guarded by the batcher's
// lock.
type lane struct {
	b     *Batcher
	wake  sync.Cond
	fresh []item // from head on
	head  int
	bytes int64  // of fresh
	again []item // failed, in the order of n

	hold     time.Time // nothing is sent before
	failures int       // of whole batches, one after the other
	epoch    int       // counts the holds
}

// push adds a fresh record.
func (l *lane) push(it item) {
	if l.b.cfg.Linger > 0 {
		it.at = time.Now()
	}
	if l.head > 1024 && l.head*2 > len(l.fresh) {
		n := copy(l.fresh, l.fresh[l.head:])
		clear(l.fresh[n:])
		l.fresh, l.head = l.fresh[:n], 0
	}
	l.fresh = append(l.fresh, it)
	l.bytes += it.size - overhead
	// Senders that wait for a batch to become full look only when it may be.
	if queued := len(l.fresh) - l.head; l.b.cfg.Linger == 0 || queued == 1 || queued >= l.b.cfg.Records || l.bytes >= int64(l.b.cfg.Bytes) {
		l.wake.Signal()
	}
}

// run sends batches until the batcher ends.
func (b *Batcher) run(ctx context.Context, l *lane) {
	var batch []item
	var records []Record
	for {
		var epoch int
		batch, epoch = b.take(l, batch[:0])
		if len(batch) == 0 {
			return
		}
		records = records[:0]
		for _, it := range batch {
			records = append(records, it.Record)
		}
		err := b.sink.Send(ctx, records)
		b.done(l, batch, records, epoch, err)
		clear(batch)
		clear(records)
	}
}

// take waits for a batch. It is empty when the batcher has ended.
func (b *Batcher) take(l *lane, batch []item) ([]item, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.err == nil {
		now := time.Now()
		ready, when := l.ready(now)
		if ready {
			batch = l.cut(batch, now)
			b.stats.Batches++
			for i := range batch {
				if batch[i].sent {
					b.stats.Retried++
				} else {
					b.stats.Sent++
					batch[i].sent = true
				}
			}
			if len(l.fresh) > l.head || len(l.again) > 0 {
				l.wake.Signal() // for the lane's other senders
			}
			return batch, l.epoch
		}
		if when.IsZero() {
			l.wake.Wait()
			continue
		}
		timer := time.AfterFunc(when.Sub(now), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			l.wake.Broadcast()
		})
		l.wake.Wait()
		timer.Stop()
	}
	return nil, 0
}

// ready reports whether there is a batch to send, and else when there will be if nothing
// happens; the zero time means never.
func (l *lane) ready(now time.Time) (bool, time.Time) {
	cfg := &l.b.cfg
	queued := len(l.fresh) - l.head
	if queued == 0 && len(l.again) == 0 {
		return false, time.Time{}
	}
	if now.Before(l.hold) {
		return false, l.hold
	}
	var when time.Time
	if cfg.Ordered && len(l.again) > 0 { // what comes after has to wait
		for _, it := range l.again {
			if it.at.After(when) {
				when = it.at
			}
		}
		return !now.Before(when), when
	}
	for _, it := range l.again {
		if !now.Before(it.at) {
			return true, time.Time{}
		}
		when = soonest(when, it.at)
	}
	if queued == 0 {
		return false, when
	}
	first := l.fresh[l.head]
	full := queued >= cfg.Records || l.bytes >= int64(cfg.Bytes)
	if cfg.Linger <= 0 || full || l.b.closing || l.b.blocked > 0 || first.n <= l.b.flushTo || !now.Before(first.at.Add(cfg.Linger)) {
		return true, time.Time{}
	}
	return false, soonest(when, first.at.Add(cfg.Linger))
}

// soonest returns the earlier moment; a zero one is none.
func soonest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// cut takes a batch: first what has failed and is due, then what is fresh.
func (l *lane) cut(batch []item, now time.Time) []item {
	cfg := &l.b.cfg
	var bytes int64
	var keys map[string]bool // those in the batch, where it may hold one record of each
	if cfg.Ordered && !l.b.inOrder {
		keys = make(map[string]bool)
	}
	// fits takes the item if there is room. It reports whether to go on, too.
	fits := func(it item) (taken, more bool) {
		size := it.size - overhead
		if len(batch) >= cfg.Records || len(batch) > 0 && bytes+size > int64(cfg.Bytes) {
			return false, false
		}
		if keys != nil {
			if keys[it.Key] {
				return false, true
			}
			keys[it.Key] = true
		}
		batch, bytes = append(batch, it), bytes+size
		return true, true
	}
	// In an ordered lane all of again is due, and what does not fit keeps its key in keys.
	rest := l.again[:0]
	more := true
	for _, it := range l.again {
		taken := false
		if more && (cfg.Ordered || !now.Before(it.at)) {
			taken, more = fits(it)
		}
		if !taken {
			rest = append(rest, it)
		}
	}
	clear(l.again[len(rest):])
	l.again = rest
	skipped, i := l.head, l.head
	for limit := l.head + 4*cfg.Records; more && i < len(l.fresh) && i < limit; i++ {
		var taken bool
		it := l.fresh[i]
		if taken, more = fits(it); taken {
			l.bytes -= it.size - overhead
		} else if more {
			l.fresh[skipped] = it
			skipped++
		} else {
			break
		}
	}
	// Those that were skipped come right before those that were not looked at.
	n := skipped - l.head
	copy(l.fresh[i-n:i], l.fresh[l.head:skipped])
	clear(l.fresh[l.head : i-n])
	l.head = i - n
	if l.head == len(l.fresh) {
		l.fresh, l.head = l.fresh[:0], 0
	}
	return batch
}

// done settles what a Send has taken, and keeps the rest for later. records is batch's.
func (b *Batcher) done(l *lane, batch []item, records []Record, epoch int, err error) {
	partial, ok := asPartial(err, len(batch))
	switch {
	case err == nil:
		partial = &PartialError{Total: len(batch)}
	case !ok:
		b.doneNone(l, batch, epoch, err)
		return
	}
	now := time.Now()
	keep, isParked, parkErr := b.judge(batch, partial.Failed, now)
	acked, failed := 0, partial.Failed
	for i := range batch { // records becomes those that were acked
		if len(failed) > 0 && failed[0].Index == i {
			failed = failed[1:]
			continue
		}
		records[acked] = records[i]
		acked++
	}
	if acked > 0 && b.cfg.Acked != nil {
		b.cfg.Acked(records[:acked])
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	failed = partial.Failed
	for i, it := range batch {
		wasAcked := len(failed) == 0 || failed[0].Index != i
		switch {
		case wasAcked:
			b.stats.Acked++
			b.stats.Bytes += uint64(len(it.Data))
		case isParked[i]:
			b.stats.Failed++
		}
		if !wasAcked {
			failed = failed[1:]
		}
		if wasAcked || isParked[i] {
			b.stats.Held -= it.size
			b.marks.settle(it.n)
		}
		b.free(it.from) // what was not taken has moved
	}
	if parkErr != nil {
		b.fail(parkErr)
		return
	}
	if acked > 0 {
		l.failures = 0
		b.stuck = time.Time{}
	}
	if len(partial.Failed) > 0 {
		b.note(err)
	}
	l.keep(keep)
	if len(keep) > 0 && acked == 0 {
		b.lose(now, err)
	}
	b.room.Broadcast()
	b.settled.Broadcast()
	l.wake.Signal()
}

// judge parks what is never taken, and returns the rest of what failed, each with the time when
// it is due. An error is that of parking.
func (b *Batcher) judge(batch []item, failed []Failed, now time.Time) (keep []item, isParked map[int]bool, err error) {
	isParked = make(map[int]bool)
	for _, f := range failed {
		it := batch[f.Index]
		after := myrmidon.AsFailure(f.Err).After
		if after <= 0 {
			it.attempts++
		}
		if myrmidon.IsPermanent(f.Err) || it.attempts >= b.cfg.Attempts {
			why := f.Err
			if !myrmidon.IsPermanent(why) {
				why = fmt.Errorf("given up after %d attempts: %w", it.attempts, why)
			}
			if err := b.park(it.Record, why); err != nil {
				return keep, isParked, err
			}
			isParked[f.Index] = true
			continue
		}
		it.at = now.Add(max(after, b.backoff(max(1, it.attempts))))
		it.Data, it.from = append([]byte(nil), it.Data...), nil // or it would keep its neighbours' memory
		keep = append(keep, it)
	}
	return keep, isParked, nil
}

// doneNone keeps a whole batch for later.
func (b *Batcher) doneNone(l *lane, batch []item, epoch int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return
	}
	b.note(err)
	if myrmidon.IsPermanent(err) {
		b.fail(err)
		return
	}
	now := time.Now()
	if l.epoch == epoch { // else another sender has met the same failure
		l.epoch++
		l.failures++
		l.hold = now.Add(max(myrmidon.AsFailure(err).After, b.backoff(l.failures)))
	}
	l.keep(batch) // each is due: it was sent
	b.lose(now, err)
	l.wake.Signal()
}

// lose notes that nothing was taken, and ends the batcher when its patience does.
func (b *Batcher) lose(now time.Time, err error) {
	if b.stuck.IsZero() {
		b.stuck = now
	}
	if waited := now.Sub(b.stuck); b.cfg.Patience > 0 && waited >= b.cfg.Patience {
		err = fmt.Errorf("sink: given up, since nothing was taken for %s: %w", waited.Round(time.Second), err)
		b.fail(myrmidon.WithHint(err, "look at the destination; what was not acknowledged is sent when the command is started again"))
	}
}

// keep puts items back, in the order in which they were added.
func (l *lane) keep(items []item) {
	if len(items) == 0 {
		return
	}
	merged := make([]item, 0, len(l.again)+len(items))
	a := l.again
	for len(a) > 0 && len(items) > 0 {
		if a[0].n < items[0].n {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, items = append(merged, items[0]), items[1:]
		}
	}
	l.again = append(append(merged, a...), items...)
}

// marks says which records are settled: the first ones all, of those after them some.
type marks struct {
	first uint64
	done  []bool // of record first+1 and so on, from head
	head  int
}

// add returns the number of a new record.
func (m *marks) add() uint64 {
	m.done = append(m.done, false)
	return m.first + uint64(len(m.done)-m.head)
}

func (m *marks) settle(n uint64) {
	m.done[m.head+int(n-m.first)-1] = true
	for m.head < len(m.done) && m.done[m.head] {
		m.head++
		m.first++
	}
	if m.head > 4096 && m.head*2 > len(m.done) {
		m.done = append(m.done[:0], m.done[m.head:]...)
		m.head = 0
	}
}
