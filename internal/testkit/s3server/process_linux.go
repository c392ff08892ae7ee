package s3server

import "syscall"

// dieWithParent makes the server die with this process, and leaves it out of the
// terminal's interrupts: whoever started it stops it.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
