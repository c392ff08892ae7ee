package sink_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon"
	"myrmidon/sink"
)

// TestAPartialErrorThatMakesNoSenseIsOfAll: taken at its word, records that it names in a wrong
// place would count as acknowledged.
func TestAPartialErrorThatMakesNoSenseIsOfAll(t *testing.T) {
	busy := errors.New("busy")
	for name, failed := range map[string][]sink.Failed{
		"one comes twice":      {{Index: 0, Err: busy}, {Index: 0, Err: busy}, {Index: 2, Err: busy}},
		"they do not ascend":   {{Index: 2, Err: busy}, {Index: 0, Err: busy}},
		"one is not in it":     {{Index: 3, Err: busy}},
		"one is before it":     {{Index: -1, Err: busy}},
		"one is without error": {{Index: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := true
				f := &fake{send: func(_ context.Context, rs []sink.Record) error {
					if !first {
						return nil
					}
					first = false
					return &sink.PartialError{Total: len(rs), Failed: failed}
				}}
				b := sink.NewBatcher(f, sink.BatcherConfig{Linger: time.Hour, Parallel: 1})
				add(t, b, records(3)...)
				if err := b.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				all := []string{record(0).ID, record(1).ID, record(2).ID}
				if calls, _ := f.seen(); len(calls) != 2 || !slices.Equal(calls[1], all) {
					t.Errorf("sent %v, want all three twice", calls)
				}
			})
		})
	}
}

// flushed is a sink that counts what was taken, and how much of it was made durable.
type flushed struct {
	fake
	taken, durable atomic.Int64
	err            error
}

func (f *flushed) Send(_ context.Context, rs []sink.Record) error {
	f.taken.Add(int64(len(rs)))
	return nil
}

func (f *flushed) Flush(context.Context) error {
	f.durable.Store(f.taken.Load())
	return f.err
}

// TestAFlushIsTheSinksToo: a checkpoint stands behind what a power cut could lose otherwise.
func TestAFlushIsTheSinksToo(t *testing.T) {
	f := new(flushed)
	b := sink.NewBatcher(f, sink.BatcherConfig{})
	add(t, b, records(50)...)
	if err := b.Flush(t.Context()); err != nil || f.durable.Load() != 50 {
		t.Errorf("Flush: %v, %d of 50 are durable", err, f.durable.Load())
	}
	f.err = errors.New("the disk is gone")
	add(t, b, records(1)...)
	if err := b.Flush(t.Context()); !errors.Is(err, f.err) {
		t.Errorf("Flush: %v, want what the sink says", err)
	}
	if err := b.Close(t.Context()); !errors.Is(err, f.err) {
		t.Errorf("Close: %v, want what the sink says", err)
	}
}

// TestWhoeverAddsIsToldOfTheEnd, at once, and not when there is room.
func TestWhoeverAddsIsToldOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		f := &fake{send: func(context.Context, []sink.Record) error { <-let; return nil }}
		b := sink.NewBatcher(f, sink.BatcherConfig{Memory: 200})
		add(t, b, record(0))
		var said error
		go func() { _, said = b.Add(t.Context(), record(1)) }()
		synctest.Wait()
		ended := make(chan error)
		go func() { ended <- b.Close(t.Context()) }()
		synctest.Wait()
		if !errors.Is(said, sink.ErrClosed) {
			t.Errorf("Add while the batcher is closed: %v, want %v", said, sink.ErrClosed)
		}
		close(let)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestAnEarlyAcknowledgementSpoilsThoseBefore: what came before one of records that the peer
// cannot have yet may have been of another window, too.
func TestAnEarlyAcknowledgementSpoilsThoseBefore(t *testing.T) {
	client, server := net.Pipe()
	died := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(server, make([]byte, 100<<10)) // of a megabyte: some ten records
		for _, ack := range []string{"2A\x00\x00\x00\x01", "2A\x00\x00\x00\x64", "2A\x00\x00\x00\x00"} {
			if err == nil {
				_, err = server.Write([]byte(ack))
			}
		}
		died <- errors.Join(err, server.Close())
	}()
	s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: "x:1", Dial: func(context.Context, string, string) (net.Conn, error) {
		return client, nil
	}}})
	long := records(100)
	for i := range long {
		long[i].Data = []byte(`{"a":"` + strings.Repeat("x", 10<<10) + `"}`)
	}
	err := s.Send(t.Context(), long)
	var part *sink.PartialError
	if err == nil || errors.As(err, &part) || myrmidon.IsPermanent(err) {
		t.Errorf("Send: %v, want an error of the whole batch", err)
	}
	if err := <-died; err != nil {
		t.Error(err)
	}
}

// TestAWindowOfLumberjackIsBounded: a peer holds it as a whole.
func TestAWindowOfLumberjackIsBounded(t *testing.T) {
	client, server := net.Pipe()
	var windows []uint32
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			n, err := readWindow(server)
			if err != nil {
				return
			}
			windows = append(windows, n)
			if _, err := server.Write([]byte{'2', 'A', 0, 0, 0, byte(n)}); err != nil {
				return
			}
		}
	}()
	s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: "x:1", Dial: func(context.Context, string, string) (net.Conn, error) {
		return client, nil
	}}})
	large := records(7)
	for i := range large {
		large[i].Data = []byte(`{"a":"` + strings.Repeat("x", 2<<20-9) + `"}`)
	}
	large[6].Data = []byte(`{"a":"` + strings.Repeat("x", 5<<20) + `"}`) // alone is more than a window
	if err := s.Send(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	if want := []uint32{2, 2, 2, 1}; !slices.Equal(windows, want) {
		t.Errorf("windows of %v records, want %v", windows, want)
	}
}
