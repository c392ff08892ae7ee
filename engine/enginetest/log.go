package enginetest

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
)

type entry struct {
	Seq  uint64
	Step uint32
}

func read(t *testing.T, b engine.Backend, run string, after uint64) (out []entry) {
	t.Helper()
	must(t, b.Read(t.Context(), run, after, false, func(seq uint64, e engine.Event) error {
		out = append(out, entry{seq, e.Step})
		return nil
	}))
	return out
}

func logOrder(t *testing.T, o Options) {
	b := open(t, o)
	same(t, "an empty log", len(read(t, b, runID, 0)), 0)
	const n = 50
	for i := range n {
		e := planned(uint32(i))
		must(t, store(t, b, nil, e, engine.Cursor{}))
		e.Run = "01K000000000000000000OTHER"
		must(t, store(t, b, nil, e, engine.Cursor{}))
	}
	all := read(t, b, runID, 0)
	if len(all) != n {
		t.Fatalf("read %d events, want %d", len(all), n)
	}
	for i, e := range all {
		if e.Step != uint32(i) || i > 0 && e.Seq <= all[i-1].Seq {
			t.Fatalf("event %d is step %d with sequence %d", i, e.Step, e.Seq)
		}
	}
	same(t, "the tail", read(t, b, runID, all[n-3].Seq), all[n-2:])
	same(t, "behind the end", len(read(t, b, runID, all[n-1].Seq)), 0)
	stop := errors.New("stop")
	if err := b.Read(t.Context(), runID, 0, false, func(uint64, engine.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of the callback came out as %v", err)
	}
}

func follow(t *testing.T, o Options) {
	b := open(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan uint32)
	ended := make(chan error)
	go func() {
		ended <- b.Read(ctx, runID, 0, true, func(_ uint64, e engine.Event) error {
			got <- e.Step
			return nil
		})
	}()
	for i := range uint32(5) {
		must(t, store(t, b, nil, planned(i), engine.Cursor{}))
		select {
		case step := <-got:
			same(t, "step", step, i)
		case <-time.After(soon):
			t.Fatalf("event %d did not come", i)
		}
	}
	cancel()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(soon):
		t.Fatal("the follower did not end")
	}
}

// purgedLog is a reader who counts on events that another process forgets meanwhile.
func purgedLog(t *testing.T, o Options) {
	b := open(t, o)
	const n = 5000 // more than a reader fetches at once
	for i := 0; i < n; i += engine.MaxBatch {
		var es []engine.Event
		for j := range engine.MaxBatch {
			es = append(es, planned(uint32(i+j)))
		}
		must(t, b.Commit(t.Context(), engine.Batch{Events: es}))
	}
	ended := make(chan error, 1)
	read := 0
	go func() {
		ended <- b.Read(t.Context(), runID, 0, false, func(uint64, engine.Event) error {
			if read++; read == 1 {
				return b.Purge(t.Context(), runID, 0)
			}
			return nil
		})
	}()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(4 * soon):
		t.Fatal("the reader waits for events that are gone")
	}
	if read < 1 || read > n {
		t.Errorf("read %d events of %d", read, n)
	}
}

func followNothing(t *testing.T, o Options) {
	b := open(t, o)
	must(t, store(t, b, nil, planned(1), engine.Cursor{}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, b.Read(ctx, runID, 0, true, func(uint64, engine.Event) error { return nil }))
}

func purge(t *testing.T, o Options) {
	b := open(t, o)
	other := job(1)
	other.Run = "01K000000000000000000OTHER"
	must(t, store(t, b, jobs(0, 3), planned(1), engine.Cursor{Run: runID, Steps: 1}))
	must(t, again(t, b, job(9), 0))
	must(t, enqueue(t, b, []myrmidon.Job{other}))
	must(t, b.Purge(t.Context(), runID, 0))
	must(t, b.Purge(t.Context(), runID, 0))
	ds := pull(t, b, 1, false)
	same(t, "what is left", ds[0].Job().Run, other.Run)
	none(t, b, false)
	none(t, b, true)
	same(t, "events", len(read(t, b, runID, 0)), 0)
	c, err := b.Cursor(t.Context(), runID, 0, 0)
	must(t, err)
	same(t, "cursor", c.Seq, 0)
}

func purgeThrough(t *testing.T, o Options) {
	b := open(t, o)
	must(t, store(t, b, jobs(0, 2), planned(1), engine.Cursor{Run: runID, Steps: 1}))
	end := read(t, b, runID, 0)[0].Seq
	must(t, store(t, b, jobs(2, 1), planned(2), engine.Cursor{}))
	must(t, b.Purge(t.Context(), runID, end))
	same(t, "events", len(read(t, b, runID, 0)), 1)
	same(t, "jobs", firsts(pull(t, b, 1, false)), []int{2})
	none(t, b, false)
	c, err := b.Cursor(t.Context(), runID, 0, 0)
	must(t, err)
	same(t, "cursor", c.Steps, 0)
}

func blobs(t *testing.T, o Options) {
	b := open(t, o)
	ctx := t.Context()
	if _, err := b.Value(ctx, "no/such"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that is not set: %v, want fs.ErrNotExist", err)
	}
	keys, err := b.Keys(ctx, "")
	must(t, err)
	same(t, "no keys", keys, nil)
	for _, k := range []string{"a/2", "a/1", "b/1", "a/10"} {
		must(t, b.Set(ctx, k, []byte(k)))
	}
	must(t, b.Set(ctx, "a/2", []byte("new")))
	keys, err = b.Keys(ctx, "a/")
	must(t, err)
	same(t, "keys", keys, []string{"a/1", "a/10", "a/2"})
	v, err := b.Value(ctx, "a/2")
	must(t, err)
	same(t, "value", string(v), "new")
	must(t, b.Unset(ctx, "a/2"))
	must(t, b.Unset(ctx, "a/2"))
	keys, err = b.Keys(ctx, "a/")
	must(t, err)
	same(t, "keys after one is unset", slices.Contains(keys, "a/2"), false)
	must(t, b.Set(ctx, "large", make([]byte, 512<<10)))
	v, err = b.Value(ctx, "large")
	must(t, err)
	same(t, "size", len(v), 512<<10)
	if err := b.Set(ctx, "larger", make([]byte, 512<<10+1)); err == nil {
		t.Error("a value beyond the limit was taken")
	}
	if err := b.Set(ctx, "bad key", nil); err == nil {
		t.Error("a key with a space was taken")
	}
}
