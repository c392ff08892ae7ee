package natsserver_test

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"myrmidon/internal/testkit/natsserver"
)

func TestThePortOfAKilledServerStaysReserved(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	address, err := netip.ParseAddrPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: address.Addr().As4(), Port: int(address.Port())})
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("binding %v: %v, want EADDRINUSE", address, err)
	}
}
