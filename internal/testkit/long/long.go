// Package long marks the tests that take long and show little of a race: those that kill
// the program from outside, wait for terms to end, or repeat a schedule many times.
package long

import "testing"

// Test skips t where tests run with -short, as make race runs them. make test runs all.
func Test(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("long: make test runs it")
	}
}
