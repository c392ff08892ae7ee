package s3stub

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  Fault
		status int // 0: the connection's error is looked at
		code   string
		effect bool
		err    error
	}{
		{"slow down", Fault{Status: 503, Header: map[string]string{"Retry-After": "7"}}, 503, "SlowDown", false, nil},
		{"an internal error", Fault{Status: 500}, 500, "InternalError", false, nil},
		{"a named error", Fault{Status: 400, Code: "ExpiredToken"}, 400, "ExpiredToken", false, nil},
		{"an answer that is lost", Fault{Status: 500, After: true}, 500, "InternalError", true, nil},
		{"an error in the body", Fault{Status: 500, InBody: true}, 200, "InternalError", false, nil},
		{"a reset before", Fault{Reset: true}, 0, "", false, syscall.ECONNRESET},
		{"a reset after", Fault{Reset: true, After: true}, 0, "", true, syscall.ECONNRESET},
		{"a delay", Fault{Delay: time.Millisecond}, 200, "", true, nil},
		{"a cut body", Fault{Cut: 7}, 0, "", true, io.ErrUnexpectedEOF},
		{"a body that never comes", Fault{Cut: -1}, 0, "", true, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := withBucket(t, Config{})
			if err := s.PutObject("b", Object{Key: "from"}, []byte("data")); err != nil {
				t.Fatal(err)
			}
			s.Inject(First(1, c.fault, Copy))
			a := s.client().ask(t, "PUT", "/b/to", "", "x-amz-copy-source", "b/from")
			if a.code() != c.code || !errors.Is(a.err, c.err) || c.status != 0 && a.status != c.status {
				t.Errorf("%d %q %v, want %d %q %v\n%s", a.status, a.code(), a.err, c.status, c.code, c.err, a.body)
			}
			if _, there := s.Object("b", "to"); there != c.effect {
				t.Errorf("it took effect: %v, want %v", there, c.effect)
			}
			for name, want := range c.fault.Header {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if c.fault.Cut > 0 && int64(len(a.body)) != c.fault.Cut {
				t.Errorf("%d bytes came, want %d", len(a.body), c.fault.Cut)
			}
			n := s.Counts()[Copy]
			failed := int64(0)
			if c.fault.replaces() {
				failed = 1
			}
			if n.Requests != 1 || n.Injected != 1 || n.Failed != failed {
				t.Errorf("counted %+v, want 1 failed: %d", n, failed)
			}
			ask(t, s, 200, "PUT", "/b/to", "", "x-amz-copy-source", "b/from")
		})
	}
}

func TestListingsThatLie(t *testing.T) {
	s := withBucket(t, Config{})
	for i := range 10 {
		if err := s.PutObject("b", Object{Key: fmt.Sprint(i)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	keys := func(r result) (out string) {
		for _, o := range r.Contents {
			out += o.Key
		}
		return out
	}
	for _, c := range []struct {
		name      string
		page      func(*Page)
		want      string
		truncated bool
	}{
		{"the truth", func(*Page) {}, "345", true},
		{"a key twice", RepeatKey(1), "3445", true},
		{"a key left out", SkipKey(1), "35", true},
		{"two keys in the wrong order", SwapKeys(0, 2), "543", true},
		{"the end too early", ClaimTruncated(false), "345", false},
		{"the same page again", RepeatPage(), "345", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.Inject(First(1, Fault{Page: c.page}, List))
			defer s.Inject(nil)
			r := page(t, s, "b", "list-type", "2", "start-after", "2", "max-keys", "3")
			if keys(r) != c.want || r.IsTruncated != c.truncated {
				t.Errorf("listed %q, truncated %v; want %q, %v", keys(r), r.IsTruncated, c.want, c.truncated)
			}
			if !r.IsTruncated {
				return
			}
			next := page(t, s, "b", "list-type", "2", "max-keys", "3", "continuation-token", r.NextContinuationToken)
			want := "678"
			if strings.Contains(c.name, "again") {
				want = "345"
			}
			if keys(next) != want {
				t.Errorf("the next page is %q, want %q", keys(next), want)
			}
		})
	}
	s.Inject(First(1, Fault{Page: ClaimTruncated(true)}, List))
	r := page(t, s, "b", "list-type", "2")
	if !r.IsTruncated {
		t.Fatal("the last page does not claim to be truncated")
	}
	if next := page(t, s, "b", "list-type", "2", "continuation-token", r.NextContinuationToken); len(next.Contents) != 0 || next.IsTruncated {
		t.Errorf("behind the end: %q", keys(next))
	}
}

func TestWhatFaultsAreChosenBy(t *testing.T) {
	chosen := func(choose func(Request) *Fault, verb Verb) (out []int) {
		for i := range 12 {
			choose(Request{Verb: Head}) // which must not count
			if choose(Request{Verb: verb}) != nil {
				out = append(out, i+1)
			}
		}
		return out
	}
	f := Fault{Status: 503}
	for _, c := range []struct {
		name   string
		choose func(Request) *Fault
		want   []int
	}{
		{"the first two", First(2, f, Put), []int{1, 2}},
		{"the third", Nth(3, f, Put), []int{3}},
		{"each fifth", Every(5, f, Put, Get), []int{5, 10}},
		{"none", Rate(1, 0, f, Put), nil},
		{"one or the other", Any(Nth(3, f, Put), Nth(3, f, Put), Every(4, f, Put)), []int{3, 4, 8, 12}},
	} {
		if d := cmp.Diff(c.want, chosen(c.choose, Put)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
	once, again, other := Rate(7, 0.3, f), Rate(7, 0.3, f), Rate(8, 0.3, f)
	var a, b, c []int
	for i := range 10_000 {
		for choose, out := range map[*[]int]func(Request) *Fault{&a: once, &b: again, &c: other} {
			if out(Request{}) != nil {
				*choose = append(*choose, i)
			}
		}
	}
	if len(a) < 2800 || len(a) > 3200 || !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Errorf("30 %% of 10,000 are %d; the same seed chooses the same: %v", len(a), slices.Equal(a, b))
	}
}

func TestRequestsAreToldAndCounted(t *testing.T) {
	s := withBucket(t, Config{})
	var mu sync.Mutex
	var seen []string
	s.Inject(func(r Request) *Fault {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%d %v %d %s/%s %d %s %s", r.Seq, r.Verb, r.OfVerb, r.Bucket, r.Key, r.Size, r.AccessKey, r.Header.Get("If-None-Match")))
		return nil
	})
	ask(t, s, 200, "PUT", "/b/k%20x", "12345", "If-None-Match", "*")
	ask(t, s, 412, "PUT", "/b/k%20x", "12345", "If-None-Match", "*")
	ask(t, s, 200, "GET", "/b/k%20x", "")
	want := []string{"1 PUT 1 b/k x 5 testkit *", "2 PUT 2 b/k x 5 testkit *", "3 GET 1 b/k x 0 testkit "}
	if d := cmp.Diff(want, seen); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
	counts := s.Counts()
	if put := counts[Put]; put.Requests != 2 || put.Failed != 1 || put.In != 10 || put.Peak != 1 || put.Injected != 0 {
		t.Errorf("PUT: %+v", put)
	}
	if get := counts[Get]; get.Out != 5 || counts.Requests() != 3 {
		t.Errorf("GET: %+v of %d", get, counts.Requests())
	}
	s.Reset()
	if n := s.Counts(); len(n) != 0 {
		t.Errorf("after a reset: %+v", n)
	}
}

func TestEachVerbTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := newServer(Config{Latency: map[Verb]time.Duration{List: 80 * time.Millisecond, Copy: 30 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		for verb, want := range map[Verb]time.Duration{List: 80 * time.Millisecond, Copy: 30 * time.Millisecond, Head: 0} {
			begin := time.Now()
			if !s.wait(s.latency[verb]) || time.Since(begin) != want {
				t.Errorf("%v took %v, want %v", verb, time.Since(begin), want)
			}
		}
	})
	s := withBucket(t, Config{Latency: map[Verb]time.Duration{Put: 50 * time.Millisecond}})
	begin := time.Now()
	ask(t, s, 200, "PUT", "/b/k", "x")
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("a PUT took %v, less than its latency", took)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	s := withBucket(t, Config{Latency: map[Verb]time.Duration{Put: time.Hour}})
	req := s.client().request(t, "PUT", "/b/k", "x")
	arrived := make(chan struct{})
	s.Inject(func(Request) *Fault { close(arrived); return nil })
	done := make(chan answer, 1)
	go func() { done <- send(req) }()
	<-arrived
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := s.tallies[Put].now.Load(); n != 0 {
		t.Errorf("after Close %d requests are under way", n)
	}
	if a := <-done; a.err == nil {
		t.Errorf("a request of an hour was answered: %d", a.status)
	}
	if _, there := s.Object("b", "k"); there {
		t.Error("a request that was ended took effect")
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}
