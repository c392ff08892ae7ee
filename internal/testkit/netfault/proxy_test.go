package netfault_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/testkit/netfault"
)

// long is how long what must come is waited for.
const long = 30 * time.Second

// serveEcho answers each connection with what it sends, until the test ends.
func serveEcho(t *testing.T, l net.Listener) string {
	t.Helper()
	return serve(t, l, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

// serve hands each connection to handle, and closes it then.
func serve(t *testing.T, l net.Listener, handle func(net.Conn)) string {
	t.Helper()
	var running sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			running.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String()
}

func local(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func proxy(t *testing.T, target string) *netfault.Proxy {
	t.Helper()
	p, err := netfault.NewProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, long)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends text and hears it.
func ask(c net.Conn, text string, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	return hear(c, text, within)
}

func hear(c net.Conn, text string, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != text {
		return errors.New("heard " + strconv.Quote(string(got)))
	}
	return nil
}

func TestACutProxyPassesNothingAndLosesNothing(t *testing.T) {
	p := proxy(t, serveEcho(t, local(t)))
	c := dial(t, p.Addr())
	if err := ask(c, "before", long); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if err := ask(c, "during", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("through a cut proxy: %v, want a time-out", err)
	}
	late := dial(t, p.Addr())
	if err := ask(late, "late", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a new connection through a cut proxy: %v, want a time-out", err)
	}
	p.Heal()
	if err := hear(c, "during", long); err != nil {
		t.Errorf("after healing: %v", err)
	}
	if err := hear(late, "late", long); err != nil {
		t.Errorf("after healing, the new connection: %v", err)
	}
}

func TestNoByteArrivesBetweenCutAndHealUnderLoad(t *testing.T) {
	// The server pours; the client counts. Cut must also stop a write that is under way.
	p := proxy(t, serve(t, local(t), func(c net.Conn) {
		block := make([]byte, 1<<20)
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}))
	c := dial(t, p.Addr())
	drain := func(d time.Duration) (n int64) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(d))
		n, err := io.Copy(io.Discard, c)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("reading: %v", err)
		}
		return n
	}
	for range 3 {
		_ = c.SetReadDeadline(time.Now().Add(long))
		if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
			t.Fatalf("nothing flows: %v", err)
		}
		p.Cut()
		// What the kernel had for us already. Where we were stopped for the time in which
		// nothing was read, that says nothing.
		for cut, quiet := time.Now(), false; !quiet; {
			if time.Since(cut) > long {
				t.Fatal("bytes pass a cut proxy, on and on")
			}
			start := time.Now()
			quiet = drain(50*time.Millisecond) == 0 && time.Since(start) < 100*time.Millisecond
		}
		if n := drain(100 * time.Millisecond); n != 0 {
			t.Fatalf("%d bytes passed a cut proxy", n)
		}
		p.Heal()
	}
}

func TestCutDoesNotWaitForASlowReader(t *testing.T) {
	filled := make(chan struct{})
	p := proxy(t, serve(t, local(t), func(c net.Conn) {
		block := make([]byte, 1<<20)
		_ = c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			if _, err := c.Write(block); err != nil {
				break
			}
		}
		close(filled)
		_, _ = io.Copy(io.Discard, c)
	}))
	dial(t, p.Addr()) // and never read
	<-filled          // the proxy's write to the client blocks now
	done := make(chan struct{})
	go func() { defer close(done); p.Cut(); p.Heal() }()
	select {
	case <-done:
	case <-time.After(long):
		t.Fatal("Cut and Heal wait for the reader")
	}
}

// slow reads at 20 MB a second at most.
type slow struct{ r io.Reader }

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.r.Read(p[:min(len(p), 20<<10)])
}

func TestABigTransferSurvivesCuts(t *testing.T) {
	want := make([]byte, 8<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(want)
	p := proxy(t, serve(t, local(t), func(c net.Conn) { _, _ = c.Write(want) }))
	c := dial(t, p.Addr())
	if err := c.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(4 * time.Minute)) // a busy machine needs one
	stop, stopped := make(chan struct{}), make(chan struct{})
	cuts := 0
	go func() {
		defer close(stopped)
		for cuts < 2000 { // some more than it takes where nothing else runs
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				p.Cut()
				p.Heal()
				cuts++
			}
		}
	}()
	// A slow reader with a small window: writes are interrupted in their middle.
	got, err := io.ReadAll(slow{c})
	close(stop)
	<-stopped
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, want %d and the same", len(got), len(want))
	}
}

func TestResetIsSeenByBothSides(t *testing.T) {
	ended := make(chan error, 1)
	p := proxy(t, serve(t, local(t), func(c net.Conn) {
		_, err := io.Copy(c, c)
		ended <- err
	}))
	c := dial(t, p.Addr())
	if err := ask(c, "hello", long); err != nil {
		t.Fatal(err)
	}
	p.Reset()
	if err := hear(c, "x", long); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want ECONNRESET", err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server saw %v, want ECONNRESET", err)
		}
	case <-time.After(long):
		t.Error("the server saw nothing")
	}
	if n := p.Conns(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if err := ask(dial(t, p.Addr()), "again", long); err != nil {
		t.Errorf("a new connection after Reset: %v", err)
	}
}

func TestDelayAddsLatencyAndKeepsOrder(t *testing.T) {
	p := proxy(t, serveEcho(t, local(t)))
	c := dial(t, p.Addr())
	const d = 500 * time.Millisecond
	p.Delay(d)
	start := time.Now()
	text := "0123456789"
	for i := range text {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := hear(c, text, long); err != nil {
		t.Fatal(err)
	}
	// Ten chunks one behind the other would take 11 d; they travel together.
	if took := time.Since(start); took < 2*d || took > 8*d {
		t.Errorf("a round trip took %v, want a little more than %v", took, 2*d)
	}
	p.Delay(0)
	took := d
	for try := 0; try < 10 && took >= d; try++ { // with a delay, each of them takes twice that
		start = time.Now()
		if err := ask(c, "quick", long); err != nil {
			t.Fatal(err)
		}
		took = time.Since(start)
	}
	if took >= d {
		t.Errorf("without delay the last of ten round trips took %v", took)
	}
}

func TestHalfACloseIsPassedOn(t *testing.T) {
	p := proxy(t, serve(t, local(t), func(c net.Conn) {
		data, _ := io.ReadAll(c) // until the client closes its half
		_, _ = c.Write(bytes.ToUpper(data))
	}))
	c := dial(t, p.Addr()).(*net.TCPConn)
	if _, err := io.WriteString(c, "shout"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(long))
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "SHOUT" {
		t.Errorf("got %q, %v, want SHOUT", got, err)
	}
}

func TestASlowReaderGetsAllOfAClosedConnection(t *testing.T) {
	const size = 1 << 20
	served := make(chan struct{})
	p := proxy(t, serve(t, local(t), func(c net.Conn) {
		_, _ = c.Write(make([]byte, size))
		_ = c.Close()
		close(served)
	}))
	c := dial(t, p.Addr()).(*net.TCPConn)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-served
	time.Sleep(100 * time.Millisecond) // the proxy is done with it, we have read nothing
	_ = c.SetDeadline(time.Now().Add(long))
	if n, err := io.Copy(io.Discard, c); n != size || err != nil {
		t.Errorf("got %d bytes, %v, want %d", n, err, size)
	}
}

func TestATargetThatRefusesResetsTheClient(t *testing.T) {
	address := refusing(t)
	// The reset may come so soon that the dialling itself fails.
	c, err := net.DialTimeout("tcp", proxy(t, address).Addr(), long)
	if err == nil {
		defer c.Close()
		err = hear(c, "x", long)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want ECONNRESET", err)
	}
}

// refusing is an address that nobody else gets, and nobody listens on, until the test ends.
func refusing(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
}

func TestClosingAProxyEndsCutConnections(t *testing.T) {
	p := proxy(t, serveEcho(t, local(t)))
	c := dial(t, p.Addr())
	if err := ask(c, "hello", long); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := hear(c, "x", long); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want ECONNRESET", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestAProxyNeedsAPort(t *testing.T) {
	if p, err := netfault.NewProxy("localhost"); err == nil {
		p.Close()
		t.Error("NewProxy took a target without a port")
	}
}

func TestAConnectionIsResetAtAByte(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 100_000)
	for _, c := range []struct {
		name                 string
		sent, answered, want int64
	}{
		{"of what the client sends", 70_001, -1, 70_001},
		{"of the answer", -1, 33_333, 33_333},
		{"before the first", 0, -1, 0},
		{"never", -1, -1, 100_000},
	} {
		var mu sync.Mutex
		var got int64 // by the target
		taken := make(chan struct{})
		target := serve(t, local(t), func(conn net.Conn) {
			defer close(taken)
			buf := make([]byte, 10_000)
			for {
				n, err := conn.Read(buf)
				mu.Lock()
				got += int64(n)
				mu.Unlock()
				if _, werr := conn.Write(buf[:n]); err != nil || werr != nil {
					return
				}
			}
		})
		p := proxy(t, target)
		p.ResetAfter(func() (int64, int64) { return c.sent, c.answered })
		conn, err := net.Dial("tcp4", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		var back int64
		var reading sync.WaitGroup
		reading.Go(func() { back, _ = io.Copy(io.Discard, conn) })
		_, _ = conn.Write(data)
		_ = conn.(*net.TCPConn).CloseWrite()
		<-taken
		reading.Wait()
		_ = conn.Close()
		mu.Lock()
		switch { // an RST may take from a reader what it had not read yet
		case c.sent >= 0 && got > c.want, c.answered >= 0 && back > c.want,
			c.sent < 0 && c.answered < 0 && (got != c.want || back != c.want):
			t.Errorf("%s: the target got %d bytes, the client %d, want %d", c.name, got, back, c.want)
		case c.want < 100_000 && c.want > 0 && got == 0:
			t.Errorf("%s: nothing came through", c.name)
		}
		mu.Unlock()
	}
}
