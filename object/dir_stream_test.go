package object_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/internal/checksum"
	"myrmidon/object"
)

func TestDirPutWith(t *testing.T) {
	root := t.TempDir()
	d, err := object.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(2019, 7, 1, 2, 3, 4, 567_000_000, time.UTC)
	sum := checksum.Of(checksum.CRC64NVME, []byte("data"))
	made, err := d.PutWith(t.Context(), "a/k", strings.NewReader("data"), 4, object.PutOptions{Modified: when, Checksum: sum, IfNone: true})
	if err != nil || made.Checksum != sum || !made.Modified.Equal(when) {
		t.Errorf("made %+v, %v", made, err)
	}
	if info, err := d.Head(t.Context(), "a/k"); err != nil || !info.Modified.Equal(when) {
		t.Errorf("%+v, %v; want it to be of %v", info, err, when)
	}
	var wrong *checksum.Error
	if _, err := d.PutWith(t.Context(), "a/k", strings.NewReader("dada"), 4, object.PutOptions{Checksum: sum}); !errors.As(err, &wrong) || myrmidon.IsPermanent(err) {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := d.PutWith(t.Context(), "a/k", strings.NewReader("new"), 3, object.PutOptions{IfNone: true}); !errors.Is(err, fs.ErrExist) || !myrmidon.IsPermanent(err) {
		t.Errorf("where there is an object: %v, want fs.ErrExist", err)
	}
	if data, err := os.ReadFile(filepath.Join(root, "a", "k")); string(data) != "data" || err != nil {
		t.Errorf("%q, %v is there", data, err)
	}
	if names, err := os.ReadDir(filepath.Join(root, "a")); len(names) != 1 || err != nil {
		t.Errorf("%v, %v are left", names, err)
	}
	if made, err := d.PutWith(t.Context(), "b", strings.NewReader("data"), -1, object.PutOptions{}); err != nil || made.Checksum != checksum.Of(checksum.CRC32C, []byte("data")) {
		t.Errorf("without a checksum: %+v, %v", made, err)
	}
	if _, err := d.PutWith(t.Context(), "../k", strings.NewReader(""), 0, object.PutOptions{}); !myrmidon.IsPermanent(err) {
		t.Errorf("a bad key: %v", err)
	}
}
