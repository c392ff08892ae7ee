package notify

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Whoever may not send keeps no connection, and those who may keep theirs.
func TestAWebhookEndsConnectionsThatItRefuses(t *testing.T) {
	h := newHook(t, WebhookConfig{Dir: t.TempDir(), Token: "s3cret", Topics: []string{topic}}, func(context.Context, Object) error { return nil })
	for _, c := range []struct {
		path, header string
		body         string
		want         int
	}{
		{"/s3", "X: y", "", 401},
		{"/other", "Authorization: Bearer s3cret", "", 404},
		{"/s3", "Origin: http://evil", "", 403},
		{"/s3", "Authorization: Bearer s3cret", sns(t, "Notification", topic+"2", put("k")), 403},
		{"/s3", "Authorization: Bearer s3cret", put("k"), 200},
	} {
		conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(h.url, "http://"), "/s3"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(c.header, ": ")
		req.Header.Set(name, value)
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.want || resp.Close != (c.want != 200) {
			t.Errorf("%s: status %d, closed %v", c.header, resp.StatusCode, resp.Close)
		}
	}
}

// Connections beyond the limit wait until others end.
func TestAListenerLimitsItsConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 2)
	accepted := make(chan net.Conn, 3)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Error("three connections of two")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // leaves once
	third := <-accepted
	if len(l.room) != 2 {
		t.Errorf("%d connections are counted, want 2", len(l.room))
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a listener that is full does not end")
	}
	second.Close()
	third.Close()
}

// Silent connections, as many as there are, cost the process no more files than it reckons with.
func TestAWebhookThatIsFloodedHasFilesLeft(t *testing.T) {
	h := newHook(t, WebhookConfig{Dir: t.TempDir()}, func(context.Context, Object) error { return nil })
	address := strings.TrimSuffix(strings.TrimPrefix(h.url, "http://"), "/s3")
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	// The process's other files come and go: those of tests before this one, too.
	count := func() (n int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no system that lists a process's files")
		}
		for _, e := range entries {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			at, err := syscall.Getsockname(fd)
			if in, tcp := at.(*syscall.SockaddrInet4); err == nil && tcp && in.Port == number {
				if _, err := syscall.Getpeername(fd); !errors.Is(err, syscall.ENOTCONN) { // as the listener's
					n++
				}
			}
		}
		return n
	}
	for range MostConnections + 60 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	until(t, "as many as may are accepted", func() bool { return count() >= MostConnections })
	time.Sleep(50 * time.Millisecond)
	if n := count(); n > MostConnections {
		t.Errorf("%d connections are accepted, want %d", n, MostConnections)
	}
}
