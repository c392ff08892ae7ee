package transcode

import (
	"time"

	"myrmidon/internal/cost"
	"myrmidon/internal/ffmpeg"
)

// CPU seconds, measured on one core of a 2-core x86-64 server (BenchmarkLadder prints
// them anew); processors differ by a factor of two either way.
const (
	decodeCost = 0.0035 // a million source pixels, 24 Mbit/s H.264
	encodeCost = 0.0172 // a million pixels of a rendition, veryfast, scaling included
	audioCost  = 0.013  // a second of stereo sound: decode, resample, AAC
	deintCost  = 0.003  // a million source pixels through bwdif
	verifyCost = 0.0002 // a million pixels of a rendition: hashes, a keyframe a segment
	startCost  = 0.1    // a start of ffmpeg, dynamically linked
)

// estimate is the CPU time that a plan takes, seconds.
func estimate(p *Plan, v *ffmpeg.Video) float64 {
	frames := float64(p.Frames)
	source := float64(v.Width) * float64(v.Height) / 1e6
	// Frames of the source that are dropped have to be decoded all the same.
	cpu := source * max(frames, float64(v.Frames)) * decodeCost
	if p.Input.Deinterlace {
		cpu += source * frames * deintCost
	}
	for _, r := range p.Renditions {
		pixels := float64(r.Width) * float64(r.Height) / 1e6
		cpu += pixels * frames * (encodeCost*presetCost(p.Preset) + verifyCost)
	}
	// Each chunk is encoded by one process and verified by another.
	cpu += 2 * startCost * float64(len(p.Chunks))
	if p.Audio != nil {
		cpu += startCost + audioCost*p.Duration()
	}
	return cpu
}

// Estimate is what a run will take, before it runs.
type Estimate struct {
	CPU             float64       `json:"cpu_seconds"`
	PerSourceSecond float64       `json:"cpu_seconds_per_source_second"`
	Jobs            int           `json:"jobs"` // of ffmpeg: encoding and verifying
	Lambda          cost.Estimate `json:"lambda"`
}

// Estimate says what the plan will take. It is good to a factor of two.
func (p *Plan) Estimate() Estimate {
	jobs := 2 * p.Items()
	return Estimate{
		CPU:             p.CPU,
		PerSourceSecond: p.CPU / p.Duration(),
		Jobs:            jobs,
		Lambda:          cost.Lambda(time.Duration(p.CPU*float64(time.Second)), jobs, cost.X86),
	}
}
