package wire

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/object"
)

func TestFolder(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, address, want, problem string }{
		{"a relative path is made absolute", "./out", filepath.Join(wd, "out"), ""},
		{"an absolute path is kept", "/srv/media", "/srv/media", ""},
		{"a path with a colon is a path", "/srv/a:b", "/srv/a:b", ""},
		{"a file URL is a path", "file:///srv/my%20media", "/srv/my media", ""},
		{"a file URL of this machine", "file://localhost/srv", "/srv", ""},
		{"a file URL of another machine is refused", "file://nas/srv", "", "names the machine nas"},
		{"an empty address is refused", "", "", "empty"},
		{"a scheme that is not known is named", "gopher://x/y", "", "gopher://"},
		{"a bucket is no folder", "s3://bucket/a", "", "not on this machine"},
	} {
		got, err := Folder(c.address)
		if got != c.want || (err == nil) != (c.problem == "") {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
		if err != nil && (!strings.Contains(err.Error(), c.problem) || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "") {
			t.Errorf("%s: error %q, want one about %q, permanent and with a hint", c.name, err, c.problem)
		}
	}
}

func TestStoreOpensAFolder(t *testing.T) {
	s, err := Store(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "a/b.txt", strings.NewReader("hi"), 2, object.Attrs{}); err != nil {
		t.Error(err)
	}
}

func TestAddressesThatOverlap(t *testing.T) {
	for _, tt := range []struct {
		one, two string
		apart    bool
	}{
		{"/srv/a", "/srv/b", true},
		{"/srv/a", "/srv/ab", true},
		{"/srv/a", "/srv/a", false},
		{"/srv/a", "/srv/a/b", false},
		{"/srv/a/b", "/srv/a", false},
		{"s3://one", "s3://two", true},
		{"s3://one/a", "s3://one/ab", true},
		{"s3://one/a", "s3://one/b", true},
		{"s3://one", "s3://one/a", false},
		{"s3://one/a/", "s3://one/a", false},
		{"s3://one/a/b", "s3://one/a/", false},
		{"s3://one", "/srv/one", true},
		{"s3://one?endpoint=http://x:1", "s3://one", true},
		{"s3://one?profile=p", "s3://one/a?profile=q", false},
	} {
		if err := Apart(tt.one, tt.two); (err == nil) != tt.apart {
			t.Errorf("%s and %s: %v", tt.one, tt.two, err)
		}
	}
}
