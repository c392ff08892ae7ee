package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// pipe is the wire to the embedded server: the NATS client protocol over a connection
// within the process. Messages are written by the goroutine that sends them, together with
// what others send meanwhile, and delivered by the one that reads, so that each way takes
// one change of goroutines less than with the client library; and the headers of a batch,
// which every stored job has, are not taken apart. make bench-engine shows the gain.
type pipe struct {
	name   string // no other pipe to the server has it
	conn   net.Conn
	broken func() // is called once, when the connection has ended

	mu      sync.Mutex
	err     error // why nothing can be sent any more
	out     []byte
	spare   []byte // the buffer that was written last
	writing bool
	ears    map[int]chan *nats.Msg // by subscription
	last    int                    // subscription
	pongs   []chan struct{}

	posted chan struct{} // that there is something to write; capacity 1
	ended  chan struct{}
}

const (
	// pipeBuffer is how much is read at a time, which is what the server writes.
	pipeBuffer = 64 << 10
	// spareBuffer is the largest buffer that is kept for what is sent next.
	spareBuffer = 1 << 20
)

// openPipe greets the server. broken is called, once, when the connection has ended.
func openPipe(name string, conn net.Conn, broken func()) (*pipe, error) {
	p := &pipe{name: name, conn: conn, broken: broken, ears: make(map[int]chan *nats.Msg), posted: make(chan struct{}, 1), ended: make(chan struct{})}
	ready := make(chan struct{})
	p.pongs = append(p.pongs, ready)
	ended := make(chan error, 1)
	go func() { ended <- p.read() }()
	go p.flusher()
	p.mu.Lock()
	p.out = append(p.out, `CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"lang":"go","name":"myrmidon"}`+"\r\nPING\r\n"...)
	err := p.write()
	if err == nil {
		select {
		case <-ready:
			return p, nil
		case err = <-ended:
		case <-time.After(startTimeout):
			err = nats.ErrTimeout
		}
	}
	p.end(err)
	return nil, err
}

// end closes the connection, for a reason.
func (p *pipe) end(why error) {
	p.mu.Lock()
	first := p.err == nil
	if first {
		p.err = why
	}
	p.mu.Unlock()
	p.conn.Close()
	if first {
		close(p.ended)
		p.broken()
	}
}

// write writes what is to be sent, unless another goroutine is at it, which then takes
// this with it. It is called with mu locked, and unlocks it.
func (p *pipe) write() error {
	if p.writing || p.err != nil {
		defer p.mu.Unlock()
		return p.err
	}
	p.writing = true
	for len(p.out) > 0 && p.err == nil {
		buf := p.out
		p.out = p.spare[:0]
		p.mu.Unlock()
		_, err := p.conn.Write(buf)
		p.mu.Lock()
		p.spare = nil
		if cap(buf) <= spareBuffer {
			p.spare = buf
		}
		if err != nil && p.err == nil {
			p.mu.Unlock()
			p.end(err)
			p.mu.Lock()
		}
	}
	p.writing = false
	err := p.err
	p.mu.Unlock()
	return err
}

func (p *pipe) send(msgs ...*nats.Msg) error {
	p.mu.Lock()
	for _, m := range msgs {
		p.out = appendPublish(p.out, m)
	}
	return p.write()
}

func (p *pipe) post(subject string, data []byte) error {
	p.mu.Lock()
	p.out = appendPublish(p.out, &nats.Msg{Subject: subject, Data: data})
	full, err := len(p.out) >= pipeBuffer, p.err
	if full {
		return p.write()
	}
	p.mu.Unlock()
	p.hurry()
	return err
}

// hurry wakes the flusher.
func (p *pipe) hurry() {
	select {
	case p.posted <- struct{}{}:
	default:
	}
}

// flusher writes what is posted.
func (p *pipe) flusher() {
	for {
		select {
		case <-p.posted:
			p.mu.Lock()
			_ = p.write() // the reader sees it too
		case <-p.ended:
			return
		}
	}
}

func (p *pipe) listen(in chan *nats.Msg) (subject string, stop func(), err error) {
	p.mu.Lock()
	p.last++
	id := p.last
	p.ears[id] = in
	subject = "_INBOX." + p.name + "." + strconv.Itoa(id)
	p.out = fmt.Appendf(p.out, "SUB %s %d\r\n", subject, id)
	stop = func() {
		p.mu.Lock()
		delete(p.ears, id)
		p.out = fmt.Appendf(p.out, "UNSUB %d\r\n", id)
		_ = p.write() // the connection may be closed
	}
	return subject, stop, p.write()
}

func (p *pipe) flush(wait time.Duration) error {
	pong := make(chan struct{})
	p.mu.Lock()
	p.pongs = append(p.pongs, pong)
	p.out = append(p.out, "PING\r\n"...)
	if err := p.write(); err != nil {
		return err
	}
	select {
	case <-pong:
		return nil
	case <-time.After(wait):
		return nats.ErrTimeout
	}
}

// appendPublish appends PUB or HPUB with a message.
func appendPublish(b []byte, m *nats.Msg) []byte {
	verb := "PUB "
	if len(m.Header) > 0 {
		verb = "HPUB "
	}
	b = append(append(append(b, verb...), m.Subject...), ' ')
	if m.Reply != "" {
		b = append(append(b, m.Reply...), ' ')
	}
	if len(m.Header) == 0 {
		b = append(strconv.AppendInt(b, int64(len(m.Data)), 10), "\r\n"...)
		return append(append(b, m.Data...), "\r\n"...)
	}
	const version, end = "NATS/1.0\r\n", "\r\n"
	size := len(version) + len(end)
	for key, values := range m.Header {
		for _, v := range values {
			size += len(key) + len(": ") + len(v) + len("\r\n")
		}
	}
	b = append(strconv.AppendInt(b, int64(size), 10), ' ')
	b = append(strconv.AppendInt(b, int64(size+len(m.Data)), 10), "\r\n"...)
	b = append(b, version...)
	for key, values := range m.Header {
		for _, v := range values {
			b = append(append(append(append(b, key...), ": "...), v...), "\r\n"...)
		}
	}
	return append(append(append(b, end...), m.Data...), "\r\n"...)
}

// read delivers what the server sends, until the connection ends.
func (p *pipe) read() error {
	buf := make([]byte, 0, pipeBuffer)
	var err error
	for err == nil {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, cap(buf))
		}
		var n int
		n, err = p.conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		rest, bad := p.take(buf)
		if bad != nil {
			err = bad
		}
		buf = buf[:copy(buf, rest)]
	}
	p.end(err)
	return err
}

// take delivers the whole messages at the front of buf and returns the rest.
func (p *pipe) take(buf []byte) (rest []byte, err error) {
	for {
		n := bytes.IndexByte(buf, '\n')
		if n < 1 || buf[n-1] != '\r' {
			return buf, nil
		}
		line, body := buf[:n-1], buf[n+1:]
		switch {
		case bytes.HasPrefix(line, []byte("MSG ")), bytes.HasPrefix(line, []byte("HMSG ")):
			size, err := p.message(line, body)
			if err != nil || size < 0 {
				return buf, err
			}
			body = body[size:]
		case bytes.Equal(line, []byte("PING")):
			// Not from here: the server may be waiting for this goroutine to read on.
			p.mu.Lock()
			p.out = append(p.out, "PONG\r\n"...)
			p.mu.Unlock()
			p.hurry()
		case bytes.Equal(line, []byte("PONG")):
			p.mu.Lock()
			if len(p.pongs) > 0 {
				close(p.pongs[0])
				p.pongs = p.pongs[1:]
			}
			p.mu.Unlock()
		case bytes.HasPrefix(line, []byte("-ERR")):
			return buf, fmt.Errorf("the server says %s", bytes.Trim(line[len("-ERR"):], " '"))
		}
		buf = body
	}
}

var errProtocol = errors.New("the server sent what is no message")

// message delivers the message that line announces and body begins with, and returns its
// size; -1 if it has not wholly come.
//
//	MSG <subject> <sid> [reply] <bytes>
//	HMSG <subject> <sid> [reply] <header bytes> <bytes>
func (p *pipe) message(line, body []byte) (size int, err error) {
	verb, words, _ := strings.Cut(string(line), " ")
	m := new(nats.Msg)
	var id, header int
	total := -1
	if at := strings.LastIndexByte(words, ' '); at > 0 {
		if total, err = strconv.Atoi(words[at+1:]); err != nil || total < 0 {
			return 0, errProtocol
		}
		words = words[:at]
	}
	if len(body) < total+len("\r\n") {
		return -1, nil
	}
	if verb == "HMSG" {
		at := strings.LastIndexByte(words, ' ')
		if header, err = strconv.Atoi(words[at+1:]); err != nil || at < 0 || header > total || header < 0 {
			return 0, errProtocol
		}
		words = words[:at]
	}
	m.Subject, words, _ = strings.Cut(words, " ")
	sid, reply, _ := strings.Cut(words, " ")
	m.Reply = reply
	if id, err = strconv.Atoi(sid); err != nil || total < 0 {
		return 0, errProtocol
	}
	if m.Header, err = headers(body[:header]); err != nil {
		return 0, err
	}
	m.Data = bytes.Clone(body[header:total])
	p.mu.Lock()
	ear := p.ears[id]
	p.mu.Unlock()
	select {
	case ear <- m:
	default: // nobody listens any more, or not fast enough
	}
	return total + len("\r\n"), nil
}

// headers reads the headers that mean something to who gets a message: its status, and
// ours. Those of the batch that it was stored with do not.
func headers(b []byte) (nats.Header, error) {
	const version = "NATS/1.0"
	first, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if len(b) == 0 {
		return nil, nil
	}
	if !ok || !bytes.HasPrefix(first, []byte(version)) {
		return nil, errProtocol
	}
	var h nats.Header
	set := func(key string, value []byte) {
		if h == nil {
			h = make(nats.Header)
		}
		h[key] = append(h[key], string(bytes.TrimSpace(value)))
	}
	if status := bytes.TrimSpace(first[len(version):]); len(status) > 0 {
		code, text, _ := bytes.Cut(status, []byte(" "))
		set("Status", code)
		set("Description", text)
	}
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if bytes.HasPrefix(line, []byte("Nats-Batch-")) || len(line) == 0 {
			continue
		}
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return nil, errProtocol
		}
		set(textproto.TrimString(string(key)), value)
	}
	return h, nil
}
