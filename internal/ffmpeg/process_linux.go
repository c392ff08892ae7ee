package ffmpeg

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// groupAttr makes the child lead a group of its own and die with this process.
func groupAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// limit sets the limits of a process that was just started. os/exec cannot set them
// between fork and exec, so this comes right after exec: while the dynamic linker
// still maps libraries, and long before a byte of input is read. (Stopping the child
// at exec with ptrace would close even that gap, and is forbidden in many containers.)
func limit(pid int, l Limits) error {
	cpu := int64(0)
	if l.CPU > 0 {
		cpu = int64((l.CPU + time.Second - 1) / time.Second)
	}
	for _, r := range []struct {
		name     string
		resource int
		most     int64
		set      bool
	}{
		{"core dumps", unix.RLIMIT_CORE, 0, true},
		{"memory", unix.RLIMIT_DATA, l.Memory, l.Memory > 0},
		{"file size", unix.RLIMIT_FSIZE, l.FileSize, l.FileSize > 0},
		{"CPU time", unix.RLIMIT_CPU, cpu, cpu > 0},
		{"open files", unix.RLIMIT_NOFILE, l.OpenFiles, l.OpenFiles > 0},
	} {
		if !r.set {
			continue
		}
		var old unix.Rlimit
		err := unix.Prlimit(pid, r.resource, nil, &old)
		if err == nil {
			// Without privileges a hard limit can only be lowered. Soft and hard are
			// the same: ffmpeg would catch SIGXCPU and go on for a while.
			most := min(uint64(r.most), old.Max)
			err = unix.Prlimit(pid, r.resource, &unix.Rlimit{Cur: most, Max: most}, nil)
		}
		if errors.Is(err, unix.ESRCH) {
			return nil // it has ended already
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// await closes exited when the leader is dead, and leaves it a zombie: until it is
// reaped its number, and so its group's, belongs to nobody else.
func (p *process) await() {
	defer close(p.exited)
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// wait reaps the dead process.
func (p *process) wait() error {
	p.waited = p.cmd.Wait()
	return p.waited
}

// residentMemory reads VmRSS and VmHWM of a process, bytes; 0 if it is gone.
func residentMemory(pid int) (now, peak int64) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			now = kilobytes(v)
		} else if v, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			peak = kilobytes(v)
		}
	}
	return now, peak
}

// kilobytes parses "  1234 kB".
func kilobytes(v []byte) int64 {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(v), []byte("kB")))), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>10 {
		return 0
	}
	return n << 10
}

// peakRSS chooses between the kernel's figure and the largest that was sampled.
// ru_maxrss is inherited across exec: a child that was forked by sharing our memory,
// as Go does, starts with our own peak (setmax_mm_hiwater_rss in the kernel's
// exec_mmap). So the figure is the child's own only where it is above ours.
func peakRSS(state *os.ProcessState, sampled int64) int64 {
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return sampled
	}
	most := usage.Maxrss << 10
	if _, ours := residentMemory(os.Getpid()); most > ours || sampled == 0 {
		return most
	}
	return sampled
}
