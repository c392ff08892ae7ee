package limit

import "testing"

func TestDestination(t *testing.T) {
	for _, c := range []struct{ name, address, want string }{
		{"a bucket", "s3://bucket", "s3://bucket"},
		{"a key", "s3://bucket/a/b.mp4?region=x", "s3://bucket"},
		{"a bucket with parameters", "s3://bucket?endpoint=http://127.0.0.1:1/", "s3://bucket"},
		{"a path", "/srv/media", "file://"},
		{"a relative path with a colon", "./a:b", "file://"},
		{"a file URL", "file:///srv/media", "file://"},
	} {
		if got := Destination(c.address); got != c.want {
			t.Errorf("%s: %s is %q, want %q", c.name, c.address, got, c.want)
		}
	}
}
