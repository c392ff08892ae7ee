package objects_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/sink"
	"myrmidon/sink/objects"
	"myrmidon/sink/sinktest"
)

// lines returns the lines of all objects, and their keys.
func lines(t *testing.T, store object.Store) (out, keys []string) {
	t.Helper()
	out = []string{}
	for info, err := range store.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
		body, _, err := store.Get(t.Context(), info.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		var in io.Reader = body
		if strings.HasSuffix(info.Key, ".gz") {
			if in, err = gzip.NewReader(body); err != nil {
				t.Fatal(err)
			}
		}
		data, err := io.ReadAll(in)
		if err = errors.Join(err, body.Close()); err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			out = append(out, strings.TrimSuffix(string(line), "\n"))
		}
	}
	return out, keys
}

func open(t *testing.T, cfg objects.Config) *objects.Sink {
	t.Helper()
	s, err := objects.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestObjectsAreASink(t *testing.T) {
	for name, plain := range map[string]bool{"packed": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Opened {
				store := object.NewMem()
				return sinktest.Opened{Sink: open(t, objects.Config{Store: store, Plain: plain}), Received: func() []string {
					out, _ := lines(t, store)
					return out
				}}
			}, sinktest.Options{DropsDoubles: true})
		})
	}
}

var at = time.Date(2026, 11, 21, 20, 59, 58, 0, time.FixedZone("", 3600))

func TestAnHourIsAFolder(t *testing.T) {
	store := object.NewMem()
	s := open(t, objects.Config{Store: store, Prefix: "logs/"})
	rs := []sink.Record{{Data: []byte("1"), Time: at}, {Data: []byte("2"), Time: at.Add(time.Second)}, {Data: []byte("3"), Time: at.Add(time.Minute)}, {Data: []byte("4"), Time: at}}
	for range 2 {
		if err := s.Send(t.Context(), rs); err != nil {
			t.Fatal(err)
		}
	}
	got, keys := lines(t, store)
	if diff := cmp.Diff([]string{"1", "2", "4", "3"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := []string{"logs/2026/11/21/19/20261121T195958Z-*.ndjson.gz", "logs/2026/11/21/20/20261121T200058Z-*.ndjson.gz"}
	for i, k := range keys {
		if ok, err := path.Match(want[i], k); !ok || err != nil {
			t.Errorf("key %s, want %s", k, want[i])
		}
	}
}

// failing is a store that refuses some keys.
type failing struct {
	object.Store
	in  string
	err error
}

func (f failing) Put(ctx context.Context, key string, body io.Reader, size int64, attrs object.Attrs) error {
	if strings.Contains(key, f.in) {
		return f.err
	}
	return f.Store.Put(ctx, key, body, size, attrs)
}

func TestWhatAStoreDoesWrong(t *testing.T) {
	rs := []sink.Record{{Data: []byte("1"), Time: at}, {Data: []byte("2"), Time: at.Add(time.Hour)}, {Data: []byte("3"), Time: at}}
	away := errors.New("away")
	err := open(t, objects.Config{Store: failing{object.NewMem(), "/19/", away}}).Send(t.Context(), rs)
	var p *sink.PartialError
	if !errors.As(err, &p) || !slices.EqualFunc(p.Failed, []int{0, 2}, func(f sink.Failed, i int) bool { return f.Index == i && errors.Is(f.Err, away) }) {
		t.Errorf("one hour is refused: %v", err)
	}
	err = open(t, objects.Config{Store: failing{object.NewMem(), "", away}}).Send(t.Context(), rs)
	if none := new(sink.PartialError); !errors.Is(err, away) || errors.As(err, &none) || myrmidon.IsPermanent(err) {
		t.Errorf("all are refused: %v", err)
	}
	err = open(t, objects.Config{Store: failing{object.NewMem(), "/20/", myrmidon.Permanent(away)}}).Send(t.Context(), rs)
	if !myrmidon.IsPermanent(err) {
		t.Errorf("the store is full: %v", err)
	}
	if _, err := objects.New(objects.Config{Store: object.NewMem(), Prefix: "a//b"}); !myrmidon.IsPermanent(err) {
		t.Errorf("a prefix that no key has: %v", err)
	}
}
