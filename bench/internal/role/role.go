// Package role lets a benchmark start itself as a child that plays a part: a load, a
// peer's stand-in, or what is measured, in a process of its own.
package role

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// variable says what a child is.
const variable = "MYRMIDON_BENCH_ROLE"

// Name is the part of this process, "" of the one that the user started.
func Name() string { return os.Getenv(variable) }

// Unknown is the error of a process whose part there is not.
func Unknown() error { return fmt.Errorf("%s=%s: there is no such part", variable, Name()) }

// Environ is the environment of a child that plays the part: that of a program without parts
// has the name "".
func Environ(name string) []string { return append(os.Environ(), variable+"="+name) }

// Command is a child that plays the part. Its messages come to this process's stderr.
func Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = Environ(name)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// Do lets a child play the part to its end.
func Do(ctx context.Context, name string, args ...string) error {
	cmd, err := Command(ctx, name, args...)
	if err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Ask lets a child play the part, and reads into v what it gave to Reply.
func Ask(ctx context.Context, v any, name string, args ...string) error {
	cmd, err := Command(ctx, name, args...)
	if err != nil {
		return err
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return json.Unmarshal(out, v)
}

// Reply is how a child ends: it writes v to stdout for Ask, or has an error.
func Reply(v any, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(v)
}
