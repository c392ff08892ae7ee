//go:build !race

package sink_test

// schedules is how many random days each property is tested in.
const schedules = 1000
