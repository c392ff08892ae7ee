// Command transcode measures `myrmidon transcode` against what people write with ffmpeg
// alone, and checks that its seams cannot be seen or heard. `make bench-transcode` runs it.
//
// # What is measured
//
// The source is 24 s of 1920x1080 pictures at 24 frames a second, H.264 at about 24
// Mb/s with a keyframe each 2 s, and stereo AAC. It is made once, into .cache/bench,
// from a clip of Big Buck Bunny, else from ffmpeg's own test pictures; the first line
// printed says which. The ways to make the default ladder of it are
//
//	A        myrmidon transcode: probe, hash, encode, verify and publish, with a fresh
//	         output and a fresh state folder each time
//	B        four runs of ffmpeg, one a rung, one after the other, threads as ffmpeg
//	         likes, sound encoded in each: what users write
//	C        one run of ffmpeg by an expert: one decode, scaling chained as in A, four
//	         encoders of one thread, sound once
//	C-split  as C, with each size scaled from the source
//
// All have the same settings of x264 and AAC and write fragmented MP4 for HLS. They run
// in turn, A B C C-split A B C …, so that a change of the machine's mood meets all of
// them. CPU is user and system time of the whole process tree, as wait4(2) gives it
// for a process and all that it has waited for. Peak memory is the largest sum of
// resident memory over the tree, sampled ten times a second (Linux only; pages that
// processes share count in each). A ratio is taken within a round; the median of the
// rounds' ratios is compared with its target.
//
// # What is checked
//
// Once, A's stream and C's are decoded as a player would: number of frames and the
// distances between their times; offset of the sound in samples, by cross-correlation
// with the source's sound in windows over the whole length; the largest jump of the
// sound's error at segment boundaries against elsewhere; and likeness to the
// source, scaled, by VMAF where ffmpeg has it, else by SSIM times 100. The trees that A
// wrote in different rounds must be the same, byte for byte.
//
// Nothing here is a test: a slow machine, or one that is doing something else, gives
// other figures. Only with -strict is a missed target exit status 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/transcode"
)

// bench holds what all parts of the measurement need.
type bench struct {
	tools    *ffmpeg.Tools
	binary   string          // of myrmidon
	source   string          // absolute path
	plan     *transcode.Plan // of the source: rungs, grid and settings that all ways share
	dir      string          // for whatever is made
	progress io.Writer
}

type flags struct {
	binary, clip, keep string
	rounds             int
	seconds            float64
	strict             bool
}

func main() {
	var f flags
	flag.StringVar(&f.binary, "bin", "", "the myrmidon program (default: one is built)")
	flag.StringVar(&f.clip, "clip", "", "the clip that the source is made of (default: Big Buck Bunny, else ffmpeg's test pictures)")
	flag.IntVar(&f.rounds, "rounds", 3, "how often each way is measured")
	flag.Float64Var(&f.seconds, "seconds", 24, "length of the source; the targets are for 24")
	flag.StringVar(&f.keep, "keep", "", "folder to keep what is made in (default: a temporary one)")
	flag.BoolVar(&f.strict, "strict", false, "exit with status 1 if a target is missed")
	flag.Parse()
	if flag.NArg() > 0 || f.rounds < 1 || !(f.seconds >= 1) {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	missed, err := run(ctx, f)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		if hint := myrmidon.Hint(err); hint != "" {
			fmt.Fprintf(os.Stderr, "  %s\n", hint)
		}
		os.Exit(1)
	}
	if missed > 0 && f.strict {
		os.Exit(1)
	}
}

// run does everything and returns how many targets were missed.
func run(ctx context.Context, f flags) (missed int, err error) {
	b := &bench{dir: f.keep, progress: os.Stderr}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "bench-transcode-*"); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	} else if b.dir, err = filepath.Abs(b.dir); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return 0, err
	}
	if b.tools, err = ffmpeg.Find(ctx); err != nil {
		return 0, err
	}
	origin, err := b.prepare(ctx, f)
	if err != nil {
		return 0, err
	}
	fmt.Printf("source   %s\nffmpeg   %s, %d cores\nstarted  %s, %d rounds\n\n", origin,
		b.tools.Version, cores(), time.Now().UTC().Format("2006-01-02 15:04 MST"), f.rounds)
	t, err := b.measure(ctx, f.rounds)
	if err != nil {
		return 0, err
	}
	t.print(os.Stdout)
	verdicts := t.verdicts()
	fmt.Fprintln(b.progress, "decoding and comparing what was made")
	checked, err := b.check(ctx, t)
	if err != nil {
		return 0, err
	}
	verdicts = append(verdicts, checked...)
	fmt.Println()
	return printVerdicts(os.Stdout, verdicts), nil
}

// prepare makes the source, the program and the plan. It returns what the source is.
func (b *bench) prepare(ctx context.Context, f flags) (origin string, err error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	if b.binary, err = filepath.Abs(f.binary); f.binary == "" {
		b.binary = filepath.Join(b.dir, "myrmidon")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", b.binary, "./cmd/myrmidon")
		build.Dir, build.Env, build.Stderr = root, append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
		err = build.Run()
	}
	if err != nil {
		return "", fmt.Errorf("build myrmidon: %w", err)
	}
	s := sourceMaker{ffmpeg: b.tools.FFmpeg, cache: filepath.Join(root, ".cache"), seconds: f.seconds, progress: b.progress}
	if b.source, origin, err = s.make(ctx, f.clip); err != nil {
		return "", err
	}
	info, err := os.Stat(b.source)
	if err != nil {
		return "", err
	}
	origin += fmt.Sprintf(" (%.1f MB, %.1f Mb/s in all)", float64(info.Size())/1e6, float64(info.Size())*8/1e6/f.seconds)
	b.plan, _, err = transcode.Inspect(ctx, b.tools, transcode.Spec{
		Source: b.source, Dest: b.dir, Name: "source", Product: transcode.Default(),
	})
	return origin, err
}

// moduleRoot is the folder of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", myrmidon.WithHint(fmt.Errorf("find the module: %w", err), "run it in the repository: make bench-transcode")
	}
	return strings.TrimSpace(string(out)), nil
}
