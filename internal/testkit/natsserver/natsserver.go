// Package natsserver runs real NATS servers as child processes of a test: one alone or
// a cluster, with JetStream, on 127.0.0.1 or in network namespaces, and lets the test
// stop, kill, pause and restart them.
//
//	s := natsserver.Start(t, natsserver.Options{SyncAlways: true})
//	conn, err := nats.Connect(s.URL())
//	…
//	err = s.Kill()    // SIGKILL; the port stays ours
//	err = s.Restart() // same port, same store
//
// The program is nats-server of the version that go.mod pins. It is built once, from
// tools/natsserver, into the repository's .cache folder.
//
// A server keeps its addresses over restarts. Its children die with this process (on
// Linux). What a server printed is shown when its test fails.
//
// The package is for tests and benchmarks.
package natsserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/internal/testkit/netfault"
	"myrmidon/internal/testkit/program"
)

const (
	// startTimeout is how long a server may take until it greets a client, stores to
	// recover included.
	startTimeout = 20 * time.Second
	// leaderTimeout is how long a cluster may take to choose its leader. An election
	// takes 4 to 9 s of timers after the servers have met.
	leaderTimeout = time.Minute
	// stopTimeout is how long a server may take to end after SIGTERM.
	stopTimeout = 10 * time.Second
	// pollEvery is how often a state is asked for that nothing tells of.
	pollEvery = 10 * time.Millisecond
)

// Options say how a server is set up. The zero value is a server without accounts,
// TLS or limits, that writes its store as NATS does by default: not synced. At most
// one of User, Token, NKey and Credentials may be set.
type Options struct {
	User, Password string
	Token          string
	NKey           bool // one user with a key pair: SeedFile
	Credentials    bool // operator mode with one account and user: CredentialsFile

	// TLS makes clients use TLS, with a certificate of an authority made for the
	// server: CAFile. Routes of a cluster stay plain.
	TLS bool

	SyncAlways   bool          // sync before each acknowledgement
	SyncInterval time.Duration // sync each such time; 0 means the server's default

	MaxPayload int   // of a message, bytes; 0 means the server's default, 1 MiB
	MaxStore   int64 // of JetStream's files, bytes; 0 means 64 GiB
	MaxMemory  int64 // of JetStream's memory streams, bytes; 0 means 256 MiB

	// NoAdvertise keeps a cluster from telling clients of its other members. A client
	// that came through a proxy then stays with it.
	NoAdvertise bool

	// Dir is the folder of configuration and store; made if missing, never removed. By
	// default it is a temporary one, which is.
	Dir string

	// Namespaces are where servers run, the n-th of a cluster in the n-th. A single
	// server runs in the first. None means 127.0.0.1.
	Namespaces []*netfault.NS
}

// Server is one server. Its methods may be called from many goroutines.
type Server struct {
	name    string
	dir     string
	scheme  string
	access  access // as configure was given it
	options Options
	place   place
	child   child
	cleanup []func() error
}

// Start runs a server until the test ends. It fails the test if that cannot be, and
// shows what the server printed if the test fails.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Launch(t.Context(), o)
	if err != nil {
		fatal(t, err)
	}
	t.Cleanup(func() { closeAfter(t, s) })
	return s
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if hint := myrmidon.Hint(err); hint != "" {
		t.Fatalf("%v\n%s", err, hint)
	}
	t.Fatal(err)
}

func closeAfter(t testing.TB, s *Server) {
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("%s printed:\n%s", s.name, s.Output())
	}
}

// Launch is Start for programs: it runs a server until Close. ctx bounds the start.
// The error has the end of what the server printed.
func Launch(ctx context.Context, o Options) (*Server, error) {
	for try := 1; ; try++ {
		s, err := newServer(o, "n1", 0)
		if err != nil {
			return nil, err
		}
		a, err := newAccess(o, s.dir, []netip.Addr{s.place.host()})
		if err == nil {
			err = s.configure(a, "", nil)
		}
		if err == nil {
			err = s.start(ctx)
		}
		if err == nil {
			return s, nil
		}
		err = errors.Join(err, s.Close())
		if try == 3 || !s.portTaken() {
			return nil, err
		}
	}
}

// newServer prepares folder, addresses and keys of the server in place i.
func newServer(o Options, name string, i int) (_ *Server, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{name: name, scheme: "nats", options: o, dir: o.Dir}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("natsserver: prepare %s: %w", name, err), s.Close())
		}
	}()
	if s.dir == "" {
		temporary, err := os.MkdirTemp("", "natsserver-")
		if err != nil {
			return nil, err
		}
		s.dir = temporary
		s.cleanup = append(s.cleanup, func() error { return os.RemoveAll(temporary) })
	}
	s.dir = filepath.Join(s.dir, name)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if len(o.Namespaces) > 0 {
		s.place.ns = o.Namespaces[i]
	}
	if err := s.place.reserve(); err != nil {
		return nil, err
	}
	s.cleanup = append(s.cleanup, s.place.release)
	if o.TLS {
		s.scheme = "tls"
	}
	return s, nil
}

func (o Options) check() error {
	ways := 0
	for _, set := range []bool{o.User != "", o.Token != "", o.NKey, o.Credentials} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		return errors.New("natsserver: set one of User, Token, NKey and Credentials")
	}
	return nil
}

// URL is where clients connect, without name and password: nats://host:port, or
// tls://host:port.
func (s *Server) URL() string { return s.scheme + "://" + s.Addr() }

// AuthURL is URL with user and password, or the token, in it.
func (s *Server) AuthURL() string {
	u := url.URL{Scheme: s.scheme, Host: s.Addr()}
	switch {
	case s.options.User != "":
		u.User = url.UserPassword(s.options.User, s.options.Password)
	case s.options.Token != "":
		u.User = url.User(s.options.Token)
	}
	return u.String()
}

// Addr is where clients connect, as host:port: what a proxy takes as its target.
func (s *Server) Addr() string { return s.place.address(clients) }

// Name is the server's name in its cluster: n1, n2 and so on.
func (s *Server) Name() string { return s.name }

// StoreDir is JetStream's folder. It is the server's while it runs.
func (s *Server) StoreDir() string { return filepath.Join(s.dir, "store") }

// CAFile is the certificate, as PEM, of the authority that signed the server's; "" without TLS.
func (s *Server) CAFile() string { return s.access.caFile }

// CredentialsFile holds the user's JWT and seed, for nats.UserCredentials; "" without Credentials.
func (s *Server) CredentialsFile() string { return s.access.credentialsFile }

// SeedFile holds the user's seed, for nats.NkeyOptionFromSeed; "" without NKey.
func (s *Server) SeedFile() string { return s.access.seedFile }

// MonitorURL is the server's monitoring address, http://host:port. It is open to all.
func (s *Server) MonitorURL() string { return "http://" + s.place.address(monitor) }

// PID is the process's, or 0 if none runs.
func (s *Server) PID() int { return s.child.pid() }

// Output is the end of what the server printed in all its lives, at most 256 KiB.
func (s *Server) Output() string { return s.child.said.String() }

// Stop ends the server in good order (SIGTERM) and waits for its end. One that does
// not end in 10 s is killed, which is an error, and so is one that had died by itself.
// A paused one goes on first. Stopping a server that does not run does nothing.
func (s *Server) Stop() error { return s.tell("stop", s.child.stop()) }

// Kill ends the server at once (SIGKILL) and waits for its end.
func (s *Server) Kill() error { return s.tell("kill", s.child.kill()) }

// Pause stops all threads of the server (SIGSTOP): connections stay open and nothing
// answers. On Linux they stand still when Pause returns.
func (s *Server) Pause() error { return s.tell("pause", s.child.pause()) }

// Continue takes Pause back.
func (s *Server) Continue() error { return s.tell("continue", s.child.resume()) }

// Restart stops the server if it runs and starts it again on the same addresses and
// store. It returns when the server greets clients; a cluster may need longer until
// JetStream answers, see [Server.WaitHealthy].
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.start(context.Background())
}

// Close kills the server, frees its addresses and removes its temporary folder.
func (s *Server) Close() error {
	errs := []error{s.child.kill()}
	for len(s.cleanup) > 0 {
		last := len(s.cleanup) - 1
		errs = append(errs, s.cleanup[last]())
		s.cleanup = s.cleanup[:last]
	}
	return s.tell("close", errors.Join(errs...))
}

func (s *Server) tell(what string, err error) error {
	if err != nil {
		return fmt.Errorf("natsserver: %s %s: %w", what, s.name, err)
	}
	return nil
}

// start runs the program and waits until it greets a client.
func (s *Server) start(ctx context.Context) error {
	server, err := program.Pinned(ctx, "natsserver", "github.com/nats-io/nats-server/v2")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cmd := s.place.command(server, "--config", filepath.Join(s.dir, "server.conf"))
	cmd.Dir = s.dir
	if err := s.child.start(cmd); err != nil {
		return s.tell("start", err)
	}
	err = s.await(ctx, s.greets)
	if err != nil {
		err = fmt.Errorf("%w\nit printed:\n%s", err, s.child.said.tail(2<<10))
		return errors.Join(s.tell("start", err), s.child.kill())
	}
	return nil
}

// await asks until the answer is nil, the server has died or ctx is over. The error is
// the last answer.
func (s *Server) await(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.child.ended():
			return errors.Join(errors.New("it died"), s.child.verdict(), err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// greets is nil if the server sends a client its INFO line: it listens only when its
// store is open.
func (s *Server) greets(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := s.place.dial(ctx, s.Addr())
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	start := make([]byte, len("INFO "))
	if _, err := io.ReadFull(c, start); err != nil {
		return err
	}
	if string(start) != "INFO " {
		return fmt.Errorf("%s greets with %q, want INFO", s.Addr(), start)
	}
	return nil
}

// WaitHealthy returns when the server says that JetStream, and each stream and
// consumer it holds, is up to date (its /healthz). The error is what it last said.
func (s *Server) WaitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	return s.tell("wait until healthy:", s.await(ctx, func(ctx context.Context) error {
		_, err := s.monitor(ctx, "/healthz")
		return err
	}))
}

// monitor returns an answer of the monitoring port, at most 4 MiB. It comes from
// inside the namespace, so that a cut cable does not matter.
func (s *Server) monitor(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.MonitorURL()+path, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return s.place.dial(ctx, address)
		},
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %s", path, res.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// metaGroup is what a server of a cluster knows of those that have JetStream.
type metaGroup struct {
	Leader   string `json:"leader"`
	Size     int    `json:"cluster_size"`
	Replicas []struct {
		Offline bool `json:"offline"`
	} `json:"replicas"`
}

// meta asks this server for its metaGroup. One without a leader is an error.
func (s *Server) meta(ctx context.Context) (metaGroup, error) {
	var answer struct {
		Meta metaGroup `json:"meta_cluster"`
	}
	body, err := s.monitor(ctx, "/jsz")
	if err != nil {
		return answer.Meta, err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer.Meta, fmt.Errorf("read /jsz of %s: %w", s.name, err)
	}
	if answer.Meta.Leader == "" {
		return answer.Meta, errors.New(s.name + " knows of no leader among " + strconv.Itoa(answer.Meta.Size))
	}
	return answer.Meta, nil
}

// portTaken reports whether the server ended because another program had its port.
func (s *Server) portTaken() bool { return strings.Contains(s.Output(), "address already in use") }
