package wire

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"myrmidon"
	"myrmidon/internal/testkit/s3server"
	"myrmidon/object"
	"myrmidon/object/s3"
)

func TestAddressesOfS3(t *testing.T) {
	for _, c := range []struct {
		name, address string
		want          address
		problem       string
	}{
		{"a bucket", "s3://media", address{bucket: bucket{name: "media"}}, ""},
		{"a bucket with a slash", "s3://media/", address{bucket: bucket{name: "media"}}, ""},
		{"a key is raw", "s3://media/a b/100%+%41é.mp4", address{bucket{name: "media"}, "a b/100%+%41é.mp4", ""}, ""},
		{
			"all parameters", "s3://media/a?profile=p&endpoint=http%3A%2F%2Fhost:9000&region=r",
			address{bucket{"media", "p", "http://host:9000", "r", ""}, "a", "?profile=p&endpoint=http%3A%2F%2Fhost:9000&region=r"},
			"",
		},
		{"an endpoint as it is", "s3://media?endpoint=http://host:9000", address{bucket{"media", "", "http://host:9000", "", ""}, "", "?endpoint=http://host:9000"}, ""},
		{"a query of other names is part of the key", "s3://media/talk?v=2&w=3", address{bucket{name: "media"}, "talk?v=2&w=3", ""}, ""},
		{"a question mark alone is an empty query", "s3://media/talk?region=x?", address{bucket{name: "media"}, "talk?region=x", "?"}, ""},
		{"only the last question mark begins a query", "s3://media/a?v=2?region=x", address{bucket{"media", "", "", "x", ""}, "a?v=2", "?region=x"}, ""},
		{"a question in a key", "s3://media/what? now", address{bucket{name: "media"}, "what? now", ""}, ""},
		{"an unknown parameter beside a known one", "s3://media/a?region=x&color=red", address{}, `"color" is not known`},
		{"a parameter without a value", "s3://media/a?region=", address{}, `"region" has no value`},
		{"a parameter that comes twice", "s3://media/a?region=x&region=y", address{}, `"region" comes twice`},
		{"a bare word beside a parameter", "s3://media/a?region=x&profile", address{}, `"profile" is not known`},
		{"an escape that is none", "s3://media/a?region=%zz", address{}, `"region" has no value`},
		{
			"a role", "s3://media/a?role=arn:aws:iam::123456789012:role/copier",
			address{bucket{"media", "", "", "", "arn:aws:iam::123456789012:role/copier"}, "a", "?role=arn:aws:iam::123456789012:role/copier"},
			"",
		},
		{"a role that is no ARN", "s3://media/a?role=copier", address{}, "not the ARN of a role"},
		{"a secret as a parameter", "s3://media/a?aws_secret_access_key=sesame", address{}, "holds no secrets"},
		{"a secret beside a parameter", "s3://media/a?region=x&Password=sesame", address{}, "holds no secrets"},
		{"a secret before the bucket", "s3://KEY:sesame@media/a", address{}, "not the name of a bucket"},
		{"a secret in the endpoint", "s3://media/a?endpoint=http://KEY:sesame@host", address{}, "password"},
		{"an endpoint of another kind", "s3://media/a?endpoint=ftp://host", address{}, "http://"},
		{"no bucket", "s3://", address{}, "not the name of a bucket"},
		{"no bucket but a key", "s3:///a", address{}, "not the name of a bucket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parse(c.address)
			if got != c.want || (err == nil) != (c.problem == "") {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
			canonical, cerr := Canonical(c.address)
			if err == nil && (canonical != c.address || cerr != nil) {
				t.Errorf("Canonical = %q, %v", canonical, cerr)
			}
			for _, err := range []error{err, cerr} {
				if err == nil {
					continue
				}
				if !strings.Contains(err.Error(), c.problem) || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
					t.Errorf("error %q, want one about %q, permanent and with a hint", err, c.problem)
				}
				if strings.Contains(err.Error()+myrmidon.Hint(err), "sesame") {
					t.Errorf("the secret is in the error: %q", err)
				}
			}
			if IsLocal(c.address) {
				t.Error("IsLocal = true")
			}
		})
	}
}

func TestWhatIsLocal(t *testing.T) {
	for address, want := range map[string]bool{"a": true, "/a": true, "file:///a": true, "a:b": true, "": true, "s3://a": false, "gopher://a": false} {
		if IsLocal(address) != want {
			t.Errorf("IsLocal(%q) = %v", address, !want)
		}
	}
}

func TestCanonicalOfAPathIsAbsolute(t *testing.T) {
	want, err := filepath.Abs("a/b.mp4")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Canonical("a/b.mp4"); got != want || err != nil {
		t.Errorf("Canonical = %q, %v; want %q", got, err, want)
	}
}

// bucketServer runs a server with a bucket, and returns a function that puts keys.
func bucketServer(t *testing.T, name string, keys ...string) {
	t.Helper()
	srv := s3server.Start(t)
	srv.Setenv(t)
	srv.Bucket(t, name)
	store, err := s3.New(t.Context(), s3.Config{Bucket: name})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := store.Put(t.Context(), k, strings.NewReader(k), int64(len(k)), object.Attrs{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoresOfABucketAreOne(t *testing.T) {
	bucketServer(t, "wire-stores")
	stores := make([]object.Store, 16)
	var all sync.WaitGroup
	for i := range stores {
		all.Go(func() {
			var err error
			if stores[i], err = Store(fmt.Sprintf("s3://wire-stores/folder-%d/", i%4)); err != nil {
				t.Error(err)
				return
			}
			if err := stores[i].Put(t.Context(), "k", strings.NewReader("x"), 1, object.Attrs{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if n := stores[3].(*s3.Store).Stats().Writes; n != 16 {
		t.Errorf("the stores have sent %d requests in common, want 16", n)
	}
	if got := fmt.Sprint(stores[5]); got != "s3://wire-stores/folder-1" {
		t.Errorf("the store is %s", got)
	}
	if other, err := Store("s3://wire-stores?region=eu-west-1"); err != nil || other.(*s3.Store).Stats().Writes != 0 {
		t.Errorf("a store of another region: %v, %v; want one of its own", other, err)
	}
}

func TestObjectOpensWhatHoldsIt(t *testing.T) {
	bucketServer(t, "wire-object", "a/talk?v=1.mp4")
	store, key, err := Object("s3://wire-object/a/talk?v=1.mp4")
	if err != nil || key != "a/talk?v=1.mp4" {
		t.Fatalf("Object = %q, %v", key, err)
	}
	r, _, err := store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(data) != key {
		t.Errorf("%q, %v", data, err)
	}

	dir := t.TempDir()
	local, key, err := Object("file://" + dir + "/talk.mp4")
	if err != nil || key != "talk.mp4" || fmt.Sprint(local) != dir {
		t.Errorf("Object = %v, %q, %v; want the folder %s", local, key, err, dir)
	}
	for _, address := range []string{"", "/", "s3://wire-object", "s3://wire-object/a/", "s3://wire-object/a//b", "s3://wire-object/../b", "gopher://a/b"} {
		if _, _, err := Object(address); !myrmidon.IsPermanent(err) {
			t.Errorf("Object(%q) = %v, want a permanent error", address, err)
		}
	}
}

func TestExpand(t *testing.T) {
	bucketServer(t, "wire-expand", "a.mp4", "b.mov", "m/1.mp4", "m/2.mp4", "m/2.mov", "m/[x].mp4", "m/deep/3.mp4", "m/talk?region=x", "n/4.mp4")
	const query = "?region=us-east-1"
	for _, c := range []struct {
		name, address string
		want          []string
		problem       string
	}{
		{"a path stands for itself", "/srv/*.mp4", []string{"/srv/*.mp4"}, ""},
		{"an object stands for itself, there or not", "s3://wire-expand/no.mp4", []string{"s3://wire-expand/no.mp4"}, ""},
		{"a pattern", "s3://wire-expand/m/*.mp4", []string{"s3://wire-expand/m/1.mp4", "s3://wire-expand/m/2.mp4", "s3://wire-expand/m/[x].mp4"}, ""},
		{"a pattern at the top", "s3://wire-expand/*.mp4", []string{"s3://wire-expand/a.mp4"}, ""},
		{"a pattern with a beginning, and a query", "s3://wire-expand/m/2*" + query, []string{"s3://wire-expand/m/2.mov" + query, "s3://wire-expand/m/2.mp4" + query}, ""},
		{"a pattern with classes", `s3://wire-expand/m/[^1\[]*.mp4`, []string{"s3://wire-expand/m/2.mp4"}, ""},
		{"a key that looks like a query is kept apart from one", "s3://wire-expand/m/talk*", []string{"s3://wire-expand/m/talk?region=x?"}, ""},
		{"a folder", "s3://wire-expand/m/deep/", []string{"s3://wire-expand/m/deep/3.mp4"}, ""},
		{"a bucket", "s3://wire-expand/", []string{
			"s3://wire-expand/a.mp4", "s3://wire-expand/b.mov", "s3://wire-expand/m/1.mp4", "s3://wire-expand/m/2.mov",
			"s3://wire-expand/m/2.mp4", "s3://wire-expand/m/[x].mp4", "s3://wire-expand/m/deep/3.mp4",
			"s3://wire-expand/m/talk?region=x?", "s3://wire-expand/n/4.mp4",
		}, ""},
		{"nothing matches", "s3://wire-expand/m/*.flac", nil, "no object matches"},
		{"a star in a folder", "s3://wire-expand/*/1.mp4", nil, "only the last part"},
		{"a bad pattern", "s3://wire-expand/[*", nil, "no pattern"},
		{"a bad address", "s3://x@y/*", nil, "not the name of a bucket"},
	} {
		got, err := Expand(t.Context(), c.address)
		if !slices.Equal(got, c.want) || (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %q, %v; want %q and an error about %q", c.name, got, err, c.want, c.problem)
		}
		if err != nil && !myrmidon.IsPermanent(err) || c.problem == "no object matches" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v is not permanent, or not fs.ErrNotExist", c.name, err)
		}
		for _, address := range got {
			if _, _, err := Object(address); c.address != "/srv/*.mp4" && err != nil {
				t.Errorf("%s: Object(%q) = %v", c.name, address, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"s3://media/a?region=x", "s3://media/talk?v=2", "s3://media/talk?region=x?", "s3://KEY:SECRET@media", "s3://media?endpoint=http://h&profile=p",
		"s3://media/\xff?region=%41", "s3://../a", "s3://media/a//b?",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !isS3(text) {
			return
		}
		a, err := parse(text)
		if err != nil {
			if !myrmidon.IsPermanent(err) {
				t.Errorf("%q: %v is not permanent", text, err)
			}
			return
		}
		// The address of the key that was found is one of the same key.
		again, err := parse(a.of(a.key))
		if err != nil || again.key != a.key || again.bucket != a.bucket {
			t.Errorf("%q: %+v, and again %+v, %v", text, a, again, err)
		}
	})
}
