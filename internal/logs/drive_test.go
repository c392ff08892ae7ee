package logs

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon"
	"myrmidon/internal/testkit/long"
	"myrmidon/object"
	"myrmidon/sink"
)

// moody is a sink in memory that does wrong by a script.
type moody struct {
	turn   chan struct{}
	docs   map[string]int // by ID, how often
	wrong  func(records []sink.Record) error
	seen   func(doc string)
	closed int
}

func (m *moody) Send(ctx context.Context, records []sink.Record) error {
	m.turn <- struct{}{} // a mutex would stop the clock of a bubble
	defer func() { <-m.turn }()
	var err error
	if m.wrong != nil {
		err = m.wrong(records)
	}
	bad := make(map[int]bool)
	var partial *sink.PartialError
	if errors.As(err, &partial) {
		for _, f := range partial.Failed {
			bad[f.Index] = true
		}
	} else if err != nil {
		return err
	}
	for i, r := range records {
		if !bad[i] {
			var doc struct {
				ID  string
				ECS string `json:"event.id"`
			}
			if json.Unmarshal(r.Data, &doc) != nil || doc.ID+doc.ECS != r.ID {
				return fmt.Errorf("document %s has ID %s", r.Data, r.ID)
			}
			m.docs[r.ID]++
			if m.seen != nil {
				m.seen(string(r.Data))
			}
		}
	}
	return err
}

func (m *moody) Close() error {
	m.closed++
	return nil
}

// kept are checkpoints in memory.
type kept struct {
	mu     sync.Mutex
	m      map[string][]byte
	midway int // how many were of an object that was not done
}

func (k *kept) Load(_ context.Context, run, _, name string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if d, ok := k.m[run+name]; ok {
		return d, nil
	}
	return nil, fs.ErrNotExist
}

func (k *kept) Save(_ context.Context, run, _, name string, data []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.m[run+name] = data
	if !bytes.Contains(data, []byte(`"done":true`)) {
		k.midway++
	}
	return nil
}

func (k *kept) Forget(_ context.Context, run, _, name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, run+name)
	return nil
}

// bench is a run without an engine.
type bench struct {
	t     *testing.T
	store *object.Mem
	sink  *moody
	kept  *kept
	work  myrmidon.Workload
	spec  Spec
	items map[uint32]Item // the last of each
	lines bytes.Buffer    // of evidence
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, store: object.NewMem(), sink: &moody{turn: make(chan struct{}, 1), docs: make(map[string]int)}, kept: &kept{m: make(map[string][]byte)}, items: make(map[uint32]Item)}
	b.work = Workload(Config{
		OpenBucket:  func(string) (object.Store, error) { return b.store, nil },
		OpenObject:  func(string) (object.Store, string, error) { return b.store, "one", nil },
		OpenSink:    func(string) (sink.Sink, error) { return b.sink, nil },
		Checkpoints: b.kept,
	})
	b.spec = Spec{Address: Address{Source: "s3://logs", Base: "s3://logs"}, Sink: "sink:"}
	return b
}

func (b *bench) put(key string, data []byte) {
	b.t.Helper()
	if err := b.store.Put(b.t.Context(), key, bytes.NewReader(data), int64(len(data)), object.Attrs{}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) jobs() (out []myrmidon.Job) {
	b.t.Helper()
	raw, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	next := uint32(0)
	for step := (myrmidon.Step{Run: "RUN", Spec: raw}); ; {
		s, err := b.work.Planner.Plan(b.t.Context(), step)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, j := range s.Jobs {
			out = append(out, myrmidon.Job{Kind: j.Kind, Run: "RUN", First: next, Count: j.Count, Units: j.Units, Spec: j.Spec})
			next += j.Count
		}
		if s.Done {
			return out
		}
		step.Cursor, step.Next = s.Cursor, next
	}
}

// do does a job's items, and keeps the evidence as the engine does.
func (b *bench) do(ctx context.Context, j myrmidon.Job, only ...uint32) error {
	j.Only = only
	res, err := b.work.Kinds[0].Handler.Handle(ctx, j)
	if err != nil {
		return err
	}
	for _, it := range res.Items {
		row := Item{Index: it.Index, Name: it.Name, State: "done", Note: it.Note, Bytes: it.Bytes}
		if it.Error != nil {
			row.State, row.LastError = "parked", it.Error.Message
		}
		b.items[it.Index] = row
		if err := json.NewEncoder(&b.lines).Encode(row); err != nil {
			b.t.Fatal(err)
		}
	}
	return nil
}

func (b *bench) summary() Summary {
	b.t.Helper()
	s, err := Summarize(bytes.NewReader(b.lines.Bytes()))
	if err != nil {
		b.t.Error(err)
	}
	return s
}

func packed(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func someLines(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(albLine(noon.Add(time.Duration(i)*time.Second), 200+i%5*100, fmt.Sprintf("https://h:443/%d", i), "a"))
		b.WriteByte('\n')
	}
	return b.String()
}

// delivered checks that each of n lines of an object arrived, under its ID.
func (b *bench) delivered(key, text string) (twice int) {
	b.t.Helper()
	info, err := b.store.Head(b.t.Context(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	id := ID("s3://logs/"+key, info.ETag)
	at, lost := 0, 0
	for line := range strings.Lines(text) {
		switch n := b.sink.docs[lineID(id, int64(at))]; {
		case n == 0:
			lost++
		case n > 1:
			twice++
		}
		at += len(line)
	}
	if lost > 0 {
		b.t.Errorf("%s: %d lines did not arrive", key, lost)
	}
	return twice
}

// TestNoScheduleOfFaultsLosesALine runs objects through a sink that fails wholly, in part,
// for a moment and for good, while the jobs are cut off at any moment and done again.
func TestNoScheduleOfFaultsLosesALine(t *testing.T) {
	schedules := 1000
	if testing.Short() {
		schedules = 50
	}
	again, cuts, midway := 0, 0, 0
	for seed := range schedules {
		synctest.Test(t, func(t *testing.T) { // its pauses take no time
			random := rand.New(rand.NewPCG(uint64(seed), 7))
			b := newBench(t)
			b.spec.Memory = 16 << 10 // so that reading waits for the sink, and checkpoints are many
			texts := map[string]string{"a.log": someLines(random.IntN(60)), "b+c%41 d.log.gz": someLines(random.IntN(300)), "empty": ""}
			for key, text := range texts {
				if strings.HasSuffix(key, ".gz") {
					b.put(key, packed(t, text))
				} else {
					b.put(key, []byte(text))
				}
			}
			calls := 0
			var cut context.CancelFunc
			b.sink.wrong = func(records []sink.Record) error {
				time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
				if calls++; calls > 30 {
					return nil
				}
				switch random.IntN(6) {
				case 0:
					return errors.New("away")
				case 1:
					p := &sink.PartialError{Total: len(records)}
					for i := range records {
						if random.IntN(3) == 0 {
							p.Failed = append(p.Failed, sink.Failed{Index: i, Err: errors.New("not now")})
						}
					}
					if len(p.Failed) > 0 {
						return p
					}
				case 2:
					cuts++
					cut()
				}
				return nil
			}
			jobs := b.jobs()
			if len(jobs) != 1 {
				t.Fatalf("%d jobs", len(jobs))
			}
			for {
				ctx, stop := context.WithCancel(t.Context())
				cut = stop
				err := b.do(ctx, jobs[0])
				stop()
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			sum, lines := b.summary(), 0
			for key, text := range texts {
				again += b.delivered(key, text)
				lines += strings.Count(text, "\n")
			}
			if int(sum.Lines.Acked) != lines || sum.Lines.Encountered != sum.Lines.Acked || sum.Objects.Read != 3 || sum.Objects.Failed != 0 {
				t.Fatalf("seed %d: %d lines, %+v", seed, lines, sum)
			}
			if len(b.sink.docs) != lines {
				t.Fatalf("seed %d: %d documents of %d lines", seed, len(b.sink.docs), lines)
			}
			midway += b.kept.midway
			if len(b.kept.m) > 0 {
				t.Errorf("seed %d: checkpoints are left", seed)
			}
		})
	}
	t.Logf("%d schedules, %d cuts: no line lost, %d came again under their ID; %d checkpoints midway", schedules, cuts, again, midway)
	if cuts == 0 || again == 0 || midway == 0 {
		t.Error("nothing was cut off, or nothing came twice: the test tests nothing")
	}
}

func TestWhatIsRefusedIsParkedAndTriedAgainAlone(t *testing.T) {
	b := newBench(t)
	lines := strings.SplitAfter(someLines(20), "\n")
	text := strings.Join(lines[:10], "") + "binary \x00\xff\n" + strings.Join(lines[10:], "")
	b.put("a.log.gz", packed(t, text))
	b.put("b.log", []byte(lines[0]))
	refused := errors.New("mapper_parsing_exception")
	b.sink.wrong = func(records []sink.Record) error {
		p := &sink.PartialError{Total: len(records)}
		for i, r := range records {
			if strings.Contains(string(r.Data), "https://h:443/7\"") {
				p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.Permanent(refused)})
			}
		}
		if len(p.Failed) > 0 {
			return p
		}
		return nil
	}
	job := b.jobs()[0]
	if err := b.do(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	s := b.summary()
	if s.Lines.Encountered != 22 || s.Lines.Unparsed != 1 || s.Lines.Failed != 1 || s.Lines.Acked != 20 || s.Objects.Failed != 1 {
		t.Errorf("%+v", s)
	}
	if f := s.Failures["sending"]; f.Total != 1 || len(f.LastFew) != 1 || !strings.Contains(f.LastFew[0], "mapper_parsing") {
		t.Errorf("%+v", f)
	}
	if f := s.Failures["parsing"]; f.Total != 1 || len(f.LastFew) != 1 {
		t.Errorf("%+v", f)
	}
	var aside []Reject
	cfg := Config{OpenBucket: func(string) (object.Store, error) { return b.store, nil }, Checkpoints: b.kept}
	if err := cfg.Aside(t.Context(), "RUN", b.spec, bytes.NewReader(b.lines.Bytes()), func(r Reject) error { aside = append(aside, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(aside) != 2 || aside[0].Text+aside[1].Text != "binary \x00\xff"+strings.TrimSuffix(lines[7], "\n") && aside[1].Text+aside[0].Text != "binary \x00\xff"+strings.TrimSuffix(lines[7], "\n") {
		t.Errorf("aside: %+v", aside)
	}
	// A retry sends what was refused, and nothing else.
	b.sink.wrong = nil
	if err := b.do(t.Context(), job, 0); err != nil {
		t.Fatal(err)
	}
	s = b.summary()
	if s.Lines.Encountered != 22 || s.Lines.Unparsed != 1 || s.Lines.Failed != 0 || s.Lines.Acked != 21 || s.Lines.Sent != 21 {
		t.Errorf("after the retry: %+v", s.Lines)
	}
	for id, n := range b.sink.docs {
		if n != 1 {
			t.Errorf("%s arrived %d times", id, n)
		}
	}
	if len(b.sink.docs) != 21 {
		t.Errorf("%d documents", len(b.sink.docs))
	}
}

func TestBadDaysOfObjects(t *testing.T) {
	long.Test(t)
	text := someLines(3000)
	whole := packed(t, text)
	rotten := bytes.Clone(whole)
	rotten[len(rotten)/2] ^= 0xff
	long := someLines(1) + strings.Repeat("x", 100<<20) + "\n" + someLines(1)
	for name, c := range map[string]struct {
		data   []byte
		counts func(Counts) bool
		why    string
	}{
		"gzip that is cut off":        {whole[:len(whole)/2], func(c Counts) bool { return c.Acked > 100 && c.Acked < 3000 && c.Unparsed == 0 }, "ends too early"},
		"gzip that rotted":            {rotten, func(c Counts) bool { return c.Acked > 100 }, "gzip is damaged"},
		"no gzip behind its magic":    {[]byte("\x1f\x8bnothing"), func(c Counts) bool { return c == Counts{} }, "gzip is damaged"},
		"gzip of two members":         {append(bytes.Clone(whole), whole...), func(c Counts) bool { return c.Acked == 6000 }, ""},
		"binary garbage":              {bytes.Repeat([]byte{0, 1, 2, 0xff, '\n'}, 5000), func(c Counts) bool { return c.Unparsed == 5000 && c.Acked == 0 }, "5000 of 5000 lines"},
		"a line of 100 MB":            {packed(t, long), func(c Counts) bool { return c.Acked == 2 && c.Unparsed == 1 }, "too long"},
		"formats of all kinds":        {[]byte(someLines(1) + "2026-11-20T12:00:00.000000Z 10.0.0.1 1 443 TLSv1.2 - 0.1 - - - - TID_1\n"), func(c Counts) bool { return c.Acked == 2 }, ""},
		"no line feed at the end":     {[]byte(strings.TrimSuffix(someLines(2), "\n")), func(c Counts) bool { return c.Acked == 2 }, ""},
		"nothing":                     {nil, func(c Counts) bool { return c == Counts{} }, ""},
		"an S3 error instead of logs": {[]byte("<?xml version=\"1.0\"?>\n<Error/>\n"), func(c Counts) bool { return c.Unparsed == 2 }, "2 of 2 lines"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.put("k", c.data)
			if err := b.do(t.Context(), b.jobs()[0]); err != nil {
				t.Fatal(err)
			}
			s := b.summary()
			if !c.counts(s.Lines) {
				t.Errorf("%+v", s.Lines)
			}
			if got := b.items[0].LastError; !strings.Contains(got, c.why) || (c.why == "") != (got == "") {
				t.Errorf("%q, want %q", got, c.why)
			}
		})
	}
}

func TestAnObjectThatIsReplacedIsReadAnew(t *testing.T) {
	for _, pack := range []bool{false, true} {
		b := newBench(t)
		body := func(text string) []byte {
			if pack {
				return packed(t, text)
			}
			return []byte(text)
		}
		old, fresh := someLines(500), albLine(noon, 404, "https://h:443/new", "b")+"\n"
		b.put("k", body(old))
		ctx, cut := context.WithCancel(t.Context())
		job := b.jobs()[0]
		b.kept.m["RUN0-0"] = nil
		delete(b.kept.m, "RUN0-0")
		// It is cut off in its middle, with a checkpoint.
		info, err := b.store.Head(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		half := int64(strings.Index(old, "https://h:443/250 "))
		half = int64(strings.LastIndex(old[:half], "\n") + 1)
		at := checkpoint{ETag: info.ETag, Plain: !pack, Offset: half, Line: 250, Counts: Counts{Encountered: 250, Parsed: 250, Sent: 250, Acked: 250, Bytes: half}}
		data, err := json.Marshal(at)
		if err != nil {
			t.Fatal(err)
		}
		b.kept.m["RUN0-0"] = data
		if err := b.do(ctx, job); err != nil {
			t.Fatal(err)
		}
		cut()
		if s := b.summary(); len(b.sink.docs) != 250 || s.Lines.Acked != 500 || s.Lines.Encountered != 500 {
			t.Errorf("from the checkpoint on %d lines were sent; %+v", len(b.sink.docs), s.Lines)
		}
		// Of another version the checkpoint says nothing.
		b.kept.m["RUN0-0"] = data
		b.put("k", body(fresh))
		b.lines.Reset()
		if err := b.do(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		b.delivered("k", fresh)
		var n Note
		if err := json.Unmarshal(b.items[0].Note, &n); err != nil || !n.Changed || n.Counts.Acked != 1 {
			t.Errorf("%+v, %v", n, err)
		}
		// And one that is gone is told.
		if err := b.store.Delete(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		if err := b.do(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		if got := b.items[0].LastError; !strings.Contains(got, "gone") {
			t.Error(got)
		}
	}
}

func TestCountsThatDoNotAddUpAreAnError(t *testing.T) {
	row := `{"name":"k","state":"done","note":{"counts":{"encountered":3,"parsed":3,"acked":2}}}`
	if _, err := Summarize(strings.NewReader(row)); err == nil || !strings.Contains(err.Error(), "report this") {
		t.Error(err)
	}
}
