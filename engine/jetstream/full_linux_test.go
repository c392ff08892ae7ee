package jetstream_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/long"
)

// fullDisk stores on a file system of 24 MiB until it is full, frees some space and opens
// the folder again. It runs in a mount namespace of its own, so that the mount is seen by
// nobody else and goes with it.
func fullDisk(dir string) int {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		fmt.Println("cannot mount:", err)
		return 0
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		fmt.Println("cannot mount:", err)
		return 0
	}
	if err := fillAndGoOn(dir); err != nil {
		fmt.Println("FAILED:", err)
		return 1
	}
	return 0
}

func fillAndGoOn(dir string) error {
	ctx := context.Background()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 12<<20), 0o600); err != nil {
		return err
	}
	cfg := jetstream.Config{Dir: filepath.Join(dir, "queue")}
	b, err := jetstream.Open(ctx, cfg)
	if err != nil {
		return err
	}
	stored := 0
	for ; err == nil; stored++ {
		var c engine.Cursor
		if c, err = b.Cursor(ctx, runID, 0, 0); err != nil {
			break
		}
		batch := sliceOf(stored+1, c.Seq)
		for i := range batch.Jobs {
			noise := make([]byte, 30<<10) // that no packing makes shorter
			_, _ = rand.Read(noise)
			batch.Jobs[i].Spec = []byte(`"` + base64.StdEncoding.EncodeToString(noise) + `"`)
		}
		start := time.Now()
		err = b.Commit(ctx, batch)
		if took := time.Since(start); took > 16*time.Second {
			return fmt.Errorf("slice %d took %v: %w", stored+1, took, err)
		}
		if stored > 1000 {
			return fmt.Errorf("the disk of 24 MiB holds %d slices of 120 KiB", stored)
		}
	}
	stored--
	fmt.Printf("after %d slices: %v\nhint: %s\n", stored, err, myrmidon.Hint(err))
	if stored < 10 || !strings.Contains(err.Error(), cfg.Dir) || !strings.Contains(myrmidon.Hint(err), "is its disk full?") {
		return fmt.Errorf("after %d slices it said %w (hint: %s)", stored, err, myrmidon.Hint(err))
	}
	if err := b.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	b, err = jetstream.Open(ctx, cfg)
	if err != nil {
		return fmt.Errorf("open it again: %w", err)
	}
	defer b.Close()
	c, err := b.Cursor(ctx, runID, 0, 0)
	if err != nil {
		return err
	}
	// The slice that failed may be there, whole.
	if n := int(c.Steps); n != stored && n != stored+1 {
		return fmt.Errorf("%d slices are there, want %d", n, stored)
	}
	events := uint32(0)
	if err := b.Read(ctx, runID, 0, false, func(_ uint64, e engine.Event) error { events++; return nil }); err != nil {
		return err
	}
	jobs := 0
	for {
		ds, err := b.Pull(ctx, engine.PullRequest{Lane: lane, N: engine.MaxPull})
		if err != nil {
			return err
		}
		if len(ds) == 0 {
			break
		}
		jobs += len(ds)
	}
	if events != c.Steps || jobs != 3*int(c.Steps) {
		return fmt.Errorf("the cursor tells of %d slices, there are %d events and %d jobs", c.Steps, events, jobs)
	}
	if err := b.Commit(ctx, sliceOf(int(c.Steps)+1, c.Seq)); err != nil {
		return fmt.Errorf("store after space was freed: %w", err)
	}
	return nil
}

func TestADiskThatIsFull(t *testing.T) {
	long.Test(t)
	t.Parallel()
	cmd := inChild(t, "full", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if len(out) == 0 && err != nil || strings.Contains(string(out), "cannot mount") {
		t.Skipf("this kernel gives us no mount namespace: %v %s", err, out)
	}
	if err != nil || !strings.Contains(string(out), "hint:") {
		t.Errorf("the child says %v:\n%s", err, out)
	}
	t.Logf("%s", out)
}
