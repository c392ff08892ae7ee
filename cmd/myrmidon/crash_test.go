package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon/engine"
	"myrmidon/internal/testkit/long"
)

// shop is a folder with a program, a film and an ffmpeg that writes down each call.
type shop struct {
	t                         *testing.T
	dir, program, film, calls string
	held                      string // while this file is there, encoders wait before they begin
}

func newShop(t *testing.T, seconds int) *shop {
	t.Helper()
	program, err := exec.LookPath("myrmidon") // TestMain puts it there
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &shop{t: t, dir: dir, program: program, calls: filepath.Join(dir, "calls"), held: filepath.Join(dir, "held")}
	s.film = clip(t, dir, "film.mp4", seconds)
	if err := os.WriteFile(filepath.Join(dir, "small.yaml"), []byte(smallLadder), 0o600); err != nil {
		t.Fatal(err)
	}
	// The environment of ffmpeg is empty, so the place of the list is in the script.
	tools := filepath.Join(dir, "tools")
	for _, d := range []string{s.calls, filepath.Join(dir, "tmp")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ffmpeg", "ffprobe"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%v (make test installs ffmpeg)", err)
		}
		// A folder for each call: what the program limits is the size of files.
		script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *libx264*-map*|*'-c:a aac'*) mkdir '%s'/$$; while [ -e '%s' ]; do sleep 0.05; done ;; esac\nexec %s \"$@\"\n", s.calls, s.held, real)
		if err := os.MkdirAll(tools, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tools, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// command is the program in the shop, with state and output below the folder named run.
func (s *shop) command(run string, args ...string) *exec.Cmd {
	c := exec.Command(s.program, args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "MYRMIDON_FFMPEG="+filepath.Join(s.dir, "tools"), "MYRMIDON_STATE="+filepath.Join(s.dir, run, "state"), "MYRMIDON_SLOTS=2", "TMPDIR="+filepath.Join(s.dir, "tmp"))
	return c
}

func (s *shop) transcode(run string) *exec.Cmd {
	return s.command(run, "transcode", s.film, "--to", filepath.Join(s.dir, run, "out"), "--product", "small.yaml", "-q")
}

// hold lets no encoder begin until release: whoever is caught at work has not ended meanwhile.
func (s *shop) hold() {
	s.t.Helper()
	if err := os.WriteFile(s.held, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) release() {
	s.t.Helper()
	if err := os.Remove(s.held); err != nil {
		s.t.Fatal(err)
	}
}

// encodes counts the calls of ffmpeg that encoded something so far.
func (s *shop) encodes() int {
	s.t.Helper()
	entries, err := os.ReadDir(s.calls)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}

// tree returns the published files with their hashes, without what a run keeps for itself.
func (s *shop) tree(run string) map[string]string {
	s.t.Helper()
	out := make(map[string]string)
	root := filepath.Join(s.dir, run, "out")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		out[rel] = fmt.Sprintf("%x", sha256.Sum256(data))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *shop) sameTree(what, got, want string) {
	s.t.Helper()
	g, w := s.tree(got), s.tree(want)
	for name, sum := range w {
		if g[name] != sum {
			s.t.Errorf("%s: %s differs from a run that nothing happened to (have it: %v)", what, name, g[name] != "")
		}
	}
	for name := range g {
		if w[name] == "" {
			s.t.Errorf("%s: %s is left over", what, name)
		}
	}
}

// items returns how often each item is in the newest run's evidence.
func (s *shop) items(run string) map[string]int {
	s.t.Helper()
	state, err := engine.OpenState(filepath.Join(s.dir, run, "state"))
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := state.Find("latest")
	if err != nil {
		s.t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(s.dir, run, "state", "runs", d.RunID(), "items.jsonl"))
	if err != nil {
		s.t.Fatal(err)
	}
	out := make(map[string]int)
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		var it engine.ItemReport
		if err := json.Unmarshal(sc.Bytes(), &it); err != nil {
			s.t.Fatal(err)
		}
		out[fmt.Sprintf("%s/%d/%d %s", it.Phase, it.Shard, it.Index, it.State)]++
	}
	return out
}

// orphans are ffmpeg processes that work in the shop.
func (s *shop) orphans() (pids []string) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil // no /proc: nothing to see
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		cmd, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && bytes.Contains(cmd, []byte(s.film)) && bytes.Contains(cmd, []byte("ffmpeg")) {
			pids = append(pids, e.Name()+" "+string(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
		}
	}
	return pids
}

// TestKilledRunsGoOnWithNothingLostOrDoneTwice kills the program with SIGKILL at random
// points, fifty times in all over several runs, and resumes it until it ends.
func TestKilledRunsGoOnWithNothingLostOrDoneTwice(t *testing.T) {
	long.Test(t)
	for _, half := range []string{"some", "others"} {
		t.Run(half, func(t *testing.T) {
			t.Parallel()
			killRuns(t, 25)
		})
	}
}

// killRuns kills runs so often in all, and compares each with one that nothing happened to.
func killRuns(t *testing.T, kills int) {
	t.Helper()
	const slots = 2
	s := newShop(t, 96) // 8 chunks and the sound, checked, published: 19 items
	if out, err := s.transcode("ref").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := s.items("ref")
	if len(want) != 19 {
		t.Fatalf("the film has %d items, want 19: %v", len(want), want)
	}
	plain := s.encodes()
	at := plain
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for run, killed := 0, 0; killed < kills; run++ {
		name := fmt.Sprintf("run%d", run)
		here := s.killAndResume(name, kills-killed, random)
		killed += here
		what := fmt.Sprintf("seed %d, %s after %d kills", seed, name, here)
		got := s.items(name)
		for item, n := range want {
			if got[item] != n {
				t.Errorf("%s: item %s is %d times in the evidence, want %d", what, item, got[item], n)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: items %v", what, got)
		}
		if left, _ := filepath.Glob(filepath.Join(s.dir, "tmp", "*")); len(left) > 0 {
			t.Errorf("%s: %d left in the folder for temporary files: %v", what, len(left), left[0])
		}
		s.sameTree(what, name, "ref")
		n := s.encodes() - at
		at += n
		if n > plain+slots*here {
			t.Errorf("%s: %d encodes, want at most %d and one a slot and kill", what, n, plain)
		}
		if n < plain {
			t.Errorf("%s: %d encodes, want at least %d: they are not counted", what, n, plain)
		}
	}
}

// killAndResume kills a run at random points, so often at most, and resumes it until it ends. It
// returns how often it was killed.
func (s *shop) killAndResume(name string, kills int, random *rand.Rand) (killed int) {
	s.t.Helper()
	for {
		c := s.command(name, "runs", "resume", "latest", "-q")
		state, err := engine.OpenState(filepath.Join(s.dir, name, "state"))
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := state.Find("latest"); err != nil {
			c = s.transcode(name) // killed before there was a run
		}
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			s.t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		var timer <-chan time.Time
		if killed < kills {
			timer = time.After(time.Duration(random.Int64N(int64(2500 * time.Millisecond))))
		}
		select {
		case err := <-done:
			if err != nil {
				s.t.Fatalf("%s after %d kills: %v\n%s", name, killed, err, out.String())
			}
			return killed
		case <-timer:
		}
		if err := c.Process.Kill(); err != nil {
			s.t.Fatal(err)
		}
		<-done
		killed++
		if o := s.settledOrphans(); len(o) > 0 {
			s.t.Fatalf("ffmpeg outlives its killed parent: %v", o)
		}
		if _, err := os.Stat(filepath.Join(s.dir, name, "out/film/hls/master.m3u8")); err == nil && len(s.tree(name)) < len(s.tree("ref")) {
			s.t.Fatalf("%s is published before it is whole", name)
		}
	}
}

// settledOrphans gives the kernel a moment to deliver the deaths of children.
func (s *shop) settledOrphans() (pids []string) {
	for range 50 {
		if pids = s.orphans(); len(pids) == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return pids
}

// start starts a transcode and returns once chunks are being encoded.
func (s *shop) start(run string) (*exec.Cmd, *told) {
	s.t.Helper()
	c := s.transcode(run)
	return c, s.await(c)
}

// await starts a command and returns its output once something is being encoded.
func (s *shop) await(c *exec.Cmd) *told {
	s.t.Helper()
	before := s.encodes()
	out := new(told)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Process.Kill() }) // it may have ended
	for deadline := time.Now().Add(20 * time.Second); ; {
		if s.encodes() > before {
			return out
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("nothing is encoded: %s", out)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ended waits for a command, and returns its status.
func (s *shop) ended(c *exec.Cmd) int {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		return status(err)
	case <-time.After(30 * time.Second):
		s.t.Fatalf("%q does not end", c.Args)
		return -1
	}
}

// drains waits until a command has heard its first signal.
func (s *shop) drains(out *told) {
	s.t.Helper()
	until(s.t, "the first signal is heard", func() bool { return strings.Contains(out.String(), "finishing the jobs under way") })
}

func status(err error) int {
	var exit *exec.ExitError
	if err == nil {
		return 0
	}
	if e, ok := err.(*exec.ExitError); ok {
		exit = e
		return exit.ExitCode()
	}
	return -1
}

func TestSignalsDrainThenEnd(t *testing.T) {
	long.Test(t)
	t.Parallel()
	s := newShop(t, 96)
	c, out := s.start("drain")
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if got := status(c.Wait()); got != exitInterrupted {
		t.Fatalf("status %d after SIGINT, want %d\n%s", got, exitInterrupted, out)
	}
	for _, want := range []string{"finishing the jobs under way", "was interrupted", "myrmidon runs resume "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output does not say %q:\n%s", want, out)
		}
	}
	// What was under way was finished: nothing is encoded twice.
	text, err := s.command("drain", "runs", "resume", "latest", "-q").CombinedOutput()
	if err != nil || !strings.Contains(string(text), "verified 1152/1152 frames") {
		t.Fatalf("resume: %v\n%s", err, text)
	}
	if n := s.encodes(); n != 9 {
		t.Errorf("%d encodes, want 9: drained jobs were done again", n)
	}

	s.hold() // what is under way does not end by itself
	c, out = s.start("twice")
	for range 2 {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.drains(out) // two signals at once may be one
	}
	if got := s.ended(c); got != exitInterrupted {
		t.Fatalf("status %d after two SIGTERM, want %d\n%s", got, exitInterrupted, out)
	}
	if o := s.settledOrphans(); len(o) > 0 {
		t.Errorf("ffmpeg is left: %v", o)
	}
}

func TestSignalLeavesNoRunsOfInputsThatWereNotBegun(t *testing.T) {
	long.Test(t)
	t.Parallel()
	s := newShop(t, 48)
	film, err := os.ReadFile(s.film)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"transcode", "--to", filepath.Join(s.dir, "out"), "--product", "small.yaml", "-q"}
	for i := range 12 {
		path := filepath.Join(s.dir, fmt.Sprintf("film%d.mp4", i))
		if err := os.WriteFile(path, film, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	s.hold()
	c := s.command("many", args...)
	out := s.await(c)
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.drains(out)
	s.release()
	if got := status(c.Wait()); got != exitInterrupted || !strings.Contains(out.String(), "of 12 began\n  repeat the command") {
		t.Errorf("status %d, want %d and what was not begun\n%s", got, exitInterrupted, out)
	}
	state, err := engine.OpenState(filepath.Join(s.dir, "many", "state"))
	if err != nil {
		t.Fatal(err)
	}
	infos, _, err := state.List()
	if err != nil {
		t.Fatal(err)
	}
	// Two slots carry three runs; one more is in hand and one may have ended.
	if len(infos) > 6 {
		t.Errorf("%d runs are left of 12 inputs, want those that were begun", len(infos))
	}
}

func TestRunUnderNohupOutlivesItsTerminal(t *testing.T) {
	long.Test(t)
	signal.Ignore(syscall.SIGHUP) // as nohup does; children inherit it
	defer signal.Reset(syscall.SIGHUP)
	s := newShop(t, 24)
	c, out := s.start("nohup")
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := status(c.Wait()); got != 0 || !strings.Contains(out.String(), "verified 288/288 frames") {
		t.Errorf("status %d after an ignored SIGHUP, want 0 and the whole film\n%s", got, out)
	}
}

func TestOtherTerminalCancelsPausesAndIsRefused(t *testing.T) {
	long.Test(t)
	t.Parallel()
	s := newShop(t, 192)
	s.hold()
	c, out := s.start("other")
	control := func(args ...string) string {
		t.Helper()
		text, err := s.command("other", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, text)
		}
		return string(text)
	}
	text, err := s.command("other", "runs", "resume", "latest").CombinedOutput()
	if status(err) != exitFailed || !strings.Contains(string(text), fmt.Sprintf("process %d on", c.Process.Pid)) {
		t.Errorf("a second resume: status %d\n%s\nwant a refusal that names process %d", status(err), text, c.Process.Pid)
	}
	control("runs", "pause", "latest")
	if got := control("runs"); !strings.Contains(got, "paused") {
		t.Errorf("runs of a paused run:\n%s", got)
	}
	// A paused run uses no CPU: its ffmpeg processes are stopped.
	until(t, "ffmpeg stops in a paused run", func() bool {
		all := s.orphans()
		for _, p := range all {
			pid, _, _ := strings.Cut(p, " ")
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err == nil && !strings.Contains(string(stat), ") T ") {
				return false
			}
		}
		return len(all) > 0
	})
	if got := control("runs", "show", "latest"); !strings.Contains(got, "state    paused") {
		t.Errorf("show of a paused run:\n%s", got)
	}
	control("runs", "resume", "latest")
	control("runs", "cancel", "latest") // ends what is held
	if got := s.ended(c); got != exitInterrupted {
		t.Errorf("a cancelled command ended with status %d, want %d\n%s", got, exitInterrupted, out)
	}
	if got := control("runs"); !strings.Contains(got, "cancelled") {
		t.Errorf("runs after a cancel:\n%s", got)
	}
	if o := s.settledOrphans(); len(o) > 0 {
		t.Errorf("ffmpeg is left: %v", o)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "other/out/film/hls/master.m3u8")); err == nil {
		t.Error("a cancelled run was published")
	}
}
