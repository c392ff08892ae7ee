package clone

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"myrmidon/object"
)

// A listing that leaves keys out, in order and without a word, looks like a source that
// lost them.
func TestWhatTheSourcesListingLeavesOutIsNotDeleted(t *testing.T) {
	keys := manyKeys(2500, "k%05d")
	for name, tt := range map[string]struct {
		change func(after string, page []object.Info, more bool) ([]object.Info, bool, error)
		failed int
	}{
		"it skips keys": {func(_ string, page []object.Info, more bool) ([]object.Info, bool, error) {
			return slices.Delete(page, 3, 5), more, nil
		}, 6},
		"it ends too early": {func(_ string, page []object.Info, _ bool) ([]object.Info, bool, error) {
			return page, false, nil
		}, 1500},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst, all := stores()
			put(t, src, nil, keys...)
			put(t, dst, nil, keys...)
			put(t, dst, nil, "k01999x", "zz")
			all["src"] = &pages{Store: src, change: tt.change}
			d := newDrive(t, Spec{Source: "src", Destination: "dst", Delete: true}, all)
			if err := d.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := d.keys("delete"); !slices.Equal(got, []string{"k01999x", "zz"}) {
				t.Errorf("deleted %d objects: %.100q", len(got), got)
			}
			left := contents(t, dst)
			for _, k := range keys {
				if _, ok := left[k]; !ok {
					t.Fatalf("%s is gone", k)
				}
			}
			if len(d.failed) != tt.failed {
				t.Errorf("%d failures, want %d", len(d.failed), tt.failed)
			}
			for key, f := range d.failed {
				if !f.Permanent || f.Hint == "" || !strings.Contains(f.Message, key) {
					t.Fatalf("%s: %+v", key, f)
				}
			}
		})
	}
}

// deaf is a store that cannot be asked for objects.
type deaf struct{ *object.Mem }

func (deaf) Head(context.Context, string) (object.Info, error) {
	return object.Info{}, errors.New("no answer")
}

func TestNothingIsDeletedThatTheSourceCannotBeAskedFor(t *testing.T) {
	src, dst, all := stores()
	put(t, src, nil, "a")
	put(t, dst, nil, "a", "extra")
	all["src"] = deaf{src}
	d := newDrive(t, Spec{Source: "src", Destination: "dst", Delete: true}, all)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f := d.failed["extra"]; len(contents(t, dst)) != 2 || f == nil || f.Permanent || !strings.Contains(f.Message, "no answer") {
		t.Errorf("%q are left, failed: %+v", slices.Sorted(maps.Keys(contents(t, dst))), f)
	}
}

// What no folder can have is known without asking.
func TestKeysThatAFolderCannotHaveAreDeleted(t *testing.T) {
	_, _, all := stores()
	folder, err := object.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put(t, folder, nil, "a")
	dst := anyKey{object.NewMem(), map[string]bool{"marker/": true, "a//b": true}}
	all["src"], all["dst"] = folder, dst
	d := newDrive(t, Spec{Source: "src", Destination: "dst", Delete: true}, all)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(dst.odd) > 0 || len(d.failed) > 0 {
		t.Errorf("left %v, failed %v", dst.odd, d.failed)
	}
}

// anyKey holds a few keys more, which no folder could hold.
type anyKey struct {
	*object.Mem
	odd map[string]bool
}

func (a anyKey) Page(ctx context.Context, prefix, after string, _ int) ([]object.Info, bool, error) {
	var out []object.Info
	for info, err := range a.List(ctx, prefix, after) {
		if err != nil {
			return nil, false, err
		}
		out = append(out, info)
	}
	for k := range a.odd {
		if k > after && strings.HasPrefix(k, prefix) {
			out = append(out, object.Info{Key: k})
		}
	}
	slices.SortFunc(out, func(x, y object.Info) int { return strings.Compare(x.Key, y.Key) })
	return out, false, nil
}

func (a anyKey) Delete(ctx context.Context, key string) error {
	if a.odd[key] {
		delete(a.odd, key)
		return nil
	}
	return a.Mem.Delete(ctx, key)
}
