package s3_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon/object"
	"myrmidon/object/s3"
)

// book is an account that keeps what it is told.
type book struct {
	mu    sync.Mutex
	sent  map[string]int
	waits int
	shut  error // of Wait
}

func (b *book) Wait(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits++
	return b.shut
}

func (b *book) Sent(v object.Verb) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent == nil {
		b.sent = make(map[string]int)
	}
	b.sent[v.String()]++
}

func (b *book) check(t *testing.T, want map[string]int) {
	t.Helper()
	n := 0
	for _, m := range b.sent {
		n += m
	}
	if diff := cmp.Diff(want, b.sent); diff != "" || b.waits != n {
		t.Errorf("%d requests waited of %d; want -, got +\n%s", b.waits, n, diff)
	}
}

func putNew(ctx context.Context, s *s3.Store, key, data string) error {
	opts := object.PutOptions{Description: object.Description{Attrs: attrs}, IfNone: true}
	_, err := s.PutWith(ctx, key, strings.NewReader(data), int64(len(data)), opts)
	return err
}

func TestAnAccountIsToldOfEachRequest(t *testing.T) { both(t, testAnAccountIsToldOfEachRequest) }

func testAnAccountIsToldOfEachRequest(t *testing.T) {
	busy := 2 // attempts that are refused
	w, from, to := pair(t, func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
		return op == "GetObject" && n <= busy && refuse(w, 503, "SlowDown", "no")
	})
	var own, source book
	ctx := object.WithAccounts(t.Context(), &own, &source)
	if err := to.Put(ctx, "k", strings.NewReader("data"), 4, attrs); err != nil {
		t.Fatal(err)
	}
	if err := putNew(ctx, to, "k", "data"); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if _, err := to.Head(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if r, _, err := to.Get(ctx, "k", 0, -1); err != nil || r.Close() != nil {
		t.Fatal(err)
	}
	if _, _, err := to.Page(ctx, "", "", 0); err != nil {
		t.Fatal(err)
	}
	if err := to.Delete(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := to.DeleteMany(ctx, []string{"x", "y"}); err != nil {
		t.Fatal(err)
	}
	own.check(t, map[string]int{"put": 2, "head": 1, "get": 3, "list": 1, "delete": 2})

	// What a copy in parts asks of its source is not the destination's.
	if err := from.Put(t.Context(), "large", strings.NewReader(pattern(12<<20)), -1, attrs); err != nil {
		t.Fatal(err)
	}
	tagged(t, from, "large", map[string]string{"a": "b"})
	own, source = book{}, book{}
	src := stat(t, from, "large")
	to.SetCopyMost(1 << 20)
	if _, err := to.Import(ctx, from, src, "large", object.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	own.check(t, map[string]int{"post": 2, "part-copy": 3, "head": 1})
	source.check(t, map[string]int{"head": 1, "get": 1})

	// Whoever may not go on sends nothing.
	own.shut = errors.New("the shutter is down")
	before := len(w.seen)
	if _, err := to.Head(ctx, "k"); !errors.Is(err, own.shut) || len(w.seen) != before {
		t.Errorf("Head = %v, %d requests", err, len(w.seen)-before)
	}
}

func TestALargeObjectThatMustBeNewReplacesNothing(t *testing.T) {
	both(t, testALargeObjectThatMustBeNewReplacesNothing)
}

func testALargeObjectThatMustBeNewReplacesNothing(t *testing.T) {
	w := newWire(t, nil)
	s := w.store(t, s3.Config{})
	put(t, s, "k", "old")
	data := pattern(11 << 20)
	if err := putNew(t.Context(), s, "k", data); !errors.Is(err, fs.ErrExist) {
		t.Errorf("PutWith = %v", err)
	}
	if got, err := get(t.Context(), s, "k"); got != "old" || err != nil {
		t.Errorf("%.10q is there, %v", got, err)
	}
	if n := len(w.requests("AbortMultipartUpload")); n != 1 {
		t.Errorf("%d aborts", n)
	}
	if err := putNew(t.Context(), s, "new", data); err != nil {
		t.Errorf("PutWith = %v", err)
	}
}
