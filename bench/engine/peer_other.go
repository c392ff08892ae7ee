//go:build !linux

package main

import "syscall"

// ownGroup makes a child lead a group of its own, out of reach of the terminal's
// interrupt.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
