package main

import (
	"os"
	"path/filepath"
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
