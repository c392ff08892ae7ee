package netfault_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/testkit/netfault"
)

// TestMain plays the process of TestWhatAKilledProcessLeavesIsRemoved.
func TestMain(m *testing.M) {
	if os.Getenv("NETFAULT_CHILD") == "" {
		os.Exit(m.Run())
	}
	n, err := netfault.NewNet("doomed")
	if err != nil {
		panic(err)
	}
	s, err := n.Join(1)
	if err != nil {
		panic(err)
	}
	sleeper := s.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		panic(err)
	}
	os.Stdout.WriteString(s.Name() + " " + strconv.Itoa(sleeper.Process.Pid) + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed
}

// network makes a net that the test closes. Without the rights there is nothing to
// test; a missing program is a failure.
func network(t *testing.T) *netfault.Net {
	t.Helper()
	if err := netfault.Available(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	n, err := netfault.NewNet(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func join(t *testing.T, n *netfault.Net, id int) *netfault.NS {
	t.Helper()
	s, err := n.Join(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// echo serves one echoing listener in s.
func echo(t *testing.T, s *netfault.NS) string {
	t.Helper()
	l, err := s.Listen("tcp", net.JoinHostPort(s.Addr().String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	return serveEcho(t, l)
}

func TestACutNamespaceLosesPacketsAndItsConnectionsSurvive(t *testing.T) {
	n := network(t)
	a, b := join(t, n, 1), join(t, n, 2)
	address := echo(t, a)
	c, err := b.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fromHere, err := net.DialTimeout("tcp", address, long)
	if err != nil {
		t.Fatalf("from this machine: %v", err)
	}
	defer fromHere.Close()
	for _, conn := range []net.Conn{c, fromHere} {
		if err := ask(conn, "hello", long); err != nil {
			t.Fatal(err)
		}
	}

	if err := a.Cut(); err != nil {
		t.Fatal(err)
	}
	if err := ask(c, "lost?", 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("asking a cut namespace: %v, want a time-out", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if late, err := b.DialContext(ctx, "tcp", address); err == nil {
		late.Close()
		t.Fatal("a cut namespace took a connection")
	}

	if err := a.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := hear(c, "lost?", long); err != nil {
		t.Fatalf("after healing: %v", err)
	}
}

func TestACommandRunsInsideItsNamespace(t *testing.T) {
	n := network(t)
	s := join(t, n, 7)
	out, err := s.Command("ip", "-o", "-4", "addr", "show", "dev", "eth0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := s.Addr().String() + "/24"; !strings.Contains(string(out), want) {
		t.Errorf("ip addr inside printed %q, want %s in it", out, want)
	}
	// Its own process ID, so that signals reach it.
	c := s.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("sleep ended by %v, want SIGTERM", err)
	}
}

func TestTwoNetsDoNotMeet(t *testing.T) {
	one, two := network(t), network(t)
	a, b := join(t, one, 1), join(t, two, 1)
	if a.Addr() == b.Addr() || a.Name() == b.Name() {
		t.Fatalf("both are %s at %v", a.Name(), a.Addr())
	}
	address := echo(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if c, err := b.DialContext(ctx, "tcp", address); err == nil {
		c.Close()
		t.Error("a member of one net reached the other")
	}
}

func TestJoinRefusesWhatCannotBe(t *testing.T) {
	n := network(t)
	join(t, n, 1)
	for _, tt := range []struct {
		name string
		id   int
	}{
		{"the bridge's own place", 0},
		{"a negative one", -1},
		{"one beyond the subnet", 254},
		{"one that is taken", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := n.Join(tt.id); err == nil {
				t.Errorf("Join(%d) succeeded", tt.id)
			}
		})
	}
}

func TestNamesAreNotDialledFromANamespace(t *testing.T) {
	s := join(t, network(t), 1)
	if _, err := s.DialContext(t.Context(), "tcp", "localhost:1"); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial by name: %v, want a refusal of the name", err)
	}
}

func TestClosingANetKillsItsProcessesAndLeavesNoLink(t *testing.T) {
	n := network(t)
	s := join(t, n, 1)
	c := s.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	waitForNamespace(t, s.Name(), c.Process.Pid)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(long):
		t.Fatal("the process outlived its network")
	}
	leavesNothing(t, s.Name(), 0)
	if _, err := n.Join(2); !errors.Is(err, net.ErrClosed) {
		t.Errorf("joining a closed net: %v, want net.ErrClosed", err)
	}
}

// waitForNamespace returns when the process is in the namespace: ip enters it first.
func waitForNamespace(t *testing.T, name string, pid int) {
	t.Helper()
	for deadline := time.Now().Add(long); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		out, err := exec.Command("ip", "netns", "pids", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range strings.Fields(string(out)) {
			if f == strconv.Itoa(pid) {
				return
			}
		}
	}
	t.Fatalf("process %d never came to %s", pid, name)
}

// leavesNothing checks that neither the namespace nor its cable or bridge is there after a time.
func leavesNothing(t *testing.T, name string, within time.Duration) {
	t.Helper()
	bridge, _, _ := strings.Cut(name, "-")
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		var left []string
		for _, link := range []string{bridge, name + "p"} {
			if _, err := net.InterfaceByName(link); err == nil {
				left = append(left, "link "+link)
			}
		}
		if _, err := os.Stat("/run/netns/" + name); !os.IsNotExist(err) {
			left = append(left, "namespace "+name)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("still there: %q", left)
			return
		}
	}
}

func TestWhatAKilledProcessLeavesIsRemoved(t *testing.T) {
	network(t) // or skip
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), "NETFAULT_CHILD=1")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	count, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(line[:count]))
	if len(fields) != 2 {
		t.Fatalf("the child said %q", line[:count])
	}
	name := fields[0]
	sleeper, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	waitForNamespace(t, name, sleeper)
	if _, err := netfaultNet(t); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/run/netns/" + name); err != nil {
		t.Fatalf("another NewNet removed the namespace of a live process: %v", err)
	}

	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if _, err := netfaultNet(t); err != nil {
		t.Fatal(err)
	}
	leavesNothing(t, name, long) // the net of another process may have begun to remove it before ours
	if ended := syscall.Kill(sleeper, 0); ended == nil && !zombie(sleeper) {
		t.Error("the dead process's child still runs")
	}
}

// netfaultNet makes and closes a net.
func netfaultNet(t *testing.T) (*netfault.Net, error) {
	t.Helper()
	n, err := netfault.NewNet("passing")
	if err != nil {
		return nil, err
	}
	return n, n.Close()
}

func zombie(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(data), ") Z ")
}
