package transcode

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
	"myrmidon/object"

	"github.com/google/go-cmp/cmp"
)

// probed is what probing an ordinary 24-s file gives; change edits it.
func probed(change func(*ffmpeg.Probe)) ffmpeg.Probe {
	v := &ffmpeg.Video{
		Codec: "h264", Width: 1920, Height: 1080, SAR: ffmpeg.Rational{Num: 1, Den: 1},
		PixelFormat: "yuv420p", Range: "tv", Matrix: "bt709", Primaries: "bt709", Transfer: "bt709",
		TimeBase: ffmpeg.Rational{Num: 1, Den: 12288}, End: 294912, Frames: 576,
		Rate: ffmpeg.Rational{Num: 24, Den: 1}, Slots: 576, BFrames: true,
	}
	for pts := int64(0); pts < v.End; pts += 24576 {
		v.Keyframes = append(v.Keyframes, pts)
		v.KeyGap = append(v.KeyGap, 24576)
	}
	v.KeyGap[len(v.KeyGap)-1] = 0
	p := ffmpeg.Probe{
		Format: "mov", Indexed: true, Size: 1 << 20, Duration: 24, Video: v,
		Audio: &ffmpeg.Audio{
			Index: 1, Codec: "aac", SampleRate: 44100, Channels: 6, Language: "eng",
			TimeBase: ffmpeg.Rational{Num: 1, Den: 44100}, Samples: 24 * 44100,
		},
	}
	if change != nil {
		change(&p)
	}
	return p
}

var (
	testSource = Source{Name: "talk.mp4", SHA256: strings.Repeat("ab", 32), Size: 1 << 20}
	mov        = ffmpeg.Container{Name: "mov", Indexed: true}
)

// TestMakePlan compares plans, with the arguments they give, with golden files: the
// plan is a pure function, and a change of it is a change of planVersion.
func TestMakePlan(t *testing.T) {
	tests := []struct {
		name      string
		container ffmpeg.Container
		change    func(*ffmpeg.Probe)
	}{
		{"a talk of 24 s is split in two", mov, nil},
		{"a transport stream stays in one piece", ffmpeg.Container{Name: "mpegts"}, nil},
		{"a portrait phone video turns the boxes", mov, func(p *ffmpeg.Probe) { p.Video.Rotation = 90 }},
		{"an NTSC rate keeps its fraction", mov, func(p *ffmpeg.Probe) {
			p.Video.TimeBase = ffmpeg.Rational{Num: 1, Den: 30000}
			p.Video.Rate = ffmpeg.Rational{Num: 30000, Den: 1001}
			p.Video.Start = 2002
		}},
		{"a variable rate is resampled", mov, func(p *ffmpeg.Probe) { p.Video.Variable = true; p.Video.Frames = 431 }},
		{"120 fps are halved", mov, func(p *ffmpeg.Probe) { p.Video.Rate.Num = 120; p.Video.Slots = 2881; p.Video.Frames = 2881 }},
		{"interlaced PAL is deinterlaced and widened", mov, func(p *ffmpeg.Probe) {
			p.Video.Interlaced = true
			p.Video.Width, p.Video.Height = 720, 576
			p.Video.SAR = ffmpeg.Rational{Num: 64, Den: 45}
			p.Video.Rate.Num, p.Video.Slots, p.Video.Frames = 25, 600, 600
			p.Video.Matrix, p.Video.Primaries, p.Video.Transfer = "", "", "unknown"
		}},
		{"full-range RGB gets levels and a matrix", mov, func(p *ffmpeg.Probe) {
			p.Video.PixelFormat, p.Video.Range, p.Video.Matrix = "gbrp", "pc", "gbr"
		}},
		{"a small silent clip has one rendition", mov, func(p *ffmpeg.Probe) {
			p.Audio = nil
			p.Video.Width, p.Video.Height, p.Video.Frames, p.Video.Slots = 321, 241, 100, 100
		}},
		{"sound is moved by where the pictures begin", mov, func(p *ffmpeg.Probe) { p.Video.Start = 6144; p.Audio.Start = 1000 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := MakePlan(testSource, tt.container, probed(tt.change), Default(), "build")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.ReplaceAll(tt.name, " ", "-"), describe(t, p))
		})
	}
}

// describe is a plan as a golden file has it: JSON, and the commands.
func describe(t *testing.T, p *Plan) string {
	t.Helper()
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(p); err != nil {
		t.Fatal(err)
	}
	for k, c := range p.Chunks {
		fmt.Fprintf(&b, "\nchunk %d:\n%s\n", k, strings.Join(p.encodeArgs(ffmpeg.Local("/in/talk.mp4"), c), "\n"))
	}
	if p.Audio != nil {
		fmt.Fprintf(&b, "\naudio:\n%s\n", strings.Join(p.audioArgs(ffmpeg.Local("/in/talk.mp4")), "\n"))
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (make it with -update)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, diff)
	}
}

func TestMakePlanRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*ffmpeg.Probe)
		want   string
	}{
		{"no pictures", func(p *ffmpeg.Probe) { p.Video = nil }, "talk.mp4 has no video stream"},
		{"PQ", func(p *ffmpeg.Probe) { p.Video.Transfer = "smpte2084" }, "talk.mp4 is HDR video (PQ), which is not supported yet"},
		{"HLG", func(p *ffmpeg.Probe) { p.Video.Transfer = "arib-std-b67" }, "talk.mp4 is HDR video (HLG), which is not supported yet"},
		{
			"a cut-off file", func(p *ffmpeg.Probe) { p.Damage = "cut off: 180 of 576 frames are in the file" },
			"talk.mp4 is cut off: 180 of 576 frames are in the file",
		},
		{"no frames", func(p *ffmpeg.Probe) { p.Video.Slots = 0 }, "talk.mp4 has no frames that can be timed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := MakePlan(testSource, mov, probed(tt.change), Default(), "build")
			if err == nil || err.Error() != tt.want {
				t.Fatalf("got error %v, want %q", err, tt.want)
			}
			if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
				t.Errorf("permanent %v, hint %q: both are wanted", myrmidon.IsPermanent(err), myrmidon.Hint(err))
			}
		})
	}
}

// TestChunksCoverTheGrid checks for many lengths that no frame and no segment is
// left out or planned twice.
func TestChunksCoverTheGrid(t *testing.T) {
	for slots := int64(1); slots < 24*400; slots += 37 {
		p, err := MakePlan(testSource, mov, probed(func(p *ffmpeg.Probe) { p.Video.Slots = slots }), Default(), "build")
		if err != nil {
			t.Fatal(err)
		}
		var frame int64
		segment := 0
		for _, c := range p.Chunks {
			if c.First != frame || c.FirstSegment != segment || c.Frames < 1 {
				t.Fatalf("%d frames: chunk %+v where frame %d, segment %d is due", slots, c, frame, segment)
			}
			if c.First%p.SegmentFrames != 0 {
				t.Fatalf("%d frames: chunk %+v does not begin a segment", slots, c)
			}
			frame += c.Frames
			segment += c.Segments
		}
		if frame != slots || segment != p.Segments {
			t.Fatalf("%d frames, %d segments: chunks hold %d and %d", slots, p.Segments, frame, segment)
		}
	}
}

// TestSeekNeverPassesTheFrame checks where reading starts: at a keyframe from which
// the chunk's first frame can be decoded, and after it by less than the next one.
func TestSeekNeverPassesTheFrame(t *testing.T) {
	tests := []struct {
		name        string
		gap         int64 // frames between keyframes of the source
		first       int64
		deinterlace bool
		want        string
	}{
		{"the keyframe is the first frame", 48, 288, false, "12.135000"},
		{"the keyframe lies before it", 50, 288, false, "10.551667"},
		{"every frame is a keyframe", 1, 288, false, "12.020833"},
		{"deinterlacing needs the frame before", 48, 288, true, "10.135000"},
		{"the only keyframe is the first", 1000, 288, false, "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := probed(func(p *ffmpeg.Probe) {
				p.Video.Keyframes, p.Video.KeyGap = nil, nil
				for at := int64(0); at < 576; at += tt.gap {
					p.Video.Keyframes = append(p.Video.Keyframes, at*512)
					p.Video.KeyGap = append(p.Video.KeyGap, tt.gap*512)
				}
				p.Video.KeyGap[len(p.Video.KeyGap)-1] = 0
			})
			got := "none"
			if at := seekFor(p.Video, p.Video.Rate, tt.first, false, tt.deinterlace); at != nil {
				got = fmt.Sprintf("%.6f", *at)
			}
			if got != tt.want {
				t.Errorf("seek to %s, want %s", got, tt.want)
			}
		})
	}
}

func TestLadder(t *testing.T) {
	tests := []struct {
		name          string
		width, height float64
		want          []string
	}{
		{"full HD gets all", 1920, 1080, []string{"1080p 1920x1080", "720p 1280x720", "480p 854x480", "360p 640x360"}},
		{"nothing is enlarged", 854, 480, []string{"480p 854x480", "360p 640x360"}},
		{"between two rungs the lower one is first", 1800, 1000, []string{"720p 1280x712", "480p 854x474", "360p 640x356"}},
		{"wide cinema touches the sides", 1920, 800, []string{"1080p 1920x800", "720p 1280x534", "480p 854x356", "360p 640x266"}},
		{"4:3 touches top and bottom", 1440, 1080, []string{"1080p 1440x1080", "720p 960x720", "480p 640x480", "360p 480x360"}},
		{"portrait turns the boxes", 1080, 1920, []string{"1080p 1080x1920", "720p 720x1280", "480p 480x854", "360p 360x640"}},
		{"a square fits the short side", 1080, 1080, []string{"1080p 1080x1080", "720p 720x720", "480p 480x480", "360p 360x360"}},
		{"a small picture keeps its size, made even", 321, 181, []string{"180p 320x180"}},
		{"a strip is at least two pixels high", 4000, 3, []string{"1080p 1920x2", "720p 1280x2", "480p 854x2", "360p 640x2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, r := range Ladder(tt.width, tt.height, Default().Rungs) {
				got = append(got, fmt.Sprintf("%s %dx%d", r.Name, r.Width, r.Height))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	t.Run("rungs that come to one size are one", func(t *testing.T) {
		rungs := []Rung{{Name: "a", Width: 641, Height: 360}, {Name: "b", Width: 640, Height: 360}}
		if got := Ladder(1920, 1080, rungs); len(got) != 1 || got[0].Name != "a" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestProductValidateNamesTheKey(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatalf("the default: %v", err)
	}
	tests := []struct {
		name   string
		change func(*Product)
		want   string
	}{
		{"kind missing", func(p *Product) { p.Kind = "" }, `kind: missing; the one that is known is "hls"`},
		{"kind unknown", func(p *Product) { p.Kind = "poster" }, `kind: "poster" is not known; the one that is known is "hls"`},
		{"segments too long", func(p *Product) { p.Segment = 60 }, "segment: 60 seconds is not between 1 and 20"},
		{"preset unknown", func(p *Product) { p.Preset = "quick" }, `preset: "quick" is none of x264's `},
		{"no rungs", func(p *Product) { p.Rungs = nil }, "rungs: at least one is needed"},
		{"height", func(p *Product) { p.Rungs[2].Height = 0 }, "rungs[2].height: 0 is not between 16 and 8192"},
		{"a folder's name", func(p *Product) { p.Rungs[1].Name = "audio" }, `rungs[1].name: "audio" is the name of a folder of the stream`},
		{"a path", func(p *Product) { p.Rungs[1].Name = "../x" }, `rungs[1].name: "../x" is not 1 to 32`},
		{"same name", func(p *Product) { p.Rungs[3].Name = "480P" }, `rungs[3].name: "480P" is taken`},
		{"smallest first", func(p *Product) { p.Rungs[0].Width = 100 }, "rungs[1]: 1280x720 is larger than the rung before it"},
		{"crf", func(p *Product) { p.Rungs[0].CRF = 52 }, "rungs[0].crf: 52 is not between 0 and 51"},
		{"profile", func(p *Product) { p.Rungs[0].Profile = "high10" }, `rungs[0].profile: "high10" is none of high, main, baseline`},
		{"sound", func(p *Product) { p.Audio.Channels = 6 }, "audio.channels: 6 is neither 1 nor 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Default()
			tt.change(&p)
			err := p.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestProductHash(t *testing.T) {
	// Names in stores are made of it: it must not change from release to release.
	if got, want := Default().Hash(), "fe0a1c122d609849"; got != want {
		t.Errorf("the default's hash is %s, was %s", got, want)
	}
	other := Default()
	other.Rungs[0].CRF++
	if other.Hash() == Default().Hash() {
		t.Error("another product has the same hash")
	}
	// Keys in YAML and JSON are the same, so that errors name what the user wrote.
	for _, typ := range []reflect.Type{reflect.TypeFor[Product](), reflect.TypeFor[Rung](), reflect.TypeFor[AudioSettings]()} {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if j, _, _ := strings.Cut(f.Tag.Get("json"), ","); j != f.Tag.Get("yaml") && j+",omitempty" != f.Tag.Get("yaml") {
				t.Errorf("%s.%s: json %q, yaml %q", typ.Name(), f.Name, j, f.Tag.Get("yaml"))
			}
		}
	}
}

func TestSafeName(t *testing.T) {
	tests := []struct{ file, want string }{
		{"/in/talk.mp4", "talk"},
		{"My holiday (2024).final.mov", "My-holiday-2024-.final"},
		{"日本語.mp4", "日本語"},
		{"--help.mp4", "help"},
		{"...mp4", "video"},
		{"..", "video"},
		{"\xff\xfe.mp4", "video"},
		{"a\nb'\"$(c).mp4", "a-b-c"},
		{strings.Repeat("é", 80) + ".mp4", strings.Repeat("é", 50)},
	}
	for _, tt := range tests {
		if got := SafeName(tt.file); got != tt.want {
			t.Errorf("SafeName(%q) = %q, want %q", tt.file, got, tt.want)
		}
	}
}

func FuzzSafeName(f *testing.F) {
	for _, seed := range []string{"talk.mp4", "..", "a/b", "\xff", "日本語.mp4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file string) {
		name := SafeName(file)
		if err := object.CheckKey(name); err != nil || strings.Contains(name, "/") || !utf8.ValidString(name) {
			t.Errorf("SafeName(%q) = %q: %v", file, name, err)
		}
	})
}

func TestPlanningIsDoneInSlices(t *testing.T) {
	spec := specOf("/in/talk.mp4", Default())
	at := cursor{Origin: origin{Plan: "p", Audio: true, Chunks: 2*sliceJobs + 7}}
	seen, slices := 0, 0
	for {
		s, err := planSlice(spec, myrmidon.Step{}, at)
		if err != nil {
			t.Fatal(err)
		}
		slices++
		if n := len(s.Jobs) + len(s.Children); n > 900 {
			t.Fatalf("a slice of %d", n)
		}
		if (len(s.Children) > 0) != (slices == 1) {
			t.Errorf("slice %d opens %d shards", slices, len(s.Children))
		}
		for _, j := range s.Jobs {
			var got task
			if err := json.Unmarshal(j.Spec, &got); err != nil || got.Chunk != seen {
				t.Fatalf("job %d is of chunk %d (%v)", seen, got.Chunk, err)
			}
			seen++
		}
		if s.Done {
			break
		}
		if err := json.Unmarshal(s.Cursor, &at); err != nil {
			t.Fatal(err)
		}
	}
	if seen != at.Origin.Chunks || slices != 3 {
		t.Errorf("%d jobs in %d slices, want %d in 3", seen, slices, at.Origin.Chunks)
	}
}

func TestBitRatesArePeakAndMean(t *testing.T) {
	seg := func(seconds uint64, bits int64) segmentResult {
		return segmentResult{Duration: seconds * 10, Size: bits / 8}
	}
	tests := []struct {
		name       string
		segments   []segmentResult
		peak, mean float64
	}{
		{"equal segments", []segmentResult{seg(4, 4000), seg(4, 8000)}, 2000, 1500},
		{"a short tail is no peak alone", []segmentResult{seg(4, 4000), seg(1, 8000)}, 2400, 2400},
		{"a tail of half the target counts", []segmentResult{seg(4, 4000), seg(2, 8000)}, 4000, 2000},
		{"only a short one", []segmentResult{seg(1, 800)}, 800, 800},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := stream{init: ffmpeg.Init{Timescale: 10}, segments: tt.segments}
			if peak, mean := s.bitRates(); peak != tt.peak || mean != tt.mean {
				t.Errorf("peak %v, mean %v; want %v, %v", peak, mean, tt.peak, tt.mean)
			}
		})
	}
}
