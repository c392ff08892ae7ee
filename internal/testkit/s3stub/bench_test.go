package s3stub

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"syscall"
	"testing"
	"time"
)

// nowhere is an answer that costs nothing to take.
type nowhere struct {
	h http.Header
	n int
}

func (w *nowhere) Header() http.Header         { return w.h }
func (w *nowhere) WriteHeader(int)             {}
func (w *nowhere) Write(p []byte) (int, error) { w.n += len(p); return len(p), nil }

// cpu reports the processor time of this process for each operation: on a machine with
// other work the wall clock says little.
func cpu(b *testing.B) (report func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begin := used()
	return func() { b.ReportMetric(float64(used()-begin)/1e3/float64(b.N), "cpu-us/op") }
}

// repeat measures a signed request twice: the server's own work, and all of it over a
// connection of 127.0.0.1, of which the client's half is net/http's.
func repeat(b *testing.B, s *Server, method, path string, headers ...string) {
	req := s.client().request(b, method, path, "", headers...)
	b.Run("handler", func(b *testing.B) {
		r := httptest.NewRequest(method, path, nil)
		r.Header, r.Host = req.Header, req.URL.Host
		w := &nowhere{h: make(http.Header)}
		b.ReportAllocs()
		report := cpu(b)
		for b.Loop() {
			clear(w.h)
			s.ServeHTTP(w, r)
		}
		report()
		if w.n == 0 {
			b.Fatal("no answer")
		}
	})
	b.Run("http", func(b *testing.B) {
		transport := &http.Transport{DisableCompression: true}
		defer transport.CloseIdleConnections()
		buf := make([]byte, 512<<10)
		b.ReportAllocs()
		report := cpu(b)
		for b.Loop() {
			resp, err := transport.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			for err == nil {
				var m int
				m, err = resp.Body.Read(buf)
				n += m
			}
			if resp.StatusCode >= 300 || n == 0 {
				b.Fatalf("%d, %d bytes: %s", resp.StatusCode, n, buf[:n])
			}
			if err := resp.Body.Close(); err != nil {
				b.Fatal(err)
			}
		}
		report()
	})
}

func benchServer(b *testing.B) *Server {
	s := New(b, Config{})
	set := Synthetic{N: 10_000_000, Key: Numbered("videos/course/obj-", 8, ".ts"), Size: 64 << 10}
	for _, err := range []error{s.AddSynthetic("from", set), s.AddMirror("mirror", set, ""), s.AddBucket("stored")} {
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range 10_000 {
		if err := s.PutObject("stored", Object{Key: fmt.Sprintf("videos/course/obj-%08d.ts", i), Modified: time.Unix(1e9, 0)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// BenchmarkList is a page of 1,000 keys.
func BenchmarkList(b *testing.B) {
	s := benchServer(b)
	for _, bucket := range []string{"from", "stored"} {
		b.Run(bucket, func(b *testing.B) {
			after := url.QueryEscape("videos/course/obj-00005000.ts")
			repeat(b, s, "GET", "/"+bucket+"?list-type=2&encoding-type=url&start-after="+after)
		})
	}
}

// BenchmarkCopy is a CopyObject.
func BenchmarkCopy(b *testing.B) {
	s := benchServer(b)
	for _, bucket := range []string{"mirror", "stored"} {
		b.Run(bucket, func(b *testing.B) {
			repeat(b, s, "PUT", "/"+bucket+"/videos/course/obj-05000000.ts", "X-Amz-Copy-Source", "from/videos/course/obj-05000000.ts")
		})
	}
}

func BenchmarkHead(b *testing.B) {
	s := benchServer(b)
	repeat(b, s, "GET", "/from/videos/course/obj-05000000.ts", "Range", "bytes=0-0")
}
