package jetstream

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"myrmidon"
	"myrmidon/engine"
)

var someJobs = []struct {
	name string
	job  myrmidon.Job
}{
	{"the least of a job", myrmidon.Job{Kind: "w.k", Run: "R", Count: 1}},
	{"the most of a job", myrmidon.Job{
		Kind: "transcode.encode-1", Version: math.MaxUint32, Long: true, Run: "01J0000000000000000000000", Phase: math.MaxUint32, Shard: math.MaxUint32,
		First: math.MaxUint32 - 1, Count: 1, Only: []uint32{0, 7, math.MaxUint32}, Attempt: math.MaxUint32, Continued: math.MaxUint32 - 1, Epoch: math.MaxUint32,
		Name: "chunk 2 of 4", Units: math.MinInt64, Spec: json.RawMessage(`{"a":[1,"}",{"spec":null}]}`),
	}},
	{"a name with what JSON escapes", myrmidon.Job{Kind: "w.k", Run: "R", Count: 1, Name: "\"\\</a>&\u2028\x00\xff ä.mp4"}},
	{"a spec that is a string", myrmidon.Job{Kind: "w.k", Run: "R", Count: 1, Spec: json.RawMessage(`"}"`)}},
	{"a spec that is null", myrmidon.Job{Kind: "w.k", Run: "R", Count: 1, Spec: json.RawMessage(`null`)}},
	{"only one item", myrmidon.Job{Kind: "w.k", Run: "R", Count: 9, Only: []uint32{3}, Units: 5}},
}

func TestJobsAreWrittenAsEncodingJSONWritesThem(t *testing.T) {
	for _, tt := range someJobs {
		t.Run(tt.name, func(t *testing.T) {
			if err := engine.CheckJob(&tt.job); err != nil {
				t.Skip("no job that is stored:", err)
			}
			got, err := appendJob(nil, &tt.job)
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.Marshal(tt.job)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			var back myrmidon.Job
			if plain := !strings.Contains(string(got), `\`) && !strings.Contains(string(got), "ä"); parseJob(got, &back) != plain {
				t.Errorf("read fast: %v, want %v", !plain, plain)
			}
		})
	}
}

func TestASpecThatIsNoJSONIsNotStored(t *testing.T) {
	for _, spec := range []string{`{`, `}`, ` `, `1,"x":2`, `{}{}`, "\x00"} {
		if got, err := appendJob(nil, &myrmidon.Job{Kind: "w.k", Run: "R", Count: 1, Spec: json.RawMessage(spec)}); err == nil {
			t.Errorf("spec %q was written: %s", spec, got)
		}
	}
}

// FuzzParseJob looks for bytes that are read in another way than encoding/json reads them.
func FuzzParseJob(f *testing.F) {
	for _, tt := range someJobs {
		data, err := json.Marshal(tt.job)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	const job = `{"kind":"w.k","run":"R","phase":0,"shard":0,"first":0,"count":1,"attempt":1`
	for _, end := range []string{
		``, `}`, `}}`, `} `, `,"epoch":-1}`, `,"epoch":01}`, `,"epoch":4294967296}`, `,"units":-0}`, `,"units":1.0}`, `,"units":1e2}`,
		`,"name":"a\n"}`, "\"name\":\"a\n\"}", `,"name":null}`, `,"spec":}`, `,"spec":1,"spec":2}`, `,"spec":{}},`, `,"spec": 1 }`, `,"only":[]}`, `,"SPEC":1}`,
	} {
		f.Add([]byte(job + end))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var slow myrmidon.Job
		fast := myrmidon.Job{Kind: "w.k", Run: "R"} // of the job before
		if !parseJob(data, &fast) {
			return
		}
		if err := json.Unmarshal(data, &slow); err != nil {
			t.Fatalf("read, though it is no JSON: %v", err)
		}
		// Space around a spec is kept here; it means nothing.
		fast.Spec = json.RawMessage(strings.Trim(string(fast.Spec), " \t\r\n"))
		if len(fast.Spec) == 0 {
			fast.Spec = nil
		}
		if d := cmp.Diff(slow, fast); d != "" {
			t.Errorf("encoding/json reads it otherwise (-slow +fast):\n%s", d)
		}
	})
}

// A job of 300 bytes. The ratio to encoding/json is what appendJob and parseJob are for.
var aJob = myrmidon.Job{
	Kind: "bench.job", Version: 1, Run: "01J00000000000000000000000", First: 12345, Count: 1, Attempt: 1,
	Name: "chunk 2 of 4", Spec: json.RawMessage(`{"key":"` + strings.Repeat("x", 140) + `"}`),
}

func BenchmarkJob(b *testing.B) {
	data, err := json.Marshal(aJob)
	if err != nil {
		b.Fatal(err)
	}
	var j myrmidon.Job
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if _, err := appendJob(make([]byte, 0, 300), &aJob); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write as encoding json", func(b *testing.B) {
		for b.Loop() {
			if _, err := json.Marshal(&aJob); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if !parseJob(data, &j) {
				b.Fatal("not read")
			}
		}
	})
	b.Run("read as encoding json", func(b *testing.B) {
		for b.Loop() {
			if err := json.Unmarshal(data, &j); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestWhatIsGathered(t *testing.T) {
	of := func(n, size int) *commit {
		one := &commit{err: make(chan error, 1)}
		for range n {
			one.msgs = append(one.msgs, &nats.Msg{Data: make([]byte, size)})
		}
		return one
	}
	for _, tt := range []struct {
		name    string
		waiting []*commit
		want    int  // commits that are gathered
		spare   bool // one more was taken
	}{
		{"nothing", nil, 0, false},
		{"all that waits", []*commit{of(1, 10), of(900, 10), of(3, 10)}, 3, false},
		{"what fills a batch to its last message", []*commit{of(1, 10), of(engine.MaxBatch-1, 10)}, 2, false},
		{"what a batch has room for", []*commit{of(2, 10), of(engine.MaxBatch-1, 10), of(1, 10)}, 1, true},
		{"no more bytes than a batch may have", []*commit{of(1, batchBytes/2), of(1, batchBytes/2), of(1, 1)}, 2, true},
		{"a commit that is larger than that, alone", []*commit{of(2, batchBytes), of(1, 1)}, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := make(chan *commit, 10)
			for _, one := range tt.waiting {
				in <- one
			}
			g := gathered{most: engine.MaxBatch}
			spare := g.fill(nil, in)
			if len(g.commits) != tt.want || (spare != nil) != tt.spare {
				t.Fatalf("%d commits gathered, a spare one: %v; want %d, %v", len(g.commits), spare != nil, tt.want, tt.spare)
			}
			for i, one := range g.commits {
				if one != tt.waiting[i] {
					t.Errorf("commit %d is another", i)
				}
			}
			if tt.spare && spare != tt.waiting[tt.want] {
				t.Error("the spare one is another")
			}
			next := gathered{most: engine.MaxBatch}
			if tt.spare && (next.fill(spare, in) != nil || next.commits[0] != spare) {
				t.Error("the spare one is not the first of the next batch")
			}
		})
	}
}
