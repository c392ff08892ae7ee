// Package workloads is the one list of what this program can do, for whatever runs jobs:
// the command, a worker, a Lambda function.
package workloads

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"myrmidon"
	"myrmidon/internal/clone"
	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/logs"
	"myrmidon/internal/transcode"
	"myrmidon/object"
	"myrmidon/sink"
)

// Config is what handlers are given from outside.
type Config struct {
	Tools *ffmpeg.Tools // for workloads that need ffmpeg; nil where NeedsFFmpeg says no
	// Open returns the store at an address, OpenObject the store of one object and its
	// key. Both are called by many goroutines.
	Open       func(address string) (object.Store, error)
	OpenObject func(address string) (store object.Store, key string, err error)
	// OpenBucket returns the store at an address with all keys that it can hold: as
	// wire.Bucket does.
	OpenBucket func(address string) (object.Store, error)
	// ReadList returns a part of the list of keys that a run of clone was given.
	ReadList func(ctx context.Context, run string, l clone.List, part string) ([]byte, error)
	// OpenSink returns the sink at an address, Checkpoints keeps how far objects of logs are.
	OpenSink    func(address string) (sink.Sink, error)
	Checkpoints logs.Checkpoints
	TempDir     string // where jobs make private folders; "" means the system's
	Log         *slog.Logger
}

// names are all workloads of this version, in the order of the alphabet.
var names = [...]string{"clone", "logs", "transcode"}

// Names lists the workloads of this version.
func Names() []string { return slices.Clone(names[:]) }

// NeedsFFmpeg reports whether a workload cannot run without ffmpeg.
func NeedsFFmpeg(name string) bool { return name == "transcode" }

// Named returns the workload with this name.
func Named(name string, cfg Config) (myrmidon.Workload, error) {
	switch name {
	case "clone":
		return clone.Workload(clone.Config{Open: cfg.OpenBucket, ReadList: cfg.ReadList, Log: cfg.Log}), nil
	case "logs":
		return logs.Workload(logs.Config{
			OpenBucket: cfg.OpenBucket, OpenObject: cfg.OpenObject, OpenSink: cfg.OpenSink, Checkpoints: cfg.Checkpoints, Log: cfg.Log,
		}), nil
	case "transcode":
		return transcode.Workload(transcode.Config{
			Tools: cfg.Tools, Open: cfg.Open, OpenObject: cfg.OpenObject, TempDir: cfg.TempDir, Log: cfg.Log,
		}), nil
	}
	return myrmidon.Workload{}, myrmidon.WithHint(fmt.Errorf("this version knows no workload %q", name), "the run was made by a newer myrmidon; use that one")
}

// All returns the workloads that can run on this machine, and by name what keeps each of
// the others from it: a worker serves what it can. Without cfg.Tools it looks for ffmpeg
// itself (see [ffmpeg.Find]). The error is ctx's.
func All(ctx context.Context, cfg Config) (can []myrmidon.Workload, missing map[string]error, err error) {
	missing = make(map[string]error)
	var noTools error
	if cfg.Tools == nil && slices.ContainsFunc(names[:], NeedsFFmpeg) {
		cfg.Tools, noTools = ffmpeg.Find(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if NeedsFFmpeg(name) && noTools != nil {
			missing[name] = noTools
			continue
		}
		w, err := Named(name, cfg)
		if err != nil {
			missing[name] = err
			continue
		}
		can = append(can, w)
	}
	return can, missing, nil
}
