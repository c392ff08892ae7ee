//go:build !race

package object_test

// raced says that the race detector slows all down.
const raced = false
