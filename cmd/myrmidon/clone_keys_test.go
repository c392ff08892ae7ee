package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3stub"
)

// oddKeys are keys that S3 takes and people do not expect.
func oddKeys() (keys []string) {
	for r := rune(1); r <= 0xff; r++ { // as bytes up to 0x7f, in UTF-8 beyond: all that a key may hold
		keys = append(keys, fmt.Sprintf("in/%03d-%sx", r, string(r)), fmt.Sprintf("end/%03d-%s", r, string(r)))
	}
	return append(keys,
		"/", "//", "/leading", "//two", "a//b", "trailing/", "trailing//", ".", "..", "./x", "../x", "a/./b", "a/../b", "a/..", "...", "d/..x",
		"é", "e\u0301", "\ufffe", "\uffff", "\ufffd", "\U0010ffff", "日本語/файл", "a", "x/y", strings.Repeat("k", 1024), strings.Repeat("ü/", 341),
		"%2F", "+", "a+b c%20d", "?x=1&y", "#", "line\r\nbreak", "\x7f", `"quoted"`, "<&>'", `back\slash`, " ", " leading", "trailing ")
}

func TestKeysOfEveryKindBetweenBuckets(t *testing.T) {
	long.Test(t)
	s := newCloneShop(t, s3stub.Config{})
	keys := oddKeys()
	s.fill("from", "", keys...)
	s.fill("into", "")
	s.says(0, []string{fmt.Sprintf("copied %d   skipped 0   verified %[1]d   failed 0", len(keys))}, "clone", "s3://from", "s3://into", "--verify=read")
	got := s.full("into")
	for _, k := range keys {
		if got[k] != k {
			t.Errorf("%q has %q", k, got[k])
		}
	}
	s.says(0, []string{fmt.Sprintf("copied 0   skipped %d", len(keys))}, "clone", "s3://from", "s3://into")
	s.says(0, []string{fmt.Sprintf("copied 0   skipped 0   deleted %d", len(keys))}, "clone", "s3://from/none", "s3://into", "--delete")
	if n := s.s3.Len("into"); n > 0 || s.s3.Len("from") != len(keys) {
		t.Errorf("%d are left of the destination, %d of the source", n, s.s3.Len("from"))
	}
}

// What no disk can hold is listed with its key, and the rest is there.
func TestKeysOfEveryKindOnADisk(t *testing.T) {
	long.Test(t)
	s := newCloneShop(t, s3stub.Config{})
	keys := append(oddKeys(), strings.Repeat("n", 255), strings.Repeat("n", 256), "file", "file/below", ".myrmidon-0.part")
	s.fill("from", "", keys...)
	refused := []string{
		"/", "//", "/leading", "//two", "a//b", "trailing/", "trailing//", ".", "..", "./x", "../x", "a/./b", "a/../b", "a/..", "end/047-/",
		strings.Repeat("k", 1024), strings.Repeat("n", 256), strings.Repeat("ü/", 341), ".myrmidon-0.part",
	}
	if err := os.WriteFile(filepath.Join(s.dir, "x"), []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Of "file" and "file/below" the first to come is there.
	s.says(3, []string{"objects failed", "more: myrmidon runs items", "runs retry"}, "clone", "s3://from", "./out/of/here", "--report", "report.jsonl")
	report, err := os.ReadFile(filepath.Join(s.dir, "report.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	failed := failedOf(t, report)
	either := slices.DeleteFunc([]string{"file", "file/below"}, func(k string) bool { return failed[k] != "" })
	either = append(either, slices.DeleteFunc([]string{"a"}, func(k string) bool { return failed[k] != "" })...)
	if len(either) != 2 {
		t.Errorf("of \"file\" and \"file/below\", and \"a\", %q are there", either)
	}
	for _, k := range refused {
		if failed[k] == "" {
			t.Errorf("%q is not told as failed", k)
		}
		delete(failed, k)
	}
	delete(failed, "file")
	delete(failed, "file/below")
	if len(failed) > 0 {
		t.Errorf("failed as well: %q", failed)
	}
	there := make(map[string]string)
	root := filepath.Join(s.dir, "out/of/here")
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		there[strings.TrimPrefix(p, root+"/")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(keys)-len(refused)-1 {
		t.Errorf("%d files of %d keys", len(there), len(keys))
	}
	for k, data := range there {
		if k != data || !slices.Contains(keys, k) {
			t.Errorf("%q has %q", k, data)
		}
	}
	if data, err := os.ReadFile(filepath.Join(s.dir, "x")); string(data) != "outside" || err != nil {
		t.Errorf("what lies outside has %q, %v", data, err)
	}
}

// failedOf are the errors in a report, by key.
func failedOf(t *testing.T, report []byte) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for line := range bytes.Lines(report) {
		var l reportLine
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if l.State == "failed" {
			out[l.Key] = l.Error
		}
	}
	return out
}
