package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon/object"
)

// told are holdings by heart.
type told []Held

func (h told) Held(_ context.Context, prefix string, single bool, _ Filter) iter.Seq2[Held, error] {
	return func(yield func(Held, error) bool) {
		for _, o := range h {
			if strings.HasPrefix(o.Object, prefix) && (!single || o.Object == prefix) && !yield(o, nil) {
				return
			}
		}
	}
}

func (told) OfID(context.Context, string, Filter) (int64, error) { return 0, nil }

// audit audits the bench's store.
func (b *bench) audit(f Filter, there Holdings) (sum AuditSum, all []Difference) {
	b.t.Helper()
	cfg := Config{OpenBucket: func(string) (object.Store, error) { return b.store, nil }}
	sum, err := cfg.Audit(b.t.Context(), b.spec.Address, f, 3, there, func(d Difference) error { all = append(all, d); return nil })
	if err != nil {
		b.t.Fatal(err)
	}
	return sum, all
}

func TestAnAuditNamesEachObjectThatDiffers(t *testing.T) {
	b := newBench(t)
	for i, n := range []int{10, 10, 0, 10, 10, 1} {
		b.put(fmt.Sprintf("k%d.gz", i), packed(t, someLines(n)))
	}
	b.put("k6", []byte(someLines(2)+"no line\n"))
	b.put("k7.gz", packed(t, someLines(3000))[:2000])
	b.put("k8.gz", packed(t, someLines(3000))[:2000]) // nobody knows how many lines it has
	there := told{
		{Object: "s3://logs/", Lines: 7},
		{Object: "s3://logs/k0.gz", Lines: 10},
		{Object: "s3://logs/k1.gz", Lines: 7},
		{Object: "s3://logs/k3.gz", Lines: 12},
		{Object: "s3://logs/k4.gz", Lines: 10, Twice: 4},
		{Object: "s3://logs/k6", Lines: 2},
		{Object: "s3://logs/k8.gz", Lines: 3000},
		{Object: "s3://logs/z", Lines: 1},
		{Object: "s3://other/z", Lines: 1},
	}
	sum, all := b.audit(Filter{}, there)
	broken, whole := all[5], all[6]
	if whole.Object != "s3://logs/k8.gz" || whole.Reason == "" || whole.Found != 3000 || whole.Missing+whole.Surplus != 0 {
		t.Errorf("%+v", whole)
	}
	if broken.Object != "s3://logs/k7.gz" || !strings.Contains(broken.Reason, "ends too early") || broken.Missing == 0 {
		t.Errorf("%+v", broken)
	}
	const gone = "not at the source, or its lines are of another time"
	want := []Difference{
		{Object: "s3://logs/", Found: 7, Surplus: 7, Reason: gone},
		{Object: "s3://logs/k1.gz", Lines: 10, Found: 7, Missing: 3},
		{Object: "s3://logs/k3.gz", Lines: 10, Found: 12, Surplus: 2},
		{Object: "s3://logs/k4.gz", Lines: 10, Found: 10, Twice: 4},
		{Object: "s3://logs/k5.gz", Lines: 1, Missing: 1},
		broken,
		whole,
		{Object: "s3://logs/z", Found: 1, Surplus: 1, Reason: gone},
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
	if sum.Objects != 9 || sum.Different != 8 || sum.Missing != 4+broken.Missing || sum.Surplus != 10 || sum.Twice != 4 || sum.Unparsed != 1 {
		t.Errorf("%+v", sum)
	}
}

// shipped returns what a folder has of the bench's 20 objects: of one some lines are missing, two
// lines are there twice, and three are no documents.
func (b *bench) shipped() *object.Mem {
	t := b.t
	t.Helper()
	info, err := b.store.Head(t.Context(), "a/03.gz")
	if err != nil {
		t.Fatal(err)
	}
	lost, again := ID("s3://logs/a/03.gz", info.ETag), ""
	docs := object.NewMem()
	put := func(key string, text string) {
		t.Helper()
		body := packed(t, text)
		if err := docs.Put(t.Context(), key, bytes.NewReader(body), int64(len(body)), object.Attrs{}); err != nil {
			t.Fatal(err)
		}
	}
	var text strings.Builder
	n := 0
	write := func(doc any) {
		line, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(append(line, '\n'))
	}
	for o := range 20 {
		name := fmt.Sprintf("s3://logs/a/%02d.gz", o)
		info, err := b.store.Head(t.Context(), name[len("s3://logs/"):])
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for line := range strings.Lines(someLines(100)) {
			id := lineID(ID(name, info.ETag), int64(at))
			stamp := noon.Add(time.Duration(n%100) * time.Second)
			at += len(line)
			n++
			if strings.HasPrefix(id, lost) && at < 5000 {
				continue
			}
			// Members are written in the order of their names: one is behind the offset.
			doc := map[string]any{"@timestamp": stamp, "id": id, "object": name, "offset": at, "path": "x"}
			if o%2 == 1 {
				doc = map[string]any{"@timestamp": stamp, "event.id": id, "log.file.path": name}
			}
			write(doc)
			if again == "" || n == 707 {
				write(doc)
				again = id
			}
		}
		put(fmt.Sprintf("2026/%02d.ndjson.gz", o), text.String())
		text.Reset()
	}
	put("2026/x.ndjson", "{\"other\":1}\nnothing\n\n"+`{"id":"`+lost+`-0","object":"s3://logs/a/03.gz","offset":0,"cut":"of`)
	return docs
}

func TestAnAuditOfFilesCountsEachLineOnce(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		b.put(fmt.Sprintf("a/%02d.gz", i), packed(t, someLines(100)))
	}
	docs := b.shipped()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for _, most := range []int{tallyMemory, 300} {
		files := &Files{Store: docs}
		tl := &tally{most: most}
		if err := files.read(t.Context(), tl, "s3://logs/", false, Filter{}); err != nil {
			t.Fatal(err)
		}
		held, err := tl.counts()
		if err != nil {
			t.Fatal(err)
		}
		if spilled := len(tl.files) > 0; spilled != (most == 300) {
			t.Errorf("of %d lines in memory: spilled %v", most, spilled)
		}
		if err := tl.close(); err != nil {
			t.Fatal(err)
		}
		if len(held) != 20 || held["s3://logs/a/00.gz"].Twice != 1 || held["s3://logs/a/07.gz"].Twice != 1 || held["s3://logs/a/05.gz"].Lines != 100 || files.Foreign != 3 {
			t.Errorf("%d objects, %d foreign: %+v", len(held), files.Foreign, held["s3://logs/a/07.gz"])
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
	sum, all := b.audit(Filter{}, &Files{Store: docs})
	if len(all) != 3 || all[1].Object != "s3://logs/a/03.gz" || all[1].Missing == 0 || sum.Missing != all[1].Missing || sum.Twice != 2 {
		t.Errorf("%+v %+v", sum, all)
	}
	// By time, on both sides.
	sum, _ = b.audit(Filter{Since: noon.Add(50 * time.Second), Until: noon.Add(60 * time.Second)}, &Files{Store: docs})
	if sum.Lines != 200 || sum.Found != 200 || sum.Different != 0 {
		t.Errorf("%+v", sum)
	}
}

func TestADocumentIsReadWhateverTheOrderOfItsMembers(t *testing.T) {
	for _, line := range []string{
		`{"id":"a-5","object":"o","offset":5,"x":1}`, `{"id":"a-5","offset":5,"object":"o"}`, `{"object":"o","offset":5,"id":"a-5"}`,
		`{"event.id":"a-5","log.file.path":"o","log.offset":5}`, `{"event.id":"a-5","offset":7,"log.file.path":"o"}`,
	} {
		doc, ok := documentOf([]byte(line))
		if !ok || doc.ID+doc.ECSID != "a-5" || doc.Object+doc.ECSObject != "o" {
			t.Errorf("%s: %+v, %v", line, doc, ok)
		}
	}
}
