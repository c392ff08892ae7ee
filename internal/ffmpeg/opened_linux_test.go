package ffmpeg

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// watchOpens returns a function that says whether the file at path was opened since
// the last call, by anyone.
func watchOpens(t *testing.T, path string) (opened func() bool) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_ACCESS); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		seen := false
		for buf := make([]byte, 4096); ; seen = true {
			if _, err := unix.Read(fd, buf); errors.Is(err, unix.EAGAIN) {
				return seen
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}
