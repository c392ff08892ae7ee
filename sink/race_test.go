//go:build race

package sink_test

// schedules is fewer with the race detector, which takes ten times as long for one.
const schedules = 100
