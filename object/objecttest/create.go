package objecttest

import (
	"errors"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"myrmidon"
	"myrmidon/object"
)

func testPutIfNone(t *testing.T, s object.Store, opt Options) {
	k, ok := s.(object.Keeper)
	if !ok {
		t.Skip("the store is no Keeper")
	}
	putNew := func(key, data string, attrs object.Attrs) error {
		opts := object.PutOptions{Description: object.Description{Attrs: attrs}, IfNone: true}
		_, err := k.PutWith(t.Context(), key, strings.NewReader(data), int64(len(data)), opts)
		return err
	}
	attrs := object.Attrs{ContentType: "text/plain", CacheControl: "no-cache"}
	if err := putNew("a/new", "first", attrs); err != nil {
		t.Fatal(err)
	}
	want(t, s, "a/new", "first")
	if head, err := s.Head(t.Context(), "a/new"); err != nil || opt.KeepsAttrs && head.Attrs != attrs {
		t.Errorf("Head = %+v, %v", head, err)
	}
	if err := putNew("a/new", "second", attrs); !errors.Is(err, fs.ErrExist) || !myrmidon.IsPermanent(err) {
		t.Errorf("PutWith IfNone over an object = %v, want fs.ErrExist, permanent", err)
	}
	want(t, s, "a/new", "first")
	if err := s.Delete(t.Context(), "a/new"); err != nil {
		t.Fatal(err)
	}
	if err := putNew("a/new", "third", attrs); err != nil {
		t.Errorf("PutWith IfNone after a Delete: %v", err)
	}
	want(t, s, "a/new", "third")

	var won atomic.Int64
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			switch err := putNew("race", version(i), attrs); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Errorf("PutWith IfNone beside others = %v", err)
			}
		})
	}
	all.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d of 8 stored a new object, want 1", n)
	}
	if err := readWhole(t, s, "race"); err != nil {
		t.Error(err)
	}
	same(t, "keys", keys(t, s, "", ""), []string{"a/new", "race"})
}
