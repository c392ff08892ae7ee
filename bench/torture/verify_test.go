package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/engine"
)

// perfect is the evidence of a run that went as it must.
func perfect(s spec) evidence {
	ev := evidence{effects: make(map[string]effect), report: &engine.Report{State: myrmidon.Partial}}
	phases := []engine.PhaseReport{{Name: "work", Ran: true}, {Name: "close", Ran: true}}
	for p, f := range s.fates() {
		phase := uint32(slices.Index(phaseNames, p.phase))
		it := engine.ItemReport{Phase: p.phase, Shard: p.shard, Index: p.index, State: "done", Attempts: f.attempts, Bytes: f.bytes}
		phases[phase].Planned++
		if f.parked {
			it.State = "parked"
			phases[phase].Failed++
			ev.report.Parked = append(ev.report.Parked, engine.Parked{Job: myrmidon.Job{Phase: phase, Shard: p.shard, First: p.index, Count: 1}})
		} else {
			phases[phase].Done++
			ev.effects[s.name(phase, p.shard, p.index)] = effect{Puts: 1, Content: s.content(phase, p.shard, p.index)}
			ev.info.Totals.Bytes += f.bytes
			if phase == phaseWork {
				ev.closedAt++
			}
		}
		ev.items = append(ev.items, it)
	}
	for i := range phases {
		phases[i].Sealed = true
		ev.report.Counts.Planned += phases[i].Planned
		ev.report.Counts.Done += phases[i].Done
		ev.report.Counts.Failed += phases[i].Failed
	}
	for i := range closings {
		text, err := json.Marshal(closing{uint32(i)})
		if err != nil {
			panic(err)
		}
		ev.report.Outputs = append(ev.report.Outputs, text)
	}
	ev.report.Phases, ev.report.Counts.Sealed = phases, true
	ev.info.State, ev.info.Counts = ev.report.State, ev.report.Counts
	return ev
}

// testSpec has items of each fate.
func testSpec(t *testing.T) spec {
	t.Helper()
	s := spec{Tag: "t", Seed: 1, Items: 2000}
	var kinds [5]int
	for _, f := range s.fates() {
		switch {
		case f.parked && f.attempts == attempts:
			kinds[4]++
		case f.parked:
			kinds[3]++
		default:
			kinds[f.attempts-1]++
		}
	}
	if slices.Contains(kinds[:], 0) {
		t.Fatalf("of 2000 items %v were done after 1, 2 and 3 attempts, parked for good and after 3: some are not there", kinds)
	}
	return s
}

func TestVerify(t *testing.T) {
	s := testSpec(t)
	if got := verify(s, perfect(s)); len(got) > 0 {
		t.Fatalf("a perfect run: %q", got)
	}
	item := func(ev *evidence, state string) *engine.ItemReport {
		for i := range ev.items {
			if ev.items[i].State == state && ev.items[i].Phase == "work" {
				return &ev.items[i]
			}
		}
		t.Fatalf("no item is %s", state)
		return nil
	}
	name := func(ev *evidence) string { return slices.Min(slices.Collect(maps.Keys(ev.effects))) }
	for _, tt := range []struct {
		name string
		do   func(ev *evidence)
		want string // begins a complaint
	}{
		{"an effect that is missing", func(ev *evidence) { delete(ev.effects, name(ev)) }, "missing effect: t/close/0/0"},
		{"an effect with another item's content", func(ev *evidence) {
			ev.effects[name(ev)] = effect{Puts: 1, Content: s.content(phaseWork, 0, 0)}
		}, "wrong effect: t/close/0/0"},
		{"an effect that was wrong for a while", func(ev *evidence) {
			ev.effects[name(ev)] = effect{Puts: 3, Content: ev.effects[name(ev)].Content, Other: "other"}
		}, "wrong effect: t/close/0/0 held"},
		{"an effect of an item that must be parked", func(ev *evidence) {
			it := item(ev, "parked")
			ev.effects[s.name(phaseWork, it.Shard, it.Index)] = effect{Puts: 1}
		}, "unexpected effect: t/work/"},
		{"an effect of no item", func(ev *evidence) { ev.effects["t/work/0/99999"] = effect{Puts: 1} }, "unexpected effect: t/work/0/99999"},
		{"an item that is told of twice as done", func(ev *evidence) { ev.items = append(ev.items, *item(ev, "done")) }, "item told of twice: work/"},
		{"an item that is told of twice as parked", func(ev *evidence) { ev.items = append(ev.items, *item(ev, "parked")) }, "item told of twice: work/"},
		{"an item that is not told of", func(ev *evidence) { ev.items = ev.items[1:] }, "item not told of: "},
		{"an item that nobody planned", func(ev *evidence) {
			ev.items = append(ev.items, engine.ItemReport{Phase: "work", Shard: 99})
		}, "unexpected item: work/99/0"},
		{"a plan that was parked", func(ev *evidence) {
			ev.items = append(ev.items, engine.ItemReport{Phase: "work", Name: "plan", State: "parked"})
		}, "unexpected item: work/0/0"},
		{"an item that was parked and should be done", func(ev *evidence) { item(ev, "done").State = "parked" }, "state of an item: "},
		{"an item that had one attempt more", func(ev *evidence) { item(ev, "done").Attempts++ }, "attempts of an item: "},
		{"an item with the bytes of another", func(ev *evidence) { item(ev, "done").Bytes++ }, "bytes of an item: "},
		{"a run that says it failed", func(ev *evidence) { ev.info.State = myrmidon.Failed }, "state of the run: "},
		{"a report that counts one more", func(ev *evidence) { ev.report.Counts.Done++ }, "counts: "},
		{"a registry that counts one less", func(ev *evidence) { ev.info.Counts.Planned-- }, "counts: "},
		{"a phase that counts one more", func(ev *evidence) { ev.report.Phases[0].Done++ }, "phases: "},
		{"a phase that is not in the report", func(ev *evidence) { ev.report.Phases = ev.report.Phases[:1] }, "phases: close"},
		{"bytes that were counted twice", func(ev *evidence) { ev.info.Totals.Bytes++ }, "bytes: "},
		{"a second phase that began before the first one's last effect", func(ev *evidence) { ev.closedAt-- }, "phases: close began"},
		{"an item that is not parked", func(ev *evidence) { ev.report.Parked = ev.report.Parked[1:] }, "not parked: work/"},
		{"an item that is parked twice", func(ev *evidence) { ev.report.Parked = append(ev.report.Parked, ev.report.Parked[0]) }, "parked: work/"},
		{"an item that is parked and was to be done", func(ev *evidence) {
			ev.report.Parked = append(ev.report.Parked, engine.Parked{Job: myrmidon.Job{Phase: phaseClose, Count: 1}})
		}, "parked: close/0/0"},
		{"a plan among what is parked", func(ev *evidence) {
			ev.report.Parked = append(ev.report.Parked, engine.Parked{ID: "0-0-plan-0", Job: myrmidon.Job{Kind: "torture.plan"}})
		}, "parked: 0-0-plan-0"},
		{"an output that is there twice", func(ev *evidence) { ev.report.Outputs = append(ev.report.Outputs, ev.report.Outputs[0]) }, "outputs: "},
		{"an output that is missing", func(ev *evidence) { ev.report.Outputs = ev.report.Outputs[1:] }, "outputs: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ev := perfect(s)
			tt.do(&ev)
			got := verify(s, ev)
			if !slices.ContainsFunc(got, func(c string) bool { return strings.HasPrefix(c, tt.want) }) {
				t.Errorf("verify complains %q, want %q among it", got, tt.want)
			}
		})
	}
}

func TestManyComplaintsOfAKindAreCounted(t *testing.T) {
	s := testSpec(t)
	ev := perfect(s)
	ev.effects = nil
	got := verify(s, ev)
	if len(got) != spelled+1 || got[spelled] != "missing effect: 1999 in all" {
		missing := 0
		for _, f := range s.fates() {
			if !f.parked {
				missing++
			}
		}
		t.Errorf("verify complains %q; %d effects are missing", got, missing)
	}
}

func TestReadItemsRefusesWhatIsCutOff(t *testing.T) {
	items, err := readItems(strings.NewReader(`{"phase":"work","index":1}` + "\n" + `{"phase":`))
	if err == nil || len(items) != 1 {
		t.Errorf("readItems of a torn file: %d items, %v; want 1 and an error", len(items), err)
	}
}
