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

// line is a wire with those who ask on it.
type line struct {
	wire
	mu   sync.Mutex
	idle []*asker // those that no request uses
}

// asker returns one that no request uses.
func (l *line) asker() (*asker, error) {
	l.mu.Lock()
	if n := len(l.idle); n > 0 {
		a := l.idle[n-1]
		l.idle = l.idle[:n-1]
		l.mu.Unlock()
		return a, nil
	}
	l.mu.Unlock()
	a := &asker{in: make(chan *nats.Msg, engine.MaxPull+16)}
	var err error
	a.inbox, a.stop, err = l.listen(a.in)
	return a, err
}

// reuse keeps an asker whose request has ended.
func (l *line) reuse(a *asker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = append(l.idle, a)
}

// statusOf returns what a message without data says of a request: an HTTP status, or "".
func statusOf(m *nats.Msg) string {
	if len(m.Header) == 0 {
		return ""
	}
	return m.Header.Get("Status")
}

// question is one that was sent.
type question struct {
	to     *line
	by     *asker
	broken <-chan struct{} // closed when the connection breaks
}

// question sends msgs, of which the last is a question. Its answer must be waited for.
func (b *Backend) question(l *line, msgs ...*nats.Msg) (question, error) {
	a, err := l.asker()
	if err != nil {
		return question{}, err
	}
	msgs[len(msgs)-1].Reply = a.inbox
	q := question{l, a, b.link.broken()}
	if err := l.send(msgs...); err != nil {
		a.stop()
		return question{}, err
	}
	return q, nil
}

// answer returns the answer; errNoAnswer if it is late or the connection breaks.
func (q question) answer(late <-chan time.Time) (*nats.Msg, error) {
	m := q.by.next(context.Background(), q.broken, late)
	if m == nil {
		q.by.stop()
		return nil, errNoAnswer
	}
	q.to.reuse(q.by)
	if statusOf(m) == noResponders {
		return nil, nats.ErrNoResponders
	}
	return m, nil
}

// noResponders is the status of a request that nobody listens to.
const noResponders = "503"
