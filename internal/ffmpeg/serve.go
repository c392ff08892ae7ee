package ffmpeg

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ReadRange fills b with the bytes of an object from offset on. It returns how many it
// read, and an error if these are not all: so an object that is not what it was must be
// an error, too. It ends soon after ctx does.
type ReadRange func(ctx context.Context, offset int64, b []byte) (int, error)

// serverOptions are ffmpeg's options for reading from a server: it can be sought in, and
// each request is a connection of its own, which costs nothing on loopback. ffmpeg's
// receive buffer is bounded, since what lies there has been read from the object and
// may never be wanted.
var serverOptions = []string{"-seekable", "1", "-multiple_requests", "0", "-icy", "0", "-recv_buffer_size", strconv.Itoa(socketBuffer)}

const (
	// socketBuffer is how much may be under way on loopback, each side, bytes. Linux
	// doubles it.
	socketBuffer = 64 << 10
	// writeStep is how much is written at a time; each is a sign of life.
	writeStep = 64 << 10
	// maxServedBoxes bounds how many boxes of a served file are looked at for what is
	// missing at its end: each may be a request to far away. ffmpeg complains of the end
	// of files that have more.
	maxServedBoxes = 1000
)

// server gives one object to the ffmpeg of one job: HTTP/1.1 on 127.0.0.1, one path
// that cannot be guessed, GET and Range.
//
//	ffmpeg ── GET, Range: bytes=N- ──> ServeHTTP ──> readAhead ── ReadRange ──> store
//
// ffmpeg is told that this server is its proxy, so that a request for any other place
// comes here, too, and is refused. The proxy wants a password, since a command line with
// the path in it can be read by everybody on the machine, and an environment cannot.
//
// A read that fails breaks the response off, and the error is kept: what ffmpeg then
// says of a file that ends too early is not the cause.
type server struct {
	size  int64
	addr  string // host and port
	path  string
	login string // user and password, as a URL has them
	ahead *readAhead
	http  *http.Server
	end   context.CancelFunc
	busy  sync.WaitGroup // the accepting goroutine, and requests
	broke chan struct{}  // closed when err is set

	mu     sync.Mutex
	err    error
	latest context.CancelFunc // of the newest request
	beat   chan<- struct{}    // of the running process, or nil
	closed bool
}

// Serve makes the size bytes that read gives readable for ffmpeg, under a name for
// people. Nothing is read before ffmpeg asks, and little beyond that: see readAhead.
// The caller closes the Media. It ends with ctx, too.
func Serve(ctx context.Context, name string, size int64, read ReadRange) (*Media, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("ffmpeg: serve %s on loopback: %w", name, err)
	}
	ctx, end := context.WithCancel(ctx)
	s := &server{
		size:  size,
		addr:  listener.Addr().String(),
		path:  "/" + rand.Text(),
		login: "ffmpeg:" + rand.Text(),
		ahead: &readAhead{size: size, read: read},
		end:   end,
		broke: make(chan struct{}),
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers that connect are no news
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetWriteBuffer(socketBuffer) // refused, more is read ahead
			}
			return ctx
		},
	}
	s.http.SetKeepAlivesEnabled(false)
	s.busy.Go(func() { _ = s.http.Serve(listener) }) // it ends by close
	return &Media{name: name, url: "http://" + s.addr + s.path, protocols: "http,tcp", server: s}, nil
}

// proxy is ffmpeg's environment: see server.
func (s *server) proxy() string { return "http_proxy=http://" + s.login + "@" + s.addr }

// close ends all requests and waits for them.
func (s *server) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	err := s.http.Close()
	s.busy.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// ServeHTTP answers one request. ffmpeg sends one a seek, mostly for all from there on,
// and hangs up when it wants something else.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		return
	}
	defer s.busy.Done()
	w.Header().Set("Connection", "close")
	switch {
	case !s.known(r.Header.Get("Proxy-Authorization")):
		w.Header().Set("Proxy-Authenticate", `Basic realm="myrmidon"`) // ffmpeg waits to be asked
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	case r.Host != s.addr, r.URL.RawQuery != "", subtle.ConstantTimeCompare([]byte(r.URL.Path), []byte(s.path)) != 1:
		w.WriteHeader(http.StatusNotFound)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	case s.failed() != nil:
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	from, to, status := byteRange(r.Header.Values("Range"), s.size)
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Type", "application/octet-stream")
	switch status {
	case http.StatusPartialContent:
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, s.size))
	case http.StatusRequestedRangeNotSatisfiable:
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", s.size))
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
	w.WriteHeader(status)
	ctx, done := s.newest(r.Context())
	defer done()
	if err := s.send(ctx, w, from, to); err != nil {
		panic(http.ErrAbortHandler) // ends the connection short of Content-Length
	}
}

// known reports whether a header has the password (RFC 7617).
func (s *server) known(header string) bool {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(s.login))
	return subtle.ConstantTimeCompare([]byte(header), []byte(want)) == 1
}

// enter counts a request, unless close waits already.
func (s *server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.busy.Add(1)
	}
	return !s.closed
}

// newest ends reading for the request before: ffmpeg has one at a time, and hangs up
// the old one only when the new one is answered.
func (s *server) newest(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil {
		s.latest()
	}
	s.latest = cancel
	return ctx, cancel
}

// send writes the bytes from from up to to. It reads on only when they are taken.
func (s *server) send(ctx context.Context, w io.Writer, from, to int64) error {
	for from < to {
		b, err := s.ahead.from(ctx, from, to-from, firstStep)
		if err != nil {
			if ctx.Err() == nil {
				s.fail(err)
			}
			return err
		}
		for len(b) > 0 {
			n, err := w.Write(b[:min(len(b), writeStep)])
			if err != nil {
				return err
			}
			from, b = from+int64(n), b[n:]
			s.alive()
		}
	}
	return nil
}

// fail keeps the first error.
func (s *server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.broke)
	}
}

func (s *server) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// listen passes signs of life to beat, until it is called with nil.
func (s *server) listen(beat chan<- struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beat = beat
}

func (s *server) alive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.beat != nil {
		pulse(s.beat)
	}
}

// reader reads headers here and there, for as long as ctx lasts.
func (s *server) reader(ctx context.Context) io.ReaderAt {
	return readerAt(func(b []byte, at int64) (int, error) {
		n := 0
		for n < len(b) {
			if at+int64(n) >= s.size {
				return n, io.EOF
			}
			got, err := s.ahead.from(ctx, at+int64(n), s.size-at-int64(n), headStep)
			if err != nil {
				return n, err
			}
			n += copy(b[n:], got)
		}
		return n, nil
	})
}

// readerAt is an [io.ReaderAt] made of its method.
type readerAt func(b []byte, at int64) (int, error)

func (f readerAt) ReadAt(b []byte, at int64) (int, error) { return f(b, at) }

// byteRange reads a Range header (RFC 9110, 14.1.2) for an object of size bytes: the
// bytes from from up to to, and the status to answer with. What it does not understand,
// and more than one range, counts as no header, as the RFC allows.
func byteRange(headers []string, size int64) (from, to int64, status int) {
	if len(headers) != 1 {
		return 0, size, http.StatusOK
	}
	set, ok := strings.CutPrefix(headers[0], "bytes=")
	first, last, dash := strings.Cut(set, "-")
	if !ok || !dash || strings.Contains(set, ",") {
		return 0, size, http.StatusOK
	}
	if first == "" { // the last so many bytes
		n, err := strconv.ParseUint(last, 10, 63)
		switch {
		case err != nil:
			return 0, size, http.StatusOK
		case n == 0 || size == 0:
			return 0, 0, http.StatusRequestedRangeNotSatisfiable
		}
		return max(0, size-int64(n)), size, http.StatusPartialContent
	}
	a, err := strconv.ParseUint(first, 10, 63)
	if err != nil {
		return 0, size, http.StatusOK
	}
	to = size
	if last != "" {
		b, err := strconv.ParseUint(last, 10, 63)
		if err != nil || b < a {
			return 0, size, http.StatusOK
		}
		if int64(b) < size {
			to = int64(b) + 1
		}
	}
	if int64(a) >= size {
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	}
	return int64(a), to, http.StatusPartialContent
}
