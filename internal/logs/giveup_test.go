package logs

import (
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/sink"
)

// What is given up is parked, and counted only when it is.
func TestAnObjectIsGivenUp(t *testing.T) {
	store, to := &denied{Mem: object.NewMem(), no: myrmidon.Permanent(fs.ErrPermission)}, new(refusing)
	text := someLines(3)
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
	_, why := f.Ship(t.Context(), at, "a.log")
	if why == nil || OfDestination(why) {
		t.Fatalf("an object that is denied: %v", why)
	}
	full := errors.New("the disk is full")
	if _, err := f.GiveUp(t.Context(), at, "a.log", why, func([]Reject) error { return full }); !errors.Is(err, full) || f.Summary().Objects.Failed != 0 {
		t.Errorf("it could not be parked: %v, %+v", err, f.Summary())
	}
	var kept []Reject
	got, err := f.GiveUp(t.Context(), at, "a.log", why, func(r []Reject) error { kept = r; return nil })
	if err != nil || len(got.Rejects) != 1 || len(kept) != 1 || kept[0].Object != "s3://b/a.log" || kept[0].Reason != why.Error() {
		t.Errorf("%v, %+v, %+v", err, got, kept)
	}
	store.no, to.no = nil, myrmidon.Permanent(errors.New("401"))
	if _, why := f.Ship(t.Context(), at, "a.log"); !OfDestination(why) {
		t.Errorf("a destination that refuses: %v", why)
	}
	sum, err := f.Close()
	count := NewSourceCount("s", "s")
	count.Begin()
	count.End(got, nil)
	sum.Sources = append(sum.Sources, count.Summary())
	if err != nil || sum.Objects.Read != 1 || sum.Objects.Failed != 1 || sum.Failures["objects"].Total != 1 || sum.Check() != nil {
		t.Errorf("%v, %v, %+v", err, sum.Check(), sum)
	}
}
