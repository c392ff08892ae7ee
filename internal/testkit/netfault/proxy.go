package netfault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// chunkSize and chunksInFlight bound what a proxy holds of one direction of one
	// connection: 2 MiB. With a delay d, 2 MiB/d is also the most that it carries.
	chunkSize      = 32 << 10
	chunksInFlight = 64
	// dialTimeout is how long the target may take to accept a connection.
	dialTimeout = 5 * time.Second
)

// Proxy relays TCP connections from an address on 127.0.0.1 to a target, and lets a
// test break them. Its methods may be called from many goroutines.
//
// What passes through is unchanged and in order. The end of one direction is passed on
// as such (half close); a reset, or a target that refuses, resets the client.
type Proxy struct {
	target   string
	listener net.Listener
	ctx      context.Context // ends with Close
	end      context.CancelFunc
	running  sync.WaitGroup

	faults sync.Mutex // one Cut, Heal, Reset or Close at a time

	mu     sync.Mutex
	links  map[*link]struct{}
	open   chan struct{} // closed while bytes may pass
	cut    bool
	delay  time.Duration
	limit  func() (sent, answered int64) // see ResetAfter; nil for none
	closed bool
}

// link is one client's connection and its other half. A proxied byte waits in the
// direction's queue.
//
//	client ─► read ─► queue ─► write ─► server
//	client ◄─ write ◄─ queue ◄─ read ◄─ server
type link struct {
	client *net.TCPConn
	gone   chan struct{} // closed by close
	once   sync.Once

	sent, answered int64 // bytes that may still pass each way before it is reset

	mu     sync.Mutex
	server *net.TCPConn // nil until dialled
	closed bool

	// up and down are held while bytes are written to the server and to the client.
	up, down sync.Mutex
}

// NewProxy listens on a free port of 127.0.0.1 and relays to target, a host:port that
// is dialled anew for each connection. The caller closes the proxy.
func NewProxy(target string) (*Proxy, error) {
	if _, _, err := net.SplitHostPort(target); err != nil {
		return nil, fmt.Errorf("netfault: proxy to %q: %w", target, err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("netfault: listen for a proxy to %s: %w", target, err)
	}
	open := make(chan struct{})
	close(open)
	p := &Proxy{target: target, listener: l, links: make(map[*link]struct{}), open: open}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens, as host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Conns is how many connections are open.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Cut makes a black hole of the proxy: connections stay open and new ones are
// accepted, but no byte passes either way from the moment Cut returns. A connection
// that is closed or reset while cut is so for the other side after Heal only.
func (p *Proxy) Cut() {
	p.faults.Lock()
	defer p.faults.Unlock()
	p.mu.Lock()
	if p.cut {
		p.mu.Unlock()
		return
	}
	p.cut = true
	p.open = make(chan struct{})
	links := p.snapshot()
	p.mu.Unlock()
	for _, l := range links {
		l.interrupt()
	}
}

// Heal lets bytes pass again, first those that Cut held back.
func (p *Proxy) Heal() {
	p.faults.Lock()
	defer p.faults.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		return
	}
	for l := range p.links {
		l.resume()
	}
	p.cut = false
	close(p.open)
}

// Reset closes all connections with an RST to both sides; what was under way is lost.
// New connections are served as before, or swallowed if the proxy is cut.
func (p *Proxy) Reset() {
	p.faults.Lock()
	defer p.faults.Unlock()
	p.mu.Lock()
	links := p.snapshot()
	p.mu.Unlock()
	for _, l := range links {
		p.drop(l)
	}
}

// Delay holds every byte that is read from now on for d, in both directions, so that a
// round trip takes 2 d longer. It adds latency and keeps order; a connection carries at
// most 2 MiB each d.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = max(d, 0)
}

// ResetAfter resets each connection that opens from now on once so many bytes of the client's, or
// of the target's answers, have passed as limit says for it: at that byte, in mid-message if need
// be, with an RST to both sides. A negative number is no limit; nil ends this. limit is called by
// one goroutine at a time.
func (p *Proxy) ResetAfter(limit func() (sent, answered int64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
}

// Close resets all connections, stops listening and returns when all goroutines of
// the proxy have ended.
func (p *Proxy) Close() error {
	p.faults.Lock()
	defer p.faults.Unlock()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	links := p.snapshot()
	p.mu.Unlock()
	p.end()
	err := p.listener.Close()
	for _, l := range links {
		p.drop(l)
	}
	p.running.Wait()
	if err != nil {
		return fmt.Errorf("netfault: close the proxy to %s: %w", p.target, err)
	}
	return nil
}

// snapshot returns the links; p.mu is held.
func (p *Proxy) snapshot() []*link {
	out := make([]*link, 0, len(p.links))
	for l := range p.links {
		out = append(out, l)
	}
	return out
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		switch {
		case p.ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return
		case err != nil:
			// Out of file descriptors, or a client that left at once: neither ends a proxy.
			select {
			case <-p.ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		l := &link{client: c.(*net.TCPConn), gone: make(chan struct{})}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			l.close(true)
			return
		}
		l.sent, l.answered = -1, -1
		if p.limit != nil {
			l.sent, l.answered = p.limit()
		}
		p.links[l] = struct{}{}
		p.running.Go(func() { p.serve(l) })
		p.mu.Unlock()
	}
}

// serve relays one connection until both directions have ended.
func (p *Proxy) serve(l *link) {
	defer p.drop(l)
	if !p.wait(l) {
		return
	}
	c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		p.wait(l) // a refusal does not pass a cut either
		return
	}
	if !l.connect(c.(*net.TCPConn)) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.relay(l, l.server, l.client, &l.up, l.sent) })
	both.Go(func() { p.relay(l, l.client, l.server, &l.down, l.answered) })
	both.Wait()
	// Both ends are passed on, unless l is dropped already: what the kernel still holds
	// for a slow reader is not to be thrown away by drop's RST.
	l.close(false)
}

// wait returns true when bytes may pass, false when l is gone.
func (p *Proxy) wait(l *link) bool {
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	select {
	case <-l.gone:
		return false
	default:
	}
	select {
	case <-open:
		return true
	case <-l.gone:
		return false
	}
}

type chunk struct {
	data []byte
	due  time.Time
	err  error // what ended the reading; io.EOF for an orderly end
}

// relay carries one direction, from src to dst, and returns at its end, or after left bytes
// unless that is negative. writing is held for each write, so that Cut can wait for it.
func (p *Proxy) relay(l *link, dst, src *net.TCPConn, writing *sync.Mutex, left int64) {
	queue := make(chan chunk, chunksInFlight)
	p.running.Go(func() { p.read(l, src, queue) })
	for c := range queue {
		if wait := time.Until(c.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.gone:
				return
			}
		}
		last := left >= 0 && int64(len(c.data)) > left
		if last {
			c.data, c.err = c.data[:left], nil
		} else if left >= 0 {
			left -= int64(len(c.data))
		}
		if err := p.write(l, dst, c, writing); err != nil || last {
			p.drop(l)
			return
		}
	}
}

// read queues what src sends, and last the error that ended it.
func (p *Proxy) read(l *link, src *net.TCPConn, queue chan<- chunk) {
	defer close(queue)
	for {
		if !p.wait(l) {
			return
		}
		buf := make([]byte, chunkSize)
		n, err := src.Read(buf)
		p.mu.Lock()
		due := time.Now().Add(p.delay)
		p.mu.Unlock()
		select {
		case queue <- chunk{buf[:n], due, err}:
		case <-l.gone:
			return
		}
		if err != nil {
			return
		}
	}
}

// write passes c on to dst, as soon as bytes may pass. An error means that the
// connection has come to its end.
func (p *Proxy) write(l *link, dst *net.TCPConn, c chunk, writing *sync.Mutex) error {
	for {
		if !p.wait(l) {
			return net.ErrClosed
		}
		n, done, err := p.writeOpen(dst, c, writing)
		if done || err != nil {
			return err
		}
		c.data = c.data[n:]
	}
}

// writeOpen writes what it can of c unless the proxy is cut. done means that all of c
// is passed on.
func (p *Proxy) writeOpen(dst *net.TCPConn, c chunk, writing *sync.Mutex) (n int, done bool, err error) {
	writing.Lock()
	defer writing.Unlock()
	p.mu.Lock()
	cut := p.cut
	p.mu.Unlock()
	if cut {
		return 0, false, nil
	}
	if len(c.data) > 0 {
		n, err = dst.Write(c.data)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, false, nil // cut in the middle: the rest waits
		}
		if err != nil {
			return n, false, err
		}
	}
	switch {
	case c.err == nil:
		return n, true, nil
	case errors.Is(c.err, io.EOF):
		return n, true, dst.CloseWrite()
	}
	return n, false, c.err
}

// drop resets l, if it is not closed yet, and forgets it.
func (p *Proxy) drop(l *link) {
	l.close(true)
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// connect notes the server's half; false means that l was closed meanwhile.
func (l *link) connect(c *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return false
	}
	l.server = c
	return true
}

// close closes both halves once, with an RST if reset is set.
func (l *link) close(reset bool) {
	l.once.Do(func() {
		close(l.gone)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = true
		for _, c := range []*net.TCPConn{l.client, l.server} {
			if c == nil {
				continue
			}
			if reset {
				_ = c.SetLinger(0)
			}
			_ = c.Close()
		}
	})
}

// interrupt ends writes that are under way and returns when they are over.
func (l *link) interrupt() {
	past := time.Unix(1, 0)
	l.mu.Lock()
	conns := []*net.TCPConn{l.client, l.server}
	l.mu.Unlock()
	for _, c := range conns {
		if c != nil {
			_ = c.SetWriteDeadline(past)
		}
	}
	await(&l.up)
	await(&l.down)
}

// await returns when nobody holds m.
func await(m *sync.Mutex) {
	m.Lock()
	defer m.Unlock()
}

// resume takes interrupt back.
func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range []*net.TCPConn{l.client, l.server} {
		if c != nil {
			_ = c.SetWriteDeadline(time.Time{})
		}
	}
}
