//go:build !race

package s3_test

// raced says that the race detector slows all down.
const raced = false
