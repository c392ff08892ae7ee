package s3_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"myrmidon/internal/testkit/s3server"
	"myrmidon/object"
	"myrmidon/object/objecttest"
	"myrmidon/object/s3"
)

// the server of this package's tests: each has its own buckets.
var (
	startOnce sync.Once
	shared    *s3server.Server
	startErr  error
	buckets   atomic.Int64
)

func TestMain(m *testing.M) {
	if os.Getenv(quickServer) != "" {
		serveQuickly()
	}
	code := m.Run()
	if shared != nil {
		if err := shared.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if err := os.RemoveAll(shared.Dir()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// server returns the shared server and sets the environment for it.
func server(t testing.TB) *s3server.Server {
	t.Helper()
	startOnce.Do(func() {
		var dir string
		if dir, startErr = os.MkdirTemp("", "myrmidon-s3-"); startErr == nil {
			shared, startErr = s3server.Open(t.Context(), dir)
		}
	})
	if startErr != nil {
		t.Fatal(startErr)
	}
	shared.Setenv(t)
	return shared
}

// newBucket makes a bucket on the shared server.
func newBucket(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", buckets.Add(1))
	server(t).Bucket(t, name)
	return name
}

// open opens a store of a new bucket, of the smallest parts.
func open(t testing.TB, prefix string) *s3.Store {
	t.Helper()
	s, err := s3.OpenFast(t.Context(), s3.Config{Bucket: newBucket(t), Prefix: prefix, PartSize: 5 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// both runs a test with each of the clients; under the race detector with ours alone.
func both(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	clients := []string{"own", "sdk"}
	if raced {
		clients = clients[:1]
	}
	for _, name := range clients {
		t.Run(name, func(t *testing.T) {
			t.Setenv("MYRMIDON_S3_CLIENT", name)
			test(t)
		})
	}
}

func TestABucketIsAStore(t *testing.T) { both(t, testABucketIsAStore) }

func testABucketIsAStore(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return open(t, "") },
		objecttest.Options{KeepsAttrs: true, Folders: true, Keys: 2100})
}

func TestAFolderOfABucketIsAStore(t *testing.T) { both(t, testAFolderOfABucketIsAStore) }

func testAFolderOfABucketIsAStore(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store {
		s := open(t, "some folder/of+it")
		beside, err := s3.OpenFast(t.Context(), s3.Config{Bucket: bucketOf(s), Prefix: "some folder"})
		if err != nil {
			t.Fatal(err)
		}
		put(t, beside, "of", "beside")
		put(t, beside, "of+it2/x", "beside")
		return s
	}, objecttest.Options{KeepsAttrs: true, Folders: true, Keys: 300})
}

// bucketOf returns the bucket's name.
func bucketOf(s *s3.Store) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(s.String(), "s3://"), "/")
	return name
}

// put stores data, or ends the test.
func put(t testing.TB, s object.Store, key, data string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(data), int64(len(data)), object.Attrs{}); err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
}
