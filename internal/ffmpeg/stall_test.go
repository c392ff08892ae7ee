package ffmpeg

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"myrmidon"
)

// patiently calls try with a longer stall again and again while it reports false: on a busy
// machine a process may stand still for longer than a short one by no fault of its own.
func patiently(t *testing.T, first time.Duration, try func(stall time.Duration) bool) {
	t.Helper()
	for stall := first; !try(stall); stall *= 3 {
		if stall > 25*first {
			t.Fatalf("with a stall of %v it is still not as it should be", stall)
		}
	}
}

// stalled reports whether err says that a process was killed for a stall.
func stalled(err error) bool {
	return err != nil && strings.Contains(err.Error(), "made no progress for")
}

func TestRunKillsAProcessThatStalls(t *testing.T) {
	// It prints, and nothing in what it prints moves.
	tl := fake(t, `while :; do echo frame=7 >&3; echo progress=continue >&3; sleep 0.02; done`)
	patiently(t, 300*time.Millisecond, func(stall time.Duration) bool {
		out, err := tl.Run(t.Context(), Command{Dir: t.TempDir(), Stall: stall})
		if err == nil || !strings.Contains(err.Error(), "no progress for "+stall.String()) || myrmidon.IsPermanent(err) {
			t.Fatalf("got %v, want a passing error", err)
		}
		if out.Frames != 7 && out.Frames != 0 {
			t.Errorf("%d frames", out.Frames)
		}
		return out.Frames > 0 // else it had not begun to print
	})
}

// moving is a script whose frames move, with the last number in a file, until quit is there.
// No sleep is in it: a shell that waits for a child between vfork and exec, when a stop
// comes, is in state D.
func moving(pid, quit, last string) string {
	return `echo $$ > ` + pid + `.new; mv ` + pid + `.new ` + pid + `; i=0; while [ ! -e ` + quit + ` ]; do
i=$((i+1)); echo frame=$i >&3; echo progress=continue >&3; done; echo $i > ` + last + `; echo progress=end >&3`
}

func TestRunLeavesAProcessThatMovesAlone(t *testing.T) {
	for _, test := range []struct {
		name         string
		stall, pause time.Duration // pause is of each report, as parts of stall
		reports      int64         // and then it is told to end
	}{
		{"for longer than the stall", 300 * time.Millisecond, 10, 16},
		// As if this process had been stopped: its timer is over, and signs of life wait.
		{"though nobody looks for longer than the stall", 100 * time.Millisecond, 1, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			patiently(t, test.stall, func(stall time.Duration) bool {
				dir := t.TempDir()
				quit, last := filepath.Join(dir, "quit"), filepath.Join(dir, "last")
				tl := fake(t, moving(filepath.Join(dir, "pid"), quit, last))
				var reports int64
				ctx := myrmidon.WithProgress(t.Context(), func(myrmidon.Amount) {
					if reports++; reports == test.reports {
						write(t, quit, nil)
					} else if reports < test.reports {
						time.Sleep(stall/test.pause + time.Millisecond*20)
					}
				})
				out, err := tl.Run(ctx, Command{Dir: t.TempDir(), Stall: stall})
				if stalled(err) {
					return false
				}
				if err != nil {
					t.Fatal(err)
				}
				if want := strings.TrimSpace(string(read(t, last))); strconv.FormatInt(out.Frames, 10) != want {
					t.Errorf("%d frames, want %s", out.Frames, want)
				}
				return true
			})
		})
	}
}

func TestRunStopsWhileTheGateIsShut(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	patiently(t, 400*time.Millisecond, func(stall time.Duration) bool {
		gate := new(myrmidon.Gate)
		beats := make(chan struct{}, 1000)
		ctx := myrmidon.WithGate(t.Context(), gate)
		ctx = myrmidon.WithProgress(ctx, func(myrmidon.Amount) { pulse(beats) })
		dir := t.TempDir()
		file, quit := filepath.Join(dir, "pid"), filepath.Join(dir, "quit")
		tl := fake(t, moving(file, quit, filepath.Join(dir, "last")))
		done := make(chan error, 1)
		go func() {
			_, err := tl.Run(ctx, Command{Dir: t.TempDir(), Stall: stall})
			done <- err
		}()
		var ended error
		// over reports whether the run has ended, which it should not: see patiently.
		over := func() bool {
			if ended == nil {
				select {
				case ended = <-done:
					if !stalled(ended) {
						t.Fatalf("it ended: %v", ended)
					}
				default:
				}
			}
			return ended != nil
		}
		beat := func() { await(t, func() bool { return over() || len(beats) > 0 }) }
		beat()
		if over() {
			return false
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(read(t, file))))
		if err != nil {
			t.Fatal(err)
		}
		gate.Set(true)
		await(t, func() bool { return over() || state(pid) == "T" })
		// Longer than the stall, also if that begins anew once: the clock stands still as well.
		for end := time.Now().Add(stall * 5 / 2); !over() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		gate.Set(false)
		for len(beats) > 0 {
			<-beats
		}
		beat()
		if over() {
			return false
		}
		write(t, quit, nil)
		if err := <-done; stalled(err) {
			return false
		} else if err != nil {
			t.Error(err)
		}
		return true
	})
	// A gate that is shut from the start keeps the process from starting.
	gate := new(myrmidon.Gate)
	gate.Set(true)
	ctx, cancel := context.WithCancel(myrmidon.WithGate(t.Context(), gate))
	cancel()
	if _, err := fake(t, "exit 0").Run(ctx, Command{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
