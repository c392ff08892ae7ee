// Package sinktest says, as tests, what every [sink.Sink] promises. An adapter's own test is
// then ten lines, and the faults that only it can have:
//
//	func TestFile(t *testing.T) {
//		sinktest.Run(t, func(t *testing.T) sinktest.Opened {
//			path := filepath.Join(t.TempDir(), "out.ndjson")
//			s, err := sink.NewFile(sink.FileConfig{Path: path})
//			…
//			return sinktest.Opened{Sink: s, Received: func() []string { return lines(t, path) }}
//		}, sinktest.Options{})
//	}
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/sink"
)

// Opened is a sink, and what has arrived where it sends to.
type Opened struct {
	Sink sink.Sink
	// Received returns the documents that have arrived since the sink was opened, as they
	// were sent, in the order of arrival. It is called after Close.
	Received func() []string
}

// Options say where sinks differ.
type Options struct {
	// Largest is a document that the destination takes, in bytes; 0 means 512 KiB.
	Largest int
	// Many is how many records the long batch has; 0 means 5,000.
	Many int
	// DropsDoubles is set for destinations that keep one record of each ID.
	DropsDoubles bool
}

// Run tests the sink that open returns: a new one with an empty destination for each call.
func Run(t *testing.T, open func(t *testing.T) Opened, opt Options) {
	t.Helper()
	if opt.Largest == 0 {
		opt.Largest = 512 << 10
	}
	if opt.Many == 0 {
		opt.Many = 5000
	}
	for _, test := range []struct {
		name string
		run  func(*testing.T, Opened, Options)
	}{
		{"a record arrives as it was sent", testOne},
		{"no records are none", testNone},
		{"a long batch arrives whole, and in order where that is promised", testLong},
		{"all of JSON arrives", testContent},
		{"a record that is no line is refused alone", testNotALine},
		{"records are neither changed nor kept", testNotKept},
		{"many send at once", testTogether},
		{"the same record may be sent again", testAgain},
		{"an ended context is an error of the moment", testEndedContext},
		{"a closed sink says so", testClosed},
		{"a batcher delivers through it", testBatcher},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := open(t)
			t.Cleanup(func() { // for tests that have failed before
				if err := o.Sink.Close(); err != nil && !t.Failed() {
					t.Errorf("a second Close: %v", err)
				}
			})
			test.run(t, o, opt)
		})
	}
}

// record returns the nth record of a test.
func record(n int) sink.Record {
	return sink.Record{
		ID:   fmt.Sprintf("record-%06d", n),
		Time: time.Date(2026, 11, 21, 19, 0, n%60, 0, time.UTC),
		Data: fmt.Appendf(nil, `{"n":%d,"text":"line %d"}`, n, n),
		Key:  fmt.Sprintf("key-%d", n%17),
	}
}

func records(from, n int) []sink.Record {
	out := make([]sink.Record, n)
	for i := range out {
		out[i] = record(from + i)
	}
	return out
}

func texts(rs []sink.Record) []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = string(r.Data)
	}
	return out
}

// send sends, or ends the test.
func send(t *testing.T, s sink.Sink, rs []sink.Record) {
	t.Helper()
	if err := s.Send(t.Context(), rs); err != nil {
		t.Fatalf("Send of %d records: %v", len(rs), err)
	}
}

// arrived closes the sink and fails the test unless want has arrived.
func arrived(t *testing.T, o Opened, inOrder bool, want []string) {
	t.Helper()
	if err := o.Sink.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	got := o.Received()
	if !inOrder {
		got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what has arrived (-want +got):\n%.2000s", diff)
	}
}

func testOne(t *testing.T, o Opened, _ Options) {
	rs := records(1, 1)
	send(t, o.Sink, rs)
	arrived(t, o, true, texts(rs))
}

func testNone(t *testing.T, o Opened, _ Options) {
	send(t, o.Sink, nil)
	send(t, o.Sink, []sink.Record{})
	arrived(t, o, true, []string{})
}

func testLong(t *testing.T, o Opened, opt Options) {
	rs := records(1, opt.Many)
	send(t, o.Sink, rs)
	arrived(t, o, sink.TraitsOf(o.Sink).InOrder, texts(rs))
}

func testContent(t *testing.T, o Opened, opt Options) {
	long := `{"long":"` + strings.Repeat("x", opt.Largest-11) + `"}`
	var rs []sink.Record
	for i, data := range []string{
		`{}`, `{ }`, `{"a":null,"b":[1,2.5e9,true],"c":{"d":{}}}`, `{"quotes":"\"h2\",\"http/1.1\"","back":"\\"}`,
		`{"escapes":"\n\r\t\u0000\u2028"}`, "{\"raw\":\"\u2028 \u00e9 \u65e5\u672c \U0001f600\"}", "{\"cr\":1}", ` {"space":1} `,
		`{"index":{"_id":"x"}}`, long,
	} {
		rs = append(rs, sink.Record{ID: fmt.Sprint("content-", i), Data: []byte(data), Key: fmt.Sprint("日本 ", i)})
	}
	send(t, o.Sink, rs)
	arrived(t, o, sink.TraitsOf(o.Sink).InOrder, texts(rs))
}

func testNotALine(t *testing.T, o Opened, _ Options) {
	rs := records(0, 6)
	rs[0].Data = []byte("{\n}")
	rs[3].Data = nil
	rs[5].Data = []byte(" ")
	err := o.Sink.Send(t.Context(), rs)
	var p *sink.PartialError
	if !errors.As(err, &p) {
		t.Fatalf("Send: %v, want a *PartialError", err)
	}
	var at []int
	for _, f := range p.Failed {
		at = append(at, f.Index)
		if !myrmidon.IsPermanent(f.Err) || myrmidon.Hint(f.Err) == "" {
			t.Errorf("record %d: %v is not permanent, or has no hint", f.Index, f.Err)
		}
	}
	if !slices.Equal(at, []int{0, 3, 5}) || p.Total != 6 || myrmidon.IsPermanent(err) {
		t.Errorf("failed are %v of %d (permanent: %v), want 0, 3 and 5 of 6", at, p.Total, myrmidon.IsPermanent(err))
	}
	arrived(t, o, sink.TraitsOf(o.Sink).InOrder, texts([]sink.Record{rs[1], rs[2], rs[4]}))
}

func testNotKept(t *testing.T, o Opened, _ Options) {
	rs := records(1, 100)
	want := texts(rs)
	send(t, o.Sink, rs)
	if diff := cmp.Diff(records(1, 100), rs); diff != "" {
		t.Errorf("Send has changed the records:\n%s", diff)
	}
	for _, r := range rs {
		for i := range r.Data {
			r.Data[i] = '!'
		}
	}
	arrived(t, o, sink.TraitsOf(o.Sink).InOrder, want)
}

func testTogether(t *testing.T, o Opened, _ Options) {
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 10 {
				if err := o.Sink.Send(t.Context(), records(g*1000+i*50, 50)); err != nil {
					t.Errorf("goroutine %d: %v", g, err)
				}
			}
		})
	}
	all.Wait()
	var want []string
	for g := range 8 {
		want = append(want, texts(records(g*1000, 500))...)
	}
	arrived(t, o, false, want)
}

func testAgain(t *testing.T, o Opened, opt Options) {
	rs := records(1, 3)
	send(t, o.Sink, rs)
	send(t, o.Sink, rs)
	want := append(texts(rs), texts(rs)...)
	if opt.DropsDoubles {
		want = texts(rs)
	}
	arrived(t, o, sink.TraitsOf(o.Sink).InOrder, want)
}

func testEndedContext(t *testing.T, o Opened, _ Options) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Sink.Send(ctx, records(1, 3)); !errors.Is(err, context.Canceled) || myrmidon.IsPermanent(err) {
		t.Errorf("Send: %v, want one that wraps context.Canceled and is not permanent", err)
	}
	send(t, o.Sink, records(10, 2)) // and the sink goes on
	arrived(t, o, sink.TraitsOf(o.Sink).InOrder, texts(records(10, 2)))
}

func testClosed(t *testing.T, o Opened, _ Options) {
	send(t, o.Sink, records(1, 2))
	for range 2 {
		if err := o.Sink.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := o.Sink.Send(t.Context(), records(3, 1)); !errors.Is(err, sink.ErrClosed) || !myrmidon.IsPermanent(err) {
		t.Errorf("Send after Close: %v, want sink.ErrClosed, permanent", err)
	}
	arrived(t, o, sink.TraitsOf(o.Sink).InOrder, texts(records(1, 2)))
}

func testBatcher(t *testing.T, o Opened, opt Options) {
	b := sink.NewBatcher(o.Sink, sink.BatcherConfig{Memory: 64 << 10, Parallel: 3, Ordered: true})
	rs := records(1, opt.Many)
	for i, r := range rs {
		if n, err := b.Add(t.Context(), r); err != nil || n != uint64(i+1) {
			t.Fatalf("Add of record %d: %d, %v", i, n, err)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Errorf("close the batcher: %v", err)
	}
	s := b.Stats()
	if n := uint64(opt.Many); s.Acked != n || s.Sent != n || s.Failed != 0 || s.Held != 0 || s.Peak > 64<<10 || b.Settled() != n {
		t.Errorf("%+v, settled %d; want %d of all, and at most 64 KiB held", s, b.Settled(), n)
	}
	arrived(t, o, false, texts(rs))
}
