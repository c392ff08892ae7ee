//go:build !linux

package object_test

// fullDiskChild is for Linux, where a process can mount a small disk of its own.
func fullDiskChild() int { return 1 }
