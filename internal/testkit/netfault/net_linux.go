package netfault

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"myrmidon"
	"myrmidon/internal/filelock"
)

// lockDir holds a lock file for each subnet. Only root can write to its parent, and
// all processes of the machine agree on it, whatever their TMPDIR.
const lockDir = "/run/" + prefix + "idon-netfault"

// namespaces is where the program ip keeps named namespaces.
const namespaces = "/run/netns"

func supported() error {
	if os.Geteuid() != 0 {
		return myrmidon.WithHint(fmt.Errorf("netfault: make network namespaces: %w for a user other than root", errors.ErrUnsupported),
			"run as root, or use a Proxy")
	}
	return nil
}

// lockSubnet locks subnet x, or returns nil if a process holds it.
func lockSubnet(x int) (*os.File, error) {
	if err := os.MkdirAll(lockDir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(lockDir, strconv.Itoa(x)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = filelock.Take(f)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, filelock.ErrHeld):
		return nil, f.Close()
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
}

// subnetOf returns x of a link's or a namespace's name, or 0 if it is none of ours.
func subnetOf(name string) int {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0
	}
	number, _, _ := strings.Cut(rest, "-")
	x, err := strconv.Atoi(number)
	if err != nil || x < 1 || x > subnets {
		return 0
	}
	return x
}

// links are this machine's network links.
func links() ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network links: %w", err)
	}
	out := make([]string, 0, len(all))
	for _, l := range all {
		out = append(out, l.Name)
	}
	return out, nil
}

// named are the namespaces that ip has made.
func named() ([]string, error) {
	entries, err := os.ReadDir(namespaces)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}

// leftovers are the subnets that have a link or a namespace, of a live process or not.
func leftovers() (map[int]bool, error) {
	out := make(map[int]bool)
	for _, list := range []func() ([]string, error){links, named} {
		all, err := list()
		if err != nil {
			return nil, err
		}
		for _, name := range all {
			if x := subnetOf(name); x != 0 {
				out[x] = true
			}
		}
	}
	return out, nil
}

// sweep removes all that carries the subnet's number. The lock is held.
func (n *Net) sweep() error {
	var errs []error
	spaces, err := named()
	errs = append(errs, err)
	for _, name := range spaces {
		if subnetOf(name) == n.subnet {
			errs = append(errs, end(name), ip("netns del "+name))
		}
	}
	// A namespace takes its end of the cable with it, and so the other one, but not
	// while a socket of it is open in some process.
	ends, err := links()
	errs = append(errs, err)
	for _, name := range ends {
		if subnetOf(name) != n.subnet {
			continue
		}
		if err := ip("link del " + name); err != nil && exists(name) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func exists(link string) bool {
	_, err := net.InterfaceByName(link)
	return err == nil
}

// end kills the processes of a namespace and waits until they are gone.
func end(namespace string) error {
	for deadline := time.Now().Add(ipTimeout); ; time.Sleep(5 * time.Millisecond) {
		text, err := output("ip", "netns", "pids", namespace)
		if err != nil {
			return err
		}
		left := 0
		for _, word := range strings.Fields(text) {
			pid, err := strconv.Atoi(word)
			if err != nil || pid == os.Getpid() {
				continue
			}
			if err := unix.Kill(pid, unix.SIGKILL); err == nil {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill the processes of %s: %d are still there", namespace, left)
		}
	}
}

// Do runs fn on a thread that is inside the namespace: the sockets it opens and the
// processes it starts belong there, those of goroutines that it starts do not. The
// thread ends with fn, and with it a process that was started with Pdeathsig.
func (s *NS) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The process's first thread never ends, and /proc shows its namespace as the
			// process's. While it is held here, the next goroutine gets another one.
			defer runtime.UnlockOSThread()
			done <- s.Do(fn)
			return
		}
		// Never unlocked: the thread ends with the goroutine, and nobody else is sent
		// into the namespace by getting it.
		done <- s.enter(fn)
	}()
	return <-done
}

func (s *NS) enter(fn func() error) error {
	f, err := os.Open(filepath.Join(namespaces, s.name))
	if err != nil {
		return fmt.Errorf("open the namespace: %w", err)
	}
	err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("enter the namespace: %w", err)
	}
	return fn()
}
