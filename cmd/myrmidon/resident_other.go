//go:build !linux

package main

import "log/slog"

// giveBackPages is for systems on which it is known how.
func giveBackPages(*slog.Logger) {}

// giveBackConstants is, too.
func giveBackConstants(*slog.Logger) {}
