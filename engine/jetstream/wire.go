package jetstream

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"myrmidon/engine"
)

// wire carries what passes in numbers: commits, pulls and acknowledgements. The client
// library carries the rest, and all of it to a broker that is elsewhere.
type wire interface {
	// send publishes messages in their order and waits for no answer.
	send(msgs ...*nats.Msg) error
	// post sends what nobody waits for, together with more of it.
	post(subject string, data []byte) error
	// listen returns a subject of its own. What is sent to it arrives in in, until stop
	// is called; what finds no room is dropped.
	listen(in chan *nats.Msg) (subject string, stop func(), err error)
	// flush returns when the server has taken in all that was sent.
	flush(wait time.Duration) error
}

// library is the wire of the client library.
type library struct{ conn *nats.Conn }

func (l library) send(msgs ...*nats.Msg) error {
	for _, m := range msgs {
		if err := l.conn.PublishMsg(m); err != nil {
			return err
		}
	}
	return nil
}

func (l library) post(subject string, data []byte) error { return l.conn.Publish(subject, data) }

func (l library) listen(in chan *nats.Msg) (subject string, stop func(), err error) {
	subject = l.conn.NewInbox()
	sub, err := l.conn.ChanSubscribe(subject, in)
	if err != nil {
		return "", nil, err
	}
	return subject, func() { _ = sub.Unsubscribe() }, nil // the connection may be closed
}

func (l library) flush(wait time.Duration) error { return l.conn.FlushTimeout(wait) }

// asker is where the answers to one request at a time arrive: to a pull, jobs under their
// own subjects and a status at the end. The client library's fetches make one, and a
// goroutine, for each request, and cannot both take what is there and wait for more; its
// requests pass through a goroutine that all share.
type asker struct {
	inbox string
	in    chan *nats.Msg
	stop  func()
}

// next returns what comes next; nil if one of the others ends before.
func (a *asker) next(ctx context.Context, broken <-chan struct{}, late <-chan time.Time) *nats.Msg {
	select {
	case m := <-a.in: // there already: the cost of waiting for four is saved
		return m
	default:
	}
	select {
	case m := <-a.in:
		return m
	case <-ctx.Done():
	case <-broken:
	case <-late:
	}
	return nil
}

// askers are those that no request uses.
type askers struct {
	mu   sync.Mutex
	idle []*asker
}

func (s *askers) get(w wire) (*asker, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		a := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return a, nil
	}
	s.mu.Unlock()
	a := &asker{in: make(chan *nats.Msg, engine.MaxPull+16)}
	var err error
	a.inbox, a.stop, err = w.listen(a.in)
	return a, err
}

// put keeps an asker whose request has ended.
func (s *askers) put(a *asker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, a)
}

// statusOf returns what a message without data says of a request: an HTTP status, or "".
func statusOf(m *nats.Msg) string {
	if len(m.Header) == 0 {
		return ""
	}
	return m.Header.Get("Status")
}

// call sends msgs, of which the last is a question, and returns its answer. It is
// errNoAnswer if the connection breaks.
func (b *Backend) call(ctx context.Context, msgs ...*nats.Msg) (*nats.Msg, error) {
	wait, err := b.begin(msgs...)
	if err != nil {
		return nil, err
	}
	return wait(ctx)
}

// begin is call in two steps: wait must be called.
func (b *Backend) begin(msgs ...*nats.Msg) (wait func(context.Context) (*nats.Msg, error), err error) {
	a, err := b.idle.get(b.wire)
	if err != nil {
		return nil, err
	}
	msgs[len(msgs)-1].Reply = a.inbox
	broken := b.link.broken()
	if err := b.wire.send(msgs...); err != nil {
		a.stop()
		return nil, err
	}
	return func(ctx context.Context) (*nats.Msg, error) {
		select {
		case m := <-a.in:
			b.idle.put(a)
			if statusOf(m) == noResponders {
				return nil, nats.ErrNoResponders
			}
			return m, nil
		case <-broken:
			a.stop()
			return nil, errNoAnswer
		case <-ctx.Done():
			a.stop()
			return nil, ctx.Err()
		}
	}, nil
}

// noResponders is the status of a request that nobody listens to.
const noResponders = "503"
