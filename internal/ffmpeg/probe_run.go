package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"myrmidon"
)

// Bounds of what is taken for a picture; H.264 level 6.2 ends at about the same area.
const (
	maxSide = 16384
	maxArea = 8192 * 8192
)

// probeMemory bounds ffprobe. The index of a 24-hour MP4 takes it about 200 MiB.
const probeMemory = 2 << 30

// Probe is [Tools.ProbeMedia] of the file at path.
func (t *Tools) Probe(ctx context.Context, path, dir string) (Probe, Outcome, error) {
	return t.ProbeMedia(ctx, Local(path), dir)
}

// ProbeMedia describes m by one run of ffprobe, which reads every packet of the file and
// decodes none but the first few.
//
// What cannot be transcoded at all is a permanent error that names the file and the
// remedy: not media (see [Sniff]), no moving pictures, absurd dimensions, no
// frame, an MP4 without its moov. What is there and damaged is described, with
// Probe.Damage set. ffprobe works in dir, a private folder of the caller's.
func (t *Tools) ProbeMedia(ctx context.Context, m *Media, dir string) (Probe, Outcome, error) {
	container, err := m.Sniff(ctx)
	if err != nil {
		return Probe{}, Outcome{}, err
	}
	size, err := m.size()
	if err != nil {
		return Probe{}, Outcome{}, err
	}
	missing := int64(0) // bytes that the last box wants beyond the file's end
	if container.Name == "mov" {
		boxes, err := m.topLevel(ctx)
		if err != nil {
			return Probe{}, Outcome{}, fmt.Errorf("ffmpeg: look for moov in %s: %w", m.name, err)
		}
		if !boxes.moov {
			return Probe{}, Outcome{}, broken(fmt.Errorf(
				"%s: moov is missing: the file is cut off or was never finished", m.name))
		}
		missing = boxes.missing
	}
	var scan probeScanner
	out, err := t.Run(ctx, Command{
		Probe:  true,
		Args:   append([]string{"-of", "compact", "-show_entries", probeEntries}, container.From(m)...),
		Media:  m,
		Dir:    dir,
		Stdout: &scan,
		Limits: Limits{
			Memory:   probeMemory,
			FileSize: 1, // it writes to a pipe only, which is no file
			// Two minutes, and a second for each 20 MB: ten times what transport
			// streams, the dearest to take apart, need.
			CPU:       2*time.Minute + time.Duration(size/20e6)*time.Second,
			OpenFiles: 64,
		},
	})
	if err != nil {
		return Probe{}, out, unreadable(m, err)
	}
	p, err := scan.probe(container, size, missing, out)
	if err != nil {
		return Probe{}, out, fmt.Errorf("%s: %w", m.name, err)
	}
	return p, out, nil
}

// unreadable says why ffprobe failed. What made it end by itself is in the file, and
// will be there at the next attempt.
func unreadable(m *Media, err error) error {
	var status *statusError
	if !errors.As(err, &status) {
		if m.Err() != nil {
			return err // it names m, and is not about what m holds
		}
		return fmt.Errorf("%s cannot be read as media: %w", m.name, err)
	}
	shown := m.url
	if m.server != nil {
		shown = m.name
	}
	reason := strings.ReplaceAll(status.Error(), shown+": ", "")
	return broken(fmt.Errorf("%s cannot be read as media: %s", m.name, reason))
}

// broken marks err as permanent, with the usual remedy for a damaged file.
func broken(err error) error { return myrmidon.Permanent(myrmidon.WithHint(err, hintBroken)) }

// probe assembles what the scan found.
func (s *probeScanner) probe(c Container, size, missing int64, out Outcome) (Probe, error) {
	p := Probe{Format: c.Name, Indexed: c.Indexed, Size: size}
	video, audio := s.choose()
	if video == nil {
		if audio != nil {
			return Probe{}, myrmidon.Permanent(myrmidon.WithHint(
				errors.New("it has no moving pictures: audio only; not supported yet"), hintAudio))
		}
		return Probe{}, broken(fmt.Errorf("it holds no video (%d streams)", len(s.streams)))
	}
	if audio != nil {
		p.Audio = s.audio(audio)
	}
	if err := s.video(&p, video); err != nil {
		return Probe{}, err
	}
	v := p.Video
	p.Duration = float64(v.End-v.Start) * v.TimeBase.Float()
	if p.Duration <= 0 {
		p.Duration = number(s.format["duration"])
	}
	if p.Duration > 0 {
		p.BitRate = int64(math.Round(float64(size) * 8 / p.Duration))
	}
	p.Damage = s.damage(c, video, p, missing, out)
	return p, nil
}

// choose returns the first video stream that is no cover picture, and the default
// (else the first) audio stream; nil for what there is not.
func (s *probeScanner) choose() (video, audio map[string]string) {
	for _, st := range s.streams {
		switch st["codec_type"] {
		case "video":
			if video == nil && st["disposition:attached_pic"] != "1" {
				video = st
			}
		case "audio":
			if s.tracks[integer(st["index"])] == nil || integer(st["channels"]) == 0 {
				continue // announced and empty
			}
			if audio == nil || st["disposition:default"] == "1" && audio["disposition:default"] != "1" {
				audio = st
			}
		}
	}
	return video, audio
}

// video fills in p.Video.
func (s *probeScanner) video(p *Probe, st map[string]string) error {
	v := &Video{
		Index:       int(integer(st["index"])),
		Codec:       st["codec_name"],
		Width:       int(integer(st["width"])),
		Height:      int(integer(st["height"])),
		Rotation:    clockwise(st["rotation"]),
		SAR:         fraction(st["sample_aspect_ratio"]),
		PixelFormat: known(st["pix_fmt"]),
		Range:       known(st["color_range"]),
		Matrix:      known(st["color_space"]),
		Primaries:   known(st["color_primaries"]),
		Transfer:    known(st["color_transfer"]),
		TimeBase:    fraction(st["time_base"]),
		BFrames:     integer(st["has_b_frames"]) > 0,
	}
	switch st["field_order"] {
	case "tt", "bb", "tb", "bt":
		v.Interlaced = true
	}
	if v.SAR.Num <= 0 || v.SAR.Den <= 0 {
		v.SAR = Rational{1, 1}
	}
	if v.Codec == "" || v.Codec == "unknown" || v.Codec == "none" {
		return myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("its video codec (tag %q) is not known to this ffmpeg", st["codec_tag_string"]),
			"install a newer or more complete ffmpeg, or convert the file first"))
	}
	w, h := v.Width, v.Height
	if w <= 0 || h <= 0 || w > maxSide || h > maxSide || w*h > maxArea {
		return myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("its pictures are %dx%d, which cannot be", w, h),
			fmt.Sprintf("pictures have 1 to %d pixels a side, and %d Mpx at most", maxSide, maxArea/1_000_000)))
	}
	var stamps []stamp
	if t := s.tracks[int64(v.Index)]; t != nil {
		stamps = t.stamps
	}
	t, err := analyse(stamps, timingHints{
		timeBase:   v.TimeBase,
		real:       fraction(st["r_frame_rate"]),
		mean:       fraction(st["avg_frame_rate"]),
		delay:      min(max(integer(st["has_b_frames"]), 0), 16), // H.264 and HEVC hold back 16 at most
		interlaced: v.Interlaced,
	})
	if err != nil {
		return broken(err)
	}
	v.Start, v.End, v.Frames = t.start, t.end, t.frames
	v.Rate, v.Variable, v.Slots = t.rate, t.variable, t.slots
	v.Keyframes, v.KeyGap, v.LeadIn = t.keyframes, t.keyGap, t.leadIn
	p.Video = v
	return nil
}

// audio describes an audio stream that has packets.
func (s *probeScanner) audio(st map[string]string) *Audio {
	a := &Audio{
		Index:      int(integer(st["index"])),
		Codec:      st["codec_name"],
		SampleRate: int(max(integer(st["sample_rate"]), 0)),
		Channels:   int(integer(st["channels"])),
		Layout:     known(st["channel_layout"]),
		Language:   language(st["tag:language"]),
		TimeBase:   fraction(st["time_base"]),
	}
	t := s.tracks[int64(a.Index)]
	if t.first == noTime || a.TimeBase.Num <= 0 || a.TimeBase.Den <= 0 {
		return a
	}
	a.Start = t.first
	if t.firstSkip > 0 && a.SampleRate > 0 && t.firstSkip < int64(a.SampleRate) {
		// Priming within the first shown packet (Opus in Matroska).
		a.Start += int64(math.Round(float64(t.firstSkip) / float64(a.SampleRate) / a.TimeBase.Float()))
	}
	if seconds := float64(t.last-a.Start) * a.TimeBase.Float(); seconds > 0 && seconds <= maxHours*3600 {
		a.Samples = int64(math.Round(seconds * float64(a.SampleRate)))
	}
	return a
}

// damage says in a few words what is wrong with the file, or "".
func (s *probeScanner) damage(c Container, st map[string]string, p Probe, missing int64, out Outcome) string {
	t := s.tracks[int64(p.Video.Index)]
	have, want := t.packets, integer(st["nb_frames"])
	short := have < want && want-have > want/50 && float64(want-have)/p.Video.Rate.Float() > 1
	switch {
	case missing > 0 && have < want:
		return fmt.Sprintf("cut off: %d of %d frames are in the file", have-t.corrupt, want)
	case missing > 0:
		return fmt.Sprintf("cut off: the file's last %d bytes are missing", missing)
	case c.Name == "avi" && short:
		return fmt.Sprintf("cut off: %d of %d frames are in the file", have-t.corrupt, want)
	}
	// Other containers say at most how long they are. The longest stream counts:
	// the pictures may rightly end before the sound.
	claimed, read := number(s.format["duration"]), s.lastSecond()
	if c.Name != "mov" && claimed-read > 1 && claimed-read > claimed/50 {
		return fmt.Sprintf("cut off: %.1f of %.1f seconds are in the file", max(read, 0), claimed)
	}
	for _, complaint := range out.Damage {
		// A recording of a broadcast rightly begins between keyframes.
		if strings.Contains(complaint, "non-existing") || strings.Contains(complaint, "no frame!") {
			continue
		}
		if out.Damaged == 1 {
			return "damaged: " + complaint
		}
		return fmt.Sprintf("damaged: %s (and %d complaints more)", complaint, out.Damaged-1)
	}
	return ""
}

// lastSecond is where the last packet of any stream ends, seconds.
func (s *probeScanner) lastSecond() float64 {
	last := 0.0
	for _, st := range s.streams {
		t, tb := s.tracks[integer(st["index"])], fraction(st["time_base"])
		if t != nil && t.last != noTime && tb.Num > 0 && tb.Den > 0 {
			last = max(last, float64(t.last)*tb.Float())
		}
	}
	return last
}

// clockwise turns ffprobe's rotation (degrees counter-clockwise, of the display
// matrix) into what has to be done to show the picture: 0, 90, 180 or 270 degrees
// clockwise. Other angles are taken for the nearest of these.
func clockwise(rotation string) int {
	quarters := math.Round(number(rotation) / 90)
	return ((-int(quarters)%4 + 4) % 4) * 90
}

// known is s unless that says that nothing is known.
func known(s string) string {
	switch s {
	case "unknown", "unspecified", "reserved", "none":
		return ""
	}
	return s
}

// language is a tag of letters, digits and dashes (BCP 47, ISO 639) of sane length;
// "und" and anything else is no language.
func language(s string) string {
	if s == "und" || len(s) > 35 {
		return ""
	}
	for _, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' {
			return ""
		}
	}
	return s
}

// integer parses what ffprobe prints; 0 for what is missing.
func integer(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// number parses a decimal fraction; 0 for what is missing or not finite.
func number(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || math.Abs(f) > 1e12 {
		return 0
	}
	return f
}

// fraction parses "24000/1001" or "1:1"; 0/1 for what is missing.
func fraction(s string) Rational {
	i := strings.IndexAny(s, "/:")
	if i < 0 {
		return Rational{0, 1}
	}
	r := Rational{integer(s[:i]), integer(s[i+1:])}
	if r.Den <= 0 || r.Num < 0 {
		return Rational{0, 1}
	}
	return r
}
