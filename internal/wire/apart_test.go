package wire

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOneStoreByTwoNamesOverlaps(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
	t.Setenv("AWS_ENDPOINT_URL_S3", "")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		one, two string
		apart    bool
	}{
		{"s3://media", "s3://media/sub?endpoint=http://127.0.0.1:9000", false},
		{"s3://media?endpoint=HTTP://127.0.0.1:9000/", "s3://media", false},
		{"s3://media?endpoint=http://127.0.0.1:9001", "s3://media", true},
		{"s3://media?region=eu-west-1", "s3://media/sub", false},
		{dir + "/real", dir + "/link", false},
		{dir + "/link/not/there/yet", dir + "/real", false},
		{dir + "/link/a", dir + "/real/b", true},
		{dir + "/none/a", dir + "/none/b", true},
	} {
		if err := Apart(tt.one, tt.two); (err == nil) != tt.apart {
			t.Errorf("%s and %s: %v", tt.one, tt.two, err)
		}
	}
}

func TestAPlaceHoldsWhatLiesInIt(t *testing.T) {
	for _, tt := range []struct {
		outer, inner string
		holds        bool
	}{
		{"s3://logs", "s3://logs/out", true},
		{"s3://logs/in", "s3://logs/in", true},
		{"s3://logs/in", "s3://logs/inner", false},
		{"s3://logs/in", "s3://logs", false},
		{"s3://logs/in", "s3://other/in", false},
		{"/tmp", "s3://logs", false},
		{"https://host/logs", "/tmp", false},
		{"/tmp/a", "/tmp/a/b.ndjson", true},
		{"/tmp/a", "/tmp/b.ndjson", false},
	} {
		if holds, err := Holds(tt.outer, tt.inner); err != nil || holds != tt.holds {
			t.Errorf("%s in %s: %v, %v", tt.inner, tt.outer, holds, err)
		}
	}
}
