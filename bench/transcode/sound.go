package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

const (
	// soundWindow is the length of sound that is compared at once, and soundReach how
	// far it is moved to either side, samples. Reach is two packets of AAC and more.
	soundWindow = 48000
	soundReach  = 2400
	// audible is the least effective value of a window that says something of its
	// place, of a full scale of 1: -60 dB.
	audible = 0.001
	// seamReach is how far from a boundary a click is looked for, samples: a packet of
	// AAC and the one that overlaps it, to each side.
	seamReach = 2048
)

// checkSound compares A's sound and C's with the source's.
func (b *bench) checkSound(ctx context.Context, t *table) ([]verdict, error) {
	reference, err := b.samples(ctx, b.source, b.source)
	if err != nil {
		return nil, err
	}
	offset := verdict{what: "offset of A's sound", target: "0 samples in every window", pass: true}
	click := verdict{what: "largest jump of the error of A's sound", target: "at seams no more than elsewhere"}
	ours, peer, smallest := t.runs[0][0], t.dirs[2][0], b.plan.Renditions[len(b.plan.Renditions)-1].Name
	for _, x := range []struct {
		ours            bool
		sound, pictures string // playlists
	}{
		{true, ours.playlist(t.dirs[0][0], "audio"), ours.playlist(t.dirs[0][0], smallest)},
		{false, peerPlaylist(peer, "audio"), peerPlaylist(peer, smallest)},
	} {
		sound, err := b.samples(ctx, x.sound, x.pictures)
		if err != nil {
			return nil, err
		}
		offsets, likeness, err := offsetsOf(sound, reference, soundWindow, soundReach)
		if err != nil {
			return nil, err
		}
		text := fmt.Sprintf("%d to %d in %d windows (correlation from %.4f), %+d samples long",
			slices.Min(offsets), slices.Max(offsets), len(offsets), likeness, len(sound)-len(reference))
		if !x.ours {
			offset.got += "; C: " + text
			continue
		}
		offset.got = text
		offset.pass = slices.Min(offsets) == 0 && slices.Max(offsets) == 0
		at, elsewhere := jumps(sound, reference, b.boundaries())
		click.got = fmt.Sprintf("%.4f at seams, %.4f elsewhere", at, elsewhere)
		click.pass = at <= elsewhere
	}
	return []verdict{offset, click}, nil
}

// boundaries are the samples at which pictures' segments begin; sound's are cut at the
// nearest packet. The stream's beginning is none.
func (b *bench) boundaries() []int {
	var out []int
	for k := int64(1); k < int64(b.plan.Segments); k++ {
		at := k * b.plan.SegmentFrames * b.plan.Rate.Den * int64(b.plan.Audio.SampleRate) / b.plan.Rate.Num
		out = append(out, int(at))
	}
	return out
}

// samples decodes the sound at path, mixed to one channel at the product's rate, from
// the first picture of pictures on: what is missing there is silence, what is before
// it is left out. (ffmpeg's own HLS begins both later than 0, by the encoder's delay.)
func (b *bench) samples(ctx context.Context, path, pictures string) ([]float32, error) {
	lie, err := b.timing(ctx, pictures)
	if err != nil {
		return nil, err
	}
	rate := strconv.Itoa(b.plan.Audio.SampleRate)
	filter := fmt.Sprintf("asetpts=PTS-(%.9f/TB),aresample=%s:async=1:first_pts=0", lie.first, rate)
	raw, err := b.ask(ctx, b.dir, "-copyts", "-i", path, "-map", "0:a:0", "-af", filter, "-ac", "1", "-f", "f32le", "-")
	if err != nil {
		return nil, err
	}
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out, nil
}

// offsetsOf finds by how many samples sound lies later than reference, at most reach,
// in windows of length samples over the whole length that are not silent, and the least
// correlation in its place.
func offsetsOf(sound, reference []float32, length, reach int) (offsets []int, likeness float64, err error) {
	likeness = 1
	for from := reach; from+length+reach <= min(len(sound), len(reference)); from += length {
		window := reference[from : from+length]
		if math.Sqrt(dot(window, window)/float64(length)) < audible {
			continue
		}
		best, most := 0, math.Inf(-1)
		for lag := -reach; lag <= reach; lag++ {
			moved := sound[from+lag : from+lag+length]
			c := dot(window, moved) / math.Sqrt(dot(window, window)*dot(moved, moved)+1e-12)
			if c > most {
				best, most = lag, c
			}
		}
		offsets = append(offsets, best)
		likeness = min(likeness, most)
	}
	if len(offsets) == 0 {
		return nil, 0, errors.New("the sound is silent or too short to find its place: use another -clip")
	}
	return offsets, likeness, nil
}

// dot is the inner product of two slices of the same length.
func dot(a, b []float32) float64 {
	var sum [4]float64 // four chains, so that additions need not wait for one another
	i := 0
	for ; i+4 <= len(a) && i+4 <= len(b); i += 4 {
		sum[0] += float64(a[i]) * float64(b[i])
		sum[1] += float64(a[i+1]) * float64(b[i+1])
		sum[2] += float64(a[i+2]) * float64(b[i+2])
		sum[3] += float64(a[i+3]) * float64(b[i+3])
	}
	for ; i < len(a); i++ {
		sum[0] += float64(a[i]) * float64(b[i])
	}
	return sum[0] + sum[1] + sum[2] + sum[3]
}

// jumps are the largest steps, from one sample to the next, of the difference between
// sound and reference: near the boundaries, and everywhere else. A click is a step that
// the reference does not have.
func jumps(sound, reference []float32, boundaries []int) (at, elsewhere float64) {
	n := min(len(sound), len(reference))
	for i := 1; i < n; i++ {
		step := math.Abs(float64(sound[i]) - float64(reference[i]) - float64(sound[i-1]) + float64(reference[i-1]))
		near := false
		for _, b := range boundaries {
			near = near || i >= b-seamReach && i <= b+seamReach
		}
		if near {
			at = max(at, step)
		} else {
			elsewhere = max(elsewhere, step)
		}
	}
	return at, elsewhere
}
