package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon/internal/checksum"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3stub"
)

// twoServices are a shop whose own service has the bucket "from", and another service with
// the bucket "into", whose address it returns.
func twoServices(t *testing.T) (s *cloneShop, other *s3stub.Server, into string) {
	t.Helper()
	s = newCloneShop(t, s3stub.Config{Secret: "one secret"})
	other = s3stub.New(t, s3stub.Config{Secret: "one secret"})
	if err := errors.Join(s.s3.AddBucket("from"), other.AddBucket("into")); err != nil {
		t.Fatal(err)
	}
	return s, other, "s3://into?endpoint=" + other.URL()
}

// report reads the file of --report, by key.
func report(t *testing.T, file string) map[string]reportLine {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(map[string]reportLine)
	for text := range strings.Lines(string(data)) {
		var l reportLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines[l.Action+" "+l.Key] = l
	}
	return lines
}

func TestACloneBetweenServicesLosesNothing(t *testing.T) {
	s, other, into := twoServices(t)
	attributes := s3stub.Attributes{
		ContentType: "video/mp4", CacheControl: "no-cache", ContentEncoding: "gzip", ContentDisposition: "inline", ContentLanguage: "en",
		Expires: "Sat, 21 Nov 2026 10:00:00 GMT", Metadata: map[string]string{"origin": "camera 1"}, Tags: map[string]string{"team": "a b"},
	}
	bodies := map[string][]byte{"small": []byte("data"), "two//slashes": nil, "large": bytes.Repeat([]byte("0123456789"), 4_000_000)}
	for key, data := range bodies {
		if err := s.s3.PutObject("from", s3stub.Object{Key: key, Attributes: attributes}, data); err != nil {
			t.Fatal(err)
		}
	}
	out, problems, exit := s.run("clone", "s3://from", into, "--verify=checksum", "--report", "report.jsonl")
	if exit != 0 || !strings.Contains(out, "copied 3") || !strings.Contains(out, "verified 3") {
		t.Fatalf("exit %d\n%s%s", exit, out, problems)
	}
	lines := report(t, filepath.Join(s.dir, "report.jsonl"))
	for key, data := range bodies {
		got, _ := other.Object("into", key)
		copied, _ := other.Data("into", key)
		if diff := cmp.Diff(attributes, got.Attributes); diff != "" || !bytes.Equal(copied, data) {
			t.Errorf("%s: %d bytes, want %d; %s", key, len(copied), len(data), diff)
		}
		if l := lines["copy "+key]; l.How != "stream" || l.Destination != checksum.Of(checksum.CRC32C, data) {
			t.Errorf("%s has the line %+v", key, l)
		}
	}
	// What is in parts here and there has other ETags: its checksum is compared, by reading only
	// the side that keeps none.
	if l := lines["verify large"]; l.How != "read" || l.Source != checksum.Of(checksum.CRC32C, bodies["large"]) {
		t.Errorf("the large object is verified by %+v", l)
	}
	if n := other.Counts()[s3stub.Get].Requests; n != 0 {
		t.Errorf("%d objects were read back", n)
	}
	_, problems, exit = s.run("clone", "s3://from", into, "--all", "-q", "--metadata", "replace", "--meta", "a=b", "--tag", "c=d", "--storage-class", "GLACIER_IR", "--sse", "AES256", "--acl", "private")
	got, _ := other.Object("into", "small")
	want := s3stub.Attributes{ContentType: "application/octet-stream", Metadata: map[string]string{"a": "b"}, Tags: map[string]string{"c": "d"}, StorageClass: "GLACIER_IR", Encryption: "AES256", ACL: "private"}
	if diff := cmp.Diff(want, got.Attributes); exit != 0 || diff != "" {
		t.Errorf("exit %d, %s\n%s", exit, diff, problems)
	}
	if _, problems, exit = s.run("clone", "s3://from", "./folder", "--tag", "a=b"); exit != 1 || !strings.Contains(problems, "cannot hold tags") {
		t.Errorf("tags into a folder: exit %d\n%s", exit, problems)
	}
}

func TestExactTimestamps(t *testing.T) {
	long.Test(t)
	s, _, into := twoServices(t)
	when := time.Date(2021, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := s.s3.PutObject("from", s3stub.Object{Key: "a/k", Modified: when}, []byte("data")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, "folder", "a", "k")
	for i, want := range []string{"copied 1   skipped 0", "copied 0   skipped 1", "copied 1   skipped 0", "copied 0   skipped 1"} {
		out, problems, exit := s.run("clone", "s3://from", "./folder", "--exact-timestamps")
		if exit != 0 || !strings.Contains(out, want) {
			t.Errorf("run %d: exit %d, want %s\n%s%s", i, exit, want, out, problems)
		}
		if stat, err := os.Stat(file); err != nil || !stat.ModTime().Equal(when) {
			t.Errorf("run %d: %v, %v", i, stat, err)
		}
		if i == 1 {
			if err := os.Chtimes(file, time.Time{}, when.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, problems, exit := s.run("clone", "s3://from", into, "--exact-timestamps"); exit != 2 || !strings.Contains(problems, "needs a folder") {
		t.Errorf("into a bucket: exit %d\n%s", exit, problems)
	}
	if _, problems, exit := s.run("clone", "s3://from", "./folder", "--exact-timestamps", "--size-only"); exit != 2 || !strings.Contains(problems, "one of them") {
		t.Errorf("beside --size-only: exit %d\n%s", exit, problems)
	}
}

func TestACloneOfAnHTTPOrigin(t *testing.T) {
	s, other, into := twoServices(t)
	files := map[string]string{"a.mp4": "film", "sub/b c.txt": "text", "empty": ""}
	when := time.Date(2025, 6, 7, 8, 9, 10, 0, time.UTC)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch name, _ := strings.CutPrefix(r.URL.Path, "/pub/"); name {
		case "":
			fmt.Fprint(w, `<html><head><title>Index of /pub/</title></head><a href="../">../</a><a href="a.mp4">a.mp4</a><a href="empty">empty</a><a href="stream">stream</a><a href="sub/">sub/</a></html>`)
		case "sub/":
			fmt.Fprint(w, `<html><head><title>Index of /pub/sub/</title></head><a href="b%20c.txt">b c.txt</a></html>`)
		case "stream":
			_ = http.NewResponseController(w).Flush() // so that it has no length
			if r.Method == http.MethodGet {
				fmt.Fprint(w, "of unknown size")
			}
		default:
			http.ServeContent(w, r, name, when, strings.NewReader(files[name]))
		}
	}))
	defer web.Close()
	out, problems, exit := s.run("clone", web.URL+"/pub", into, "--report", "report.jsonl", "--verify")
	if exit != 0 || !strings.Contains(out, "4 objects, 23 B listed   copied 4") || !strings.Contains(out, "verified 4") {
		t.Fatalf("exit %d\n%s%s", exit, out, problems)
	}
	files["stream"] = "of unknown size"
	lines := report(t, filepath.Join(s.dir, "report.jsonl"))
	for key, data := range files {
		if got, ok := other.Data("into", key); !ok || string(got) != data {
			t.Errorf("%s: %q", key, got)
		}
		if l := lines["copy "+key]; l.Size != int64(len(data)) || l.Destination != checksum.Of(checksum.CRC32C, []byte(data)) {
			t.Errorf("%s has the line %+v", key, l)
		}
	}
	if got, _ := other.Object("into", "a.mp4"); got.ContentType != "video/mp4" {
		t.Errorf("a.mp4 is of type %q", got.ContentType)
	}
	// Once more there is only what has no size, and a folder gets the times.
	if out, _, exit := s.run("clone", web.URL+"/pub/", into); exit != 0 || !strings.Contains(out, "copied 1   skipped 3") {
		t.Errorf("again: exit %d\n%s", exit, out)
	}
	if _, problems, exit := s.run("clone", web.URL+"/pub/", "./folder", "-q"); exit != 0 {
		t.Errorf("into a folder: exit %d\n%s", exit, problems)
	}
	if stat, err := os.Stat(filepath.Join(s.dir, "folder", "sub", "b c.txt")); err != nil || !stat.ModTime().Equal(when) {
		t.Errorf("%v, %v; want the time %v", stat, err, when)
	}
	// A list needs no index, and knows no size either.
	if err := os.WriteFile(filepath.Join(s.dir, "list"), []byte("a.mp4\nstream\nempty\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, problems, exit = s.run("clone", web.URL+"/pub/", strings.Replace(into, "s3://into", "s3://into/listed", 1), "--files-from", "list")
	if got, _ := other.Data("into", "listed/stream"); exit != 0 || !strings.Contains(out, "3 objects, 19 B listed   copied 3") || string(got) != files["stream"] {
		t.Errorf("a list: exit %d, %q\n%s%s", exit, got, out, problems)
	}
	for name, tt := range map[string]struct {
		args []string
		exit int
		says string
	}{
		"into an origin":   {[]string{"clone", "s3://from", web.URL}, 2, "can only be read"},
		"with a password":  {[]string{"clone", "http://u:sesame@h/", into}, 2, "user name"},
		"not a list":       {[]string{"clone", web.URL + "/pub/sub/b%20c.txt/", into}, 1, "cannot be listed"},
		"rm of one":        {[]string{"rm", "-r", web.URL + "/pub/"}, 3, "can only be read"},
		"a page elsewhere": {[]string{"ls", web.URL + "/pub/stream"}, 1, "--files-from"},
	} {
		out, problems, exit := s.run(tt.args...)
		if exit != tt.exit || !strings.Contains(out+problems, tt.says) || strings.Contains(out+problems, "sesame") {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", name, exit, tt.exit, tt.says, out, problems)
		}
	}
}
