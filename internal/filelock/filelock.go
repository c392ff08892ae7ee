// Package filelock locks open files, each of which is one process's or shared by those that
// have only a look. A lock ends when its file is closed (see Close), and so with its process,
// however that ends.
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

// look is how long those who have only a look may hold their lock: for microseconds, but on a
// busy machine each of them may be stopped in between.
const look = 10 * time.Second

// TakeFromLookers is Take for locks that others look at with Share for a moment: it returns
// ErrHeld at once if one is another process's alone, and after ten seconds if others share it
// for that long.
func TakeFromLookers(f *os.File) error {
	for deadline := time.Now().Add(look); ; time.Sleep(5 * time.Millisecond) {
		err := Take(f)
		if !errors.Is(err, ErrHeld) || time.Now().After(deadline) {
			return err
		}
		// What can be shared is only looked at.
		if err := Share(f); err != nil {
			return err
		}
		if err := Free(f); err != nil {
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

// Close gives the lock up and closes f. Closing alone leaves the lock to a program that this process
// is just starting: it has the file, too, for the moment until it is that program.
func Close(f *os.File) error {
	_ = Free(f) // what is not locked, or closed already, is said by Close
	return f.Close()
}
