package jetstream

import (
	"context"
	"errors"
	"sync"
)

// link tells those who wait for an answer that the connection broke: what they wait for
// never comes, and the client library would let them wait for their whole time.
type link struct {
	mu    sync.Mutex
	up    context.Context // ends when the connection breaks
	broke context.CancelFunc
	back  chan struct{} // closed when the connection is back
}

func newLink() *link {
	l := &link{back: make(chan struct{})}
	l.up, l.broke = context.WithCancel(context.Background())
	return l
}

// down is called when the connection breaks.
func (l *link) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broke()
}

// again is called when the connection is back.
func (l *link) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broke()
	l.up, l.broke = context.WithCancel(context.Background())
	close(l.back)
	l.back = make(chan struct{})
}

// broken is closed when the present connection has broken.
func (l *link) broken() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up.Done()
}

// returned is closed the next time that the connection is back.
func (l *link) returned() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.back
}

// within calls try with a context that ends with the connection, too; it then returns
// errNoAnswer.
func (l *link) within(ctx context.Context, try func(context.Context) error) error {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	once, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(up, cancel)()
	err := try(once)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return errNoAnswer
	}
	return err
}
