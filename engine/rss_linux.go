package engine

import (
	"bytes"
	"os"
	"strconv"
)

// ownRSS is the resident memory of this process in bytes (proc(5), statm: pages).
func ownRSS() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0 // no /proc here: memory stays unknown
	}
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
