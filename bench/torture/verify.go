package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"myrmidon"
	"myrmidon/engine"
)

// place is an item's address.
type place struct {
	phase        string
	shard, index uint32
}

func (p place) String() string { return fmt.Sprintf("%s/%d/%d", p.phase, p.shard, p.index) }

// fate is what must become of an item.
type fate struct {
	parked   bool
	attempts uint32
	bytes    int64 // of its effect, if it is done
}

// fates says what must become of each item, whatever processes die. It is the rule of
// the engine's package comment, written down once more: three attempts, permanent
// errors are parked at once.
func (s spec) fates() map[place]fate {
	out := make(map[place]fate, s.Items+closings)
	for _, b := range s.blocks() {
		for i := b.first; i < b.first+b.count; i++ {
			f := s.fault(b.shard, i)
			end := fate{attempts: 1}
			if s.whole(b) {
				end.attempts = 2
			}
			switch {
			case f.permanent || f.times >= attempts:
				end.parked = true
				if !f.permanent {
					end.attempts = attempts
				}
			default:
				end.attempts = max(end.attempts, f.times+1)
				end.bytes = int64(len(s.content(phaseWork, b.shard, i)))
			}
			out[place{phaseNames[phaseWork], b.shard, i}] = end
		}
	}
	for i := range uint32(closings) {
		out[place{phaseNames[phaseClose], 0, i}] = fate{attempts: 1, bytes: int64(len(s.content(phaseClose, 0, i)))}
	}
	return out
}

// evidence is all that a run has left behind.
type evidence struct {
	effects  map[string]effect
	closedAt int // see effects.closedAt
	items    []engine.ItemReport
	report   *engine.Report
	info     engine.Info
}

// readItems reads a run's lines of evidence.
func readItems(r io.Reader) (out []engine.ItemReport, err error) {
	for dec := json.NewDecoder(r); ; {
		var it engine.ItemReport
		switch err := dec.Decode(&it); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return out, fmt.Errorf("torture: line %d of the evidence: %w", len(out)+1, err)
		}
		out = append(out, it)
	}
}

// complaints gathers what is wrong; of each kind only some are spelled out.
type complaints struct {
	out  []string
	seen map[string]int
}

// spelled is how many complaints of one kind are spelled out.
const spelled = 5

func (c *complaints) add(kind, format string, args ...any) {
	if c.seen == nil {
		c.seen = make(map[string]int)
	}
	if c.seen[kind]++; c.seen[kind] <= spelled {
		c.out = append(c.out, kind+": "+fmt.Sprintf(format, args...))
	}
}

func (c *complaints) list() []string {
	for _, kind := range slices.Sorted(maps.Keys(c.seen)) {
		if n := c.seen[kind]; n > spelled {
			c.out = append(c.out, fmt.Sprintf("%s: %d in all", kind, n))
		}
	}
	return c.out
}

// verify returns what is wrong with a run; nothing if each item's effect is there exactly
// once, as seen from outside, and the run says the same of itself.
func verify(s spec, ev evidence) []string {
	var c complaints
	want := s.fates()
	verifyEffects(&c, s, want, ev)
	verifyItems(&c, want, ev.items)
	verifyReport(&c, want, ev)
	return c.list()
}

func verifyEffects(c *complaints, s spec, want map[place]fate, ev evidence) {
	expected := make(map[string]string, len(want))
	work := 0
	for p, f := range want {
		if f.parked {
			continue
		}
		phase := slices.Index(phaseNames, p.phase)
		expected[s.name(uint32(phase), p.shard, p.index)] = s.content(uint32(phase), p.shard, p.index)
		if phase == phaseWork {
			work++
		}
	}
	for name, content := range expected {
		switch e, ok := ev.effects[name]; {
		case !ok:
			c.add("missing effect", "%s", name)
		case e.Content != content:
			c.add("wrong effect", "%s holds %q, want %q", name, e.Content, content)
		case e.Other != "":
			c.add("wrong effect", "%s held %q for a while, want %q", name, e.Other, content)
		}
	}
	for name, e := range ev.effects {
		if _, ok := expected[name]; !ok {
			c.add("unexpected effect", "%s holds %q", name, e.Content)
		}
	}
	if ev.closedAt >= 0 && ev.closedAt < work {
		c.add("phases", "close began when %d of %d effects of work were there", ev.closedAt, work)
	}
}

func verifyItems(c *complaints, want map[place]fate, items []engine.ItemReport) {
	times := make(map[place]int, len(want))
	for _, it := range items {
		p := place{it.Phase, it.Shard, it.Index}
		f, ok := want[p]
		if !ok || it.Name == "plan" {
			c.add("unexpected item", "%s %q: %s %s", p, it.Name, it.State, it.LastError)
			continue
		}
		if times[p]++; times[p] > 1 {
			c.add("item told of twice", "%s", p)
		}
		state := "done"
		if f.parked {
			state = "parked"
		}
		if it.State != state {
			c.add("state of an item", "%s is %s (%s), want %s", p, it.State, it.LastError, state)
		}
		if it.Attempts != f.attempts {
			c.add("attempts of an item", "%s had %d, want %d (%s)", p, it.Attempts, f.attempts, it.LastError)
		}
		if it.Bytes != f.bytes {
			c.add("bytes of an item", "%s has %d, want %d", p, it.Bytes, f.bytes)
		}
	}
	for p := range want {
		if times[p] == 0 {
			c.add("item not told of", "%s", p)
		}
	}
}

func verifyReport(c *complaints, want map[place]fate, ev evidence) {
	var all engine.Counts
	var bytes int64
	byPhase := make(map[string]engine.Counts)
	parked := make(map[place]int)
	for p, f := range want {
		n := byPhase[p.phase]
		n.Planned++
		if f.parked {
			n.Failed++
			parked[p] = 0
		} else {
			n.Done++
			bytes += f.bytes
		}
		n.Sealed = true
		byPhase[p.phase] = n
	}
	for _, n := range byPhase {
		all.Planned, all.Done, all.Failed, all.Sealed = all.Planned+n.Planned, all.Done+n.Done, all.Failed+n.Failed, true
	}
	state := myrmidon.Succeeded
	if all.Failed > 0 {
		state = myrmidon.Partial
	}
	if ev.report.State != state || ev.info.State != state {
		c.add("state of the run", "the report says %s, the registry %s, want %s", ev.report.State, ev.info.State, state)
	}
	if ev.report.Counts != all || ev.info.Counts != all {
		c.add("counts", "the report says %+v, the registry %+v, want %+v", ev.report.Counts, ev.info.Counts, all)
	}
	if ev.info.Totals.Bytes != bytes {
		c.add("bytes", "%d are counted, want %d", ev.info.Totals.Bytes, bytes)
	}
	for i, name := range phaseNames {
		if i >= len(ev.report.Phases) {
			c.add("phases", "%s is not in the report", name)
		} else if p := ev.report.Phases[i]; p.Name != name || !p.Ran || p.Counts != byPhase[name] {
			c.add("phases", "the report says %+v of phase %d, want %s %+v", p, i, name, byPhase[name])
		}
	}
	verifyParked(c, parked, ev.report.Parked)
	verifyOutputs(c, ev.report.Outputs)
}

// verifyParked compares what is parked with what must be, each item once.
func verifyParked(c *complaints, want map[place]int, got []engine.Parked) {
	for _, p := range got {
		if int(p.Job.Phase) >= len(phaseNames) || strings.HasSuffix(p.Job.Kind, ".plan") {
			c.add("parked", "%s %s: %s", p.ID, p.Job.Kind, p.Reason.Message)
			continue
		}
		for i := range p.Job.Items() {
			at := place{phaseNames[p.Job.Phase], p.Job.Shard, i}
			n, ok := want[at]
			if !ok {
				c.add("parked", "%s for %q, want it done", at, p.Reason.Message)
				continue
			}
			if want[at] = n + 1; n > 0 {
				c.add("parked", "%s %d times", at, n+1)
			}
		}
	}
	for p, n := range want {
		if n == 0 {
			c.add("not parked", "%s", p)
		}
	}
}

// verifyOutputs looks for the output of each job of the phase close, once.
func verifyOutputs(c *complaints, outputs []json.RawMessage) {
	var got []int
	for _, o := range outputs {
		var x closing
		if err := json.Unmarshal(o, &x); err != nil {
			c.add("outputs", "%s: %v", o, err)
		}
		got = append(got, int(x.Closed))
	}
	slices.Sort(got)
	var want []int
	for i := range closings {
		want = append(want, i)
	}
	if !slices.Equal(got, want) {
		c.add("outputs", "the report has those of %v, want %v", got, want)
	}
}

// repeats is how many writes were done again.
func repeats(seen map[string]effect) (n int) {
	for _, e := range seen {
		n += e.Puts - 1
	}
	return n
}
