package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// process is a worker or an owner: one life at a time.
type process struct {
	name    string
	command func() *exec.Cmd
	log     string // file that all lives write to

	mu   sync.Mutex
	last *life // nil before the first
	// ends are how lives have ended by themselves: nobody killed them.
	ends []error
}

type life struct {
	process *os.Process
	done    chan struct{} // closed when it is reaped
	err     error         // to be read after done
	ours    bool          // its end is our doing; guarded by process.mu
}

func (l *life) alive() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// start begins a life, unless there is one.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last != nil && p.last.alive() {
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("torture: start %s: %w", p.name, err)
	}
	cmd := p.command()
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, ownGroup()
	l := &life{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent whose death ends the child is this thread: it is held for its life.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := errors.Join(cmd.Start(), log.Close())
		l.process = cmd.Process
		started <- err
		if err != nil {
			return
		}
		err = cmd.Wait()
		p.mu.Lock()
		l.err = err
		if !l.ours {
			p.ends = append(p.ends, err)
		}
		p.mu.Unlock()
		close(l.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("torture: start %s: %w", p.name, err)
	}
	p.last = l
	return nil
}

// signal sends sig to the present life; ours says that it is meant to end by it. The
// result is nil where none runs.
func (p *process) signal(sig syscall.Signal, ours bool) (*life, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.last
	if l == nil || !l.alive() {
		return nil, nil
	}
	l.ours = l.ours || ours
	if err := l.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("torture: %s to %s: %w", sig, p.name, err)
	}
	return l, nil
}

// kill ends the present life at once; false if there was none.
func (p *process) kill() (bool, error) {
	l, err := p.signal(syscall.SIGKILL, true)
	if l == nil || err != nil {
		return false, err
	}
	<-l.done
	return true, nil
}

func (p *process) pause() (bool, error) {
	l, err := p.signal(syscall.SIGSTOP, false)
	return l != nil, err
}

func (p *process) resume() error {
	_, err := p.signal(syscall.SIGCONT, false)
	return err
}

// drain asks the present life to end in good order. Its end counts as one by itself: see
// ended. The error says that it does not end.
func (p *process) drain(within time.Duration) error {
	l, err := p.signal(syscall.SIGTERM, false)
	if l == nil || err != nil {
		return err
	}
	select {
	case <-l.done:
		return nil
	case <-time.After(within):
		return fmt.Errorf("torture: %s still runs %v after it was asked to end", p.name, within)
	}
}

// ended returns how lives have ended by themselves.
func (p *process) ended() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]error(nil), p.ends...)
}
