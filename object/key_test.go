package object_test

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/object"
)

func TestTypeOfFollowsTheEnding(t *testing.T) {
	for key, want := range map[string]string{
		"talk/hls/master.m3u8": "application/vnd.apple.mpegurl",
		"00000.m4s":            "video/iso.segment",
		"init.mp4":             "video/mp4",
		"TALK.MP4":             "video/mp4",
		"0.ts":                 "video/mp2t",
		"poster.jpg":           "image/jpeg",
		"poster.jpeg":          "image/jpeg",
		"poster.png":           "image/png",
		"poster.webp":          "image/webp",
		"en.vtt":               "text/vtt",
		"plan.json":            "application/json",
		"report.jsonl":         "application/jsonl",
		"manifest.mpd":         "application/dash+xml",
		"aes.key":              "application/octet-stream",
		"mp4":                  "application/octet-stream",
		"dir.mp4/file":         "application/octet-stream",
		"":                     "application/octet-stream",
	} {
		if got := object.TypeOf(key); got != want {
			t.Errorf("TypeOf(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestCheckKeySaysWhy(t *testing.T) {
	for key, want := range map[string]string{
		"":                        "empty",
		"/a":                      "begins",
		"a//b":                    "empty part",
		"a/":                      "empty part",
		"a/../b":                  `".."`,
		".":                       `"."`,
		"a\x00":                   "NUL",
		strings.Repeat("k", 1025): "1025 bytes",
	} {
		err := object.CheckKey(key)
		if err == nil || !strings.Contains(err.Error(), want) || !myrmidon.IsPermanent(err) {
			t.Errorf("CheckKey(%.20q) = %v, want a permanent error with %q", key, err, want)
		}
	}
	if err := object.CheckKey(strings.Repeat("k", 1024)); err != nil {
		t.Errorf("CheckKey of 1,024 bytes = %v", err)
	}
}

// FuzzCheckKey looks for a key that leaves its folder, or names two files.
func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{"a/b", "../a", "a/../../b", `..\a`, "a//b", "/a", ".", "a/.", "...", "\x00", "ü", "\xff/\xfe", "c:/a"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if object.CheckKey(key) != nil {
			return
		}
		if !filepath.IsLocal(key) || path.Clean(key) != key || key == "." || len(key) > object.MaxKey || strings.ContainsRune(key, 0) {
			t.Errorf("CheckKey(%q) = nil", key)
		}
	})
}

// FuzzDir drives a folder with hostile keys, prefixes and starting points, beside
// the same store in memory.
func FuzzDir(f *testing.F) {
	f.Add("a/b", "a-b", "a", "a/")
	f.Add("a/b/c", "a.b", "a/", "a-")
	f.Add("\xff/x", "ü", "", "\xfe")
	f.Add(".myrmidon-1.part", "..", "../", "/")
	f.Fuzz(func(t *testing.T, one, two, prefix, after string) {
		root := t.TempDir()
		d, mem := newDir(t, filepath.Join(root, "d")), object.NewMem()
		for _, key := range []string{one, two} {
			err := d.Put(t.Context(), key, strings.NewReader(key), int64(len(key)), object.Attrs{})
			if err != nil {
				if !myrmidon.IsPermanent(err) {
					t.Errorf("Put(%q) = %v, want a permanent error or none", key, err)
				}
				if _, err := d.Head(t.Context(), key); err == nil {
					t.Errorf("Head(%q) = nil after Put failed", key)
				}
				continue
			}
			if err := mem.Put(t.Context(), key, strings.NewReader(key), int64(len(key)), object.Attrs{}); err != nil {
				t.Errorf("memory refuses %q, which a folder takes: %v", key, err)
			}
		}
		var got, want []string
		for info, err := range d.List(t.Context(), prefix, after) {
			if err != nil {
				t.Fatalf("List(%q, %q): %v", prefix, after, err)
			}
			got = append(got, info.Key)
		}
		for info, err := range mem.List(t.Context(), prefix, after) {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, info.Key)
		}
		same(t, "keys", got, want)
		for _, key := range []string{one, two} {
			err := d.Delete(t.Context(), key)
			if err != nil && !myrmidon.IsPermanent(err) {
				t.Errorf("Delete(%q) = %v", key, err)
			}
		}
		if left := tree(t, d); len(left) > 0 {
			t.Errorf("after deletes are left %q", left)
		}
		if entries, err := filepath.Glob(filepath.Join(root, "*")); err != nil || len(entries) > 1 {
			t.Errorf("beside the folder are %q, %v", entries, err)
		}
	})
}

func TestDirWithoutItsFolderIsAnEmptyStore(t *testing.T) {
	d := newDir(t, filepath.Join(t.TempDir(), "not", "there"))
	same(t, "keys", keys(t, d, ""), []string{})
	if _, err := d.Head(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Head = %v, want fs.ErrNotExist", err)
	}
	if err := d.Delete(t.Context(), "k"); err != nil {
		t.Errorf("Delete = %v", err)
	}
	if n, err := d.Sweep(t.Context(), "", 0); n != 0 || err != nil {
		t.Errorf("Sweep = %d, %v", n, err)
	}
	if _, err := d.Path("k"); err != nil {
		t.Errorf("Path = %v", err)
	}
}
