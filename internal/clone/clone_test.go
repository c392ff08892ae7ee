package clone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/testkit/long"
	"myrmidon/object"
)

func stores() (src, dst *object.Mem, all map[string]object.Store) {
	src, dst = object.NewMem(), object.NewMem()
	return src, dst, map[string]object.Store{"src": src, "dst": dst}
}

func manyKeys(n int, format string) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf(format, i)
	}
	return keys
}

func TestCloneMakesTheDestinationLikeTheSource(t *testing.T) {
	src, dst, all := stores()
	put(t, src, nil, manyKeys(3500, "films/%05d/index.m3u8")...)
	put(t, src, nil, "a/b", "ab", "top", "films/ä", "films/z z+%")
	put(t, dst, func(string) string { return "older, and of another size" }, "top")
	put(t, dst, nil, "ab", "extra")
	d := newDrive(t, Spec{Source: "src", Destination: "dst", Delete: true, Verify: VerifyETag}, all)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents(t, src), contents(t, dst)); diff != "" {
		t.Error(diff)
	}
	if len(d.failed) > 0 {
		t.Errorf("failed: %v", d.failed)
	}
	sum := Summary(d.notes)
	// "ab" is alike; the listings of the copies vouch for them.
	want := Note{Listed: 3505, Bytes: sum.Bytes, Skipped: 1, Copy: 3504, Extra: 1, Alike: 3505}
	if diff := cmp.Diff(want, sum); diff != "" {
		t.Error(diff)
	}
	if got := d.keys("delete"); !slices.Equal(got, []string{"extra"}) {
		t.Errorf("deleted %q", got)
	}
	if got := len(d.keys("copy")); got != 3504 {
		t.Errorf("evidence of %d copies", got)
	}
	// Once more: there is nothing to do.
	again := newDrive(t, d.spec, all)
	if err := again.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := Summary(again.notes); again.jobs != 0 || s.Copy != 0 || s.Skipped != 3505 {
		t.Errorf("a second run has %d jobs: %+v", again.jobs, s)
	}
}

func TestWhatIsCopied(t *testing.T) {
	for name, tt := range map[string]struct {
		compare Compare
		filter  Filter
		want    []string
	}{
		"by time: what is new or of another size": {compare: CompareTime, want: []string{"new.mp4", "other-size"}},
		"by size":                       {compare: CompareSize, want: []string{"new.mp4", "other-size"}},
		"by ETag: what has other bytes": {compare: CompareETag, want: []string{"new.mp4", "other-bytes", "other-size"}},
		"all":                           {compare: CompareNone, want: []string{"new.mp4", "other-bytes", "other-size", "same"}},
		"only what is included":         {compare: CompareTime, filter: Filter{Include: []string{"*.mp4"}}, want: []string{"new.mp4"}},
		"not what is excluded":          {compare: CompareTime, filter: Filter{Exclude: []string{"*.mp4"}}, want: []string{"other-size"}},
		"large enough":                  {compare: CompareNone, filter: Filter{MinSize: 11}, want: []string{"other-bytes"}},
		"small enough":                  {compare: CompareNone, filter: Filter{MaxSize: 4}, want: []string{"same"}},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst, all := stores()
			put(t, src, nil, "same", "other-bytes", "other-size", "new.mp4")
			put(t, dst, nil, "same", "extra")
			put(t, dst, func(k string) string { return strings.ToUpper(k) }, "other-bytes")
			put(t, dst, func(k string) string { return "x" }, "other-size")
			d := newDrive(t, Spec{Source: "src", Destination: "dst", Compare: tt.compare, Filter: tt.filter}, all)
			var planned []string
			if _, err := (Config{Open: func(a string) (object.Store, error) { return all[a], nil }}).Diff(t.Context(), d.spec, func(x Difference) error {
				planned = append(planned, x.Key)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := d.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := d.keys("copy"); !slices.Equal(got, tt.want) || !slices.Equal(planned, tt.want) {
				t.Errorf("copied %q, a dry run says %q, want %q", got, planned, tt.want)
			}
			if _, ok := contents(t, dst)["extra"]; !ok {
				t.Error("something was deleted that nobody asked to delete")
			}
		})
	}
}

// What a listing does wrong must never look like objects that the source does not have.
func TestABadListingDeletesNothing(t *testing.T) {
	keys := manyKeys(2500, "k%05d")
	for name, change := range map[string]func(after string, page []object.Info, more bool) ([]object.Info, bool, error){
		"out of order": func(after string, page []object.Info, more bool) ([]object.Info, bool, error) {
			if after != "" && len(page) > 5 {
				page[2], page[4] = page[4], page[2]
			}
			return page, more, nil
		},
		"repeated": func(after string, page []object.Info, more bool) ([]object.Info, bool, error) {
			if after != "" && len(page) > 5 {
				page[3] = page[2]
			}
			return page, more, nil
		},
		"cut off by an error": func(after string, page []object.Info, more bool) ([]object.Info, bool, error) {
			if after != "" {
				return nil, false, errors.New("the connection broke")
			}
			return page, more, nil
		},
		"endless": func(after string, page []object.Info, more bool) ([]object.Info, bool, error) {
			if after != "" {
				return nil, true, nil
			}
			return page, more, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst, all := stores()
			put(t, src, nil, keys...)
			put(t, dst, nil, keys...)
			put(t, dst, nil, "k01999x", "zz")
			all["src"] = &pages{Store: src, change: change}
			d := newDrive(t, Spec{Source: "src", Destination: "dst", Delete: true}, all)
			if err := d.run(t.Context()); err == nil {
				t.Error("a bad listing was believed")
			}
			if n := len(contents(t, dst)); n != len(keys)+2 {
				t.Errorf("%d objects are left of %d", n, len(keys)+2)
			}
		})
	}
}

func TestMoreToDeleteThanIsAllowed(t *testing.T) {
	src, dst, all := stores()
	put(t, src, nil, "a")
	put(t, dst, nil, manyKeys(20, "x%d")...)
	d := newDrive(t, Spec{Source: "src", Destination: "dst", Delete: true, MaxDelete: 19}, all)
	err := d.run(t.Context())
	if !myrmidon.IsPermanent(err) || !strings.Contains(err.Error(), "20 objects") || myrmidon.Hint(err) == "" {
		t.Errorf("got %v", err)
	}
	if n := len(contents(t, dst)); n != 21 {
		t.Errorf("%d objects are left", n)
	}
	d = newDrive(t, Spec{Source: "src", Destination: "dst", Delete: true, MaxDelete: 20}, all)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(contents(t, dst)); n != 1 {
		t.Errorf("%d objects are left", n)
	}
}

// changing replaces an object between the listing and its copy.
type changing struct {
	*object.Mem
	at map[string]func()
}

func (c *changing) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, object.Info, error) {
	if f := c.at[key]; f != nil {
		f()
	}
	return c.Mem.Get(ctx, key, offset, length)
}

func TestObjectsThatChangeMeanwhile(t *testing.T) {
	src, dst, all := stores()
	put(t, src, nil, "changed", "gone", "still")
	put(t, dst, nil, "extra")
	all["src"] = &changing{src, map[string]func(){
		"changed": func() { put(t, src, func(string) string { return "new text" }, "changed") },
		"gone": func() {
			if err := src.Delete(context.Background(), "gone"); err != nil {
				t.Error(err)
			}
		},
	}}
	d := newDrive(t, Spec{Source: "src", Destination: "dst", Delete: true}, all)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(d.failed)); !slices.Equal(got, []string{"changed", "gone"}) {
		t.Errorf("failed: %q", got)
	}
	for key, f := range d.failed {
		if !f.Permanent || f.Hint == "" || !strings.Contains(f.Message, key) {
			t.Errorf("%s: %+v", key, f)
		}
	}
	// The others went on; nothing is deleted after failures.
	want := map[string]string{"still": "still", "extra": "extra"}
	if diff := cmp.Diff(want, contents(t, dst)); diff != "" {
		t.Error(diff)
	}
}

// A request for each thousand keys of each side, and hardly one more.
func TestRequestsOfAClone(t *testing.T) {
	long.Test(t)
	for name, tt := range map[string]struct {
		keys, there []string
		src, dst    int // at most
	}{
		"an empty destination": {manyKeys(7500, "p%03d/x"), nil, 15, 8},
		"one that has all":     {manyKeys(7500, "p%05d/x"), manyKeys(7500, "p%05d/x"), 15, 15},
		"one that has a tenth": {manyKeys(20_000, "obj-%08d"), manyKeys(2000, "obj-0000%d000"), 30, 20},
		"a small source":       {manyKeys(10, "k%d"), manyKeys(10, "k%d"), 1, 1},
		"an empty source":      {nil, nil, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst, all := stores()
			put(t, src, nil, tt.keys...)
			put(t, dst, nil, tt.there...)
			from, to := &pages{Store: src}, &pages{Store: dst}
			all["src"], all["dst"] = from, to
			d := newDrive(t, Spec{Source: "src", Destination: "dst"}, all)
			if err := d.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d keys: %d requests of the source, %d of the destination, %d shards", len(tt.keys), from.n, to.n, d.shards)
			if from.n > tt.src || to.n > tt.dst {
				t.Errorf("%d and %d requests, at most %d and %d are due", from.n, to.n, tt.src, tt.dst)
			}
			if n := len(contents(t, src)); n != len(tt.keys) && name != "one that has a tenth" {
				t.Errorf("%d keys", n)
			}
		})
	}
}

func TestKeysThatAreNoText(t *testing.T) {
	src, dst, all := stores()
	keys := []string{"\xff\xfe", "a\x01b", "ü", "\u0075\u0308", strings.Repeat("\x02", 1000), "a\nb", `"<>&\`}
	put(t, src, nil, keys...)
	put(t, src, nil, manyKeys(150, strings.Repeat("\x03", 900)+"%d")...)
	d := newDrive(t, Spec{Source: "src", Destination: "dst", Verify: VerifyRead}, all)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents(t, src), contents(t, dst)); diff != "" {
		t.Error(diff)
	}
	if got := len(d.keys("verify")); got != 157 || len(d.failed) > 0 {
		t.Errorf("%d verified, failed %v", got, d.failed)
	}
}

func TestVerifyFindsWhatDiffers(t *testing.T) {
	for _, how := range []Verify{VerifyETag, VerifyRead} {
		src, dst, all := stores()
		put(t, src, nil, "missing", "other", "same")
		put(t, dst, func(string) string { return "OTHER" }, "other")
		put(t, dst, nil, "same")
		d := newDrive(t, Spec{Source: "src", Destination: "dst", Verify: how}, all)
		if err := d.phase(t.Context(), phaseVerify); err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(d.failed)); !slices.Equal(got, []string{"missing", "other"}) {
			t.Errorf("%s: %q are found", how, got)
		}
	}
}

func TestAJobThatWasBegunBeforeCopiesTheRestOnly(t *testing.T) {
	src, dst, all := stores()
	put(t, src, nil, "a", "b", "c")
	put(t, dst, func(k string) string { return "older" }, "c")
	d := newDrive(t, Spec{Source: "src", Destination: "dst"}, all)
	planned, err := d.spec.jobs(KindCopy, []entry{{Key: "a", Size: 1, ETag: etag(t, src, "a")}, {Key: "b", Size: 1, ETag: etag(t, src, "b")}, {Key: "c", Size: 1, ETag: etag(t, src, "c")}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, dst, nil, "a") // and then it was killed
	if err := d.do(myrmidon.WithRepeat(t.Context()), myrmidon.Job{Kind: KindCopy, Count: 3, Attempt: 1, Spec: planned[0].Spec}); err != nil {
		t.Fatal(err)
	}
	for key, how := range map[string]string{"a": "found", "b": "stream", "c": "stream"} {
		if got := d.items["copy "+key].How; got != how {
			t.Errorf("%s: %q, want %q", key, got, how)
		}
	}
	if diff := cmp.Diff(contents(t, src), contents(t, dst)); diff != "" {
		t.Error(diff)
	}
}

func etag(t *testing.T, s object.Store, key string) string {
	t.Helper()
	info, err := s.Head(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return info.ETag
}

func TestWhatStreamedObjectsCannotBeGivenIsRefused(t *testing.T) {
	for name, opts := range map[string]object.ImportOptions{
		"tags": {Tags: map[string]string{"a": "b"}}, "no tags": {Tags: map[string]string{}}, "a class": {StorageClass: "GLACIER"},
		"metadata": {Replace: true, Metadata: map[string]string{"a": "b"}}, "encryption": {Encryption: "AES256"}, "an ACL": {ACL: "private"},
	} {
		src, dst, all := stores()
		put(t, src, nil, "a")
		d := newDrive(t, Spec{Source: "src", Destination: "dst", Copy: opts}, all)
		if err := d.run(t.Context()); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" || len(contents(t, dst)) > 0 {
			t.Errorf("%s: %v, and %v", name, err, contents(t, dst))
		}
	}
	src, dst, all := stores()
	put(t, src, nil, "a")
	d := newDrive(t, Spec{Source: "src", Destination: "dst", Copy: object.ImportOptions{Replace: true, Attrs: object.Attrs{CacheControl: "no-cache"}}}, all)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info, err := dst.Head(t.Context(), "a"); err != nil || info.CacheControl != "no-cache" {
		t.Errorf("the copy has %+v, %v", info, err)
	}
}

func TestSpecsThatAreRefused(t *testing.T) {
	good := Spec{Source: "a", Destination: "b", Compare: CompareTime}
	for name, change := range map[string]func(*Spec){
		"no source":     func(s *Spec) { s.Source = "" },
		"no comparison": func(s *Spec) { s.Compare = "" },
		"unknown":       func(s *Spec) { s.Verify = "x" },
		"sizes":         func(s *Spec) { s.Filter.MinSize, s.Filter.MaxSize = 2, 1 },
		"a pattern":     func(s *Spec) { s.Filter.Exclude = []string{"["} },
	} {
		s := good
		change(&s)
		if err := s.Validate(); !myrmidon.IsPermanent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
