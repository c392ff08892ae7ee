//go:build !linux

package ffmpeg

import (
	"os"
	"runtime"
	"syscall"
)

// groupAttr makes the child lead a group of its own.
func groupAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// limit does nothing: no other system sets the limits of a running child.
func limit(int, Limits) error { return nil }

// await reaps the process and closes exited.
func (p *process) await() {
	defer close(p.exited)
	p.waited = p.cmd.Wait()
}

// wait returns what await found.
func (p *process) wait() error { return p.waited }

// residentMemory is not known without /proc.
func residentMemory(int) (now, peak int64) { return 0, 0 }

// peakRSS is the kernel's figure: bytes on macOS, kilobytes elsewhere.
func peakRSS(state *os.ProcessState, _ int64) int64 {
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		return int64(usage.Maxrss)
	}
	return int64(usage.Maxrss) << 10
}
