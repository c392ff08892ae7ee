package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"myrmidon/internal/testkit/s3stub"
)

// A disk that is full fails what does not fit, leaves nothing half-written, and when there
// is space the rest is done.
func TestACloneOntoAFullDisk(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	if err := s.s3.AddBucket("from"); err != nil {
		t.Fatal(err)
	}
	const n, each = 40, 60_000 // of which a disk of 1 MiB holds 17 at most
	for i := range n {
		if err := s.s3.PutObject("from", s3stub.Object{Key: "films/" + strings.Repeat("x", i+1)}, make([]byte, each)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "out"), 0o700); err != nil {
		t.Fatal(err)
	}
	// The disk is seen in a mount namespace of its own only, and goes with it: what is there
	// after each step is copied out.
	script := `mount --make-rprivate / && mount -t tmpfs -o size=1m none out || { echo cannot mount; exit 0; }
		"$0" clone s3://from ./out; echo "exit $?"; cp -r out first
		mount -o remount,size=64m out
		"$0" runs retry latest; echo "exit $?"; cp -r out second`
	c := exec.Command("/bin/sh", "-c", script, s.program)
	c.Dir, c.Env = s.dir, s.command().Env
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := c.CombinedOutput()
	said := string(out)
	if len(out) == 0 && err != nil || strings.Contains(said, "cannot mount") {
		t.Skipf("this kernel gives us no mount namespace: %v %s", err, out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, want := range []string{"exit 3", "objects failed", "no space left on device", "free some space on the disk of", "exit 0", "copied 40"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said:\n%s", want, said)
		}
	}
	files := func(name string) (count int) {
		err := filepath.WalkDir(filepath.Join(s.dir, name), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil && (info.Size() != each || strings.HasPrefix(d.Name(), ".")) {
				t.Errorf("%s has %d bytes", p, info.Size())
			}
			count++
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return count
	}
	if first, second := files("first"), files("second"); first == 0 || first > 17 || second != n {
		t.Errorf("%d files on the full disk, %d in the end\n%s", first, second, said)
	}
}
