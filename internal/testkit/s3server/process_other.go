//go:build !linux

package s3server

import "syscall"

// dieWithParent leaves the server out of the terminal's interrupts. That a child dies
// with its parent only Linux can promise.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
