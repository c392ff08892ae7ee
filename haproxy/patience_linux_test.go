package haproxy

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// unread is how many bytes that were written to a Unix socket still wait at its other end.
func unread(tb testing.TB, conn net.Conn) (n int) {
	tb.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		tb.Error(err)
		return 0
	}
	var asked error
	if err := raw.Control(func(fd uintptr) { n, asked = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil || asked != nil {
		tb.Error(err, asked)
		return 0
	}
	return n
}
