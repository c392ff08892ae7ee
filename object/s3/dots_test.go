package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/internal/testkit/s3server"
	"myrmidon/internal/testkit/s3stub"
	"myrmidon/object"
	"myrmidon/object/s3"
)

// dotted are keys that S3 takes as they are.
var dotted = []string{".", "..", "../b", "./b", "a/../b", "a/./b", "a/..", "a/.", "a/../../other/b", "../other/b"}

func TestKeysWithDotsAreTakenAsTheyAre(t *testing.T) { both(t, testKeysWithDotsAreTakenAsTheyAre) }

func testKeysWithDotsAreTakenAsTheyAre(t *testing.T) {
	srv := s3stub.New(t, s3stub.Config{})
	srv.Setenv(t)
	for _, b := range []string{"from", "other"} {
		if err := errors.Join(srv.AddBucket(b), srv.PutObject(b, s3stub.Object{Key: "b"}, []byte("precious"))); err != nil {
			t.Fatal(err)
		}
	}
	from, into := anyKeys(t, "from"), anyKeys(t, "other")
	for _, k := range dotted {
		if err := from.Put(t.Context(), k, strings.NewReader(k), int64(len(k)), object.Attrs{}); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, from, k); got != k || err != nil {
			t.Fatalf("%q has %q, %v", k, got, err)
		}
		info, err := from.Head(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := into.Import(t.Context(), from, info, k, object.ImportOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := slices.Sorted(slices.Values(append(slices.Clone(dotted), "b")))
	for _, b := range []string{"from", "other"} {
		if got := srv.Keys(b); !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", b, got, want)
		}
	}
	// The server was asked once for each bucket, beside a HEAD for each key.
	if n := srv.Counts()[s3stub.Head].Requests; n != int64(len(dotted)+2) {
		t.Errorf("%d HEADs", n)
	}
	if err := from.Delete(t.Context(), dotted[0]); err != nil {
		t.Error(err)
	}
	if failed, err := from.DeleteMany(t.Context(), dotted[1:]); err != nil || len(failed) > 0 {
		t.Errorf("%v, %v", failed, err)
	}
	if got := srv.Keys("from"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("left are %q", got)
	}
}

// A server, or a proxy, that takes dots for folders is sent nothing that it would do to
// another object.
func TestKeysWithDotsThatTheServerWouldTakeForOthers(t *testing.T) {
	both(t, testKeysWithDotsThatTheServerWouldTakeForOthers)
}

func testKeysWithDotsThatTheServerWouldTakeForOthers(t *testing.T) {
	stub := s3stub.New(t, s3stub.Config{Unsigned: true})
	folding := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = path.Clean(r.URL.Path)
		r.URL.RawPath = ""
		r.RequestURI = r.URL.RequestURI()
		stub.ServeHTTP(w, r)
	}))
	defer folding.Close()
	gateway := s3server.Start(t)
	for name, setenv := range map[string]func(){
		"a proxy that folds paths": func() {
			stub.Setenv(t)
			t.Setenv("AWS_ENDPOINT_URL", folding.URL)
		},
		"versitygw": func() { gateway.Setenv(t) },
	} {
		t.Run(name, func(t *testing.T) {
			setenv()
			for _, b := range []string{"from", "other"} {
				if name == "versitygw" {
					gateway.Bucket(t, b)
				} else if err := stub.AddBucket(b); err != nil {
					t.Fatal(err)
				}
				if err := anyKeys(t, b).Put(t.Context(), "b", strings.NewReader("precious"), 8, object.Attrs{}); err != nil {
					t.Fatal(err)
				}
			}
			from, into := anyKeys(t, "from"), anyKeys(t, "other")
			b, err := from.Head(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range dotted {
				src := b
				src.Key = k
				_, ierr := into.Import(t.Context(), from, src, k, object.ImportOptions{})
				_, cerr := into.Import(t.Context(), from, src, "c", object.ImportOptions{})
				_, herr := from.Head(t.Context(), k)
				_, gerr := read(t, from, k)
				for what, err := range map[string]error{
					"put":    from.Put(t.Context(), k, strings.NewReader("damage"), 6, object.Attrs{}),
					"delete": from.Delete(t.Context(), k), "import": ierr, "import from": cerr, "head": herr, "get": gerr,
				} {
					if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" || !strings.Contains(err.Error(), fmt.Sprintf("%q", k)) || errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s of %q: %v", what, k, err)
					}
				}
			}
			if failed, err := from.DeleteMany(t.Context(), dotted); err != nil || len(slices.Collect(maps.Keys(failed))) != len(dotted) {
				t.Errorf("%d are not deleted, %v", len(failed), err)
			}
			for _, s := range []*s3.Store{from, into} {
				if got, err := read(t, s, "b"); got != "precious" || err != nil {
					t.Errorf("%s has %q, %v", s, got, err)
				}
			}
		})
	}
}

func anyKeys(t *testing.T, bucket string) *s3.Store {
	t.Helper()
	s, err := s3.OpenFast(t.Context(), s3.Config{Bucket: bucket})
	if err != nil {
		t.Fatal(err)
	}
	return s.AnyKey()
}

func read(t *testing.T, s object.Store, key string) (string, error) {
	t.Helper()
	r, _, err := s.Get(context.Background(), key, 0, -1)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	return string(data), errors.Join(err, r.Close())
}
