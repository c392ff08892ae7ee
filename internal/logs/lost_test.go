package logs

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon/object"
	"myrmidon/sink"
)

// unsure is a sink that confirms nothing: while drop is set its peer resets the connection in the
// end, and what was sent is lost.
type unsure struct {
	*moody
	drop bool
	sent map[string]int // since it was opened
}

func (u *unsure) Traits() sink.Traits { return sink.Traits{Unconfirmed: true} }

func (u *unsure) Send(ctx context.Context, records []sink.Record) error {
	u.turn <- struct{}{}
	defer func() { <-u.turn }()
	for _, r := range records {
		u.sent[r.ID]++
	}
	if u.wrong != nil {
		return u.wrong(records)
	}
	return nil
}

var errReset = errors.New("connection reset by peer")

func (u *unsure) Close() error {
	defer clear(u.sent)
	if u.drop {
		return errReset
	}
	for id, n := range u.sent {
		u.docs[id] += n
	}
	return nil
}

// newUnsure is a bench with a sink that confirms nothing.
func newUnsure(t *testing.T) (*bench, *unsure) {
	b := newBench(t)
	u := &unsure{moody: b.sink, sent: make(map[string]int)}
	b.work = Workload(b.config(u))
	return b, u
}

func (b *bench) config(to sink.Sink) Config {
	return Config{
		OpenBucket:  func(string) (object.Store, error) { return b.store, nil },
		OpenSink:    func(string) (sink.Sink, error) { return to, nil },
		Checkpoints: b.kept, Log: slog.New(slog.DiscardHandler),
	}
}

// badly are bodies whose objects do not end as done, after 20 good lines.
func badly(t *testing.T) map[string][]byte {
	whole := packed(t, someLines(20))
	return map[string][]byte{
		"all is well":       []byte(someLines(20)),
		"a line is no line": []byte(someLines(20) + "no line\n"),
		"it is cut off":     whole[:len(whole)-8],
	}
}

func TestAFollowerShipsAnewWhatMayNotHaveArrived(t *testing.T) {
	for name, body := range badly(t) {
		t.Run(name, func(t *testing.T) {
			b, u := newUnsure(t)
			b.put("k", body)
			f, err := b.config(u).NewFollower(b.spec)
			if err != nil {
				t.Fatal(err)
			}
			u.drop = true
			if got, err := f.Ship(t.Context(), b.spec.Address, "k"); !errors.Is(err, errReset) || len(got.Rejects) > 0 {
				t.Errorf("%v, %+v", err, got)
			}
			if len(b.kept.m) > 0 {
				t.Error("a checkpoint is left, behind lines that are lost")
			}
			u.drop = false
			if _, err := f.Ship(t.Context(), b.spec.Address, "k"); err != nil {
				t.Error(err)
			}
			if len(b.sink.docs) != 20 {
				t.Errorf("%d lines have arrived of 20", len(b.sink.docs))
			}
		})
	}
}

func TestAJobShipsAnewWhatMayNotHaveArrived(t *testing.T) {
	for name, body := range badly(t) {
		t.Run(name, func(t *testing.T) {
			b, u := newUnsure(t)
			b.put("k", body)
			b.put("other", []byte(someLines(3)))
			u.drop = true
			job := b.jobs()[0]
			res, err := b.work.Kinds[0].Handler.Handle(t.Context(), job)
			if err != nil || len(res.Items) != 2 {
				t.Fatalf("%v, %+v", err, res)
			}
			for _, it := range res.Items {
				if it.Error == nil || it.Error.Permanent || it.Error.Continue || !strings.Contains(it.Error.Message, "may not have arrived") {
					t.Errorf("%s: %+v", it.Name, it.Error)
				}
			}
			if len(b.kept.m) > 0 {
				t.Error("a checkpoint is left, behind lines that are lost")
			}
		})
	}
}

// A job that is cut off, by a cancelled run or a worker that ends, keeps no checkpoint behind lines
// that are lost; one whose connection ended well keeps them.
func TestAJobThatIsCutOffForgetsWhatIsLost(t *testing.T) {
	for _, drop := range []bool{true, false} {
		b, u := newUnsure(t)
		texts := map[string]string{"a": someLines(20) + "no line\n", "b": someLines(10)}
		for key, text := range texts {
			b.put(key, []byte(text))
		}
		ctx, cut := context.WithCancel(t.Context())
		u.wrong = func(records []sink.Record) error {
			if strings.Contains(string(records[0].Data), `"object":"s3://logs/b"`) {
				cut()
				return errors.New("away")
			}
			return nil
		}
		u.drop = drop
		if _, err := b.work.Kinds[0].Handler.Handle(ctx, b.jobs()[0]); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 0, false: 1}[drop]; len(b.kept.m) != want {
			t.Errorf("lost: %v: %d checkpoints are left, want %d", drop, len(b.kept.m), want)
		}
	}
}

// A process that is killed never hears whether its lines have arrived: no checkpoint tells the
// next one to pass over them.
func TestNothingIsSavedBeforeItIsKnownToHaveArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, u := newUnsure(t)
		b.spec.Memory = 8 << 10
		b.put("a", []byte(someLines(1000)+"no line\n"))
		b.put("b", []byte(someLines(100)))
		sends := 0
		u.wrong = func([]sink.Record) error {
			time.Sleep(time.Second)
			b.kept.mu.Lock()
			defer b.kept.mu.Unlock()
			if len(b.kept.m) > 0 {
				t.Errorf("after %d batches there is a checkpoint", sends)
			}
			sends++
			return nil
		}
		if err := b.do(t.Context(), b.jobs()[0]); err != nil {
			t.Fatal(err)
		}
		if len(b.kept.m) != 1 || sends < 50 { // of the bad line
			t.Errorf("%d checkpoints after %d batches", len(b.kept.m), sends)
		}
		b.delivered("a", someLines(1000))
		b.delivered("b", someLines(100))
	})
}

// A checkpoint that a loss of power tore costs lines that come twice, not the object.
func TestATornCheckpointBlocksNoObject(t *testing.T) {
	for _, torn := range []string{"", `{"etag":"x","offset":400,"li`, "\x00\x00\x00", `{"offset":400,"line":"x"}`} {
		b := newBench(t)
		b.put("k", []byte(someLines(20)))
		b.kept.m["RUN0-0"] = []byte(torn)
		if err := b.do(t.Context(), b.jobs()[0]); err != nil || b.items[0].LastError != "" || len(b.kept.m) > 0 {
			t.Errorf("%q: %v, %s, %d checkpoints", torn, err, b.items[0].LastError, len(b.kept.m))
		}
		b.delivered("k", someLines(20))
	}
}
