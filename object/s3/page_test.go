package s3_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon/object"
	"myrmidon/object/s3"
)

func TestPagesMakeAListing(t *testing.T) { both(t, testPagesMakeAListing) }

func testPagesMakeAListing(t *testing.T) {
	w := newWire(t, nil)
	s := w.store(t, s3.Config{Prefix: "some folder"})
	for i := range 25 {
		put(t, s, fmt.Sprintf("a/%02d +%%2F日", i), "x")
	}
	put(t, s, "b", "x")
	for _, c := range []struct {
		prefix, after string
		most, pages   int
	}{
		{"", "", 7, 4}, {"a/", "", 5, 5}, {"a/", "a/10", 100, 1}, {"a/", "a/10\xff\xff", 100, 1}, {"", "a/2", 0, 1}, {"b", "a", 1, 1}, {"c", "", 0, 1}, {"a/", "b", 3, 0}, {"\xc3", "", 3, 0},
	} {
		var want []object.Info
		for info, err := range s.List(t.Context(), c.prefix, c.after) {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, info)
		}
		before := len(w.seen)
		var got []object.Info
		after, pages := c.after, 0
		for more := true; more; pages++ {
			var page []object.Info
			var err error
			if page, more, err = s.Page(t.Context(), c.prefix, after, c.most); err != nil {
				t.Fatal(err)
			}
			if c.most > 0 && len(page) > c.most || more && len(page) == 0 {
				t.Fatalf("%+v: a page of %d, more %v", c, len(page), more)
			}
			if got = append(got, page...); len(page) > 0 {
				after = page[len(page)-1].Key
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v: -List +Page:\n%s", c, diff)
		}
		if n := len(w.seen) - before; c.pages > 0 && (n != pages || n != c.pages) {
			t.Errorf("%+v: %d requests for %d pages, want %d", c, n, pages, c.pages)
		}
	}
	if st := s.Stats(); st.Lists == 0 || st.Puts != 26 || st.Lists+st.Puts != st.Writes {
		t.Errorf("Stats = %+v", st)
	}
}

func TestPagesThatAreWrong(t *testing.T) { both(t, testPagesThatAreWrong) }

func testPagesThatAreWrong(t *testing.T) {
	const more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
	for _, c := range []struct{ name, page, problem string }{
		{"keys without order", page("", "folder/b", "folder/a"), "order"},
		{"a key twice", page("", "folder/b", "folder/b"), "order"},
		{"a key of another prefix", page("", "other/b"), "other/b"},
		{"fewer keys than it says", page("<KeyCount>3</KeyCount>", "folder/a", "folder/b"), "3 objects"},
		{"more keys than it says", page("<KeyCount>1</KeyCount>", "folder/a", "folder/b"), "1 objects"},
		{"no word of how it goes on", page("<IsTruncated>true</IsTruncated>", "folder/a"), "goes on"},
		{"the same page again and again", page(more), "goes on"},
		{"half a page", page(more, "folder/a")[:60], "s3: list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
				_, _ = w.Write([]byte(c.page))
				return true
			})
			s := w.store(t, s3.Config{Prefix: "folder"})
			got, next, err := s.Page(t.Context(), "", "", 0)
			if err == nil || got != nil || next || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("Page = %v, %v, %v; want an error about %q", got, next, err, c.problem)
			}
		})
	}
}

func TestAPageThatIsCutOffIsAskedForAgain(t *testing.T) {
	both(t, func(t *testing.T) {
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request, _ string, n int) bool {
			if n > 1 {
				return false
			}
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(page("", "a")))
			_ = http.NewResponseController(w).Flush()
			return cutOff()
		})
		s := w.store(t, s3.Config{})
		got, more, err := s.Page(t.Context(), "", "", 0)
		if s.ClientName() == "sdk" { // which takes the answer for wrong
			return
		}
		if len(got) != 0 || more || err != nil || len(w.seen) != 2 {
			t.Errorf("Page = %v, %v, %v after %d requests", got, more, err, len(w.seen))
		}
	})
}

func TestManyAreDeleted(t *testing.T) { both(t, testManyAreDeleted) }

func testManyAreDeleted(t *testing.T) {
	w := newWire(t, nil)
	s := w.store(t, s3.Config{Prefix: "folder"})
	keys := []string{"not there", "a <&> +%2F\"é'", "twice", "twice", "line\nbreak", "x\x01y", "tab\t"}
	for _, key := range keys[1:] {
		put(t, s, key, "x")
	}
	put(t, s, "stays", "x")
	for i := range 1200 {
		keys = append(keys, fmt.Sprintf("missing/%d", i))
	}
	failed, err := s.DeleteMany(t.Context(), append(keys, "a/../b", ""))
	if err != nil || len(failed) != 2 || failed["a/../b"] == nil || failed[""] == nil {
		t.Errorf("DeleteMany = %v, %v; want two keys that cannot be", failed, err)
	}
	var left []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, info.Key)
	}
	if cmp.Diff([]string{"stays"}, left) != "" {
		t.Errorf("left: %q", left)
	}
	if st := s.Stats(); st.Deletes != 3 { // two by the thousand, and one that XML cannot hold
		t.Errorf("%d requests, want 3", st.Deletes)
	}
}

func TestSomeAreNotDeleted(t *testing.T) {
	var answer string
	w := newWire(t, func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool {
		if answer == "" {
			return refuse(w, 403, "AccessDenied", "no")
		}
		_, _ = w.Write([]byte("<DeleteResult>" + answer + "</DeleteResult>"))
		return true
	})
	s := w.store(t, s3.Config{Prefix: "f"})
	answer = "<Error><Key>f/a</Key><Code>AccessDenied</Code><Message>no</Message></Error><Error><Key>f/b</Key><Code>InternalError</Code></Error><Error><Key>f/c</Key><Code>NoSuchKey</Code></Error>"
	failed, err := s.DeleteMany(t.Context(), []string{"a", "b", "c", "d"})
	if err != nil || len(failed) != 2 || !errors.Is(failed["a"], errDenied) || failed["b"] == nil || !strings.Contains(failed["b"].Error(), `delete "b" in s3://`) {
		t.Errorf("DeleteMany = %v, %v", failed, err)
	}
	answer = "<Error><Key>g/a</Key><Code>InternalError</Code></Error>"
	if _, err := s.DeleteMany(t.Context(), []string{"a"}); err == nil || !strings.Contains(err.Error(), "g/a") {
		t.Errorf("an answer about another key: %v", err)
	}
	answer = ""
	if failed, err := s.DeleteMany(t.Context(), []string{"a"}); !errors.Is(err, errDenied) || len(failed) != 0 {
		t.Errorf("a request that fails: %v, %v", failed, err)
	}
}
