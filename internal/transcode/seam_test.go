package transcode

import (
	"fmt"
	"strings"
	"testing"

	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/testkit/long"
)

// seamSources are files whose keyframes lie in all the ways that make seeking hard.
func seamSources(t *testing.T) map[string]string {
	const seconds = 9
	film := lavfi("160x90", "24", seconds)
	ntsc := lavfi("160x90", "24000/1001", seconds)
	open := clip(t, "open.mp4", join(film, []string{
		"-c:v", "libx264", "-preset", "ultrafast", "-g", "35", "-bf", "3",
		"-x264-params", "open-gop=1:b-adapt=0:scenecut=0", "-pix_fmt", "yuv420p",
	})...)
	variable := clip(t, "variable.mp4", join(lavfi("160x90", "30", seconds), []string{
		"-vf", `select=not(mod(n\,7))+gt(mod(n\,5)\,1)`, "-fps_mode", "vfr",
	}, fast("-g", "40", "-bf", "2"))...)
	return map[string]string{
		"open groups of pictures in MP4":          open,
		"open groups of pictures in Matroska":     clip(t, "open.mkv", "-i", open, "-c", "copy"),
		"an edit list that cuts the beginning":    clip(t, "edit.mp4", "-ss", "1.3", "-i", open, "-c", "copy"),
		"a beginning that is not 0, milliseconds": clip(t, "late.mkv", join(ntsc, fast("-g", "50", "-bf", "3", "-output_ts_offset", "7.3"))...),
		"a beginning that is not 0, MP4":          clip(t, "late.mp4", join(ntsc, fast("-g", "50", "-bf", "3", "-output_ts_offset", "1.4"))...),
		"only keyframes":                          clip(t, "intra.mp4", join(film, fast("-g", "1"))...),
		"VP8 in WebM":                             clip(t, "v.webm", join(film, []string{"-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "50"})...),
		"a variable rate in MP4":                  variable,
		"a variable rate in Matroska":             clip(t, "variable.mkv", "-i", variable, "-c", "copy"),
		"interlaced":                              clip(t, "fields.mp4", join(lavfi("160x96", "25", seconds), fast("-g", "25", "-bf", "2", "-flags", "+ilme+ildct", "-x264-params", "tff=1"))...),
		"one keyframe":                            clip(t, "one.mp4", join(film, fast("-g", "1000", "-sc_threshold", "0"))...),
	}
}

// TestChunksDecodeTheFramesOfOneRun compares what reaches the encoder, frame by frame, bit
// by bit: chunks one after another against the whole file in one run.
func TestChunksDecodeTheFramesOfOneRun(t *testing.T) {
	long.Test(t)
	tools := needTools(t)
	for name, file := range seamSources(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			product := small()
			p, _, err := Inspect(t.Context(), tools, specOf(file, product))
			if err != nil {
				t.Fatal(err)
			}
			whole := Chunk{Frames: p.Frames}
			want := frameSums(t, p, file, whole)
			if int64(len(want)) != p.Frames {
				t.Errorf("one run gives %d frames, planned are %d", len(want), p.Frames)
			}
			if len(p.Chunks) < 2 {
				t.Fatalf("the file was not split: %+v", p.Chunks)
			}
			var got []string
			for _, c := range p.Chunks {
				sums := frameSums(t, p, file, c)
				if int64(len(sums)) != c.Frames {
					t.Errorf("chunk %+v has %d frames", c, len(sums))
				}
				got = append(got, sums...)
			}
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Fatalf("frame %d of %d differs", i, len(want))
				}
			}
			if len(got) != len(want) {
				t.Errorf("the chunks have %d frames, one run has %d", len(got), len(want))
			}
		})
	}
}

// frameSums lists time and hash of the frames that a chunk's filters give.
func frameSums(t *testing.T, p *Plan, file string, c Chunk) []string {
	t.Helper()
	graph, _, ok := strings.Cut(p.graph(c), ",scale=")
	if !ok {
		t.Fatal("the graph has no scaling")
	}
	// A chunk's own frame numbers begin at 0; for comparison they are the file's again.
	graph += fmt.Sprintf(",setpts=PTS+%d[v]", c.First)
	args := p.reader(ffmpeg.Local(file), c.Seek)
	args = append(args, "-filter_complex", graph, "-map", "[v]", "-fps_mode", "passthrough",
		"-enc_time_base", fmt.Sprintf("%d:%d", p.Rate.Den, p.Rate.Num), "-f", "framemd5", "-")
	var sums []string
	for line := range strings.Lines(ffmpegRun(t, args...)) {
		if fields := strings.Split(line, ","); len(fields) == 6 && line[0] != '#' {
			sums = append(sums, strings.TrimSpace(fields[2])+" "+strings.TrimSpace(fields[5]))
		}
	}
	return sums
}
