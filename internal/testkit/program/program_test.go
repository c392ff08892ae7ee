package program

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

// module is what the tests want built.
const module = "github.com/nats-io/nats-server/v2"

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
	_, err := Pinned(t.Context(), "natsserver", module)
	if err == nil || !strings.Contains(err.Error(), "no required module provides package "+module) {
		t.Errorf("Pinned said %v, want what go build said", err)
	}
	programs, err := filepath.Glob(filepath.Join(root, ".cache", "*"))
	if err != nil || len(programs) != 1 || !strings.HasSuffix(programs[0], ".lock") {
		t.Errorf(".cache holds %q, %v, want the lock alone", programs, err)
	}
}

func TestOutsideTheRepositoryThereIsNoServer(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Pinned(t.Context(), "natsserver", module); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Pinned said %v, want fs.ErrNotExist", err)
	}
}
