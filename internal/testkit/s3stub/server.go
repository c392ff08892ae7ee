package s3stub

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Limits of S3, from "Amazon S3 multipart upload limits" and "CopyObject" in its
// documentation. Config can lower those that are too large for a test.
const (
	maxSingle = 5 << 30 // bytes of a PutObject, a part, or the source of a CopyObject
	minPart   = 5 << 20 // bytes of each part but the last
	maxParts  = 10_000
	maxKey    = 1024 // bytes
	maxPage   = 1000 // keys of a listing, and of a DeleteObjects
	maxXML    = 2 << 20
)

// Config configures a Server. The zero value is a server without latency on a free port
// of 127.0.0.1, in us-east-1, that checks signatures by a secret of its own.
type Config struct {
	Addr   string // to listen at; "" means 127.0.0.1:0
	Region string // of the endpoint and of buckets; "" means us-east-1

	AccessKey string // "" means testkit
	Secret    string // "" means a random one
	Token     string // the session token of AccessKey, if any
	Unsigned  bool   // accept requests with any signature, or none

	// Latency is how long a verb's requests take before their effect, beyond the work
	// itself. The request has been read by then.
	Latency map[Verb]time.Duration

	MaxCopy int64 // bytes of a source of CopyObject; 0 means 5 GiB
	MaxPut  int64 // bytes of a PutObject or part; 0 means 5 GiB
	MinPart int64 // bytes of each part but the last; 0 means 5 MiB

	Now func() time.Time // nil means time.Now
}

// Server is a running stub. Its methods may be called from many goroutines. It is an
// [http.Handler], too, for those who bring a listener of their own.
type Server struct {
	cfg     Config
	latency [verbs]time.Duration
	tallies [verbs]tally
	seq     atomic.Int64
	inject  atomic.Pointer[func(Request) *Fault]
	keys    keyring

	url     string
	http    *http.Server
	serving sync.WaitGroup
	closing chan struct{}

	mu      sync.RWMutex
	closed  bool
	running sync.WaitGroup // requests under way
	buckets map[string]*bucket
}

// Start listens and serves until Close.
func Start(cfg Config) (*Server, error) {
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("s3stub: listen: %w", err)
	}
	s.url = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	s.serving.Go(func() {
		// It ends with ErrServerClosed; a listener that breaks shows in the clients.
		_ = s.http.Serve(l)
	})
	return s, nil
}

// New starts a server for a test and closes it at the test's end.
func New(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg)
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

func newServer(cfg Config) (*Server, error) {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	limit := func(n *int64, v int64) error {
		if *n < 0 {
			return fmt.Errorf("s3stub: a limit of %d bytes: give 0 for S3's, or more", *n)
		}
		if *n == 0 {
			*n = v
		}
		return nil
	}
	def(&cfg.Addr, "127.0.0.1:0")
	def(&cfg.Region, "us-east-1")
	def(&cfg.AccessKey, "testkit")
	def(&cfg.Secret, rand.Text())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	err := errors.Join(limit(&cfg.MaxCopy, maxSingle), limit(&cfg.MaxPut, maxSingle), limit(&cfg.MinPart, minPart))
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, closing: make(chan struct{}), buckets: make(map[string]*bucket)}
	for v, d := range cfg.Latency {
		if v >= verbs {
			return nil, fmt.Errorf("s3stub: a latency for verb %d, which there is not", v)
		}
		s.latency[v] = d
	}
	s.AddCredentials(Credentials{AccessKey: cfg.AccessKey, Secret: cfg.Secret, Token: cfg.Token})
	return s, nil
}

// URL returns the endpoint: http://127.0.0.1:PORT.
func (s *Server) URL() string { return s.url }

// Credentials returns the key pair of Config.
func (s *Server) Credentials() Credentials {
	return Credentials{AccessKey: s.cfg.AccessKey, Secret: s.cfg.Secret, Token: s.cfg.Token}
}

// Env returns the environment that makes an AWS SDK or command use this server and
// nothing else of this machine: no profile, no role. A child must not inherit
// AWS_PROFILE beside it: awscli takes even an empty one for a name.
func (s *Server) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + s.url,
		"AWS_ACCESS_KEY_ID=" + s.cfg.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + s.cfg.Secret,
		"AWS_SESSION_TOKEN=" + s.cfg.Token,
		"AWS_REGION=" + s.cfg.Region,
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Setenv puts Env into the environment of this process until the test's end.
func (s *Server) Setenv(t testing.TB) {
	t.Helper()
	t.Setenv("AWS_PROFILE", "")
	for _, e := range s.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
}

// Counts returns what was asked for since the start or the last Reset, by verb.
func (s *Server) Counts() Counts {
	out := make(Counts)
	for v := range s.tallies {
		if c := s.tallies[v].count(); c.Requests > 0 {
			out[Verb(v)] = c
		}
	}
	return out
}

// Reset sets all counts and sequence numbers to zero, and forgets what arrived in
// mirrors (see [Arrivals]). Objects and the injector stay.
func (s *Server) Reset() {
	for v := range s.tallies {
		s.tallies[v].reset()
	}
	s.seq.Store(0)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, b := range s.buckets {
		b.forget()
	}
}

// Close breaks all connections and returns when no request is under way. It does
// nothing if the server is closed.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.closing)
	s.mu.Unlock()
	err := s.http.Close()
	s.serving.Wait()
	s.running.Wait()
	if err != nil {
		return fmt.Errorf("s3stub: close: %w", err)
	}
	return nil
}

// ServeHTTP answers one request of the S3 API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		panic(http.ErrAbortHandler)
	}
	s.running.Add(1)
	s.mu.RUnlock()
	defer s.running.Done()
	c := newCall(s, w, r)
	defer c.free()
	c.serve()
}

// wait waits for d, and reports whether the server still runs.
func (s *Server) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.closing:
		return false
	}
}

// bucket returns the bucket of that name, or nil.
func (s *Server) bucket(name string) *bucket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.buckets[name]
}
