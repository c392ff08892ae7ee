package sink

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"myrmidon"
)

// TCPConfig says where lines go. See [Conns].
type TCPConfig struct {
	Conns
	// TimeField, if not "", adds the record's time to each document, as its first member:
	// Logstash expects "@timestamp".
	TimeField string
}

// TCP sends records as lines of JSON over TCP, as Logstash's tcp input with the codec
// json_lines and Vector's socket source read them. See [NewTCP].
//
// Nothing is confirmed. A connection is used only while the peer keeps it open; Close sends
// the end of each and waits until the peer, having read all, closes too, and says so if it
// does not. What the peer had not read when it died is lost and was counted as taken: use
// [Lumberjack] where that matters.
type TCP struct {
	*pool
	field   string
	buffers sync.Pool
}

// NewTCP returns a sink that connects when it is used. The error, of an address that is none,
// is permanent.
func NewTCP(cfg TCPConfig) (*TCP, error) {
	scheme := "tcp"
	if cfg.TLS != nil {
		scheme = "tls+tcp"
	}
	if err := checkField(cfg.TimeField); err != nil {
		return nil, err
	}
	p, err := newPool(cfg.Conns, scheme, true, discard)
	if err != nil {
		return nil, err
	}
	return &TCP{pool: p, field: cfg.TimeField}, nil
}

// discard reads what nobody expects: it is the end that matters.
func discard(c *conn) error {
	_, err := io.Copy(io.Discard, c.Conn)
	return err
}

// Traits says that nothing is confirmed.
func (*TCP) Traits() Traits { return Traits{Bytes: 1 << 20, InOrder: true, Unconfirmed: true} }

// String returns the address.
func (t *TCP) String() string { return t.name }

// Send writes records to one connection. An error of that counts for the whole batch, of which
// the peer may have read a part.
func (t *TCP) Send(ctx context.Context, records []Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sink: send to %s: %w", t.name, err)
	}
	good, at, refused := Sort(records, Check)
	return Merge(len(records), at, refused, t.send(ctx, good))
}

func (t *TCP) send(ctx context.Context, records []Record) error {
	if len(records) == 0 {
		return nil
	}
	res, err := t.borrow(ctx)
	if err != nil {
		return err
	}
	c := res.Value()
	buf, _ := t.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer t.buffers.Put(buf)
	err = guarded(ctx, c, func() error {
		if err := c.SetWriteDeadline(time.Now().Add(t.cfg.Write)); err != nil {
			return err
		}
		b := (*buf)[:0]
		for i, r := range records {
			b = appendLine(b, r, t.field)
			if len(b) < flushAt && i < len(records)-1 {
				continue
			}
			if _, err := c.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
		*buf = b
		return nil
	})
	if err != nil {
		err = fmt.Errorf("sink: write to %s: %w", t.name, err)
	}
	t.give(res, err)
	return err
}

// flushAt is how many bytes are gathered for one write.
const flushAt = 64 << 10

// Close drains: see [TCP].
func (t *TCP) Close() error { return t.close() }

// checkField refuses the name of a member that would have to be escaped.
func checkField(field string) error {
	for _, c := range []byte(field) {
		if c < ' ' || c == '"' || c == '\\' || c > '~' {
			return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("sink: %.40q cannot be the name of the time", field), "use letters and digits, as in @timestamp"))
		}
	}
	return nil
}
