package clone

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"myrmidon"
	"myrmidon/object"
)

// drive is a run without an engine: all shards of a phase are planned and its jobs done, in
// a random order, with everything passing through JSON as it does on a queue.
type drive struct {
	t        testing.TB
	spec     Spec
	raw      json.RawMessage
	workload myrmidon.Workload
	random   *rand.Rand

	notes  []json.RawMessage
	items  map[string]Evidence // of all phases, by action and key
	failed map[string]*myrmidon.Failure
	shards int // in all
	jobs   int
}

func newDrive(t testing.TB, spec Spec, stores map[string]object.Store) *drive {
	t.Helper()
	if spec.Compare == "" {
		spec.Compare = CompareTime
	}
	if spec.MaxDelete == 0 {
		spec.MaxDelete = -1
	}
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	open := func(address string) (object.Store, error) {
		s, ok := stores[address]
		if !ok {
			return nil, fmt.Errorf("no store %q", address)
		}
		return s, nil
	}
	return &drive{
		t: t, spec: spec, raw: raw, workload: Workload(Config{Open: open}), random: rand.New(rand.NewPCG(1, 2)),
		items: make(map[string]Evidence), failed: make(map[string]*myrmidon.Failure),
	}
}

// run does all phases; a phase after failures only where the workload says so.
func (d *drive) run(ctx context.Context) error {
	d.t.Helper()
	for p, phase := range d.workload.Phases {
		if len(d.failed) > 0 && !phase.AfterFailures {
			return nil
		}
		if err := d.phase(ctx, uint32(p)); err != nil {
			return err
		}
	}
	return nil
}

func (d *drive) phase(ctx context.Context, phase uint32) error {
	type plan struct {
		shard, next uint32
		cursor      json.RawMessage
	}
	seen := map[uint32]bool{0: true}
	todo := []plan{{}}
	var jobs []myrmidon.Job
	for len(todo) > 0 {
		i := d.random.IntN(len(todo))
		at := todo[i]
		todo = slices.Delete(todo, i, i+1)
		s, err := d.workload.Planner.Plan(ctx, myrmidon.Step{Run: "RUN", Spec: d.raw, Phase: phase, Shard: at.shard, Next: at.next, Cursor: at.cursor})
		if err != nil {
			return err
		}
		if len(s.Jobs)+len(s.Children) > 900 {
			d.t.Fatalf("a slice of %d jobs and %d shards", len(s.Jobs), len(s.Children))
		}
		if len(s.Note) > 0 {
			d.notes = append(d.notes, s.Note)
		}
		for _, c := range s.Children {
			if seen[c.ID] {
				d.t.Fatalf("shard %d is opened twice", c.ID)
			}
			seen[c.ID] = true
			todo = append(todo, plan{c.ID, 0, c.Cursor})
		}
		for _, j := range s.Jobs {
			if len(j.Spec) > myrmidon.MaxJobSpec || j.Count > myrmidon.MaxJobItems {
				d.t.Fatalf("a job of %d items has a spec of %d bytes", j.Count, len(j.Spec))
			}
			jobs = append(jobs, myrmidon.Job{Kind: j.Kind, Run: "RUN", Phase: phase, Shard: at.shard, First: at.next, Count: j.Count, Attempt: 1, Spec: j.Spec})
			at.next += j.Count
		}
		if !s.Done {
			todo = append(todo, plan{at.shard, at.next, s.Cursor})
		}
	}
	d.shards += len(seen)
	d.jobs += len(jobs)
	d.random.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
	for _, j := range jobs {
		if err := d.do(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

// do does a job, and once more what failed for a moment.
func (d *drive) do(ctx context.Context, j myrmidon.Job) error {
	i := slices.IndexFunc(d.workload.Kinds, func(k myrmidon.Kind) bool { return k.Name == j.Kind })
	res, err := d.workload.Kinds[i].Handler.Handle(ctx, j)
	if err != nil {
		return err
	}
	var again []uint32
	for _, it := range res.Items {
		if it.Error != nil {
			if !it.Error.Permanent && j.Attempt < 3 {
				again = append(again, it.Index)
			} else {
				d.failed[it.Name] = it.Error
			}
			continue
		}
		var e Evidence
		if err := json.Unmarshal(it.Note, &e); err != nil {
			d.t.Fatal(err)
		}
		d.items[e.Action+" "+it.Name] = e
	}
	if len(again) > 0 {
		j.Only, j.Attempt = again, j.Attempt+1
		return d.do(ctx, j)
	}
	return nil
}

// keys are those of the evidence of an action.
func (d *drive) keys(action string) (out []string) {
	for k := range d.items {
		if a, key, _ := strings.Cut(k, " "); a == action {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// put stores an object for each key, whose bytes are the key unless body says otherwise.
func put(t testing.TB, s object.Store, body func(key string) string, keys ...string) {
	t.Helper()
	for _, k := range keys {
		text := k
		if body != nil {
			text = body(k)
		}
		if err := s.Put(context.Background(), k, strings.NewReader(text), int64(len(text)), object.Attrs{}); err != nil {
			t.Fatal(err)
		}
	}
}

// contents are all objects of a store.
func contents(t testing.TB, s object.Store) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for info, err := range s.List(context.Background(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := s.Get(context.Background(), info.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, info.Size)
		if _, err := r.Read(b); err != nil && info.Size > 0 {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		out[info.Key] = string(b)
	}
	return out
}

// pages counts requests for pages, and may change their answers.
type pages struct {
	object.Store
	mu     sync.Mutex
	n      int
	change func(after string, page []object.Info, more bool) ([]object.Info, bool, error)
}

func (p *pages) Page(ctx context.Context, prefix, after string, most int) ([]object.Info, bool, error) {
	page, more, err := p.Store.(object.Pager).Page(ctx, prefix, after, most)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	if p.change != nil && err == nil {
		return p.change(after, slices.Clone(page), more)
	}
	return page, more, err
}
