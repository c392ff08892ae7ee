package jetstream_test

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"myrmidon/engine"
	"myrmidon/engine/enginetest"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
)

// connect opens a backend on a broker until the test ends, or fails the test.
func connect(t *testing.T, cfg jetstream.Remote) *jetstream.Backend {
	t.Helper()
	b, err := jetstream.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// raw connects past the backend, as another program would.
func raw(t *testing.T, url string) (*nats.Conn, natsjs.JetStream) {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := natsjs.New(conn, natsjs.WithDefaultTimeout(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return conn, js
}

// empty deletes all streams of a broker.
func empty(t *testing.T, url string) {
	t.Helper()
	conn, js := raw(t, url)
	defer conn.Close()
	// In a cluster the first answers to a new connection may be lost: that it listens is
	// news that travels. A stream is gone when it is listed no more.
	for try := 1; ; try++ {
		names := js.StreamNames(t.Context())
		var errs []error
		found := false
		for name := range names.Name() {
			found = true
			// Purged first: a server that has not yet removed the files of the last stream of
			// that name leaves these where the next one finds them, with all that they hold.
			s, err := js.Stream(t.Context(), name)
			if err == nil {
				err = s.Purge(t.Context())
			}
			if err != nil && !errors.Is(err, natsjs.ErrStreamNotFound) {
				errs = append(errs, err)
				continue
			}
			if err := js.DeleteStream(t.Context(), name); !errors.Is(err, natsjs.ErrStreamNotFound) {
				errs = append(errs, err)
			}
		}
		err := errors.Join(append(errs, names.Err())...)
		if err == nil && !found {
			return
		}
		if try == 8 {
			t.Fatal("streams are left: ", err)
		}
	}
}

// logged is a log that a test reads.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// brokerSuite runs both suites against a broker.
func brokerSuite(t *testing.T, url string, replicas int, restart func(*testing.T)) {
	leases := make(map[engine.Backend]time.Duration)
	t.Run("backend", func(t *testing.T) {
		enginetest.Run(t, enginetest.Options{
			KeepsLeases: true,
			Open: func(t *testing.T, lease time.Duration) engine.Backend {
				empty(t, url)
				var log logged
				b := connect(t, jetstream.Remote{URL: url, Lease: lease, Replicas: replicas, Log: log.logger()})
				t.Cleanup(func() {
					if t.Failed() {
						t.Logf("the log:\n%s", log.String())
					}
				})
				leases[b] = lease
				return b
			},
			Reopen: func(t *testing.T, b engine.Backend) engine.Backend {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				return connect(t, jetstream.Remote{URL: url, Lease: leases[b], Replicas: replicas})
			},
		})
	})
	t.Run("fleet", func(t *testing.T) {
		join := func(t *testing.T) engine.Fleet {
			return connect(t, jetstream.Remote{URL: url, Replicas: replicas})
		}
		enginetest.RunFleet(t, enginetest.FleetOptions{
			Open:    func(t *testing.T) engine.Fleet { empty(t, url); return join(t) },
			Join:    join,
			Restart: restart,
		})
	})
}

func TestBroker(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	brokerSuite(t, s.URL(), 0, func(t *testing.T) {
		if err := errors.Join(s.Kill(), s.Restart()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCluster(t *testing.T) {
	long.Test(t)
	t.Parallel()
	c := natsserver.StartCluster(t, 3, natsserver.Options{})
	next := 0
	brokerSuite(t, c.URL(), 0, func(t *testing.T) {
		s := c.Nodes[next%len(c.Nodes)] // another one each time
		next++
		if err := errors.Join(s.Kill(), s.Restart()); err != nil {
			t.Fatal(err)
		}
	})
	b := connect(t, jetstream.Remote{URL: c.URL()})
	streamServer(t, b, c, true) // after the restarts, a leader may have to be elected
	standing, err := b.Standing(t.Context())
	if err != nil || standing.Replicas != 3 || len(standing.Servers) != 3 || c.Node(standing.Leader) == nil {
		t.Errorf("a cluster of three has %d replicas, %d servers, leader %q: %v", standing.Replicas, len(standing.Servers), standing.Leader, err)
	}
}
