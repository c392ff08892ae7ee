package natsserver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOneProcessAtATimeHoldsTheLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second lock: %v, want to wait until the context ends", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	unlock, err = lock(t.Context(), name)
	if err != nil {
		t.Fatalf("after the first was given back: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestABuildThatFailsSaysWhyAndLeavesNoProgram(t *testing.T) {
	root := t.TempDir()
	pins := filepath.Join(root, "tools", "natsserver")
	if err := os.MkdirAll(pins, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		filepath.Join(root, "go.mod"): "module myrmidon\n",
		filepath.Join(pins, "go.mod"): "module empty\n\ngo 1.26.0\n",
		filepath.Join(pins, "go.sum"): "",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(pins) // the repository is found from below, too
	_, err := binary(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no required module provides package "+module) {
		t.Errorf("binary said %v, want what go build said", err)
	}
	programs, err := filepath.Glob(filepath.Join(root, ".cache", "*"))
	if err != nil || len(programs) != 1 || !strings.HasSuffix(programs[0], ".lock") {
		t.Errorf(".cache holds %q, %v, want the lock alone", programs, err)
	}
}

func TestOutsideTheRepositoryThereIsNoServer(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := binary(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("binary said %v, want fs.ErrNotExist", err)
	}
}

func TestOutputKeepsItsEnd(t *testing.T) {
	var o output
	line := strings.Repeat("x", 1023) + "\n"
	for range 3 * saidLimit / len(line) {
		if _, err := o.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Write([]byte("the end")); err != nil {
		t.Fatal(err)
	}
	got := o.String()
	if len(got) != saidLimit || !strings.HasSuffix(got, "x\nthe end") {
		t.Errorf("%d bytes are kept, the last are %q", len(got), got[max(0, len(got)-10):])
	}
	if got := o.tail(3); got != "end" {
		t.Errorf("its last three bytes are %q", got)
	}
	if cap(o.data) > 4*saidLimit {
		t.Errorf("%d bytes of memory are held", cap(o.data))
	}
}
