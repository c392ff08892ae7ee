package s3stub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAKeysetIsASortedMap(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var k keyset
	want := make(map[string]int64)
	for step := range 30_000 {
		key := fmt.Sprint(r.IntN(6000))
		switch {
		case step < 20_000 || r.IntN(3) == 0:
			k.put(&object{key: key, modified: int64(step)})
			want[key] = int64(step)
		default:
			k.remove(key)
			delete(want, key)
		}
		if _, there := want[key]; (k.get(key) != nil) != there {
			t.Fatalf("step %d: %q is there: %v, want %v", step, key, !there, there)
		}
	}
	var got []string
	for _, block := range k.blocks {
		if len(block) == 0 || len(block) > blockLen {
			t.Fatalf("a block of %d", len(block))
		}
		for _, o := range block {
			if o.modified != want[o.key] {
				t.Fatalf("%q is of step %d, want %d", o.key, o.modified, want[o.key])
			}
			got = append(got, o.key)
		}
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(want)), got); d != "" || k.n != len(want) || len(k.blocks) < 8 {
		t.Errorf("%d keys in %d blocks, want %d (-want +got):\n%s", k.n, len(k.blocks), len(want), d)
	}
}

func TestManyAtATime(t *testing.T) {
	s := withBucket(t, Config{})
	set := Synthetic{N: 400, Key: Numbered("k", 3, ""), Size: 10}
	for _, err := range []error{s.AddSynthetic("from", set), s.AddMirror("to", set, "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Inject(Every(7, Fault{Status: 503}, Copy))
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			k := s.client()
			for i := w; i < set.N; i += 8 {
				key := string(set.Key(nil, i))
				for status := 0; status != 200; {
					status = k.ask(t, "PUT", "/to/"+key, "", "X-Amz-Copy-Source", "from/"+key).status
				}
				if i%4 == 0 {
					k.ask(t, "PUT", "/b/"+key, key)
					k.ask(t, "GET", "/to?list-type=2&max-keys=10", "")
					k.ask(t, "DELETE", "/b/"+key, "")
				}
			}
		})
	}
	all.Wait()
	if got := s.Arrivals("to"); got.Objects != 400 || got.Again != 0 || got.Wrong != 0 || got.Missing != nil {
		t.Errorf("arrived %+v", got)
	}
	n := s.Counts()[Copy]
	if n.Requests != 400+n.Failed || n.Failed != n.Requests/7 || n.Peak < 1 || n.Peak > 8 || s.Len("b") != 0 {
		t.Errorf("counted %+v; %d objects", n, s.Len("b"))
	}
}
