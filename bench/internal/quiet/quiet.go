// Package quiet waits until the machine has come to rest between two measurements: what
// has just been loaded tidies up, at the cost of what is measured next.
package quiet
