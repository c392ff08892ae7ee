// Package objecttest says, as tests, what every [object.Store] promises. An
// adapter's own test is then ten lines, and the faults that only it can have:
//
//	func TestStore(t *testing.T) {
//		objecttest.Run(t, func(t *testing.T) object.Store { return object.NewMem() },
//			objecttest.Options{KeepsAttrs: true})
//	}
package objecttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/object"
)

// Options say where stores differ.
type Options struct {
	// KeepsAttrs is set for stores that return the Attrs given to Put. Others give
	// the content type of the key's ending, and no cache control.
	KeepsAttrs bool
	// Folders is set for stores where "a" and "a/b" cannot both exist.
	Folders bool
	// Keys is how many objects the long listing makes; 0 means 2,500, which is more
	// than two pages of an S3 listing.
	Keys int
}

// Run tests the store that open returns: a new and empty one for each call.
func Run(t *testing.T, open func(t *testing.T) object.Store, opt Options) {
	t.Helper()
	if opt.Keys == 0 {
		opt.Keys = 2500
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, object.Store, Options)
	}{
		{"an object comes back as it was put", testRoundTrip},
		{"an object that is not there is not found", testMissing},
		{"a range gives its bytes and the whole object's size", testRanges},
		{"a new body replaces the old one and its ETag", testReplace},
		{"attributes are kept or follow the ending", testAttrs},
		{"a failing body leaves the old object", testFailingBody},
		{"a cancelled Put leaves nothing", testCancel},
		{"an ended context ends every operation", testEndedContext},
		{"a reader sees one version while others are put", testReadersDuringPuts},
		{"puts of one key at once leave one of them whole", testPutsAtOnce},
		{"puts and deletes beside each other do not fail", testPutsBesideDeletes},
		{"special keys are keys like others", testSpecialKeys},
		{"bad keys are permanent errors", testBadKeys},
		{"a listing is in byte order of keys", testListOrder},
		{"a listing keeps to prefix and after", testListBounds},
		{"a long listing can be continued anywhere", testListLong},
		{"a listing ends when its reader or context does", testListEnds},
		{"pages are pieces of the listing", testPages},
		{"a deleted object is gone, and its neighbours stay", testDelete},
		{"a copy has the bytes and attributes of its source", testCopy},
		{"what must be new replaces nothing", testPutIfNone},
		{"a key is not both an object and a folder", testFolders},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t), opt) })
	}
}

// put stores data, or ends the test.
func put(t *testing.T, s object.Store, key, data string) {
	t.Helper()
	err := s.Put(t.Context(), key, strings.NewReader(data), int64(len(data)), object.Attrs{})
	if err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
}

// read returns what Get gives, or ends the test.
func read(t *testing.T, s object.Store, key string, offset, length int64) (string, object.Info) {
	t.Helper()
	r, info, err := s.Get(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("Get(%q, %d, %d): %v", key, offset, length, err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read %q from %d: %v", key, offset, err)
	}
	return string(data), info
}

// want fails the test unless key holds data.
func want(t *testing.T, s object.Store, key, data string) {
	t.Helper()
	if got, _ := read(t, s, key, 0, -1); got != data {
		t.Errorf("%q holds %.60q (%d bytes), want %.60q (%d bytes)", key, got, len(got), data, len(data))
	}
}

// keys lists, or ends the test.
func keys(t *testing.T, s object.Store, prefix, after string) []string {
	t.Helper()
	got := []string{}
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("List(%q, %q): %v", prefix, after, err)
		}
		got = append(got, info.Key)
	}
	return got
}

// same fails the test unless got is want.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func testRoundTrip(t *testing.T, s object.Store, _ Options) {
	big := strings.Repeat("0123456789abcdef", 70_000) // several buffers of any kind
	for _, test := range []struct {
		name, key, data string
		size            int64
	}{
		{"empty", "empty.bin", "", 0},
		{"empty, size unknown", "empty-unknown.bin", "", -1},
		{"small", "a/small.m4s", "bytes", 5},
		{"large", "a/b/large.m4s", big, int64(len(big))},
		{"large, size unknown", "a/b/large-unknown.m4s", big, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := struct{ io.Reader }{strings.NewReader(test.data)} // no WriteTo, no Seek
			if err := s.Put(t.Context(), test.key, body, test.size, object.Attrs{}); err != nil {
				t.Fatalf("Put: %v", err)
			}
			want(t, s, test.key, test.data)
			head, err := s.Head(t.Context(), test.key)
			if err != nil {
				t.Fatalf("Head: %v", err)
			}
			_, info := read(t, s, test.key, 0, -1)
			same(t, "Get's Info is not Head's", info, head)
			if head.Key != test.key || head.Size != int64(len(test.data)) || head.ETag == "" {
				t.Errorf("Head = %+v, want key %q, size %d and an ETag", head, test.key, len(test.data))
			}
			if head.Modified.IsZero() || head.Modified.Location().String() != "UTC" {
				t.Errorf("Modified = %v, want a time in UTC", head.Modified)
			}
			for info, err := range s.List(t.Context(), test.key, "") {
				if err != nil {
					t.Fatalf("List: %v", err)
				}
				if info.Key == test.key {
					same(t, "List's size and ETag", []any{info.Size, info.ETag}, []any{head.Size, head.ETag})
				}
			}
		})
	}
}

func testMissing(t *testing.T, s object.Store, _ Options) {
	put(t, s, "there/file", "x")
	for _, key := range []string{"no", "there", "there/no", "there/file/no", "no/no/no", strings.Repeat("n", 300)} {
		if _, err := s.Head(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Head(%q) = %v, want fs.ErrNotExist", key, err)
		}
		r, _, err := s.Get(t.Context(), key, 0, -1)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Get(%q) = %v, want fs.ErrNotExist", key, err)
		}
		if r != nil {
			t.Errorf("Get(%q) gave a reader beside its error", key)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q) = %v, want nil", key, err)
		}
	}
	want(t, s, "there/file", "x")
}

func testRanges(t *testing.T, s object.Store, _ Options) {
	put(t, s, "r", "0123456789")
	put(t, s, "empty", "")
	for _, test := range []struct {
		key            string
		offset, length int64
		want           string
	}{
		{"r", 0, -1, "0123456789"},
		{"r", 0, 0, ""},
		{"r", 0, 3, "012"},
		{"r", 3, 4, "3456"},
		{"r", 3, -1, "3456789"},
		{"r", 9, 1, "9"},
		{"r", 8, 100, "89"},
		{"r", 10, -1, ""},
		{"r", 10, 5, ""},
		{"r", 2, 1 << 62, "23456789"},
		{"empty", 0, -1, ""},
		{"empty", 0, 10, ""},
	} {
		got, info := read(t, s, test.key, test.offset, test.length)
		if got != test.want {
			t.Errorf("Get(%q, %d, %d) = %q, want %q", test.key, test.offset, test.length, got, test.want)
		}
		if test.key == "r" && info.Size != 10 {
			t.Errorf("Get(%q, %d, %d): Info.Size = %d, want the whole object's 10", test.key, test.offset, test.length, info.Size)
		}
	}
	for _, offset := range []int64{11, 1 << 62, -1} {
		if _, _, err := s.Get(t.Context(), "r", offset, -1); !errors.Is(err, object.ErrRange) {
			t.Errorf("Get(r, %d) = %v, want ErrRange", offset, err)
		}
	}
}

func testReplace(t *testing.T, s object.Store, _ Options) {
	put(t, s, "k", "first")
	one, err := s.Head(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "k", "other") // as long as the first, and as old as a clock can tell
	two, err := s.Head(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	want(t, s, "k", "other")
	if one.ETag == two.ETag {
		t.Errorf("ETag = %q for both bodies", one.ETag)
	}
	put(t, s, "k", "no")
	want(t, s, "k", "no") // nothing of the longer body is left
	same(t, "keys", keys(t, s, "", ""), []string{"k"})
}

func testAttrs(t *testing.T, s object.Store, opt Options) {
	for _, test := range []struct {
		key         string
		given, kept object.Attrs
	}{
		{"a.m3u8", object.Attrs{}, object.Attrs{ContentType: "application/vnd.apple.mpegurl"}},
		{
			"a.m4s",
			object.Attrs{CacheControl: "no-cache"},
			object.Attrs{ContentType: "video/iso.segment", CacheControl: "no-cache"},
		},
		{
			"a.jpg",
			object.Attrs{ContentType: "text/plain", CacheControl: "public, max-age=60"},
			object.Attrs{ContentType: "text/plain", CacheControl: "public, max-age=60"},
		},
	} {
		if err := s.Put(t.Context(), test.key, strings.NewReader("x"), 1, test.given); err != nil {
			t.Fatal(err)
		}
		if !opt.KeepsAttrs {
			test.kept = object.Attrs{ContentType: object.TypeOf(test.key)}
		}
		head, err := s.Head(t.Context(), test.key)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "Head's Attrs of "+test.key, head.Attrs, test.kept)
		_, info := read(t, s, test.key, 0, -1)
		same(t, "Get's Attrs of "+test.key, info.Attrs, test.kept)
	}
}

var errBody = errors.New("the body broke")

func testFailingBody(t *testing.T, s object.Store, _ Options) {
	data := bytes.Repeat([]byte("x"), 400_000)
	for _, test := range []struct {
		name string
		body io.Reader
		size int64
		want error // nil means any
	}{
		{"shorter than announced", bytes.NewReader(data), 400_001, io.ErrUnexpectedEOF},
		{"empty, not announced so", strings.NewReader(""), 1, io.ErrUnexpectedEOF},
		{"longer than announced", bytes.NewReader(data), 399_999, nil},
		{"longer than nothing", strings.NewReader("x"), 0, nil},
		{"broken in the middle", io.MultiReader(bytes.NewReader(data), failing{errBody}), 800_000, errBody},
		{"broken, size unknown", io.MultiReader(bytes.NewReader(data), failing{errBody}), -1, errBody},
		{"broken at once", failing{errBody}, -1, errBody},
	} {
		t.Run(test.name, func(t *testing.T) {
			put(t, s, "old/k", "old")
			for _, key := range []string{"old/k", "new/folder/k"} {
				if seeker, ok := test.body.(io.Seeker); ok {
					if _, err := seeker.Seek(0, io.SeekStart); err != nil {
						t.Fatal(err)
					}
				} else if key != "old/k" {
					test.body = failing{errBody} // a MultiReader is used up
				}
				err := s.Put(t.Context(), key, test.body, test.size, object.Attrs{})
				if err == nil || test.want != nil && !errors.Is(err, test.want) {
					t.Errorf("Put(%q) = %v, want an error that wraps %v", key, err, test.want)
				}
				if myrmidon.IsPermanent(err) {
					t.Errorf("Put(%q) = %v, marked permanent: another attempt may find the body whole", key, err)
				}
			}
			want(t, s, "old/k", "old")
			same(t, "keys", keys(t, s, "", ""), []string{"old/k"})
		})
	}
}

// failing is a reader that gives nothing but an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// cancelling ends a context in the middle of a body that never ends.
type cancelling struct {
	cancel context.CancelFunc
	left   int
}

func (c *cancelling) Read(p []byte) (int, error) {
	if c.left--; c.left == 0 {
		c.cancel()
	}
	return copy(p, "some bytes"), nil
}

func testCancel(t *testing.T, s object.Store, _ Options) {
	put(t, s, "k", "old")
	for _, key := range []string{"k", "new/k"} {
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Put(ctx, key, &cancelling{cancel, 100}, -1, object.Attrs{})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Put(%q) = %v, want context.Canceled", key, err)
		}
		if myrmidon.IsPermanent(err) {
			t.Errorf("Put(%q) = %v, marked permanent", key, err)
		}
	}
	want(t, s, "k", "old")
	same(t, "keys", keys(t, s, "", ""), []string{"k"})
}

func testEndedContext(t *testing.T, s object.Store, _ Options) {
	put(t, s, "k", "old")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, getErr := s.Get(ctx, "k", 0, -1)
	_, headErr := s.Head(ctx, "k")
	errs := map[string]error{
		"Put":    s.Put(ctx, "k", strings.NewReader("new"), 3, object.Attrs{}),
		"Get":    getErr,
		"Head":   headErr,
		"Delete": s.Delete(ctx, "k"),
	}
	for _, err := range s.List(ctx, "", "") {
		errs["List"] = err
	}
	if c, ok := s.(object.Copier); ok {
		errs["Copy"] = c.Copy(ctx, "k", "k2")
	}
	for name, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", name, err)
		}
	}
	if errs["List"] == nil {
		t.Error("List ended without a word")
	}
	want(t, s, "k", "old")
	same(t, "keys", keys(t, s, "", ""), []string{"k"})
}
