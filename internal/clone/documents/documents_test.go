package documents

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon/object"
)

func store(t *testing.T, docs map[string]string) *object.Mem {
	t.Helper()
	s := object.NewMem()
	for key, text := range docs {
		if err := s.Put(t.Context(), key, strings.NewReader(text), int64(len(text)), object.Attrs{}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestRequestsAreReadInEachShape(t *testing.T) {
	want := Request{ID: "7", Source: Side{Name: "a"}, Destination: Side{Name: "b"}}
	for name, c := range map[string]struct {
		folder, text string
		want         Request
	}{
		"the article's":          {"7", `{"id":"7","source":{"name":"a"},"destination":{"name":"b"}}`, want},
		"its long key":           {"7-a-b", `{"id":"7","source":{"name":"a"},"destination":{"name":"b"}}`, want},
		"an id without quotes":   {"7", `{"id":7,"source":{"name":"a"},"destination":{"name":"b"}}`, want},
		"from PowerShell":        {"7", "\xef\xbb\xbf" + `{"id":"7","source":{"name":"a"},"destination":{"name":"b"}}` + "\r\n", want},
		"with what we know not":  {"7", `{"id":"7","source":{"name":"a","color":"red"},"destination":{"name":"b"},"x":[1]}`, want},
		"deeper in the bucket":   {"team/7", `{"id":"7","source":{"name":"a"},"destination":{"name":"b"}}`, want},
		"with region and a role": {"7", `{"id":"7","source":{"name":"a","prefix":"f/","region":"r","role":"arn:x"},"destination":{"name":"b"}}`, Request{"7", Side{Name: "a", Prefix: "f/", Region: "r", Role: "arn:x"}, Side{Name: "b"}}},
	} {
		got, err := Folder{store(t, map[string]string{c.folder + "/clone-request": c.text}), c.folder}.Request(t.Context())
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := (Folder{object.NewMem(), "7"}).Request(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no request: %v", err)
	}
}

func TestBadRequestsAreRefusedByKeyAndField(t *testing.T) {
	for name, c := range map[string]struct{ text, field string }{
		"nothing":              {"", ""},
		"no JSON":              {"<xml/>", ""},
		"a list":               {"[]", ""},
		"no id":                {`{"source":{"name":"a"},"destination":{"name":"b"}}`, "id"},
		"another's id":         {`{"id":"8","source":{"name":"a"},"destination":{"name":"b"}}`, "id"},
		"an id that is a list": {`{"id":[7],"source":{"name":"a"},"destination":{"name":"b"}}`, "id"},
		"no source":            {`{"id":"7","destination":{"name":"b"}}`, "source.name"},
		"no destination":       {`{"id":"7","source":{"name":"a"},"destination":{}}`, "destination.name"},
		"a bare name":          {`{"id":"7","source":"a","destination":{"name":"b"}}`, "source"},
		"a number for a name":  {`{"id":"7","source":{"name":1},"destination":{"name":"b"}}`, "source.name"},
		"a part of a bucket":   {`{"id":"7","source":{"name":"a","first":"k"},"destination":{"name":"b"}}`, "first"},
		"a secret":             {`{"id":"7","source":{"name":"a","credentials":{"secretAccessKey":"sesame"}},"destination":{"name":"b"}}`, "source.credentials"},
		"a secret deep down":   {`{"id":"7","source":{"name":"a","x":{"Session_Token":"sesame"}},"destination":{"name":"b"}}`, "source.x.Session_Token"},
	} {
		_, err := Folder{store(t, map[string]string{"7/clone-request": c.text}), "7"}.Request(t.Context())
		var bad *Error
		if !errors.As(err, &bad) || bad.Key != "7/clone-request" || !strings.Contains(bad.Field, c.field) || c.field == "" && bad.Field != "" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.Contains(err.Error(), "7/clone-request") || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResponsesAreReadInEachShape(t *testing.T) {
	want := SegmentResponse{ID: "7", Source: Side{Name: "a", Prefix: "f/"}, Destination: Side{Name: "b"}, Files: []Key{"f/1", "f/\xff"}}
	const files = `["f/1",{"bytes":"Zi//"}]`
	for name, text := range map[string]string{
		"the text's": `{"id":"7","source":{"name":"a","prefix":"f/"},"destination":{"name":"b"},"files":` + files + `}`,
		"the code's": `{"id":"7","source":{"name":"a","prefix":"f/"},"destination":{"name":"b","files":{"count":2,"files":` + files + `}}}`,
		"a mix":      `{"id":"7","source":{"name":"a","prefix":"f/"},"destination":{"name":"b"},"files":{"count":2,"files":` + files + `}}`,
	} {
		f := Folder{store(t, map[string]string{"7/f-segment-response": text}), "7"}
		got, err := f.SegmentResponse(t.Context(), "7/f-segment-request")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for text, field := range map[string]string{
		`{"destination":{"files":{"count":3,"files":["f/1"]}}}`: "files.count",
		`{"files":3}`:              "files",
		`{"files":[3]}`:            "a key",
		`{"failed":{"key":"f/1"}}`: "failed",
	} {
		f := Folder{store(t, map[string]string{"7/f-segment-response": text}), "7"}
		_, err := f.SegmentResponse(t.Context(), "7/f-segment-request")
		var bad *Error
		if !errors.As(err, &bad) || bad.Key != "7/f-segment-response" || bad.Field != field {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The article's code writes nothing but the segments.
func TestManifestsAreReadInEachShape(t *testing.T) {
	f := Folder{store(t, map[string]string{
		"7/clone-response": `{"segments":{"count":2,"values":["7/a-segment-request","7/b-segment-request"]}}`,
	}), "7"}
	r, err := f.Response(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := f.Segments(t.Context(), r)
	if want := []string{"7/a-segment-request", "7/b-segment-request"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("%q, %v", keys, err)
	}
	for field, s := range map[string]Segments{
		"segments.count":  {Count: 2, Values: []string{"7/a-segment-request"}},
		"segments.values": {Count: 1, Values: []string{"7/a"}},
	} {
		var bad *Error
		if _, err := f.Segments(t.Context(), Response{Segments: s}); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestNamesOfSegmentsDiffer(t *testing.T) {
	long := strings.Repeat("x", 300)
	folders := []string{"a", "ab", "a/b", "a-b", "a!b", "A", "a b", "a%20b", "ä", "a\u0308", "\xff", long, long + "y", strings.Repeat("é", 100), "a!-b"}
	seen := make(map[string]string)
	put := func(what, name string) {
		if was, twice := seen[name]; twice {
			t.Errorf("%s and %s are both %s", was, what, name)
		}
		seen[name] = what
		if len(name) > maxName || object.CheckKey("ID/"+name+segmentRequest) != nil {
			t.Errorf("%q cannot be a name", name)
		}
		for _, c := range []byte(name) {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-!", rune(c)) {
				t.Errorf("%q has the byte %q", name, c)
			}
		}
	}
	for _, a := range folders {
		put("the folder "+a, PrefixName(a))
		for _, b := range folders {
			put("from "+a+" to "+b, RangeName(a, b))
		}
	}
	if got := PrefixName("films"); got != "films" { // as the article names it
		t.Error(got)
	}
}

func TestAManifestIsWholeWhenTheLastShardIsSealed(t *testing.T) {
	ctx := t.Context()
	f := Folder{object.NewMem(), "7"}
	whole := func(want bool) Segments {
		t.Helper()
		s, all, err := f.Planned(ctx, "RUN", true)
		if err != nil || all != want {
			t.Fatalf("all is %t, %v", all, err)
		}
		return s
	}
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	whole(false)
	do(f.PutPage(ctx, "RUN", 0, 0, []string{"a"}), f.PutOpen(ctx, "RUN", 5))
	whole(false)
	do(f.PutSealed(ctx, "RUN", 5))
	whole(false) // the first one is under way
	do(f.PutOpen(ctx, "RUN", 9), f.PutSealed(ctx, "RUN", 0))
	whole(false)
	do(f.PutPage(ctx, "RUN", 9, 0, []string{"b", "c"}), f.PutSealed(ctx, "RUN", 9))
	do(f.PutPage(ctx, "OTHER", 0, 0, []string{"z"}))
	if diff := cmp.Diff(Segments{Count: 3, Values: []string{"7/a-segment-request", "7/b-segment-request", "7/c-segment-request"}}, whole(true)); diff != "" {
		t.Error(diff)
	}
	many := make([]string, MaxInline)
	for i := range many {
		many[i] = fmt.Sprintf("s%05d", i)
	}
	do(f.PutPage(ctx, "RUN", 9, 4, many))
	s := whole(true)
	if s.Count != MaxInline+3 || s.Values != nil || len(s.Pages) != 3 {
		t.Errorf("%d segments, %d values, pages %q", s.Count, len(s.Values), s.Pages)
	}
	keys, err := f.Segments(ctx, Response{Segments: s})
	if err != nil || len(keys) != s.Count || keys[0] != "7/a-segment-request" || keys[s.Count-1] != "7/s00999-segment-request" {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// counted counts pages.
type counted struct {
	*object.Mem
	n int
}

func (c *counted) Page(ctx context.Context, prefix, after string, most int) ([]object.Info, bool, error) {
	c.n++
	return c.Mem.Page(ctx, prefix, after, most)
}

func TestRequestsAreFoundAmongMuchElse(t *testing.T) {
	docs := map[string]string{"top": "", "none/x": "", "small/clone-request": "", "ends/clone-response": "", "answered/clone-request": "", "answered/clone-response": ""}
	for i := range 5000 {
		docs[fmt.Sprintf("large/%04d-segment-request", i)] = ""
		docs[fmt.Sprintf("large/z%04d-segment-request", i)] = ""
		docs[fmt.Sprintf("mute/%04d", i)] = ""
	}
	docs["large/clone-request"], docs["large/clone-response"], docs["large/clone-response-pages/R/00000000/sealed"] = "", "", ""
	s := &counted{Mem: store(t, docs)}
	var got []Found
	if err := Find(t.Context(), s, func(f Found) error { got = append(got, f); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []Found{{"answered", true}, {"large", true}, {"small", false}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s.n > 7 {
		t.Errorf("%d requests", s.n)
	}
	failed := errors.New("no more")
	if err := Find(t.Context(), s, func(Found) error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add(`{"id":"7","source":{"name":"a"},"destination":{"name":"b"}}`)
	f.Add(`{"id":7,"source":{"name":"a","prefix":{"bytes":"/w=="}},"destination":{"name":"b"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := readRequest("7/clone-request", []byte(text))
		var bad *Error
		if err != nil && (!errors.As(err, &bad) || bad.Key == "") {
			t.Errorf("%v", err)
		}
		if err == nil && (r.ID == "" || r.Source.Name == "" || r.Destination.Name == "") {
			t.Errorf("%+v", r)
		}
	})
}
