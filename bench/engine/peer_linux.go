package main

import "syscall"

// ownGroup makes a child lead a group of its own, out of reach of the terminal's
// interrupt, and die with this process.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
