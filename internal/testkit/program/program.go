// Package program builds the servers that tests run against, each pinned by a module of
// its own below tools/, once: into .cache of this repository, named by what it is built
// from. Processes that want the same one at the same time build it once.
package program

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"myrmidon"
	"myrmidon/internal/filelock"
)

// buildTimeout bounds one build; with empty caches and a slow network it takes a minute
// or two.
const buildTimeout = 8 * time.Minute

// Pinned returns the path of the main package pkg as the module in tools/<name> pins it,
// and builds it if it is not there yet. It works inside this repository only.
func Pinned(ctx context.Context, name, pkg string) (string, error) {
	root, err := Repository()
	if err != nil {
		return "", myrmidon.WithHint(fmt.Errorf("build %s: find the repository: %w", name, err), "run this inside the repository of Myrmidon")
	}
	pins := filepath.Join(root, "tools", name)
	sum := sha256.New()
	for _, file := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(pins, file))
		if err != nil {
			return "", fmt.Errorf("build %s: read what version is pinned: %w", name, err)
		}
		sum.Write(data)
	}
	cache := filepath.Join(root, ".cache")
	program := filepath.Join(cache, fmt.Sprintf("%s-%s-%s-%.12x", name, runtime.GOOS, runtime.GOARCH, sum.Sum(nil)))
	if there(program) {
		return program, nil
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("build %s: make the folder of the program: %w", name, err)
	}
	unlock, err := lock(ctx, program+".lock")
	if err != nil {
		return "", fmt.Errorf("build %s: wait for another process that builds it: %w", name, err)
	}
	if !there(program) { // nor built while we waited
		err = build(ctx, name, pins, pkg, program)
	}
	if err = errors.Join(err, unlock()); err != nil {
		return "", err
	}
	return program, nil
}

func there(program string) bool {
	info, err := os.Stat(program)
	return err == nil && info.Mode().IsRegular()
}

// build puts the program in its place whole or not at all.
func build(ctx context.Context, name, pins, pkg, program string) error {
	part := program + ".part"
	cmd := exec.CommandContext(ctx, "go", "-C", pins, "build", "-trimpath", "-buildvcs=false", "-o", part, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		err = fmt.Errorf("build %s in tools/%s: %w\n%s", pkg, name, errors.Join(err, ctx.Err()), strings.TrimSpace(string(out)))
		return myrmidon.WithHint(err, "go -C tools/"+name+" mod download, with a network, fetches what it is made of")
	}
	if err := os.Rename(part, program); err != nil {
		return fmt.Errorf("build %s: put it in its place: %w", name, err)
	}
	return nil
}

// Repository is the folder of this module's go.mod, at or above the working folder.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for from := dir; ; {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if line, _, _ := strings.Cut(string(data), "\n"); strings.TrimSpace(line) == "module myrmidon" {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod of myrmidon above %s: %w", from, fs.ErrNotExist)
		}
		dir = up
	}
}

// lock waits for the lock file name, which falls with its process.
func lock(ctx context.Context, name string) (unlock func() error, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := filelock.Take(f)
		if err == nil {
			return func() error { return filelock.Close(f) }, nil
		}
		if !errors.Is(err, filelock.ErrHeld) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, ctx.Err()), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
