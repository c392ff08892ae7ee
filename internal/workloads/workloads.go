// Package workloads is the one list of what this program can do, for whatever runs jobs:
// the command, a worker, a Lambda function.
package workloads

import (
	"fmt"
	"log/slog"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/transcode"
	"myrmidon/object"
)

// Config is what handlers are given from outside.
type Config struct {
	Tools *ffmpeg.Tools // for workloads that need ffmpeg; nil where NeedsFFmpeg says no
	Open  func(address string) (object.Store, error)
	Log   *slog.Logger
}

// NeedsFFmpeg reports whether a workload cannot run without ffmpeg.
func NeedsFFmpeg(name string) bool { return name == "transcode" }

// Named returns the workload with this name.
func Named(name string, cfg Config) (myrmidon.Workload, error) {
	switch name {
	case "transcode":
		return transcode.Workload(transcode.Config{Tools: cfg.Tools, Open: cfg.Open, Log: cfg.Log}), nil
	}
	return myrmidon.Workload{}, myrmidon.WithHint(fmt.Errorf("this version knows no workload %q", name), "the run was made by a newer myrmidon; use that one")
}
