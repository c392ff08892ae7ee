package clone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/clone/documents"
	"myrmidon/internal/testkit/long"
	"myrmidon/object"
)

// controlled is a run with documents.
func controlled(t *testing.T, src, dst, docs object.Store) *drive {
	t.Helper()
	spec := Spec{Source: "src", Destination: "dst", Control: &Control{
		Address: "docs", Folder: "ID", ID: "ID",
		Source: documents.Side{Name: "from", Prefix: "below/"}, Destination: documents.Side{Name: "into"},
	}}
	return newDrive(t, spec, map[string]object.Store{"src": src, "dst": dst, "docs": docs})
}

// told are all documents of a run, which must agree with one another and with what was copied.
func told(t *testing.T, d *drive, docs object.Store) (manifest documents.Response, answers map[string]documents.SegmentResponse) {
	t.Helper()
	f := documents.Folder{Store: docs, Path: "ID"}
	manifest, err := f.Response(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := f.Segments(t.Context(), manifest)
	if err != nil {
		t.Fatal(err)
	}
	all := contents(t, docs)
	answers = make(map[string]documents.SegmentResponse)
	copied := make(map[string]int)
	for _, key := range keys {
		a, err := f.SegmentResponse(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		var q documents.SegmentRequest
		if err := json.Unmarshal([]byte(all[key]), &q); err != nil {
			t.Fatalf("%s: %v: %q", key, err, all[key])
		}
		if q.Source != a.Source || q.Run != a.Run || q.Run != "RUN" || q.ID != "ID" || q.Count != len(a.Files)+len(a.Failed) || q.Destination.Name != "into" {
			t.Errorf("%s: asked %+v, answered %+v", key, q, a)
		}
		for _, k := range a.Files {
			copied[string(k)]++
			in := strings.HasPrefix(string(k), string(q.Source.Prefix)) && q.Source.First == ""
			if !in && (k < q.Source.First || k > q.Source.Last) {
				t.Errorf("%s has %q, and asks for %+v", key, k, q.Source)
			}
		}
		answers[strings.TrimSuffix(strings.TrimPrefix(key, "ID/"), "-segment-request")] = a
	}
	if len(answers) != len(keys) {
		t.Errorf("%d segments have %d names", len(keys), len(answers))
	}
	want := make(map[string]int)
	for _, k := range d.keys("copy") {
		want["below/"+k] = 1
	}
	if diff := cmp.Diff(want, copied); diff != "" {
		t.Errorf("copied and told of:\n%s", diff)
	}
	for key := range all {
		if strings.HasSuffix(key, "-partial") {
			t.Errorf("%s is left", key)
		}
		if name, ok := strings.CutSuffix(key, "-segment-response"); ok && !slices.Contains(keys, name+"-segment-request") {
			t.Errorf("%s is not in the manifest", key)
		}
	}
	return manifest, answers
}

// What the article's functions did not do: keys without a prefix, more than 1,000 keys of a
// prefix, and "a/b" beside "ab".
func TestDocumentsTellOfEachObjectOnce(t *testing.T) {
	src := object.NewMem()
	dst, docs, log := ledgers()
	put(t, src, nil, manyKeys(2500, "films/%05d/index.m3u8")...)
	for p := range 195 {
		put(t, src, nil, manyKeys(20, fmt.Sprintf("p%03d", p)+"/%02d")...)
	}
	put(t, src, nil, "a/b/1", "a/c", "ab/1", "top", "ab", "Ä ö/1", strings.Repeat("long", 100)+"/1")
	d := controlled(t, src, dst, docs)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents(t, src), contents(t, dst)); diff != "" {
		t.Error(diff)
	}
	m, answers := told(t, d, docs)
	if m.ID != "ID" || m.Run != "RUN" || m.Source.Name != "from" || m.State != "" || m.Segments.Count != len(answers) {
		t.Errorf("%+v", m)
	}
	if a := answers["a"]; !slices.Equal(a.Files, []documents.Key{"below/a/b/1", "below/a/c"}) || a.Source.Prefix != "below/a/" {
		t.Errorf("a/: %+v", a)
	}
	if a := answers["ab"]; !slices.Equal(a.Files, []documents.Key{"below/ab/1"}) {
		t.Errorf("ab/: %+v", a)
	}
	whole := 0
	for p := range 195 {
		if a, ok := answers[fmt.Sprintf("p%03d", p)]; ok && len(a.Files) == 20 {
			whole++
		}
	}
	if whole < 180 { // the others are cut by the ends of pages and ranges
		t.Errorf("%d of 195 prefixes are segments", whole)
	}
	if n := count(*log, "ID/clone-response"); n != 1 || d.shards < 5 {
		t.Errorf("the manifest was written %d times for %d shards", n, d.shards)
	}
	t.Logf("%d segments, %d of 195 prefixes whole", len(answers), whole)
}

func TestAManifestOfManySegmentsHasPages(t *testing.T) {
	long.Test(t)
	src, dst, docs := object.NewMem(), object.NewMem(), object.NewMem()
	put(t, src, nil, manyKeys(6000, "p%05d/only")...) // so many folders in a slice share segments
	for p := range 1500 {
		put(t, src, nil, manyKeys(6, fmt.Sprintf("q%04d", p)+"/%d")...)
	}
	d := controlled(t, src, dst, docs)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, answers := told(t, d, docs)
	if len(m.Segments.Values) > 0 || len(m.Segments.Pages) < 2 || m.Segments.Count != len(answers) {
		t.Errorf("%d segments: %d values, %d pages", m.Segments.Count, len(m.Segments.Values), len(m.Segments.Pages))
	}
}

func TestAnEmptyCloneHasAManifest(t *testing.T) {
	src, dst, docs := object.NewMem(), object.NewMem(), object.NewMem()
	d := controlled(t, src, dst, docs)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m, answers := told(t, d, docs); len(answers) != 0 || m.Segments.Values == nil {
		t.Errorf("%+v", m)
	}
}

// logged writes down what is put, in order, over several stores; and fails some of it.
type logged struct {
	*object.Mem
	mu   *sync.Mutex
	log  *[]string
	fail func(key string) error
}

func (l *logged) Put(ctx context.Context, key string, body io.Reader, size int64, a object.Attrs) error {
	if l.fail != nil {
		if err := l.fail(key); err != nil {
			return err
		}
	}
	err := l.Mem.Put(ctx, key, body, size, a)
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.log = append(*l.log, key)
	return err
}

func ledgers() (dst, docs *logged, log *[]string) {
	log = new([]string)
	mu := new(sync.Mutex)
	return &logged{Mem: object.NewMem(), mu: mu, log: log}, &logged{Mem: object.NewMem(), mu: mu, log: log}, log
}

func TestASegmentIsAskedForBeforeAndAnsweredAfterItsCopies(t *testing.T) {
	src := object.NewMem()
	put(t, src, nil, manyKeys(30, "a/%02d")...)
	put(t, src, nil, manyKeys(30, "b/%02d")...)
	dst, docs, log := ledgers()
	d := controlled(t, src, dst, docs)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	told(t, d, docs)
	at := func(key string) int { return slices.Index(*log, key) }
	for _, p := range []string{"a", "b"} {
		asked, answered := at("ID/"+p+"-segment-request"), at("ID/"+p+"-segment-response")
		for i := range 30 {
			if c := at(fmt.Sprintf("%s/%02d", p, i)); c < asked || c > answered || asked < 0 {
				t.Errorf("%s: asked %d, copied %d, answered %d", p, asked, c, answered)
			}
		}
		if m := at("ID/clone-response"); m < 0 || m > answered {
			t.Errorf("the manifest came %d, with all planned before the answer %d", m, answered)
		}
	}
}

func TestWhatFailsIsInTheAnswer(t *testing.T) {
	src := object.NewMem()
	put(t, src, nil, "a/denied", "a/flaky", "a/fine", "a/never")
	dst, docs, log := ledgers()
	tries := make(map[string]int)
	dst.fail = func(key string) error {
		dst.mu.Lock()
		defer dst.mu.Unlock()
		tries[key]++
		switch {
		case key == "a/denied" && tries[key] == 1: // and not before somebody retries it
			return myrmidon.Permanent(errors.New("access denied"))
		case key == "a/flaky" && tries[key] < 3, key == "a/never" && tries[key] < 4:
			return errors.New("come again")
		}
		return nil
	}
	d := controlled(t, src, dst, docs)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, answers := told(t, d, docs)
	a := answers["a"]
	if !slices.Equal(a.Files, []documents.Key{"below/a/fine", "below/a/flaky"}) || len(a.Failed) != 2 ||
		a.Failed[0].Key != "below/a/denied" || !strings.Contains(a.Failed[0].Error, "denied") || a.Failed[1].Key != "below/a/never" {
		t.Errorf("%+v", a)
	}
	if n := count(*log, "ID/a-segment-response"); n != 1 {
		t.Errorf("answered %d times", n)
	}
	// Somebody retries one, then the other.
	job := firstJob(t, d)
	for i, want := range [][]documents.Key{{"below/a/never"}, nil} {
		job.Epoch, job.Attempt, job.Only = uint32(i+1), 1, []uint32{[]uint32{0, 3}[i]}
		if err := d.do(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		_, answers := told(t, d, docs)
		var failed []documents.Key
		for _, x := range answers["a"].Failed {
			failed = append(failed, x.Key)
		}
		if !slices.Equal(failed, want) {
			t.Errorf("after retry %d %q failed, want %q", i, failed, want)
		}
	}
}

func count(log []string, key string) (n int) {
	for _, k := range log {
		if k == key {
			n++
		}
	}
	return n
}

// firstJob plans the copies again and returns the first.
func firstJob(t *testing.T, d *drive) myrmidon.Job {
	t.Helper()
	var spec Spec
	if err := json.Unmarshal(d.raw, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Compare = CompareNone
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.workload.Planner.Plan(t.Context(), myrmidon.Step{Run: "RUN", Spec: raw})
	if err != nil || len(s.Jobs) == 0 {
		t.Fatalf("%d jobs, %v", len(s.Jobs), err)
	}
	return myrmidon.Job{Kind: s.Jobs[0].Kind, Run: "RUN", Count: s.Jobs[0].Count, Attempt: 1, Spec: s.Jobs[0].Spec}
}

func TestAJobThatComesAgainTellsTheSame(t *testing.T) {
	src, dst, docs := object.NewMem(), object.NewMem(), object.NewMem()
	put(t, src, nil, "a/1", "a/2", "b")
	d := controlled(t, src, dst, docs)
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := contents(t, docs)
	job := firstJob(t, d)
	if err := d.do(myrmidon.WithRepeat(t.Context()), job); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, contents(t, docs)); diff != "" {
		t.Error(diff)
	}
}

func TestCopiesWhoseAnswerCannotBeWrittenAreNotDone(t *testing.T) {
	src := object.NewMem()
	put(t, src, nil, "a/1")
	dst, docs, _ := ledgers()
	for suffix, copied := range map[string]bool{"-segment-request": false, "-segment-response": true} {
		docs.fail = func(key string) error {
			if strings.HasSuffix(key, suffix) {
				return errors.New("the bucket is away")
			}
			return nil
		}
		d := controlled(t, src, dst, docs)
		job := firstJob(t, d)
		if err := d.do(t.Context(), job); err == nil || !strings.Contains(err.Error(), suffix[1:]) {
			t.Errorf("%s: %v", suffix, err)
		}
		if _, there := contents(t, dst)["a/1"]; there != copied {
			t.Errorf("%s: copied: %t", suffix, there)
		}
		if err := dst.Delete(t.Context(), "a/1"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheManifestTellsHowARunEnded(t *testing.T) {
	src, dst, docs := object.NewMem(), object.NewMem(), object.NewMem()
	put(t, src, nil, "a/1", "b")
	d := controlled(t, src, dst, docs)
	all := map[string]object.Store{"src": src, "dst": dst, "docs": docs}
	cfg := Config{Open: func(a string) (object.Store, error) { return all[a], nil }}
	f := documents.Folder{Store: docs, Path: "ID"}
	conclude := func(state myrmidon.State, why *myrmidon.Failure) documents.Response {
		t.Helper()
		if err := cfg.Conclude(t.Context(), d.spec, "RUN", state, why); err != nil {
			t.Fatal(err)
		}
		r, err := f.Response(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := conclude(myrmidon.Failed, &myrmidon.Failure{Message: "no such bucket", Hint: "look"})
	if r.State != "failed" || r.Error != "no such bucket" || r.Hint != "look" || r.Segments.Count != 0 || r.ID != "ID" {
		t.Errorf("%+v", r)
	}
	if err := d.run(t.Context()); err != nil { // and then it succeeds after all
		t.Fatal(err)
	}
	if r := conclude(myrmidon.Succeeded, nil); r.State != "" || r.Error != "" || r.Segments.Count != 2 {
		t.Errorf("%+v", r)
	}
	if r := conclude(myrmidon.Partial, nil); r.State != "partial" || r.Error == "" || r.Segments.Count != 2 {
		t.Errorf("%+v", r)
	}
	// What an earlier run of this ID has left is not this run's.
	if err := f.PutResponse(t.Context(), documents.Response{Run: "OLD", Segments: documents.Segments{Count: 9}}); err != nil {
		t.Fatal(err)
	}
	if r := conclude(myrmidon.Succeeded, nil); r.Run != "RUN" || r.Segments.Count != 2 {
		t.Errorf("%+v", r)
	}
	if len(slices.Collect(maps.Keys(contents(t, docs)))) == 0 {
		t.Error("no documents")
	}
}
