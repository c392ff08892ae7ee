package machine

import (
	"os"
	"runtime"
	"syscall"
)

// Peak is the most that a process which has ended had in memory at once, in bytes; 0 if
// that cannot be told.
func Peak(of *os.ProcessState) int64 {
	u, ok := of.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return resident(u)
}

// OwnPeak is that of this process until now.
func OwnPeak() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return resident(&u)
}

// resident is ru_maxrss: kibibytes, but bytes on macOS.
func resident(u *syscall.Rusage) int64 {
	if runtime.GOOS == "darwin" {
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) << 10
}
