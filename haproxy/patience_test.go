package haproxy

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// patience is the Timeout of targets that answer: so long that no machine is too busy for it.
// It costs nothing, since none that hangs is waited for so long: see timesOut.
const patience = time.Minute

// within is a context for what answers.
func within(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// timesOut lets the deadline of the target number i pass as soon as the poll that begins has
// read all others and hung is closed, unless that is nil. So one that hangs needs no short
// Timeout, which the others would have, too, and would not keep on a busy machine. The caller
// waits for wg behind the poll.
func timesOut(tb testing.TB, wg *sync.WaitGroup, c *Collector, i int, hung <-chan struct{}) {
	tb.Helper()
	wg.Go(func() {
		s := c.slots[i].source
		for end := time.Now().Add(patience); !s.inUse(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				tb.Errorf("target %d is not asked", i)
				return
			}
		}
		for k, other := range c.slots {
			if k != i {
				other.read.Wait()
			}
		}
		if hung != nil {
			<-hung
		}
		s.interrupt()
	})
}

func (s *source) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// cancelsBehind cancels the poll under way as soon as it has read the target number i. It is
// for stubs to call that were asked in that poll.
func cancelsBehind(c *Collector, i int, cancel context.CancelFunc) {
	c.slots[i].read.Wait()
	cancel()
}

// taken waits until all that was written to a Unix socket was read at its other end.
func taken(tb testing.TB, conn net.Conn) {
	tb.Helper()
	for end := time.Now().Add(patience); unread(tb, conn) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Error("what was written is not read")
			return
		}
	}
}
