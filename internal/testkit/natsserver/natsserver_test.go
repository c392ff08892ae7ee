package natsserver_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/netfault"
	"myrmidon/internal/testkit/program"
)

// TestMain plays the process of TestAServerDiesWithItsParent.
func TestMain(m *testing.M) {
	if os.Getenv("NATSSERVER_CHILD") == "" {
		os.Exit(m.Run())
	}
	s, err := natsserver.Launch(context.Background(), natsserver.Options{Dir: os.Getenv("NATSSERVER_CHILD")})
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(strconv.Itoa(s.PID()) + "\n")
	select {}
}

func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, url string, options ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	options = append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond)}, options...)
	c, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return c, js
}

// again asks until the server answers, 30 s at most: a new leader or a reconnection takes time, and
// while routes are made an answer can be lost, though what was asked for is done.
func again(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	ctx := limit(t, 30*time.Second)
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := ask(attempt)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stream makes the stream S of replicas copies, and stores count messages.
func stream(t *testing.T, js jetstream.JetStream, replicas, count int) {
	t.Helper()
	again(t, "make a stream", func(ctx context.Context) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: replicas})
		return err
	})
	for range count {
		publish(t, js)
	}
}

// publish stores a message once.
func publish(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	once := jetstream.WithMsgID(rand.Text()) // a try whose answer is late was stored, too
	again(t, "publish", func(ctx context.Context) error {
		_, err := js.Publish(ctx, "s", []byte("x"), once)
		return err
	})
}

func stored(t *testing.T, js jetstream.JetStream) (count uint64) {
	t.Helper()
	again(t, "look at the stream", func(ctx context.Context) error {
		s, err := js.Stream(ctx, "S")
		if err == nil {
			count = s.CachedInfo().State.Msgs
		}
		return err
	})
	return count
}

func TestAServerKeepsStoreAndAddressOverItsEnds(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	url := s.URL()
	_, js := connect(t, url)
	stream(t, js, 1, 10)
	for _, tt := range []struct {
		name string
		end  func() error
	}{
		{"stopped", s.Stop},
		{"killed", s.Kill},
		{"stopped while paused", func() error { return errors.Join(s.Pause(), s.Stop()) }},
		{"killed while paused", func() error { return errors.Join(s.Pause(), s.Kill()) }},
		{"restarted while it runs", func() error { return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := s.PID()
			if err := tt.end(); err != nil {
				t.Fatal(err)
			}
			if err := s.Restart(); err != nil {
				t.Fatal(err)
			}
			if s.URL() != url || s.PID() == before {
				t.Errorf("it is process %d at %s, was process %d at %s", s.PID(), s.URL(), before, url)
			}
			_, js := connect(t, url)
			if n := stored(t, js); n != 10 {
				t.Errorf("%d messages are stored, want 10", n)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(s.StoreDir(), "jetstream")); err != nil {
		t.Errorf("StoreDir holds no store: %v", err)
	}
}

func TestAnEndedServerHasNoProcessAndItsPortRefuses(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if s.PID() != 0 {
		t.Errorf("process %d is told of after Kill", s.PID())
	}
	if _, err := nats.Connect(s.URL()); !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, nats.ErrNoServers) {
		t.Errorf("connecting to a killed server: %v", err)
	}
	for what, do := range map[string]func() error{"Kill": s.Kill, "Stop": s.Stop} {
		if err := do(); err != nil {
			t.Errorf("%s of a killed server: %v", what, err)
		}
	}
	for what, do := range map[string]func() error{"Pause": s.Pause, "Continue": s.Continue} {
		if err := do(); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s of a killed server: %v, want os.ErrProcessDone", what, err)
		}
	}
}

func TestAPausedServerKeepsConnectionsAndAnswersNothing(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	c, _ := connect(t, s.URL())
	for range 2 { // and again
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		if err := s.Pause(); err != nil {
			t.Fatalf("a second Pause: %v", err)
		}
		if err := c.FlushTimeout(200 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
			t.Errorf("a paused server: %v, want a time-out", err)
		}
		if err := s.Continue(); err != nil {
			t.Fatal(err)
		}
		if err := c.FlushTimeout(30 * time.Second); err != nil {
			t.Errorf("after Continue: %v", err)
		}
	}
	if n := c.Statistics.Reconnects; n != 0 {
		t.Errorf("the client had to reconnect %d times", n)
	}
}

func TestAServerThatDiesByItselfIsTold(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	pid := s.PID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); s.PID() != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its end is not noticed")
		}
	}
	if err := s.Stop(); err == nil || !strings.Contains(err.Error(), "died by itself: signal: killed") {
		t.Errorf("Stop said %v, want that it had died", err)
	}
	if err := s.Restart(); err != nil {
		t.Errorf("Restart after that: %v", err)
	}
}

func TestAccess(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options natsserver.Options
		client  func(*natsserver.Server) (string, []nats.Option)
	}{
		{"user and password", natsserver.Options{User: "ada", Password: `p"a\s$s é/@:<&`}, func(s *natsserver.Server) (string, []nats.Option) {
			return s.AuthURL(), nil
		}},
		{"token", natsserver.Options{Token: "t0ken"}, func(s *natsserver.Server) (string, []nats.Option) {
			return s.AuthURL(), nil
		}},
		{"key pair", natsserver.Options{NKey: true}, func(s *natsserver.Server) (string, []nats.Option) {
			o, err := nats.NkeyOptionFromSeed(s.SeedFile())
			if err != nil {
				t.Fatal(err)
			}
			return s.URL(), []nats.Option{o}
		}},
		{"credentials file", natsserver.Options{Credentials: true}, func(s *natsserver.Server) (string, []nats.Option) {
			return s.URL(), []nats.Option{nats.UserCredentials(s.CredentialsFile())}
		}},
		{"TLS", natsserver.Options{TLS: true}, func(s *natsserver.Server) (string, []nats.Option) {
			return s.URL(), []nats.Option{nats.RootCAs(s.CAFile())}
		}},
		{"TLS and credentials file", natsserver.Options{TLS: true, Credentials: true}, func(s *natsserver.Server) (string, []nats.Option) {
			return s.URL(), []nats.Option{nats.RootCAs(s.CAFile()), nats.UserCredentials(s.CredentialsFile())}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := natsserver.Start(t, tt.options)
			if c, err := nats.Connect(s.URL()); err == nil {
				c.Close()
				t.Error("it let in a client that has nothing")
			}
			url, options := tt.client(s)
			_, js := connect(t, url, options...)
			stream(t, js, 1, 1)
		})
	}
	t.Run("two ways at once are refused", func(t *testing.T) {
		if s, err := natsserver.Launch(t.Context(), natsserver.Options{User: "ada", NKey: true}); err == nil {
			s.Close()
			t.Error("Launch took User and NKey")
		}
	})
}

// answer decodes what a server's monitoring port answers.
func answer(t *testing.T, s *natsserver.Server, path string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(limit(t, 30*time.Second), http.MethodGet, s.MonitorURL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}

func TestOptionsReachTheServer(t *testing.T) {
	type config struct {
		MaxMemory    int64         `json:"max_memory"`
		MaxStore     int64         `json:"max_storage"`
		SyncInterval time.Duration `json:"sync_interval"`
		SyncAlways   bool          `json:"sync_always"`
	}
	const minutes = 2 * time.Minute // NATS's default
	for _, tt := range []struct {
		name    string
		options natsserver.Options
		want    config
		payload int
	}{
		{"the zero value", natsserver.Options{}, config{256 << 20, 64 << 30, minutes, false}, 1 << 20},
		{"sync each message", natsserver.Options{SyncAlways: true}, config{256 << 20, 64 << 30, minutes, true}, 1 << 20},
		{"sync each 70 ms", natsserver.Options{SyncInterval: 70 * time.Millisecond}, config{256 << 20, 64 << 30, 70 * time.Millisecond, false}, 1 << 20},
		{"limits", natsserver.Options{MaxStore: 1 << 20, MaxMemory: 1 << 19, MaxPayload: 4096}, config{1 << 19, 1 << 20, minutes, false}, 4096},
		{"a payload beyond the default bound of what is pending", natsserver.Options{MaxPayload: 65 << 20}, config{256 << 20, 64 << 30, minutes, false}, 65 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := natsserver.Start(t, tt.options)
			var got struct {
				Config config `json:"config"`
			}
			answer(t, s, "/jsz", &got)
			if got.Config != tt.want {
				t.Errorf("JetStream runs with %+v, want %+v", got.Config, tt.want)
			}
			var vars struct {
				MaxPayload int `json:"max_payload"`
			}
			answer(t, s, "/varz", &vars)
			if vars.MaxPayload != tt.payload {
				t.Errorf("max_payload is %d, want %d", vars.MaxPayload, tt.payload)
			}
		})
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "n1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "n1", "store"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := program.Pinned(t.Context(), "natsserver", "github.com/nats-io/nats-server/v2"); err != nil { // which may build it
		t.Fatal(err)
	}
	start := time.Now()
	s, err := natsserver.Launch(t.Context(), natsserver.Options{Dir: dir})
	if err == nil {
		s.Close()
		t.Fatal("it started on a file as its store")
	}
	if text := err.Error(); !strings.Contains(text, "it died") || !strings.Contains(text, "it printed:\n") || !strings.Contains(text, "not a directory") {
		t.Errorf("the error is %v; want what the server printed", err)
	}
	if d := time.Since(start); d > 15*time.Second {
		t.Errorf("it took %v to notice", d)
	}
}

func TestAProxyInFrontOfAServer(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	p, err := netfault.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, _ := connect(t, "nats://"+p.Addr())
	p.Cut()
	if err := c.FlushTimeout(200 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("through a cut proxy: %v, want a time-out", err)
	}
	p.Heal()
	if err := c.FlushTimeout(30 * time.Second); err != nil {
		t.Errorf("after Heal: %v", err)
	}
}

func TestAServerDiesWithItsParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), self)
	parent.Env = append(os.Environ(), "NATSSERVER_CHILD="+t.TempDir())
	parent.Stderr = os.Stderr
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	n, readErr := stdout.Read(line)
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatalf("the parent said %q, %v", line[:n], readErr)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("no server runs: %v", err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	for deadline := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("server %d outlived its parent", pid)
		}
	}
}

// alive is false for a process that is gone or waits for somebody to reap it.
func alive(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !errors.Is(err, os.ErrNotExist)
	}
	return !strings.Contains(string(data), ") Z ")
}

func TestTheServerIsOfTheVersionThatTheProgramEmbeds(t *testing.T) {
	pinned := regexp.MustCompile(`github.com/nats-io/nats-server/v2 (v[0-9.]+)`)
	var versions []string
	for _, name := range []string{"go.mod", "tools/natsserver/go.mod"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		m := pinned.FindStringSubmatch(string(data))
		if m == nil {
			t.Fatalf("%s pins no nats-server", name)
		}
		versions = append(versions, m[1])
	}
	if versions[0] != versions[1] {
		t.Errorf("go.mod has %s, tools/natsserver/go.mod %s", versions[0], versions[1])
	}
	var vars struct {
		Version string `json:"version"`
	}
	answer(t, natsserver.Start(t, natsserver.Options{}), "/varz", &vars)
	if "v"+vars.Version != versions[0] {
		t.Errorf("v%s runs, go.mod has %s", vars.Version, versions[0])
	}
}
