package engine

import (
	"sync"
	"syscall"
	"time"
)

// Meter shares the CPU time of this process, without its children, among the runs that
// it owns: each tick's time is divided evenly among those under way. One Meter serves
// all runs of a process; the zero Meter is ready.
type Meter struct {
	mu     sync.Mutex
	last   time.Duration
	active map[*Run]time.Duration
}

// processCPU is the user and system time of this process (getrusage(2)).
func processCPU() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0 // only possible for a bad argument
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func (m *Meter) settle() {
	now := processCPU()
	if n := len(m.active); n > 0 {
		share := (now - m.last) / time.Duration(n)
		for r := range m.active {
			m.active[r] += share
		}
	}
	m.last = now
}

func (m *Meter) join(r *Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.active == nil
	if first {
		m.active = make(map[*Run]time.Duration)
	}
	m.settle()
	m.active[r] = 0
	if first {
		m.active[r] = m.last // the first run pays for the start of the process
	}
}

// take returns the time that r has used since the last take.
func (m *Meter) take(r *Run) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle()
	d, ok := m.active[r]
	if ok { // a run that has left takes no share from the others
		m.active[r] = 0
	}
	return d
}

func (m *Meter) leave(r *Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle()
	delete(m.active, r)
}
