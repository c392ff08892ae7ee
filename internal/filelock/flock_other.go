//go:build !unix

package filelock

import (
	"errors"
	"os"
)

const (
	alone = iota
	waiting
	shared
	free
)

func lock(f *os.File, _ int) error {
	return &os.PathError{Op: "lock", Path: f.Name(), Err: errors.ErrUnsupported}
}
