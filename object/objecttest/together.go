package objecttest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"myrmidon/object"
)

// version returns body number i, of a length of its own and one letter only, so that
// a mixture of two shows.
func version(i int) string {
	return strings.Repeat(string(rune('a'+i%26)), 100_000+i%7*1_000)
}

// whole says what is wrong with a body that version did not make.
func whole(body string) error {
	if body == "" {
		return errors.New("it is empty")
	}
	if n := strings.Count(body, body[:1]); n != len(body) {
		return fmt.Errorf("it is a mixture: %d of %d bytes are %q", n, len(body), body[:1])
	}
	for i := range 7 * 26 {
		if v := version(i); v == body {
			return nil
		}
	}
	return fmt.Errorf("it has %d bytes of %q, which is no version's length", len(body), body[:1])
}

// readWhole gets key and says whether that was one version, with its own size.
func readWhole(t *testing.T, s object.Store, key string) error {
	r, info, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if info.Size != int64(len(data)) {
		return fmt.Errorf("Info.Size = %d for %d bytes", info.Size, len(data))
	}
	return whole(string(data))
}

func testReadersDuringPuts(t *testing.T, s object.Store, _ Options) {
	put(t, s, "f/k", version(0))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := readWhole(t, s, "f/k"); err != nil {
					t.Errorf("Get while others put: %v", err)
					return
				}
			}
		})
	}
	held, _, err := s.Get(t.Context(), "f/k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		put(t, s, "f/k", version(i))
	}
	close(stop)
	readers.Wait()
	data, err := io.ReadAll(held)
	if err := errors.Join(err, held.Close()); err != nil {
		t.Fatal(err)
	}
	if string(data) != version(0) {
		t.Errorf("a reader opened before 40 puts gives %d bytes of %.1q, want the first version", len(data), data)
	}
}

func testPutsAtOnce(t *testing.T, s object.Store, _ Options) {
	var puts sync.WaitGroup
	for i := range 16 {
		puts.Go(func() {
			v := version(i)
			if err := s.Put(t.Context(), "new/k", strings.NewReader(v), int64(len(v)), object.Attrs{}); err != nil {
				t.Errorf("Put: %v", err)
			}
		})
	}
	puts.Wait()
	if err := readWhole(t, s, "new/k"); err != nil {
		t.Errorf("after 16 puts at once: %v", err)
	}
	same(t, "keys", keys(t, s, "", ""), []string{"new/k"})
}

func testPutsBesideDeletes(t *testing.T, s object.Store, _ Options) {
	const workers, rounds = 4, 60
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			key := fmt.Sprintf("deep/er/folder/%d", w)
			for range rounds {
				if err := s.Put(t.Context(), key, strings.NewReader("x"), 1, object.Attrs{}); err != nil {
					t.Errorf("Put(%q): %v", key, err)
				}
				if _, err := s.Head(t.Context(), key); err != nil {
					t.Errorf("Head(%q) after Put: %v", key, err)
				}
				for _, err := range s.List(t.Context(), "deep/", "") {
					if err != nil {
						t.Errorf("List: %v", err)
					}
				}
				if err := s.Delete(t.Context(), key); err != nil {
					t.Errorf("Delete(%q): %v", key, err)
				}
				if _, err := s.Head(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Head(%q) after Delete = %v, want fs.ErrNotExist", key, err)
				}
			}
		})
	}
	all.Wait()
	same(t, "keys", keys(t, s, "", ""), []string{})
}

func testCopy(t *testing.T, s object.Store, opt Options) {
	c, ok := s.(object.Copier)
	if !ok {
		t.Skip("the store is no Copier")
	}
	data := version(3)
	attrs := object.Attrs{ContentType: "text/plain", CacheControl: "no-cache"}
	if err := s.Put(t.Context(), "from/k", strings.NewReader(data), -1, attrs); err != nil {
		t.Fatal(err)
	}
	put(t, s, "to/old", "old")
	for _, to := range []string{"to/new/k", "to/old", "from/k"} {
		if err := c.Copy(t.Context(), "from/k", to); err != nil {
			t.Errorf("Copy to %q: %v", to, err)
			continue
		}
		want(t, s, to, data)
		head, err := s.Head(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if opt.KeepsAttrs {
			same(t, "Attrs of the copy "+to, head.Attrs, attrs)
		}
	}
	if err := c.Copy(t.Context(), "no", "to/old"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Copy of nothing = %v, want fs.ErrNotExist", err)
	}
	for _, pair := range [][2]string{{"../x", "y"}, {"from/k", "../y"}} {
		if err := c.Copy(t.Context(), pair[0], pair[1]); err == nil {
			t.Errorf("Copy(%q, %q) = nil, want an error", pair[0], pair[1])
		}
	}
	put(t, s, "from/k", "changed")
	want(t, s, "to/old", data)
	same(t, "keys", keys(t, s, "", ""), []string{"from/k", "to/new/k", "to/old"})
}
