package s3_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/object/s3"
)

// get returns what a Get of the whole object gives, up to its error.
func get(ctx context.Context, s *s3.Store, key string) (string, error) {
	r, info, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	if err == nil && info.Size != int64(len(data)) {
		err = errors.New("Info.Size is not the body's")
	}
	return string(data), errors.Join(err, r.Close())
}

func TestABodyThatBreaksOff(t *testing.T) { both(t, testABodyThatBreaksOff) }

func testABodyThatBreaksOff(t *testing.T) {
	data := pattern(300_000)
	for _, c := range []struct {
		name    string
		fault   func(w http.ResponseWriter, r *http.Request, s *s3.Store, n int) bool
		problem string // "" means the whole body comes
		is      error
		stall   time.Duration
		resumed int64
		gets    int
	}{
		{
			name: "is resumed where it broke off", resumed: 1, gets: 2,
			fault: func(w http.ResponseWriter, _ *http.Request, _ *s3.Store, n int) bool {
				if n > 1 {
					return false
				}
				part(w, data, 100_000)
				return cutOff()
			},
		},
		{
			name: "is resumed where it stands still", stall: 200 * time.Millisecond, resumed: 1, gets: 2,
			fault: func(w http.ResponseWriter, r *http.Request, _ *s3.Store, n int) bool {
				if n > 1 {
					return false
				}
				part(w, data, 100_000)
				return stall(w, r)
			},
		},
		{
			name: "is resumed though the next attempts find no server", resumed: 1, gets: 4,
			fault: func(w http.ResponseWriter, _ *http.Request, _ *s3.Store, n int) bool {
				if n == 1 {
					part(w, data, 100_000)
					return cutOff()
				}
				return n <= 3 && hangUp(w)
			},
		},
		{
			name: "is an error if it breaks off again and again", problem: "attempts again", is: io.ErrUnexpectedEOF, resumed: 5, gets: 6,
			fault: func(w http.ResponseWriter, r *http.Request, _ *s3.Store, n int) bool {
				if n == 1 {
					part(w, data, 100_000)
					return cutOff()
				}
				w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/300000")
				w.Header().Set("Content-Length", "200000")
				w.Header().Set("ETag", etagOf(data))
				w.WriteHeader(http.StatusPartialContent)
				return true // and no byte
			},
		},
		{
			name: "is an error if the object was replaced", problem: "replaced meanwhile", gets: 2,
			fault: func(w http.ResponseWriter, _ *http.Request, s *s3.Store, n int) bool {
				if n > 1 {
					return false
				}
				part(w, data, 100_000)
				put(t, s, "k", pattern(299_999))
				return cutOff()
			},
		},
		{
			name: "is an error if the object was replaced, also where If-Match is unknown", problem: "replaced meanwhile", gets: 2,
			fault: func(w http.ResponseWriter, r *http.Request, _ *s3.Store, n int) bool {
				if n == 1 {
					part(w, data, 100_000)
					return cutOff()
				}
				w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+"/300000")
				w.Header().Set("Content-Length", "200000")
				w.Header().Set("ETag", `"another"`)
				w.WriteHeader(http.StatusPartialContent)
				_, _ = io.WriteString(w, strings.Repeat("x", 200_000))
				return true
			},
		},
		{
			name: "is an error if the object is gone", problem: "not exist", is: fs.ErrNotExist, gets: 2,
			fault: func(w http.ResponseWriter, _ *http.Request, s *s3.Store, n int) bool {
				if n > 1 {
					return false
				}
				part(w, data, 100_000)
				if err := s.Delete(t.Context(), "k"); err != nil {
					t.Error(err)
				}
				return cutOff()
			},
		},
		{
			name: "is an error if its version has no name", problem: "unexpected EOF", is: io.ErrUnexpectedEOF, gets: 1,
			fault: func(w http.ResponseWriter, _ *http.Request, _ *s3.Store, _ int) bool {
				w.Header().Set("Content-Length", "300000")
				_, _ = io.WriteString(w, data[:1000])
				return true
			},
		},
		{
			name: "is an error behind its last byte if the checksum is wrong", problem: "checksum", gets: 1,
			fault: func(w http.ResponseWriter, _ *http.Request, _ *s3.Store, _ int) bool {
				w.Header().Set("X-Amz-Checksum-Crc32", "AAAAAA==")
				part(w, data, len(data))
				return true
			},
		},
	} {
		var s *s3.Store
		var w *wire
		try := func(t *testing.T, stall time.Duration) (got string, err error) {
			w = newWire(t, func(w http.ResponseWriter, r *http.Request, op string, n int) bool {
				return op == "GetObject" && c.fault(w, r, s, n)
			})
			bucket := newBucket(t)
			put(t, w.store(t, s3.Config{Bucket: bucket}), "k", data)
			s = w.store(t, s3.Config{Bucket: bucket, Stall: stall})
			return get(t.Context(), s, "k")
		}
		t.Run(c.name, func(t *testing.T) {
			var got string
			var err error
			if c.stall == 0 {
				got, err = try(t, 0)
			} else {
				patiently(t, c.stall, func(stall time.Duration) bool {
					got, err = try(t, stall)
					return s.Stats().Stalled == 1 && s.Stats().Resumed == 1 // else the server was too slow
				})
			}
			if c.problem == "" && (err != nil || got != data) {
				t.Errorf("%d bytes, %v; want the whole body", len(got), err)
			}
			if c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem) || c.is != nil && !errors.Is(err, c.is) || myrmidon.IsPermanent(err)) {
				t.Errorf("error %v, want one about %q, not permanent", err, c.problem)
			}
			if !strings.HasPrefix(data, got) {
				t.Error("the reader gave bytes of another version")
			}
			gets := w.requests("GetObject")
			if n := s.Stats().Resumed; n != c.resumed || len(gets) != c.gets {
				t.Errorf("%d resumptions, %d requests; want %d and %d", n, len(gets), c.resumed, c.gets)
			}
			for _, r := range gets[1:] {
				if r.Header.Get("Range") != "bytes=100000-299999" || r.Header.Get("If-Match") != etagOf(data) {
					t.Errorf("resumed with Range %q, If-Match %q", r.Header.Get("Range"), r.Header.Get("If-Match"))
				}
			}
		})
	}
}

func TestAnAnswerToAnotherRangeIsAnError(t *testing.T) { both(t, testAnAnswerToAnotherRangeIsAnError) }

func testAnAnswerToAnotherRangeIsAnError(t *testing.T) {
	for _, c := range []struct{ name, contentRange, length string }{
		{"the range is ignored", "", "9"},
		{"another range", "bytes 4-7/10", "4"},
		{"a shorter range", "bytes 2-4/10", "3"},
		{"another length than the range", "bytes 2-5/10", "3"},
		{"an unknown size", "bytes 2-5/*", "4"},
		{"a negative size", "bytes 2-5/-10", "4"},
		{"no range at all", "lines 2-5/10", "4"},
	} {
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request, op string, _ int) bool {
			if op != "GetObject" {
				return false
			}
			if c.contentRange != "" {
				w.Header().Set("Content-Range", c.contentRange)
			}
			w.Header().Set("Content-Length", c.length)
			w.Header().Set("ETag", `"e"`)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "0123456789"[:min(10, len(c.length)*int(c.length[0]-'0'))])
			return true
		})
		s := w.store(t, s3.Config{})
		r, _, err := s.Get(t.Context(), "k", 2, 4)
		if err == nil || r != nil || !strings.Contains(err.Error(), "a range from 2") {
			t.Errorf("%s: Get = %v, want an error about the range", c.name, err)
		}
	}
}

func TestAStalledServerEndsWithTheContext(t *testing.T) {
	both(t, testAStalledServerEndsWithTheContext)
}

func testAStalledServerEndsWithTheContext(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool { return stall(w, r) })
	s := w.store(t, s3.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, _, getErr := s.Get(ctx, "k", 0, -1)
	_, headErr := s.Head(ctx, "k")
	for name, err := range map[string]error{
		"Get": getErr, "Head": headErr, "Put": s.Put(ctx, "k", strings.NewReader("x"), 1, attrs), "Delete": s.Delete(ctx, "k"),
		"Copy": s.Copy(ctx, "k", "l"), "Writable": s.Writable(ctx),
	} {
		if !errors.Is(err, context.DeadlineExceeded) || myrmidon.IsPermanent(err) {
			t.Errorf("%s = %v, want context.DeadlineExceeded", name, err)
		}
	}
	if d := time.Since(begin); d > 30*time.Second { // half of what a connection may stand still
		t.Errorf("took %v", d)
	}
}

func TestABodyEndsWithItsContext(t *testing.T) { both(t, testABodyEndsWithItsContext) }

func testABodyEndsWithItsContext(t *testing.T) {
	data := pattern(300_000)
	patiently(t, 100*time.Millisecond, func(timeout time.Duration) bool {
		w := newWire(t, func(w http.ResponseWriter, r *http.Request, op string, _ int) bool {
			if op != "GetObject" {
				return false
			}
			part(w, data, 1000)
			return stall(w, r)
		})
		s := w.store(t, s3.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		got, err := get(ctx, s, "k")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v, want context.DeadlineExceeded", err)
		}
		if n := len(w.requests("GetObject")); n > 1 {
			t.Errorf("%d requests, want 1", n)
		}
		return got != "" // else the body had not begun
	})
}

func TestAServerThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	both(t, testAServerThatDoesNotAnswerIsAskedAgain)
}

func testAServerThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	patiently(t, 100*time.Millisecond, func(limit time.Duration) bool {
		w := newWire(t, func(w http.ResponseWriter, r *http.Request, _ string, n int) bool { return n == 1 && stall(w, r) })
		s := w.store(t, s3.Config{Stall: limit})
		err := s.Put(t.Context(), "k", strings.NewReader("data"), 4, attrs)
		got := ""
		if err == nil {
			got, err = get(t.Context(), s, "k")
		}
		n := s.Stats().Stalled
		if n > 2 {
			return false // the server is too slow
		}
		if got != "data" || err != nil || n != 2 {
			t.Errorf("Get = %q, %v; Stats().Stalled = %d, want 2", got, err, n)
		}
		return true
	})
}

func TestAReaderThatPausesIsNotTakenForAStall(t *testing.T) {
	both(t, testAReaderThatPausesIsNotTakenForAStall)
}

func testAReaderThatPausesIsNotTakenForAStall(t *testing.T) {
	data := pattern(1 << 20)
	w := newWire(t, nil)
	bucket := newBucket(t)
	put(t, w.store(t, s3.Config{Bucket: bucket}), "k", data)
	patiently(t, 500*time.Millisecond, func(stall time.Duration) bool {
		s := w.store(t, s3.Config{Bucket: bucket, Stall: stall})
		r, _, err := s.Get(t.Context(), "k", 0, -1)
		if err != nil {
			return false // with this stall it takes the server too long
		}
		var got strings.Builder
		if _, err := io.CopyN(&got, r, 1000); err != nil {
			return false
		}
		time.Sleep(stall * 7 / 5) // longer than Stall: what is tested is real time
		_, err = io.Copy(&got, r)
		if err := errors.Join(err, r.Close()); err == nil && got.String() != data {
			t.Errorf("%d other bytes", got.Len())
		}
		return err == nil && s.Stats().Stalled == 0 && s.Stats().Resumed == 0
	})
}

// patiently calls try with a longer time again and again while it reports false: on a busy
// machine a server may take longer than a short one by no fault of ours.
func patiently(t *testing.T, first time.Duration, try func(time.Duration) bool) {
	t.Helper()
	for d := first; !try(d); d *= 3 {
		if d > 6*time.Second {
			t.Fatalf("with %v it is still not as it should be", d)
		}
	}
}
