package main

import (
	"net"
	"sync"
	"time"
)

// gatherMost bounds what a gather holds: a writer waits while there is more.
const gatherMost = 256 << 10

// gather is a connection whose writes are put together while an earlier one is under
// way. The AMQP client makes a write, and so a system call and a TCP segment, of each
// message and each acknowledgement; on a loopback of two cores the broker then spends
// its time on receiving them. No message waits for a timer: what is written to an idle
// connection goes out at once.
//
// Write returns before the bytes are sent; an error comes with a later Write, or as
// the end of the connection. Close sends what is held.
type gather struct {
	net.Conn
	mu      sync.Mutex
	changed sync.Cond
	held    []byte
	err     error
	closing bool
	done    chan struct{} // the sender has ended
}

func newGather(c net.Conn) *gather {
	g := &gather{Conn: c, done: make(chan struct{})}
	g.changed.L = &g.mu
	go g.send()
	return g
}

// Write implements net.Conn.
func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.held) > gatherMost && g.err == nil && !g.closing {
		g.changed.Wait()
	}
	if g.closing {
		return 0, net.ErrClosed
	}
	if g.err != nil {
		return 0, g.err
	}
	g.held = append(g.held, b...)
	g.changed.Broadcast()
	return len(b), nil
}

// Close sends what is held, for a second at most, and closes the connection.
func (g *gather) Close() error {
	g.mu.Lock()
	g.closing = true
	g.changed.Broadcast()
	g.mu.Unlock()
	if err := g.SetWriteDeadline(time.Now().Add(time.Second)); err == nil {
		<-g.done
	}
	return g.Conn.Close()
}

// send writes what is held until the connection is closing or broken.
func (g *gather) send() {
	defer close(g.done)
	var out []byte
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		for len(g.held) == 0 && !g.closing {
			g.changed.Wait()
		}
		if len(g.held) == 0 || g.err != nil {
			return
		}
		out, g.held = g.held, out[:0]
		g.changed.Broadcast()
		g.mu.Unlock()
		_, err := g.Conn.Write(out)
		g.mu.Lock()
		if err != nil {
			g.err = err
			g.changed.Broadcast()
			return
		}
	}
}
