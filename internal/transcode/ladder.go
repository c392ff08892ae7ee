package transcode

import (
	"fmt"
	"math"

	"myrmidon/internal/ffmpeg"
)

// Rendition is one size that is made of a source: a rung, fitted.
type Rendition struct {
	Name    string  `json:"name"`
	Width   int     `json:"width"`  // pixels, even
	Height  int     `json:"height"` // pixels, even
	CRF     float64 `json:"crf"`
	MaxRate int     `json:"maxrate"` // kbit/s
	BufSize int     `json:"bufsize"` // kbit
	Profile string  `json:"profile"`
}

// squareEnough is how far a pixel's aspect may be off 1 to count as square.
const squareEnough = 0.01

// displaySize is the size at which v is meant to be seen, in square pixels: pixel
// aspect applied to the width, then rotation.
func displaySize(v *ffmpeg.Video) (width, height float64) {
	width, height = float64(v.Width), float64(v.Height)
	// Rescaled files often carry an aspect a hair off 1 (1281:1280) that comes from
	// rounding to even sizes. Nobody sees it; following it would resample for nothing.
	if v.SAR.Num > 0 && v.SAR.Den > 0 && math.Abs(v.SAR.Float()-1) > squareEnough {
		width *= v.SAR.Float()
	}
	if v.Rotation == 90 || v.Rotation == 270 {
		width, height = height, width
	}
	return width, height
}

// Ladder fits the product's rungs to a picture that is shown at width x height. A
// rung that would enlarge the picture is left out, and so is one that gives the size
// of a rung before it. If none is left, there is one rendition of the picture's own
// size, with the settings of the smallest rung, named by its shorter side ("144p").
func Ladder(width, height float64, rungs []Rung) []Rendition {
	var out []Rendition
	for _, r := range rungs {
		boxW, boxH := float64(r.Width), float64(r.Height)
		if height > width {
			boxW, boxH = boxH, boxW
		}
		scale := min(boxW/width, boxH/height)
		if scale > 1 {
			continue
		}
		w, h := even(width*scale, boxW), even(height*scale, boxH)
		if n := len(out); n > 0 && out[n-1].Width == w && out[n-1].Height == h {
			continue
		}
		out = append(out, r.rendition(r.Name, w, h))
	}
	if len(out) == 0 {
		r := rungs[len(rungs)-1]
		w, h := even(width, width), even(height, height)
		out = append(out, r.rendition(fmt.Sprintf("%dp", min(w, h)), w, h))
	}
	return out
}

func (r Rung) rendition(name string, w, h int) Rendition {
	return Rendition{
		Name: name, Width: w, Height: h,
		CRF: r.CRF, MaxRate: r.MaxRate, BufSize: r.BufSize, Profile: r.Profile,
	}
}

// even rounds x to the nearest even number that is at least 2 and not above limit:
// 4:2:0 subsampling halves both sides.
func even(x, limit float64) int {
	n := 2 * int(math.Round(x/2))
	if float64(n) > limit {
		n -= 2
	}
	return max(n, 2)
}
