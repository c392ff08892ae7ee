package netfault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"myrmidon"
)

const (
	// prefix begins the names of all bridges, links and namespaces of this package. The
	// longest, "myrm254-254p", is within the kernel's 15 bytes for a link's name.
	prefix = "myrm"
	// subnets is how many nets a machine can have at a time: 10.213.1.0 to 10.213.254.0.
	subnets = 254
	// ipTimeout bounds one call of the program ip.
	ipTimeout = 10 * time.Second
)

// Net is a network of its own: a bridge of this machine with the address 10.213.x.1,
// and the namespaces that joined it. This machine and all members reach one another.
// Its methods may be called from many goroutines.
type Net struct {
	subnet int // x
	lock   *os.File

	mu      sync.Mutex
	members []*NS
	closed  bool
}

// NS is a network namespace with one cable to its [Net] and a loopback of its own. Its
// methods may be called from many goroutines.
type NS struct {
	net  *Net
	id   int
	name string
}

// Available says whether [NewNet] works here, by trying it: two members that talk to
// each other. It tries once a process. The error wraps errors.ErrUnsupported where the
// system or the user's rights rule it out, and exec.ErrNotFound where only the program
// ip is missing.
func Available() error { return available() }

var available = sync.OnceValue(func() error {
	if err := supported(); err != nil {
		return err
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return myrmidon.WithHint(fmt.Errorf("netfault: find ip: %w", err), "install iproute2")
	}
	if err := rehearse(); err != nil {
		if refused(err) {
			err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		return myrmidon.WithHint(fmt.Errorf("netfault: try a network of two namespaces: %w", err),
			"run as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, and let no firewall drop what a bridge forwards")
	}
	return nil
})

// rehearse opens a connection from one member of a net to another.
func rehearse() (err error) {
	n, err := NewNet("rehearsal")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	a, err := n.Join(1)
	if err != nil {
		return err
	}
	b, err := n.Join(2)
	if err != nil {
		return err
	}
	l, err := a.Listen("tcp", net.JoinHostPort(a.Addr().String(), "0"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c, err := b.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	return c.Close()
}

// refused reports whether err is the kernel's or ip's way of saying that the rights are
// missing.
func refused(err error) bool {
	text := err.Error()
	return errors.Is(err, os.ErrPermission) ||
		strings.Contains(text, "Operation not permitted") ||
		strings.Contains(text, "Permission denied") ||
		strings.Contains(text, "Read-only file system")
}

// NewNet makes a network. name is for people: it is the bridge's alias in ip link. What
// a killed process left behind is removed first. The caller closes the net; if its
// process is killed, the next NewNet cleans up.
func NewNet(name string) (*Net, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	n, err := claim()
	if err != nil {
		return nil, fmt.Errorf("netfault: claim a subnet for network %q: %w", name, err)
	}
	err = ip(
		"link add "+n.bridge()+" type bridge",
		fmt.Sprintf("addr add %s/24 dev %s", n.Addr(), n.bridge()),
		"link set "+n.bridge()+" up",
	)
	if err == nil && name != "" {
		err = run("ip", "link", "set", "dev", n.bridge(), "alias", name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netfault: make network %q: %w", name, err), n.Close())
	}
	return n, nil
}

// claim takes the first free subnet. Its lock file belongs to one process and falls
// with it; what is found under a lock that was free is left over from a dead one.
func claim() (*Net, error) {
	left, err := leftovers()
	if err != nil {
		return nil, err
	}
	var mine *Net
	for x := 1; x <= subnets; x++ {
		if mine != nil && !left[x] {
			continue
		}
		f, err := lockSubnet(x)
		if err != nil {
			return nil, errors.Join(err, mine.release())
		}
		if f == nil {
			continue // somebody's
		}
		n := &Net{subnet: x, lock: f}
		if left[x] {
			err = n.sweep()
		}
		if err == nil && mine == nil {
			mine = n
			continue
		}
		if err = errors.Join(err, n.release()); err != nil {
			return nil, errors.Join(fmt.Errorf("remove what a killed process left: %w", err), mine.release())
		}
	}
	if mine == nil {
		return nil, myrmidon.WithHint(fmt.Errorf("all %d are taken", subnets), "close other networks")
	}
	return mine, nil
}

// release gives the subnet back. A nil Net is fine.
func (n *Net) release() error {
	if n == nil {
		return nil
	}
	return n.lock.Close()
}

func (n *Net) bridge() string { return fmt.Sprintf("%s%d", prefix, n.subnet) }

// Addr is this machine's address on the network.
func (n *Net) Addr() netip.Addr { return n.at(1) }

func (n *Net) at(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 213, byte(n.subnet), byte(host)})
}

// Join makes a namespace with the address 10.213.x.(id+1); id is 1 to 253 and free.
func (n *Net) Join(id int) (*NS, error) {
	if id < 1 || id > 253 {
		return nil, fmt.Errorf("netfault: join as %d: the id must be 1 to 253", id)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, fmt.Errorf("netfault: join as %d: %w", id, net.ErrClosed)
	}
	if slices.ContainsFunc(n.members, func(m *NS) bool { return m.id == id }) {
		return nil, fmt.Errorf("netfault: join as %d: %w", id, os.ErrExist)
	}
	s := &NS{net: n, id: id, name: fmt.Sprintf("%s%d-%d", prefix, n.subnet, id)}
	err := ip("netns add " + s.name)
	if err == nil {
		n.members = append(n.members, s) // Close removes it, whole or not
		err = ip(
			fmt.Sprintf("link add %s type veth peer name eth0 netns %s", s.cable(), s.name),
			fmt.Sprintf("link set %s master %s up", s.cable(), n.bridge()),
		)
	}
	if err == nil {
		err = ip(
			fmt.Sprintf("-n %s addr add %s/24 dev eth0", s.name, s.Addr()),
			fmt.Sprintf("-n %s link set eth0 up", s.name),
			fmt.Sprintf("-n %s link set lo up", s.name),
		)
	}
	if err != nil {
		return nil, fmt.Errorf("netfault: join as %d: %w", id, err)
	}
	return s, nil
}

// Close kills what still runs in the namespaces and removes them and the bridge. All
// is tried, whatever fails.
func (n *Net) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	err := n.sweep()
	if err = errors.Join(err, n.release()); err != nil {
		return fmt.Errorf("netfault: remove network %s: %w", n.bridge(), err)
	}
	return nil
}

// cable is the end that this machine holds of the namespace's link.
func (s *NS) cable() string { return s.name + "p" }

// Name is the namespace's, as in ip netns.
func (s *NS) Name() string { return s.name }

// Addr is the namespace's address.
func (s *NS) Addr() netip.Addr { return s.net.at(s.id + 1) }

// Cut pulls the cable: packets are lost both ways and nobody is told. Connections
// within the namespace go on.
func (s *NS) Cut() error { return s.cableTo("down") }

// Heal plugs the cable in again. TCP then resends at its own pace, which has doubled
// with each attempt since Cut.
func (s *NS) Heal() error { return s.cableTo("up") }

func (s *NS) cableTo(state string) error {
	if err := run("ip", "link", "set", s.cable(), state); err != nil {
		return fmt.Errorf("netfault: set the cable of %s %s: %w", s.name, state, err)
	}
	return nil
}

// Command is exec.Command inside the namespace: path is looked up, standard streams,
// environment and process ID are as always. The program sees /sys of the namespace.
func (s *NS) Command(path string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", s.name, path}, args...)...)
}

// DialContext connects from inside the namespace. address holds a literal IP address:
// names would be resolved outside.
func (s *NS) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := s.literal(address)
	if err == nil {
		err = s.Do(func() error {
			var err error
			c, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("netfault: dial %s from %s: %w", address, s.name, err)
	}
	return c, nil
}

// Listen listens inside the namespace, on a literal IP address.
func (s *NS) Listen(network, address string) (net.Listener, error) {
	var l net.Listener
	err := s.literal(address)
	if err == nil {
		err = s.Do(func() error {
			var err error
			l, err = net.Listen(network, address)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("netfault: listen on %s in %s: %w", address, s.name, err)
	}
	return l, nil
}

func (s *NS) literal(address string) error {
	_, err := netip.ParseAddrPort(address)
	return err
}

// ip runs lines of the program ip, until one fails.
func ip(lines ...string) error {
	for _, line := range lines {
		if err := run("ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

func run(program string, args ...string) error {
	_, err := output(program, args...)
	return err
}

// output returns what a program printed; its error has what it complained of.
func output(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ipTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		text := ""
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			text = ": " + strings.TrimSpace(string(exit.Stderr))
		}
		return "", fmt.Errorf("%s %s: %w%s", program, strings.Join(args, " "), err, text)
	}
	return string(out), nil
}
