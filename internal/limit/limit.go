// Package limit bounds how many small things (copies, requests) are under way at
// once, for each kind of job and each destination, over all jobs of the process, and
// finds the right number by itself.
//
//	l := limit.Of(ctx, "s3://bucket")    // once a job
//	p, err := l.Acquire(ctx)             // for each request; waits its turn
//	if err != nil {
//		return err
//	}
//	defer p.Release(limit.Failed)        // if nothing below says otherwise
//	...
//	p.Release(limit.OK)                  // or limit.Pushback(retryAfter)
//
// A [Set] holds the limiters of a process. A [Limiter] belongs to one kind and one
// destination; it hands out permits first come, first served, while fewer than its
// limit are held. The limit is adapted by two signals and no others: what the
// destination completes in a second, and what it pushes back.
//
//   - Climb: from [Config].Start the limit doubles each round trip as long as that
//     pays, that is, while doubling it raises the throughput by half or more in one of
//     two round trips: in the first, connections are made.
//   - Rest: at the limit that just gives the full throughput (by Little's law: the
//     throughput, times what one request takes where none queues) it stays for 8
//     round trips, then 16, 32 and 64, and tries in turn a quarter more and an eighth
//     less. What pays is kept: a quarter more starts a new climb, and an eighth less
//     that costs nothing is followed by a quarter and a half less.
//   - Push-back: what was being tried is taken back; if nothing was, the limit is
//     halved, once a round trip. It then goes half of the way to where the push-back
//     was, again and again, and past that place in steps of a thirty-second, with
//     rests between. A push-back that is the first, or comes after 128 successes, is no
//     congestion. At limits of 128 and more, nor is one for each 128 of the limit, which
//     takes the limit down by one only. At a limit of 1 a push-back means a pause: 50 ms,
//     doubled up to one second until something succeeds.
//
// Latency as such is no signal: objects of a kilobyte and of a gigabyte share a
// limiter. A limit that is not used up teaches nothing and does not change.
package limit

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Outcome is what became of the thing that a permit was for. The zero Outcome is
// [Failed].
type Outcome int64

const (
	// OK is a success, and anything else that took its normal course.
	OK Outcome = -1
	// Failed says nothing about the destination's load (a local error, a cancelled
	// request). It neither counts as throughput nor lowers the limit.
	Failed Outcome = 0
)

// Pushback is a destination's wish for less: 503 SlowDown, 429, a timeout. No permit
// of the limiter is handed out until after has passed, at most [Config].MaxHold;
// after <= 0 means that the destination named no time.
func Pushback(after time.Duration) Outcome { return Outcome(min(max(after, 0), maxHold)) + 1 }

// after is what a push-back asks for.
func (o Outcome) after() time.Duration { return time.Duration(o - 1) }

// Limiter hands out permits for one kind and destination. It is made by a [Set] or
// by [Of], has no goroutine, and is safe for concurrent use.
type Limiter struct {
	kind, destination string
	maxHold           time.Duration

	mu        sync.Mutex
	control   control
	inFlight  int
	queue     waiters
	heldUntil time.Duration // on the control's clock; 0 if not held
	wake      *time.Timer   // ends a hold that somebody waits for; nil until needed
	waking    bool          // wake is armed
	pushbacks uint64
	completed uint64
	parts     parts
}

func newLimiter(kind, destination string, start, most int, hold time.Duration) *Limiter {
	return &Limiter{kind: kind, destination: destination, maxHold: hold, control: newControl(start, most)}
}

// Permit is the right to do one thing now. It must be released, and not be copied.
type Permit struct {
	l    *Limiter
	cuts uint32  // the control's cuts when the permit was handed out
	part *part   // of AcquireFor, else nil
	own  *Permit // of the part's own limiter, if it had one
}

// Acquire waits for a permit, behind those who came before. It fails only when ctx
// is done: the error then wraps ctx's, and no permit is held.
func (l *Limiter) Acquire(ctx context.Context) (Permit, error) {
	if err := ctx.Err(); err != nil {
		return Permit{}, l.wrap(err)
	}
	l.mu.Lock()
	if l.queue.head == nil && l.inFlight < l.control.limit && !l.held() {
		p := l.take()
		l.control.mark(l.inFlight)
		l.mu.Unlock()
		return p, nil
	}
	w := l.queue.push()
	l.armWake()
	l.mu.Unlock()

	select {
	case <-w.ready:
		p := w.permit
		l.mu.Lock()
		l.queue.recycle(w)
		l.mu.Unlock()
		return p, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.ready: // the permit came at the same moment: the next one gets it
		l.inFlight--
		l.handOut()
	default:
		l.queue.remove(w)
	}
	l.queue.recycle(w)
	return Permit{}, l.wrap(ctx.Err())
}

func (l *Limiter) wrap(err error) error {
	return fmt.Errorf("limit: wait for a permit for %s to %q: %w", l.kind, l.destination, err)
}

// Release gives the permit back and says what became of it. A second Release does
// nothing, so that one can be deferred.
func (p *Permit) Release(o Outcome) {
	l := p.l
	if l == nil {
		return
	}
	p.l = nil
	if p.own != nil {
		p.own.Release(o)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	if o > 0 {
		l.pushbacks++
	}
	if p.part != nil && l.told(p.part, o) {
		o = Failed // says nothing of the other parts
	}
	switch {
	case o == OK:
		l.completed++
		l.control.completed()
	case o > 0:
		pause := l.control.pushedBack(*p)
		l.hold(max(pause, min(o.after(), l.maxHold)))
	}
	l.handOut()
}

// hold keeps all permits back for d. l.mu is held, or l is new.
func (l *Limiter) hold(d time.Duration) {
	if d > 0 {
		l.heldUntil = max(l.heldUntil, l.control.now()+d)
	}
}

// take hands out one permit. l.mu is held.
func (l *Limiter) take() Permit {
	l.inFlight++
	return Permit{l: l, cuts: l.control.cuts}
}

// held reports whether permits are held back now. l.mu is held.
func (l *Limiter) held() bool {
	if l.heldUntil == 0 {
		return false
	}
	if l.control.now() < l.heldUntil {
		return true
	}
	l.heldUntil = 0
	return false
}

// handOut gives permits to those who wait, in their order. l.mu is held.
func (l *Limiter) handOut() {
	if l.queue.head != nil && l.inFlight < l.control.limit {
		if l.held() {
			l.armWake()
		} else {
			for l.queue.head != nil && l.inFlight < l.control.limit {
				w := l.queue.pop()
				w.permit = l.take()
				w.ready <- struct{}{}
			}
		}
	}
	l.control.mark(l.inFlight)
}

// armWake sees to it that somebody hands out permits when a hold is over: during one,
// nothing may be in flight whose release would. l.mu is held.
func (l *Limiter) armWake() {
	if l.waking || !l.held() {
		return
	}
	l.waking = true
	d := l.heldUntil - l.control.now()
	if l.wake == nil {
		l.wake = time.AfterFunc(d, l.awake)
	} else {
		l.wake.Reset(d)
	}
}

// awake hands out what a hold kept back. The hold may have grown meanwhile: handOut
// then arms the timer again.
func (l *Limiter) awake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waking = false
	l.handOut()
}

// waiter is one who waits for a permit.
type waiter struct {
	ready      chan struct{} // holds one token when permit is set
	permit     Permit
	prev, next *waiter
}

// waiters is a queue, first in, first out, with the waiters that can be used again.
type waiters struct {
	head, tail *waiter
	n          int
	free       *waiter // linked by next
	nfree      int
}

// freeWaiters bounds what is kept for reuse: 1,024 waiters are 200 KB.
const freeWaiters = 1024

func (q *waiters) push() *waiter {
	w := q.free
	if w == nil {
		w = &waiter{ready: make(chan struct{}, 1)}
	} else {
		q.free, w.next = w.next, nil
		q.nfree--
	}
	w.prev = q.tail
	if q.tail == nil {
		q.head = w
	} else {
		q.tail.next = w
	}
	q.tail = w
	q.n++
	return w
}

func (q *waiters) pop() *waiter {
	w := q.head
	q.remove(w)
	return w
}

func (q *waiters) remove(w *waiter) {
	if w.prev == nil {
		q.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	q.n--
}

// recycle keeps w, which is out of the queue and whose token is taken.
func (q *waiters) recycle(w *waiter) {
	w.permit = Permit{}
	if q.nfree < freeWaiters {
		w.next, q.free = q.free, w
		q.nfree++
	}
}
