package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/logs"
	"myrmidon/internal/notify"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

func TestAFollowedFolderTakesFilesAsNewAsTheyCame(t *testing.T) {
	dir := t.TempDir()
	begun := time.Now().Add(-time.Minute)
	synced := filepath.Join(dir, "synced.log") // with the time that it has in its bucket
	if err := os.WriteFile(synced, []byte("line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := begun.Add(-30 * 24 * time.Hour)
	if err := os.Chtimes(synced, old, old); err != nil {
		t.Fatal(err)
	}
	store, err := wire.Bucket(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []object.Info
	err = logs.List(t.Context(), notify.Arrived(store), logs.Filter{Since: begun}, func(o object.Info) error {
		found = append(found, o)
		return nil
	})
	if err != nil || len(found) != 1 || found[0].Modified.Before(begun) || found[0].Key != "synced.log" {
		t.Errorf("%+v, %v; want synced.log, of now", found, err)
	}
}

// TestAFileThatIsBeingWrittenIsLeftAlone: each of its versions would be shipped whole, under other IDs.
func TestAFileThatIsBeingWrittenIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "growing.log")
	if err := os.WriteFile(file, []byte("line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	folder, err := wire.Bucket(dir)
	if err != nil {
		t.Fatal(err)
	}
	bucket := object.NewMem()
	if err := bucket.Put(t.Context(), "growing.log", strings.NewReader("line\n"), 5, object.Attrs{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	now := info.ModTime() // or it may be whole already
	for _, c := range []struct {
		store object.Store
		now   time.Time
		want  int
	}{
		{folder, now, 0},
		{folder, now.Add(restOfFile + time.Second), 1},
		{folder, now.Add(-time.Hour), 1}, // by a clock that was wrong, it is not to be waited for
		{bucket, now, 1},                 // objects come whole
	} {
		found := 0
		err := listArrived(t.Context(), c.store, now.Add(-time.Minute), c.now, func(object.Info) error { found++; return nil })
		if err != nil || found != c.want {
			t.Errorf("in %v, %v later: %d found, want %d (%v)", c.store, c.now.Sub(now), found, c.want, err)
		}
	}
}
