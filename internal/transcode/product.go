package transcode

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"myrmidon/internal/pattern"
)

// ProductHLS is the only kind of product there is. Posters, audio-only streams and
// others will be kinds of their own.
const ProductHLS = "hls"

// Product describes an output to make from a master. It is a value: a changed product
// is another product, with another [Product.Hash] and other object names.
type Product struct {
	Kind    string  `json:"kind" yaml:"kind"`       // [ProductHLS]
	Segment float64 `json:"segment" yaml:"segment"` // seconds a segment, 1 to 20; rounded to whole frames
	Preset  string  `json:"preset" yaml:"preset"`   // x264's: "veryfast"
	MaxRate int     `json:"max_fps" yaml:"max_fps"` // frames a second; faster sources are thinned by a whole factor
	Rungs   []Rung  `json:"rungs" yaml:"rungs"`     // largest first
	// Audio is nil for a silent product.
	Audio *AudioSettings `json:"audio,omitempty" yaml:"audio,omitempty"`
}

// Rung is a box that a picture is fitted into, keeping its aspect. The box is for
// landscape; portrait pictures turn it.
type Rung struct {
	Name    string  `json:"name" yaml:"name"` // names the rendition's folder: "1080p"
	Width   int     `json:"width" yaml:"width"`
	Height  int     `json:"height" yaml:"height"`
	CRF     float64 `json:"crf" yaml:"crf"`         // x264's constant rate factor, 0 (best) to 51
	MaxRate int     `json:"maxrate" yaml:"maxrate"` // kbit/s, of x264's rate-control buffer
	BufSize int     `json:"bufsize" yaml:"bufsize"` // kbit, size of that buffer
	Profile string  `json:"profile" yaml:"profile"` // "high", "main" or "baseline"
}

// AudioSettings describe the audio rendition, AAC-LC.
type AudioSettings struct {
	Bitrate  int `json:"bitrate" yaml:"bitrate"`   // kbit/s
	Channels int `json:"channels" yaml:"channels"` // 1 or 2; more are mixed down, one is copied to both
	// SampleRate is what every source is resampled to, Hz. One rate for a whole library
	// keeps players from reconfiguring their output between items; resampling costs
	// a hundredth of the encoding.
	SampleRate int `json:"sample_rate" yaml:"sample_rate"`
}

// Default returns the ladder that is used unless another product is given: 1080p to
// 360p at a constant quality, with peaks bounded for streaming.
func Default() Product {
	return Product{
		Kind:    ProductHLS,
		Segment: 4,
		Preset:  "veryfast",
		MaxRate: 60,
		Rungs: []Rung{
			{Name: "1080p", Width: 1920, Height: 1080, CRF: 23, MaxRate: 5000, BufSize: 7500, Profile: "high"},
			{Name: "720p", Width: 1280, Height: 720, CRF: 23, MaxRate: 2800, BufSize: 4200, Profile: "high"},
			{Name: "480p", Width: 854, Height: 480, CRF: 23, MaxRate: 1400, BufSize: 2100, Profile: "high"},
			{Name: "360p", Width: 640, Height: 360, CRF: 23, MaxRate: 800, BufSize: 1200, Profile: "high"},
		},
		Audio: &AudioSettings{Bitrate: 128, Channels: 2, SampleRate: 48000},
	}
}

// Hash names the product: 16 hex digits of the SHA-256 of its canonical JSON.
func (p Product) Hash() string {
	b, err := json.Marshal(p)
	if err != nil {
		// Only a NaN or an infinity does that; Validate refuses both.
		return "invalid"
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// presets are x264's, with their CPU time relative to veryfast. BenchmarkPresets prints
// the figures, which include the decoding that does not grow.
var presets = []struct {
	name string
	cost float64
}{
	{"ultrafast", 0.5},
	{"superfast", 0.72},
	{"veryfast", 1},
	{"faster", 1.55},
	{"fast", 2},
	{"medium", 2.3},
	{"slow", 3.2},
	{"slower", 5.3},
	{"veryslow", 9.7},
}

var (
	profiles    = []string{"high", "main", "baseline"}
	sampleRates = []int{16000, 22050, 24000, 32000, 44100, 48000} // of AAC, what players take

	// rungName is what a rung may be called: it becomes a folder and part of URLs.
	rungName = pattern.Of(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`)
)

// Validate reports the first thing that is wrong with p, naming the key as it is
// written in a product file: "rungs[2].height: …".
func (p Product) Validate() error {
	switch {
	case p.Kind == "":
		return fmt.Errorf("kind: missing; the one that is known is %q", ProductHLS)
	case p.Kind != ProductHLS:
		return fmt.Errorf("kind: %q is not known; the one that is known is %q", p.Kind, ProductHLS)
	case !(p.Segment >= 1 && p.Segment <= 20): // written so that NaN fails
		return fmt.Errorf("segment: %v seconds is not between 1 and 20", p.Segment)
	case p.MaxRate < 1 || p.MaxRate > 240:
		return fmt.Errorf("max_fps: %d is not between 1 and 240", p.MaxRate)
	case presetCost(p.Preset) == 0:
		return fmt.Errorf("preset: %q is none of x264's %s", p.Preset, presetNames())
	case len(p.Rungs) == 0:
		return fmt.Errorf("rungs: at least one is needed")
	case len(p.Rungs) > 16:
		return fmt.Errorf("rungs: %d are more than 16", len(p.Rungs))
	}
	for i, r := range p.Rungs {
		if err := r.validate(); err != nil {
			return fmt.Errorf("rungs[%d].%w", i, err)
		}
		if slices.ContainsFunc(p.Rungs[:i], func(other Rung) bool { return strings.EqualFold(other.Name, r.Name) }) {
			return fmt.Errorf("rungs[%d].name: %q is taken by an earlier rung", i, r.Name)
		}
		// Each size is made from the one before it, so it must fit into that.
		if i > 0 && (r.Width > p.Rungs[i-1].Width || r.Height > p.Rungs[i-1].Height) {
			return fmt.Errorf("rungs[%d]: %dx%d is larger than the rung before it; list the largest first",
				i, r.Width, r.Height)
		}
	}
	if p.Audio != nil {
		if err := p.Audio.validate(); err != nil {
			return fmt.Errorf("audio.%w", err)
		}
	}
	return nil
}

func (r Rung) validate() error {
	switch {
	case !rungName().MatchString(r.Name):
		return fmt.Errorf("name: %q is not 1 to 32 letters, digits, dashes and underscores", r.Name)
	case strings.EqualFold(r.Name, audioFolder) || strings.EqualFold(r.Name, workFolder):
		return fmt.Errorf("name: %q is the name of a folder of the stream", r.Name)
	case r.Width < 16 || r.Width > 8192:
		return fmt.Errorf("width: %d is not between 16 and 8192", r.Width)
	case r.Height < 16 || r.Height > 8192:
		return fmt.Errorf("height: %d is not between 16 and 8192", r.Height)
	case math.IsNaN(r.CRF) || r.CRF < 0 || r.CRF > 51:
		return fmt.Errorf("crf: %v is not between 0 and 51", r.CRF)
	case r.MaxRate < 50 || r.MaxRate > 200000:
		return fmt.Errorf("maxrate: %d kbit/s is not between 50 and 200000", r.MaxRate)
	case r.BufSize < 50 || r.BufSize > 400000:
		return fmt.Errorf("bufsize: %d kbit is not between 50 and 400000", r.BufSize)
	case !slices.Contains(profiles, r.Profile):
		return fmt.Errorf("profile: %q is none of %s", r.Profile, strings.Join(profiles, ", "))
	}
	return nil
}

func (a AudioSettings) validate() error {
	switch {
	case a.Bitrate < 16 || a.Bitrate > 512:
		return fmt.Errorf("bitrate: %d kbit/s is not between 16 and 512", a.Bitrate)
	case a.Channels != 1 && a.Channels != 2:
		return fmt.Errorf("channels: %d is neither 1 nor 2", a.Channels)
	case !slices.Contains(sampleRates, a.SampleRate):
		return fmt.Errorf("sample_rate: %d Hz is none of %v", a.SampleRate, sampleRates)
	}
	return nil
}

// presetCost is the preset's CPU time relative to veryfast; 0 if it is not known.
func presetCost(name string) float64 {
	for _, p := range presets {
		if p.name == name {
			return p.cost
		}
	}
	return 0
}

func presetNames() string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}
