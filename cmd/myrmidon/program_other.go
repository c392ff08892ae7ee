//go:build !linux

package main

// leaveProgram does nothing here.
func leaveProgram() {}
