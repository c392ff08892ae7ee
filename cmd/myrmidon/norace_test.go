//go:build !race

package main

// raced says that the race detector slows all down.
const raced = false
