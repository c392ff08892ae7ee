package ffmpeg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"myrmidon"
)

// fake returns tools whose ffmpeg is a shell script.
func fake(t *testing.T, body string) *Tools {
	t.Helper()
	dir := t.TempDir()
	return &Tools{
		FFmpeg:  script(t, filepath.Join(dir, "ffmpeg"), body),
		FFprobe: script(t, filepath.Join(dir, "ffprobe"), body),
	}
}

// fifo makes a named pipe and returns its path and a reader of its first line. A
// script says through it that it is there.
func fifo(t *testing.T) (path string, line func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
}

func alive(pid string) bool {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return false
	}
	return syscall.Kill(n, 0) == nil && state(n) != "Z"
}

// state is a process's state letter on Linux; "" if it is gone.
func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return after[:1]
}

func TestRunReportsFramesAndUsage(t *testing.T) {
	tl := tools(t)
	var reports atomic.Int64
	var last atomic.Value
	ctx := myrmidon.WithProgress(t.Context(), func(a myrmidon.Amount) { reports.Add(1); last.Store(a) })
	dir := t.TempDir()
	out, err := tl.Run(ctx, Command{
		Args: append(Container{Name: "mov"}.Input(sample(t)), "-map", "0:v", "-c:v", "libx264", "-threads", "1", "out.mp4"),
		Dir:  dir, Frames: 72,
		Limits: Limits{Memory: 1 << 30, FileSize: 1 << 30, CPU: time.Minute, OpenFiles: 64},
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.Frames != 72 || out.CPU <= 0 || out.PeakRSS < 10<<20 || out.Damaged != 0 || !out.End.After(out.Start) {
		t.Errorf("got %+v", out)
	}
	if a, ok := last.Load().(myrmidon.Amount); !ok || a.Done != 72 || a.Total != 72 {
		t.Errorf("the last of %d reports is %+v", reports.Load(), a)
	}
	if _, err := os.Stat(filepath.Join(dir, "out.mp4")); err != nil {
		t.Errorf("the working directory is not Dir: %v", err)
	}
}

// It ends while nobody looks: what it printed last is reported all the same.
func TestTheLastReportIsOfAllFrames(t *testing.T) {
	tl := fake(t, `echo frame=1 >&3; echo progress=continue >&3; echo frame=72 >&3; echo progress=end >&3`)
	for range 8 {
		var last myrmidon.Amount
		ctx := myrmidon.WithProgress(t.Context(), func(a myrmidon.Amount) {
			last = a
			time.Sleep(20 * time.Millisecond)
		})
		if _, err := tl.Run(ctx, Command{Dir: t.TempDir(), Frames: 72}); err != nil || last.Done != 72 || last.Total != 72 {
			t.Errorf("the last report is %+v, %v", last, err)
		}
	}
}

func TestRunPeakMemoryIsNotOurs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ru_maxrss is inherited on Linux only")
	}
	tl := tools(t)
	ballast := make([]byte, 300<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	// It goes on until it was looked at.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := tl.Run(myrmidon.WithProgress(ctx, func(a myrmidon.Amount) {
		if a.RSS >= 10<<20 {
			cancel()
		}
	}), Command{
		Args: append([]string{"-stream_loop", "-1"}, append(Container{Name: "mov"}.Input(sample(t)), "-f", "null", "-")...), Dir: t.TempDir(),
	})
	runtime.KeepAlive(ballast)
	if !errors.Is(err, context.Canceled) || out.PeakRSS > 200<<20 || out.PeakRSS < 10<<20 {
		t.Errorf("peak %d MiB, %v; want that of a small decode", out.PeakRSS>>20, err)
	}
}

func TestRunGivesTheChildNothingItDoesNotNeed(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("LD_LIBRARY_PATH", "")
	var out bytes.Buffer
	dir := t.TempDir()
	tl := fake(t, `env; echo "args: $*"; if read x; then echo "stdin: $x"; fi`)
	if _, err := tl.Run(t.Context(), Command{Args: []string{"a b", "$HOME;`id`"}, Dir: dir, Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for line := range strings.Lines(got) {
		name, _, ok := strings.Cut(line, "=")
		switch name {
		case "LC_ALL", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_": // the last four are the shell's own
		default:
			if ok && !strings.HasPrefix(line, "args:") {
				t.Errorf("the child sees %q", line)
			}
		}
	}
	for _, want := range []string{"TMPDIR=" + dir, "args: -nostdin -hide_banner ", " a b $HOME;`id`\n", "-progress pipe:3"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in what the child saw:\n%s", want, got)
		}
	}
	if strings.Contains(got, "stdin:") {
		t.Error("the child has a standard input")
	}
}

func TestRunKillsTheWholeGroupWhenItsContextEnds(t *testing.T) {
	path, line := fifo(t)
	tl := fake(t, `sleep 600 & echo $! > `+path+`; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := tl.Run(ctx, Command{Dir: t.TempDir()})
		done <- err
	}()
	grandchild := line()
	if !alive(grandchild) {
		t.Fatalf("grandchild %q does not run", grandchild)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	// It has closed its pipes, or Run would not have returned; the rest of its death
	// is the kernel's.
	await(t, func() bool { return !alive(grandchild) })
}

func TestRunKillsWhatOutlivesTheProgram(t *testing.T) {
	path, line := fifo(t)
	tl := fake(t, `sleep 600 & echo $! > `+path+`; exit 0`)
	done := make(chan error, 1)
	go func() {
		_, err := tl.Run(t.Context(), Command{Dir: t.TempDir(), Stdout: io.Discard})
		done <- err
	}()
	grandchild := line()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// It has closed its pipes, or Run would not have returned; the rest of its death
	// is the kernel's.
	await(t, func() bool { return !alive(grandchild) })
}

// await polls for what no channel tells: another process's state.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("waited a minute in vain")
		}
	}
}

// TestChildDiesWithItsParent kills a copy of this test binary that runs a fake ffmpeg.
func TestChildDiesWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a parent-death signal")
	}
	const key = "MYRMIDON_TEST_PARENT"
	if path := os.Getenv(key); path != "" {
		tl := fake(t, `echo $$ > `+path+`; exec sleep 600`)
		_, err := tl.Run(t.Context(), Command{Dir: t.TempDir()})
		t.Fatalf("the run ended: %v", err)
	}
	path, line := fifo(t)
	parent := exec.Command(os.Args[0], "-test.run=^TestChildDiesWithItsParent$")
	// It leaves its folders behind, so they are within one of ours.
	parent.Env = append(os.Environ(), key+"="+path, "TMPDIR="+t.TempDir())
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	child := line()
	if !alive(child) {
		t.Fatalf("the child %q does not run", child)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed, as was said
	await(t, func() bool { return !alive(child) })
}

func TestRunLimits(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux limits a child from outside")
	}
	tl := tools(t)
	source := func(size, frames string) []string {
		return []string{"-f", "lavfi", "-i", "testsrc2=r=24:s=" + size, "-frames:v", frames, "-c:v", "libx264", "-preset", "medium", "-threads", "1"}
	}
	tests := []struct {
		name   string
		args   []string
		limits Limits
		want   string
	}{
		{"memory", append(source("3840x2160", "100"), "-f", "null", "-"), Limits{Memory: 150 << 20}, "limit of 150 MiB of memory"},
		{"file size", append(source("640x360", "500"), "-qp", "1", "-f", "mpegts", "big.ts"), Limits{FileSize: 100 << 10}, "limit of 102400 bytes"},
		{"CPU", append(source("1920x1080", "100000"), "-f", "null", "-"), Limits{CPU: time.Second}, "limit of 1s of CPU"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, err := tl.Run(t.Context(), Command{Args: test.args, Dir: t.TempDir(), Limits: test.limits})
			if err == nil || !strings.Contains(err.Error(), test.want) || !myrmidon.IsPermanent(err) {
				t.Errorf("got %v, want a permanent error with %q", err, test.want)
			}
			t.Log(err, out.CPU)
		})
	}
}

// The kernel counts CPU time for the limit differently from what it reports.
func TestAKillIsTheLimitsIfMostOfItWasUsed(t *testing.T) {
	p := &process{name: "ffmpeg"}
	for _, test := range []struct {
		limit, used time.Duration
		its         bool
	}{
		{time.Second, 600 * time.Millisecond, true},
		{time.Second, 400 * time.Millisecond, false},
		{time.Hour, 55 * time.Minute, true},
		{time.Hour, 50 * time.Minute, false},
		{0, time.Hour, false},
		{300 * time.Millisecond, 100 * time.Millisecond, false}, // such a limit is 1 s
	} {
		err := p.killed(syscall.SIGKILL, Limits{CPU: test.limit}, Outcome{CPU: test.used})
		if its := strings.Contains(err.Error(), "of CPU time"); its != test.its || myrmidon.IsPermanent(err) != test.its {
			t.Errorf("%v of %v: %v", test.used, test.limit, err)
		}
	}
}

func TestRunExplainsFailures(t *testing.T) {
	say := func(lines ...string) string {
		return "cat >&2 <<'EOF'\n" + strings.Join(lines, "\n") + "\nEOF\nexit 1"
	}
	tests := []struct {
		name, script, want string
		permanent          bool
		is                 error
	}{
		{
			"a full disk", say("[out#0/mp4 @ 0x55d] [error] Error writing trailer: No space left on device"),
			"ffmpeg: Error writing trailer: no space left on device", true, syscall.ENOSPC,
		},
		{
			"a full disk with status 0", "echo '[error] av_interleaved_write_frame(): No space left on device' >&2; exit 0",
			"no space left", true, syscall.ENOSPC,
		},
		{"no permission", say("[error] /x/y.mp4: Permission denied"), "ffmpeg: /x/y.mp4: permission denied", true, fs.ErrPermission},
		{"no file", say("[error] file:/x.mp4: No such file or directory"), "/x.mp4: file does not exist", true, fs.ErrNotExist},
		{"no media", say("[mov @ 0x1] [error] moov atom not found", "[error] x.mp4: Invalid data found when processing input"), "ffmpeg: moov atom not found", true, nil},
		{
			"the first error, without its address", say("[libx264 @ 0x5581] [warning] hm", "[libx264 @ 0x5581] [error] broken ffmpeg default settings", "[error] Conversion failed!"),
			"ffmpeg: broken ffmpeg default settings (exit status 1)", false, nil,
		},
		{"silence", "exit 7", "exit status 7 and said nothing", false, nil},
		{"a kill from outside", "kill -9 $$", "ffmpeg was killed (out of memory?)", false, nil},
		{"a crash", "kill -SEGV $$", "ffmpeg crashed (segmentation fault)", false, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := fake(t, test.script).Run(t.Context(), Command{Dir: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), test.want) || myrmidon.IsPermanent(err) != test.permanent {
				t.Errorf("got %v (permanent %v), want %q (%v)", err, myrmidon.IsPermanent(err), test.want, test.permanent)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v does not wrap %v", err, test.is)
			}
		})
	}
}

func TestRunCountsDamage(t *testing.T) {
	tl := tools(t)
	b := bytes.Clone(read(t, sample(t)))
	for i := 3000; i < 30000; i += 1500 { // within the mdat
		b[i] ^= 0xff
	}
	path := write(t, filepath.Join(t.TempDir(), "rotten.mp4"), b)
	out, err := tl.Run(t.Context(), Command{Args: append(Container{Name: "mov"}.Input(path), "-f", "null", "-"), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if out.Damaged == 0 || len(out.Damage) == 0 || len(out.Damage) > maxDamage || len(out.Log) > maxLog {
		t.Errorf("%d complaints, %d kept, %d lines", out.Damaged, len(out.Damage), len(out.Log))
	}
	for _, line := range out.Damage {
		if strings.Contains(line, "0x") {
			t.Errorf("an address is in %q", line)
		}
	}
}

func TestRunStopsWhenItsOutputCannotBeTaken(t *testing.T) {
	full := errors.New("the bucket is full")
	tl := fake(t, `while :; do echo 0123456789; done`)
	_, err := tl.Run(t.Context(), Command{Dir: t.TempDir(), Stdout: failing{full}})
	if !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestRunSaysWhatCannotBeStarted(t *testing.T) {
	tl := &Tools{FFmpeg: filepath.Join(t.TempDir(), "gone"), FFprobe: script(t, filepath.Join(t.TempDir(), "ffprobe"), "")}
	if _, err := tl.Run(t.Context(), Command{Dir: t.TempDir()}); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
		t.Errorf("got %v", err)
	}
	if _, err := tl.Run(t.Context(), Command{}); err == nil {
		t.Error("it runs without a private folder")
	}
}

func FuzzStderr(f *testing.F) {
	f.Add([]byte("[h264 @ 0x55d] [error] error while decoding MB 3 4\nx"), 10)
	f.Add(bytes.Repeat([]byte("long"), 300), 700)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		one, two := new(stderrLog), new(stderrLog)
		at = min(max(at, 0), len(b))
		for _, w := range []struct {
			log *stderrLog
			b   []byte
		}{{one, b}, {two, b[:at]}, {two, b[at:]}} {
			if n, err := w.log.Write(w.b); n != len(w.b) || err != nil {
				t.Fatalf("wrote %d of %d: %v", n, len(w.b), err)
			}
		}
		one.close()
		two.close()
		if a, b := strings.Join(one.tail(), "\n"), strings.Join(two.tail(), "\n"); a != b || one.damaged != two.damaged || one.reason() != two.reason() {
			t.Errorf("in one piece:\n%s\nin two:\n%s", a, b)
		}
		if len(one.damage) > maxDamage || len(one.tail()) > maxLog {
			t.Error("too much is kept")
		}
	})
}
