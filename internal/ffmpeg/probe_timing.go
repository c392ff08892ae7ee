package ffmpeg

import (
	"cmp"
	"errors"
	"math"
	"math/bits"
	"slices"
)

// usualRates are the frame rates that cameras, studios and screens use.
var usualRates = []Rational{
	{24000, 1001},
	{24, 1},
	{25, 1},
	{30000, 1001},
	{30, 1},
	{48000, 1001},
	{48, 1},
	{50, 1},
	{60000, 1001},
	{60, 1},
	{10, 1},
	{12, 1},
	{25, 2},
	{15, 1},
	{20, 1},
	{15000, 1001},
	{100, 1},
	{120000, 1001},
	{120, 1},
	{144, 1},
	{240, 1},
	{5, 1},
	{8, 1},
	{1, 1},
	{2, 1},
}

// maxHours bounds how long a video may claim to be; time stamps that jump would
// otherwise turn into billions of copies of a frame.
const maxHours = 48

var (
	errNoFrames  = errors.New("it holds no frame that could be shown")
	errTooLong   = errors.New("its time stamps span more than 48 hours")
	errNoTicking = errors.New("its time base is not a fraction of a second")
)

// timing is what the packets of a video stream say about time.
type timing struct {
	start, end, frames, slots int64
	rate                      Rational
	variable                  bool
	keyframes, keyGap         []int64
	leadIn                    int64
}

// timingHints is what the stream's header says.
type timingHints struct {
	timeBase   Rational
	real, mean Rational // r_frame_rate, avg_frame_rate; 0/0 if unknown
	delay      int64    // has_b_frames: frames that the decoder holds back
	interlaced bool
}

// analyse turns the packets of a video stream, in file order, into its timing. It
// sorts stamps in place.
func analyse(stamps []stamp, h timingHints) (timing, error) {
	if tb := h.timeBase; tb.Num <= 0 || tb.Den <= 0 || tb.Num > math.MaxInt32 || tb.Den > math.MaxInt32 {
		return timing{}, errNoTicking
	}
	stamps = dropSecondFields(stamps, h)
	stamps = timeMissing(stamps, h)
	slices.SortStableFunc(stamps, byTime)
	shown := make([]int64, 0, len(stamps))
	var last stamp
	for _, s := range stamps {
		if s.flags&flagDiscard == 0 {
			shown = append(shown, s.pts)
			last = s
		}
	}
	if len(shown) == 0 {
		return timing{}, errNoFrames
	}
	t := timing{start: shown[0], frames: int64(len(shown))}
	span := float64(last.pts-t.start) * h.timeBase.Float()
	if span > maxHours*3600 {
		return timing{}, errTooLong
	}
	rate, constant := constantRate(shown, h)
	if !constant {
		rate = typicalRate(shown, h)
	}
	t.rate = rate
	duration := int64(last.duration)
	if duration <= 0 {
		duration = max(1, rescale(1, rate.Den*h.timeBase.Den, rate.Num*h.timeBase.Num))
	}
	if float64(duration)*h.timeBase.Float() > maxHours*3600 {
		return timing{}, errTooLong
	}
	t.end = last.pts + duration
	t.slots = t.frames
	// The fps filter stops at the slot of the end. A last frame that is too short to
	// reach the next slot it drops, so that even an even rate gives a frame less. How
	// long a last frame lasts whose duration the file does not tell, decoders guess,
	// each version of ffmpeg in another way: the last slot may then be missing.
	if end := slot(t.end-t.start, rate, h.timeBase); !constant || end < t.frames || last.duration <= 0 {
		t.variable = true
		t.slots = max(1, end)
	}
	t.keyframes, t.keyGap, t.leadIn = keyframes(stamps, t.start, h.timeBase)
	return t, nil
}

func byTime(a, b stamp) int { return cmp.Compare(a.pts, b.pts) }

// slot is the place of a frame that lies d ticks after the first, on a grid of rate
// frames a second: what `setpts=PTS-START,fps=fps=RATE:round=near` gives it, and,
// for the stream's end, where the fps filter stops (its eof_action=round).
func slot(d int64, rate, timeBase Rational) int64 {
	return rescale(d, timeBase.Num*rate.Num, timeBase.Den*rate.Den)
}

// rescale is a·b/c, rounded to the nearest, halves away from zero, as av_rescale
// does it. b and c are positive. A result beyond int64 is cut to its limits.
func rescale(a, b, c int64) int64 {
	negative := a < 0
	u := uint64(a)
	if negative {
		u = -u
	}
	hi, lo := bits.Mul64(u, uint64(b))
	lo, carry := bits.Add64(lo, uint64(c)/2, 0)
	hi += carry
	if hi >= uint64(c) {
		if negative {
			return math.MinInt64
		}
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	q = min(q, math.MaxInt64)
	if negative {
		return -int64(q)
	}
	return int64(q)
}

// dropSecondFields removes the second fields of pictures that are coded as two
// fields, each a packet of its own (PAFF H.264 and MPEG-2 field pictures in transport
// streams): frames are counted, and a decoder joins the two. They show in two ways:
// no PTS of their own, or packets that come twice as fast as the stream's frames.
func dropSecondFields(stamps []stamp, h timingHints) []stamp {
	if !h.interlaced || len(stamps) < 4 {
		return stamps
	}
	var bare int
	var low, high int64 = math.MaxInt64, math.MinInt64
	for _, s := range stamps {
		if s.pts == noTime {
			bare++
			continue
		}
		low, high = min(low, s.pts), max(high, s.pts)
	}
	if n := len(stamps); bare*5 > n*2 && bare*5 < n*3 {
		return slices.DeleteFunc(stamps, func(s stamp) bool { return s.pts == noTime })
	}
	if bare > 0 || h.mean.Num <= 0 || h.mean.Den <= 0 || high <= low {
		return stamps
	}
	seen := float64(len(stamps)-1) / (float64(high-low) * h.timeBase.Float())
	if ratio := seen / h.mean.Float(); ratio < 1.9 || ratio > 2.1 {
		return stamps
	}
	slices.SortStableFunc(stamps, byTime)
	kept := stamps[:0]
	for i, s := range stamps {
		if i%2 == 0 {
			if i+1 < len(stamps) {
				s.duration += stamps[i+1].duration
				s.flags |= stamps[i+1].flags & flagKey
			}
			kept = append(kept, s)
		}
	}
	return kept
}

// timeMissing gives every packet a time where some have none (AVI, raw streams). A
// decoder then times its frames by the DTS of the packet that brought each out, which
// is as many frames later as it holds back (measured with H.264 and MPEG-4 in AVI,
// 1 to 4 threads); the PTS that other packets do have are then made up and not used.
func timeMissing(stamps []stamp, h timingHints) []stamp {
	missing, blank := false, false
	for _, s := range stamps {
		missing = missing || s.pts == noTime
		blank = blank || s.pts == noTime && s.dts == noTime
	}
	if !missing {
		return stamps
	}
	tick := int64(1)
	if r := firstValid(h.real, h.mean); r.Num > 0 {
		tick = max(1, rescale(1, r.Den*h.timeBase.Den, r.Num*h.timeBase.Num))
	}
	for i := range stamps {
		s := &stamps[i]
		switch {
		case blank: // not even a DTS: by place in the file
			s.pts = int64(i) * tick
		case s.dts != noTime:
			s.pts = s.dts + h.delay*tick
		}
	}
	return stamps
}

func firstValid(rates ...Rational) Rational {
	for _, r := range rates {
		if r.Num > 0 && r.Den > 0 && r.Num <= maxRateTerm && r.Den <= maxRateTerm {
			return r
		}
	}
	return Rational{}
}

// maxRateTerm bounds numerator and denominator of a rate that is taken over from a
// file, so that products with time bases fit 64 bits and time scales stay sane.
const maxRateTerm = 240_000

// constantRate finds the rate at which frame i falls on slot i, for each frame. Time
// stamps may be rounded (Matroska's to milliseconds); each stays within half a slot.
// What the file says comes first: of a few frames many rates would fit.
func constantRate(shown []int64, h timingHints) (Rational, bool) {
	candidates := append([]Rational{h.real, h.mean}, usualRates...)
	if isUsual(h.mean) && !isUsual(h.real) {
		candidates[0], candidates[1] = candidates[1], candidates[0]
	}
	for _, r := range candidates {
		if r = firstValid(r); r.Num > 0 && r.Float() <= 1000 && fits(shown, r, h.timeBase) {
			return r, true
		}
	}
	return Rational{}, false
}

func isUsual(r Rational) bool {
	return slices.ContainsFunc(usualRates, func(u Rational) bool { return u.Num*r.Den == r.Num*u.Den && r.Den != 0 })
}

func fits(shown []int64, rate, timeBase Rational) bool {
	for i, pts := range shown {
		if slot(pts-shown[0], rate, timeBase) != int64(i) {
			return false
		}
	}
	return true
}

// typicalRate is the usual rate, 60 at most, that is nearest to the mean rate or to that
// of the median gap, whichever is higher: a phone that leaves out frames in the dark has a
// mean of 27 but films at 30, and a slower grid would drop frames that are there.
func typicalRate(shown []int64, h timingHints) Rational {
	rate := 25.0
	n := len(shown)
	switch span := float64(shown[n-1]-shown[0]) * h.timeBase.Float(); {
	case n > 1 && span > 0:
		gaps := make([]int64, 0, n-1)
		for i, pts := range shown[1:] {
			gaps = append(gaps, pts-shown[i])
		}
		slices.Sort(gaps)
		rate = float64(n-1) / span
		if median := gaps[len(gaps)/2]; median > 0 {
			rate = max(rate, 1/(float64(median)*h.timeBase.Float()))
		}
	case firstValid(h.mean, h.real).Num > 0:
		rate = firstValid(h.mean, h.real).Float()
	}
	best, distance := Rational{25, 1}, math.Inf(1)
	for _, r := range usualRates {
		if d := math.Abs(math.Log(r.Float() / rate)); r.Float() <= 60 && d < distance {
			best, distance = r, d
		}
	}
	return best
}

// keyframes lists where decoding may begin; see [Video.Keyframes]. A frame that is
// not shown counts only if it is the last key before the first that is: where an
// edit list begins between keyframes, decoding begins there. leadIn is [Video.LeadIn].
func keyframes(stamps []stamp, start int64, timeBase Rational) (keys, gaps []int64, leadIn int64) {
	var all []int64
	for _, s := range stamps {
		if s.flags&flagKey == 0 {
			continue
		}
		switch {
		case s.pts <= start:
			all = append(all[:0], s.pts)
		case s.flags&flagDiscard == 0:
			all = append(all, s.pts)
		}
	}
	if len(all) > 0 && all[0] > start {
		leadIn = all[0] - start
	}
	if len(all) == 0 || all[0] > start {
		all = slices.Insert(all, 0, start) // no key at the start: decoders begin there all the same
	}
	second := timeBase.Den / timeBase.Num
	for i, pts := range all {
		if i > 0 && pts-keys[len(keys)-1] < second {
			continue
		}
		gap := int64(0)
		if i+1 < len(all) {
			gap = all[i+1] - pts
		}
		keys, gaps = append(keys, pts), append(gaps, gap)
	}
	return keys, gaps, leadIn
}
