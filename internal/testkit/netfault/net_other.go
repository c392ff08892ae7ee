//go:build !linux

package netfault

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

func supported() error {
	return fmt.Errorf("netfault: make network namespaces: %w on %s", errors.ErrUnsupported, runtime.GOOS)
}

// What follows is never reached: no Net is ever made.

func lockSubnet(int) (*os.File, error) { return nil, errors.ErrUnsupported }
func leftovers() (map[int]bool, error) { return nil, errors.ErrUnsupported }
func (n *Net) sweep() error            { return errors.ErrUnsupported }
func (s *NS) Do(func() error) error    { return errors.ErrUnsupported }
