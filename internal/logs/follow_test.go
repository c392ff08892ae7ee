package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/sink"
)

// refusing is a sink that takes nothing for good, as with a wrong password, until it is told to.
type refusing struct {
	no error
	n  atomic.Int64
}

func (r *refusing) Send(_ context.Context, records []sink.Record) error {
	if r.no == nil {
		r.n.Add(int64(len(records)))
	}
	return r.no
}

func (*refusing) Close() error { return nil }

// denied is a store that may not be read until it may.
type denied struct {
	*object.Mem
	no error
}

func (d *denied) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, object.Info, error) {
	if d.no != nil {
		return nil, object.Info{}, d.no
	}
	return d.Mem.Get(ctx, key, offset, length)
}

// What is wrong with all objects parks none of them: it is waited for.
func TestAFollowerParksOnlyWhatIsWrongWithAnObject(t *testing.T) {
	store, to := &denied{Mem: object.NewMem()}, new(refusing)
	text := someLines(20)
	if err := store.Put(t.Context(), "a.log", strings.NewReader(text), int64(len(text)), object.Attrs{}); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		OpenBucket: func(string) (object.Store, error) { return store, nil },
		OpenSink:   func(string) (sink.Sink, error) { return to, nil },
		Log:        slog.New(slog.DiscardHandler),
	}
	at := Address{Source: "s3://b", Base: "s3://b"}
	f, err := cfg.NewFollower(Spec{Address: at, Sink: "x"})
	if err != nil {
		t.Fatal(err)
	}
	no := myrmidon.Permanent(errors.New("401"))
	for what, set := range map[string]func(error){"destination": func(err error) { to.no = err }, "source": func(err error) { store.no = err }} {
		why := no
		if what == "source" {
			why = myrmidon.Permanent(fmt.Errorf("%w: 403", fs.ErrPermission))
		}
		set(why)
		if got, err := f.Ship(t.Context(), at, "a.log"); !errors.Is(err, why) || len(got.Rejects) > 0 {
			t.Errorf("the %s refuses all: %v, %+v", what, err, got)
		}
		set(nil)
	}
	if got, err := f.Ship(t.Context(), at, "a.log"); err != nil || got.Counts.Acked != 20 || to.n.Load() != 20 || got.ETag == "" || got.Bytes != int64(len(text)) {
		t.Errorf("%v, %+v", err, got)
	}
	if got, err := f.Ship(t.Context(), at, "gone.log"); err != nil || len(got.Rejects) != 1 {
		t.Errorf("an object that is gone: %v, %+v", err, got)
	}
	sum, err := f.Close()
	if err != nil || sum.Lines.Acked != 20 || sum.Objects.Read != 2 || sum.Objects.Failed != 1 || len(sum.Failures["objects"].LastFew) != 3 {
		t.Errorf("%v, %+v", err, sum)
	}
}

// Of lines beyond those whose places are kept, a follower parks how many there are.
func TestAFollowerSaysHowManyLinesItDoesNotList(t *testing.T) {
	store := object.NewMem()
	text := strings.Repeat("junk\n", keptRejects+7)
	if err := store.Put(t.Context(), "a.log", strings.NewReader(text), int64(len(text)), object.Attrs{}); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		OpenBucket: func(string) (object.Store, error) { return store, nil },
		OpenSink:   func(string) (sink.Sink, error) { return new(refusing), nil },
		Log:        slog.New(slog.DiscardHandler),
	}
	at := Address{Source: "s3://b", Base: "s3://b"}
	f, err := cfg.NewFollower(Spec{Address: at, Sink: "x"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Ship(t.Context(), at, "a.log")
	if err != nil || len(got.Rejects) != keptRejects+1 || !strings.HasPrefix(got.Rejects[keptRejects].Reason, "7 more lines") || got.Rejects[0].Text != "junk" {
		t.Errorf("%v, %d rejects, the last %+v", err, len(got.Rejects), got.Rejects[max(0, len(got.Rejects)-1):])
	}
	if sum, err := f.Close(); err != nil || sum.Lines.Unparsed != keptRejects+7 || sum.Objects.Failed != 1 {
		t.Errorf("%v, %+v", err, sum)
	}
}
