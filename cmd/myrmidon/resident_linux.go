package main

import (
	"bytes"
	"log/slog"
	"os"
	"strconv"
	"syscall"
)

// giveBackPages lets the kernel take back those pages of the program's own file that were read so
// far. Most are of the beginning of packages that this command never calls: 8 of 17 MB that would
// be counted as resident while it runs. What is needed again is mapped again, from memory. It takes
// some 2 ms, so it is for commands that run for long.
func giveBackPages(log *slog.Logger) {
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		log.Debug("the program's own file stays resident", "err", err)
		return
	}
	for _, m := range cleanFiles(maps) {
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED); errno != 0 {
			log.Debug("the program's own file stays resident", "err", errno)
		}
	}
}

// extent is a part of the address space.
type extent struct{ start, end uintptr }

// cleanFiles returns the mappings of files, as proc_pid_smaps(5) has them, that cannot be written
// and have no page of which there is no copy in the file. A loader may have written to others before
// it forbade that.
func cleanFiles(smaps []byte) (out []extent) {
	var m extent
	file := false
	for line := range bytes.Lines(smaps) {
		fields := bytes.Fields(line)
		switch {
		case len(fields) < 2:
		case fields[0][len(fields[0])-1] != ':': // the first line of a mapping
			var ok bool
			m, ok = parseExtent(fields[0])
			file = ok && len(fields) == 6 && fields[1][0] == 'r' && fields[1][1] == '-' && fields[5][0] == '/'
		case file && string(fields[0]) == "Anonymous:" && string(fields[1]) == "0":
			out = append(out, m)
		}
	}
	return out
}

// parseExtent parses 00400000-011aa000.
func parseExtent(text []byte) (e extent, ok bool) {
	from, to, _ := bytes.Cut(text, []byte("-"))
	start, err1 := strconv.ParseUint(string(from), 16, 64)
	end, err2 := strconv.ParseUint(string(to), 16, 64)
	return extent{uintptr(start), uintptr(end)}, err1 == nil && err2 == nil && start < end
}
