package transcode

import (
	"fmt"
	"strconv"
	"strings"

	"myrmidon/internal/ffmpeg"
)

// fragmented makes MP4 that can be cut between fragments. B frames make decoding begin
// before the first picture is shown, by as much in every chunk; an edit list in the
// init segment, the same for all chunks, says by how much (delay_moov: it is known
// only after the first packets). The other way, negative composition offsets
// without an edit list, is as right for browsers, but ffmpeg and all that is built on it
// then show pictures late by the delay, 83 ms at 24 frames a second.
const fragmented = "+frag_keyframe+empty_moov+delay_moov+default_base_moof"

// reader is the part of the command that opens the source. Time stamps are the
// container's own (-copyts), and a seek target is in them (-seek_timestamp), so that a
// frame's place on the grid does not depend on where reading began. Without
// -noaccurate_seek ffmpeg would drop frames by its own reckoning.
func (p *Plan) reader(m *ffmpeg.Media, seek *float64) []string {
	args := []string{"-copyts"}
	if seek != nil {
		args = append(args, "-noaccurate_seek", "-seek_timestamp", "1",
			"-ss", strconv.FormatFloat(*seek, 'f', 6, 64))
	}
	args = append(args, "-threads", "1")
	return append(args, p.Input.Container.From(m)...)
}

// frames is the filter chain that puts decoded frames on the grid: afterwards a frame's
// time stamp is its number, in a time base of one frame.
//
// Where the source ticks evenly, settb rounds each time stamp to its slot (Matroska
// has only milliseconds), and a frame that the decoder could not give is missing
// and counted as such. Elsewhere the fps filter fills every slot. At the end of the
// file it may stop a slot early, since not all containers know how long the last frame
// lasts: tail clones the last frame there.
func (p *Plan) frames(tail bool) string {
	in := &p.Input
	start := strconv.FormatInt(in.Start, 10)
	if in.Relative {
		start = "STARTPTS"
	}
	chain := fmt.Sprintf("[0:%d]setpts=PTS-(%s)", in.Stream, start)
	if in.Deinterlace {
		chain += ",bwdif=mode=send_frame:parity=auto:deint=all"
	}
	if in.Resample {
		chain += fmt.Sprintf(",fps=fps=%d/%d:round=near", p.Rate.Num, p.Rate.Den)
		if tail {
			chain += ",tpad=stop_mode=clone:stop=2"
		}
		return chain
	}
	return chain + fmt.Sprintf(",settb=%d/%d", p.Rate.Den, p.Rate.Num)
}

// graph is the whole filter graph of a chunk, with an output [v0], [v1], … for
// each rendition. Each size is scaled from the one before it, which costs a tenth
// less than scaling all from the source and is as good.
// Scaling is bicubic: cheaper kernels saved less than the noise of measuring.
func (p *Plan) graph(c Chunk) string {
	in := &p.Input
	last := c.First+c.Frames == p.Frames
	// trim ends the graph's input after the last frame, which ends ffmpeg: what lies
	// beyond is not read.
	chain := p.frames(last) + fmt.Sprintf(",trim=start_pts=%d:end_pts=%d,setpts=PTS-%d",
		c.First, c.First+c.Frames, c.First)
	var b strings.Builder
	b.WriteString(chain)
	for i, r := range p.Renditions {
		if i > 0 {
			fmt.Fprintf(&b, ";[s%d]", i)
		} else {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "scale=w=%d:h=%d:flags=bicubic", r.Width, r.Height)
		if i == 0 {
			if in.FullRange {
				b.WriteString(":in_range=pc")
			}
			if in.RGB {
				fmt.Fprintf(&b, ":out_color_matrix=%s", in.Matrix)
			}
			b.WriteString(":out_range=tv,format=yuv420p")
			fmt.Fprintf(&b, ",setparams=range=tv:color_primaries=%s:color_trc=%s:colorspace=%s",
				in.Primaries, in.Transfer, in.Matrix)
		}
		b.WriteString(",setsar=1")
		if i < len(p.Renditions)-1 {
			fmt.Fprintf(&b, ",split[v%d][s%d]", i, i+1)
		} else {
			fmt.Fprintf(&b, "[v%d]", i)
		}
	}
	return b.String()
}

// encodeArgs encodes one chunk at every size, into RENDITION.mp4 in the working
// directory. One thread each: with more, x264's output depends on timing.
func (p *Plan) encodeArgs(m *ffmpeg.Media, c Chunk) []string {
	args := []string{"-filter_threads", "1", "-filter_complex_threads", "1"}
	args = append(args, p.reader(m, c.Seek)...)
	args = append(args, "-filter_complex", p.graph(c))
	segment := strconv.FormatInt(p.SegmentFrames, 10)
	// The grid itself is the encoder's clock: by default ffmpeg would take the
	// source's nominal rate, which some containers only guess.
	frame := fmt.Sprintf("%d:%d", p.Rate.Den, p.Rate.Num)
	for i, r := range p.Renditions {
		args = append(args,
			"-map", fmt.Sprintf("[v%d]", i),
			"-fps_mode", "passthrough", "-enc_time_base", frame,
			"-c:v", "libx264", "-threads", "1", "-preset", p.Preset, "-profile:v", r.Profile,
			"-crf", strconv.FormatFloat(r.CRF, 'f', -1, 64),
			"-maxrate", fmt.Sprintf("%dk", r.MaxRate), "-bufsize", fmt.Sprintf("%dk", r.BufSize),
			"-g", segment, "-keyint_min", segment, "-sc_threshold", "0",
			"-x264-params", fmt.Sprintf("open-gop=0:fps=%d/%d", p.Rate.Num, p.Rate.Den),
			"-flags:v", "+bitexact",
		)
		args = append(args, p.muxer(r.Name)...)
	}
	return args
}

// muxer is the part of the command that writes one fragmented file.
func (p *Plan) muxer(name string) []string {
	return []string{
		"-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact",
		"-video_track_timescale", strconv.FormatInt(p.Timescale, 10),
		"-f", "mp4", "-movflags", fragmented, outputFile(name),
	}
}

// outputFile is where a rendition is written. The "./" keeps ffmpeg from reading a
// protocol or an option into a name.
func outputFile(name string) string { return "./" + name + ".mp4" }

// audioArgs encodes the sound into audio.mp4. The first picture's time is 0: sound
// before it is cut off, a later beginning and gaps are filled with silence, to the
// sample. An edit list in the init segment tells players to skip the encoder's
// priming (delay_moov: it is known only after the first packet).
func (p *Plan) audioArgs(m *ffmpeg.Media) []string {
	a := p.Audio
	layout := "stereo"
	if a.Channels == 1 {
		layout = "mono"
	}
	// A filter's TB is a sample, whatever the container counts in.
	filter := fmt.Sprintf("[0:%d]asetpts=round(PTS-(%d/%d)/TB),aresample=%d:async=1:first_pts=0,"+
		"aformat=sample_fmts=fltp:channel_layouts=%s[a]", a.Stream, a.Origin.Num, a.Origin.Den, a.SampleRate, layout)
	args := []string{"-filter_threads", "1", "-filter_complex_threads", "1"}
	args = append(args, p.reader(m, nil)...)
	return append(args,
		"-filter_complex", filter, "-map", "[a]",
		"-c:a", "aac", "-threads", "1", "-b:a", fmt.Sprintf("%dk", a.Bitrate), "-flags:a", "+bitexact",
		"-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact",
		"-f", "mp4", "-movflags", "+empty_moov+delay_moov+default_base_moof",
		"-frag_duration", "4000000", outputFile(audioFolder))
}

// locateArgs decodes a chunk into a list of the frames that came out whole: the
// decoder drops what it would otherwise conceal.
func (p *Plan) locateArgs(m *ffmpeg.Media, c Chunk) []string {
	args := append([]string{"-err_detect", "explode", "-flags", "-output_corrupt"}, p.reader(m, c.Seek)...)
	graph := p.frames(false) + fmt.Sprintf(",trim=start_pts=%d:end_pts=%d,scale=w=16:h=16[v]", c.First, c.First+c.Frames)
	return append(args, "-filter_complex", graph, "-map", "[v]", "-fps_mode", "passthrough",
		"-enc_time_base", fmt.Sprintf("%d:%d", p.Rate.Den, p.Rate.Num), "-f", "framecrc", "pipe:1")
}
