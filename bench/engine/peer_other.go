//go:build !linux

package main

import (
	"context"
	"syscall"
	"time"
)

// ownGroup makes a child lead a group of its own, out of reach of the terminal's
// interrupt.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// settle gives a queue that has just been loaded the time to tidy up.
func settle(ctx context.Context) {
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
}
