package object_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// fullDiskChild mounts a file system of 1 MiB and fills it. It runs in a mount
// namespace of its own, so the mount is seen by nobody else and goes with it.
func fullDiskChild() int {
	root := os.Getenv(rootVar)
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		fmt.Println("cannot mount:", err)
		return 0
	}
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		fmt.Println("cannot mount:", err)
		return 0
	}
	return putTooMuch(root, syscall.ENOSPC)
}

func TestDirSurvivesAFullDisk(t *testing.T) {
	cmd := child(t, "full", t.TempDir())
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
	if err != nil {
		t.Errorf("the child says %v:\n%s", err, out)
	}
	t.Logf("%s", out)
}
