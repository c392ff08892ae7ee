package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// leaveProgram gives back the memory that holds this program's own code and constants: what is
// needed again is read again, from the kernel's cache. To start takes most of the program, to
// ship lines little of it, and the kernel counts the pages around each that was touched, too.
// It is only an economy: where it does not work, nothing is said.
func leaveProgram() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close() // it is only read
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to, offset, inode uintptr
		var mode, device string
		line := lines.Text()
		// Only what nobody can write to is the same in the file.
		if n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d", &from, &to, &mode, &offset, &device, &inode); n == 6 &&
			mode[:2] == "r-" && mode[3] == 'p' && strings.HasSuffix(line, " "+self) {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED)
		}
	}
}
