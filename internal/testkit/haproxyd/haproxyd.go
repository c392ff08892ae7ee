// Package haproxyd starts real HAProxy processes for tests, each with a configuration
// that is generated, in a folder of its own. All addresses are sockets in that folder or
// inherited listeners on 127.0.0.1, so that processes never meet.
package haproxyd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Config is what a process serves. The zero Config has the origin alone.
type Config struct {
	// Frontends listen on sockets fe-000.sock and so on, each before one backend.
	Frontends int
	// Backends of Servers servers each: the first is the origin and checked, the second
	// is checked and never up, the third is disabled, the fourth a backup, the others
	// are not checked.
	Backends, Servers int
	// Master starts a master process and a worker, with a master socket.
	Master bool
	// Extra is appended to the configuration; DIR stands for the folder.
	Extra string
}

// A Server is a running process, or a master and its workers.
type Server struct {
	Dir    string
	Socket string // of statistics, level admin
	Master string // the master socket, if asked for
	TCP    string // host:port of statistics, level user
	Page   string // URL of the stats page, /stats; /metrics beside it is HAProxy's own exporter

	tb  testing.TB
	cmd *exec.Cmd
	log *safeBuffer
	end chan struct{}
}

const timeout = time.Minute

// Start starts HAProxy and waits until it answers; the end of the test stops it.
func Start(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	s, err := Launch(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	s.tb = tb
	tb.Cleanup(func() {
		s.Stop()
		os.RemoveAll(s.Dir)
	})
	return s
}

// Launch is Start without a test, for benchmarks: Stop ends the process, and the caller
// removes Dir. Of the other methods, only Ask and Request are for such a server.
func Launch(cfg Config) (_ *Server, err error) {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program = "/usr/sbin/haproxy" // not on everybody's PATH
		if _, err := os.Stat(program); err != nil {
			return nil, errors.New("haproxy is not installed: scripts/setup.sh test installs it")
		}
	}
	// Paths of sockets have 108 bytes at most, and names of tests are long.
	dir, err := os.MkdirTemp("", "haproxyd")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	s := &Server{Dir: dir, Socket: filepath.Join(dir, "stats.sock"), log: new(safeBuffer), end: make(chan struct{})}
	page, err := inherit()
	if err != nil {
		return nil, err
	}
	defer page.file.Close()
	tcp, err := inherit()
	if err != nil {
		return nil, err
	}
	defer tcp.file.Close()
	s.Page, s.TCP = "http://"+page.addr+"/stats", tcp.addr
	file := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(s.config(cfg)), 0o600); err != nil {
		return nil, err
	}
	args := []string{"-f", file, "-db"}
	if cfg.Master {
		s.Master = filepath.Join(dir, "master.sock")
		args = append(args, "-W", "-S", s.Master)
	}
	s.cmd = exec.Command(program, args...)
	s.cmd.ExtraFiles = []*os.File{page.file, tcp.file} // 3 and 4
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.cmd.Wait()
		close(s.end)
	}()
	err = s.await("answer", func() bool {
		out, err := s.Ask("show info")
		return err == nil && strings.HasPrefix(out, "Name:") && s.masterAnswers()
	})
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

type inherited struct {
	file *os.File
	addr string
}

func inherit() (inherited, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return inherited{}, err
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	return inherited{f, l.Addr().String()}, err
}

func (s *Server) config(cfg Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, `global
  stats socket %[1]s level admin mode 600
  stats socket fd@4 level user
  nbthread 1
  maxconn 2000
  hard-stop-after 20s
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  maxconn 500
frontend page
  bind fd@3
  option socket-stats
  stats enable
  stats uri /stats
  stats refresh 10s
  http-request use-service prometheus-exporter if { path /metrics }
frontend origin
  bind unix@%[2]s/origin.sock
  option socket-stats
  http-request return status 404 if { path_beg /missing }
  http-request return status 200 content-type text/plain string "hello"
`, s.Socket, s.Dir)
	for i := range cfg.Frontends {
		fmt.Fprintf(&b, "frontend fe_%03d\n  bind unix@%s/fe-%03d.sock\n  option socket-stats\n", i, s.Dir, i)
		if cfg.Backends > 0 {
			fmt.Fprintf(&b, "  default_backend be_%03d\n", i%cfg.Backends)
		}
	}
	algorithms := []string{"roundrobin", "leastconn", "source", "static-rr"}
	for i := range cfg.Backends {
		fmt.Fprintf(&b, "backend be_%03d\n  balance %s\n  option httpchk GET /\n  cookie SRV insert indirect nocache\n",
			i, algorithms[i%len(algorithms)])
		for k := range cfg.Servers {
			fmt.Fprintf(&b, "  server web-%03d-%02d ", i, k)
			switch k {
			case 0:
				fmt.Fprintf(&b, "unix@%s/origin.sock check inter 1s weight %d maxconn 200 cookie s%d\n", s.Dir, 10+i%50, k)
			case 1:
				fmt.Fprintf(&b, "unix@%s/nobody.sock check inter 1s maxconn 200 cookie s%d\n", s.Dir, k)
			case 2:
				fmt.Fprintf(&b, "127.0.0.1:1 disabled cookie s%d\n", k)
			case 3:
				fmt.Fprintf(&b, "unix@%s/origin.sock backup maxconn 200 maxqueue 50 cookie s%d\n", s.Dir, k)
			default:
				fmt.Fprintf(&b, "unix@%s/origin.sock weight %d maxconn 200 cookie s%d\n", s.Dir, 1+k, k)
			}
		}
	}
	b.WriteString(strings.ReplaceAll(cfg.Extra, "DIR", s.Dir))
	return b.String()
}

// Ask sends a command to the stats socket and returns the answer.
func (s *Server) Ask(command string) (string, error) { return ask(s.Socket, command) }

func ask(socket, command string) (string, error) {
	conn, err := net.DialTimeout("unix", socket, timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(timeout))
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", err
	}
	out, err := io.ReadAll(conn)
	return string(out), err
}

// Get makes n requests for path by frontend number i on one connection, reads the answers,
// and waits until they are counted: HAProxy does that behind the answer's last byte.
func (s *Server) Get(i, n int, path string) {
	s.tb.Helper()
	before, err := s.frontend(i)
	if err != nil {
		s.tb.Fatal(err)
	}
	if err := s.Request(i, n, path); err != nil {
		s.tb.Fatal(err)
	}
	s.wait("count the answers", func() bool {
		now, err := s.frontend(i)
		return err == nil && now.answers >= before.answers+n
	})
}

// Request is Get without a test. It does not wait until the answers are counted.
func (s *Server) Request(i, n int, path string) error {
	var conn net.Conn
	var answers *bufio.Reader
	for range n {
		if conn == nil {
			var err error
			if conn, err = s.dial(i); err != nil {
				return err
			}
			defer conn.Close()
			answers = bufio.NewReader(conn)
		}
		resp, err := exchange(conn, answers, path)
		if err != nil {
			return fmt.Errorf("get %s: %w\n%s", path, err, s.log.String())
		}
		if resp.Close {
			conn = nil
		}
	}
	return nil
}

// exchange sends one request and reads the whole answer.
func exchange(conn net.Conn, answers *bufio.Reader, path string) (*http.Response, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: haproxy\r\n\r\n", path); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

func (s *Server) dial(i int) (net.Conn, error) {
	return net.DialTimeout("unix", filepath.Join(s.Dir, fmt.Sprintf("fe-%03d.sock", i)), timeout)
}

// counted is what a frontend has counted.
type counted struct{ connections, answers int } // the connections of now

func (s *Server) frontend(i int) (c counted, err error) {
	out, err := s.Ask(fmt.Sprintf("show stat fe_%03d 1 -1", i))
	if err != nil {
		return c, err
	}
	header, row, _ := strings.Cut(strings.TrimPrefix(out, "# "), "\n")
	cells := strings.Split(row, ",")
	for k, name := range strings.Split(header, ",") {
		if k >= len(cells) {
			break
		}
		n, _ := strconv.Atoi(cells[k]) // 0 for a cell that is empty
		switch {
		case name == "scur":
			c.connections = n
		case strings.HasPrefix(name, "hrsp_"):
			c.answers += n
		}
	}
	return c, nil
}

// Hold opens a connection to frontend number i and begins a request, so that a worker
// that is told to end stays. The worker has read the beginning when Hold returns: what
// still waited for it would be dropped.
func (s *Server) Hold(i int) io.Closer {
	s.tb.Helper()
	before, err := s.frontend(i)
	if err != nil {
		s.tb.Fatal(err)
	}
	conn, err := s.dial(i)
	if err != nil {
		s.tb.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: haproxy\r\nX-Slow: "); err != nil {
		s.tb.Fatal(err)
	}
	s.wait("take the connection", func() bool {
		now, err := s.frontend(i)
		return err == nil && now.connections > before.connections
	})
	// It has one thread: before another answer it has looked at what the connection holds.
	if _, err := s.frontend(i); err != nil {
		s.tb.Fatal(err)
	}
	return conn
}

// Reload tells the master to start a new worker, and waits until it answers.
func (s *Server) Reload() {
	s.tb.Helper()
	before := s.pid()
	if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		s.tb.Fatal(err)
	}
	s.wait("reload", func() bool { pid := s.pid(); return pid != "" && pid != before && s.masterAnswers() })
}

// masterAnswers is true if there is no master: its socket is away for a moment when it
// starts again.
func (s *Server) masterAnswers() bool {
	if s.Master == "" {
		return true
	}
	out, err := ask(s.Master, "show proc;quit")
	return err == nil && strings.Contains(out, "worker")
}

func (s *Server) pid() string {
	out, err := s.Ask("show info")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(out) {
		if pid, ok := strings.CutPrefix(line, "Pid: "); ok {
			return strings.TrimSpace(pid)
		}
	}
	return ""
}

// Freeze stops the process, and workers, in their tracks until Thaw.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := syscall.Kill(-s.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.tb.Fatal(err)
	}
}

// WaitState waits until the server of the backend is in the state.
func (s *Server) WaitState(backend, server, state string) {
	s.tb.Helper()
	s.wait(backend+"/"+server+" to be "+state, func() bool {
		out, err := s.Ask("show stat")
		if err != nil {
			return false
		}
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, backend+","+server+",") {
				return strings.Contains(line, ","+state+",")
			}
		}
		return false
	})
}

// wait asks done again and again until it says yes.
func (s *Server) wait(what string, done func() bool) {
	s.tb.Helper()
	if err := s.await(what, done); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *Server) await(what string, done func() bool) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(timeout)
	for !done() {
		select {
		case <-s.end:
			return fmt.Errorf("haproxy ended:\n%s", s.log.String())
		case <-deadline:
			return fmt.Errorf("waiting for haproxy to %s took %v:\n%s", what, timeout, s.log.String())
		case <-tick.C:
		}
	}
	return nil
}

// Stop ends the process and all workers at once.
func (s *Server) Stop() {
	select {
	case <-s.end:
		return
	default:
	}
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGCONT)
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.end
}

// safeBuffer is what a process has written, read while it writes.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
