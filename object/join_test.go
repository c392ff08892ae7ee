package object_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon/internal/testkit/long"
	"myrmidon/object"
)

// mark shows a pair: "<a" is in the source only, ">a" in the destination only, "=a" in
// both.
func mark(p object.Pair) string {
	switch {
	case p.Dst == nil:
		return "<" + p.Key()
	case p.Src == nil:
		return ">" + p.Key()
	case p.Src.Key != p.Dst.Key:
		return "source " + p.Src.Key + ", destination " + p.Dst.Key
	}
	return "=" + p.Key()
}

// joined is what a join of src and dst over r should give, by plain definition.
func joined(src, dst []string, r object.Range) []string {
	in := make(map[string]int)
	for _, k := range within(src, r) {
		in[k] |= 1
	}
	for _, k := range within(dst, r) {
		in[k] |= 2
	}
	got := []string{}
	for _, k := range slices.Sorted(maps.Keys(in)) {
		got = append(got, string(" <>="[in[k]])+k)
	}
	return got
}

// some returns about share of keys.
func some(r *rand.Rand, keys []string, share float64) []string {
	var got []string
	for _, k := range keys {
		if r.Float64() < share {
			got = append(got, k)
		}
	}
	return got
}

// small gives pages of at most most keys.
func small(k *keyed, most int) object.Pager { return smaller{k, most} }

type smaller struct {
	object.Pager
	most int
}

func (s smaller) Page(ctx context.Context, prefix, after string, _ int) ([]object.Info, bool, error) {
	return s.Pager.Page(ctx, prefix, after, s.most)
}

func TestJoinPairsKeys(t *testing.T) {
	long.Test(t)
	for seed := range 300 {
		r := rand.New(rand.NewPCG(4, uint64(seed)))
		all := randomKeys(r)
		shares := []float64{0, 0.1, 0.9, 1}
		src, dst := some(r, all, shares[r.IntN(4)]), some(r, all, shares[r.IntN(4)])
		rg := randomRange(r, all)
		one, other := small(ofKeys(src), 1+r.IntN(30)), small(ofKeys(dst), 1+r.IntN(30))
		want := joined(src, dst, rg)

		got := []string{}
		for pair, err := range object.Join(t.Context(), one, other, rg) {
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got = append(got, mark(pair))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: Join over %v (-want +got):\n%s", seed, rg, diff)
		}

		// In parallel, with a page of the source at a time.
		got = []string{}
		var mu sync.Mutex
		err := object.Walk(t.Context(), one, rg, object.WalkOptions{Parallel: 8}, func(part object.Range, page []object.Info) error {
			mu.Lock()
			defer mu.Unlock()
			for pair, err := range object.JoinPage(t.Context(), other, part, page) {
				if err != nil {
					return err
				}
				got = append(got, mark(pair))
			}
			return nil
		})
		slices.SortFunc(got, func(a, b string) int { return strings.Compare(a[1:], b[1:]) })
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Fatalf("seed %d: Walk and JoinPage over %v: %v (-want +got):\n%s", seed, rg, err, diff)
		}
	}
}

func TestJoinIsCheap(t *testing.T) {
	key := func(i int) string { return fmt.Sprintf("k%06d", i) }
	for _, test := range []struct {
		name      string
		dst       *keyed
		src, dest int64
	}{
		{"the same keys", &keyed{n: 10_000, key: key}, 10, 10},
		{"an empty destination", &keyed{}, 10, 1},
		{"a destination that ends early", &keyed{n: 1500, key: key}, 10, 2},
		{"a destination of which one page lies there", &keyed{n: 500, key: func(i int) string { return "k0" + fmt.Sprintf("%05d", i) }}, 10, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			src := &keyed{n: 10_000, key: key}
			for _, err := range object.Join(t.Context(), src, test.dst, object.Range{}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			if s, d := src.requests.Load(), test.dst.requests.Load(); s != test.src || d != test.dest {
				t.Errorf("%d requests to the source and %d to the destination, want %d and %d", s, d, test.src, test.dest)
			}
		})
	}
	dst := &keyed{n: 10_000, key: key}
	page, _, _ := dst.Page(t.Context(), "", "k001999", 0)
	dst.requests.Store(0)
	for _, err := range object.JoinPage(t.Context(), dst, object.Range{After: "k001999", Before: "k002999\x00"}, page) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := dst.requests.Load(); n != 1 {
		t.Errorf("%d requests to the destination for a page of the same keys, want 1", n)
	}
}

// That an object of the destination is taken for one that the source lacks would delete
// it, so what a join tells before it fails must be true.
func TestJoinNeverTakesAFailureForAMissingKey(t *testing.T) {
	key := func(i int) string { return fmt.Sprintf("k%03d", i) }
	broken := errors.New("broken")
	for _, test := range []struct {
		name string
		page func(call int, page []object.Info, more bool) ([]object.Info, bool, error)
	}{
		{"an error", func(_ int, _ []object.Info, _ bool) ([]object.Info, bool, error) { return nil, false, broken }},
		{"a page skips back", func(_ int, p []object.Info, more bool) ([]object.Info, bool, error) {
			p[0].Key = "k000"
			return p, more, nil
		}},
		{"keys change places", func(_ int, p []object.Info, more bool) ([]object.Info, bool, error) {
			p[3], p[4] = p[4], p[3]
			return p, more, nil
		}},
		{"an empty page that says more", func(_ int, _ []object.Info, _ bool) ([]object.Info, bool, error) { return nil, true, nil }},
	} {
		for _, side := range []string{"source", "destination"} {
			t.Run(test.name+" of the "+side, func(t *testing.T) {
				src, dst := &keyed{n: 100, key: key}, &keyed{n: 100, key: key}
				calls := 0
				faulty := func(p []object.Info, more bool) ([]object.Info, bool, error) {
					if calls++; calls == 1 {
						return p, more, nil
					}
					return test.page(calls, p, more)
				}
				if src.pages = faulty; side == "destination" {
					src.pages, dst.pages = nil, faulty
				}
				var last error
				got := 0
				for pair, err := range object.Join(t.Context(), small(src, 10), small(dst, 10), object.Range{}) {
					if last != nil {
						t.Fatal("something came behind the error")
					}
					if last = err; err != nil {
						if pair != (object.Pair{}) {
							t.Errorf("the error came with %v", pair)
						}
						continue
					}
					if got++; mark(pair)[0] != '=' {
						t.Errorf("told of %s, and both have it", mark(pair))
					}
				}
				if last == nil || got > 11 {
					t.Errorf("%d pairs, then %v; want at most 11 and an error", got, last)
				}
			})
		}
	}
	for _, err := range object.JoinPage(t.Context(), ofKeys(nil), object.Range{Before: "b"}, []object.Info{{Key: "c"}}) {
		if err == nil || !strings.Contains(err.Error(), `"c"`) {
			t.Errorf("a page that leaves its part gave %v", err)
		}
	}
}

func TestJoinEndsWhenItsReaderDoes(t *testing.T) {
	for _, dst := range []*keyed{ofKeys([]string{"a", "c"}), ofKeys([]string{"b"}), ofKeys(nil)} {
		for range object.Join(t.Context(), ofKeys([]string{"b", "c"}), dst, object.Range{}) {
			break // a join that yields again now panics
		}
	}
}

func TestRebaseShowsOnePrefixAsAnother(t *testing.T) {
	stored := []string{"a", "b/", "b/1", "b/2/x", "b/\xff", "b0", "c/1"}
	for _, test := range []struct {
		from, to, prefix, after string
		want                    []string
	}{
		{"b/", "z/y/", "", "", []string{"z/y/", "z/y/1", "z/y/2/x", "z/y/\xff"}},
		{"b/", "z/y/", "z/y/1", "", []string{"z/y/1"}},
		{"b/", "z/y/", "z/", "z/y/1", []string{"z/y/2/x", "z/y/\xff"}},
		{"b/", "z/y/", "z/", "a", []string{"z/y/", "z/y/1", "z/y/2/x", "z/y/\xff"}},
		{"b/", "z/y/", "", "z/z", nil},
		{"b/", "z/y/", "b/", "", nil},
		{"b/", "", "", "1", []string{"2/x", "\xff"}},
		{"", "q/", "q/b", "q/b/1", []string{"q/b/2/x", "q/b/\xff", "q/b0"}},
	} {
		page, more, err := object.Rebase(ofKeys(stored), test.from, test.to).Page(t.Context(), test.prefix, test.after, 0)
		var got []string
		for _, info := range page {
			got = append(got, info.Key)
		}
		if diff := cmp.Diff(test.want, got); err != nil || more || diff != "" {
			t.Errorf("%q as %q: Page(%q, %q): %v, %v (-want +got):\n%s", test.from, test.to, test.prefix, test.after, more, err, diff)
		}
	}
}
