package jetstream_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/natsserver"
)

// secret is in all that nobody may read in an error or a log.
const secret = "hunter2xyzzy"

// refused connects, which must fail, say what and hint at what to do, and tell no secret.
func refused(t *testing.T, cfg jetstream.Remote, says, hint string) {
	t.Helper()
	var log logged
	cfg.Log = log.logger()
	start := time.Now()
	b, err := jetstream.Connect(t.Context(), cfg)
	if err == nil {
		b.Close()
		t.Fatal("it was let in")
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("that took %v", took)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("the error is %q, want %q in it", err, says)
	}
	if got := myrmidon.Hint(err); !strings.Contains(got, hint) || got == "" {
		t.Errorf("the hint is %q, want %q in it (the error: %v)", got, hint, err)
	}
	for what, text := range map[string]string{"error": err.Error(), "hint": myrmidon.Hint(err), "log": log.String()} {
		if strings.Contains(text, secret) {
			t.Errorf("the %s tells the secret: %s", what, text)
		}
	}
}

// works stores a job and pulls it.
func works(t *testing.T, cfg jetstream.Remote) *jetstream.Backend {
	t.Helper()
	b := connect(t, cfg)
	if err := b.Commit(t.Context(), engine.Batch{Jobs: []myrmidon.Job{job(1)}}); err != nil {
		t.Fatal(err)
	}
	for _, d := range pull(t, b, 1) {
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

const runID = "01K0000000000000000000TEST"

var lane = engine.Lane{Workload: "test"}

func job(i int) myrmidon.Job {
	return myrmidon.Job{Kind: "test.work", Run: runID, First: uint32(i), Count: 1, Attempt: 1}
}

// pull gets n fresh jobs within a minute.
func pull(t *testing.T, b engine.Backend, n int) (out []engine.Delivery) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(out) < n; {
		ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: min(n-len(out), engine.MaxPull), Wait: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if out = append(out, ds...); time.Now().After(deadline) {
			t.Fatalf("got %d jobs, want %d", len(out), n)
		}
	}
	return out
}

func TestTLS(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{TLS: true})
	b := works(t, jetstream.Remote{URL: s.URL(), CA: s.CAFile()})
	if got := b.Where(); got != s.URL() {
		t.Errorf("it calls itself %q, want %q", got, s.URL())
	}
	const hint = "--nats-ca"
	refused(t, jetstream.Remote{URL: s.URL()}, "x509", hint)
	other := natsserver.Start(t, natsserver.Options{TLS: true})
	refused(t, jetstream.Remote{URL: s.URL(), CA: other.CAFile()}, "x509", hint)
	plain := natsserver.Start(t, natsserver.Options{})
	refused(t, jetstream.Remote{URL: strings.Replace(plain.URL(), "nats:", "tls:", 1)}, "secure", "nats://")
	refused(t, jetstream.Remote{URL: s.URL(), CA: filepath.Join(t.TempDir(), "no.pem")}, "no such file", "check the path")
	bad := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(bad, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, jetstream.Remote{URL: s.URL(), CA: bad}, bad, hint)
	refused(t, jetstream.Remote{URL: s.URL(), CA: s.CAFile(), Cert: bad}, "needs its key", "--nats-key")
	refused(t, jetstream.Remote{URL: s.URL(), CA: s.CAFile(), Cert: bad, Key: bad}, "certificate", "--nats-cert")
}

func TestUserAndPassword(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{User: "ada", Password: secret})
	works(t, jetstream.Remote{URL: s.URL(), User: "ada", Password: secret})
	b := works(t, jetstream.Remote{URL: s.AuthURL()})
	standing, err := b.Standing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range append(standing.Servers, b.Where(), standing.Broker) {
		if strings.Contains(text, secret) || strings.Contains(text, "ada") {
			t.Errorf("an address with its secrets: %s", text)
		}
	}
	const says, hint = "Authorization Violation", "MYRMIDON_NATS_USER"
	refused(t, jetstream.Remote{URL: s.URL()}, says, hint)
	refused(t, jetstream.Remote{URL: s.URL(), User: "ada", Password: secret + "no"}, says, hint)
	refused(t, jetstream.Remote{URL: strings.Replace(s.AuthURL(), secret, secret+"no", 1)}, says, hint)
	refused(t, jetstream.Remote{URL: s.URL(), Token: secret}, says, hint)
}

func TestToken(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{Token: secret})
	works(t, jetstream.Remote{URL: s.URL(), Token: secret})
	works(t, jetstream.Remote{URL: s.AuthURL()})
	refused(t, jetstream.Remote{URL: s.URL(), Token: secret + "no"}, "Authorization Violation", "MYRMIDON_NATS_TOKEN")
}

func TestCredentialsFile(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{Credentials: true})
	works(t, jetstream.Remote{URL: s.URL(), Credentials: s.CredentialsFile()})
	const hint = "--nats-creds"
	refused(t, jetstream.Remote{URL: s.URL()}, "Authorization Violation", hint)
	other := natsserver.Start(t, natsserver.Options{Credentials: true})
	refused(t, jetstream.Remote{URL: s.URL(), Credentials: other.CredentialsFile()}, "Authorization Violation", hint)
	refused(t, jetstream.Remote{URL: s.URL(), Credentials: filepath.Join(t.TempDir(), "no.creds")}, "no such file", "check the path")
	bad := filepath.Join(t.TempDir(), "bad.creds")
	if err := os.WriteFile(bad, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, jetstream.Remote{URL: s.URL(), Credentials: bad}, bad, hint)
	nkey := natsserver.Start(t, natsserver.Options{NKey: true})
	refused(t, jetstream.Remote{URL: nkey.URL()}, "", hint)
}

func TestABrokerThatIsNotThere(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(s.URL(), "nats://")
	refused(t, jetstream.Remote{URL: s.URL()}, addr, "is it running")
	for _, url := range []string{
		"nats://ada:" + secret + "@" + addr,
		"nats://" + secret + "@" + addr,
		"ada:" + secret + "@" + addr,
		"nats://ada:p@" + secret + "@" + addr,
		"nats://ada:%zz" + secret + "@" + addr,
		"nats://ada:%zz@" + secret + "@" + addr,
		"nats://ada:" + secret + "@" + addr + ",nats://ada:" + secret + "@127.0.0.1:1",
		"nats://ada:" + secret + "/x@" + addr,
		"nats://" + addr + "?token=" + secret,
	} {
		refused(t, jetstream.Remote{URL: url}, "", "is the address right")
	}
	refused(t, jetstream.Remote{URL: "nats://no-such-host.invalid:4222"}, "no-such-host.invalid", "is it running")
}

func TestASecretIsNotLoggedWhenTheBrokerGoes(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{User: "ada", Password: secret})
	var log logged
	b := works(t, jetstream.Remote{URL: s.AuthURL(), Log: log.logger()})
	if err := errors.Join(s.Kill(), s.Restart()); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(t.Context(), engine.Batch{Jobs: []myrmidon.Job{job(2)}}); err != nil {
		t.Fatal(err)
	}
	// That the connection was lost is told beside what goes on.
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(log.String(), s.Addr()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not name the broker:\n%s", log.String())
		}
	}
	if text := log.String(); strings.Contains(text, secret) {
		t.Errorf("the log tells the secret:\n%s", text)
	}
}

func TestWithoutJetStream(t *testing.T) {
	t.Parallel()
	url := plainServer(t)
	refused(t, jetstream.Remote{URL: url}, "JetStream", "nats-server -js")
}

// plainServer runs a NATS server without JetStream and returns its address.
func plainServer(t *testing.T) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	return srv.ClientURL()
}

func TestWhatIsNoBroker(t *testing.T) {
	t.Parallel()
	for name, greeting := range map[string]string{
		"says nothing":         "",
		"speaks HTTP":          "HTTP/1.1 400 Bad Request\r\n\r\n",
		"greets with no JSON":  "INFO {]\r\n",
		"greets without a end": "INFO " + strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				var conns []net.Conn
				for {
					c, err := l.Accept()
					if err != nil {
						break
					}
					conns = append(conns, c)
					go c.Write([]byte(greeting)) // until it is closed
				}
				for _, c := range conns {
					c.Close()
				}
			}()
			t.Cleanup(func() { l.Close(); <-done })
			refused(t, jetstream.Remote{URL: "nats://ada:" + secret + "@" + l.Addr().String()}, l.Addr().String(), "is the address right")
		})
	}
}

func TestAServerThatIsTooOld(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "INFO {\"server_id\":\"X\",\"version\":\"2.11.9\",\"proto\":1,\"headers\":true,\"max_payload\":1048576,\"jetstream\":true}\r\n")
		for lines := bufio.NewScanner(c); lines.Scan(); {
			if lines.Text() == "PING" {
				fmt.Fprintf(c, "PONG\r\n")
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	refused(t, jetstream.Remote{URL: "nats://" + l.Addr().String()}, "NATS 2.11.9", "2.12 or later")
}
