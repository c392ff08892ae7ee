package objecttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/object"
)

// traps are keys whose byte order is not that of a walk through folders, nor that of
// any alphabet. They are put in random order.
var traps = []string{
	"a!", "a-b", "a-b/c", "a.b", "a/b", "a/b-c", "a/b.c/d", "a/b0", "a/z/z/z", "a0", "ab", "a~/x",
	"B", "Z/y", "_", "b", "é", "ü/ü", "日本", "日本/語", "\U0001F41C", "z", "z z", "0", "00", "~",
}

func testListOrder(t *testing.T, s object.Store, opt Options) {
	all := slices.Clone(traps)
	if opt.Folders {
		// "b" is taken away by none, but these are folders of other keys.
		all = slices.DeleteFunc(all, func(k string) bool { return k == "a-b" || k == "日本" })
	} else {
		all = append(all, "a", "a/b/c", "a/b/c/d")
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, key := range all {
		put(t, s, key, key)
	}
	slices.Sort(all)
	same(t, "keys", keys(t, s, "", ""), all)

	// Every prefix of every key, and every key as after, by plain definition.
	for _, key := range all {
		for n := range len(key) + 1 {
			checkList(t, s, all, key[:n], "")
			checkList(t, s, all, key[:n], key)
		}
		checkList(t, s, all, "", key)
		checkList(t, s, all, "", key+"/")
		checkList(t, s, all, "", key+"\x00")
		checkList(t, s, all, "a/", key)
	}
}

// checkList compares List with its definition.
func checkList(t *testing.T, s object.Store, all []string, prefix, after string) {
	t.Helper()
	want := []string{}
	for _, key := range all {
		if strings.HasPrefix(key, prefix) && key > after {
			want = append(want, key)
		}
	}
	same(t, fmt.Sprintf("List(%q, %q)", prefix, after), keys(t, s, prefix, after), want)
}

func testListBounds(t *testing.T, s object.Store, _ Options) {
	same(t, "keys of an empty store", keys(t, s, "", ""), []string{})
	all := []string{"a/1", "a/2", "a/3/x", "ab", "b/1"}
	for _, key := range all {
		put(t, s, key, key)
	}
	for _, prefix := range []string{
		"", "a", "a/", "a/3", "a/3/", "a/3/x", "a/3/xy", "ab/", "c", "a//", "/", "/a", "../", "./", "a/../a/", "a/.", "\x00", "a/\x00/",
		strings.Repeat("p", 2000), strings.Repeat("p/", 600),
	} {
		for _, after := range []string{"", "a", "a/", "a/1", "a/2", "a/3", "a/3/x", "a/3/y", "a/4", "a0", "ab", "b", "c", "/", "\xff"} {
			checkList(t, s, all, prefix, after)
		}
	}
}

func testListLong(t *testing.T, s object.Store, opt Options) {
	if testing.Short() {
		opt.Keys = min(opt.Keys, 300)
	}
	all := make([]string, 0, opt.Keys)
	for i := range opt.Keys {
		switch i % 3 {
		case 0:
			all = append(all, fmt.Sprintf("class/%d", i))
		case 1:
			all = append(all, fmt.Sprintf("class/%d/seg-%d.ts", i%60, i))
		default:
			all = append(all, fmt.Sprintf("class-%d.m3u8", i))
		}
	}
	if opt.Folders { // class/30 is a folder where 30 % 3 == 0
		all = slices.DeleteFunc(all, func(k string) bool { return len(k) <= len("class/59") })
	}
	for _, key := range all {
		put(t, s, key, "")
	}
	slices.Sort(all)
	same(t, "keys", keys(t, s, "", ""), all)

	// In pages of 97, each continued behind the last key of the one before.
	var paged []string
	for after := ""; ; {
		page := 0
		for info, err := range s.List(t.Context(), "", after) {
			if err != nil {
				t.Fatal(err)
			}
			paged = append(paged, info.Key)
			if page++; page == 97 {
				break
			}
		}
		if page < 97 {
			break
		}
		after = paged[len(paged)-1]
	}
	same(t, "keys in pages", paged, all)
}

func testListEnds(t *testing.T, s object.Store, _ Options) {
	for i := range 20 {
		put(t, s, fmt.Sprintf("f%d/k", i), "x")
	}
	n := 0
	for range s.List(t.Context(), "", "") {
		if n++; n == 3 {
			break // a listing that yields again now panics
		}
	}
	seq := s.List(t.Context(), "", "f18")
	for range 2 { // the sequence may be run again
		got := []string{}
		for info, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, info.Key)
		}
		same(t, "keys of a sequence run twice", got, keys(t, s, "", "f18"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	n = 0
	for _, err := range s.List(ctx, "", "") {
		n++
		last = err
		cancel()
	}
	// A store may have a page at hand and end only behind it.
	if n < 20 && !errors.Is(last, context.Canceled) {
		t.Errorf("List ended after %d of 20 objects with %v, want context.Canceled", n, last)
	}
}

// testPages compares Page with List, for stores that have it.
func testPages(t *testing.T, s object.Store, _ Options) {
	p, ok := s.(object.Pager)
	if !ok {
		t.Skip("the store is no object.Pager")
	}
	page, more, err := p.Page(t.Context(), "", "", 0)
	if err != nil || len(page) > 0 || more {
		t.Errorf("Page of an empty store: %d objects, more %v, %v; want none", len(page), more, err)
	}
	var all []string
	for i := range 23 {
		all = append(all, fmt.Sprintf("a/%02d", i), fmt.Sprintf("b-%02d", i))
	}
	all = append(all, "日本/語", "ü", "z/\U0001F41C")
	for _, key := range all {
		put(t, s, key, key)
	}
	for _, prefix := range []string{"", "a", "a/", "a/1", "b-2", "c", "日"} {
		for _, after := range []string{"", "a", "a/07", "a/07\x00", "a/99", "b-", "b-22", "z", "\xff"} {
			for _, most := range []int{0, 1, 2, 7, 23, object.MaxPage} {
				checkPages(t, p, keys(t, s, prefix, after), prefix, after, most)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := p.Page(ctx, "", "", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Page with an ended context: %v, want context.Canceled", err)
	}
}

// checkPages reads page after page behind after, which should give want.
func checkPages(t *testing.T, p object.Pager, want []string, prefix, after string, most int) {
	t.Helper()
	what := fmt.Sprintf("Page(%q, %q, %d)", prefix, after, most)
	size, got := most, []string{}
	if size == 0 {
		size = object.MaxPage
	}
	for range len(want) + 2 {
		page, more, err := p.Page(t.Context(), prefix, after, most)
		if err != nil || len(page) > size {
			t.Fatalf("%s: %d objects, %v", what, len(page), err)
		}
		for _, info := range page {
			if info.Size != int64(len(info.Key)) {
				t.Errorf("%s: %q has %d bytes, want %d", what, info.Key, info.Size, len(info.Key))
			}
			got = append(got, info.Key)
			after = info.Key
		}
		if !more {
			break
		}
	}
	same(t, what, got, want)
}

func testSpecialKeys(t *testing.T, s object.Store, _ Options) {
	special := []string{
		"a b/c d", " leading", "trailing ", "100%", "%2F", "a%2Fb", "a+b", "a&b=c?d#e", "ünï/cödé", "e\u0301", "\u00e9",
		"new\nline", "tab\t", "quote\"s'", `back\slash\..\x`, "a:b", "*", "~", "-rf", "$HOME", "`id`", "...", "..a/b..", ".hidden",
		"con", strings.Repeat("l", 200), strings.Repeat("long/", 200) + "key", "\U0001F41C/\U0001F41C", "<&>",
	}
	for _, key := range special {
		put(t, s, key, "in "+key)
	}
	for _, key := range special {
		want(t, s, key, "in "+key)
	}
	slices.Sort(special)
	same(t, "keys", keys(t, s, "", ""), special)
	for _, key := range special {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	same(t, "keys after deletes", keys(t, s, "", ""), []string{})
}

func testBadKeys(t *testing.T, s object.Store, _ Options) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b", "./a", "a\x00b", strings.Repeat("k", object.MaxKey+1),
	} {
		if object.CheckKey(key) == nil {
			t.Errorf("CheckKey(%q) = nil", key)
		}
		_, headErr := s.Head(t.Context(), key)
		_, _, getErr := s.Get(t.Context(), key, 0, -1)
		for name, err := range map[string]error{
			"Put":    s.Put(t.Context(), key, strings.NewReader("x"), 1, object.Attrs{}),
			"Get":    getErr,
			"Head":   headErr,
			"Delete": s.Delete(t.Context(), key),
		} {
			if !myrmidon.IsPermanent(err) {
				t.Errorf("%s(%.30q) = %v, want a permanent error", name, key, err)
			}
		}
	}
	same(t, "keys", keys(t, s, "", ""), []string{})
}

func testDelete(t *testing.T, s object.Store, _ Options) {
	for _, key := range []string{"a/b/c/d", "a/b/x", "a/b-x", "z"} {
		put(t, s, key, key)
	}
	for _, key := range []string{"a", "a/b", "a/b/c"} { // folders, or nothing
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	same(t, "keys", keys(t, s, "", ""), []string{"a/b-x", "a/b/c/d", "a/b/x", "z"})
	for range 2 { // the second finds nothing, which is fine
		if err := s.Delete(t.Context(), "a/b/c/d"); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	same(t, "keys", keys(t, s, "", ""), []string{"a/b-x", "a/b/x", "z"})
	put(t, s, "a/b/c", "now an object") // no folder is left in its way
	want(t, s, "a/b/c", "now an object")
	for _, key := range []string{"a/b/c", "a/b/x", "a/b-x", "z"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	same(t, "keys", keys(t, s, "", ""), []string{})
}

func testFolders(t *testing.T, s object.Store, opt Options) {
	put(t, s, "a/b", "1")
	put(t, s, "c", "2")
	for key, old := range map[string]string{"a": "a/b", "c/d": "c", "c/d/e": "c"} {
		err := s.Put(t.Context(), key, strings.NewReader("new"), 3, object.Attrs{})
		switch {
		case opt.Folders && (!myrmidon.IsPermanent(err) || myrmidon.Hint(err) == ""):
			t.Errorf("Put(%q) beside %q = %v, want a permanent error with a hint", key, old, err)
		case !opt.Folders && err != nil:
			t.Errorf("Put(%q) beside %q = %v, want nil", key, old, err)
		}
	}
	want(t, s, "a/b", "1")
	want(t, s, "c", "2")
	if opt.Folders {
		same(t, "keys", keys(t, s, "", ""), []string{"a/b", "c"})
	}
}
