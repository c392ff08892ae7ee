// Package s3server runs a real S3 server for tests and benchmarks: versitygw, a Go
// program that keeps buckets as folders, as a child process on 127.0.0.1. Its version
// is pinned by tools/versitygw/go.mod; see [Binary] for how it is built.
//
// What it does not do as S3 does: it ignores encoding-type=url, and refuses "e"
// beside "e/f" (objecttest.Options.Folders).
package s3server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/testkit/program"
)

const (
	// Region is the one that the server expects in signatures.
	Region = "us-east-1"

	startAttempts = 5 // a port that was free may be taken a moment later
	startTime     = time.Minute
	tail          = 8 << 10 // bytes of the server's output kept for errors
)

// Server is a running versitygw. Its methods may be called from many goroutines.
type Server struct {
	Endpoint  string // http://127.0.0.1:PORT, the same after Restart
	AccessKey string
	Secret    string

	program string
	dir     string // a folder a bucket
	addr    string

	mu      sync.Mutex
	process *exec.Cmd // nil while stopped
	exited  chan struct{}
	output  *lastBytes
}

// Start runs a server for a test, with its buckets in a temporary folder, and stops
// it at the test's end. A server that does not start ends the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Open runs a server that keeps its buckets in dir, which must exist on a file system
// with user extended attributes. It returns when the server answers. The caller calls
// Stop; if it dies before that, the server dies too (on Linux).
func Open(ctx context.Context, dir string) (*Server, error) {
	server, err := program.Pinned(ctx, "versitygw", "github.com/versity/versitygw/cmd/versitygw")
	if err != nil {
		return nil, err
	}
	s := &Server{AccessKey: "testkit", Secret: rand.Text(), program: server, dir: dir}
	for range startAttempts {
		if s.addr, err = freeAddress(); err != nil {
			return nil, err
		}
		s.Endpoint = "http://" + s.addr
		if err = s.run(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Dir returns the folder that holds a folder for each bucket. What lies in it may be
// looked at and damaged.
func (s *Server) Dir() string { return s.dir }

// Env returns the environment that makes an AWS SDK use this server and nothing else
// of this machine: no profile, no role.
func (s *Server) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + s.Endpoint,
		"AWS_ACCESS_KEY_ID=" + s.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + s.Secret,
		"AWS_SESSION_TOKEN=",
		"AWS_REGION=" + Region,
		"AWS_PROFILE=",
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Setenv puts Env into the environment of this process until the test's end.
func (s *Server) Setenv(t testing.TB) {
	t.Helper()
	for _, e := range s.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
}

// Bucket makes an empty bucket, or ends the test.
func (s *Server) Bucket(t testing.TB, name string) {
	t.Helper()
	if err := s.CreateBucket(name); err != nil {
		t.Fatal(err)
	}
}

// CreateBucket makes an empty bucket: to this server a folder is one.
func (s *Server) CreateBucket(name string) error {
	if err := os.Mkdir(filepath.Join(s.dir, name), 0o755); err != nil {
		return fmt.Errorf("s3server: create bucket %s: %w", name, err)
	}
	return nil
}

// Stop kills the server and waits for its end. Its buckets stay, for Restart. It does
// nothing if the server is stopped.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	err := s.process.Process.Kill()
	<-s.exited
	s.process = nil
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("s3server: kill %s: %w", s.addr, err)
	}
	return nil
}

// Restart stops the server if it runs, and runs it again at the same address with the
// same buckets.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.run(ctx)
}

// Pause stops the server's process without ending it: connections are accepted by the
// kernel and nothing is answered. Resume lets it go on.
func (s *Server) Pause() error {
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return program.AwaitStopped(s.process.Process.Pid)
}

// Resume ends a Pause.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return fmt.Errorf("s3server: send %v to %s: it is stopped", sig, s.addr)
	}
	if err := s.process.Process.Signal(sig); err != nil {
		return fmt.Errorf("s3server: send %v to %s: %w", sig, s.addr, err)
	}
	return nil
}

// run starts the process and waits until it answers.
func (s *Server) run(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The secrets come by the environment: arguments are everybody's to read.
	cmd := exec.Command(s.program, "--port", s.addr, "--region", Region, "--keep-alive", "--quiet", "--disable-acl",
		"posix", "--disable-object-lock-file", s.dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+s.AccessKey, "ROOT_SECRET_ACCESS_KEY="+s.Secret)
	cmd.SysProcAttr = dieWithParent()
	s.output = &lastBytes{}
	cmd.Stdout, cmd.Stderr = s.output, s.output
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("s3server: start %s: %w", s.program, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // that it ended is all there is to know: it is killed
	}()
	s.process, s.exited = cmd, exited
	err := s.ready(ctx)
	if err == nil {
		return nil
	}
	_ = cmd.Process.Kill() // it may have ended by itself
	<-exited
	s.process = nil
	if said := s.output.String(); said != "" {
		err = fmt.Errorf("%w; it said:\n%s", err, said)
	}
	return err
}

// ready waits until the server answers at its address.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint, nil)
		if err != nil {
			return fmt.Errorf("s3server: %w", err)
		}
		resp, err := client.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			err = errors.Join(err, resp.Body.Close())
		}
		select {
		case <-s.exited: // whoever answered is another program
			return fmt.Errorf("s3server: versitygw ended at once on %s", s.addr)
		default:
		}
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("s3server: wait for versitygw on %s: %w", s.addr, errors.Join(context.Cause(ctx), err))
		}
	}
}

// freeAddress returns an address of 127.0.0.1 whose port is free now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("s3server: find a free port: %w", err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", fmt.Errorf("s3server: find a free port: %w", err)
	}
	return addr, nil
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	mu   sync.Mutex
	data []byte
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = append(l.data, p...)
	if over := len(l.data) - tail; over > 0 {
		l.data = append(l.data[:0], l.data[over:]...)
	}
	return len(p), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.data))
}
