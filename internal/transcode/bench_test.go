package transcode

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"myrmidon/internal/ffmpeg"
)

// benchClip is a real clip where $MYRMIDON_SHARED has one, else noisy test pictures.
func benchClip(b *testing.B) string {
	b.Helper()
	if shared := os.Getenv("MYRMIDON_SHARED"); shared != "" {
		file := filepath.Join(shared, "media", "big-buck-bunny-480p-30s.mp4")
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return clip(b, "noise.mp4", join(lavfi("854x480", "24", 10), fast("-vf", "noise=alls=8:allf=t", "-b:v", "8M"))...)
}

// encodeOnce runs the first chunk of a plan and returns its CPU time.
func encodeOnce(b *testing.B, file string, product Product) (*Plan, Chunk, time.Duration) {
	b.Helper()
	tools := needTools(b)
	p, _, err := Inspect(b.Context(), tools, specOf(file, product))
	if err != nil {
		b.Fatal(err)
	}
	c := p.Chunks[0]
	out, err := tools.Run(b.Context(), ffmpeg.Command{
		Args: append([]string{"-y"}, p.encodeArgs(ffmpeg.Local(file), c)...), Dir: b.TempDir(), Frames: c.Frames,
	})
	if err != nil {
		b.Fatal(err)
	}
	return p, c, out.CPU
}

// BenchmarkPresets prints the CPU time of x264's presets relative to veryfast, measured
// in the same run: the figures in presets.
func BenchmarkPresets(b *testing.B) {
	file := benchClip(b)
	product := Default()
	product.Rungs = product.Rungs[3:]
	_, _, base := encodeOnce(b, file, product)
	for _, preset := range presets {
		b.Run(preset.name, func(b *testing.B) {
			product.Preset = preset.name
			for b.Loop() {
				_, _, cpu := encodeOnce(b, file, product)
				b.ReportMetric(float64(cpu)/float64(base), "x-veryfast")
			}
		})
	}
}

// BenchmarkLadder prints what encodeCost and decodeCost stand for: CPU seconds a
// source second, beside what the plan estimates for the same chunk.
func BenchmarkLadder(b *testing.B) {
	file := benchClip(b)
	for b.Loop() {
		p, c, cpu := encodeOnce(b, file, Default())
		b.ReportMetric(cpu.Seconds()/p.seconds(c.Frames), "CPU-s/source-s")
		b.ReportMetric(p.CPU/p.Duration(), "estimated/source-s")
	}
}
