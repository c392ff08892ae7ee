package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"myrmidon"
)

// defaultStall is how long a process may make no progress before it is killed. The
// slowest honest pause is a seek through an unindexed file on a slow disk.
const defaultStall = 2 * time.Minute

// Command is one run of ffmpeg or ffprobe.
type Command struct {
	// Probe runs ffprobe rather than ffmpeg.
	Probe bool
	// Args are inputs, filters and outputs, one argument an element. Run puts the
	// options for logging, progress and standard input before them.
	Args []string
	// Dir is a folder of the run's own: working directory and TMPDIR.
	Dir string
	// Stdout gets what the process prints, from another goroutine, which has ended
	// when Run returns. An error of it ends the run. Nil discards.
	Stdout io.Writer
	// Media is what Args read from, if that is served: see [Serve]. The run ends when its
	// bytes cannot be had, with that error. One run at a time reads a Media.
	Media *Media
	// Frames is how many frames the first video output will have: the total that
	// progress is reported against. With 0, progress is reported without a count.
	Frames int64
	Limits Limits
	// Stall is how long the process may make no progress before it is killed: no
	// frame, no time stamp, no byte of output, no byte taken of what is served. 0 means
	// two minutes. Time in which the run is paused does not count.
	Stall time.Duration
}

// Limits bound one process; zero means no limit. They are enforced by the kernel
// on Linux, and not at all on other systems, which cannot limit a child from outside.
type Limits struct {
	// Memory bounds private writable memory (RLIMIT_DATA), bytes. Mapped libraries
	// and reserved address space, of which ffmpeg has plenty, do not count.
	Memory int64
	// FileSize bounds each file that is written, bytes.
	FileSize int64
	// CPU bounds user and system time; it is rounded up to whole seconds.
	CPU time.Duration
	// OpenFiles bounds file descriptors. Debian's ffmpeg needs about 20.
	OpenFiles int64
}

// Outcome is what a run used and said. It is filled in also when Run fails.
type Outcome struct {
	CPU time.Duration // user and system time
	// PeakRSS is the most memory that was resident, bytes. Where the kernel's figure
	// may be our own process's (see peakRSS), it is the largest that was sampled.
	PeakRSS int64
	Start   time.Time // UTC
	End     time.Time // UTC
	Frames  int64     // of the first video output, as -progress counted them last
	Damage  []string  // complaints about the input's content, the first 20
	Damaged int       // how many complaints there were
	Log     []string  // the last 40 lines of standard error
}

// Run runs c to its end and says how it went. Exit status 0 is not success by
// itself: ffmpeg ends so after half of a cut-off file. Compare Outcome.Frames, or
// better what the outputs hold, with what was expected.
//
// The process gets no environment but TMPDIR, LC_ALL and the library path, no
// standard input, a process group of its own, and the limits. When ctx ends the whole
// group is killed, and Run returns when the last of it has closed its pipes; when this process
// dies, the kernel kills ffmpeg (on Linux). While ctx's [myrmidon.Gate] is shut the
// group is stopped. Progress goes to [myrmidon.Progress].
//
// Errors: ctx's; why Media could not be read; permanent ones for a full disk (wrapping ENOSPC), missing
// permission (fs.ErrPermission), a missing file (fs.ErrNotExist), a limit that was
// reached, and input that is no media; a stalled or killed process is worth a retry.
// The text is ffmpeg's first meaningful line.
//
// Run may be called from many goroutines. Each call holds one operating-system thread.
func (t *Tools) Run(ctx context.Context, c Command) (Outcome, error) {
	gate := myrmidon.GateOf(ctx)
	if err := gate.Wait(ctx); err != nil {
		return Outcome{}, fmt.Errorf("ffmpeg: not started: %w", err)
	}
	if c.Stall <= 0 {
		c.Stall = defaultStall
	}
	// Pdeathsig is sent when the thread that forked ends, not the process, and the
	// Go runtime ends threads as it likes. Held for the child's life, this one stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	p, err := t.start(c)
	if err != nil {
		return Outcome{}, err
	}
	stalled := p.watch(ctx, gate, c)
	out, waitErr := p.reap()
	if c.Frames > 0 && ctx.Err() == nil {
		// What it printed last may have been read when it had ended.
		myrmidon.Progress(ctx, myrmidon.Amount{Done: min(out.Frames, c.Frames), Total: c.Frames})
	}

	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("%s was stopped: %w", p.name, ctx.Err())
	case c.Media.Err() != nil:
		// Whatever ffmpeg made of it, and be it a whole file: it has not seen all.
		err = fmt.Errorf("read %s: %w", c.Media.name, c.Media.Err())
	case stalled:
		err = fmt.Errorf("%s made no progress for %v and was killed%s", p.name, c.Stall, p.log.lastWords())
	case p.stdout.failed() != nil:
		err = fmt.Errorf("%s: take its output: %w", p.name, p.stdout.failed())
	default:
		err = p.verdict(c.Limits, out, waitErr)
	}
	return out, err
}

// process is one running child. Run's goroutine owns it; three more read its
// standard error, its progress, and (in os/exec) its standard output.
//
//	child ── fd 2 ──> stderrLog        lines, damage
//	      ── fd 3 ──> meter ── beat ─┐ frames, liveness
//	      ── fd 1 ──> tap ──── beat ─┴> watch (Run's goroutine)
//	      ── exit ──> exited ────────┘
type process struct {
	name    string // "ffmpeg" or "ffprobe"
	cmd     *exec.Cmd
	started time.Time
	exited  chan struct{} // closed when the leader is dead; it may not be reaped yet
	waited  error         // what Wait said
	beat    chan struct{} // cap 1: the process did something
	readers sync.WaitGroup
	pipe    *os.File // our end of the progress pipe; nil for ffprobe
	meter   *meter
	stdout  *tap
	log     *stderrLog
}

// start starts the program and everything that listens to it.
func (t *Tools) start(c Command) (*process, error) {
	p := &process{
		name:   "ffmpeg",
		exited: make(chan struct{}),
		beat:   make(chan struct{}, 1),
		log:    new(stderrLog),
	}
	program := t.FFmpeg
	args := []string{"-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+level+warning"}
	if c.Probe {
		p.name, program = "ffprobe", t.FFprobe
		args = []string{"-hide_banner", "-loglevel", "repeat+level+warning"}
	} else {
		args = append(args, "-progress", "pipe:3", "-stats_period", "0.25")
	}
	dir, err := filepath.Abs(c.Dir)
	if c.Dir == "" || err != nil {
		return nil, fmt.Errorf("ffmpeg: no private folder to run %s in", p.name)
	}
	p.meter = &meter{beat: p.beat}
	p.stdout = &tap{to: c.Stdout, beat: p.beat}
	p.cmd = exec.Command(program, append(args, c.Args...)...)
	p.cmd.Dir = dir
	p.cmd.Env = environment(dir)
	if served := c.Media.served(); served != nil {
		// A file that names another server is no reason to go there: see server.
		p.cmd.Env = append(p.cmd.Env, served.proxy())
		p.log.url, p.log.name = c.Media.url, c.Media.name
	}
	p.cmd.SysProcAttr = groupAttr()
	p.cmd.WaitDelay = 10 * time.Second
	p.cmd.Stderr = p.log
	if c.Stdout != nil {
		p.cmd.Stdout = p.stdout
	}
	if !c.Probe {
		read, write, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("ffmpeg: make a pipe for progress: %w", err)
		}
		p.cmd.ExtraFiles = []*os.File{write}
		defer write.Close()
		p.pipe = read
	}
	p.started = time.Now().UTC()
	if err := p.cmd.Start(); err != nil {
		if p.pipe != nil {
			p.pipe.Close()
		}
		return nil, startError(program, err)
	}
	p.meter.pid.Store(int64(p.cmd.Process.Pid))
	if err := limit(p.cmd.Process.Pid, c.Limits); err != nil {
		p.kill()
		_ = p.cmd.Wait() // it was killed just now: what it says is of no interest
		if p.pipe != nil {
			p.pipe.Close()
		}
		return nil, fmt.Errorf("ffmpeg: limit %s: %w", p.name, err)
	}
	if p.pipe != nil {
		p.readers.Go(func() { p.meter.read(p.pipe) })
	}
	go p.await()
	return p, nil
}

// startError says why program could not be started.
func startError(program string, err error) error {
	err = fmt.Errorf("ffmpeg: start %s: %w", program, err)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENOEXEC) {
		return unusable(err)
	}
	return err // out of processes or memory: that may pass
}

// environment is all that a child gets. LD_LIBRARY_PATH is kept because a build
// outside the system's folders (a Lambda layer) may find its libraries only so.
func environment(dir string) []string {
	env := []string{"LC_ALL=C", "TMPDIR=" + dir}
	if v := os.Getenv("LD_LIBRARY_PATH"); v != "" {
		env = append(env, "LD_LIBRARY_PATH="+v)
	}
	return env
}

// watch returns when the process is dead, killing it if ctx ends or it stalls. It
// stops and continues it as the gate says, and passes progress on.
func (p *process) watch(ctx context.Context, gate *myrmidon.Gate, c Command) (stalled bool) {
	stall := time.NewTimer(c.Stall)
	defer stall.Stop()
	stopped := false
	var broke <-chan struct{} // closed when what is read cannot be had
	if served := c.Media.served(); served != nil {
		broke = served.broke
		served.listen(p.beat)
		defer served.listen(nil)
	}
	for {
		shut, changed := gate.State()
		if shut != stopped {
			stopped = shut
			if shut {
				p.signal(syscall.SIGSTOP)
				stall.Stop()
			} else {
				p.signal(syscall.SIGCONT)
				stall.Reset(c.Stall)
			}
		}
		select {
		case <-p.exited:
			return false
		case <-ctx.Done():
			p.kill()
			<-p.exited
			return false
		case <-stall.C:
			// Who looks late, since this process was stopped itself, finds the time over and
			// a sign of life.
			if now, _ := gate.State(); now != stopped || len(p.beat) > 0 {
				stall.Reset(c.Stall)
				continue
			}
			p.kill()
			<-p.exited
			return true
		case <-broke:
			p.kill()
			<-p.exited
			return false
		case <-changed:
		case <-p.beat:
			if !stopped {
				stall.Reset(c.Stall)
			}
			a := myrmidon.Amount{RSS: p.meter.rss.Load()}
			if c.Frames > 0 {
				a.Done, a.Total = min(p.meter.frames.Load(), c.Frames), c.Frames
			}
			myrmidon.Progress(ctx, a)
		}
	}
}

// signal sends s to the whole group. It is called only before the leader is reaped
// (on Linux), so that the group's number cannot have passed to another.
func (p *process) signal(s syscall.Signal) {
	// ESRCH means that the group is gone, which is what a kill wants anyway.
	_ = syscall.Kill(-p.cmd.Process.Pid, s)
}

func (p *process) kill() { p.signal(syscall.SIGKILL) }

// reap collects the dead process and what it left, and waits for its readers.
func (p *process) reap() (Outcome, error) {
	p.signal(syscall.SIGKILL) // children that outlived the leader hold pipes and files
	err := p.wait()
	if p.pipe != nil {
		// A child that has left the group may still hold the other end. As with the
		// standard streams, nobody waits for that.
		_ = p.pipe.SetReadDeadline(time.Now().Add(p.cmd.WaitDelay)) // never refused for a pipe of os.Pipe
		p.readers.Wait()
		p.pipe.Close()
	}
	p.log.close()
	out := Outcome{
		Start:   p.started,
		End:     time.Now().UTC(),
		Frames:  p.meter.frames.Load(),
		Damage:  p.log.damage,
		Damaged: p.log.damaged,
		Log:     p.log.tail(),
	}
	if state := p.cmd.ProcessState; state != nil {
		out.CPU = state.UserTime() + state.SystemTime()
		out.PeakRSS = peakRSS(state, p.meter.peak.Load())
	}
	return out, err
}

// tap passes standard output on, notes the first error and counts as a sign of life.
type tap struct {
	to   io.Writer
	beat chan<- struct{}
	mu   sync.Mutex
	err  error
}

func (t *tap) Write(b []byte) (int, error) {
	pulse(t.beat)
	n, err := t.to.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.err = err
	}
	return n, err
}

func (t *tap) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// pulse leaves a mark in beat unless one is waiting there.
func pulse(beat chan<- struct{}) {
	select {
	case beat <- struct{}{}:
	default:
	}
}
