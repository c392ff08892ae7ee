package natsserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"myrmidon/internal/testkit/program"
)

// saidLimit is how much of a server's output is kept, bytes.
const saidLimit = 256 << 10

// child is a program that is started again and again: one life at a time.
type child struct {
	said output

	mu     sync.Mutex // held for the whole of each change
	life   *life      // the last one; nil before the first
	paused bool
}

// life is one process.
type life struct {
	process *os.Process
	done    chan struct{} // closed when the process is reaped
	err     error         // how it ended; to be read after done
	told    bool          // its end was ours, or has been reported
}

func (c *child) current() *life {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.life
}

func (c *child) running() bool {
	l := c.current()
	return l != nil && l.alive()
}

func (c *child) pid() int {
	if l := c.current(); l != nil && l.alive() {
		return l.process.Pid
	}
	return 0
}

func (l *life) alive() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// ended is closed when the present life is over; it blocks forever if there was none.
func (c *child) ended() <-chan struct{} {
	if l := c.current(); l != nil {
		return l.done
	}
	return nil
}

// verdict says how a life that is over ended.
func (c *child) verdict() error {
	l := c.current()
	if l == nil || l.alive() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l.told = true
	return l.how()
}

func (l *life) how() error {
	if l.err == nil {
		return errors.New("exit status 0")
	}
	return l.err
}

// start begins a life. The process dies with this one (on Linux).
func (c *child) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life != nil && c.life.alive() {
		return fmt.Errorf("process %d runs already", c.life.process.Pid)
	}
	cmd.Stdout, cmd.Stderr = &c.said, &c.said
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = time.Second
	l := &life{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent whose death ends the child is this thread: it is held for its life.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		l.process = cmd.Process
		started <- err
		if err != nil {
			return
		}
		l.err = cmd.Wait()
		close(l.done)
	}()
	if err := <-started; err != nil {
		return err
	}
	c.life, c.paused = l, false
	return nil
}

// stop asks the process to end, and kills it if it does not.
func (c *child) stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.life
	if l == nil || !l.alive() {
		return c.unexpected()
	}
	l.told = true
	if err := errors.Join(l.signal(syscall.SIGTERM), l.signal(syscall.SIGCONT)); err != nil {
		return err
	}
	select {
	case <-l.done:
		return l.err
	case <-time.After(stopTimeout):
	}
	return errors.Join(fmt.Errorf("process %d still ran %v after SIGTERM", l.process.Pid, stopTimeout), l.kill())
}

// kill ends the process at once.
func (c *child) kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.life
	if l == nil || !l.alive() {
		return c.unexpected()
	}
	l.told = true
	return l.kill()
}

// unexpected reports, once, that the process ended by itself. c.mu is held.
func (c *child) unexpected() error {
	if l := c.life; l != nil && !l.told {
		l.told = true
		return fmt.Errorf("it had died by itself: %w", l.how())
	}
	return nil
}

// pause returns when the process stands still.
func (c *child) pause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.life
	if l == nil || !l.alive() {
		return os.ErrProcessDone
	}
	if c.paused {
		return nil
	}
	if err := l.process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	c.paused = true
	return program.AwaitStopped(l.process.Pid)
}

func (c *child) resume() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.life
	if l == nil || !l.alive() {
		return os.ErrProcessDone
	}
	c.paused = false
	return l.process.Signal(syscall.SIGCONT)
}

// kill returns when the process is reaped.
func (l *life) kill() error {
	if err := l.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-l.done
	return nil
}

// signal is none for a process that has just ended.
func (l *life) signal(s syscall.Signal) error {
	if err := l.process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// output keeps the last saidLimit bytes of what is written to it.
type output struct {
	mu   sync.Mutex
	data []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data = append(o.data, p...)
	if len(o.data) > 2*saidLimit {
		o.data = append([]byte(nil), o.data[len(o.data)-saidLimit:]...)
	}
	return len(p), nil
}

func (o *output) String() string { return o.tail(saidLimit) }

// tail returns the last n bytes at most.
func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.data[max(0, len(o.data)-n):])
}
