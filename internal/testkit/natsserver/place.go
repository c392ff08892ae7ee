package natsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"

	"myrmidon/internal/testkit/netfault"
)

// What each of a server's ports is for.
const (
	clients = iota
	routes
	monitor
	portCount
)

// place is where a server runs, and its three ports, which it keeps from reserve to
// release whether it runs or not.
type place struct {
	ns    *netfault.NS // nil: this machine
	ports [portCount]uint16
	held  []io.Closer
}

func (p *place) host() netip.Addr {
	if p.ns != nil {
		return p.ns.Addr()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func (p *place) address(port int) string {
	return netip.AddrPortFrom(p.host(), p.ports[port]).String()
}

// reserve picks three free ports.
func (p *place) reserve() error {
	for i := range p.ports {
		err := p.inside(func() error {
			port, hold, err := reservePort(p.host())
			if err != nil {
				return err
			}
			p.ports[i] = port
			p.held = append(p.held, hold)
			return nil
		})
		if err != nil {
			return errors.Join(fmt.Errorf("reserve a port of %v: %w", p.host(), err), p.release())
		}
	}
	return nil
}

func (p *place) release() error {
	var errs []error
	for _, h := range p.held {
		errs = append(errs, h.Close())
	}
	p.held = nil
	return errors.Join(errs...)
}

func (p *place) inside(fn func() error) error {
	if p.ns != nil {
		return p.ns.Do(fn)
	}
	return fn()
}

func (p *place) command(program string, args ...string) *exec.Cmd {
	if p.ns != nil {
		return p.ns.Command(program, args...)
	}
	return exec.Command(program, args...)
}

func (p *place) dial(ctx context.Context, address string) (net.Conn, error) {
	if p.ns != nil {
		return p.ns.DialContext(ctx, "tcp", address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}
