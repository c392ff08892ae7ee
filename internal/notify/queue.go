package notify

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"myrmidon"
)

// depthEvery is how often a queue is asked how many messages wait.
const depthEvery = 15 * time.Second

// followed is a queue that a feed follows.
type followed struct {
	*Queue
	depth  atomic.Int64
	asked  time.Time
	denied bool // the queue does not say how many messages it has
}

// Queue returns a feed of a queue's messages; the address is that of [NewQueue]. A message that
// is no notification stays in the queue, for its redrive policy; so does one that is only in
// part, after its objects are done.
func (c Config) Queue(ctx context.Context, address string) (*Feed, error) {
	q, err := NewQueue(ctx, address)
	if err != nil {
		return nil, err
	}
	return c.feed("sqs://"+strings.TrimPrefix(q.url, "https://"), &followed{Queue: q}), nil
}

func (q *followed) waiting() int64 { return q.depth.Load() }

func (*followed) end() error { return nil } // the queue knows

func (q *followed) follow(f *Feed) error {
	// As many messages are held as there are slots: others may have the rest.
	held := make(chan struct{}, cap(f.cfg.Slots))
	for {
		select {
		case held <- struct{}{}:
			<-held
		case <-f.taking.Done():
			return nil
		}
		messages, err := q.Receive(f.taking, cap(held)-len(held))
		if err != nil {
			return err
		}
		f.well()
		for _, m := range messages {
			held <- struct{}{}
			f.calls.Go(func() {
				defer func() { <-held }()
				q.message(f, m)
			})
		}
		q.ask(f)
	}
}

// ask looks how many messages wait, now and then.
func (q *followed) ask(f *Feed) {
	if q.denied || time.Since(q.asked) < depthEvery {
		return
	}
	q.asked = time.Now()
	n, err := q.Depth(f.taking)
	if err == nil {
		q.depth.Store(n)
		return
	}
	if q.denied = myrmidon.IsPermanent(err); q.denied {
		q.depth.Store(0)
		f.cfg.Log.Info("the queue does not say how many messages wait", "queue", q.url, "err", err)
	}
}

// message has the objects of a message done, and deletes it then.
func (q *followed) message(f *Feed, m Message) {
	log := f.cfg.Log.With("queue", q.url, "message", m.ID)
	stop := q.Keep(f.working, m, func(err error) { log.Warn("a message could not be kept", "err", err) })
	defer stop()
	objects, strange := Parse(m.Body)
	f.told(len(objects))
	var failed error
	for _, o := range objects {
		err := f.slot()
		if err == nil {
			err = f.do(f.working, o)
			f.release()
		}
		f.over(1)
		failed = errors.Join(failed, err) // the others are done nevertheless
	}
	stop()
	after := context.WithoutCancel(f.working)
	switch {
	case failed != nil:
		// Longer each time: a redrive policy counts how often a message was received, and what is
		// wrong for an hour should not move a queue aside.
		wait := f.cfg.Again << min(max(m.Times-1, 0), 5)
		if errors.Is(failed, errEnding) {
			wait = 0 // for others
		} else {
			log.Warn("an object is tried again", "err", failed)
		}
		if err := q.Hide(after, m, wait); err != nil {
			log.Warn("a message could not be given back", "err", err)
		}
	case strange != nil:
		f.strange()
		log.Warn("a message is left in the queue", "err", strange)
	default:
		if err := q.Delete(after, m); err != nil {
			log.Warn("a message could not be deleted and comes again", "err", err)
		}
	}
}
