package elastic_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/sink"
	"myrmidon/sink/elastic"
)

// stored stores n documents of each object, a second apart.
func stored(t *testing.T, s *elastic.Sink, n int, objects ...string) {
	t.Helper()
	var rs []sink.Record
	for _, o := range objects {
		for i := range n {
			at := time.Date(2026, 11, 20, 12, 0, i, 999_000, time.UTC)
			id := fmt.Sprintf("%s-%d", o, i)
			rs = append(rs, sink.Record{ID: id, Data: fmt.Appendf(nil, `{"@timestamp":%q,"id":%q,"object":%q}`, at.Format(time.RFC3339Nano), id, o)})
		}
	}
	if err := s.Send(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
}

func groups(t *testing.T, s *elastic.Sink, field string, q elastic.Query) (out []string) {
	t.Helper()
	for g, err := range s.Groups(t.Context(), field, q) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s=%d", g.Value, g.Documents))
	}
	return out
}

func TestDocumentsAreCountedByAnExactField(t *testing.T) {
	for _, keywords := range [][]string{nil, {"object", "id"}} {
		bulk := sinkfault.NewBulk(nil)
		bulk.Keywords = keywords
		s := serve(t, bulk, elastic.Config{})
		long := "b/" + strings.Repeat("x", 300)
		stored(t, s, 3, "a/2", "a/1", "b/1", long)
		if f, err := s.Exact(t.Context(), "object"); f != "" || err != nil {
			t.Errorf("before a refresh: %q, %v", f, err)
		}
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		field, err := s.Exact(t.Context(), "object")
		if want := map[bool]string{true: "object.keyword", false: "object"}[keywords == nil]; field != want || err != nil {
			t.Fatalf("Exact: %q, %v; want %q", field, err, want)
		}
		got := strings.Join(groups(t, s, field, elastic.Query{}), " ")
		want := "a/1=3 a/2=3 b/1=3"
		if keywords != nil {
			want += " " + long + "=3"
		}
		if got != want {
			t.Errorf("%v: %s, want %s", keywords, got, want)
		}
		at := time.Date(2026, 11, 20, 12, 0, 1, 0, time.UTC)
		q := elastic.Query{Field: field, Prefix: "a/", Since: at, Until: at.Add(time.Second)}
		if got := strings.Join(groups(t, s, field, q), " "); got != "a/1=1 a/2=1" {
			t.Errorf("of a second: %s", got)
		}
		if n, err := s.Count(t.Context(), elastic.Query{Field: field, Prefix: "a/1", Whole: true}); n != 3 || err != nil {
			t.Errorf("Count: %d, %v", n, err)
		}
		id, err := s.Exact(t.Context(), "id")
		if err != nil {
			t.Fatal(err)
		}
		stored(t, s, 1, "zz")
		if n, err := s.Count(t.Context(), elastic.Query{Field: id, Prefix: "zz-"}); n != 0 || err != nil {
			t.Errorf("what was not refreshed is found: %d, %v", n, err)
		}
	}
}

func TestMoreGroupsThanAPageHas(t *testing.T) {
	bulk := sinkfault.NewBulk(nil)
	s := serve(t, bulk, elastic.Config{})
	var objects []string
	for i := range 2001 {
		objects = append(objects, fmt.Sprintf("o%05d", i))
	}
	stored(t, s, 1, objects...)
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := bulk.Requests()
	got := groups(t, s, "object.keyword", elastic.Query{})
	if len(got) != 2001 || got[2000] != "o02000=1" || bulk.Requests()-before < 3 {
		t.Errorf("%d groups by %d requests", len(got), bulk.Requests()-before)
	}
}

func TestACountThatIsNotWholeIsAnError(t *testing.T) {
	var call sinkfault.Call
	bulk := sinkfault.NewBulk(func(int) sinkfault.Call { return call })
	s := serve(t, bulk, elastic.Config{})
	stored(t, s, 1, "a")
	call.Shards = 2
	if err := s.Refresh(t.Context()); err == nil {
		t.Error("a refresh of some shards is taken for one of all")
	}
	call = sinkfault.Call{Status: 403, Error: "security_exception"}
	if err := s.Refresh(t.Context()); !errors.Is(err, elastic.ErrDenied) || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
		t.Error(err)
	}
	call = sinkfault.Call{Status: 404, Error: "index_not_found_exception"}
	if _, err := s.Count(t.Context(), elastic.Query{}); !myrmidon.IsPermanent(err) || errors.Is(err, elastic.ErrDenied) {
		t.Error(err)
	}
}

func TestAPatternCanBeCountedOnly(t *testing.T) {
	cfg := elastic.Config{URL: "http://127.0.0.1:1", Index: "logstash-*", Counted: true}
	s, err := elastic.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(t.Context(), records(1)); !myrmidon.IsPermanent(err) {
		t.Error(err)
	}
}

func TestARefusedNameIsToldWhatIsWrongWithIt(t *testing.T) {
	for _, c := range []struct {
		index   string
		counted bool
		want    string // "" means that it is taken
	}{
		{"a*,b", true, ""},
		{"a*", false, `have none of / \ * ? " < > | , # and space`},
		{"a b*", true, `have none of / \ ? " < > | # and space`},
	} {
		_, err := elastic.New(elastic.Config{URL: "http://h:9200", Index: c.index, Counted: c.counted})
		if (err == nil) != (c.want == "") || err != nil && !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.index, err, c.want)
		}
	}
}
