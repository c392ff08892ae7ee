package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/object/s3"
)

var attrs = object.Attrs{ContentType: "text/plain", CacheControl: "no-cache"}

// plainReader hides what else a reader can do.
type plainReader struct{ io.Reader }

func TestLargeObjectsComeBackAsTheyWere(t *testing.T) { both(t, testLargeObjectsComeBackAsTheyWere) }

func testLargeObjectsComeBackAsTheyWere(t *testing.T) {
	const partSize = 5 << 20
	for _, c := range []struct {
		name        string
		size        int
		known       bool
		parts, puts int
	}{
		{"a part, size known", partSize, true, 0, 1},
		{"a part, size unknown", partSize, false, 1, 0},
		{"a byte less than a part, size unknown", partSize - 1, false, 0, 1},
		{"a byte more than a part, size known", partSize + 1, true, 2, 0},
		{"a byte more than a part, size unknown", partSize + 1, false, 2, 0},
		{"three parts, size known", 3 * partSize, true, 3, 0},
		{"three parts, size unknown", 3 * partSize, false, 3, 0},
		{"six parts and a bit, size unknown", 6*partSize + 7, false, 7, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, nil)
			s := w.store(t, s3.Config{Parallel: 2})
			data, size := pattern(c.size), int64(-1)
			if c.known {
				size = int64(c.size)
			}
			if err := s.Put(t.Context(), "k", plainReader{strings.NewReader(data)}, size, attrs); err != nil {
				t.Fatal(err)
			}
			if got, err := get(t.Context(), s, "k"); err != nil || got != data {
				t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
			}
			if head, err := s.Head(t.Context(), "k"); err != nil || head.Attrs != attrs {
				t.Errorf("Attrs = %+v, %v; want %+v", head.Attrs, err, attrs)
			}
			parts, puts, aborts := len(w.requests("UploadPart")), len(w.requests("PutObject")), len(w.requests("AbortMultipartUpload"))
			if parts != c.parts || puts != c.puts || aborts != 0 {
				t.Errorf("%d parts, %d puts, %d aborts; want %d, %d and none", parts, puts, aborts, c.parts, c.puts)
			}
		})
	}
}

func TestAStormPasses(t *testing.T) { both(t, testAStormPasses) }

func testAStormPasses(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fault
	}{
		{"503 SlowDown", func(w http.ResponseWriter, _ *http.Request, _ string, n int) bool {
			return n <= 3 && refuse(w, 503, "SlowDown", "Please reduce your request rate.")
		}},
		{"500 InternalError", func(w http.ResponseWriter, _ *http.Request, _ string, n int) bool {
			return n <= 3 && refuse(w, 500, "InternalError", "We encountered an internal error. Please try again.")
		}},
		{"connections that are reset", func(w http.ResponseWriter, _ *http.Request, _ string, n int) bool { return n <= 3 && hangUp(w) }},
		{"gateways without a word", func(w http.ResponseWriter, _ *http.Request, _ string, n int) bool {
			if n <= 3 {
				w.WriteHeader(http.StatusBadGateway)
			}
			return n <= 3
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, c.fault)
			s := w.store(t, s3.Config{})
			data := pattern(6 << 20)
			put(t, s, "small", "data")
			put(t, s, "large", data)
			if err := s.Copy(t.Context(), "large", "copy"); err != nil {
				t.Errorf("Copy: %v", err)
			}
			if got, err := get(t.Context(), s, "copy"); err != nil || got != data {
				t.Errorf("Get: %d bytes, %v", len(got), err)
			}
			if _, err := s.Head(t.Context(), "copy"); err != nil {
				t.Errorf("Head: %v", err)
			}
			n := 0
			for _, err := range s.List(t.Context(), "", "") {
				if err != nil {
					t.Errorf("List: %v", err)
				}
				n++
			}
			if err := s.Delete(t.Context(), "copy"); n != 3 || err != nil {
				t.Errorf("%d objects; Delete: %v", n, err)
			}
			if err := s.Writable(t.Context()); err != nil {
				t.Errorf("Writable: %v", err)
			}
		})
	}
}

func TestCompletion(t *testing.T) { both(t, testCompletion) }

func testCompletion(t *testing.T) {
	failing := "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
	data := pattern(11 << 20)
	for _, c := range []struct {
		name    string
		fault   func(w http.ResponseWriter, r *http.Request, n int, forward func()) bool
		problem string
	}{
		{"an error behind a status of 200 is tried again", func(w http.ResponseWriter, _ *http.Request, n int, _ func()) bool {
			if n == 1 {
				_, _ = io.WriteString(w, failing)
			}
			return n == 1
		}, ""},
		{"an answer that is lost is not an error", func(w http.ResponseWriter, _ *http.Request, n int, forward func()) bool {
			if n == 1 {
				forward()
				return hangUp(w)
			}
			return refuse(w, 404, "NoSuchUpload", "The specified multipart upload does not exist.")
		}, ""},
		{"an error behind a status of 200 that stays is one", func(w http.ResponseWriter, _ *http.Request, _ int, _ func()) bool {
			_, _ = io.WriteString(w, failing)
			return true
		}, "InternalError"},
		{"an empty answer is no success", func(w http.ResponseWriter, _ *http.Request, _ int, _ func()) bool {
			_, _ = io.WriteString(w, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
			return true
		}, "no ETag"},
		{"an upload that somebody aborted is an error", func(w http.ResponseWriter, _ *http.Request, _ int, _ func()) bool {
			return refuse(w, 404, "NoSuchUpload", "The specified multipart upload does not exist.")
		}, "NoSuchUpload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var direct *wire
			w := newWire(t, func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
				if op != "CompleteMultipartUpload" {
					return false
				}
				return c.fault(w, r, n, func() { direct.forward(t, r) })
			})
			direct = w
			s := w.store(t, s3.Config{})
			put(t, s, "k", "old")
			err := s.Put(t.Context(), "k", strings.NewReader(data), int64(len(data)), attrs)
			got, gerr := get(t.Context(), s, "k")
			switch {
			case gerr != nil:
				t.Error(gerr)
			case c.problem == "" && (err != nil || got != data):
				t.Errorf("Put = %v, and %d bytes are there", err, len(got))
			case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem) || got != "old"):
				t.Errorf("Put = %v, and %.20q is there; want an error about %s and the old object", err, got, c.problem)
			}
			if n := len(w.requests("AbortMultipartUpload")); (n > 0) != (c.problem != "") {
				t.Errorf("%d aborts", n)
			}
		})
	}
}

// forward sends a request on to the server and drops the answer.
func (w *wire) forward(t testing.TB, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	on, err := http.NewRequestWithContext(r.Context(), r.Method, shared.Endpoint+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	on.Header, on.Host, on.ContentLength = r.Header.Clone(), r.Host, int64(len(body))
	resp, err := http.DefaultClient.Do(on)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the server says %s", resp.Status)
	}
}

// breaking gives n bytes and then does something.
type breaking struct {
	left  int
	after func() (int, error)
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left == 0 {
		return b.after()
	}
	n := min(len(p), b.left)
	clear(p[:n])
	b.left -= n
	return n, nil
}

func TestAnUploadThatFailsIsAborted(t *testing.T) { both(t, testAnUploadThatFailsIsAborted) }

func testAnUploadThatFailsIsAborted(t *testing.T) {
	broken := errors.New("the body broke")
	for _, c := range []struct {
		name  string
		fault fault
		body  func(cancel context.CancelFunc) io.Reader
		size  int64
		is    error
		about string
	}{
		{
			name: "a part is refused", about: "AccessDenied", size: 16 << 20,
			fault: func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				return op == "UploadPart" && r.URL.Query().Get("partNumber") == "2" && refuse(w, 403, "AccessDenied", "Access Denied")
			},
		},
		{
			name: "a part fails and fails", about: "InternalError", size: -1,
			fault: func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
				return op == "UploadPart" && r.URL.Query().Get("partNumber") == "3" && refuse(w, 500, "InternalError", "again")
			},
		},
		{
			name: "the body breaks", is: broken, size: -1,
			body: func(context.CancelFunc) io.Reader {
				return &breaking{12 << 20, func() (int, error) { return 0, broken }}
			},
		},
		{
			name: "the body is too short", is: io.ErrUnexpectedEOF, size: 16 << 20,
			body: func(context.CancelFunc) io.Reader {
				return &breaking{12 << 20, func() (int, error) { return 0, io.EOF }}
			},
		},
		{name: "the body is too long", about: "longer than the 15728640", size: 15 << 20},
		{
			name: "the body never goes on", is: io.ErrNoProgress, size: -1,
			body: func(context.CancelFunc) io.Reader {
				return &breaking{12 << 20, func() (int, error) { return 0, nil }}
			},
		},
		{
			name: "the context ends in the middle of the body", is: context.Canceled, size: -1,
			body: func(cancel context.CancelFunc) io.Reader {
				return &breaking{12 << 20, func() (int, error) { cancel(); return 1, nil }}
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, c.fault)
			s := w.store(t, s3.Config{Parallel: 2})
			put(t, s, "k", "old")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var body io.Reader = bytes.NewReader(make([]byte, 16<<20))
			if c.body != nil {
				body = c.body(cancel)
			}
			err := s.Put(ctx, "k", body, c.size, attrs)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.about) {
				t.Errorf("Put = %v, want an error about %q that is %v", err, c.about, c.is)
			}
			if made, aborted := len(w.requests("CreateMultipartUpload")), len(w.requests("AbortMultipartUpload")); made != 1 || aborted < 1 { // the server refuses while a part is on its way
				t.Errorf("%d uploads, %d aborts; want one, aborted", made, aborted)
			}
			if got, err := get(t.Context(), s, "k"); got != "old" || err != nil {
				t.Errorf("%.20q is there, %v; want the old object", got, err)
			}
			if !s.AllGivenBack() {
				t.Error("the memory of a part was not given back")
			}
		})
	}
}

func TestAnUploadIsAbortedWhenTheBodyPanics(t *testing.T) {
	both(t, testAnUploadIsAbortedWhenTheBodyPanics)
}

func testAnUploadIsAbortedWhenTheBodyPanics(t *testing.T) {
	w := newWire(t, nil)
	s := w.store(t, s3.Config{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		body := &breaking{6 << 20, func() (int, error) { panic("the body") }}
		_ = s.Put(t.Context(), "k", body, -1, attrs) // which does not return
	}()
	if n := len(w.requests("AbortMultipartUpload")); n != 1 {
		t.Errorf("%d aborts, want 1", n)
	}
	if !s.AllGivenBack() {
		t.Error("the memory of a part was not given back")
	}
}

// sink is an S3 that takes everything and keeps nothing.
func sink(t testing.TB) string {
	t.Helper()
	url, stop := startSink(t)
	t.Cleanup(stop)
	return url
}

func startSink(t testing.TB) (url string, stop func()) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", `"e"`)
		switch operation(r) {
		case "CreateMultipartUpload":
			_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
		case "CompleteMultipartUpload":
			_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"e-1"</ETag></CompleteMultipartUploadResult>`)
		}
	}))
	return s.URL, s.Close
}

func TestMemoryIsBounded(t *testing.T) { both(t, testMemoryIsBounded) }

func testMemoryIsBounded(t *testing.T) {
	server(t)
	const memory = 24 << 20
	s, err := s3.New(t.Context(), s3.Config{Bucket: "bucket", Endpoint: sink(t), PartSize: 5 << 20, Memory: memory, Parallel: 4})
	if err != nil {
		t.Fatal(err)
	}
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var most uint64
	errs := make(chan error)
	const puts = 8
	for i := range puts {
		go func() {
			body := &breaking{50 << 20, func() (int, error) { return 0, io.EOF }}
			errs <- s.Put(t.Context(), fmt.Sprint(i), plainReader{body}, -1, attrs)
		}()
	}
	for left := puts; left > 0; {
		select {
		case err := <-errs:
			if err != nil {
				t.Error(err)
			}
			left--
		default:
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapInuse)
			time.Sleep(5 * time.Millisecond) // between two samples
		}
	}
	if grown := int64(most) - int64(before.HeapInuse); grown > 5*memory {
		// Without a bound it would be 8 streams of 4 parts in buffers of 8 MiB. The
		// collector lets garbage double the heap, and -race makes pools forget.
		t.Errorf("8 streams of 50 MiB took %d MiB of heap, want at most five times the %d MiB allowed", grown>>20, int64(memory)>>20)
	} else {
		t.Logf("%d MiB of heap for 400 MiB sent", grown>>20)
	}
	if sent := s.Stats().Sent; sent < 400<<20 {
		t.Errorf("Stats().Sent = %d", sent)
	}
}

func TestPartsHoldTheLargestObject(t *testing.T) {
	s := open(t, "")
	for _, size := range []int64{0, 1, 5 << 20, 50_000 << 20, 50_001 << 20, 5 << 40, 48 << 40} {
		part, err := s.SizeOfPart(size, 1)
		if err != nil || part*10_000 < size || part < 5<<20 {
			t.Errorf("parts of %d bytes (%v) for an object of %d", part, err, size)
		}
	}
	if _, err := s.SizeOfPart(50<<40, 1); !myrmidon.IsPermanent(err) {
		t.Errorf("50 TiB: %v, want a permanent error", err)
	}
	if _, err := s.SizeOfPart(-1, 10_001); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
		t.Errorf("part 10,001: %v, want a permanent error with a hint", err)
	}
	normal, err := s3.New(t.Context(), s3.Config{Bucket: "bucket"})
	if err != nil {
		t.Fatal(err)
	}
	var total, last int64
	for n := 1; n <= 10_000; n++ {
		part, err := normal.SizeOfPart(-1, n)
		if err != nil || part < last || n <= 1000 && part != 16<<20 {
			t.Fatalf("part %d of an unknown size: %d bytes after %d, %v", n, part, last, err)
		}
		last = part
		total += part
	}
	if total < 5<<40 {
		t.Errorf("10,000 parts of an unknown size hold %d bytes, want 5 TiB", total)
	}
}
