package clone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/object"
)

// parts are those of a list.
type parts map[string][]byte

func (p parts) put(part string, data []byte) error {
	p[part] = bytes.Clone(data)
	return nil
}

func (p parts) read(_ context.Context, _ string, _ List, part string) ([]byte, error) {
	if data, ok := p[part]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

// keys are those of all pages.
func (p parts) keys(t *testing.T) (out []string) {
	t.Helper()
	for i := range len(p) - 1 {
		page, err := unpackKeys(p[strconv.Itoa(i)])
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > listKeys {
			t.Errorf("page %d has %d keys", i, len(page))
		}
		out = append(out, page...)
	}
	return out
}

func TestListsAreSortedAndHaveEachKeyOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for name, tt := range map[string]struct {
		keys, most int
	}{
		"nothing":             {0, sortMemory},
		"in memory":           {30_000, sortMemory},
		"in a few files":      {30_000, 100_000},
		"in more than are at": {30_000, 3000}, // merged in steps
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			g := &Gathered{keys: &sorter{dir: dir, most: tt.most}}
			all := make(map[string]bool)
			for range tt.keys {
				key := strconv.Itoa(random.IntN(20_000)) + strings.Repeat("/\xff\n", random.IntN(20))
				all[key] = true
				if err := g.keys.add([]byte(key)); err != nil {
					t.Fatal(err)
				}
			}
			kept := make(parts)
			n, err := g.Keep(kept.put)
			if err != nil || n != int64(len(all)) {
				t.Errorf("%d keys, want %d; %v", n, len(all), err)
			}
			if diff := cmp.Diff(slices.Sorted(maps.Keys(all)), kept.keys(t)); diff != "" {
				t.Error(diff[:min(len(diff), 500)])
			}
			if left, _ := os.ReadDir(dir); len(left) > sortFiles+1 {
				t.Errorf("%d files are left", len(left))
			}
		})
	}
}

func TestWhatALineStandsFor(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		zero bool
		want []string
		bad  string
	}{
		"keys":                         {"b\na\n", false, []string{"a", "b"}, ""},
		"no end of line":               {"b\na", false, []string{"a", "b"}, ""},
		"empty lines":                  {"\n\na\n\n", false, []string{"a"}, ""},
		"lines of Windows":             {"a\r\nb\r\n", false, []string{"a", "b"}, ""},
		"spaces are the key's":         {" a \n", false, []string{" a "}, ""},
		"a report":                     {`{"key":"a\nb","size":3}` + "\n" + `{"size":1,"key":"c"}`, false, []string{"a\nb", "c"}, ""},
		"a key that is no text":        {`{"key":{"bytes":"//79"}}`, false, []string{"\xff\xfe\xfd"}, ""},
		"what only begins like JSON":   {"{a\n{}x", false, []string{"{a", "{}x"}, ""},
		"JSON of another kind":         {"a\n" + `{"name":"x"}`, false, nil, "line 2"},
		"a key that is a number":       {`{"key":5}`, false, nil, "line 1"},
		"between NUL bytes":            {"b\n\x00\x00a\r\x00" + `{"key":"x"}`, true, []string{"a\r", "b\n", `{"key":"x"}`}, ""},
		"NUL bytes taken for lines":    {strings.Repeat("some/key\x00", 1000), false, nil, "line 1"},
		"a line that is no key at all": {strings.Repeat("x", 2*maxLine), false, nil, "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := Gather(strings.NewReader(tt.text), tt.zero, t.TempDir())
			if tt.bad != "" {
				if !myrmidon.IsPermanent(err) || !strings.Contains(err.Error(), tt.bad) || myrmidon.Hint(err) == "" {
					t.Errorf("%v (%s), want an error about %s", err, myrmidon.Hint(err), tt.bad)
				}
				return
			}
			kept := make(parts)
			if err == nil {
				_, err = g.Keep(kept.put)
			}
			if got := kept.keys(t); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func FuzzPagesOfLists(f *testing.F) {
	good, err := pack(appendKey(appendKey(nil, []byte("a/b")), []byte("\xff")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("no gzip"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := unpackKeys(data); err != nil && !myrmidon.IsPermanent(err) {
			t.Errorf("%v is not permanent", err)
		}
	})
}

func TestPartsAreKeptInAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "list")
	if err := KeepIn(dir)("0", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadIn(dir, "0"); string(data) != "x" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := ReadIn(dir, "head"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a part that is not there: %v", err)
	}
}

// listDrive is a drive with a list.
func listDrive(t *testing.T, spec Spec, all map[string]object.Store, keys ...string) *drive {
	t.Helper()
	g, err := Gather(strings.NewReader(strings.Join(keys, "\x00")), true, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kept := make(parts)
	if _, err := g.Keep(kept.put); err != nil {
		t.Fatal(err)
	}
	spec.List = &List{}
	d := newDrive(t, spec, all)
	d.workload = Workload(Config{Open: func(a string) (object.Store, error) { return all[a], nil }, ReadList: kept.read})
	return d
}

func TestAListIsClonedAndNothingElse(t *testing.T) {
	src, dst, all := stores()
	keys := manyKeys(30_000, "films/%06d")
	put(t, src, nil, keys...)
	put(t, src, nil, "\xff\xfe", "unlisted")
	put(t, dst, nil, keys[100:200]...)
	put(t, dst, func(string) string { return "of another size" }, keys[300])
	from, to := &pages{Store: src}, &pages{Store: dst}
	all["src"], all["dst"] = from, to
	d := listDrive(t, Spec{Source: "src", Destination: "dst", Verify: VerifyETag}, all, append(keys[:25_000:25_000], "\xff\xfe", "nowhere", keys[7])...)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := contents(t, dst)
	if _, there := got["\xff\xfe"]; len(got) != 25_001 || !there || got[keys[300]] != keys[300] {
		t.Errorf("%d objects are there", len(got))
	}
	if sum := Summary(d.notes); sum.Listed != 25_002 || sum.Skipped != 100 || len(d.keys("copy")) != 24_901 || sum.Alike < 24_000 {
		t.Errorf("%+v, %d copied", sum, len(d.keys("copy")))
	}
	if f := d.failed["nowhere"]; len(d.failed) != 1 || f == nil || !f.Permanent || f.Hint == "" {
		t.Errorf("failed: %v", d.failed)
	}
	if d.shards < 4 {
		t.Errorf("%d shards", d.shards)
	}
	if from.n > 2*40 || to.n > 2*40 { // each of the two phases
		t.Errorf("%d and %d listings", from.n, to.n)
	}
}

func TestFiltersHoldForLists(t *testing.T) {
	for _, listable := range []bool{true, false} {
		src, dst, all := stores()
		keys := manyKeys(100, "k%02d")
		put(t, src, func(k string) string { return strings.Repeat("x", int(k[2]-'0')) }, keys...)
		if !listable { // then the jobs find out
			all["src"], all["dst"] = struct{ object.Store }{src}, struct{ object.Store }{dst}
		}
		spec := Spec{Source: "src", Destination: "dst", Filter: Filter{MinSize: 7, Exclude: []string{"k1*"}}}
		d := listDrive(t, spec, all, keys...)
		if err := d.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, dst); len(got) != 27 || got["k19"] != "" || got["k07"] == "" {
			t.Errorf("listable %t: copied %q", listable, slices.Sorted(maps.Keys(got)))
		}
		var dry []string
		spec.Compare, spec.List = CompareNone, new(List)
		g, err := Gather(strings.NewReader(strings.Join(keys, "\n")), false, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		list := make(parts)
		if _, err := g.Keep(list.put); err != nil {
			t.Fatal(err)
		}
		cfg := Config{Open: func(a string) (object.Store, error) { return all[a], nil }, ReadList: list.read}
		sum, err := cfg.Diff(t.Context(), spec, func(x Difference) error {
			dry = append(dry, x.Key)
			return nil
		})
		if err != nil || len(dry) != 27 || !slices.IsSorted(dry) || sum.Left != 73 || sum.Copy != 27 {
			t.Errorf("listable %t: a dry run says %d: %+v, %v", listable, len(dry), sum, err)
		}
	}
}

func TestAListThatIsNotWholeIsSaid(t *testing.T) {
	_, _, all := stores()
	d := newDrive(t, Spec{Source: "src", Destination: "dst", List: &List{}}, all)
	d.workload = Workload(Config{Open: func(a string) (object.Store, error) { return all[a], nil }, ReadList: parts{"0": nil}.read})
	if err := d.run(t.Context()); !myrmidon.IsPermanent(err) || !strings.Contains(err.Error(), "not kept whole") || myrmidon.Hint(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsAskedForAsAListIsShortOrLong(t *testing.T) {
	src, dst, all := stores()
	keys := manyKeys(20_000, "k%05d")
	put(t, src, nil, keys...)
	put(t, dst, nil, keys[10_000:]...)
	from, to := &pages{Store: src}, &pages{Store: dst}
	all["src"], all["dst"] = from, to
	for name, tt := range map[string]struct {
		keys     []string
		src, dst int // listings, at most
	}{
		"three":                {[]string{keys[0], keys[9000], keys[19_999]}, 0, 1},
		"all":                  {keys, 25, 25},
		"every tenth":          {strided(keys, 10), 25, 25},
		"every five-hundredth": {strided(keys, 500), 1, 2},
	} {
		from.n, to.n = 0, 0
		d := listDrive(t, Spec{Source: "src", Destination: "dst"}, all, tt.keys...)
		if err := d.phase(t.Context(), phaseCopy); err != nil {
			t.Fatal(err)
		}
		if from.n > tt.src || to.n > tt.dst || len(d.failed) > 0 {
			t.Errorf("%s: %d and %d listings, at most %d and %d are due; failed %v", name, from.n, to.n, tt.src, tt.dst, d.failed)
		}
	}
}

func strided(keys []string, n int) (out []string) {
	for i := 0; i < len(keys); i += n {
		out = append(out, keys[i])
	}
	return out
}

func BenchmarkGather(b *testing.B) {
	var text bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintf(&text, "films/%07d/video/1080p/segment-00001.m4s\n", (i*7919)%1_000_000)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		g, err := Gather(bytes.NewReader(text.Bytes()), false, b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		if n, err := g.Keep(func(string, []byte) error { return nil }); n != 1_000_000 || err != nil {
			b.Fatal(n, err)
		}
	}
}
