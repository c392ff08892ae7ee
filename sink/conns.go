package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/jackc/puddle/v2"

	"myrmidon"
)

// Conns says how [TCP] and [Lumberjack] connect, and how many times. All but Address may be
// zero.
type Conns struct {
	Address string      // host:port
	TLS     *tls.Config // nil means none
	// Connections is how many there are at most: 2 if 0. A Send uses one.
	Connections int
	// Acquire is how long a Send waits for a connection, and Connect how long one may take
	// to be made, the handshake of TLS included: 30 s and 10 s if 0.
	Acquire, Connect time.Duration
	// Write is how long a batch may take to be written: a minute if 0.
	Write time.Duration
	// Idle is how long a connection is kept without use: a minute if 0.
	Idle time.Duration
	// Linger is how long Close waits for the peer to take all and to close: 10 s if 0.
	Linger time.Duration
	// Dial makes the connection below TLS; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// ConnStats counts connections, from the beginning.
type ConnStats struct {
	Created   uint64 `json:"created"`   // connected, and only then in the pool
	Destroyed uint64 `json:"destroyed"` // closed again, by us or after the peer
	Failed    uint64 `json:"failed"`    // attempts to connect that failed, and connections that broke
	Open      int    `json:"open"`
	// LastErrors are the last five of those failures, the newest last.
	LastErrors []string `json:"last_errors,omitempty"`
}

// After a failure to connect nobody tries again for a moment, which doubles.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// conn is a connection of the pool. A goroutine reads from it for as long as it is open, so
// the end that the peer makes is known before the next batch is written.
type conn struct {
	net.Conn
	plain net.Conn      // below TLS
	gone  chan struct{} // closed when nothing more can be read
	why   error         // then, io.EOF included
	used  time.Time
	acks  *acks // of Lumberjack
	// broken says that what was written may not have arrived, and that closing it
	// gently is no use.
	broken bool
}

// pool holds connections. One is in it, and handed out, only once it is connected.
type pool struct {
	cfg  Conns
	name string // for errors: "tcp://host:port"
	// read consumes what the peer sends, until the connection ends.
	read func(*conn) error
	// drain says that what was written needs the peer's end to be known as taken.
	drain bool
	conns *puddle.Pool[*conn]

	mu       sync.Mutex
	stats    ConnStats
	lost     []error // of connections that ended badly while they were drained
	failures int     // to connect, one after the other
	until    time.Time
	closed   bool
}

func newPool(cfg Conns, scheme string, drain bool, read func(*conn) error) (*pool, error) {
	name := scheme + "://" + cfg.Address
	if _, _, err := net.SplitHostPort(cfg.Address); err != nil {
		err = fmt.Errorf("sink: %s: %w", name, err)
		return nil, myrmidon.Permanent(myrmidon.WithHint(err, "an address is host:port, as in logstash:5044"))
	}
	cfg.Connections = or(cfg.Connections, 2)
	cfg.Acquire = or(cfg.Acquire, 30*time.Second)
	cfg.Connect = or(cfg.Connect, 10*time.Second)
	cfg.Write = or(cfg.Write, time.Minute)
	cfg.Idle = or(cfg.Idle, time.Minute)
	cfg.Linger = or(cfg.Linger, 10*time.Second)
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
		if cfg.TLS.ServerName == "" {
			cfg.TLS.ServerName, _, _ = net.SplitHostPort(cfg.Address)
		}
	}
	p := &pool{cfg: cfg, name: name, drain: drain, read: read}
	var err error
	p.conns, err = puddle.NewPool(&puddle.Config[*conn]{
		Constructor: p.connect, Destructor: p.destroy, MaxSize: int32(cfg.Connections),
	})
	return p, err
}

// connect makes a connection, after a pause if the last attempt failed.
func (p *pool) connect(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	pause := time.Until(p.until)
	p.mu.Unlock()
	if pause > 0 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	dialing, cancel := context.WithTimeout(ctx, p.cfg.Connect)
	defer cancel()
	c, err := p.dial(dialing)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			p.failed(err)
			p.failures = min(p.failures+1, 10)
			p.until = time.Now().Add(min(lastPause, firstPause<<(p.failures-1)))
		}
		return nil, err
	}
	p.failures = 0
	p.stats.Created++
	p.stats.Open++
	go func() {
		c.why = p.read(c)
		close(c.gone)
	}()
	return c, nil
}

func (p *pool) dial(ctx context.Context) (*conn, error) {
	plain, err := p.cfg.Dial(ctx, "tcp", p.cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("sink: connect to %s: %w", p.name, err)
	}
	c := &conn{Conn: plain, plain: plain, gone: make(chan struct{}), used: time.Now(), acks: newAcks()}
	if p.cfg.TLS == nil {
		return c, nil
	}
	secure := tls.Client(plain, p.cfg.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		err = errors.Join(fmt.Errorf("sink: TLS with %s: %w", p.name, err), ignoreClosed(plain.Close()))
		var bad *tls.CertificateVerificationError
		if errors.As(err, &bad) {
			err = myrmidon.Permanent(myrmidon.WithHint(err, "trust the server's authority with SSL_CERT_FILE, or ?ca=FILE in the address"))
		}
		return nil, err
	}
	c.Conn = secure
	return c, nil
}

// failed counts a failure. The lock is held.
func (p *pool) failed(err error) {
	p.stats.Failed++
	last := p.stats.LastErrors
	if len(last) == 5 {
		last = last[1:]
	}
	p.stats.LastErrors = append(last[:len(last):len(last)], err.Error())
}

// borrow returns a connection that is alive as far as this side can know. The caller releases
// it with give.
func (p *pool) borrow(ctx context.Context) (*puddle.Resource[*conn], error) {
	waiting, cancel := context.WithTimeoutCause(ctx, p.cfg.Acquire, errBusy)
	defer cancel()
	for {
		res, err := p.conns.Acquire(waiting)
		switch {
		case errors.Is(err, puddle.ErrClosedPool):
			return nil, ErrClosed
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("sink: wait for a connection to %s: %w", p.name, ctx.Err())
		case err != nil && waiting.Err() != nil:
			return nil, fmt.Errorf("sink: %s: after %s: %w", p.name, p.cfg.Acquire, errors.Join(errBusy, p.lastError()))
		case err != nil:
			return nil, err
		}
		if c := res.Value(); alive(c) && time.Since(c.used) < p.cfg.Idle {
			return res, nil
		}
		res.Destroy()
	}
}

var errBusy = errors.New("no connection was free")

// lastError returns why connecting failed last, or nil.
func (p *pool) lastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.stats.LastErrors); n > 0 && p.failures > 0 {
		return errors.New(p.stats.LastErrors[n-1])
	}
	return nil
}

// alive reports whether the peer has ended the connection, or reset it.
func alive(c *conn) bool {
	select {
	case <-c.gone:
		return false
	default:
		return !c.acks.bad() && !ended(c.plain)
	}
}

// give returns a connection, or closes it if something went wrong with it.
func (p *pool) give(res *puddle.Resource[*conn], err error) {
	c := res.Value()
	c.used = time.Now()
	if err == nil { // if the peer was wrong, the next to borrow it finds that
		res.Release()
		return
	}
	c.broken = true
	if err != nil {
		p.mu.Lock()
		p.failed(err)
		p.mu.Unlock()
	}
	res.Destroy()
}

// destroy closes a connection: where the peer confirms nothing, by half, waiting until it has
// read all and closes too.
func (p *pool) destroy(c *conn) {
	var err error
	if p.drain && !c.broken {
		err = p.finish(c)
	}
	closed := ignoreClosed(c.Close())
	<-c.gone // the reader ends with the connection
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Destroyed++
	p.stats.Open--
	if err != nil {
		err = fmt.Errorf("sink: close %s: %w", p.name, errors.Join(err, closed))
		p.failed(err)
		p.lost = append(p.lost, err)
	}
}

var errStays = errors.New("the peer has neither closed nor reset the connection, and may not have read all of it")

// finish sends the end and waits for the peer's.
func (p *pool) finish(c *conn) error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	if err := half.CloseWrite(); err != nil {
		return fmt.Errorf("the peer was gone before its end was due: %w", err)
	}
	if c.Conn != c.plain { // what TLS has ended, TCP ends too
		if half, ok := c.plain.(interface{ CloseWrite() error }); ok {
			if err := ignoreClosed(half.CloseWrite()); err != nil {
				return err
			}
		}
	}
	timer := time.NewTimer(p.cfg.Linger)
	defer timer.Stop()
	select {
	case <-c.gone:
		if errors.Is(c.why, io.ErrUnexpectedEOF) {
			return nil // many end TCP alone, and not TLS before
		}
		return c.why
	case <-timer.C:
		return errStays
	}
}

// close drains and closes all connections, those that are in use once they are returned.
func (p *pool) close() error {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	p.conns.Close()
	if again {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lost) == 0 {
		return nil
	}
	err := fmt.Errorf("%d connections ended badly, and what was sent last may be lost: %w", len(p.lost), p.lost[0])
	return myrmidon.WithHint(err, "send it again, or use a destination that confirms: lumberjack://")
}

// Stats returns the counts of this moment.
func (p *pool) Stats() ConnStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.LastErrors = append([]string(nil), s.LastErrors...)
	return s
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// guarded lets ctx and a deadline end what f does with c.
func guarded(ctx context.Context, c *conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // f then says why
	err := f()
	if !stop() && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), errors.Join(err))
	}
	return err
}
