//go:build !linux

package program

import "time"

// AwaitStopped gives the child pid the time to stop: only Linux tells when it has.
func AwaitStopped(int) error {
	time.Sleep(100 * time.Millisecond)
	return nil
}
