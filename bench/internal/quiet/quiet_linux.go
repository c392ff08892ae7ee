package quiet

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"time"
)

// Settle waits until the machine is idle, or has not become so in ten seconds.
func Settle(ctx context.Context) {
	const window, longest = 200 * time.Millisecond, 10 * time.Second
	idle, total := cpuTime()
	for start := time.Now(); time.Since(start) < longest; {
		select {
		case <-time.After(window):
		case <-ctx.Done():
			return
		}
		i, t := cpuTime()
		if i-idle >= (t-total)*9/10 {
			return
		}
		idle, total = i, t
	}
}

// cpuTime returns how long all processors were idle, and all in all, in ticks
// (proc_stat(5)).
func cpuTime() (idle, total int) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	for i, f := range bytes.Fields(line)[1:] {
		n, _ := strconv.Atoi(string(f)) // the kernel writes numbers
		if total += n; i == 3 || i == 4 {
			idle += n // idle, and waiting for a disk
		}
	}
	return idle, total
}
