package s3_test

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"myrmidon/object/s3"
)

// wire stands between a store and the server and breaks what the test says. It is
// HTTP only: the store cannot tell it from S3.
type wire struct {
	url string

	mu   sync.Mutex
	seen []*http.Request // without bodies
}

// fault handles a request in the server's place and returns true, or leaves it to the
// server. op is the name of the API's operation and n counts its requests from 1.
type fault func(w http.ResponseWriter, r *http.Request, op string, n int) bool

// newWire returns a wire to the shared server.
func newWire(t testing.TB, f fault) *wire {
	t.Helper()
	target, err := url.Parse(server(t).Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	w := &wire{}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		op := operation(r)
		// A connection closed before the body was read may be reset, and the answer lost.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client went away
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.mu.Lock()
		w.seen = append(w.seen, r.Clone(t.Context()))
		n := w.count(op)
		w.mu.Unlock()
		if f == nil || !f(rw, r, op, n) {
			proxy.ServeHTTP(rw, r)
		}
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	w.url = s.URL
	return w
}

// operation names the request as the API reference does.
func operation(r *http.Request) string {
	q := r.URL.Query()
	copied := r.Header.Get("X-Amz-Copy-Source") != ""
	switch {
	case q.Has("list-type"):
		return "ListObjectsV2"
	case q.Has("uploads"):
		return "CreateMultipartUpload"
	case q.Has("partNumber") && copied:
		return "UploadPartCopy"
	case q.Has("partNumber"):
		return "UploadPart"
	case q.Has("uploadId") && r.Method == http.MethodPost:
		return "CompleteMultipartUpload"
	case q.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == http.MethodPut && copied:
		return "CopyObject"
	}
	return map[string]string{
		http.MethodPut: "PutObject", http.MethodGet: "GetObject", http.MethodHead: "HeadObject", http.MethodDelete: "DeleteObject",
	}[r.Method]
}

// count returns how many requests of op were seen. The caller holds mu.
func (w *wire) count(op string) int {
	n := 0
	for _, r := range w.seen {
		if operation(r) == op {
			n++
		}
	}
	return n
}

// requests returns the requests of op.
func (w *wire) requests(op string) []*http.Request {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.seen), func(r *http.Request) bool { return operation(r) != op })
}

// store opens a new bucket over the wire.
func (w *wire) store(t testing.TB, cfg s3.Config) *s3.Store {
	t.Helper()
	if cfg.Bucket == "" {
		cfg.Bucket = newBucket(t)
	}
	cfg.Endpoint = w.url
	if cfg.PartSize == 0 {
		cfg.PartSize = 5 << 20
	}
	s, err := s3.OpenFast(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refuse answers as S3 does.
func refuse(w http.ResponseWriter, status int, code, message string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Amz-Request-Id", "REQUEST7")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\"?>\n<Error><Code>%s</Code><Message>%s</Message><RequestId>REQUEST7</RequestId></Error>", code, message)
	return true
}

// hangUp ends the connection without an answer, by a reset.
func hangUp(w http.ResponseWriter) bool {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // then Close sends RST
	}
	_ = c.Close()
	return true
}

// cutOff ends the connection behind what was sent.
func cutOff() bool { panic(http.ErrAbortHandler) }

// stall keeps the connection and says nothing more until the client goes away.
func stall(_ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// part answers a GET with data, but sends only the first n bytes of it.
func part(w http.ResponseWriter, data string, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Header().Set("ETag", etagOf(data))
	w.Header().Set("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, data[:n])
	_ = http.NewResponseController(w).Flush()
}

func etagOf(data string) string { return fmt.Sprintf(`"%x"`, md5.Sum([]byte(data))) }

// pattern returns n bytes, of which no two places look alike.
func pattern(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i*7919)
	}
	return b.String()[:n]
}
