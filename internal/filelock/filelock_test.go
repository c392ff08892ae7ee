package filelock_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/filelock"
)

// opened returns two open files of one name: locks of one process's files stand against one
// another as those of two processes do.
func opened(t *testing.T) (a, b *os.File) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "lock")
	for _, f := range []**os.File{&a, &b} {
		var err error
		if *f, err = os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*f).Close() })
	}
	return a, b
}

func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("%s: %v, want %v", what, err, target)
	}
}

func TestALockIsOneFilesOrShared(t *testing.T) {
	a, b := opened(t)
	want(t, "take", filelock.Take(a), nil)
	want(t, "take what is held", filelock.Take(b), filelock.ErrHeld)
	want(t, "share what is held", filelock.Share(b), filelock.ErrHeld)
	want(t, "give up", filelock.Free(a), nil)
	want(t, "share", filelock.Share(b), nil)
	want(t, "share once more", filelock.Share(a), nil)
	want(t, "take what is shared", filelock.Take(a), filelock.ErrHeld)
}

func TestALockEndsWithItsFile(t *testing.T) {
	a, b := opened(t)
	want(t, "take", filelock.Take(a), nil)
	a.Close()
	want(t, "take what was closed", filelock.Take(b), nil)
}

func TestCloseLeavesNoLockToAChild(t *testing.T) {
	a, b := opened(t)
	want(t, "take", filelock.Take(a), nil)
	child, err := syscall.Dup(int(a.Fd())) // as one that was forked has it until it calls exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	want(t, "close", filelock.Close(a), nil)
	want(t, "take what was closed", filelock.Take(b), nil)
	want(t, "close again", filelock.Close(a), os.ErrClosed)
}

func TestWaitReturnsWhenTheLockIsGivenUp(t *testing.T) {
	a, b := opened(t)
	want(t, "take", filelock.Take(a), nil)
	got := make(chan error, 1)
	go func() { got <- filelock.Wait(b) }()
	select {
	case err := <-got:
		t.Fatalf("it is held, and was given: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	want(t, "give up", filelock.Free(a), nil)
	want(t, "wait", <-got, nil)
	want(t, "take what another waited for", filelock.Take(a), filelock.ErrHeld)
}

func TestALookDoesNotRefuseTheOwner(t *testing.T) {
	a, b := opened(t)
	want(t, "share", filelock.Share(a), nil)
	time.AfterFunc(300*time.Millisecond, func() { a.Close() }) // a look takes long on a busy machine
	want(t, "take after a look", filelock.TakeFromLookers(b), nil)
	c, err := os.Open(b.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	want(t, "take what is held", filelock.TakeFromLookers(c), filelock.ErrHeld)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("that it is held took %v to learn", took)
	}
}

func TestALockOfAClosedFile(t *testing.T) {
	a, _ := opened(t)
	a.Close()
	if err := filelock.Take(a); err == nil || errors.Is(err, filelock.ErrHeld) {
		t.Errorf("a closed file: %v", err)
	}
}
