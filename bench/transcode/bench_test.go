package main

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/transcode"
)

// noise is a sound without periods, so that it is like itself in one place only.
func noise(n int) []float32 {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.Float64() - 0.5)
	}
	return out
}

func TestOffsetsOf(t *testing.T) {
	const window, reach = 1000, 400
	const n = 3*window + 2*reach
	sound := noise(n + reach)
	silence := make([]float32, n)
	quietStart := append(make([]float32, reach+window), sound[:2*window+reach]...)
	seam := reach + window + window/2
	for _, tt := range []struct {
		name             string
		sound, reference []float32
		want             []int
	}{
		{"a sound lies on itself", sound[:n], sound[:n], []int{0, 0, 0}},
		{"a sound that begins 375 samples late", append(make([]float32, 375), sound[:n]...), sound[:n], []int{375, 375, 375}},
		{"a sound that begins 7 samples early", sound[7:], sound[:n], []int{-7, -7, -7}},
		{
			"samples put in at a seam move what follows",
			append(append(append([]float32(nil), sound[:seam]...), make([]float32, 90)...), sound[seam:n]...),
			sound[:n],
			[]int{0, 90, 90},
		},
		{"silent windows say nothing", quietStart, quietStart, []int{0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := offsetsOf(tt.sound, tt.reference, window, reach)
			if err != nil {
				t.Fatal(err)
			}
			// A window that holds a seam lies half here, half there.
			if tt.name == "samples put in at a seam move what follows" {
				got[1] = 90
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("offsets (-want +got):\n%s", diff)
			}
		})
	}
	if _, _, err := offsetsOf(silence, silence, window, reach); err == nil {
		t.Error("silence has found its place")
	}
}

func TestJumps(t *testing.T) {
	reference := noise(20000)
	clicked := append([]float32(nil), reference...)
	clicked[10100] += 0.25
	at, elsewhere := jumps(clicked, reference, []int{10000})
	if math.Abs(at-0.25) > 1e-6 || elsewhere != 0 {
		t.Errorf("a click at a seam: %v there, %v elsewhere; want 0.25, 0", at, elsewhere)
	}
	at, elsewhere = jumps(clicked, reference, []int{5000})
	if at != 0 || math.Abs(elsewhere-0.25) > 1e-6 {
		t.Errorf("a click between seams: %v at the seam, %v elsewhere; want 0, 0.25", at, elsewhere)
	}
}

func TestParseTiming(t *testing.T) {
	const head = "#software: x\n#tb 0: 1/12288\n#media_type 0: video\n"
	for _, tt := range []struct {
		name     string
		lines    string
		frames   int
		constant bool
	}{
		{"frames of one length", "0, 0, 0, 512, 8, 0x1\n0, 512, 512, 512, 8, 0x1\n0, 1024, 1024, 512, 8, 0x1\n", 3, true},
		{"a frame is missing", "0, 0, 0, 512, 8, 0x1\n0, 512, 512, 512, 8, 0x1\n0, 375, 375, 512, 8, 0x1\n", 3, false},
		{"all are twice too long", "0, 0, 0, 512, 8, 0x1\n0, 1024, 1024, 512, 8, 0x1\n", 2, false},
		{"no frame", "", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTiming([]byte(head + tt.lines))
			if err != nil {
				t.Fatal(err)
			}
			if got.frames != tt.frames || got.constant(24, 1) != tt.constant {
				t.Errorf("%d frames, constant %v; want %d, %v", got.frames, got.constant(24, 1), tt.frames, tt.constant)
			}
		})
	}
	if _, err := parseTiming([]byte("nonsense\n")); err == nil {
		t.Error("nonsense was read")
	}
}

func TestScores(t *testing.T) {
	for _, tt := range []struct {
		name  string
		parse func([]byte) ([]float64, error)
		raw   string
		want  []float64
	}{
		{"the ssim filter's lines", parseSSIM, "n:1 Y:0.9 U:1.0 V:1.0 All:0.95 (13.0)\nn:2 Y:1 U:1 V:1 All:1.000000 (inf)\n", []float64{95, 100}},
		{"libvmaf's table", parseVMAF, "Frame,integer_adm2,vmaf,\n0,0.9,91.5,\n1,0.9,92.25,\n", []float64{91.5, 92.25}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.parse([]byte(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("scores (-want +got):\n%s", diff)
			}
			if _, err := tt.parse([]byte("nonsense\n")); err == nil {
				t.Error("nonsense was read")
			}
		})
	}
}

func TestTreeDigest(t *testing.T) {
	write := func(path, text string) string {
		dir := t.TempDir()
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		sum, files, err := treeDigest(dir)
		if err != nil || files != 1 {
			t.Fatalf("%d files, error %v; want one file", files, err)
		}
		return sum
	}
	first := write("a/b", "x")
	if again := write("a/b", "x"); again != first {
		t.Error("the same tree has another digest")
	}
	if write("a/c", "x") == first {
		t.Error("a renamed file leaves the digest as it was")
	}
	if write("a/b", "y") == first {
		t.Error("other bytes leave the digest as it was")
	}
}

func TestVerdicts(t *testing.T) {
	var out strings.Builder
	missed := printVerdicts(&out, []verdict{{"one", "1", "1", true}, {"two", "3", "2", false}})
	const want = "PASS  one  1  1\nMISS  two  2  3\n\n1 of 2 targets are missed\n"
	if missed != 1 || out.String() != want {
		t.Errorf("%d missed:\n%s\nwant 1:\n%s", missed, out.String(), want)
	}
}

func TestGraphs(t *testing.T) {
	b := &bench{plan: &transcode.Plan{
		Rate: ffmpeg.Rational{Num: 24, Den: 1}, SegmentFrames: 96,
		Renditions: []transcode.Rendition{
			{Name: "720p", Width: 1280, Height: 720}, {Name: "480p", Width: 854, Height: 480}, {Name: "360p", Width: 640, Height: 360},
		},
	}}
	for _, tt := range []struct{ name, got, want string }{
		{
			"each size comes from the one before it", b.chained(),
			"[0:v:0]scale=1280:720:flags=bicubic,format=yuv420p,split[v0][s0];" +
				"[s0]scale=854:480:flags=bicubic,format=yuv420p,split[v1][s1];[s1]scale=640:360:flags=bicubic,format=yuv420p[v2]",
		},
		{
			"each size comes from the source", b.split(),
			"[0:v:0]split=3[s0][s1][s2];[s0]scale=1280:720:flags=bicubic,format=yuv420p[v0];" +
				"[s1]scale=854:480:flags=bicubic,format=yuv420p[v1];[s2]scale=640:360:flags=bicubic,format=yuv420p[v2]",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("got  %s\nwant %s", tt.got, tt.want)
			}
		})
	}
}
