package s3stub

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
)

// drained is how much of a body nobody wants is read, so that the client, which sends
// before it reads, sees the answer and not a broken connection.
const drained = 64 << 20

// answer sends the answer, or the error e, as the fault has it.
func (c *call) answer(e *apiError, f *Fault) {
	t := &c.s.tallies[c.verb]
	if f.Reset {
		t.failed.Add(1)
		c.reset()
	}
	if e != nil {
		c.fail(e)
		if f.InBody {
			c.status = http.StatusOK
		}
	}
	if e != nil {
		t.failed.Add(1)
		// What is left of a body is read; an error here is the client's to see.
		_, _ = io.CopyN(io.Discard, c.r.Body, drained)
	}
	h := c.w.Header()
	c.set("X-Amz-Request-Id", c.requestID())
	for name, value := range f.Header {
		h.Set(name, value)
	}
	n := c.size()
	silent := c.r.Method == http.MethodHead || c.status == http.StatusNoContent || c.status == http.StatusNotModified
	if c.file == nil && n > 0 && !silent {
		c.set("Content-Type", "application/xml")
	}
	switch {
	case e != nil && c.r.Method == http.MethodHead:
		c.set("Content-Type", "application/xml")
	case c.status != http.StatusNoContent && c.status != http.StatusNotModified:
		c.set("Content-Length", strconv.FormatInt(n, 10))
	}
	c.w.WriteHeader(c.status)
	if silent || n == 0 && f.Cut == 0 {
		return
	}
	if f.Cut != 0 {
		c.cut(f)
	}
	t.out.Add(n)
	c.write(c.w, n)
}

// write writes the first n bytes of the answer's body. A client that has gone is no
// concern of the server's.
func (c *call) write(w io.Writer, n int64) {
	if c.file != nil {
		_ = c.file.writeRange(w, c.off, n)
		return
	}
	first := min(n, int64(len(c.out)))
	if _, err := w.Write(c.out[:first]); err == nil && n > first {
		_, _ = w.Write(c.more[:n-first])
	}
}

// cut sends the beginning of the answer's body and closes the connection.
func (c *call) cut(f *Fault) {
	n := min(max(f.Cut, 0), c.size())
	c.s.tallies[c.verb].out.Add(n)
	c.write(c.w, n)
	// Without a flush nothing of a short answer would be sent at all.
	_ = http.NewResponseController(c.w).Flush()
	panic(http.ErrAbortHandler)
}

// reset resets the connection: the client reads an error and no end of file.
func (c *call) reset() {
	conn, _, err := http.NewResponseController(c.w).Hijack()
	if err != nil { // HTTP/2, where a stream can be broken off only
		panic(http.ErrAbortHandler)
	}
	inner := conn
	if t, ok := conn.(*tls.Conn); ok {
		inner = t.NetConn()
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		// Where it fails, the connection is closed in order, and still broken.
		_ = tcp.SetLinger(0)
	}
	_ = inner.Close()
	panic(http.ErrAbortHandler)
}
