package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSettings(t *testing.T) {
	good := settings{url: "amqp://x/", n: 10, size: 300, publishers: 2, outstanding: 4, consumers: 2, prefetch: 8, multiple: 4, latencies: 1}
	if err := good.check(); err != nil {
		t.Fatalf("good settings: %v", err)
	}
	for _, tt := range []struct {
		name  string
		spoil func(*settings)
		want  string
	}{
		{"no broker", func(s *settings) { s.url = "" }, "-url"},
		{"no message", func(s *settings) { s.n = 0 }, "-n"},
		{"no room for a message's number", func(s *settings) { s.size = 7 }, "-size"},
		{"a publisher that may not publish", func(s *settings) { s.outstanding = 1 }, "-outstanding"},
		{"acknowledgements which wait for messages that wait for them", func(s *settings) { s.multiple = 9 }, "-prefetch"},
		{"more than AMQP's 16 bits", func(s *settings) { s.prefetch = 65536 }, "-prefetch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := good
			tt.spoil(&s)
			if err := s.check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want one that names %s", err, tt.want)
			}
		})
	}
}

func TestTally(t *testing.T) {
	s := settings{size: 300, filler: filler(300)}
	message := func(i int) []byte { return s.body(nil, i) }
	for _, tt := range []struct {
		name string
		come [][]byte
		want string // of the last error; "" for none
	}{
		{"all have come, in any order", [][]byte{message(1), message(0), message(2)}, ""},
		{"one comes twice", [][]byte{message(0), message(0)}, "twice"},
		{"one that was not sent", [][]byte{message(3)}, "only 3"},
		{"one that is cut", [][]byte{message(0)[:299]}, "299 bytes"},
		{"one with another's text", [][]byte{append(message(0)[:numberSize:numberSize], message(1)[numberSize:]...)}, "changed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tally := newTally(3)
			var err error
			for _, b := range tt.come {
				err = tally.note(s, b)
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want one that says %q", err, tt.want)
			}
			select {
			case <-tally.done:
				if tt.want != "" {
					t.Error("it says that all have come")
				}
			default:
				if tt.want == "" {
					t.Error("it does not say that all have come")
				}
			}
		})
	}
}

// pair is the two ends of a TCP connection, whose writes the kernel takes a while.
func pair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = net.Dial("tcp4", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	return here, there
}

func TestGatherSendsAllInOrderAndWhatItHoldsAtItsEnd(t *testing.T) {
	here, there := pair(t)
	g := newGather(here)
	var got []byte
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if got, err = io.ReadAll(there); err != nil {
			t.Error(err)
		}
	})
	var want []byte
	for i := range 20_000 { // of which gatherMost holds a part
		b := bytes.Repeat([]byte{byte(i)}, 1+i%97)
		want = append(want, b...)
		if n, err := g.Write(b); n != len(b) || err != nil {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
		clear(b) // a writer may use its bytes again at once
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, %d were written, or they differ", len(got), len(want))
	}
	if _, err := g.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after the end: %v", err)
	}
}

func TestGatherDoesNotWaitForAPeerThatReadsNothing(t *testing.T) {
	here, _ := pair(t)
	g := newGather(here)
	blocked := make(chan error)
	go func() {
		var err error
		for b := make([]byte, gatherMost); err == nil; {
			_, err = g.Write(b)
		}
		blocked <- err
	}()
	time.Sleep(50 * time.Millisecond) // until the kernel's buffers are full, or not: both must end
	go g.Close()
	select {
	case err := <-blocked:
		if err == nil {
			t.Error("the writer was not told")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the writer still waits")
	}
	select {
	case <-g.done:
	case <-time.After(10 * time.Second):
		t.Error("the sender still waits")
	}
}
