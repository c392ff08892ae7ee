//go:build !linux

package natsserver

import (
	"io"
	"net"
	"net/netip"
	"syscall"
)

func dieWithParent() *syscall.SysProcAttr { return nil }

// reservePort finds a free port of host. Here another program may take it: Launch then
// tries again with another one.
func reservePort(host netip.Addr) (uint16, io.Closer, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		return 0, nil, err
	}
	return uint16(l.Addr().(*net.TCPAddr).Port), io.NopCloser(nil), l.Close()
}
