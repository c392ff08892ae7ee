// Package machine says what a benchmark ran on, and what memory it took.
package machine

import (
	"os"
	"runtime"
	"strings"
)

// Processor is the machine's name for its processor, or the architecture where it has none.
func Processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH // no /proc here
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t :\n")
		}
	}
	return runtime.GOARCH
}
