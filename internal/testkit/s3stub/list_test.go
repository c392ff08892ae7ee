package s3stub

import (
	"encoding/xml"
	"fmt"
	"math/rand/v2"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// result is a listing as encoding/xml reads it.
type result struct {
	Name, Prefix, Delimiter, Marker, NextMarker, StartAfter string
	NextContinuationToken                                   string
	KeyCount, MaxKeys                                       int
	IsTruncated                                             bool
	Contents                                                []struct {
		Key, ETag, StorageClass string
		LastModified            time.Time
		Size                    int64
		Owner                   struct{ ID string }
	}
	CommonPrefixes []struct{ Prefix string }
}

// page asks for one page. Parameters are names and values, in turns.
func page(t testing.TB, s *Server, bucket string, params ...string) result {
	t.Helper()
	v := url.Values{"encoding-type": {"url"}}
	for i := 0; i < len(params); i += 2 {
		v.Set(params[i], params[i+1])
	}
	a := ask(t, s, 200, "GET", "/"+bucket+"?"+strings.ReplaceAll(v.Encode(), "+", "%20"), "")
	var r result
	if err := xml.Unmarshal([]byte(a.body), &r); err != nil {
		t.Fatal(err)
	}
	for i, o := range r.Contents {
		r.Contents[i].Key = decoded(t, o.Key)
	}
	for i, p := range r.CommonPrefixes {
		r.CommonPrefixes[i].Prefix = decoded(t, p.Prefix)
	}
	r.NextMarker = decoded(t, r.NextMarker)
	return r
}

func decoded(t testing.TB, key string) string {
	t.Helper()
	out, ok := unescape(key, true)
	if !ok {
		t.Fatalf("a listing holds %q", key)
	}
	return out
}

// all lists to the end, page by page, and returns the number of pages and what they
// hold: keys, and common prefixes behind "P ".
func all(t testing.TB, s *Server, bucket string, v2 bool, prefix, after, delimiter string, most int) (pages int, out []string) {
	t.Helper()
	params := []string{"prefix", prefix, "delimiter", delimiter, "max-keys", strconv.Itoa(most)}
	first := append(params, "marker", after)
	if v2 {
		params = append(params, "list-type", "2")
		first = append(params, "start-after", after)
	}
	for ask := first; ; {
		r := page(t, s, bucket, ask...)
		pages++
		last := after
		var here []string
		for _, o := range r.Contents {
			here, last = append(here, o.Key), o.Key
		}
		for _, p := range r.CommonPrefixes {
			here = append(here, "P "+p.Prefix)
		}
		if len(here) > most || v2 && r.KeyCount != len(here) {
			t.Fatalf("a page of %d, KeyCount %d, at most %d", len(here), r.KeyCount, most)
		}
		out = append(out, here...)
		if !r.IsTruncated {
			return pages, out
		}
		if len(here) < most {
			t.Fatalf("a truncated page of %d, not %d", len(here), most)
		}
		switch {
		case v2:
			ask = append(params, "continuation-token", r.NextContinuationToken)
		case delimiter != "":
			ask = append(params, "marker", r.NextMarker)
		default:
			ask = append(params, "marker", last)
		}
	}
}

// expect is what a listing of keys must give, by the words of the API reference.
func expect(keys []string, prefix, after, delimiter string) (out []string) {
	groups := make(map[string]bool)
	for _, key := range keys {
		if key <= after || !strings.HasPrefix(key, prefix) {
			continue
		}
		if i := strings.Index(key[len(prefix):], delimiter); delimiter != "" && i >= 0 {
			if p := key[:len(prefix)+i+len(delimiter)]; !groups[p] {
				groups[p] = true
				out = append(out, "P "+p)
			}
			continue
		}
		out = append(out, key)
	}
	return out
}

func TestListingsOfRandomKeys(t *testing.T) {
	s := New(t, Config{})
	r := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "b", "/", "//", "ab", "ä", "\U0010ffff", "\x01", " ", "+", "%", "&", "z"}
	for round := range 40 {
		name := fmt.Sprintf("b%d", round)
		if err := s.AddBucket(name); err != nil {
			t.Fatal(err)
		}
		var keys []string
		word := func(n int) (out string) {
			for range n {
				out += letters[r.IntN(len(letters))]
			}
			return out
		}
		for range 1 + r.IntN(60) {
			if key := word(1 + r.IntN(5)); !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		for _, key := range keys {
			if err := s.PutObject(name, Object{Key: key}, []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(keys)
		for range 12 {
			prefix, after, delimiter := word(r.IntN(2)), word(r.IntN(3)), []string{"", "/", "a", "//"}[r.IntN(4)]
			v2, most := r.IntN(2) == 0, 1+r.IntN(8)
			if q := (&listing{prefix: prefix, delimiter: delimiter}); !v2 {
				if p, is := q.common(after); is && p == after {
					after = "" // such a marker is one of a former page
				}
			}
			want := expect(keys, prefix, after, delimiter)
			_, got := all(t, s, name, v2, prefix, after, delimiter, most)
			slices.Sort(want)
			slices.Sort(got) // within a page, prefixes come after keys
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("prefix %q after %q delimiter %q by %d, v2 %v, of %q (-want +got):\n%s", prefix, after, delimiter, most, v2, keys, d)
			}
		}
	}
}

func TestPagesOfTheReference(t *testing.T) {
	s := withBucket(t, Config{})
	for i := range 1001 {
		if err := s.PutObject("b", Object{Key: fmt.Sprintf("%04d", i), Modified: time.Unix(1e9, 0)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	r := page(t, s, "b", "list-type", "2", "max-keys", "5000", "fetch-owner", "true")
	if len(r.Contents) != 1000 || r.MaxKeys != 1000 || !r.IsTruncated || r.Contents[0].Owner.ID == "" {
		t.Errorf("%d keys of at most %d, truncated %v, owner %q", len(r.Contents), r.MaxKeys, r.IsTruncated, r.Contents[0].Owner.ID)
	}
	if o := r.Contents[7]; !o.LastModified.Equal(time.Unix(1e9, 0)) || o.ETag != `"`+hexMD5(nil)+`"` || o.StorageClass != "STANDARD" || o.Key != "0007" {
		t.Errorf("an entry: %+v", o)
	}
	if r := page(t, s, "b", "list-type", "2", "max-keys", "0"); len(r.Contents) != 0 || r.IsTruncated {
		t.Errorf("a page of nothing: %d keys, truncated %v", len(r.Contents), r.IsTruncated)
	}
	if r := page(t, s, "b", "list-type", "2", "start-after", "0999"); len(r.Contents) != 1 || r.IsTruncated {
		t.Errorf("the last page: %d keys, truncated %v", len(r.Contents), r.IsTruncated)
	}
	wantCode(t, s, 400, "InvalidArgument", "GET", "/b?list-type=2&max-keys=-1", "")
	wantCode(t, s, 400, "InvalidArgument", "GET", "/b?list-type=2&max-keys=many", "")
	wantCode(t, s, 400, "InvalidArgument", "GET", "/b?list-type=2&continuation-token=none", "")
	wantCode(t, s, 400, "InvalidArgument", "GET", "/b?encoding-type=base64", "")
	wantCode(t, s, 404, "NoSuchBucket", "GET", "/none", "")
	wantCode(t, s, 501, "NotImplemented", "GET", "/b?versions=", "")
}

// A synthetic bucket lists as one whose objects are stored, also after changes.
func TestASyntheticBucketIsLikeAStoredOne(t *testing.T) {
	const n = 300
	key := func(b []byte, i int) []byte { return fmt.Appendf(b, "%c/%d/%03d", 'a'+i/100, i/10%10, i) }
	s := withBucket(t, Config{})
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := s.AddSynthetic("syn", Synthetic{N: n, Key: key, Size: 3000, PartSize: 1000}); err != nil {
		t.Fatal(err)
	}
	data := bytesOf(pattern{0, 3000})
	for i := range n {
		if err := s.PutObject("b", Object{Key: string(key(nil, i)), Modified: at, Parts: []int64{1000, 1000, 1000}}, data); err != nil {
			t.Fatal(err)
		}
	}
	compare := func() {
		t.Helper()
		for _, q := range []string{
			"list-type=2", "list-type=2&fetch-owner=true&max-keys=17", "delimiter=%2F", "list-type=2&prefix=b%2F&delimiter=%2F", "list-type=2&start-after=b%2F4%2F142",
			"marker=a%2F9%2F099x", "prefix=c%2F9%2F29", "list-type=2&prefix=zz", "list-type=2&start-after=c%2F9%2F299",
		} {
			syn, stored := ask(t, s, 200, "GET", "/syn?"+q, ""), ask(t, s, 200, "GET", "/b?"+q, "")
			if d := cmp.Diff(stored.body, strings.Replace(syn.body, "<Name>syn<", "<Name>b<", 1)); d != "" {
				t.Errorf("%s (-stored +synthetic):\n%s", q, d)
			}
		}
		if s.Len("syn") != s.Len("b") {
			t.Errorf("%d synthetic, %d stored", s.Len("syn"), s.Len("b"))
		}
	}
	compare()
	for _, k := range []string{"a/0/000", "b/4/143", "c/9/299", "b/4/144"} {
		ask(t, s, 204, "DELETE", "/syn/"+k, "")
		ask(t, s, 204, "DELETE", "/b/"+k, "")
	}
	compare()
	for _, k := range []string{"a/0/000", "b/4/145", "0", "b/4/145x", "z"} {
		for _, b := range []string{"syn", "b"} {
			if err := s.PutObject(b, Object{Key: k, Modified: at}, []byte("other")); err != nil {
				t.Fatal(err)
			}
		}
	}
	compare()
	syn, stored := ask(t, s, 200, "GET", "/syn/b/0/101", ""), ask(t, s, 200, "GET", "/b/b/0/101", "")
	for _, h := range []string{"X-Amz-Request-Id", "Date"} {
		syn.header.Del(h)
		stored.header.Del(h)
	}
	if d := cmp.Diff(stored.header, syn.header); d != "" || syn.body != stored.body {
		t.Errorf("GET (-stored +synthetic):\n%s", d)
	}
}

func TestASyntheticBucketTakesNoMemory(t *testing.T) {
	s := New(t, Config{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	set := Synthetic{N: 10_000_000, Key: Numbered("obj-", 8, ".ts"), Size: 100}
	if err := s.AddSynthetic("many", set); err != nil {
		t.Fatal(err)
	}
	if err := s.AddMirror("copy", set, "p/"); err != nil {
		t.Fatal(err)
	}
	for _, after := range []string{"", "obj-04999999.ts", "obj-09999998.ts"} {
		r := page(t, s, "many", "list-type", "2", "start-after", after)
		want := 0
		if after != "" {
			n, err := strconv.Atoi(after[4:12])
			if err != nil {
				t.Fatal(err)
			}
			want = n + 1
		}
		if got := r.Contents[0].Key; got != fmt.Sprintf("obj-%08d.ts", want) || len(r.Contents) != min(1000, set.N-want) {
			t.Errorf("after %q: %d keys from %q on", after, len(r.Contents), got)
		}
	}
	ask(t, s, 200, "PUT", "/copy/p/obj-09999999.ts", "", "x-amz-copy-source", "many/obj-09999999.ts")
	runtime.GC()
	runtime.ReadMemStats(&after)
	// Two bits an object for the mirror, and what HTTP keeps.
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 6<<20 {
		t.Errorf("ten million objects take %d KiB", grown>>10)
	}
	runtime.KeepAlive(s)
}

func TestKeysThatDoNotAscendAreRefused(t *testing.T) {
	s := New(t, Config{})
	for name, set := range map[string]Synthetic{
		"more keys than digits":          {N: 11, Key: Numbered("", 1, "")},
		"many more keys than digits":     {N: 100_000, Key: Numbered("", 4, "x")},
		"numbers without leading zeros":  {N: 5000, Key: func(b []byte, i int) []byte { return strconv.AppendInt(b, int64(i), 10) }},
		"one key for two neighbours":     {N: 1000, Key: func(b []byte, i int) []byte { return Numbered("", 4, "")(b, i/2) }},
		"keys that fall from 1,000 to 0": {N: 1001, Key: func(b []byte, i int) []byte { return Numbered("", 4, "")(b, 1000-i) }},
	} {
		if err := s.AddSynthetic("b", set); err == nil || !strings.Contains(err.Error(), "ascend") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 1000 {
		if got, want := string(Numbered("a", 3, "z")(nil, i)), fmt.Sprintf("a%03dz", i); got != want {
			t.Fatalf("key %d is %q, want %q", i, got, want)
		}
	}
}

func TestAMirrorTellsWhatArrived(t *testing.T) {
	s := withBucket(t, Config{MinPart: 1})
	set := Synthetic{N: 100, Key: Numbered("k", 3, ""), Size: 200, PartSize: 100}
	for _, err := range []error{s.AddSynthetic("from", set), s.AddMirror("to", set, "p/")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if r := page(t, s, "to", "list-type", "2"); len(r.Contents) != 0 {
		t.Fatalf("a new mirror lists %d", len(r.Contents))
	}
	k := sdkClient(s, "")
	copyParts(t, k, "from/k000", "to", "p/k000", 200, 100)
	copyParts(t, k, "from/k002", "to", "p/k002", 200, 100)
	copyParts(t, k, "from/k002", "to", "p/k002", 200, 100) // again
	// One request makes another ETag, so it is kept as an object.
	ask(t, s, 200, "PUT", "/to/p/k001", "", "x-amz-copy-source", "from/k001")
	ask(t, s, 200, "PUT", "/to/p/k004", "other bytes")
	ask(t, s, 200, "PUT", "/to/p/other", "x")
	if d := cmp.Diff([]string{"p/k000", "p/k001", "p/k002", "p/k004", "p/other"}, s.Keys("to")); d != "" {
		t.Errorf("keys (-want +got):\n%s", d)
	}
	got := s.Arrivals("to")
	want := Arrivals{Objects: 3, Again: 1, Wrong: 1, Twice: []string{"p/k002"}}
	for _, i := range []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12} {
		want.Missing = append(want.Missing, fmt.Sprintf("p/k%03d", i))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("arrived (-want +got):\n%s", d)
	}
	from, _ := s.Object("from", "k000")
	to, _ := s.Object("to", "p/k000")
	if from.ETag != to.ETag || !strings.HasSuffix(to.ETag, "-2") || !to.Modified.After(from.Modified) {
		t.Errorf("copied %+v to %+v", from, to)
	}
	data, _ := s.Data("to", "p/k002")
	if string(data) != string(bytesOf(pattern{0, 200})) {
		t.Error("the copy has other bytes")
	}
	ask(t, s, 204, "DELETE", "/to/p/k000", "")
	if d := cmp.Diff([]string{"p/k001", "p/k002", "p/k004", "p/other"}, s.Keys("to")); d != "" {
		t.Errorf("keys after a delete (-want +got):\n%s", d)
	}
	s.Reset()
	if got := s.Arrivals("to"); got.Objects != 0 || got.Again != 0 || s.Len("to") != 4 {
		t.Errorf("after a reset: %+v, %d objects", got, s.Len("to"))
	}
}

func TestPresence(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 63, 64, 65, 200} {
		for _, full := range []bool{false, true} {
			p, want := presence{full: full}, make(map[int]bool)
			for i := range n {
				if full {
					want[i] = true
				}
			}
			for range 300 {
				i := r.IntN(n)
				if r.IntN(2) == 0 {
					p.set(i, n)
					want[i] = true
				} else {
					p.clear(i, n)
					delete(want, i)
				}
				got := 0
				for j := p.next(0, n); j < n; j = p.next(j+1, n) {
					if !want[j] || !p.has(j) {
						t.Fatalf("of %d: %d is a member and should not be", n, j)
					}
					got++
				}
				if got != len(want) || p.count(n) != len(want) {
					t.Fatalf("of %d: %d members, counted %d, want %d", n, got, p.count(n), len(want))
				}
			}
		}
	}
}
