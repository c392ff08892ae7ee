//go:build unix

package sink

import (
	"net"
	"syscall"
)

// ended reports whether the next read would return the end or an error: the goroutine that
// reads may not have run yet since the peer has closed. It takes nothing from the connection.
func ended(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	var n int
	var read error
	// Control, since the reading goroutine holds what Read would wait for. A descriptor of
	// net never blocks.
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, read = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
	})
	if err != nil {
		return true
	}
	switch read {
	case nil:
		return n == 0
	case syscall.EAGAIN, syscall.EINTR:
		return false
	}
	return true
}
