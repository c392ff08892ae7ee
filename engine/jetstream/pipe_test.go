package jetstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// startPlain starts an embedded server without streams and returns both wires to it.
func startPlain(t *testing.T) (*pipe, library) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	end, err := srv.InProcessConn()
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPipe("test", end, func() {})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect("", nats.InProcessServer(srv), nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return p, library{conn}
}

// Whatever one wire sends, the other receives: the client library vouches for the protocol.
func TestPipeSpeaksTheProtocol(t *testing.T) {
	p, lib := startPlain(t)
	msgs := []*nats.Msg{
		{Subject: "a.b", Data: []byte("plain")},
		{Subject: "a.b", Data: nil},
		{Subject: "a.b", Reply: "re.ply", Data: []byte("with a reply\r\nPING\r\n")},
		{Subject: "a.b", Header: nats.Header{"Myrmidon-Wait": {"1s"}}, Data: []byte("x")},
		{Subject: "a.b", Reply: "r", Header: nats.Header{"K": {"one", "two"}, "Long": {strings.Repeat("v", 5000)}}},
		{Subject: "a.b", Data: []byte(strings.Repeat("long", 100_000))}, // more than is read at a time
	}
	for name, way := range map[string]struct{ from, to wire }{"pipe to library": {p, lib}, "library to pipe": {lib, p}} {
		t.Run(name, func(t *testing.T) {
			in := make(chan *nats.Msg, 16)
			subject, stop, err := way.to.listen(in)
			if err != nil {
				t.Fatal(err)
			}
			if err := way.to.flush(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			for _, m := range msgs {
				out := *m
				out.Subject = subject
				if err := way.from.send(&out); err != nil {
					t.Fatal(err)
				}
			}
			if err := way.from.post(subject, []byte("posted")); err != nil {
				t.Fatal(err)
			}
			if err := way.from.flush(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			type got struct {
				Reply  string
				Header nats.Header
				Data   string
			}
			var want, have []got
			for _, m := range append(slices.Clone(msgs), &nats.Msg{Data: []byte("posted")}) {
				want = append(want, got{m.Reply, m.Header, string(m.Data)})
			}
			for range want {
				select {
				case m := <-in:
					if m.Subject != subject {
						t.Errorf("subject %q, want %q", m.Subject, subject)
					}
					have = append(have, got{m.Reply, m.Header, string(m.Data)})
				case <-time.After(20 * time.Second):
					t.Fatal("a message has not come")
				}
			}
			if d := cmp.Diff(want, have); d != "" {
				t.Error(d)
			}
			stop()
			if err := way.to.flush(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			if err := way.from.send(&nats.Msg{Subject: subject, Data: []byte("late")}); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(way.from.flush(20*time.Second), way.to.flush(20*time.Second)); err != nil {
				t.Fatal(err)
			}
			if len(in) > 0 {
				t.Error("a message came after stop")
			}
		})
	}
}

func TestPipeTellsThatNobodyListens(t *testing.T) {
	p, _ := startPlain(t)
	b := newBackend(0, nil)
	q, err := b.question(&line{wire: p}, &nats.Msg{Subject: "nobody.there"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.answer(time.After(20 * time.Second)); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("%v, want that nobody answers", err)
	}
}

// Many send at once, the last of each with a question: order is kept for each of them.
func TestPipeKeepsEachSendersOrder(t *testing.T) {
	p, lib := startPlain(t)
	const senders, each = 16, 500
	in := make(chan *nats.Msg, senders*each)
	subject, stop, err := lib.listen(in)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := lib.flush(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				var err error
				if data := fmt.Appendf(nil, "%d %d", s, i); i%3 == 0 {
					err = p.post(subject, data)
				} else {
					err = p.send(&nats.Msg{Subject: subject, Data: data})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := p.flush(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	next := make([]int, senders)
	for range senders * each {
		select {
		case m := <-in:
			var s, i int
			if _, err := fmt.Sscanf(string(m.Data), "%d %d", &s, &i); err != nil {
				t.Fatal(err)
			}
			if i != next[s] {
				t.Fatalf("sender %d: message %d came, want %d", s, i, next[s])
			}
			next[s]++
		case <-time.After(20 * time.Second):
			t.Fatal("a message has not come")
		}
	}
}

// A server that is not ours to choose: what it says ends the pipe, and those who wait.
func TestPipeEndsOnNonsense(t *testing.T) {
	for name, says := range map[string]string{
		"an error":             "-ERR 'Slow Consumer'\r\n",
		"a size that is none":  "MSG a 1 x\r\n",
		"a negative size":      "MSG a 1 -4\r\n",
		"no size":              "MSG a\r\n",
		"headers that are not": "HMSG a 1 4 4\r\nabcd\r\n",
		"too many headers":     "HMSG a 1 9 4\r\nabcd\r\n",
		"the end":              "",
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				r := bufio.NewReader(theirs)
				_, _ = io.WriteString(theirs, "INFO {}\r\n")
				for range 2 { // CONNECT and PING
					_, _ = r.ReadString('\n')
				}
				_, _ = io.WriteString(theirs, "PONG\r\n")
				for range 2 { // SUB and PUB
					_, _ = r.ReadString('\n')
				}
				_, _ = io.WriteString(theirs, says)
				theirs.Close()
			}()
			b := newBackend(0, nil)
			broken := make(chan struct{})
			p, err := openPipe("test", ours, func() { close(broken); b.link.down() })
			if err != nil {
				t.Fatal(err)
			}
			if q, err := b.question(&line{wire: p}, &nats.Msg{Subject: "q"}); err == nil { // else it has ended already
				if m, err := q.answer(nil); err == nil {
					t.Errorf("a question was answered: %v", m)
				}
			}
			select {
			case <-broken:
			case <-time.After(20 * time.Second):
				t.Fatal("nobody is told that the pipe has ended")
			}
			if err := p.send(&nats.Msg{Subject: "q"}); err == nil {
				t.Error("an ended pipe takes messages")
			}
			if err := p.post("q", nil); err == nil {
				t.Error("an ended pipe takes what is posted")
			}
		})
	}
}

func FuzzPipeTakesAnything(f *testing.F) {
	for _, s := range []string{
		"INFO {}\r\nMSG a 1 2\r\nhi\r\nPING\r\n", "HMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", "HMSG a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
		"MSG a 1 2\r\nh", "HMSG 1\r\n", "MSG  \r\n", "+OK\r\n", "-ERR 'x'\r\n", "\n", "HMSG a 1 30 30\r\nNATS/1.0\r\nNats-Batch-Id: x\r\n\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := make(chan *nats.Msg, 1000)
		p := &pipe{ears: map[int]chan *nats.Msg{1: in}, posted: make(chan struct{}, 1)}
		rest, err := p.take(b)
		if len(rest) > len(b) {
			t.Fatalf("%d bytes of %d are left", len(rest), len(b))
		}
		if err != nil {
			return
		}
		again := len(in)
		if _, err := p.take(rest); err != nil || len(in) != again {
			t.Errorf("what is not whole was taken: %q", rest)
		}
	})
}

func TestPlaceOfAcknowledgement(t *testing.T) {
	for _, tt := range []struct {
		subject             string
		delivered, sequence uint64
		ok                  bool
	}{
		{"$JS.ACK.S.C.3.70.5.1700000000000000000.9", 3, 70, true},
		{"$JS.ACK._.hash.S.C.3.70.5.1700000000000000000.9.random", 3, 70, true},
		{"$JS.ACK.domain.hash.S.C.3.70.5.1700000000000000000.9", 3, 70, true},
		{"$JS.ACK.S.C.3.70.5.1700000000000000000.9.10", 0, 0, false},
		{"$JS.ACK.S.C.3.70.5.1700000000000000000", 0, 0, false},
		{"$JS.ACK.S.C.x.70.5.1700000000000000000.9", 0, 0, false},
		{"$JS.ACK.S.C.3.-1.5.1700000000000000000.9", 0, 0, false},
		{"_INBOX.a.b", 0, 0, false},
		{"", 0, 0, false},
	} {
		delivered, sequence, ok := parseAckSubject(tt.subject)
		if delivered != tt.delivered || sequence != tt.sequence || ok != tt.ok {
			t.Errorf("%q: %d, %d, %t, want %d, %d, %t", tt.subject, delivered, sequence, ok, tt.delivered, tt.sequence, tt.ok)
		}
		// The client library reads the same.
		m := &nats.Msg{Reply: tt.subject, Sub: new(nats.Subscription)}
		if meta, err := m.Metadata(); err == nil && ok && (meta.NumDelivered != delivered || meta.Sequence.Stream != sequence) {
			t.Errorf("%q: the client library reads %d, %d", tt.subject, meta.NumDelivered, meta.Sequence.Stream)
		}
	}
}
