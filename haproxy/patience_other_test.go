//go:build !linux

package haproxy

import (
	"net"
	"testing"
	"time"
)

// unread gives the other end of a socket some time: only Linux tells.
func unread(testing.TB, net.Conn) int {
	time.Sleep(100 * time.Millisecond)
	return 0
}
