package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
)

// emitted plans a phase as the engine does: shard after shard, slice after slice.
func emitted(t *testing.T, s spec, phase uint32) map[uint32][]myrmidon.Planned {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[uint32][]myrmidon.Planned)
	open := []myrmidon.Shard{{}}
	for len(open) > 0 {
		shard := open[0]
		open = open[1:]
		if _, twice := out[shard.ID]; twice {
			t.Fatalf("shard %d is opened twice", shard.ID)
		}
		out[shard.ID] = nil
		step := myrmidon.Step{Run: "r", Spec: text, Phase: phase, Shard: shard.ID, Cursor: shard.Cursor}
		for done := false; !done; {
			got, err := plan(t.Context(), step)
			if err != nil {
				t.Fatal(err)
			}
			again, err := plan(t.Context(), step)
			if err != nil || !cmp.Equal(got, again) {
				t.Fatalf("the same step gives two slices (%v): %s", err, cmp.Diff(got, again))
			}
			for _, j := range got.Jobs {
				step.Next += max(j.Count, 1)
			}
			out[shard.ID] = append(out[shard.ID], got.Jobs...)
			open = append(open, got.Children...)
			step.Cursor, done = got.Cursor, got.Done
		}
	}
	return out
}

func TestPlanEmitsEachItemOfTheSpecOnce(t *testing.T) {
	for seed := range uint64(50) {
		s := spec{Tag: "t", Seed: seed, Items: 1 + int(seed*97)}
		items := make(map[place]bool)
		for shard, jobs := range emitted(t, s, phaseWork) {
			next := uint32(0)
			for _, j := range jobs {
				if j.Count > myrmidon.MaxJobItems || j.Kind != kindShort && j.Kind != kindLong {
					t.Errorf("seed %d: a job %s of %d items", seed, j.Kind, j.Count)
				}
				for range j.Count {
					items[place{"work", shard, next}] = true
					next++
				}
			}
		}
		for i := range emitted(t, s, phaseClose)[0] {
			items[place{"close", 0, uint32(i)}] = true
		}
		if len(items) != s.Items+closings {
			t.Errorf("seed %d: %d items are planned, want %d", seed, len(items), s.Items+closings)
		}
		want := s.fates()
		if !slices.Equal(sorted(items), sorted(want)) {
			t.Errorf("seed %d: the items planned are not those that are verified", seed)
		}
	}
}

func sorted[V any](m map[place]V) (out []string) {
	for p := range maps.Keys(m) {
		out = append(out, p.String())
	}
	slices.Sort(out)
	return out
}

func TestPlanRefusesACursorThatIsNotItsOwn(t *testing.T) {
	s := spec{Seed: 1, Items: 1000}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		step myrmidon.Step
	}{
		{"of another shard", myrmidon.Step{Spec: text, Shard: 1, Cursor: json.RawMessage(`{"shard":0,"left":10}`)}},
		{"of another item", myrmidon.Step{Spec: text, Next: 10, Cursor: json.RawMessage(`{"shard":0,"left":1}`)}},
		{"that is no JSON", myrmidon.Step{Spec: text, Cursor: json.RawMessage(`{`)}},
		{"of a shard that is not there", myrmidon.Step{Spec: text, Shard: 99}},
		{"for a spec that is no JSON", myrmidon.Step{Spec: json.RawMessage(`{`)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := plan(t.Context(), tt.step); !myrmidon.IsPermanent(err) {
				t.Errorf("plan: %v, want a permanent error", err)
			}
		})
	}
}

// TestHandlerGivesEachItemItsFate runs each job as the engine does, attempt by attempt.
func TestHandlerGivesEachItemItsFate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSpec(t)
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[place]fate)
		put := make(map[string]string)
		h := handler{func(_ context.Context, name, content string) error {
			put[name] = content
			return nil
		}}
		for _, b := range s.blocks() {
			job := myrmidon.Job{Kind: b.kind(), Long: b.long, Shard: b.shard, First: b.first, Count: b.count, Attempt: 1, Spec: text}
			for left := true; left; job.Attempt++ {
				out, err := h.Handle(t.Context(), job)
				job.Only, left = outcomeOf(got, job, out, err)
			}
		}
		for p, want := range s.fates() {
			if p.phase == "close" {
				continue
			}
			if got[p] != want {
				t.Errorf("%s: the handler makes it %+v, the verifier wants %+v", p, got[p], want)
			}
			if _, done := put[s.name(phaseWork, p.shard, p.index)]; done == want.parked {
				t.Errorf("%s: parked %v, its effect is there %v", p, want.parked, done)
			}
		}
	})
}

// outcomeOf notes what came of an attempt and returns the items that are left.
func outcomeOf(got map[place]fate, job myrmidon.Job, out myrmidon.Result, err error) (only []uint32, left bool) {
	named := make(map[uint32]myrmidon.ItemResult)
	for _, it := range out.Items {
		named[it.Index] = it
	}
	for i := range job.Items() {
		it := named[i]
		f := it.Error
		if _, ok := named[i]; !ok {
			f = myrmidon.AsFailure(err)
		}
		at := place{"work", job.Shard, i}
		switch {
		case f == nil:
			got[at] = fate{attempts: job.Attempt, bytes: it.Bytes}
		case f.Permanent || job.Attempt >= attempts:
			got[at] = fate{parked: true, attempts: job.Attempt}
		default:
			only = append(only, i)
		}
	}
	return only, len(only) > 0
}

func TestEffectIsStoredOnceTheServerAnswers(t *testing.T) {
	// A socket that does not listen yet refuses, and its port is nobody else's.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fd), "a server to be")
	defer socket.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	stored := make(chan error, 1)
	go func() { stored <- newOutside(addr).put(t.Context(), "t/close/0/0", "x") }()
	time.Sleep(50 * time.Millisecond) // it is refused meanwhile, at least once
	if err := syscall.Listen(fd, 16); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(socket)
	if err != nil {
		t.Fatal(err)
	}
	e := serveEffects(l)
	defer e.close()
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	o := newOutside(addr)
	for _, put := range [][2]string{{"t/work/0/0", "a"}, {"t/work/0/0", "a"}, {"t/work/0/1", "a"}, {"t/work/0/1", "b"}} {
		if err := o.put(t.Context(), put[0], put[1]); err != nil {
			t.Fatal(err)
		}
	}
	got, closedAt := e.seen()
	want := map[string]effect{"t/close/0/0": {1, "x", ""}, "t/work/0/0": {2, "a", ""}, "t/work/0/1": {2, "b", "a"}}
	if diff := cmp.Diff(want, got); diff != "" || closedAt != 0 {
		t.Errorf("the server saw (-want +got), closed at %d:\n%s", closedAt, diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newOutside("127.0.0.1:1").put(ctx, "t/work/0/0", "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a put that is stopped: %v, want %v", err, context.Canceled)
	}
}

func TestScheduleStrikesNobodyTwiceAtATime(t *testing.T) {
	victims := setting{brokers: 3, workers: 3}.victims()
	var kinds [3]int
	gone := 0
	for seed := range uint64(200) {
		const until, end = 10 * time.Second, 14 * time.Second
		all := schedule(rand.New(rand.NewPCG(seed, 1)), victims, until, end)
		if again := schedule(rand.New(rand.NewPCG(seed, 1)), victims, until, end); !slices.Equal(all, again) {
			t.Fatalf("seed %d gives two schedules", seed)
		}
		struck := make(map[string]int)
		for _, s := range steps(all) {
			if s.begin {
				struck[s.victim]++
				kinds[s.kind]++
			} else {
				struck[s.victim]--
			}
			if s.at > end || struck[s.victim] > 1 || struck["n1"]+struck["n2"]+struck["n3"] > 1 {
				t.Errorf("seed %d: at %v, %v are struck", seed, s.at, struck)
			}
		}
		delete(struck, ownerName)
		for v, n := range struck {
			if n != 0 {
				t.Errorf("seed %d: %s is left struck", seed, v)
			}
		}
		for _, s := range all {
			if s.forever {
				gone++
				if s.victim != ownerName {
					t.Errorf("seed %d: %s", seed, s)
				}
			}
		}
	}
	if slices.Contains(kinds[:], 0) || gone == 0 {
		t.Errorf("kills, pauses, cuts: %v, owners that stay dead: %d; want some of each", kinds, gone)
	}
}
