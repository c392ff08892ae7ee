//go:build unix

package filelock

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	alone   = unix.LOCK_EX | unix.LOCK_NB
	waiting = unix.LOCK_EX
	shared  = unix.LOCK_SH | unix.LOCK_NB
	free    = unix.LOCK_UN
)

func lock(f *os.File, how int) error {
	for {
		switch err := unix.Flock(int(f.Fd()), how); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrHeld
		default:
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}
