package natsserver

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
	"syscall"
	"time"

	"myrmidon"
)

const (
	module  = "github.com/nats-io/nats-server/v2"
	pinning = "tools/natsserver"
	// buildTimeout bounds building the server; with empty caches and a slow network it
	// takes a minute or two.
	buildTimeout = 8 * time.Minute
)

// binary returns the path of nats-server as tools/natsserver pins it, and builds it if
// it is not there yet. Processes that want it at the same time build it once.
func binary(ctx context.Context) (string, error) {
	root, err := repository()
	if err != nil {
		return "", myrmidon.WithHint(fmt.Errorf("natsserver: find the repository: %w", err), "run this inside the repository of Myrmidon")
	}
	pins := filepath.Join(root, filepath.FromSlash(pinning))
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(pins, name))
		if err != nil {
			return "", fmt.Errorf("natsserver: read what version is pinned: %w", err)
		}
		sum.Write(data)
	}
	cache := filepath.Join(root, ".cache")
	program := filepath.Join(cache, fmt.Sprintf("nats-server-%s-%s-%.12x", runtime.GOOS, runtime.GOARCH, sum.Sum(nil)))
	if there(program) {
		return program, nil
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("natsserver: make the folder of the program: %w", err)
	}
	unlock, err := lock(ctx, program+".lock")
	if err != nil {
		return "", fmt.Errorf("natsserver: wait for another process that builds nats-server: %w", err)
	}
	if !there(program) { // nor built while we waited
		err = build(ctx, pins, program)
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
func build(ctx context.Context, pins, program string) error {
	part := program + ".part"
	cmd := exec.CommandContext(ctx, "go", "-C", pins, "build", "-trimpath", "-buildvcs=false", "-o", part, module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		err = fmt.Errorf("natsserver: build nats-server in %s: %w\n%s", pinning, errors.Join(err, ctx.Err()), strings.TrimSpace(string(out)))
		return myrmidon.WithHint(err, "go -C "+pinning+" mod download, with a network, fetches what it is made of")
	}
	if err := os.Rename(part, program); err != nil {
		return fmt.Errorf("natsserver: put nats-server in its place: %w", err)
	}
	return nil
}

// repository is the folder of this module's go.mod, at or above the working folder.
func repository() (string, error) {
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
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, ctx.Err()), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
