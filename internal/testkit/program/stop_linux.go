package program

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// stopTimeout bounds the wait for a process that was sent SIGSTOP.
const stopTimeout = 10 * time.Second

// AwaitStopped returns when all threads of the child pid have stopped after a SIGSTOP.
func AwaitStopped(pid int) error {
	for deadline := time.Now().Add(stopTimeout); ; time.Sleep(time.Millisecond) {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG, nil)
		switch {
		case err == nil && info.Signo != 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait until process %d has stopped: %w", pid, err)
		case time.Now().After(deadline):
			return fmt.Errorf("process %d still runs %v after SIGSTOP", pid, stopTimeout)
		}
	}
}
