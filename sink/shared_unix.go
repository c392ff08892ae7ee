//go:build unix

package sink

import (
	"errors"
	"os"
	"syscall"
)

// lockShared waits until no other process writes to the file, or looks at its end. What knows no
// locks, such as some network file systems, is used without.
func lockShared(f *os.File) {
	for errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX), syscall.EINTR) {
	}
}

func unlockShared(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) } // closing does it, too
