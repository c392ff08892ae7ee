package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"myrmidon/engine"
)

// FleetOptions says how to make a fleet, and what can be done to its broker.
type FleetOptions struct {
	// Open returns a fleet that knows nothing.
	Open func(t *testing.T) engine.Fleet
	// Join returns what another process would have that joins the fleet last opened.
	Join func(t *testing.T) engine.Fleet
	// Restart, if not nil, kills the broker and starts it again on its state.
	Restart func(t *testing.T)
}

// RunFleet runs the suite of what a fleet has beyond a backend.
func RunFleet(t *testing.T, o FleetOptions) {
	for _, c := range []struct {
		name string
		test func(*testing.T, FleetOptions)
	}{
		{"an entry is stored if its revision is the expected one, else there is a conflict", putEntries},
		{"of many processes that expect one revision, one stores", racingPuts},
		{"an entry that was forgotten is not there and can be made again", forget},
		{"entries are listed by prefix, in order, with their age", entries},
		{"a bad key, or a value that is too large, is refused", badEntries},
		{"a watcher sees what is there, its end, changes and removals", watch},
		{"a watcher of nothing is told so at once", watchNothing},
		{"a watcher goes on when the broker is back", watchRestart},
		{"what is asked is answered, by one who listens", ask},
		{"a topic that nobody listens to has no answer", askNobody},
		{"what is told reaches all who listen, and nobody after their stop", tell},
		{"an answer is waited for no longer than the context lasts", askForever},
		{"questions and answers go on when the broker is back", askRestart},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, o) })
	}
}

func put(t *testing.T, f engine.Fleet, key, value string, rev uint64) uint64 {
	t.Helper()
	next, err := f.Put(t.Context(), key, []byte(value), rev)
	must(t, err)
	if next == 0 || next == rev {
		t.Fatalf("the revision of %s after it was stored is %d, before %d", key, next, rev)
	}
	return next
}

func conflict(t *testing.T, f engine.Fleet, what, key, value string, rev uint64) {
	t.Helper()
	if _, err := f.Put(t.Context(), key, []byte(value), rev); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("%s: %v, want ErrConflict", what, err)
	}
}

func putEntries(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	other := o.Join(t)
	for _, key := range []string{"run/a", "worker/a"} {
		if _, err := f.Entry(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an entry that is not there: %v, want fs.ErrNotExist", err)
		}
		conflict(t, f, "a revision of an entry that is not there", key, "x", 77)
		first := put(t, f, key, "one", 0)
		conflict(t, other, "an entry that is there already, to be made", key, "two", 0)
		conflict(t, f, "the same value as the one that is there, to be made", key, "one", 0)
		second := put(t, other, key, "two", first)
		conflict(t, f, "a former revision", key, "three", first)
		e, err := f.Entry(t.Context(), key)
		must(t, err)
		same(t, "value", string(e.Value), "two")
		same(t, "revision", e.Revision, second)
		same(t, "key", e.Key, key)
		// Another key's change is no change of this one.
		put(t, f, key+"b", "x", 0)
		put(t, f, key, "", second)
		e, err = other.Entry(t.Context(), key)
		must(t, err)
		same(t, "an empty value", string(e.Value), "")
	}
}

func racingPuts(t *testing.T, o FleetOptions) {
	fleets := []engine.Fleet{o.Open(t)}
	for range 3 {
		fleets = append(fleets, o.Join(t))
	}
	rev := uint64(0)
	for round := range 5 {
		var won atomic.Uint64
		var winners atomic.Int32
		var wg sync.WaitGroup
		for i := range 4 * len(fleets) {
			wg.Go(func() {
				next, err := fleets[i%len(fleets)].Put(t.Context(), "run/race", fmt.Appendf(nil, "%d of round %d", i, round), rev)
				if err == nil {
					won.Store(next)
					winners.Add(1)
				} else if !errors.Is(err, engine.ErrConflict) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		same(t, "winners", winners.Load(), 1)
		rev = won.Load()
	}
}

func forget(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	ctx := t.Context()
	must(t, f.Forget(ctx, "run/none"))
	rev := put(t, f, "run/a", "one", 0)
	must(t, f.Forget(ctx, "run/a"))
	must(t, f.Forget(ctx, "run/a"))
	if _, err := f.Entry(ctx, "run/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a forgotten entry: %v, want fs.ErrNotExist", err)
	}
	all, err := f.Entries(ctx, "run/")
	must(t, err)
	same(t, "entries", len(all), 0)
	conflict(t, f, "the revision of a forgotten entry", "run/a", "x", rev)
	put(t, f, "run/a", "two", 0)
	e, err := f.Entry(ctx, "run/a")
	must(t, err)
	same(t, "value", string(e.Value), "two")
}

// list reads the entries until there are n: a replica may be a moment behind.
func list(t *testing.T, f engine.Fleet, prefix string, n int) []engine.Entry {
	t.Helper()
	for deadline := time.Now().Add(soon); ; time.Sleep(20 * time.Millisecond) {
		all, err := f.Entries(t.Context(), prefix)
		must(t, err)
		if len(all) == n || time.Now().After(deadline) {
			same(t, "entries of "+prefix, len(all), n)
			return all
		}
	}
}

func entries(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	const pause = 300 * time.Millisecond
	same(t, "no entries", len(list(t, f, "run/", 0)), 0)
	before := time.Now()
	put(t, f, "run/b", "b", 0)
	rev := put(t, f, "run/a", "a", 0)
	put(t, f, "order/a", "order", 0)
	put(t, f, "worker/w", "w", 0)
	time.Sleep(pause)
	put(t, f, "run/a", "newer", rev)
	all := list(t, o.Join(t), "run/", 2)
	most := time.Since(before)
	same(t, "keys", []string{all[0].Key, all[1].Key}, []string{"run/a", "run/b"})
	same(t, "value", string(all[0].Value), "newer")
	if all[1].Age < pause || all[1].Age > most {
		t.Errorf("an entry that was stored %v ago has the age %v", most, all[1].Age)
	}
	if all[0].Age > most-pause {
		t.Errorf("an entry that was replaced less than %v ago has the age %v", most-pause, all[0].Age)
	}
	e, err := f.Entry(t.Context(), "run/b")
	must(t, err)
	if since := time.Since(before); e.Age < all[1].Age || e.Age > since {
		t.Errorf("the entry's age is %v, then, at most %v after it was stored, %v", all[1].Age, since, e.Age)
	}
	// Many more than a watcher's buffer holds.
	for i := range 600 {
		put(t, f, fmt.Sprintf("many/%03d", i), "x", 0)
	}
	many := list(t, f, "many/", 600)
	same(t, "in order", slices.IsSortedFunc(many, func(a, b engine.Entry) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) }), true)
	same(t, "workers", len(list(t, f, "worker/", 1)), 1)
}

func badEntries(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	for _, key := range []string{"", "run/", "run/a b", "run/>", "run/*", "run/a.b"} {
		if _, err := f.Put(t.Context(), key, []byte("x"), 0); err == nil || errors.Is(err, engine.ErrConflict) {
			t.Errorf("key %q: %v, want it refused", key, err)
		}
	}
	if _, err := f.Put(t.Context(), "run/large", make([]byte, 512<<10+1), 0); err == nil {
		t.Error("a value beyond the limit was taken")
	}
	put(t, f, "run/large", string(make([]byte, 512<<10)), 0)
}

// watcher gathers what Watch tells.
type watcher struct {
	told  chan engine.Entry
	ended chan error
	stop  context.CancelFunc
}

func startWatch(t *testing.T, f engine.Fleet, prefix string) *watcher {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{make(chan engine.Entry, 100), make(chan error, 1), cancel}
	go func() { w.ended <- f.Watch(ctx, prefix, func(e engine.Entry) { w.told <- e }) }()
	t.Cleanup(cancel)
	return w
}

// next is the next thing told, within a time.
func (w *watcher) next(t *testing.T, within time.Duration) engine.Entry {
	t.Helper()
	select {
	case e := <-w.told:
		return e
	case err := <-w.ended:
		t.Fatalf("the watcher ended: %v", err)
	case <-time.After(within):
		t.Fatalf("the watcher was told nothing in %v", within)
	}
	return engine.Entry{}
}

// end stops the watcher, which must end without error.
func (w *watcher) end(t *testing.T) {
	t.Helper()
	w.stop()
	select {
	case err := <-w.ended:
		must(t, err)
	case <-time.After(soon):
		t.Fatal("the watcher did not end with its context")
	}
}

func watch(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	a := put(t, f, "order/a", "a", 0)
	put(t, f, "order/b", "b", 0)
	put(t, f, "run/a", "no order", 0)
	must(t, f.Forget(t.Context(), "order/b"))
	list(t, f, "order/", 1)

	w := startWatch(t, o.Join(t), "order/")
	seen := make(map[string]string)
	for e := w.next(t, soon); e.Key != ""; e = w.next(t, soon) {
		seen[e.Key] = string(e.Value)
	}
	delete(seen, "order/b") // may be told as removed
	same(t, "what is there", seen, map[string]string{"order/a": "a"})

	a = put(t, f, "order/a", "changed", a)
	e := w.next(t, soon)
	same(t, "a change", []any{e.Key, string(e.Value), e.Revision}, []any{"order/a", "changed", a})
	put(t, f, "order/c", "new", 0)
	e = w.next(t, soon)
	same(t, "a new one", []string{e.Key, string(e.Value)}, []string{"order/c", "new"})
	must(t, f.Forget(t.Context(), "order/a"))
	e = w.next(t, soon)
	same(t, "a removal", []string{e.Key, string(e.Value)}, []string{"order/a", ""})
	w.end(t)
}

func watchNothing(t *testing.T, o FleetOptions) {
	w := startWatch(t, o.Open(t), "order/")
	same(t, "what is told first", w.next(t, soon), engine.Entry{})
	w.end(t)
}

func watchRestart(t *testing.T, o FleetOptions) {
	if o.Restart == nil {
		t.Skip("this broker cannot be restarted")
	}
	f := o.Open(t)
	rev := put(t, f, "order/a", "a", 0)
	w := startWatch(t, f, "order/")
	same(t, "what is there", w.next(t, soon).Key, "order/a")
	same(t, "its end", w.next(t, soon).Key, "")
	o.Restart(t)
	put(t, f, "order/a", "changed", rev)
	put(t, f, "order/b", "new", 0)
	// What is known may be told again; what is new must be.
	seen := make(map[string]string)
	for seen["order/a"] != "changed" || seen["order/b"] != "new" {
		e := w.next(t, 6*soon) // a connection that hangs is found out by its heartbeats
		seen[e.Key] = string(e.Value)
	}
	w.end(t)
}

func ask(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	other := o.Join(t)
	stop, err := f.Answer("own.run", func(data []byte) []byte { return append([]byte("you said "), data...) })
	must(t, err)
	for _, from := range []engine.Fleet{other, f} {
		answer := answerTo(t, from, "own.run", "cancel")
		same(t, "the answer", answer, "you said cancel")
	}
	stop()
	// That nobody listens any more is news that travels.
	for deadline := time.Now().Add(4 * soon); !errors.Is(err, engine.ErrNobody); {
		if time.Now().After(deadline) {
			t.Fatalf("an answer after the stop: %v, want ErrNobody", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		var none []byte
		if none, err = other.Ask(ctx, "own.run", nil); err == nil {
			t.Fatalf("an answer after the stop: %q", none)
		}
		cancel()
	}
}

// answerTo asks until somebody listens: that they do is news that travels.
func answerTo(t *testing.T, f engine.Fleet, topic, data string) string {
	t.Helper()
	for deadline := time.Now().Add(4 * soon); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		answer, err := f.Ask(ctx, topic, []byte(data))
		cancel()
		if err == nil {
			return string(answer)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func askNobody(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	start := time.Now()
	if answer, err := f.Ask(t.Context(), "own.nobody", []byte("?")); !errors.Is(err, engine.ErrNobody) {
		t.Errorf("an answer of nobody: %q, %v, want ErrNobody", answer, err)
	}
	if took := time.Since(start); took > soon/2 {
		t.Errorf("that nobody is there took %v to learn", took)
	}
	must(t, f.Tell(t.Context(), "own.nobody", []byte("!")))
}

func tell(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	got := make(chan string, 100)
	var stops []func()
	for _, who := range []engine.Fleet{f, o.Join(t)} {
		var listens atomic.Bool
		stop, err := who.Answer("doing.run", func(data []byte) []byte {
			if string(data) == "are you there?" {
				listens.Store(true)
			} else {
				got <- string(data)
			}
			return nil
		})
		must(t, err)
		stops = append(stops, stop)
		for deadline := time.Now().Add(soon); !listens.Load(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("one who listens is told nothing")
			}
			must(t, f.Tell(t.Context(), "doing.run", []byte("are you there?")))
		}
	}
	must(t, f.Tell(t.Context(), "doing.run", []byte("news")))
	for range stops {
		select {
		case data := <-got:
			same(t, "what was told", data, "news")
		case <-time.After(soon):
			t.Fatal("not all were told")
		}
	}
	for _, stop := range stops {
		stop()
	}
	must(t, f.Tell(t.Context(), "doing.run", []byte("too late")))
	select {
	case data := <-got:
		t.Errorf("told after the stop: %q", data)
	case <-time.After(200 * time.Millisecond):
	}
}

func askForever(t *testing.T, o FleetOptions) {
	f := o.Open(t)
	done := make(chan struct{})
	stop, err := f.Answer("own.slow", func([]byte) []byte { <-done; return nil })
	must(t, err)
	defer stop()
	defer close(done)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := f.Ask(ctx, "own.slow", nil); err == nil || errors.Is(err, engine.ErrNobody) {
		t.Errorf("an answer that does not come: %v", err)
	}
	if took := time.Since(start); took > soon/2 {
		t.Errorf("the asker waited for %v", took)
	}
}

func askRestart(t *testing.T, o FleetOptions) {
	if o.Restart == nil {
		t.Skip("this broker cannot be restarted")
	}
	f := o.Open(t)
	other := o.Join(t)
	stop, err := f.Answer("own.run", func(data []byte) []byte { return data })
	must(t, err)
	defer stop()
	same(t, "before", answerTo(t, other, "own.run", "a"), "a")
	o.Restart(t)
	same(t, "after", answerTo(t, other, "own.run", "b"), "b")
}
