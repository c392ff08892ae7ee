// Package sinkfault has the servers that sinks are tested against where they do wrong: each
// speaks its protocol as the real one does, keeps what it has taken, and follows a script of
// faults. It knows the wires, none of our code.
//
//	Lumberjack  windows: killed within one, acknowledged late, twice, in part, never
//	Lines       lines over TCP: read slowly, reset, closed by the server, never closed
//	Bulk        Elasticsearch's _bulk: statuses of requests and of items; and what counts documents
//	Kinesis     PutRecords: errors of requests and of records
//	Network     connections without sockets, for tests in a bubble of testing/synctest
package sinkfault

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
)

// Kept is what a server has taken: documents in the order of arrival.
type Kept struct {
	mu   sync.Mutex
	docs []string
}

func (k *Kept) add(docs ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.docs = append(k.docs, docs...)
}

// Received returns the documents.
func (k *Kept) Received() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string{}, k.docs...)
}

// Listen returns a listener on a free port of 127.0.0.1.
func Listen() (net.Listener, error) { return net.Listen("tcp4", "127.0.0.1:0") }

// Network is a listener and a dialer in memory. Its connections have no buffer: a write waits
// for the reader.
type Network struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once

	mu   sync.Mutex
	down int // dials that are refused
}

// NewNetwork returns a network of one host.
func NewNetwork() *Network { return &Network{conns: make(chan net.Conn), done: make(chan struct{})} }

// Refuse lets the next n dials fail.
func (n *Network) Refuse(dials int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = dials
}

// Dial connects to the listener, whatever the address.
func (n *Network) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	refused := n.down > 0
	n.down = max(0, n.down-1)
	n.mu.Unlock()
	if refused {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	ours, theirs := net.Pipe()
	select {
	case n.conns <- theirs:
		return ours, nil
	case <-n.done:
		return nil, errors.Join(&net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}, ours.Close(), theirs.Close())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), ours.Close(), theirs.Close())
	}
}

// Accept waits for a Dial.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

// Close ends the network.
func (n *Network) Close() error {
	n.once.Do(func() { close(n.done) })
	return nil
}

// Addr returns an address that says nothing.
func (n *Network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5044} }

// server accepts connections, each served by a goroutine, and ends them all.
type server struct {
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
	count  int
}

func (s *server) start(l net.Listener, serve func(net.Conn)) {
	s.listener, s.open = l, make(map[net.Conn]struct{})
	s.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.closed {
				s.mu.Unlock()
				drop(c)
				continue
			}
			s.open[c] = struct{}{}
			s.count++
			s.mu.Unlock()
			s.running.Go(func() {
				serve(c)
				drop(c)
				s.mu.Lock()
				delete(s.open, c)
				s.mu.Unlock()
			})
		}
	})
}

// Addr returns host:port.
func (s *server) Addr() string { return s.listener.Addr().String() }

// Connections returns how many were accepted.
func (s *server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// DropAll closes all connections that are open.
func (s *server) DropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		drop(c)
	}
}

// Close ends the server and waits for its goroutines.
func (s *server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		drop(c)
	}
	s.mu.Unlock()
	_ = s.listener.Close() // that it is closed is what was wanted
	s.running.Wait()
}

// drop closes a connection; that it was closed before is no matter.
func drop(c net.Conn) { _ = c.Close() }
