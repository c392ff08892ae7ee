package object_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon/object"
)

// keyed is a Pager over n keys in byte order that are computed, not stored. Each
// request takes delay.
type keyed struct {
	n        int
	key      func(i int) string
	delay    time.Duration
	requests atomic.Int64
	busy     atomic.Int64                                                     // requests at once,
	highest  atomic.Int64                                                     // and the most of them
	pages    func(page []object.Info, more bool) ([]object.Info, bool, error) // nil, or faults
}

func (k *keyed) Page(ctx context.Context, prefix, after string, most int) ([]object.Info, bool, error) {
	k.requests.Add(1)
	defer k.busy.Add(-1)
	for now := k.busy.Add(1); ; {
		if was := k.highest.Load(); now <= was || k.highest.CompareAndSwap(was, now) {
			break
		}
	}
	select {
	case <-ctx.Done():
		return nil, false, fmt.Errorf("page: %w", ctx.Err())
	case <-time.After(k.delay):
	}
	if most == 0 {
		most = object.MaxPage
	}
	from := sort.Search(k.n, func(i int) bool { key := k.key(i); return key > after && key >= prefix })
	page := make([]object.Info, 0, most)
	for i := from; i < k.n && len(page) < most; i++ {
		key := k.key(i)
		if !strings.HasPrefix(key, prefix) {
			break
		}
		page = append(page, object.Info{Key: key, Size: int64(i)})
	}
	end := from + len(page)
	more := end < k.n && strings.HasPrefix(k.key(end), prefix)
	if k.pages != nil {
		return k.pages(page, more)
	}
	return page, more, nil
}

func ofKeys(keys []string) *keyed {
	return &keyed{n: len(keys), key: func(i int) string { return keys[i] }}
}

// sorted makes n different keys and sorts them.
func sorted(n int, key func(i int) string) func() func(int) string {
	return func() func(int) string {
		keys := make([]string, 0, n)
		seen := make(map[string]bool, n)
		for i := 0; len(keys) < n; i++ {
			if k := key(i); !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		return func(i int) string { return keys[i] }
	}
}

// rising is for keys that are in order as they are computed.
func rising(key func(i int) string) func() func(int) string {
	return func() func(int) string { return key }
}

// layout is a bucket of some kind. keys makes it, which may take a second.
type layout struct {
	name string
	keys func() func(i int) string
}

// hash returns 32 hexadecimal digits (SplitMix64, which is quicker than a real hash).
func hash(i int) string {
	var out [16]byte
	for half := range 2 {
		x := (uint64(2*i+half) + 1) * 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		binary.BigEndian.PutUint64(out[8*half:], x^x>>31)
	}
	return hex.EncodeToString(out[:])
}

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

func ulid(ms int64, r *rand.Rand) string {
	var out [26]byte
	for i := 9; i >= 0; i-- {
		out[i] = crockford[ms&31]
		ms >>= 5
	}
	for i := 10; i < 26; i++ {
		out[i] = crockford[r.IntN(32)]
	}
	return string(out[:])
}

var words = strings.Fields("Москва город река солнце музыка фильм класс урок видео запись 東京 音楽 映画 授業 動画 café naïve señor größe straße münchen ångström łódź çelik 🐜 🎬 alpha beta gamma")

func word(r *rand.Rand) string { return words[r.IntN(len(words))] }

// shapes are the layouts of buckets that the walk's cost is promised for.
func shapes(n int) []layout {
	r := rand.New(rand.NewPCG(7, uint64(n)))
	start := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	long := strings.Repeat("a-very-long-folder-name/", 35)
	return []layout{
		{"numbers", rising(func(i int) string { return fmt.Sprintf("obj-%08d", i) })},
		{"hex hashes", sorted(n, hash)},
		{"hashes in two levels", sorted(n, func(i int) string { h := hash(i); return h[:2] + "/" + h[2:4] + "/" + h + ".jpg" })},
		{"ULIDs of a month", sorted(n, func(i int) string { return "media/" + ulid(start.UnixMilli()+r.Int64N(30*86400e3), r) + ".mp4" })},
		{"dates", sorted(n, func(i int) string {
			at := start.Add(time.Duration(r.Int64N(900*86400)) * time.Second)
			return at.Format("logs/2006/01/02/15-04-05") + fmt.Sprintf("-%06x.log.gz", r.IntN(1<<24))
		})},
		{"unicode names", sorted(n, func(i int) string {
			return word(r) + " " + word(r) + "/" + word(r) + fmt.Sprintf(" %d.mp4", r.IntN(5000))
		})},
		{"one very long common prefix", rising(func(i int) string { return long + fmt.Sprintf("%07d", i) })},
		{"skewed", sorted(n, func(i int) string {
			if i%100 == 0 {
				return hash(i)[:8] + "/other"
			}
			return "a/" + hash(i)[:20]
		})},
		{"UUIDs", sorted(n, func(i int) string {
			h := hash(i)
			return "u/" + h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
		})},
	}
}

// deep are layouts of many folders with few objects each.
func deep(n int) []layout {
	r := rand.New(rand.NewPCG(8, uint64(n)))
	return []layout{
		{"classes of segments", rising(func(i int) string {
			return fmt.Sprintf("class-%05d/hls/%03dp/seg-%05d.ts", i/200, 360+i/50%4*180, i%50)
		})},
		{"eight levels", sorted(n, func(i int) string {
			h := hash(i)
			return fmt.Sprintf("d%c/e%c/f%c/g%c/h%c/i%c/j%c/%s", h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7:20])
		})},
		{"folders of all sizes", sorted(n, func(i int) string {
			folder := int(float64(n) / 40 / float64(1+r.IntN(n/4)))
			return fmt.Sprintf("tenant-%d/%s/%d", folder, word(r), i)
		})},
	}
}

// measure walks all of k, 64 at a time, and returns the requests made, and how many
// times longer listing in order takes. The clock is a bubble's, so neither depends on the
// machine.
func measure(t *testing.T, k *keyed) (requests int, speedup float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k.delay = 100 * time.Millisecond
		var got atomic.Int64
		began := time.Now()
		err := object.Walk(t.Context(), k, object.Range{}, object.WalkOptions{}, func(_ object.Range, page []object.Info) error {
			got.Add(int64(len(page)))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if int(got.Load()) != k.n {
			t.Errorf("walked %d keys, want %d", got.Load(), k.n)
		}
		serial := time.Duration((k.n+999)/1000) * k.delay
		requests, speedup = int(k.requests.Load()), float64(serial)/float64(time.Since(began))
	})
	return requests, speedup
}

func TestWalkIsFastAndCheap(t *testing.T) {
	if raced {
		t.Skip("a simulation by one goroutine: the race detector finds nothing in it, and takes minutes")
	}
	for _, test := range []struct {
		n              int
		layouts        func(n int) []layout
		faster         float64 // times
		factor, beside float64 // requests for each page of a listing in order, and beside them
	}{
		{1_000_000, shapes, 8, 1.2, 12},
		{1_000_000, deep, 6, 1.2, 12},
		{100_000, shapes, 1.5, 1.2, 20},
		{10_000, shapes, 0.8, 2, 0},
		{10_000, deep, 0.8, 2, 0},
		{1_000, shapes, 1, 1, 0},
	} {
		if testing.Short() && test.n > 100_000 {
			continue
		}
		for _, l := range test.layouts(test.n) {
			t.Run(fmt.Sprintf("%d keys: %s", test.n, l.name), func(t *testing.T) {
				requests, speedup := measure(t, &keyed{n: test.n, key: l.keys()})
				pages := float64(test.n) / 1000
				t.Logf("%d requests (%.2f a page), %.1f times as fast as in order", requests, float64(requests)/pages, speedup)
				if most := test.factor*pages + test.beside; float64(requests) > most {
					t.Errorf("%d requests, want at most %.0f", requests, most)
				}
				if speedup < test.faster {
					t.Errorf("%.1f times as fast as in order, want %.1f", speedup, test.faster)
				}
			})
		}
	}
}

func TestWalkOfManySmallPrefixesIsCheap(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	key := sorted(7500, func(i int) string { return fmt.Sprintf("class-%03d/%s.ts", r.IntN(195), hash(i)[:12]) })()
	if requests, _ := measure(t, &keyed{n: 7500, key: key}); requests > 15 {
		t.Errorf("%d requests for 7,500 keys below 195 prefixes, want at most 15", requests)
	}
}

// randomKeys makes a set of keys in byte order that are hard to cut.
func randomKeys(r *rand.Rand) []string {
	n := 1 + r.IntN(400)
	if r.IntN(3) == 0 {
		n *= 8
	}
	kind := r.IntN(7)
	seen := make(map[string]bool)
	var made []string
	for try := 0; len(seen) < n && try < 5*n; try++ {
		var k string
		switch kind {
		case 0: // any bytes
			for range 1 + r.IntN(6) {
				k += string([]byte{byte(r.IntN(256))})
			}
		case 1: // characters of all planes
			for range 1 + r.IntN(4) {
				k += string(rune(r.IntN(0x110000))) // U+FFFD for surrogates
			}
		case 2: // nested, a/b beside ab, keys that are prefixes of others
			for range 1 + r.IntN(8) {
				k += []string{"a", "b", "/", "ab", "//", "-", "0"}[r.IntN(7)]
			}
		case 3: // the lowest bytes and the highest
			for range 1 + r.IntN(7) {
				k += []string{"\x00", "\x01", "\xff", "\xfe"}[r.IntN(4)]
			}
		case 4: // as long as keys can be
			k = strings.Repeat("\xff", 1020) + fmt.Sprintf("%04x", r.IntN(1<<16))
			if r.IntN(2) == 0 {
				k = strings.Repeat("é", 510) + fmt.Sprintf("%04d", r.IntN(10000))
			}
		case 5: // each a prefix of another
			k = strings.Repeat("a", 1+r.IntN(1024))
		default:
			k = fmt.Sprintf("%s/%d", word(r), r.IntN(1<<r.IntN(20)))
		}
		if made = append(made, k); r.IntN(4) == 0 {
			k = made[r.IntN(len(made))] + "\x00"
		}
		if len(k) <= object.MaxKey {
			seen[k] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// randomRange makes a range whose bounds are keys, nearly keys, or none.
func randomRange(r *rand.Rand, keys []string) object.Range {
	bound := func() string {
		k := keys[r.IntN(len(keys))]
		return []string{"", k, k + "\x00", k[:r.IntN(len(k))], k + "z"}[r.IntN(5)]
	}
	rg := object.Range{After: bound(), Before: bound()}
	if r.IntN(2) == 0 {
		k := keys[r.IntN(len(keys))]
		rg.Prefix = k[:r.IntN(len(k)+1)]
	}
	return rg
}

// parts collects what a walk gives, and checks that pages are as promised.
type parts struct {
	mu   sync.Mutex
	all  []object.Range
	keys []string
}

func (p *parts) add(t *testing.T, part object.Range, page []object.Info) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all = append(p.all, part); part.Before == part.After+"\x00" {
		t.Errorf("part %v cannot hold a key", part)
	}
	last := part.After
	for _, info := range page {
		if !part.Contains(info.Key) || info.Key <= last {
			t.Errorf("part %v has the key %q behind %q", part, info.Key, last)
		}
		last = info.Key
		p.keys = append(p.keys, info.Key)
	}
}

// covers fails the test unless the parts lie side by side and make up r.
func (p *parts) covers(t *testing.T, r object.Range) {
	t.Helper()
	slices.SortFunc(p.all, func(a, b object.Range) int { return strings.Compare(a.After, b.After) })
	for i, part := range p.all {
		want := object.Range{Prefix: r.Prefix, After: r.After, Before: r.Before}
		if i > 0 {
			want.After = strings.TrimSuffix(p.all[i-1].Before, "\x00")
		}
		if i < len(p.all)-1 {
			want.Before = p.all[i+1].After + "\x00"
		}
		if part != want {
			t.Errorf("part %d of %d is %v, want %v", i, len(p.all), part, want)
		}
	}
}

func within(keys []string, r object.Range) []string {
	got := []string{}
	for _, k := range keys {
		if r.Contains(k) {
			got = append(got, k)
		}
	}
	return got
}

func sameKeys(t *testing.T, what string, got, want []string) {
	t.Helper()
	if got = slices.Sorted(slices.Values(got)); !slices.Equal(got, want) {
		t.Errorf("%s: %d keys, want %d: %s", what, len(got), len(want), cmp.Diff(want, got))
	}
}

// hesitant gives an empty page, and says that there is more, when first asked for one.
type hesitant struct {
	object.Pager
	asked *sync.Map
}

func (h hesitant) Page(ctx context.Context, prefix, after string, most int) ([]object.Info, bool, error) {
	if _, asked := h.asked.LoadOrStore(after, true); !asked {
		return nil, true, nil
	}
	return h.Pager.Page(ctx, prefix, after, most)
}

func TestWalkGivesEachKeyOnce(t *testing.T) {
	rounds := 600
	if testing.Short() {
		rounds = 100
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(1, uint64(seed)))
		keys := randomKeys(r)
		rg := randomRange(r, keys)
		opts := object.WalkOptions{Parallel: []int{1, 2, 7, 64}[r.IntN(4)], PageSize: []int{1, 2, 3, 10, 100, 1000}[r.IntN(6)]}
		k, most := ofKeys(keys), int64(opts.Parallel)
		var p object.Pager = k
		if r.IntN(4) == 0 {
			p = hesitant{k, new(sync.Map)}
		}
		var got parts
		err := object.Walk(t.Context(), p, rg, opts, func(part object.Range, page []object.Info) error {
			got.add(t, part, page)
			return nil
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		sameKeys(t, fmt.Sprintf("seed %d, %v, %+v", seed, rg, opts), got.keys, within(keys, rg))
		if len(got.all) > 0 {
			got.covers(t, rg)
		}
		if n := k.highest.Load(); n > most {
			t.Errorf("seed %d: %d requests at once, want at most %d", seed, n, most)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

func TestWalkThatStoppedGoesOnWithWhatRemains(t *testing.T) {
	stop := errors.New("stop")
	for seed := range 200 {
		r := rand.New(rand.NewPCG(2, uint64(seed)))
		keys := randomKeys(r)
		rg := randomRange(r, keys)
		opts := object.WalkOptions{Parallel: 1 + r.IntN(20), PageSize: 1 + r.IntN(20)}
		var got parts
		left := []object.Range{rg}
		for run := 0; len(left) > 0; run++ {
			var calls atomic.Int64
			last := 1 + r.Int64N(40)
			var next []object.Range
			before := len(got.all)
			for _, part := range left {
				err := object.Walk(t.Context(), ofKeys(keys), part, opts, func(part object.Range, page []object.Info) error {
					if calls.Add(1) > last {
						return stop
					}
					got.add(t, part, page)
					return nil
				})
				if err != nil && !errors.Is(err, stop) {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			if next = object.Remaining(rg, got.all); len(next) > 0 && len(got.all) == before {
				t.Fatalf("seed %d: run %d does not come further than %v", seed, run, next)
			}
			left = next
		}
		sameKeys(t, fmt.Sprintf("seed %d, %v, %+v", seed, rg, opts), got.keys, within(keys, rg))
	}
}

func TestWalkEndsWithTheFirstError(t *testing.T) {
	first := errors.New("first")
	k := &keyed{n: 100_000, key: func(i int) string { return fmt.Sprintf("k%06d", i) }}
	var after atomic.Int64
	err := object.Walk(t.Context(), k, object.Range{}, object.WalkOptions{}, func(object.Range, []object.Info) error {
		if after.Add(1) == 20 {
			return first
		}
		return nil
	})
	if !errors.Is(err, first) {
		t.Errorf("Walk: %v, want %v", err, first)
	}
	if n := after.Load(); n > 20+64 {
		t.Errorf("fn was called %d times, want at most those under way", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = object.Walk(ctx, k, object.Range{}, object.WalkOptions{}, func(object.Range, []object.Info) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Walk: %v, want %v", err, context.Canceled)
	}
}

func TestWalkRefusesListingsOutOfOrder(t *testing.T) {
	for _, test := range []struct {
		name string
		page func(page []object.Info) []object.Info
		want string
	}{
		{"a key twice", func(p []object.Info) []object.Info { p[7] = p[6]; return p }, `the key "a/006" twice`},
		{"two keys the wrong way round", func(p []object.Info) []object.Info { p[7], p[6] = p[6], p[7]; return p }, `the key "a/006" behind "a/007"`},
		{"a page again", func(p []object.Info) []object.Info { return p[:0:0] }, "no keys 8 times"},
		{"a key of another prefix", func(p []object.Info) []object.Info { p[9].Key = "b"; return p }, `the key "b", which does not begin`},
		{"a key from before", func(p []object.Info) []object.Info { p[0].Key = "a/"; return p }, `the key "a/", which is not behind it`},
		{"too many keys", func(p []object.Info) []object.Info { return append(p, object.Info{Key: "a/5"}) }, "11 keys, 10 were asked for"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := &keyed{n: 1000, key: func(i int) string { return fmt.Sprintf("a/%03d", i) }}
			k.pages = func(p []object.Info, _ bool) ([]object.Info, bool, error) { return test.page(p), true, nil }
			err := object.Walk(t.Context(), k, object.Range{Prefix: "a/", After: "a/"}, object.WalkOptions{Parallel: 1, PageSize: 10},
				func(object.Range, []object.Info) error { return nil })
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Walk: %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestWalkOfTenMillionKeysTakesLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 10_000_000
	before, highest := heap(), uint64(0)
	var mu sync.Mutex
	got, pages := 0, 0
	k := &keyed{n: n, key: func(i int) string { return "k" + strconv.Itoa(100_000_000+i) }}
	err := object.Walk(t.Context(), k, object.Range{}, object.WalkOptions{}, func(_ object.Range, page []object.Info) error {
		mu.Lock()
		defer mu.Unlock()
		got += len(page)
		if pages++; pages%500 == 0 {
			highest = max(highest, heap())
		}
		return nil
	})
	if err != nil || got != n {
		t.Fatalf("walked %d keys, %v; want %d", got, err, n)
	}
	// 64 pages of 1,000 infos are 9 MB.
	if grown := int64(highest) - int64(before); grown > 24<<20 {
		t.Errorf("the heap grew by %d MiB, want less than 24", grown>>20)
	}
}

func TestCursorTravelsAsJSON(t *testing.T) {
	// A planner that is stopped after every page, with each part a planner of its own.
	for _, l := range append(shapes(20_000), deep(20_000)...) {
		t.Run(l.name, func(t *testing.T) {
			k := &keyed{n: 20_000, key: l.keys()}
			var got parts
			queue := [][]byte{[]byte(`{"range":{}}`)}
			split := 0
			for len(queue) > 0 {
				var c object.Cursor
				if err := json.Unmarshal(queue[0], &c); err != nil {
					t.Fatal(err)
				}
				queue = queue[1:]
				if cut := c.Split(1); len(cut) > 0 {
					t.Fatalf("a cursor split off %v before it had read a page", cut)
				}
				page, more, err := k.Page(t.Context(), c.Range.Prefix, c.Range.After, 0)
				if err != nil {
					t.Fatal(err)
				}
				part, mine, err := c.Read(page, more)
				if err != nil {
					t.Fatal(err)
				}
				got.add(t, part, mine)
				after := []object.Cursor{c}
				if c.Pages%8 == 1 && c.Left() >= 3 {
					after = append(c.Split(1), c)
					split += len(after) - 1
				}
				for _, c := range after {
					if c.Done {
						continue
					}
					data, err := json.Marshal(c)
					if err != nil {
						t.Fatal(err)
					}
					queue = append(queue, data)
				}
			}
			if len(got.keys) != k.n {
				t.Errorf("%d keys, want %d", len(got.keys), k.n)
			}
			got.covers(t, object.Range{})
			if split == 0 {
				t.Error("nothing was split off")
			}
			if n := k.requests.Load(); n > 40 {
				t.Errorf("%d requests for 20 pages, want at most 40", n)
			}
		})
	}
}
