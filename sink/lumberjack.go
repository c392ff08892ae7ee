package sink

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"myrmidon"
)

// Frames of Lumberjack, version 2 (go-lumber's protocol/v2; the beats input of Logstash):
//
//	'2' 'W' count              a window: so many records follow, numbered from 1
//	'2' 'J' number length json a record
//	'2' 'C' length zlib        frames, packed
//	'2' 'A' number             the answer: taken up to this record; 0 means "still at it"
//
// All numbers are of 32 bits, the high byte first.
const (
	version    = '2'
	codeWindow = 'W'
	codeJSON   = 'J'
	codePacked = 'C'
	codeAck    = 'A'
)

// LumberjackConfig says where windows go. See [Conns].
type LumberjackConfig struct {
	Conns
	// Window is how many records one window has at most, 1,024 if 0. Each connection has
	// one window under way.
	Window int
	// Compress packs windows with zlib at this level, 1 to 9; 0 means not at all.
	Compress int
	// Ack is how long the peer may be silent while it owes an acknowledgement: 30 s if 0.
	// An acknowledgement of nothing, which peers send while they are busy, counts as a
	// sign of life.
	Ack time.Duration
	// TimeField, if not "", adds the record's time to each document, as its first member:
	// Logstash expects "@timestamp".
	TimeField string
}

// Lumberjack sends records to Logstash's beats input, and to whatever else speaks version 2 of
// the protocol, and waits for its acknowledgements. See [NewLumberjack].
//
// Logstash acknowledges a window when it has queued it. That survives its end only with
// queue.type: persisted, and a power cut only with queue.checkpoint.writes: 1.
//
// Acknowledgements do not say which window they are of. So one that comes late finds its
// connection closed, and one that comes when nothing is owed, or twice, has the connection
// closed after the window. One of records that were not written yet is another window's: the
// window is sent again.
type Lumberjack struct {
	*pool
	cfg     LumberjackConfig
	buffers sync.Pool
}

// maxWindow bounds the bytes of a window, unless one record is longer.
const maxWindow = 4 << 20

// NewLumberjack returns a sink that connects when it is used. The error, of a configuration
// that makes no sense, is permanent.
func NewLumberjack(cfg LumberjackConfig) (*Lumberjack, error) {
	scheme := "lumberjack"
	if cfg.TLS != nil {
		scheme = "lumberjacks"
	}
	cfg.Window = or(cfg.Window, 1024)
	cfg.Ack = or(cfg.Ack, 30*time.Second)
	if cfg.Compress < 0 || cfg.Compress > zlib.BestCompression {
		return nil, myrmidon.Permanent(fmt.Errorf("sink: compress %d: levels are 1 to 9, 0 is none", cfg.Compress))
	}
	if err := checkField(cfg.TimeField); err != nil {
		return nil, err
	}
	p, err := newPool(cfg.Conns, scheme, false, readAcks)
	if err != nil {
		return nil, err
	}
	return &Lumberjack{pool: p, cfg: cfg}, nil
}

// Traits says that the peer acknowledges a window from its beginning on.
func (l *Lumberjack) Traits() Traits {
	return Traits{Records: l.cfg.Window, Bytes: maxWindow, InOrder: true}
}

// String returns the address.
func (l *Lumberjack) String() string { return l.name }

// Send sends records in windows over one connection and returns when all are acknowledged. An
// error of the connection gives a *PartialError if a part was acknowledged before.
func (l *Lumberjack) Send(ctx context.Context, records []Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sink: send to %s: %w", l.name, err)
	}
	good, at, refused := Sort(records, checkFrame)
	return Merge(len(records), at, refused, l.send(ctx, good))
}

// checkFrame refuses also what a frame cannot hold.
func checkFrame(r Record) error {
	if err := Check(r); err != nil {
		return err
	}
	if len(r.Data) > math.MaxInt32-64 {
		return myrmidon.Permanent(fmt.Errorf("sink: record %.100q of %d bytes is longer than a frame of Lumberjack", r.ID, len(r.Data)))
	}
	return nil
}

func (l *Lumberjack) send(ctx context.Context, records []Record) error {
	if len(records) == 0 {
		return nil
	}
	res, err := l.borrow(ctx)
	if err != nil {
		return err
	}
	buf, _ := l.buffers.Get().(*window)
	if buf == nil {
		buf = new(window)
	}
	defer l.buffers.Put(buf)
	taken := 0
	for taken < len(records) && err == nil {
		n, size := 0, 0
		for _, r := range records[taken:] {
			if size += len(r.Data); n == l.cfg.Window || n > 0 && size > maxWindow {
				break
			}
			n++
		}
		var acked int
		acked, err = l.window(ctx, res.Value(), buf, records[taken:taken+n])
		taken += acked
	}
	if err != nil {
		err = fmt.Errorf("sink: send to %s: %w", l.name, err)
	}
	l.give(res, err)
	return Rest(len(records), taken, err)
}

// window sends one window and waits for its acknowledgements. It returns how many records
// they cover.
func (l *Lumberjack) window(ctx context.Context, c *conn, buf *window, records []Record) (acked int, err error) {
	if c.acks.bad() {
		return 0, errEarly // of the window before
	}
	c.acks.open(uint32(len(records)))
	defer func() { acked = c.acks.close() }()
	return 0, guarded(ctx, c, func() error {
		if err := c.SetWriteDeadline(time.Now().Add(l.pool.cfg.Write)); err != nil {
			return err
		}
		if err := buf.encode(c, c.acks, records, l.cfg.Compress, l.cfg.TimeField); err != nil {
			return err
		}
		silent := time.NewTimer(l.cfg.Ack)
		defer silent.Stop()
		for !c.acks.complete() {
			if c.acks.tooEarly() {
				return errEarly
			}
			select {
			case <-c.acks.news:
				silent.Reset(l.cfg.Ack)
			case <-c.gone:
				if c.acks.complete() {
					return nil
				}
				return fmt.Errorf("the connection ended before all was acknowledged: %w", c.why)
			case <-silent.C:
				return fmt.Errorf("no acknowledgement for %s", l.cfg.Ack)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
}

// Close closes all connections. Nothing is lost: what was not acknowledged was said to be so.
func (l *Lumberjack) Close() error { return l.close() }

// window is the memory that one is encoded in.
type window struct {
	frames []byte
	packed bytes.Buffer
	zip    *zlib.Writer
}

// encode writes the frames of a window to c. Without packing they leave in pieces, so that the
// peer reads the first while the last is made.
func (w *window) encode(c io.Writer, owed *acks, records []Record, level int, field string) error {
	b := append(w.frames[:0], version, codeWindow)
	b = binary.BigEndian.AppendUint32(b, uint32(len(records)))
	head := len(b)
	for i, r := range records {
		if level == 0 && len(b) >= flushAt {
			owed.written(uint32(i))
			if _, err := c.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
		b = append(b, version, codeJSON)
		b = binary.BigEndian.AppendUint32(b, uint32(i+1))
		b = append(b, 0, 0, 0, 0)
		from := len(b)
		b = appendDocument(b, r, field)
		binary.BigEndian.PutUint32(b[from-4:], uint32(len(b)-from))
	}
	w.frames = b
	if level > 0 {
		var err error
		if b, err = w.pack(b, head, level); err != nil {
			return err
		}
	}
	owed.written(uint32(len(records)))
	_, err := c.Write(b)
	return err
}

// pack returns the window with the frames behind its head packed, valid until the next call.
func (w *window) pack(b []byte, head, level int) ([]byte, error) {
	w.packed.Reset()
	w.packed.Write(b[:head])
	w.packed.Write([]byte{version, codePacked, 0, 0, 0, 0})
	if w.zip == nil {
		var err error
		if w.zip, err = zlib.NewWriterLevel(&w.packed, level); err != nil {
			return nil, err
		}
	} else {
		w.zip.Reset(&w.packed)
	}
	if _, err := w.zip.Write(b[head:]); err != nil {
		return nil, err
	}
	if err := w.zip.Close(); err != nil {
		return nil, err
	}
	out := w.packed.Bytes()
	binary.BigEndian.PutUint32(out[head+2:], uint32(len(out)-head-6))
	return out, nil
}

// acks are the acknowledgements of a connection.
type acks struct {
	news chan struct{} // has room for one: something came

	mu    sync.Mutex
	owed  uint32 // records of the window that is under way; 0 is none
	sent  uint32 // of them, those that the peer may have
	got   uint32
	wrong bool // the peer has acknowledged what it could not
	early bool // and that was no record that it may have
}

var errEarly = errors.New("the peer acknowledges what it does not have yet: an acknowledgement came twice")

func newAcks() *acks { return &acks{news: make(chan struct{}, 1)} }

func (a *acks) open(count uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owed, a.sent, a.got = count, 0, 0
	select {
	case <-a.news:
	default:
	}
}

func (a *acks) close() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := int(a.got)
	if a.early {
		n = 0 // what came before may have been of another window, too
	}
	a.owed, a.sent, a.got = 0, 0, 0
	return n
}

// written says before they are written which records are.
func (a *acks) written(n uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent = n
}

func (a *acks) complete() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owed > 0 && a.got == a.owed && !a.early
}

func (a *acks) tooEarly() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.early
}

func (a *acks) bad() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wrong
}

// add notes acknowledgements that came at once.
func (a *acks) add(numbers []uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range numbers {
		switch {
		case n == 0: // still at it
		case a.owed > 0 && n > a.sent:
			a.wrong, a.early = true, true
		case n > a.got && n <= a.owed:
			a.got = n
		default:
			a.wrong = true
		}
	}
	select {
	case a.news <- struct{}{}:
	default:
	}
}

var errProtocol = errors.New("the peer answers something else than acknowledgements of Lumberjack")

// readAcks reads acknowledgements until the connection ends. What has come at once is noted at
// once, so that an acknowledgement that comes twice is not taken for the next window's.
func readAcks(c *conn) error {
	in := bufio.NewReaderSize(c.Conn, 4<<10)
	var numbers []uint32
	for {
		var frame [6]byte
		if _, err := io.ReadFull(in, frame[:]); err != nil {
			return err
		}
		if frame[0] != version || frame[1] != codeAck {
			return errProtocol
		}
		if numbers = append(numbers, binary.BigEndian.Uint32(frame[2:])); in.Buffered() >= len(frame) && len(numbers) < 512 {
			continue
		}
		c.acks.add(numbers)
		numbers = numbers[:0]
	}
}
