package ffmpeg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
)

func TestProbeOfAnOrdinaryFile(t *testing.T) {
	path := sample(t)
	got, out, err := tools(t).Probe(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(read(t, path)))
	want := Probe{
		Format: "mov", Indexed: true, Size: size, Duration: 3, BitRate: int64(math.Round(float64(size) * 8 / 3)),
		Video: &Video{
			Index: 0, Codec: "h264", Width: 160, Height: 90, SAR: Rational{1, 1}, PixelFormat: "yuv420p",
			TimeBase: Rational{1, 12288}, Start: 0, End: 36864, Frames: 72, Rate: Rational{24, 1}, Slots: 72,
			Keyframes: []int64{0, 12288, 24576}, KeyGap: []int64{12288, 12288, 0}, BFrames: true,
		},
		Audio: &Audio{
			Index: 1, Codec: "aac", SampleRate: 44100, Channels: 1, Layout: "mono", Language: "deu",
			TimeBase: Rational{1, 44100}, Start: 0, Samples: 132300,
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if out.CPU <= 0 || out.PeakRSS <= 0 || !out.End.After(out.Start) {
		t.Errorf("usage is missing: %+v", out)
	}
	again, _, err := tools(t).Probe(t.Context(), path, t.TempDir())
	a, b := asJSON(t, got), asJSON(t, again)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("the same bytes gave another probe (%v)\n%s\n%s", err, a, b)
	}
}

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shownTimes decodes the file as a transcode would and returns the PTS of each frame,
// in the stream's own ticks.
func shownTimes(t *testing.T, path string, p Probe) []int64 {
	t.Helper()
	var out bytes.Buffer
	c := Container{Name: p.Format}
	args := append([]string{"-copyts", "-threads", "1"}, c.Input(path)...)
	args = append(args, "-map", "0:"+strconv.Itoa(p.Video.Index), "-fps_mode", "passthrough", "-enc_time_base", "-1", "-copyts",
		"-vf", fmt.Sprintf("settb=%d/%d", p.Video.TimeBase.Num, p.Video.TimeBase.Den), "-f", "framecrc", "-")
	if _, err := tools(t).Run(t.Context(), Command{Args: args, Dir: t.TempDir(), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	return frameTimes(t, out.String())
}

func frameTimes(t *testing.T, framecrc string) []int64 {
	t.Helper()
	var times []int64
	for line := range strings.Lines(framecrc) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		pts, err := strconv.ParseInt(strings.TrimSpace(strings.Split(line, ",")[2]), 10, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		times = append(times, pts)
	}
	return times
}

// gridTimes is what the constant-rate grid makes of the file.
func gridTimes(t *testing.T, path string, p Probe) []int64 {
	t.Helper()
	var out bytes.Buffer
	args := append([]string{"-copyts", "-threads", "1"}, Container{Name: p.Format}.Input(path)...)
	args = append(args, "-map", "0:"+strconv.Itoa(p.Video.Index), "-fps_mode", "passthrough",
		"-vf", fmt.Sprintf("setpts=PTS-%d,fps=fps=%d/%d:round=near", p.Video.Start, p.Video.Rate.Num, p.Video.Rate.Den),
		"-f", "framecrc", "-")
	if _, err := tools(t).Run(t.Context(), Command{Args: args, Dir: t.TempDir(), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	return frameTimes(t, out.String())
}

// TestProbeAgreesWithTheDecoder compares frames, start and slots with what ffmpeg
// really decodes, container by container and rate by rate.
func TestProbeAgreesWithTheDecoder(t *testing.T) {
	x264 := []string{"-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "24"}
	video := func(source string, options ...string) []string {
		return append([]string{"-f", "lavfi", "-i", source}, options...)
	}
	rate := func(r string) string { return "testsrc2=s=160x90:d=3:r=" + r }
	tests := []struct {
		name, file string
		args       []string
		rate       string
		variable   bool
	}{
		{"MP4 at 23.976", "r23976.mp4", video(rate("24000/1001"), x264...), "24000/1001", false},
		{"MP4 at 12.5", "r125.mp4", video(rate("25/2"), x264...), "25/2", false},
		{"MP4 at 59.94", "r5994.mp4", video(rate("60000/1001"), x264...), "60000/1001", false},
		{"MP4 at an odd constant rate", "r17.mp4", video(rate("17"), x264...), "17/1", false},
		{"Matroska rounds 29.97 to milliseconds", "r2997.mkv", video(rate("30000/1001"), x264...), "30000/1001", false},
		{"Matroska rounds 23.976 to milliseconds", "r23976.mkv", video(rate("24000/1001"), x264...), "24000/1001", false},
		{"WebM with VP8", "r30.webm", video(rate("30"), "-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"), "30/1", false},
		{"AVI has no PTS", "r25.avi", video(rate("25"), x264...), "25/1", false},
		{"AVI with MPEG-4 has some", "m4.avi", video(rate("25"), "-c:v", "mpeg4", "-bf", "2"), "25/1", false},
		{"AVI without B frames", "nob.avi", video(rate("25"), "-c:v", "mpeg4"), "25/1", false},
		{"transport stream", "r25.ts", video(rate("25"), x264...), "25/1", false},
		{"program stream", "r25.mpg", video(rate("25"), "-c:v", "mpeg2video", "-bf", "2"), "25/1", false},
		{"FLV", "r30.flv", video(rate("30"), x264...), "30/1", false},
		{"ASF", "r25.wmv", video(rate("25"), "-c:v", "wmv2"), "25/1", false},
		{"Ogg", "r24.ogv", video(rate("24"), "-c:v", "libtheora"), "24/1", false},
		{"MXF", "r25.mxf", video(rate("25"), "-c:v", "mpeg2video", "-bf", "2"), "25/1", false},
		{"fragmented MP4", "frag.mp4", video(rate("24"), append(x264, "-movflags", "+frag_keyframe+empty_moov")...), "24/1", false},
		{"all intra", "intra.mp4", video(rate("24"), "-c:v", "libx264", "-preset", "ultrafast", "-g", "1"), "24/1", false},
		{"a start that is not 0", "late.mkv", video(rate("25"), append(x264, "-output_ts_offset", "7.3")...), "25/1", false},
		{"variable: a frame of three is missing", "vfr3.mp4", video(rate("30")+",select='mod(n,3)'", append(x264, "-fps_mode", "vfr")...), "20/1", true},
		// Twenty frames at 30 a second, then six a second: the grid must hold the fast part.
		{"variable: a screen recording", "screen.mkv", video(rate("30")+",select='lt(n,20)+gt(n,70)*not(mod(n,5))'", append(x264, "-fps_mode", "vfr")...), "30/1", true},
		{"variable: jitter beyond half a slot", "jitter.mp4", video(rate("25")+",settb=1/1000,setpts='N*40+mod(N*17,37)'", append(x264, "-fps_mode", "vfr", "-enc_time_base", "1/1000")...), "25/1", true},
		{"even, without durations", "wobble.mp4", video(rate("25")+",settb=1/1000,setpts='N*40+mod(N*7,11)'", append(x264, "-fps_mode", "vfr", "-enc_time_base", "1/1000")...), "25/1", true},
		{"two frames", "two.mp4", video(rate("25"), append(x264, "-frames:v", "2")...), "25/1", false},
		{"one frame", "one.mp4", video(rate("25"), append(x264, "-frames:v", "1")...), "25/1", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for i, arg := range test.args {
				if arg == "-c:v" {
					needEncoder(t, test.args[i+1])
				}
			}
			path := made(t, test.file, test.args...)
			p, _, err := tools(t).Probe(t.Context(), path, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			v := p.Video
			if got := fmt.Sprintf("%d/%d", v.Rate.Num, v.Rate.Den); got != test.rate || v.Variable != test.variable {
				t.Errorf("rate %s, variable %v; want %s, %v", got, v.Variable, test.rate, test.variable)
			}
			if p.Damage != "" {
				t.Errorf("a sound file is called damaged: %s", p.Damage)
			}
			times := shownTimes(t, path, p)
			if int64(len(times)) != v.Frames || times[0] != v.Start {
				t.Errorf("%d frames from %d; the decoder shows %d from %d", v.Frames, v.Start, len(times), times[0])
			}
			if last := times[len(times)-1]; v.End <= last {
				t.Errorf("ends at %d, and the last frame begins at %d", v.End, last)
			}
			grid := gridTimes(t, path, p)
			// Without durations the last slot may be missing.
			least := v.Slots
			if v.Variable {
				least--
			} else if v.Slots != v.Frames {
				t.Errorf("%d slots of %d frames at a constant rate", v.Slots, v.Frames)
			}
			if n := int64(len(grid)); n < least || n > v.Slots {
				t.Errorf("%d slots of %d frames; the fps filter makes %d", v.Slots, v.Frames, len(grid))
			}
			if v.Keyframes[0] > v.Start || len(v.Keyframes) != len(v.KeyGap) {
				t.Errorf("keyframes %v, gaps %v, start %d", v.Keyframes, v.KeyGap, v.Start)
			}
		})
	}
}

func TestProbeWithAnEditList(t *testing.T) {
	long := sample(t)
	path := filepath.Join(t.TempDir(), "edit.mp4")
	create(t, "-ss", "1.3", "-i", long, "-c", "copy", path) // begins between keyframes
	p, _, err := tools(t).Probe(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	times := shownTimes(t, path, p)
	v := p.Video
	if int64(len(times)) != v.Frames || times[0] != v.Start || p.Damage != "" {
		t.Errorf("%d frames from %d (%s); the decoder shows %d from %d", v.Frames, v.Start, p.Damage, len(times), times[0])
	}
	if v.Keyframes[0] >= v.Start {
		t.Errorf("keyframes %v: decoding begins before the start %d", v.Keyframes, v.Start)
	}
}

func TestProbeReadsRotationAspectColourAndFields(t *testing.T) {
	base := sample(t)
	rotated := filepath.Join(t.TempDir(), "rotated.mov")
	create(t, "-i", base, "-c", "copy", "-metadata:s:v:0", "rotate=90", rotated)
	p, _, err := tools(t).Probe(t.Context(), rotated, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// What ffmpeg itself makes of it is the reference: the first frame turned by us,
	// and by its own rotation, must be the same.
	turn := map[int]string{0: "null", 90: "transpose=clock", 180: "hflip,vflip", 270: "transpose=cclock"}[p.Video.Rotation]
	crc := func(args ...string) string {
		var out bytes.Buffer
		c := Command{Args: append(args, "-frames:v", "1", "-f", "framecrc", "-"), Dir: t.TempDir(), Stdout: &out}
		if _, err := tools(t).Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if a, b := crc("-i", rotated, "-map", "0:v"), crc("-noautorotate", "-i", rotated, "-map", "0:v", "-vf", turn); p.Video.Rotation%180 != 90 || a != b {
		t.Errorf("rotation %d is not what ffmpeg does\n%s\n%s", p.Video.Rotation, a, b)
	}

	path := made(t, "colour.mkv", "-f", "lavfi", "-i", "testsrc2=s=180x144:r=25:d=1",
		"-vf", "setsar=16/11,setfield=tff", "-c:v", "libx264", "-x264-params", "tff=1", "-flags", "+ildct+ilme",
		"-color_range", "tv", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")
	p, _, err = tools(t).Probe(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v := p.Video
	got := strings.TrimSpace(fmt.Sprintln(v.SAR, v.Interlaced, v.Range, v.Matrix, v.Primaries, v.Transfer, v.Frames, v.Rate))
	if want := "{16 11} true tv bt709 bt709 bt709 25 {25 1}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestProbeChoosesStreams(t *testing.T) {
	cover := filepath.Join(t.TempDir(), "cover.png")
	create(t, "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", cover)
	path := filepath.Join(t.TempDir(), "both.mp4")
	create(t, "-i", cover, "-i", sample(t), "-f", "lavfi", "-i", "sine=d=3", "-map", "0", "-map", "1:v", "-map", "1:a", "-map", "2",
		"-c", "copy", "-c:a", "aac", "-disposition:v:0", "attached_pic", "-disposition:a:0", "0", "-disposition:a:1", "default", path)
	p, _, err := tools(t).Probe(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if p.Video.Width != 160 || p.Video.Frames != 72 {
		t.Errorf("the cover picture was taken for the video: %+v", p.Video)
	}
	var list bytes.Buffer
	if _, err := tools(t).Run(t.Context(), Command{
		Probe: true, Dir: t.TempDir(), Stdout: &list,
		Args: []string{"-select_streams", "a", "-show_entries", "stream=index:stream_disposition=default", "-of", "csv=p=0", path},
	}); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d,1\n", p.Audio.Index); !strings.Contains(list.String(), want) {
		t.Errorf("audio %d is not the default of %q", p.Audio.Index, list.String())
	}
}

func TestProbeRefuses(t *testing.T) {
	whole := sample(t)
	audio := filepath.Join(t.TempDir(), "sound.mp4")
	create(t, "-i", whole, "-map", "0:a", "-c", "copy", "-brand", "isom", audio)
	tests := []struct{ name, path, want string }{
		{"a file whose moov was never written", cut(t, whole, 0.9), "moov is missing: the file is cut off or was never finished"},
		{"sound alone", audio, "no moving pictures"},
		{"a header and nothing else", write(t, filepath.Join(t.TempDir(), "x.mkv"), []byte("\x1aE\xdf\xa3\x80")), "x.mkv"},
		{"noise behind a header", write(t, filepath.Join(t.TempDir(), "n.flv"), append([]byte("FLV\x01\x05\x00\x00\x00\x09"), transportStream(188, 3, 9)...)), "n.flv"},
		{"pictures that are absurdly large", enlarged(t), "cannot be"},
		{"a file without a frame", noFrames(t), "no frame"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := tools(t).Probe(t.Context(), test.path, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), filepath.Base(test.path)) {
				t.Fatalf("got %v, want an error with %q that names the file", err, test.want)
			}
			if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
				t.Errorf("%v: permanent %v, hint %q", err, myrmidon.IsPermanent(err), myrmidon.Hint(err))
			}
			t.Log(err)
		})
	}
}

// enlarged writes other dimensions into an MP4 whose codec has none of its own.
func enlarged(t *testing.T) string {
	raw := filepath.Join(t.TempDir(), "raw.mov")
	create(t, "-f", "lavfi", "-i", "testsrc2=s=64x64:r=5:d=1", "-c:v", "rawvideo", "-pix_fmt", "rgb24", raw)
	b := read(t, raw)
	at := bytes.Index(b, []byte("stsd"))
	at += 4 + 4 + 4 + 8 + 24 // past kind, version, count, the entry's header, to width
	if !bytes.Equal(b[at:at+4], []byte{0, 64, 0, 64}) {
		t.Fatalf("no dimensions at %d: % x", at, b[at:at+4])
	}
	copy(b[at:], []byte{0x7f, 0xff, 0x7f, 0xff})
	return write(t, raw, b)
}

// noFrames is an init segment without fragments.
func noFrames(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "init.mp4")
	create(t, "-i", sample(t), "-map", "0:v", "-c", "copy", "-movflags", "+frag_keyframe+empty_moov+default_base_moof", path)
	f, err := ReadFragments(path)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, path, bytes.Clone(f.Init))
}

func TestProbeDescribesDamage(t *testing.T) {
	fast := filepath.Join(t.TempDir(), "fast.mp4")
	create(t, "-i", sample(t), "-c", "copy", "-movflags", "+faststart", fast)
	mkv := filepath.Join(t.TempDir(), "x.mkv")
	create(t, "-i", sample(t), "-c", "copy", mkv)
	avi := filepath.Join(t.TempDir(), "x.avi")
	create(t, "-i", sample(t), "-c:v", "mpeg4", "-an", avi)
	flv := filepath.Join(t.TempDir(), "x.flv")
	create(t, "-i", sample(t), "-c", "copy", flv)
	for _, path := range []string{fast, mkv, avi, flv} {
		t.Run(filepath.Ext(path), func(t *testing.T) {
			p, _, err := tools(t).Probe(t.Context(), cut(t, path, 0.4), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(p.Damage, "cut off: ") || p.Video.Frames >= 60 {
				t.Errorf("damage %q, %d frames", p.Damage, p.Video.Frames)
			}
			t.Log(p.Damage)
			if p, _, err = tools(t).Probe(t.Context(), path, t.TempDir()); err != nil || p.Damage != "" {
				t.Errorf("the whole file: damage %q, %v", p.Damage, err)
			}
		})
	}
}

func TestProbeOfTheSharedClips(t *testing.T) {
	dir := os.Getenv("MYRMIDON_SHARED")
	if dir == "" {
		t.Skip("MYRMIDON_SHARED is not set")
	}
	for _, name := range []string{"big-buck-bunny-480p-30s.mp4", "traffic-12fps.mp4"} {
		path := filepath.Join(dir, "media", name)
		p, _, err := tools(t).Probe(t.Context(), path, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		times := shownTimes(t, path, p)
		if int64(len(times)) != p.Video.Frames || times[0] != p.Video.Start || p.Damage != "" {
			t.Errorf("%s: %d frames from %d (%s); the decoder shows %d from %d", name, p.Video.Frames, p.Video.Start, p.Damage, len(times), times[0])
		}
		t.Logf("%s: %s", name, asJSON(t, p))
	}
}
