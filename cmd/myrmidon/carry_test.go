package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A worker that starts must not take the folder of one that starts beside it for a dead
// one's.
func TestOnlyFoldersOfDeadWorkersAreRemoved(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	fresh, dead, live := filepath.Join(temp, "myrmidon-worker-1"), filepath.Join(temp, "myrmidon-worker-2"), filepath.Join(temp, "myrmidon-worker-3")
	for _, dir := range []string{fresh, dead, live} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := lockWorkFolder(live)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for _, dir := range []string{dead, live} {
		if err := os.Chtimes(dir, time.Time{}, time.Now().Add(-2*settled)); err != nil {
			t.Fatal(err)
		}
	}
	mine, remove, err := workFolder()
	if err != nil {
		t.Fatal(err)
	}
	for dir, there := range map[string]bool{fresh: true, dead: false, live: true, mine: true} {
		if _, err := os.Stat(dir); (err == nil) != there {
			t.Errorf("%s: %v", filepath.Base(dir), err)
		}
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}
