package natsserver

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// reservePort finds a free port of host and holds it with a socket that is bound but
// does not listen. The kernel gives the port to nobody who asks for any, a client's end
// of a connection included; who asks for it by number, with SO_REUSEADDR as Go's
// servers do, may listen on it. Connecting to it is refused as long as nobody does.
func reservePort(host netip.Addr) (uint16, io.Closer, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, os.NewSyscallError("socket", err)
	}
	hold := os.NewFile(uintptr(fd), "reserved port")
	port, err := bind(fd, host)
	if err != nil {
		return 0, nil, errors.Join(err, hold.Close())
	}
	return port, hold, nil
}

func bind(fd int, host netip.Addr) (uint16, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: host.As4()}); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	return uint16(name.(*unix.SockaddrInet4).Port), nil
}
