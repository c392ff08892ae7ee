package transcode

import (
	"math"
	"strings"

	"myrmidon/internal/ffmpeg"
)

// Input says how frames are got out of the source and onto the grid.
type Input struct {
	Container ffmpeg.Container `json:"container"`
	Stream    int              `json:"stream"` // index in the file
	Width     int              `json:"width"`  // as it is shown: square pixels, upright
	Height    int              `json:"height"`
	Start     int64            `json:"start"` // PTS of the first shown frame, ticks
	// Relative takes the first decoded frame as time 0 instead of Start: containers
	// without an index may hold no presentation times at all.
	Relative bool `json:"relative,omitempty"`
	// LeadIn is how many frames before Start cannot be decoded, because a recording
	// began between keyframes. They are left out.
	LeadIn int64 `json:"lead_in,omitempty"`
	// Resample is set where frames do not fall one to a slot of the grid: some are
	// dropped, others shown longer. Unset, each decoded frame must fill its slot.
	Resample    bool `json:"resample,omitempty"`
	Deinterlace bool `json:"deinterlace,omitempty"`
	FullRange   bool `json:"full_range,omitempty"` // the source has levels 0 to 255
	RGB         bool `json:"rgb,omitempty"`        // the source has no matrix yet

	// What the output is tagged with; never empty.
	Matrix    string `json:"matrix"`
	Primaries string `json:"primaries"`
	Transfer  string `json:"transfer"`
}

func newInput(container ffmpeg.Container, v *ffmpeg.Video, rate ffmpeg.Rational) Input {
	width, height := displaySize(v)
	in := Input{
		Container:   container,
		Stream:      v.Index,
		Width:       int(math.Round(width)),
		Height:      int(math.Round(height)),
		Start:       v.Start,
		Relative:    !container.Indexed,
		Resample:    v.Variable || rate != reduce(v.Rate),
		Deinterlace: v.Interlaced,
		FullRange:   v.Range == "pc" || strings.HasPrefix(v.PixelFormat, "yuvj"),
		RGB:         v.Matrix == "gbr" || isRGB(v.PixelFormat),
	}
	// Players guess the colours of untagged video from its height, so that the rungs
	// of one untagged master would differ. All rungs are tagged with what a player
	// would guess for the master.
	guess := colours{"bt709", "bt709", "bt709"}
	if !in.RGB && max(v.Width, v.Height) < 1280 && min(v.Width, v.Height) < 720 {
		guess = colours{"smpte170m", "smpte170m", "smpte170m"}
		if v.Height == 576 || v.Height == 288 {
			guess = colours{"bt470bg", "bt470bg", "smpte170m"}
		}
	}
	in.Matrix = known(matrices, v.Matrix, guess.matrix)
	in.Primaries = known(primaries, v.Primaries, guess.primaries)
	in.Transfer = known(transfers, v.Transfer, guess.transfer)
	return in
}

// complaintsPerFrame is how many lines a decoder may print of one frame that it cannot
// begin with: H.264 has three.
const complaintsPerFrame = 4

// tolerates reports whether so many complaints of a decoder are no more than those
// about the lead-in, which are rightful. Frames are counted all the same.
func (in *Input) tolerates(complaints int) bool {
	return int64(complaints) <= in.LeadIn*complaintsPerFrame
}

// withoutLeadIn is v from its first keyframe on, and how many frames that leaves out.
// Recordings of a broadcast begin anywhere.
func withoutLeadIn(v *ffmpeg.Video) (*ffmpeg.Video, int64) {
	lead := slot(v.LeadIn, v.TimeBase, v.Rate)
	if lead < 1 || lead >= v.Slots {
		return v, 0
	}
	rest := *v
	rest.Start += v.LeadIn
	rest.Slots -= lead
	rest.Frames = max(1, rest.Frames-lead)
	return &rest, lead
}

type colours struct{ matrix, primaries, transfer string }

func isRGB(format string) bool {
	for _, p := range []string{"rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8"} {
		if strings.HasPrefix(format, p) {
			return true
		}
	}
	return false
}

// ffprobe's names of what is carried over, with the name that the setparams filter
// has for it. Others (unknown, reserved) are not.
var (
	matrices = map[string]string{
		"bt709": "bt709", "fcc": "fcc", "bt470bg": "bt470bg", "smpte170m": "smpte170m",
		"smpte240m": "smpte240m", "bt2020nc": "bt2020nc",
	}
	primaries = map[string]string{
		"bt709": "bt709", "bt470m": "bt470m", "bt470bg": "bt470bg", "smpte170m": "smpte170m",
		"smpte240m": "smpte240m", "film": "film", "bt2020": "bt2020",
		"smpte431": "smpte431", "smpte432": "smpte432",
	}
	transfers = map[string]string{
		"bt709": "bt709", "bt470m": "bt470m", "gamma22": "bt470m", "bt470bg": "bt470bg",
		"gamma28": "bt470bg", "smpte170m": "smpte170m", "smpte240m": "smpte240m",
		"linear": "linear", "iec61966-2-1": "iec61966-2-1", "bt2020-10": "bt2020-10", "bt2020-12": "bt2020-12",
	}
)

func known(names map[string]string, name, guess string) string {
	if n, ok := names[name]; ok {
		return n
	}
	return guess
}
