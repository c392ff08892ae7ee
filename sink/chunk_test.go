package sink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/sink"
)

// numbered is a document that its number determines, of one that is short, usual or long.
func numbered(n int) []byte {
	return fmt.Appendf(nil, `{"n":%d,"text":%q}`, n, bytes.Repeat([]byte{byte('a' + n%26)}, []int{3, 900, 2500, 12_000}[n%4]))
}

// wrong says how a record differs from what was added under its ID.
func wrong(r sink.Record) error {
	var n int
	if _, err := fmt.Sscan(r.ID, &n); err != nil {
		return err
	}
	if !bytes.Equal(r.Data, numbered(n)) {
		return fmt.Errorf("record %s has become %.40s…", r.ID, r.Data)
	}
	return nil
}

// TestMemoryIsUsedAgainOnlyWhenNobodyLooks lets records fail alone, with their batch, and for
// good, while others are added in their memory's place.
func TestMemoryIsUsedAgainOnlyWhenNobodyLooks(t *testing.T) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 2))
	var found []error
	look := func(r sink.Record) {
		if err := wrong(r); err != nil {
			found = append(found, err)
		}
	}
	f := &fake{send: func(_ context.Context, rs []sink.Record) error {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range rs {
			look(r)
		}
		if random.IntN(10) == 0 {
			return errors.New("away")
		}
		p := &sink.PartialError{Total: len(rs)}
		for i := range rs {
			switch random.IntN(20) {
			case 0:
				p.Failed = append(p.Failed, sink.Failed{Index: i, Err: errors.New("busy")})
			case 1:
				p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.Permanent(errors.New("refused"))})
			}
		}
		if len(p.Failed) == 0 {
			return nil
		}
		return p
	}}
	b := sink.NewBatcher(f, sink.BatcherConfig{
		Memory: 256 << 10, Bytes: 32 << 10, Backoff: time.Microsecond, MaxBackoff: time.Microsecond, Attempts: 1000,
		Acked: func(rs []sink.Record) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range rs {
				look(r)
			}
		},
		Parked: func(r sink.Record, _ error) error {
			mu.Lock()
			defer mu.Unlock()
			look(r)
			return nil
		},
	})
	const count = 800
	for n := range count {
		add(t, b, sink.Record{ID: fmt.Sprint(n), Data: numbered(n)})
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Acked+s.Failed != count || s.Failed == 0 || s.Retried == 0 {
		t.Errorf("of %d records %d were taken and %d refused, %d sent again", count, s.Acked, s.Failed, s.Retried)
	}
	if len(found) > 0 {
		t.Errorf("%d records were not what they had been, the first: %v", len(found), found[0])
	}
}

func TestABatcherUsesItsMemoryAgain(t *testing.T) {
	b := sink.NewBatcher(&fake{}, sink.BatcherConfig{Memory: 256 << 10})
	r := sink.Record{ID: "1", Data: numbered(2)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const count = 10_000
	for range count {
		add(t, b, r)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if added, allocated := count*len(r.Data), after.TotalAlloc-before.TotalAlloc; allocated > uint64(added)/4 {
		t.Errorf("for documents of %d bytes in all, %d were allocated", added, allocated)
	}
}
