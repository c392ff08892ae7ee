package sink_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/sink"
)

func newTCP(t testing.TB, cfg sink.Conns) *sink.TCP {
	t.Helper()
	s, err := sink.NewTCP(sink.TCPConfig{Conns: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // its error is the test's to look at
	return s
}

func newLumberjack(t testing.TB, cfg sink.LumberjackConfig) *sink.Lumberjack {
	t.Helper()
	s, err := sink.NewLumberjack(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestAConnectionIsUsedOnlyOnceItIsConnected is the first failure of the article: sockets were
// handed out while they were connecting, and a process with tens of lines to send was gone
// before anything was.
func TestAConnectionIsUsedOnlyOnceItIsConnected(t *testing.T) {
	peer := sinkfault.NewLines(listen(t), nil)
	defer peer.Close()
	connecting, let := make(chan struct{}), make(chan struct{})
	s := newTCP(t, sink.Conns{Address: peer.Addr(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		close(connecting)
		<-let
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	sent := make(chan error)
	go func() { sent <- s.Send(t.Context(), records(10)) }()
	<-connecting
	select {
	case err := <-sent:
		t.Fatalf("Send has returned before the connection was made: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if n := s.Stats(); n.Created != 0 || n.Open != 0 {
		t.Errorf("%+v while connecting", n)
	}
	close(let)
	if err := errors.Join(<-sent, s.Close()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(texts(10), peer.Received()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := s.Stats(); n.Created != 1 || n.Destroyed != 1 || n.Open != 0 || n.Failed != 0 {
		t.Errorf("%+v", n)
	}
}

func TestCloseWaitsUntilAllIsRead(t *testing.T) {
	let := make(chan struct{})
	peer := sinkfault.NewLines(listen(t), func(int) sinkfault.Peer { <-let; return sinkfault.Peer{Slow: time.Millisecond} })
	defer peer.Close()
	s := newTCP(t, sink.Conns{Address: peer.Addr()})
	err := s.Send(t.Context(), records(100))
	close(let)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil || len(peer.Received()) != 100 {
		t.Errorf("after Close the peer has %d of 100, %v", len(peer.Received()), err)
	}
}

func TestCloseSaysWhatMayBeLost(t *testing.T) {
	for _, c := range []struct {
		name, want string
		peer       sinkfault.Peer
		linger     time.Duration
	}{
		{"a peer that never closes", "has neither closed nor reset", sinkfault.Peer{Stays: true}, 500 * time.Millisecond},
		{"a peer that goes with half of it unread", "reset", sinkfault.Peer{Lines: 5, Slow: 20 * time.Millisecond}, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			let := make(chan struct{}) // or it goes before all is sent
			peer := sinkfault.NewLines(listen(t), func(int) sinkfault.Peer { <-let; return c.peer })
			defer peer.Close()
			s := newTCP(t, sink.Conns{Address: peer.Addr(), Linger: c.linger})
			// More than a reader of lines has read when it stops.
			rs := []sink.Record{}
			for i := range 20_000 {
				rs = append(rs, record(i))
			}
			err := s.Send(t.Context(), rs)
			close(let)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err == nil || !strings.Contains(err.Error(), c.want) || myrmidon.Hint(err) == "" {
				t.Errorf("Close: %v, want one with %q and a hint", err, c.want)
			}
			if err := s.Close(); err != nil {
				t.Errorf("a second Close: %v", err)
			}
		})
	}
}

func TestAConnectionThatThePeerHasClosedIsNotBorrowed(t *testing.T) {
	for name, send := range map[string]func(*testing.T, net.Listener) (sink.Sink, func() []string, func(), func() sink.ConnStats){
		"tcp": func(t *testing.T, l net.Listener) (sink.Sink, func() []string, func(), func() sink.ConnStats) {
			peer := sinkfault.NewLines(l, nil)
			t.Cleanup(peer.Close)
			s := newTCP(t, sink.Conns{Address: peer.Addr()})
			return s, peer.Received, peer.DropAll, s.Stats
		},
		"lumberjack": func(t *testing.T, l net.Listener) (sink.Sink, func() []string, func(), func() sink.ConnStats) {
			peer := sinkfault.NewLumberjack(l, nil)
			t.Cleanup(peer.Close)
			s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: peer.Addr()}})
			return s, peer.Received, peer.DropAll, s.Stats
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, received, drop, stats := send(t, listen(t))
			const rounds = 100
			for i := range rounds {
				if err := s.Send(t.Context(), []sink.Record{record(i)}); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
				for len(received()) <= i { // what is closed early is another test's
					time.Sleep(time.Millisecond)
				}
				drop()
			}
			if n := stats(); n.Created != rounds {
				t.Errorf("%+v; want %d created", n, rounds)
			}
			if diff := cmp.Diff(texts(rounds), received()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	l := listen(t)
	peer := sinkfault.NewLumberjack(l, func(int) sinkfault.Window { return sinkfault.Window{Late: 5 * time.Millisecond} })
	defer peer.Close()
	s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: peer.Addr(), Connections: 3}})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := s.Send(t.Context(), records(3)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := peer.Connections(); n > 3 || len(peer.Received()) != 60 {
		t.Errorf("%d connections, %d records; want at most 3, and 60", n, len(peer.Received()))
	}
}

func TestWhoWaitsForAConnectionIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sinkfault.NewNetwork()
		peer := sinkfault.NewLumberjack(n, func(int) sinkfault.Window { return sinkfault.Window{Late: time.Hour} })
		defer peer.Close()
		s := newLumberjack(t, sink.LumberjackConfig{Ack: 2 * time.Hour, Conns: sink.Conns{Address: "x:1", Connections: 1, Acquire: time.Minute, Dial: n.Dial}})
		var first sync.WaitGroup
		first.Go(func() {
			if err := s.Send(t.Context(), records(1)); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		start := time.Now()
		err := s.Send(t.Context(), records(1))
		if err == nil || !strings.Contains(err.Error(), "no connection was free") || time.Since(start) != time.Minute || myrmidon.IsPermanent(err) {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		first.Wait()
	})
}

func TestADestinationThatIsDownIsNotStormed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: "x:1", Dial: func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			return nil, errors.New("refused")
		}}})
		start := time.Now()
		for time.Since(start) < time.Minute { // by somebody who does not wait at all
			if err := s.Send(t.Context(), records(1)); err == nil {
				t.Fatal("sent")
			}
		}
		if n := dials.Load(); n > 30 {
			t.Errorf("%d dials in a minute", n)
		}
		if st := s.Stats(); st.Failed == 0 || len(st.LastErrors) != 5 || !strings.Contains(st.LastErrors[0], "refused") {
			t.Errorf("%+v", st)
		}
	})
}

func TestAnUnknownAuthorityIsPermanent(t *testing.T) {
	server, _ := authority(t)
	addr, _ := goLumber(t, true, server)
	_, other := authority(t)
	s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: addr, TLS: other}})
	if err := s.Send(t.Context(), records(1)); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
		t.Errorf("Send: %v, want a permanent error with a hint", err)
	}
}

func TestBadAddresses(t *testing.T) {
	for _, address := range []string{"", "logstash", "a:b:c"} {
		if _, err := sink.NewTCP(sink.TCPConfig{Conns: sink.Conns{Address: address}}); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
			t.Errorf("NewTCP of %q: %v", address, err)
		}
	}
	if _, err := sink.NewLumberjack(sink.LumberjackConfig{Conns: sink.Conns{Address: "a:1"}, Compress: 10}); !myrmidon.IsPermanent(err) {
		t.Errorf("compress 10: %v", err)
	}
}

func TestWhatALumberjackServerDoesWrong(t *testing.T) {
	const n = 10
	for _, c := range []struct {
		name   string
		window sinkfault.Window
		kept   int   // by the server, of the first window
		failed []int // nil means that all were taken, all of them that Send failed as a whole
		reused bool  // the connection serves the next batch, too
	}{
		{"it takes all", sinkfault.Window{}, n, nil, true},
		{"it is killed before it has read", sinkfault.Window{Die: true}, 0, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, false},
		{"it is killed within", sinkfault.Window{Die: true, Keep: 4}, 4, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, false},
		{"it is killed before it answers", sinkfault.Window{Die: true, Keep: n}, n, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, false},
		{"it acknowledges a part and is killed", sinkfault.Window{Die: true, Keep: 7, Acks: []uint32{3, 7}}, 7, []int{7, 8, 9}, false},
		{"it acknowledges a part and is silent", sinkfault.Window{Acks: []uint32{6}}, n, []int{6, 7, 8, 9}, false},
		{"it acknowledges step by step", sinkfault.Window{Acks: []uint32{1, 2, 0, 5, 10}}, n, nil, true},
		{"it is busy for long", sinkfault.Window{Busy: 300}, n, nil, true},
		{"it acknowledges late", sinkfault.Window{Late: 29 * time.Second}, n, nil, true},
		{"it acknowledges too late", sinkfault.Window{Late: 31 * time.Second}, n, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, false},
		{"it acknowledges twice", sinkfault.Window{Acks: []uint32{10, 10}}, n, nil, false},
		{"it is silent", sinkfault.Window{Silent: true}, n, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := sinkfault.NewNetwork()
				peer := sinkfault.NewLumberjack(net, func(window int) sinkfault.Window {
					if window == 0 {
						return c.window
					}
					return sinkfault.Window{}
				})
				defer peer.Close()
				s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: "x:1", Idle: time.Hour, Dial: net.Dial}})
				err := s.Send(t.Context(), records(n))
				var got []int
				var p *sink.PartialError
				if errors.As(err, &p) {
					for _, f := range p.Failed {
						got = append(got, f.Index)
					}
				} else if err != nil {
					for i := range n {
						got = append(got, i)
					}
				}
				if !slices.Equal(got, c.failed) || myrmidon.IsPermanent(err) {
					t.Errorf("failed are %v (%v), want %v", got, err, c.failed)
				}
				if kept := len(peer.Received()); kept != c.kept {
					t.Errorf("the server has kept %d, want %d", kept, c.kept)
				}
				before := len(peer.Received())
				if err := s.Send(t.Context(), records(3)); err != nil || len(peer.Received())-before != 3 {
					t.Errorf("the next batch: %d arrived, %v", len(peer.Received())-before, err)
				}
				if reused := peer.Connections() == 1; reused != c.reused {
					t.Errorf("%d connections, reused: want %v", peer.Connections(), c.reused)
				}
			})
		})
	}
}

// TestNothingIsLostOverLumberjack sends through batcher and connections to a server that is
// down at first, is killed and acknowledges as it likes: 1,000 schedules.
func TestNothingIsLostOverLumberjack(t *testing.T) {
	doubles, dropped := 0, 0
	for seed := range uint64(schedules) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, seed))
			net := sinkfault.NewNetwork()
			net.Refuse(r.IntN(4))
			faults := rand.New(rand.NewPCG(seed, 7))
			var mu sync.Mutex
			peer := sinkfault.NewLumberjack(net, func(int) sinkfault.Window {
				mu.Lock()
				defer mu.Unlock()
				some := uint32(faults.IntN(30))
				switch faults.IntN(9) {
				case 0:
					return sinkfault.Window{Die: true, Keep: faults.IntN(40)}
				case 1:
					return sinkfault.Window{Die: true, Keep: 1000}
				case 2:
					return sinkfault.Window{Die: true, Keep: 1000, Acks: []uint32{some}}
				case 3:
					return sinkfault.Window{Acks: []uint32{some}}
				case 4:
					return sinkfault.Window{Busy: faults.IntN(5), Late: time.Duration(faults.IntN(40)) * time.Second}
				case 5:
					return sinkfault.Window{Acks: []uint32{1000, 1000}}
				case 6:
					return sinkfault.Window{Silent: true}
				}
				return sinkfault.Window{}
			})
			s := newLumberjack(t, sink.LumberjackConfig{
				Compress: r.IntN(2), Window: 5 + r.IntN(40),
				Conns: sink.Conns{Address: "x:1", Connections: 1 + r.IntN(3), Dial: net.Dial},
			})
			ordered := r.IntN(2) == 0
			b := sink.NewBatcher(s, sink.BatcherConfig{Records: 1 + r.IntN(60), Memory: 1000 + r.IntN(20_000), Parallel: 1 + r.IntN(3), Ordered: ordered, Attempts: 1000})
			n := 50 + r.IntN(150)
			for i := range n {
				add(t, b, record(i))
			}
			if err := b.Close(t.Context()); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			peer.Close()
			times := make(map[string]int)
			for _, doc := range peer.Received() {
				times[doc]++
			}
			for i, doc := range texts(n) {
				if times[doc] == 0 {
					t.Errorf("seed %d: record %d is lost", seed, i)
				}
				doubles += max(0, times[doc]-1)
			}
			if len(times) != n {
				t.Errorf("seed %d: %d different records, want %d", seed, len(times), n)
			}
			dropped += int(s.Stats().Failed)
		})
	}
	if doubles == 0 || dropped == 0 {
		t.Errorf("%d records came twice, %d connections failed: the schedules test nothing", doubles, dropped)
	}
	t.Logf("%d records came twice, %d connections failed", doubles, dropped)
}

func TestALumberjackServerThatComesLate(t *testing.T) {
	l := listen(t)
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: addr}})
	b := sink.NewBatcher(s, sink.BatcherConfig{Backoff: 10 * time.Millisecond})
	add(t, b, records(50)...)
	for s.Stats().Failed < 2 {
		time.Sleep(time.Millisecond)
	}
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Skip("the port was taken by another: ", err)
	}
	peer := sinkfault.NewLumberjack(l, nil)
	defer peer.Close()
	if err := b.Close(t.Context()); err != nil || len(peer.Received()) != 50 {
		t.Errorf("%d of 50 arrived, %v", len(peer.Received()), err)
	}
}

func TestASendThatIsCutOffLeavesTheSinkUsable(t *testing.T) {
	var answers atomic.Bool // not the first window: a Send may be cut off before its window has come
	peer := sinkfault.NewLumberjack(listen(t), func(int) sinkfault.Window { return sinkfault.Window{Silent: !answers.Load()} })
	defer peer.Close()
	s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: peer.Addr(), Connections: 1}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Send(ctx, records(5)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send: %v, want the end of its context", err)
	}
	answers.Store(true)
	if err := s.Send(t.Context(), records(5)); err != nil {
		t.Errorf("the next Send: %v", err)
	}
}

// BenchmarkAcknowledged sends ALB lines over loopback: acknowledged, and as raw TCP, which
// nobody confirms. The ratio is what acknowledgements cost.
func BenchmarkAcknowledged(b *testing.B) {
	line := []byte(`{"type":"h2","time":"2026-11-21T19:00:00.000000Z","elb":"app/my-lb/50dc6c495c0c9188","client":"192.168.131.39:2817","text":"` + strings.Repeat("x", 600) + `"}`)
	deliver := func(b *testing.B, s sink.Sink, n int) time.Duration {
		start := time.Now()
		batcher := sink.NewBatcher(s, sink.BatcherConfig{})
		for i := range n {
			if _, err := batcher.Add(b.Context(), sink.Record{Data: line, ID: fmt.Sprint(i)}); err != nil {
				b.Fatal(err)
			}
		}
		if err := batcher.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	const lines = 76_464 // the article's
	var raw, acked time.Duration
	for b.Loop() {
		plain := sinkfault.NewLines(listen(b), nil)
		raw += deliver(b, newTCP(b, sink.Conns{Address: plain.Addr()}), lines)
		if n := len(plain.Received()); n != lines {
			b.Fatalf("%d lines have arrived", n)
		}
		plain.Close()
		peer := sinkfault.NewLumberjack(listen(b), nil)
		acked += deliver(b, newLumberjack(b, sink.LumberjackConfig{Conns: sink.Conns{Address: peer.Addr()}}), lines)
		if n := len(peer.Received()); n != lines {
			b.Fatalf("%d records have arrived", n)
		}
		peer.Close()
	}
	b.ReportMetric(float64(b.N)*lines/raw.Seconds(), "raw-lines/s")
	b.ReportMetric(float64(b.N)*lines/acked.Seconds(), "acked-lines/s")
	b.ReportMetric(acked.Seconds()/raw.Seconds(), "acked/raw")
}
