package haproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxReply bounds what one process may answer: HAProxy writes about 260 bytes a row.
const maxReply = 256 << 20

// DefaultTimeout is how long one target has, from dialling it to its last byte.
const DefaultTimeout = time.Second

// A Target is where statistics are read from.
type Target struct {
	// Name is what the target is called; its address, without a password, unless set.
	Name string
	// Address is the path of a stats socket or of a master socket ("/run/haproxy.sock",
	// "unix:///run/haproxy.sock"), a stats socket on TCP ("tcp://10.0.0.1:9999",
	// "10.0.0.1:9999"), or the URL of a stats page ("http://user:password@host/stats").
	Address string
}

// A Process is one HAProxy process that answered, by its "show info". Of a stats page
// only Target is known.
type Process struct {
	Target   string // the name of the target
	PID      int64
	Start    int64 // Unix seconds; 0 before HAProxy 2.5
	Uptime   int64 // seconds
	Version  string
	Node     string
	Stopping bool // it was told to end, and serves what is left
	// Of all connections: now, at most, and since the start.
	CurrConns, MaxConn, CumConns int64
	ConnRate                     int64 // a second
	CumReq                       int64
	IdlePercent                  int64
}

// same reports whether p is the process that q was, as far as both tell. The uptime decides
// only where there is no start time: it follows a clock that may be set back.
func (p *Process) same(q *Process) bool {
	return p.PID == q.PID && p.Start == q.Start && (p.Start != 0 || p.Uptime >= q.Uptime)
}

// A Reply is what one process answered.
type Reply struct {
	Process Process
	// CSV is its dump, as it came. It is for ParseCSV to find out whether it is whole.
	CSV []byte

	buf   []byte // all that was read, to be used again
	marks marks  // of its rows, to be compared with those of the next
}

// Read reads the statistics of one target within the deadline of ctx, or
// [DefaultTimeout] if it has none. A stats socket gives one reply; a master socket gives
// one of each worker, also of old ones that still serve connections. If some workers
// failed, there are replies and an error.
//
// It sends "show info;show stat" and changes nothing. Errors never hold a password.
func Read(ctx context.Context, target Target) ([]Reply, error) {
	s, err := newSource(target)
	if err != nil {
		return nil, err
	}
	defer s.close()
	deadline, stop := s.inTime(ctx)
	defer stop()
	return s.read(ctx, deadline, nil)
}

// inTime is the deadline of ctx, or [DefaultTimeout] if it has none. Until stop the end of
// ctx interrupts what s does.
func (s *source) inTime(ctx context.Context) (deadline time.Time, stop func() bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(DefaultTimeout)
	}
	return deadline, context.AfterFunc(ctx, s.interrupt)
}

// source reads one target again and again.
type source struct {
	name          string
	network, addr string // of a socket
	page          *url.URL
	client        *http.Client
	unix          *net.UnixAddr
	master        bool // it turned out to be a master socket
	buffers       *buffers
	inflow        *inflow // merges what is being read, for a single poll; or nil
	last          Process // that was read, whose strings the next most likely has again

	asked net.Conn // where askAhead sent the question; or nil

	mu   sync.Mutex
	conn net.Conn // that is in use
}

func newSource(t Target) (*source, error) {
	a := t.Address
	s := &source{name: t.Name, buffers: new(buffers)}
	switch {
	case a == "":
		return nil, errors.New("haproxy: a target has no address: give the path of a stats socket, tcp://host:port or the URL of a stats page")
	case strings.HasPrefix(a, "http://"), strings.HasPrefix(a, "https://"):
		u, err := url.Parse(a)
		if err != nil || u.Host == "" {
			return nil, errors.New("haproxy: a target is no valid URL: write http://host:port/stats, with special characters of a password percent-encoded")
		}
		if path, _, found := strings.Cut(u.Path, ";"); found {
			u.Path = path
		}
		u.Path += ";csv"
		s.page = u
		if s.name == "" {
			s.name = strings.TrimSuffix(u.Redacted(), ";csv")
		}
		s.client = &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		return s, nil
	case strings.HasPrefix(a, "tcp://"):
		s.network, s.addr = "tcp", strings.TrimPrefix(a, "tcp://")
	case strings.HasPrefix(a, "unix:"):
		s.network, s.addr = "unix", strings.TrimPrefix(strings.TrimPrefix(a, "unix:"), "//")
	case strings.Contains(a, "://"):
		scheme, _, _ := strings.Cut(a, "://")
		return nil, fmt.Errorf("haproxy: a target begins with %q: use unix, tcp, http or https", scheme)
	case !strings.Contains(a, "/") && strings.Contains(a, ":"):
		s.network, s.addr = "tcp", a
	default:
		s.network, s.addr = "unix", a
	}
	if s.network == "unix" {
		s.unix = &net.UnixAddr{Name: s.addr, Net: "unix"}
	}
	if s.network == "tcp" {
		if _, _, err := net.SplitHostPort(s.addr); err != nil {
			return nil, fmt.Errorf("haproxy: the target %s: %w: write tcp://host:port", a, err)
		}
	}
	if s.name == "" {
		s.name = a
	}
	return s, nil
}

func (s *source) close() {
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
}

// read appends the replies of all processes behind the target. That ctx ends is for the
// caller to tell by interrupt: one who reads many targets again and again does it once
// for all, since a context of its own would cost each of them most of what a read allocates.
func (s *source) read(ctx context.Context, deadline time.Time, replies []Reply) ([]Reply, error) {
	if s.page != nil {
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		data, err := s.get(ctx)
		if err != nil {
			return replies, err
		}
		return append(replies, Reply{Process: Process{Target: s.name}, CSV: data, buf: data}), nil
	}
	if s.master {
		return s.readMaster(ctx, deadline, replies)
	}
	data, err := s.ask(ctx, deadline, question, s.unlessUnknown)
	if err != nil {
		return replies, err
	}
	if isUnknown(data) {
		// Masters know neither; nothing else does not.
		s.keep(data)
		s.master = true
		return s.readMaster(ctx, deadline, replies)
	}
	r, err := s.split(data)
	if err != nil {
		return replies, err
	}
	return append(replies, r), nil
}

func untilUnknown(data []byte) ([]byte, bool) { return data, isUnknown(data) }

// unlessUnknown lets the answer to the question flow into the stream, if there is one.
func (s *source) unlessUnknown(data []byte) ([]byte, bool) {
	if s.inflow != nil {
		s.inflow.look(data)
		data = s.inflow.forget(data)
	}
	return untilUnknown(data)
}

func isUnknown(data []byte) bool {
	return bytes.HasPrefix(data, []byte("Unknown command")) && bytes.HasSuffix(data, []byte("\n\n"))
}

// split takes the answer to "show info;show stat" apart.
func (s *source) split(data []byte) (Reply, error) {
	r := Reply{Process: Process{Target: s.name}}
	if !bytes.HasPrefix(data, []byte("Name:")) {
		return r, s.refused(data)
	}
	end := bytes.Index(data, []byte("\n\n"))
	if end < 0 {
		return r, fmt.Errorf("haproxy: %s: %w: in the answer to show info, after %d bytes", s.name, ErrTruncated, len(data))
	}
	r.Process.readInfo(data[:end+1], &s.last)
	s.last = r.Process
	r.CSV, r.buf = data[end+2:], data
	return r, nil
}

// refused says what was answered in place of statistics.
func (s *source) refused(data []byte) error {
	line := firstLine(data)
	switch {
	case len(data) == 0:
		return fmt.Errorf("haproxy: %s: %w: it closed the connection and said nothing", s.name, ErrTruncated)
	case strings.HasPrefix("Name:", line):
		return fmt.Errorf("haproxy: %s: %w: after %d bytes", s.name, ErrTruncated, len(data))
	case strings.HasPrefix(line, "Permission denied"):
		return fmt.Errorf("haproxy: %s: %w: it answers %q: its \"stats socket\" line needs level user or higher",
			s.name, fs.ErrPermission, line)
	}
	return fmt.Errorf("haproxy: %s: %w: it answers %.80q: is this a stats socket of HAProxy?", s.name, ErrNotStats, line)
}

// readInfo reads the answer to "show info"; last is whose strings are used again.
func (p *Process) readInfo(info []byte, last *Process) {
	text := func(value []byte, last string) string {
		if string(value) == last {
			return last
		}
		return strings.ToValidUTF8(string(value), "?")
	}
	number := func(dst *int64, value []byte) {
		if n, ok := parseNumber(value); ok {
			*dst = n
		}
	}
	for len(info) > 0 {
		line := info
		if i := bytes.IndexByte(info, '\n'); i >= 0 {
			line, info = info[:i], info[i+1:]
		} else {
			info = nil
		}
		i := bytes.Index(line, []byte(": "))
		if i < 0 {
			continue
		}
		value := line[i+2:]
		switch string(line[:i]) {
		case "Version":
			p.Version = text(value, last.Version)
		case "node":
			p.Node = text(value, last.Node)
		case "Pid":
			number(&p.PID, value)
		case "Start_time_sec":
			number(&p.Start, value)
		case "Uptime_sec":
			number(&p.Uptime, value)
		case "Stopping":
			p.Stopping = string(value) != "0"
		case "CurrConns":
			number(&p.CurrConns, value)
		case "Maxconn":
			number(&p.MaxConn, value)
		case "CumConns":
			number(&p.CumConns, value)
		case "ConnRate":
			number(&p.ConnRate, value)
		case "CumReq":
			number(&p.CumReq, value)
		case "Idle_pct":
			number(&p.IdlePercent, value)
		}
	}
}

// buffers are for dumps, to be used again by whoever reads next.
type buffers struct {
	mu   sync.Mutex
	free [][]byte
}

// firstBuffer holds the dump of 1,700 rows. Pages of it that stay empty cost nothing.
const firstBuffer = 448 << 10

// flowBuffer holds what was not merged yet of a dump that flows into a stream.
const flowBuffer = 32 << 10

// keep lets the next ask use the memory of data.
func (s *source) keep(data []byte) {
	if cap(data) > 0 {
		s.buffers.mu.Lock()
		defer s.buffers.mu.Unlock()
		s.buffers.free = append(s.buffers.free, data[:0])
	}
}

func (s *source) buffer() []byte {
	if s.inflow != nil && !s.inflow.first {
		return make([]byte, 0, flowBuffer)
	}
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	if n := len(s.buffers.free); n > 0 {
		b := s.buffers.free[n-1]
		s.buffers.free[n-1] = nil
		s.buffers.free = s.buffers.free[:n-1]
		return b
	}
	return make([]byte, 0, firstBuffer)
}

// question is what stats sockets are asked: processes are known by their info.
const question = "show info;show stat\n"

// askAhead sends the question to a Unix socket, which takes it at once, so that the process
// behind it is at work before the goroutine runs that reads the answer. What fails is for ask
// to try again, and to explain.
func (s *source) askAhead() {
	if s.unix == nil || s.master {
		return
	}
	conn, err := net.DialUnix(s.network, nil, s.unix)
	if err != nil {
		return
	}
	if _, err := conn.Write([]byte(question)); err != nil {
		conn.Close()
		return
	}
	s.asked = conn
}

// ask sends a command on a connection of its own and reads until the other side closes,
// or look says that it is enough. Look also says what of the answer is still needed. The
// command is sent unless askAhead did, which sends the question.
func (s *source) ask(ctx context.Context, deadline time.Time, command string, look func([]byte) (keep []byte, enough bool)) ([]byte, error) {
	conn, asked := s.asked, s.asked != nil
	s.asked = nil
	if !asked {
		var err error
		if conn, err = s.dial(ctx, deadline); err != nil {
			return nil, s.failed(ctx, "dial", err)
		}
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, s.failed(ctx, "dial", err)
	}
	s.use(conn)
	defer s.use(nil)
	if err := ctx.Err(); err != nil {
		return nil, s.failed(ctx, "dial", err) // it ended before there was anything to interrupt
	}
	buf := s.buffer()
	if !asked {
		if _, err := conn.Write(append(buf, command...)); err != nil {
			s.keep(buf)
			return nil, s.failed(ctx, "write", err)
		}
	}
	for total := 0; ; {
		if len(buf) == cap(buf) {
			// In few steps, since what is left behind is garbage, and by make, which does not
			// touch what is not used.
			more := make([]byte, len(buf), 4*cap(buf))
			copy(more, buf)
			buf = more
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		total += n
		if err == io.EOF {
			return buf, nil
		}
		if err == nil {
			enough := false
			if buf, enough = look(buf); enough {
				return buf, nil
			}
		} else {
			if s.inflow == nil { // or else the table still refers to it
				s.keep(buf)
			}
			return nil, s.failed(ctx, fmt.Sprintf("read after %d bytes", total), err)
		}
		if len(buf) > maxReply {
			return nil, fmt.Errorf("haproxy: %s: the answer is larger than %d bytes", s.name, maxReply)
		}
	}
}

func (s *source) use(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
}

// interrupt lets an ask that is under way fail at once.
func (s *source) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.SetDeadline(time.Unix(1, 0))
	}
}

// dial waits until the deadline while a socket's queue is full: Linux does not wait by
// itself on a Unix socket that does not block, so there it needs no context either.
func (s *source) dial(ctx context.Context, deadline time.Time) (net.Conn, error) {
	if s.network != "unix" {
		d := net.Dialer{Deadline: deadline}
		return d.DialContext(ctx, s.network, s.addr)
	}
	for {
		conn, err := net.DialUnix(s.network, nil, s.unix)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, syscall.EAGAIN) || !time.Now().Before(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// failed wraps err with what to do about it.
func (s *source) failed(ctx context.Context, what string, err error) error {
	hint := ""
	var timeout net.Error
	switch {
	case ctx.Err() == context.Canceled:
		err = ctx.Err()
	case errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded):
		hint = ": it did not answer in time"
	case errors.Is(err, fs.ErrPermission):
		hint = ": run this as a user whom the mode, user and group of its \"stats socket\" line let in"
	case errors.Is(err, fs.ErrNotExist):
		hint = ": is HAProxy running, with this \"stats socket\"?"
	case s.network == "unix":
		if info, statErr := os.Stat(s.addr); statErr == nil && info.Mode().Type() != fs.ModeSocket {
			hint = ": it is not a socket"
		}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // the address is said already
	}
	return fmt.Errorf("haproxy: %s: %s: %w%s", s.name, what, err, hint)
}

// get reads a stats page as CSV. The page ends without a blank line; that it is whole
// is what HTTP says.
func (s *source) get(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.page.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("haproxy: %s: the URL is not valid", s.name)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, s.failed(ctx, "get", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return nil, fmt.Errorf("haproxy: %s: %w: the page answers %s: write http://user:password@host/…, as its \"stats auth\" line has it",
			s.name, fs.ErrPermission, resp.Status)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("haproxy: %s: %w: the page answers %s: is it the \"stats uri\"?", s.name, ErrNotStats, resp.Status)
	}
	buf := bytes.NewBuffer(s.buffer())
	if _, err := buf.ReadFrom(io.LimitReader(resp.Body, maxReply+1)); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("haproxy: %s: %w: after %d bytes", s.name, ErrTruncated, buf.Len())
		}
		return nil, s.failed(ctx, fmt.Sprintf("read after %d bytes", buf.Len()), err)
	}
	if buf.Len() > maxReply {
		return nil, fmt.Errorf("haproxy: %s: the answer is larger than %d bytes", s.name, maxReply)
	}
	data := buf.Bytes()
	if !bytes.HasPrefix(data, []byte("# ")) {
		return nil, fmt.Errorf("haproxy: %s: %w: the page begins with %.60q: is it the \"stats uri\"?", s.name, ErrNotStats, firstLine(data))
	}
	return append(data, '\n'), nil
}
