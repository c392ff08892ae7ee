package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"myrmidon/engine"
	"myrmidon/internal/transcode"
)

// way is one way to make the ladder.
type way struct {
	key, name string
	// run makes the ladder in dir, which exists and is empty.
	run func(ctx context.Context, dir string) (result, error)
}

// result is what a way took and, for our own command, what it said.
type result struct {
	usage
	report *engine.Report
	output *transcode.Output
}

// ways are all ways, in the order in which a round takes them.
func (b *bench) ways() []way {
	return []way{
		{"A", "myrmidon transcode", b.ours},
		{"B", "ffmpeg, one run a rung", b.perRung},
		{"C", "ffmpeg, one run, chained", func(ctx context.Context, dir string) (result, error) {
			return b.ffmpegs(ctx, dir, b.oneRun(b.chained()))
		}},
		{"C-split", "ffmpeg, one run, split", func(ctx context.Context, dir string) (result, error) {
			return b.ffmpegs(ctx, dir, b.oneRun(b.split()))
		}},
	}
}

// ours runs the command that users run.
func (b *bench) ours(ctx context.Context, dir string) (result, error) {
	stdout, u, err := runMetered(ctx, dir, []string{
		b.binary, "transcode", b.source, "--to", outputOf(dir), "--name", "stream",
		"--state", filepath.Join(dir, "state"), "--json",
	})
	r := result{usage: u, report: new(engine.Report), output: new(transcode.Output)}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(stdout, r.report); err != nil {
		return r, fmt.Errorf("read myrmidon's report: %w", err)
	}
	if len(r.report.Outputs) == 0 {
		return r, errors.New("myrmidon's report names no output")
	}
	if err := json.Unmarshal(r.report.Outputs[len(r.report.Outputs)-1], r.output); err != nil {
		return r, fmt.Errorf("read myrmidon's report: %w", err)
	}
	return r, nil
}

// outputOf is where our command writes to, below a run's folder.
func outputOf(dir string) string { return filepath.Join(dir, "out") }

// playlist is the media playlist of our rendition (or "audio").
func (r result) playlist(dir, rendition string) string {
	stream := filepath.Join(outputOf(dir), "stream", "hls", r.output.Version)
	return filepath.Join(stream, rendition, "media.m3u8")
}

// peerPlaylist is the media playlist of a rendition that oneRun wrote.
func peerPlaylist(dir, rendition string) string { return filepath.Join(dir, rendition, "media.m3u8") }

// ffmpegs runs ffmpeg with each argument list in turn.
func (b *bench) ffmpegs(ctx context.Context, dir string, lists ...[]string) (result, error) {
	var r result
	for _, args := range lists {
		argv := append([]string{b.tools.FFmpeg, "-nostdin", "-v", "error", "-y"}, args...)
		_, u, err := runMetered(ctx, dir, argv)
		r.add(u)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// perRung is what users write: one command a rung.
func (b *bench) perRung(ctx context.Context, dir string) (result, error) {
	var lists [][]string
	for _, r := range b.plan.Renditions {
		if err := os.Mkdir(filepath.Join(dir, r.Name), 0o755); err != nil {
			return result{}, err
		}
		args := []string{
			"-i", b.source, "-map", "0:v:0", "-map", "0:a:0",
			"-vf", fmt.Sprintf("scale=%d:%d:flags=bicubic,format=yuv420p", r.Width, r.Height),
		}
		args = append(args, b.x264("v", r)...)
		args = append(args, b.aac()...)
		args = append(args, b.hls(r.Name)...)
		lists = append(lists, args)
	}
	return b.ffmpegs(ctx, dir, lists...)
}

// oneRun is one command for all rungs, by graph, each encoder with one thread.
func (b *bench) oneRun(graph string) []string {
	args := []string{
		"-filter_threads", "1", "-filter_complex_threads", "1", "-threads", "1",
		"-i", b.source, "-filter_complex", graph,
	}
	var streams []string
	for i, r := range b.plan.Renditions {
		args = append(args, "-map", fmt.Sprintf("[v%d]", i))
		args = append(args, b.x264(fmt.Sprintf("v:%d", i), r)...)
		args = append(args, fmt.Sprintf("-threads:v:%d", i), "1")
		streams = append(streams, fmt.Sprintf("v:%d,agroup:sound,name:%s", i, r.Name))
	}
	args = append(args, "-map", "0:a:0")
	args = append(args, b.aac()...)
	streams = append(streams, "a:0,agroup:sound,name:audio")
	args = append(args, "-var_stream_map", strings.Join(streams, " "), "-master_pl_name", "master.m3u8")
	return append(args, b.hls("%v")...)
}

// chained scales each size from the one before it, as our command does.
func (b *bench) chained() string {
	var g strings.Builder
	g.WriteString("[0:v:0]")
	last := len(b.plan.Renditions) - 1
	for i, r := range b.plan.Renditions {
		fmt.Fprintf(&g, "scale=%d:%d:flags=bicubic,format=yuv420p", r.Width, r.Height)
		if i == last {
			fmt.Fprintf(&g, "[v%d]", i)
		} else {
			fmt.Fprintf(&g, ",split[v%d][s%d];[s%d]", i, i, i)
		}
	}
	return g.String()
}

// split scales each size from the source.
func (b *bench) split() string {
	var g strings.Builder
	fmt.Fprintf(&g, "[0:v:0]split=%d", len(b.plan.Renditions))
	for i := range b.plan.Renditions {
		fmt.Fprintf(&g, "[s%d]", i)
	}
	for i, r := range b.plan.Renditions {
		fmt.Fprintf(&g, ";[s%d]scale=%d:%d:flags=bicubic,format=yuv420p[v%d]", i, r.Width, r.Height, i)
	}
	return g.String()
}

// x264 are the encoder's settings for output stream spec, the same as our command's.
func (b *bench) x264(stream string, r transcode.Rendition) []string {
	gop := strconv.FormatInt(b.plan.SegmentFrames, 10)
	pairs := []string{
		"-c", "libx264", "-preset", b.plan.Preset, "-profile", r.Profile,
		"-crf", strconv.FormatFloat(r.CRF, 'f', -1, 64),
		"-maxrate", fmt.Sprintf("%dk", r.MaxRate), "-bufsize", fmt.Sprintf("%dk", r.BufSize),
		"-g", gop, "-keyint_min", gop, "-sc_threshold", "0",
	}
	args := slices.Clone(pairs)
	for i := 0; i < len(args); i += 2 {
		args[i] += ":" + stream
	}
	return args
}

func (b *bench) aac() []string {
	a := b.plan.Audio
	return []string{
		"-c:a", "aac", "-b:a", fmt.Sprintf("%dk", a.Bitrate),
		"-ar", strconv.Itoa(a.SampleRate), "-ac", strconv.Itoa(a.Channels),
	}
}

// hls writes fragmented MP4 and a playlist into folder.
func (b *bench) hls(folder string) []string {
	return []string{
		"-f", "hls", "-hls_time", strconv.FormatFloat(b.plan.SegmentSeconds(), 'f', -1, 64),
		"-hls_playlist_type", "vod", "-hls_segment_type", "fmp4", "-hls_flags", "independent_segments",
		"-hls_fmp4_init_filename", "init.mp4", "-hls_segment_filename", folder + "/%05d.m4s",
		folder + "/media.m3u8",
	}
}
