// Package filelock locks open files, each of which is one process's or shared by those that
// have only a look. A lock ends when its file is closed, and so with its process, however
// that ends.
//
// It is flock(2). Where there is none, each call returns an error that is
// errors.ErrUnsupported, and on network file systems that know no locks, the system's.
package filelock

import (
	"errors"
	"os"
	"time"
)

// ErrHeld says that another process has the lock.
var ErrHeld = errors.New("another process holds the lock")

// Take locks f for this process alone, or returns ErrHeld at once.
func Take(f *os.File) error { return lock(f, alone) }

// look is how long those who have only a look hold their lock, many times over.
const look = 100 * time.Millisecond

// TakeFromLookers is Take for locks that others look at with Share for a moment: it returns
// ErrHeld only if one is held for longer.
func TakeFromLookers(f *os.File) error {
	for deadline := time.Now().Add(look); ; time.Sleep(look / 10) {
		if err := Take(f); !errors.Is(err, ErrHeld) || time.Now().After(deadline) {
			return err
		}
	}
}

// Wait locks f for this process alone when whoever has the lock gives it up.
func Wait(f *os.File) error { return lock(f, waiting) }

// Share locks f together with others that share it, or returns ErrHeld at once.
func Share(f *os.File) error { return lock(f, shared) }

// Free gives the lock up.
func Free(f *os.File) error { return lock(f, free) }
