package logs

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/sink"
)

// hanging is a store that answers up to a byte of an object, and then nothing.
type hanging struct {
	*object.Mem
	key string
	at  int64 // -1 means that it does not even begin
}

func (h *hanging) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, object.Info, error) {
	if key != h.key {
		return h.Mem.Get(ctx, key, offset, length)
	}
	if h.at < 0 {
		<-ctx.Done()
		return nil, object.Info{}, ctx.Err()
	}
	raw, info, err := h.Mem.Get(ctx, key, offset, length)
	if err != nil {
		return nil, info, err
	}
	return &halting{raw, ctx, max(h.at-offset, 0)}, info, nil
}

type halting struct {
	io.ReadCloser
	ctx  context.Context
	left int64
}

func (h *halting) Read(p []byte) (int, error) {
	if h.left == 0 {
		<-h.ctx.Done()
		return 0, h.ctx.Err()
	}
	n, err := h.ReadCloser.Read(p[:min(int64(len(p)), h.left)])
	h.left -= int64(n)
	return n, err
}

// A job whose time is over goes on in another one without an attempt only if it came further.
func TestAStoreThatHangsCostsAttempts(t *testing.T) {
	text := someLines(600)
	for name, c := range map[string]struct {
		at     int64
		packed bool
		pause  time.Duration // of a batch
		goesOn int           // how many jobs come further
	}{
		"it does not answer":     {at: -1},
		"it answers nothing":     {at: 0},
		"a packed one, too":      {at: 0, packed: true},
		"nor is anything taken":  {at: 3000, pause: time.Hour},
		"it stops in the middle": {at: int64(len(text)) / 2, pause: time.Second, goesOn: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.spec.Memory = 32 << 10
				store := &hanging{b.store, "a", c.at}
				cfg := b.config(b.sink)
				cfg.OpenBucket = func(string) (object.Store, error) { return store, nil }
				b.work = Workload(cfg)
				b.put("a", []byte(text))
				if c.packed {
					b.put("a", packed(t, text))
				}
				b.put("b", []byte(someLines(1)))
				b.sink.wrong = func([]sink.Record) error { time.Sleep(c.pause); return nil }
				job := b.jobs()[0]
				for i := range c.goesOn + 2 {
					ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
					res, err := b.work.Kinds[0].Handler.Handle(ctx, job)
					stop()
					if err != nil || len(res.Items) != 2 {
						t.Fatalf("%v, %+v", err, res)
					}
					first, second := res.Items[0].Error, res.Items[1].Error
					if first == nil || first.Permanent || first.Continue != (i < c.goesOn) {
						t.Errorf("job %d: %+v", i, first)
					}
					if second == nil || !second.Continue {
						t.Errorf("job %d: what was not begun: %+v", i, second)
					}
				}
			})
		})
	}
}

// Lines that are tried again, and for which there is not enough time, come to an end in several
// jobs: each goes on from where the last one came to.
func TestARetryGoesOnWhereItsTimeWasOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.spec.Memory = 8 << 10
		text := someLines(400)
		b.put("a.gz", packed(t, strings.Replace(text, "\n", "\nno line\n", 1)))
		b.sink.wrong = func(records []sink.Record) error {
			p := &sink.PartialError{Total: len(records)}
			for i := range records {
				p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.Permanent(errors.New("mapping"))})
			}
			return p
		}
		job := b.jobs()[0]
		if err := b.do(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		if s := b.summary(); s.Lines.Failed != 400 || s.Lines.Unparsed != 1 {
			t.Fatalf("%+v", s.Lines)
		}
		b.sink.wrong = func([]sink.Record) error { time.Sleep(time.Second); return nil }
		n := b.going(job, 40*time.Second, 30)
		if s := b.summary(); n < 3 || s.Lines.Acked != 400 || s.Lines.Sent != 400 || s.Lines.Failed != 0 || s.Lines.Unparsed != 1 || s.Lines.Encountered != 401 {
			t.Errorf("%d jobs, %+v", n, s.Lines)
		}
		for id, times := range b.sink.docs {
			if times != 1 {
				t.Errorf("%s was sent %d times", id, times)
			}
		}
		if len(b.sink.docs) != 400 {
			t.Errorf("%d lines arrived", len(b.sink.docs))
		}
	})
}

// A retry that comes to none of its lines in its time is an attempt, and loses none of them.
func TestARetryThatComesNoFurtherCostsAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.put("a", []byte(someLines(20)+"no line\n"))
		job := b.jobs()[0]
		if err := b.do(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		before := string(b.kept.m["RUN0-0"])
		cfg := b.config(b.sink)
		cfg.OpenBucket = func(string) (object.Store, error) { return &hanging{b.store, "a", 4000}, nil }
		b.work = Workload(cfg)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		res, err := b.work.Kinds[0].Handler.Handle(ctx, job)
		if err != nil || len(res.Items) != 1 || res.Items[0].Error == nil || res.Items[0].Error.Continue || res.Items[0].Error.Permanent {
			t.Errorf("%v, %+v", err, res.Items)
		}
		if after := string(b.kept.m["RUN0-0"]); after != before {
			t.Errorf("its checkpoint was\n%s\nand is\n%s", before, after)
		}
	})
}
