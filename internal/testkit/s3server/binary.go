package s3server

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

	"golang.org/x/sys/unix"
)

const (
	pkg = "github.com/versity/versitygw/cmd/versitygw"
	// buildTime bounds the wait for a build, our own or another process's. A cold one
	// takes about two minutes on two cores.
	buildTime = 8 * time.Minute
)

// Binary returns the path of the versitygw that tools/versitygw/go.mod pins. The first
// call on a machine builds it, which takes minutes and may download its source; the
// program is kept in .cache of this repository. Processes that test at the same time
// wait for one another. It works in this repository only: the current folder must be
// in it.
func Binary(ctx context.Context) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "tools", "versitygw")
	sum, err := fingerprint(module)
	if err != nil {
		return "", err
	}
	folder := filepath.Join(root, ".cache", "versitygw")
	program := filepath.Join(folder, "versitygw-"+sum)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("s3server: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	lock, err := locked(ctx, filepath.Join(folder, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close() // which unlocks it
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := build(ctx, module, program); err != nil {
		return "", err
	}
	return program, nil
}

// build builds the program under another name and renames it, so that a killed build
// leaves nothing that looks finished.
func build(ctx context.Context, module, program string) error {
	part := program + ".part"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", part, pkg)
	cmd.Dir = module
	// The module stands alone, and what a caller builds for (-race, another system)
	// is not for this program.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("s3server: build versitygw in %s: %w\n%s", module, errors.Join(err, ctx.Err()), out)
	}
	if err := os.Rename(part, program); err != nil {
		return fmt.Errorf("s3server: %w", err)
	}
	return nil
}

// locked opens the file and takes its lock, waiting for others to give it back.
func locked(ctx context.Context, name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("s3server: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("s3server: lock %s: %w", name, err), f.Close())
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			err := fmt.Errorf("s3server: wait for another process that builds versitygw (%s): %w", name, context.Cause(ctx))
			return nil, errors.Join(err, f.Close())
		}
	}
}

// fingerprint names what the program is built from: other versions are other files.
func fingerprint(module string) (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", fmt.Errorf("s3server: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
	}
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// repository returns the folder of Myrmidon's go.mod, at or above the current one.
func repository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("s3server: %w", err)
	}
	for dir := start; ; {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module myrmidon\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("s3server: %w", err)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("s3server: %s is not in Myrmidon's repository, which pins the test server", start)
		}
		dir = up
	}
}
