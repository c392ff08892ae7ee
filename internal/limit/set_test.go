package limit

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheSamePairHasTheSameLimiter(t *testing.T) {
	var s Set
	a := s.Limiter("clone.copy", "s3://a")
	for _, test := range []struct {
		name              string
		kind, destination string
		same              bool
	}{
		{"the same pair", "clone.copy", "s3://a", true},
		{"another destination", "clone.copy", "s3://b", false},
		{"another kind", "clone.delete", "s3://a", false},
		{"a pair that reads the same when joined", "clone.copys3", "://a", false},
	} {
		if got := s.Limiter(test.kind, test.destination) == a; got != test.same {
			t.Errorf("%s: the same limiter is %v, want %v", test.name, got, test.same)
		}
	}
}

func TestIdleLimitersAreForgotten(t *testing.T) {
	s := New(Config{Limiters: 10})
	held := s.Limiter("transfer.get", "https://held.example")
	p, err := s.Limiter("transfer.get", "https://used.example").Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		s.Limiter("transfer.get", fmt.Sprintf("https://%d.example", i))
	}
	runtime.GC()
	s.Limiter("transfer.get", "https://one-more.example")
	s.mu.Lock()
	entries, kept := len(s.byKey), s.kept
	last := s.byKey[key{"transfer.get", "https://1999.example"}]
	s.mu.Unlock()
	if kept != 10 || entries > 20 {
		t.Errorf("after 2,003 destinations the set has %d entries and holds %d limiters, want 20 and 10 at most", entries, kept)
	}
	if s.Limiter("transfer.get", "https://held.example") != held {
		t.Error("a limiter that a handler holds was made anew: its bound would be doubled")
	}
	if got := s.Limiter("transfer.get", "https://used.example").Stats().InFlight; got != 1 {
		t.Errorf("the limiter of a permit that is out has %d in flight, want 1", got)
	}
	if last == nil || last.strong == nil {
		t.Error("a limiter among the last ten was forgotten")
	}
	p.Release(OK)
	runtime.KeepAlive(held)
}

func TestStartAndMaximumComeFromTheConfig(t *testing.T) {
	maxima := map[string]int{"clone.copy": 200, "clone.copy@s3://slow": 5, "logs.ship": 3000}
	for _, test := range []struct {
		name              string
		cfg               Config
		kind, destination string
		limit, most       int
	}{
		{"the defaults", Config{}, "clone.copy", "s3://b", 64, 1024},
		{"a start of one's own", Config{Start: 8, Most: 100}, "clone.copy", "s3://b", 8, 100},
		{"a start above the maximum", Config{Start: 800, Most: 100}, "clone.copy", "s3://b", 100, 100},
		{"negative numbers are the defaults", Config{Start: -1, Most: -1}, "clone.copy", "s3://b", 64, 1024},
		{"a kind's maximum", Config{Max: maxima}, "clone.copy", "s3://b", 64, 200},
		{"a kind's maximum above the default", Config{Max: maxima}, "logs.ship", "tcp://c", 64, 3000},
		{"a destination's maximum goes before its kind's", Config{Max: maxima}, "clone.copy", "s3://slow", 5, 5},
		{"a kind without one", Config{Max: maxima}, "clone.delete", "s3://slow", 64, 1024},
		{"a maximum below one is one", Config{Max: map[string]int{"clone.copy": 0}}, "clone.copy", "s3://b", 1, 1},
	} {
		got := New(test.cfg).Limiter(test.kind, test.destination).Stats()
		want := Stats{Kind: test.kind, Destination: test.destination, Limit: test.limit, Max: test.most}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, d)
		}
	}
}

func TestAHandlerFindsTheLimiterOfItsKindInItsContext(t *testing.T) {
	s := New(Config{Start: 7})
	ctx := With(t.Context(), s, "clone.copy")
	l := Of(ctx, "s3://b")
	if l != s.Limiter("clone.copy", "s3://b") {
		t.Error("Of gives another limiter than the set's")
	}
	if inner := With(ctx, s, "clone.delete"); Of(inner, "s3://b") != s.Limiter("clone.delete", "s3://b") {
		t.Error("the innermost kind does not count")
	}
	for name, bare := range map[string]context.Context{"no set": t.Context(), "a nil set": With(t.Context(), nil, "clone.copy")} {
		l := Of(bare, "s3://b")
		if got := l.Stats(); got.Limit != 64 || got.Max != 1024 {
			t.Errorf("%s: %+v, want the defaults", name, got)
		}
		if l == Of(bare, "s3://b") {
			t.Errorf("%s: two handlers share a limiter", name)
		}
	}
}

func TestStatsAreSortedAndCounted(t *testing.T) {
	s := New(Config{Start: 2})
	for _, d := range []string{"s3://b", "s3://a"} {
		for _, k := range []string{"clone.verify", "clone.copy"} {
			s.Limiter(k, d)
		}
	}
	l := s.Limiter("clone.copy", "s3://b")
	held := permits(t, l, 2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := l.Acquire(ctx); err == nil {
		t.Fatal("a third permit at a limit of 2")
	}
	held[0].Release(OK)
	held[1].Release(Pushback(0)) // the first is no congestion
	permits(t, l, 2)[1].Release(Pushback(0))
	want := []Stats{
		{Kind: "clone.copy", Destination: "s3://a", Limit: 2, Max: 1024},
		{Kind: "clone.copy", Destination: "s3://b", Limit: 1, Max: 1024, InFlight: 1, Completed: 1, Pushbacks: 2},
		{Kind: "clone.verify", Destination: "s3://a", Limit: 2, Max: 1024},
		{Kind: "clone.verify", Destination: "s3://b", Limit: 2, Max: 1024},
	}
	if d := cmp.Diff(want, s.Stats()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestParseMax(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []string
		want   map[string]int
		err    string // a part of it; "" if there is none
	}{
		{"nothing", nil, map[string]int{}, ""},
		{"a kind", []string{"clone.copy=200"}, map[string]int{"clone.copy": 200}, ""},
		{"a kind and a destination of it", []string{"clone.copy=200", "clone.copy@s3://bucket=50"}, map[string]int{"clone.copy": 200, "clone.copy@s3://bucket": 50}, ""},
		{"an address with = and @", []string{"clone.copy@s3://b?endpoint=http://u@h:1&region=r=5"}, map[string]int{"clone.copy@s3://b?endpoint=http://u@h:1&region=r": 5}, ""},
		{"the highest number", []string{"a=65535"}, map[string]int{"a": 65535}, ""},
		{"no =", []string{"clone.copy"}, nil, `no "="`},
		{"no number", []string{"clone.copy="}, nil, `"" is no number`},
		{"a number with a unit", []string{"clone.copy=10k"}, nil, `"10k" is no number`},
		{"zero", []string{"clone.copy=0"}, nil, "is no number from 1"},
		{"a negative number", []string{"clone.copy=-1"}, nil, "is no number from 1"},
		{"a number above the highest", []string{"clone.copy=65536"}, nil, "to 65535"},
		{"a number beyond all", []string{"clone.copy=99999999999999999999"}, nil, "to 65535"},
		{"no kind", []string{"=5"}, nil, "no kind"},
		{"no kind before a destination", []string{"@s3://b=5"}, nil, "no kind"},
		{"a kind with a space", []string{"clone copy=5"}, nil, "is no kind"},
		{"no destination", []string{"clone.copy@=5"}, nil, "no destination"},
		{"the last example of the hint", strings.Fields(MaxHint)[len(strings.Fields(MaxHint))-1:], map[string]int{"clone.copy@s3://bucket": 50}, ""},
		{"the same twice", []string{"a=5", "b=5", "a=6"}, nil, "two limits"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseMax(test.values)
			if test.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(test.want, got); d != "" {
					t.Errorf("-want +got:\n%s", d)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Fatalf("error %v, want one with %q", err, test.err)
			}
			if v := test.values[len(test.values)-1]; !strings.Contains(err.Error(), strconv.Quote(v)) {
				t.Errorf("error %v does not name the value %q", err, v)
			}
		})
	}
}

func FuzzParseMax(f *testing.F) {
	for _, v := range []string{"clone.copy=200", "clone.copy@s3://bucket=50", "a@b=c@d=1", "=", "@=1", "a=\xff"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, err := ParseMax([]string{v})
		if err != nil {
			return
		}
		for name, n := range got {
			kind, destination, _ := strings.Cut(name, "@")
			if kind == "" || n < 1 || n > Highest || !strings.HasPrefix(v, name+"=") {
				t.Fatalf("%q gave %q: %d", v, name, n)
			}
			if l := New(Config{Max: got}).Limiter(kind, destination); l.Stats().Max != n {
				t.Fatalf("%q is not the maximum of the limiter of %q and %q", v, kind, destination)
			}
		}
	})
}
