package sink

import (
	"context"
	"testing"
)

type takesAll struct{}

func (takesAll) Send(context.Context, []Record) error { return nil }
func (takesAll) Close() error                         { return nil }

// TestAChunkIsSpareOnce: one that is being filled is not, or the list of those grows for ever.
func TestAChunkIsSpareOnce(t *testing.T) {
	b := NewBatcher(takesAll{}, BatcherConfig{})
	for range 500 {
		if _, err := b.Add(t.Context(), Record{Data: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(b.spare); n > 1 {
		t.Errorf("%d spare chunks, of which there is one", n)
	}
}

// TestWhatHasFailedKeepsItsOrder, whichever of two senders brings it back first.
func TestWhatHasFailedKeepsItsOrder(t *testing.T) {
	items := func(numbers ...uint64) (out []item) {
		for _, n := range numbers {
			out = append(out, item{n: n})
		}
		return out
	}
	l := new(lane)
	l.keep(items(3, 4, 8))
	l.keep(items(1, 5, 9))
	l.keep(nil)
	l.keep(items(2, 6, 7))
	for i, it := range l.again {
		if it.n != uint64(i+1) {
			t.Fatalf("record %d is in place %d of %d", it.n, i+1, len(l.again))
		}
	}
	if len(l.again) != 9 {
		t.Errorf("%d of 9 are kept", len(l.again))
	}
}
