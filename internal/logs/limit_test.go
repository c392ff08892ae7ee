package logs

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon"
	"myrmidon/sink"
)

// going does a job again and again with a time limit, as the engine does.
func (b *bench) going(j myrmidon.Job, limit time.Duration, most int) (jobs int) {
	b.t.Helper()
	left := []uint32{}
	for i := range j.Items() {
		left = append(left, i)
	}
	for len(left) > 0 {
		if jobs++; jobs > most {
			b.t.Fatalf("it does not end: %d items are left", len(left))
		}
		j.Only = left
		ctx, stop := context.WithTimeout(b.t.Context(), limit)
		began := time.Now()
		res, err := b.work.Kinds[0].Handler.Handle(ctx, j)
		stop()
		if err != nil {
			b.t.Fatal(err)
		}
		if took := time.Since(began); took > limit {
			b.t.Errorf("a job took %v, of %v", took, limit)
		}
		left = nil
		for _, it := range res.Items {
			if it.Error != nil && it.Error.Continue {
				left = append(left, it.Index)
				continue
			}
			row := Item{Index: it.Index, Name: it.Name, State: "done", Note: it.Note, Bytes: it.Bytes}
			if it.Error != nil {
				row.State, row.LastError = "parked", it.Error.Message
			}
			b.items[it.Index] = row
			if err := json.NewEncoder(&b.lines).Encode(row); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	return jobs
}

func TestAnyTimeLimitWorks(t *testing.T) {
	for _, limit := range []time.Duration{5 * time.Second, 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			b.spec.Memory = 8 << 10
			texts := map[string]string{"a.log": someLines(1500), "b.log.gz": someLines(800), "c.log": someLines(3) + "no line\n", "d.log": someLines(1)}
			for key, text := range texts {
				body := []byte(text)
				if strings.HasSuffix(key, ".gz") {
					body = packed(t, text)
				}
				b.put(key, body)
			}
			b.sink.wrong = func([]sink.Record) error { time.Sleep(100 * time.Millisecond); return nil }
			jobs := b.jobs()
			if len(jobs) != 1 {
				t.Fatalf("%d jobs", len(jobs))
			}
			n := b.going(jobs[0], limit, 300)
			t.Logf("a limit of %v: %d jobs", limit, n)
			if n < 2 {
				t.Errorf("%d jobs: the limit did not matter", n)
			}
			sum, twice := b.summary(), 0
			texts["c.log"] = someLines(3)
			for key, text := range texts {
				twice += b.delivered(key, text)
			}
			if sum.Lines.Encountered != 2305 || sum.Lines.Acked != 2304 || sum.Lines.Unparsed != 1 || sum.Objects.Read != 4 || twice > 0 {
				t.Errorf("%+v, %d lines came twice", sum, twice)
			}
			if len(b.kept.m) != 1 { // of the bad line
				t.Errorf("%d checkpoints are left", len(b.kept.m))
			}
		})
	}
}

func TestADestinationThatIsAwayCostsNoAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		text := someLines(200)
		b.put("a.log", []byte(text))
		began := time.Now()
		b.sink.wrong = func([]sink.Record) error {
			if time.Since(began) < 3*time.Hour {
				return errors.New("away")
			}
			return nil
		}
		if n := b.going(b.jobs()[0], 10*time.Minute, 30); n < 15 {
			t.Errorf("%d jobs in three hours", n)
		}
		b.delivered("a.log", text)
	})
}

// A job that was cut off has objects behind it, which are not sent again.
func TestAJobThatComesAgainPassesOverWhatIsDone(t *testing.T) {
	b := newBench(t)
	texts := map[string]string{"a": someLines(300), "b": someLines(200), "c": someLines(100)}
	for key, text := range texts {
		b.put(key, []byte(text))
	}
	ctx, cut := context.WithCancel(t.Context())
	b.sink.wrong = func(records []sink.Record) error {
		if strings.Contains(string(records[0].Data), `"object":"s3://logs/c"`) {
			cut()
			return errors.New("away")
		}
		return nil
	}
	if err := b.do(ctx, b.jobs()[0]); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.sink.wrong = nil
	texts["b"] = someLines(5) // replaced meanwhile
	b.put("b", []byte(texts["b"]))
	if err := b.do(t.Context(), b.jobs()[0]); err != nil {
		t.Fatal(err)
	}
	for key, text := range texts {
		if twice := b.delivered(key, text); twice > 0 {
			t.Errorf("%s: %d lines were sent twice", key, twice)
		}
	}
	if s := b.summary(); s.Lines.Acked != 405 || s.Objects.Read != 3 || len(b.kept.m) > 0 {
		t.Errorf("%+v, %d checkpoints", s, len(b.kept.m))
	}
}

// connected is a sink that had connections.
type connected struct{ *moody }

func (connected) Stats() sink.ConnStats {
	return sink.ConnStats{Created: 3, Destroyed: 2, Failed: 1, LastErrors: []string{"reset"}}
}

func TestAJobWhoseTimeIsOverTellsOfItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.work = Workload(b.config(connected{b.sink}))
		for _, key := range []string{"a", "b", "c"} {
			b.put(key, []byte(someLines(10)))
		}
		b.sink.wrong = func(records []sink.Record) error {
			if strings.Contains(string(records[0].Data), `"object":"s3://logs/b"`) {
				time.Sleep(time.Hour)
			}
			return nil
		}
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		if err := b.do(ctx, b.jobs()[0]); err != nil {
			t.Fatal(err)
		}
		var n Note
		if err := json.Unmarshal(b.items[0].Note, &n); err != nil || n.Connections != (Connections{3, 2}) || n.SocketsFailed != 1 || len(n.Sockets) != 1 || len(b.items) != 3 {
			t.Errorf("%v, %+v", err, n)
		}
	})
}
