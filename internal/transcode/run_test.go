package transcode

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/internal/testkit/long"

	"github.com/google/go-cmp/cmp"
)

// tone is an input of sound: noise, in which any shift of time can be measured.
func tone(seconds float64, layout string) []string {
	return []string{"-f", "lavfi", "-i", fmt.Sprintf("anoisesrc=d=%g:r=48000:a=0.5:c=pink:seed=7,aformat=channel_layouts=%s", seconds, layout)}
}

// pcm keeps sound as it is, so that output can be compared with input by sample.
var pcm = []string{"-c:a", "pcm_s16le"}

func TestRunGivesEveryFrameOnItsTime(t *testing.T) {
	long.Test(t)
	tests := []struct {
		name   string
		source func(*testing.T) string
		frames int64
		want   string // renditions and rate
	}{
		{
			"24 fps with sound", func(t *testing.T) string {
				return clip(t, "a.mp4", join(lavfi("320x180", "24", 5), tone(5, "stereo"), fast("-g", "30", "-c:a", "aac", "-shortest"))...)
			}, 120, "180p 320x180, 90p 160x90, audio; 24 fps in 2 chunks",
		},
		{
			"12.5 fps without sound", func(t *testing.T) string {
				return clip(t, "a.mp4", join(lavfi("320x180", "25/2", 8), fast("-g", "30"))...)
			}, 100, "180p 320x180, 90p 160x90; 12.5 fps in 2 chunks",
		},
		{
			"NTSC film in Matroska, whose time stamps are rounded", func(t *testing.T) string {
				return clip(t, "a.mkv", join(lavfi("320x180", "24000/1001", 6), fast("-g", "48", "-bf", "2"))...)
			}, 144, "180p 320x180, 90p 160x90; 23.976 fps in 2 chunks",
		},
		{
			"NTSC with 5.1 sound", func(t *testing.T) string {
				return clip(t, "a.mkv", join(lavfi("320x180", "30000/1001", 5), tone(5, "5.1"), fast("-g", "60", "-c:a", "aac"))...)
			}, 150, "180p 320x180, 90p 160x90, audio; 29.97 fps in 2 chunks",
		},
		{
			"a rotated phone video", func(t *testing.T) string {
				flat := clip(t, "flat.mp4", join(lavfi("320x180", "30", 2), fast())...)
				return clip(t, "a.mp4", "-i", flat, "-c", "copy", "-metadata:s:v:0", "rotate=90")
			}, 60, "180p 180x320, 90p 90x160; 30 fps in 1 chunks",
		},
		{
			"odd sides", func(t *testing.T) string {
				return clip(t, "a.mkv", join(lavfi("321x181", "25", 2), []string{"-c:v", "ffv1"})...)
			}, 50, "180p 320x180, 90p 160x90; 25 fps in 1 chunks",
		},
		{
			"less than the smallest rung", func(t *testing.T) string {
				return clip(t, "a.mp4", join(lavfi("100x50", "25", 1), fast())...)
			}, 25, "50p 100x50; 25 fps in 1 chunks",
		},
		{
			"wide pixels", func(t *testing.T) string {
				return clip(t, "a.mp4", join(lavfi("240x180", "25", 1), fast("-vf", "setsar=4/3"))...)
			}, 25, "180p 320x180, 90p 160x90; 25 fps in 1 chunks",
		},
		{
			"4:2:2 in 10 bits, full range", func(t *testing.T) string {
				return clip(t, "a.mkv", join(lavfi("320x180", "25", 1), []string{"-vf", "scale=out_range=pc", "-c:v", "ffv1", "-pix_fmt", "yuv422p10le", "-color_range", "pc"})...)
			}, 25, "180p 320x180, 90p 160x90; 25 fps in 1 chunks",
		},
		{
			"a transport stream", func(t *testing.T) string {
				return clip(t, "a.ts", join(lavfi("320x180", "25", 5), tone(5, "stereo"), fast("-bf", "2", "-g", "25", "-c:a", "aac"))...)
			}, 125, "180p 320x180, 90p 160x90, audio; 25 fps in 1 chunks",
		},
		{
			"a recording that begins between keyframes", func(t *testing.T) string {
				file := clip(t, "a.ts", join(lavfi("320x180", "25", 5), fast("-g", "25", "-b:v", "2M"))...)
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				// After the first packets of 188 bytes the first second cannot be decoded.
				if err := os.WriteFile(file, b[188*60:], 0o600); err != nil {
					t.Fatal(err)
				}
				return file
			}, 100, "180p 320x180, 90p 160x90; 25 fps in 1 chunks",
		},
		{
			"AVI, which has no presentation times", func(t *testing.T) string {
				return clip(t, "a.avi", join(lavfi("320x180", "25", 5), []string{"-c:v", "mpeg4", "-bf", "2"})...)
			}, 125, "180p 320x180, 90p 160x90; 25 fps in 1 chunks",
		},
		{
			"a refresh without keyframes, where a seek gives too little", func(t *testing.T) string {
				return clip(t, "a.mp4", join(lavfi("320x180", "24", 5), fast("-g", "24", "-bf", "0", "-x264-params", "intra-refresh=1"))...)
			}, 120, "180p 320x180, 90p 160x90; 24 fps in 2 chunks",
		},
		{
			"one frame", func(t *testing.T) string {
				return clip(t, "a.mp4", join(lavfi("320x180", "25", 0.04), fast())...)
			}, 1, "180p 320x180, 90p 160x90; 25 fps in 1 chunks",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source := tt.source(t)
			b := newBench(t)
			spec := specOf(source, small())
			spec.Verify = VerifyDecode
			out := b.mustRun(spec)
			var summary Summary
			if err := json.Unmarshal(b.notes[0], &summary); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, r := range out.Renditions {
				if r.Width > 0 {
					r.Name += fmt.Sprintf(" %dx%d", r.Width, r.Height)
				}
				names = append(names, r.Name)
			}
			got := fmt.Sprintf("%s; %s fps in %d chunks", strings.Join(names, ", "), summary.Rate, summary.Chunks)
			if got != tt.want || out.Frames != tt.frames {
				t.Errorf("got %d frames, %s; want %d, %s", out.Frames, got, tt.frames, tt.want)
			}
			rate := frameRate(t, summary.Rate)
			for _, r := range out.Renditions {
				if r.Width > 0 {
					checkTimes(t, filepath.Join(b.dir, spec.Name, "hls", out.Version, r.Name, mediaFile), tt.frames, rate)
				}
			}
			checkPictures(t, source, filepath.Join(b.dir, out.Master), rate)
			if b.usage.CPU <= 0 || b.usage.PeakRSS <= 0 {
				t.Errorf("usage %+v", b.usage)
			}
		})
	}
}

func frameRate(t *testing.T, text string) float64 {
	t.Helper()
	rate, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	if rate != math.Trunc(rate) && rate != 12.5 {
		rate = math.Round(rate) * 1000 / 1001
	}
	return rate
}

// checkTimes plays a media playlist and checks that frame n is shown at n/rate.
func checkTimes(t *testing.T, playlist string, frames int64, rate float64) {
	t.Helper()
	var times []float64
	printed := ffmpegRun(t, "-copyts", "-i", playlist, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framecrc", "-c", "copy", "-")
	base := 0.0
	for line := range strings.Lines(printed) {
		if rest, ok := strings.CutPrefix(line, "#tb 0: "); ok {
			var num, den float64
			if _, err := fmt.Sscanf(rest, "%f/%f", &num, &den); err != nil {
				t.Fatal(err)
			}
			base = num / den
		}
		if fields := strings.Split(line, ","); line[0] != '#' && len(fields) >= 6 {
			pts, err := strconv.ParseFloat(strings.TrimSpace(fields[2]), 64)
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, pts*base)
		}
	}
	slices.Sort(times)
	if int64(len(times)) != frames {
		t.Errorf("%s: %d frames, want %d", playlist, len(times), frames)
	}
	for i, at := range times {
		// ffmpeg's HLS demuxer keeps 90-kHz ticks.
		if want := float64(i) / rate; math.Abs(at-want) > 2.0/90000 {
			t.Fatalf("%s: frame %d is shown at %.6f, want %.6f", playlist, i, at, want)
		}
	}
}

var ssimLine = regexp.MustCompile(`All:([0-9.]+)`)

// checkPictures compares every frame of the first rendition with the source's frame of
// the same time. One frame off, testsrc2 is so different that it shows.
func checkPictures(t *testing.T, source, master string, rate float64) {
	t.Helper()
	// t.TempDir is named after the test, and a filter graph takes commas for its own.
	folder, err := os.MkdirTemp("", "ssim")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	stats := filepath.Join(folder, "ssim")
	graph := fmt.Sprintf("[0:v:0]settb=1/90000,setpts=N*%f,format=yuv420p[a];[1:v:0]settb=1/90000,setpts=N*%f,format=yuv420p[b];"+
		"[b][a]scale2ref=flags=bicubic[c][d];[c]scale=out_range=tv[e];[d][e]ssim=stats_file=%s", 90000/rate, 90000/rate, stats)
	ffmpegRun(t, "-i", master, "-i", source, "-filter_complex", graph, "-f", "null", "-")
	b, err := os.ReadFile(stats)
	if err != nil {
		t.Fatal(err)
	}
	lowest, n := 1.0, 0
	for _, m := range ssimLine.FindAllSubmatch(b, -1) {
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		lowest = min(lowest, v)
		n++
	}
	t.Logf("SSIM of %d frames: at least %.3f", n, lowest)
	if lowest < 0.85 || n == 0 {
		t.Errorf("a frame has SSIM %.3f with the source's frame at its time (of %d frames)", lowest, n)
	}
}

// TestSoundIsInStepToTheSample measures by correlation how far the output's sound is
// from where it should be, at the beginning and near the end.
func TestSoundIsInStepToTheSample(t *testing.T) {
	const seconds = 6
	tests := []struct {
		name  string
		file  string // its ending names the container, and so what time is counted in
		args  []string
		shift int // samples by which the sound begins after the first picture
	}{
		{"together", "a.mov", join(lavfi("320x180", "24", seconds), tone(seconds, "mono")), 0},
		{"sound half a second later", "a.mov", join(lavfi("320x180", "24", seconds), []string{"-itsoffset", "0.5"}, tone(seconds-0.5, "mono")), 24000},
		{"sound a quarter of a second before, milliseconds", "a.mkv", join([]string{"-itsoffset", "0.25"}, lavfi("320x180", "24", seconds), tone(seconds, "mono"), []string{"-fps_mode", "passthrough"}), -12000},
		{"sound a quarter of a second before", "a.mov", join([]string{"-itsoffset", "0.25"}, lavfi("320x180", "24", seconds), tone(seconds, "mono"), []string{"-fps_mode", "passthrough"}), -12000},
		{"sound goes on after the pictures", "a.mov", join(lavfi("320x180", "24", 3), tone(seconds, "mono")), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			source := clip(t, tt.file, join(tt.args, fast("-bf", "2"), pcm)...)
			product := small()
			product.Audio.Channels = 1
			b := newBench(t)
			out := b.mustRun(specOf(source, product))
			folder := filepath.Join(b.dir, "a", "hls", out.Version, audioFolder)
			got := samples(t, wholeFile(t, folder, out.AudioSegments))
			want := samples(t, source)
			for _, at := range []int{20000, min(len(got)-30000, len(want)-30000-max(-tt.shift, 0))} {
				if lag := bestLag(t, want[at-min(tt.shift, 0):], got[at+max(tt.shift, 0):]); lag != 0 {
					t.Errorf("at sample %d the sound is %d samples late", at, lag)
				}
			}
			// AAC comes in packets of 1,024; the last may be padded.
			if due := len(want) + tt.shift; len(got) < due || len(got) > due+1024 {
				t.Errorf("%d samples, want %d", len(got), due)
			}
		})
	}
}

// wholeFile glues a rendition together, as a player does in its buffer.
func wholeFile(t *testing.T, folder string, segments int) string {
	t.Helper()
	files := []string{initFile}
	for i := range segments {
		files = append(files, fmt.Sprintf(segmentPattern, i))
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(folder, f))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	file := filepath.Join(t.TempDir(), "whole.mp4")
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// samples decodes a file's sound from time 0 on, mono.
func samples(t *testing.T, file string) []float64 {
	t.Helper()
	raw := []byte(ffmpegRun(t, "-copyts", "-i", file, "-map", "0:a", "-af", "atrim=start=0", "-f", "s16le", "-ac", "1", "-"))
	out := make([]float64, len(raw)/2)
	for i := range out {
		out[i] = float64(int16(binary.LittleEndian.Uint16(raw[2*i:])))
	}
	return out
}

// bestLag is by how many samples got is later than want, within 1,200 either way.
func bestLag(t *testing.T, want, got []float64) int {
	t.Helper()
	const window, most = 1500, 1200
	if len(want) < window+2*most || len(got) < window+2*most {
		t.Fatalf("only %d and %d samples to compare", len(want), len(got))
	}
	best, lag := math.Inf(-1), 0
	for d := -most; d <= most; d++ {
		sum := 0.0
		for i := range window {
			sum += want[most+i] * got[most+i+d]
		}
		if sum > best {
			best, lag = sum, d
		}
	}
	return lag
}

// TestAudioAndVideoSegmentsPair checks that a segment of sound ends with the pictures'
// segment, to the nearest packet, and that errors do not add up.
func TestAudioAndVideoSegmentsPair(t *testing.T) {
	source := clip(t, "a.mkv", join(lavfi("320x180", "30000/1001", 8), tone(8, "stereo"), fast(), pcm)...)
	b := newBench(t)
	out := b.mustRun(specOf(source, small()))
	folder := filepath.Join(b.dir, "a", "hls", out.Version)
	pictures, sound := durations(t, filepath.Join(folder, "180p", mediaFile)), durations(t, filepath.Join(folder, audioFolder, mediaFile))
	if len(pictures) != len(sound) {
		t.Fatalf("%d segments of pictures, %d of sound", len(pictures), len(sound))
	}
	var p, s float64
	for i := range pictures[:len(pictures)-1] {
		p, s = p+pictures[i], s+sound[i]
		// The sound's decode time runs ahead by the encoder's priming, 1,024 samples.
		if d := math.Abs(s - p - 1024.0/48000); d > 512.0/48000+1e-5 {
			t.Errorf("after segment %d the sound is %.4f s off", i, d)
		}
	}
}

func durations(t *testing.T, playlist string) []float64 {
	t.Helper()
	b, err := os.ReadFile(playlist)
	if err != nil {
		t.Fatal(err)
	}
	var out []float64
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "#EXTINF:"); ok {
			d, err := strconv.ParseFloat(strings.TrimSuffix(rest, ",\n"), 64)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, d)
		}
	}
	return out
}

// TestTheSameRunGivesTheSameBytes runs twice into two stores and compares all files.
func TestTheSameRunGivesTheSameBytes(t *testing.T) {
	source := clip(t, "a.mp4", join(lavfi("320x180", "24", 5), tone(5, "stereo"), fast("-c:a", "aac"))...)
	spec := specOf(source, small())
	var trees [2]map[string]string
	for i := range trees {
		b := newBench(t)
		b.mustRun(spec)
		trees[i] = tree(t, b.dir)
	}
	if diff := cmp.Diff(trees[0], trees[1]); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
	if n := len(trees[0]); n < 20 {
		t.Errorf("only %d files to compare", n)
	}
}

func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, root)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestFinishedItemsAreFoundAgain runs twice into one store.
func TestFinishedItemsAreFoundAgain(t *testing.T) {
	long.Test(t)
	source := clip(t, "a.mp4", join(lavfi("320x180", "24", 5), tone(5, "stereo"), fast("-c:a", "aac"))...)
	b := newBench(t)
	spec := specOf(source, small())
	out := b.mustRun(spec)
	files := tree(t, b.dir)
	folder := filepath.Join(b.dir, "a", "hls", out.Version)
	segment := filepath.Join(folder, "180p", "00000.m4s")
	other := filepath.Join(folder, "180p", "00004.m4s")
	written := func(file string) int64 {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime().UnixNano()
	}

	before := written(segment)
	b.mustRun(spec)
	if written(segment) != before {
		t.Error("a second run wrote a finished segment again")
	}
	if err := os.Remove(segment); err != nil {
		t.Fatal(err)
	}
	before = written(other)
	b.mustRun(spec)
	if diff := cmp.Diff(files, tree(t, b.dir)); diff != "" {
		t.Errorf("after a segment was lost and made again:\n%s", diff)
	}
	if written(other) != before {
		t.Error("the chunk that was whole was written again")
	}
	if err := os.Truncate(segment, 100); err != nil {
		t.Fatal(err)
	}
	b.mustRun(spec)
	if diff := cmp.Diff(files, tree(t, b.dir)); diff != "" {
		t.Errorf("after a segment was cut off and made again:\n%s", diff)
	}
	spec.Force = true
	b.mustRun(spec)
	if written(other) == before {
		t.Error("with Force nothing was written")
	}
}

// TestVerifyFindsWhatChangedInTheStore damages a segment between the phases.
func TestVerifyFindsWhatChangedInTheStore(t *testing.T) {
	source := clip(t, "a.mp4", join(lavfi("320x180", "24", 3), fast())...)
	b := newBench(t)
	spec := specOf(source, small())
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	do := func(phase uint32) error {
		jobs, err := b.jobs(raw, phase)
		if err != nil {
			return err
		}
		for _, job := range jobs {
			if _, err := b.handlers[job.Kind].Handle(t.Context(), job); err != nil {
				return err
			}
		}
		return nil
	}
	if err := do(phaseEncode); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(b.dir, "a/hls/*/90p/00001.m4s"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	segment, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	segment[len(segment)-10] ^= 1
	if err := os.WriteFile(found[0], segment, 0o644); err != nil {
		t.Fatal(err)
	}
	err = do(phaseVerify)
	if err == nil || !strings.Contains(err.Error(), "90p: 00001.m4s: the bytes in the store are not those that were written") ||
		!myrmidon.IsPermanent(err) {
		t.Fatalf("verify says: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "a/hls", masterFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a playlist was published: %v", err)
	}
	b.mustRun(spec) // the next run mends it
}

// TestACancelledRunLeavesNothingBehind ends the context before the first job.
func TestACancelledRunLeavesNothingBehind(t *testing.T) {
	source := clip(t, "a.mp4", join(lavfi("320x180", "24", 3), fast())...)
	b := newBench(t)
	raw, err := json.Marshal(specOf(source, small()))
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := b.jobs(raw, phaseEncode)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	// The first progress report comes from a running ffmpeg.
	ctx = myrmidon.WithProgress(ctx, func(myrmidon.Amount) { cancel() })
	if _, err := b.handlers[jobs[0].Kind].Handle(ctx, jobs[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
	if left, err := os.ReadDir(b.temp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	if found, err := filepath.Glob(filepath.Join(b.dir, "a/hls/*/work/chunk*")); err != nil || len(found) > 0 {
		t.Errorf("results of a cancelled job: %v, %v", found, err)
	}
}

// TestPlaylistsSayWhatWasMeasured looks at the multivariant playlist of a whole run.
func TestPlaylistsSayWhatWasMeasured(t *testing.T) {
	source := clip(t, "a.mkv", join(lavfi("320x180", "24000/1001", 5), tone(5, "stereo"), fast("-c:a", "aac", "-metadata:s:a:0", "language=ger"))...)
	b := newBench(t)
	out := b.mustRun(specOf(source, small()))
	master, err := os.ReadFile(filepath.Join(b.dir, out.Master))
	if err != nil {
		t.Fatal(err)
	}
	top := out.Renditions[0]
	for _, want := range []string{
		`LANGUAGE="de",NAME="de",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="` + out.Version + `/audio/media.m3u8"`,
		fmt.Sprintf("BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d", top.Bandwidth, top.AverageBandwidth),
		`CODECS="` + top.Codecs + `",RESOLUTION=320x180,FRAME-RATE=23.976`,
		out.Version + "/180p/media.m3u8\n",
	} {
		if !bytes.Contains(master, []byte(want)) {
			t.Errorf("no %q in\n%s", want, master)
		}
	}
	// The average of what lies there, sound included, is what the playlist says.
	var bits float64
	for _, folder := range []string{"180p", audioFolder} {
		files, err := filepath.Glob(filepath.Join(b.dir, "a/hls", out.Version, folder, "*.m4s"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			bits += 8 * float64(info.Size())
		}
	}
	if mean := bits / 5; math.Abs(mean-float64(top.AverageBandwidth)) > mean/50 {
		t.Errorf("AVERAGE-BANDWIDTH=%d, but there are %.0f bits a second", top.AverageBandwidth, mean)
	}
	if top.Bandwidth < top.AverageBandwidth {
		t.Errorf("the peak %d is below the average %d", top.Bandwidth, top.AverageBandwidth)
	}
}
