package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// targetQuality is how far A may be below C, of 100.
const targetQuality = 0.1

// checkPictures decodes every rendition of A and of C.
func (b *bench) checkPictures(ctx context.Context, t *table) ([]verdict, error) {
	frames := verdict{what: "frames of each rendition of A", target: fmt.Sprintf("%d", b.plan.Frames), pass: true}
	times := verdict{what: "distances between A's frames", got: "all one frame, from 0 s", target: "all one frame, from 0 s", pass: true}
	ours, peer := t.runs[0][0], t.dirs[2][0]
	var counts, counterparts, uneven []string
	for _, r := range b.plan.Renditions {
		timing, err := b.timing(ctx, ours.playlist(t.dirs[0][0], r.Name))
		if err != nil {
			return nil, err
		}
		counts = append(counts, strconv.Itoa(timing.frames))
		frames.pass = frames.pass && int64(timing.frames) == b.plan.Frames
		if !timing.constant(b.plan.Rate.Num, b.plan.Rate.Den) || math.Abs(timing.first) > 1e-6 {
			uneven = append(uneven, fmt.Sprintf("%s: %d distances, from %.4f s", r.Name, len(timing.deltas), timing.first))
		}
		if timing, err = b.timing(ctx, peerPlaylist(peer, r.Name)); err != nil {
			return nil, err
		}
		counterparts = append(counterparts, strconv.Itoa(timing.frames))
	}
	frames.got = strings.Join(counts, ", ") + " (C: " + strings.Join(counterparts, ", ") + ")"
	if len(uneven) > 0 {
		times.got, times.pass = strings.Join(uneven, "; "), false
	}
	likeness, err := b.checkLikeness(ctx, t)
	return append([]verdict{frames, times}, likeness...), err
}

// timing decodes the pictures of a playlist and returns how they lie in time.
func (b *bench) timing(ctx context.Context, playlist string) (timing, error) {
	// -copyts keeps the stream's own times, as a player of pictures and sound sees
	// them; a decoded picture is passed on as a reference, never copied.
	out, err := b.ask(ctx, b.dir, "-copyts", "-i", playlist, "-map", "0:v:0", "-fps_mode", "passthrough",
		"-enc_time_base", "-1", "-c:v", "wrapped_avframe", "-f", "framecrc", "-")
	if err != nil {
		return timing{}, err
	}
	return parseTiming(out)
}

// metric is a filter that compares pictures and writes a line a frame.
type metric struct {
	name   string
	filter string // with %s for the file that it writes
	parse  func([]byte) ([]float64, error)
}

func (b *bench) metric(ctx context.Context) (metric, error) {
	list, err := b.ask(ctx, b.dir, "-filters")
	if err != nil {
		return metric{}, err
	}
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == "libvmaf" {
			return metric{"VMAF", "libvmaf=log_fmt=csv:log_path=%s", parseVMAF}, nil
		}
	}
	return metric{"SSIM x 100", "ssim=stats_file=%s", parseSSIM}, nil
}

// checkLikeness compares A's and C's pictures with the source, frame by frame, at every
// size. All is done by one process, since decoding the source costs most.
func (b *bench) checkLikeness(ctx context.Context, t *table) ([]verdict, error) {
	m, err := b.metric(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{"-i", b.source}
	var g strings.Builder
	// Pictures are paired by their number: times have been checked by themselves.
	number := fmt.Sprintf("settb=%d/%d,setpts=N", b.plan.Rate.Den, b.plan.Rate.Num)
	fmt.Fprintf(&g, "[0:v:0]%s,split=%d", number, len(b.plan.Renditions))
	for i := range b.plan.Renditions {
		fmt.Fprintf(&g, "[s%d]", i)
	}
	var outputs []string
	logs := [2]string{"likeness-A-%s.log", "likeness-C-%s.log"}
	for i, r := range b.plan.Renditions {
		fmt.Fprintf(&g, ";[s%d]scale=%d:%d:flags=bicubic,format=yuv420p,split[r%d][q%d]", i, r.Width, r.Height, i, i)
		a, c := 2*i+1, 2*i+2
		args = append(args, "-i", t.runs[0][0].playlist(t.dirs[0][0], r.Name), "-i", peerPlaylist(t.dirs[2][0], r.Name))
		fmt.Fprintf(&g, ";[%d:v:0]%s[a%d];[a%d][r%d]"+m.filter+"[x%d]", a, number, i, i, i, fmt.Sprintf(logs[0], r.Name), i)
		fmt.Fprintf(&g, ";[%d:v:0]%s[c%d];[c%d][q%d]"+m.filter+"[y%d]", c, number, i, i, i, fmt.Sprintf(logs[1], r.Name), i)
		for _, pad := range []string{"x", "y"} {
			outputs = append(outputs, "-map", fmt.Sprintf("[%s%d]", pad, i))
		}
	}
	args = append(append(args, "-filter_complex", g.String()), outputs...)
	if _, err := b.ask(ctx, b.dir, append(args, "-f", "null", "-")...); err != nil {
		return nil, err
	}
	var verdicts []verdict
	for _, r := range b.plan.Renditions {
		var scores [2][]float64
		for k := range logs {
			raw, err := os.ReadFile(filepath.Join(b.dir, fmt.Sprintf(logs[k], r.Name)))
			if err != nil {
				return nil, err
			}
			if scores[k], err = m.parse(raw); err != nil {
				return nil, fmt.Errorf("%s of %s: %w", m.name, r.Name, err)
			}
		}
		verdicts = append(verdicts, b.compare(m.name+" of "+r.Name, scores[0], scores[1]))
	}
	return verdicts, nil
}

// compare compares the frames' scores of A with those of C. A frame that is shown in
// another's place costs many points where things move, so the worst frame is told too.
func (b *bench) compare(what string, ours, peer []float64) verdict {
	v := verdict{what: what + ", A against C", target: fmt.Sprintf("at most %.1f below", targetQuality)}
	if len(ours) != len(peer) || len(ours) == 0 {
		v.got = fmt.Sprintf("%d frames against %d", len(ours), len(peer))
		return v
	}
	worst, at := math.Inf(1), 0
	for i := range ours {
		if d := ours[i] - peer[i]; d < worst {
			worst, at = d, i
		}
	}
	seams := "no seam"
	for i, c := range b.plan.Chunks[1:] {
		if i == 0 {
			seams = "seams at"
		}
		seams += " " + strconv.FormatInt(c.First, 10)
	}
	difference := mean(ours) - mean(peer)
	v.got = fmt.Sprintf("%.3f against %.3f: %+.3f; worst frame %+.2f at %d (%s)",
		mean(ours), mean(peer), difference, worst, at, seams)
	v.pass = difference >= -targetQuality
	return v
}

func mean(v []float64) float64 {
	var sum float64
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// parseSSIM reads lines such as "n:1 Y:0.98 U:0.99 V:0.99 All:0.985 (18.2)".
func parseSSIM(raw []byte) ([]float64, error) {
	var out []float64
	for line := range strings.Lines(string(raw)) {
		_, rest, ok := strings.Cut(line, "All:")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			return nil, fmt.Errorf("%q is no line of the ssim filter", line)
		}
		x, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return nil, err
		}
		out = append(out, 100*x)
	}
	return out, nil
}

// parseVMAF reads libvmaf's CSV: a header that names the columns, and a line a frame.
func parseVMAF(raw []byte) ([]float64, error) {
	column := -1
	var out []float64
	for line := range strings.Lines(string(raw)) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		if column < 0 {
			for i, f := range fields {
				if f == "vmaf" {
					column = i
				}
			}
			if column < 0 {
				return nil, errors.New("the log has no column vmaf")
			}
			continue
		}
		if column >= len(fields) {
			return nil, fmt.Errorf("%q has no column %d", line, column)
		}
		x, err := strconv.ParseFloat(fields[column], 64)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}
