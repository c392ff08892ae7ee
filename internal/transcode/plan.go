package transcode

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
)

// planVersion is part of every content-derived name. It is raised whenever the same
// plan would give other bytes: other arguments, another way of stitching.
const planVersion = 1

const (
	// chunkPair is how many seconds of source two chunks hold. Twelve seconds a chunk
	// cost 2 % more CPU than one process for all (the decoder starts again, at a
	// keyframe before the seam), four seconds 20 %.
	chunkPair = 24.0
	// splitSegments is the least number of segments that is worth splitting.
	splitSegments = 4
	// earlySeek is how much earlier than told ffmpeg seeks where a stream has B frames
	// and the container is searched by decode time: 3/23 s (ffmpeg_demux.c), rounded up.
	earlySeek = 0.135
	// minTimescale keeps the ticks of MP4 finer than 0.1 ms, as other muxers do.
	minTimescale = 10000
)

// Source is a file's identity: SHA256 of a file of this machine, else ETag and Size of
// an object. Where it lies and what it is called is not part of it.
type Source struct {
	Name   string `json:"name"` // base name, for people
	SHA256 string `json:"sha256,omitempty"`
	// ETag is as the object's store has it, or "modified " and its time where that has
	// none.
	ETag string `json:"etag,omitempty"`
	Size int64  `json:"size"`
}

// identity is what names are made of.
func (s Source) identity() string {
	if s.SHA256 != "" {
		return s.SHA256
	}
	return fmt.Sprintf("%d bytes, ETag %s", s.Size, s.ETag)
}

// Plan is all that a run's jobs need to know. It is a pure function of what
// [MakePlan] is given, and is stored as JSON beside the stream's segments.
type Plan struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // names the version's folder: 10 hex digits
	Source  Source `json:"source"`
	Build   string `json:"ffmpeg_build"`
	Product string `json:"product_hash"`
	Preset  string `json:"preset"`

	// The grid. A frame lasts FrameTicks of 1/Timescale second, a segment SegmentFrames.
	Rate          ffmpeg.Rational `json:"rate"` // frames a second
	Timescale     int64           `json:"timescale"`
	FrameTicks    int64           `json:"frame_ticks"`
	Frames        int64           `json:"frames"`
	SegmentFrames int64           `json:"segment_frames"`
	Segments      int             `json:"segments"`

	Input      Input       `json:"input"`
	Renditions []Rendition `json:"renditions"` // largest first, never empty
	Chunks     []Chunk     `json:"chunks"`
	Audio      *AudioPlan  `json:"audio,omitempty"`

	// Probe is what was known of the source, without its list of keyframes.
	Probe ffmpeg.Probe `json:"probe"`

	// CPU is the estimate of the whole run's CPU time, seconds.
	CPU float64 `json:"cpu_estimate"`
}

// Chunk is a range of the grid that one process encodes, whole segments of it.
type Chunk struct {
	First        int64 `json:"first"`         // frame
	Frames       int64 `json:"frames"`        // exactly so many must come out
	FirstSegment int   `json:"first_segment"` // number in the stream
	Segments     int   `json:"segments"`
	// Seek is where reading starts: seconds of the container's own time, at or little
	// after a keyframe. Nil reads from the file's start.
	Seek *float64 `json:"seek,omitempty"`
}

// AudioPlan says how the audio rendition is made.
type AudioPlan struct {
	Stream int `json:"stream"` // index in the file
	// Origin is when the first picture is shown, seconds of the source's own time: time 0
	// of the stream.
	Origin     ffmpeg.Rational `json:"origin"`
	SampleRate int             `json:"sample_rate"` // Hz, of the output
	Channels   int             `json:"channels"`    // of the output
	Bitrate    int             `json:"bitrate"`     // kbit/s
	Language   string          `json:"language,omitempty"`
}

// SegmentSeconds is how long a full segment lasts.
func (p *Plan) SegmentSeconds() float64 { return p.seconds(p.SegmentFrames) }

// Duration is how long the pictures last, seconds.
func (p *Plan) Duration() float64 { return p.seconds(p.Frames) }

// seconds is the time that so many frames take.
func (p *Plan) seconds(frames int64) float64 {
	return float64(frames) * float64(p.Rate.Den) / float64(p.Rate.Num)
}

// Items is the number of items of the encode phase, and of the verify phase.
func (p *Plan) Items() int {
	if p.Audio != nil {
		return len(p.Chunks) + 1
	}
	return len(p.Chunks)
}

// MakePlan plans the product for a file that was probed. It is pure: the same
// arguments give the same plan on any machine. build names the ffmpeg that will work.
// Errors are permanent and name the source.
func MakePlan(src Source, container ffmpeg.Container, probe ffmpeg.Probe, product Product, build string) (*Plan, error) {
	if err := product.Validate(); err != nil {
		return nil, myrmidon.Permanent(fmt.Errorf("product: %w", err))
	}
	v := probe.Video
	if err := checkSource(probe); err != nil {
		return nil, myrmidon.Permanent(fmt.Errorf("%s %w", src.Name, err))
	}
	p := &Plan{
		Version: planVersion,
		Source:  src,
		Build:   build,
		Product: product.Hash(),
		Preset:  product.Preset,
	}
	var err error
	if p.ID, err = versionID(p); err != nil {
		return nil, err
	}
	v, leadIn := withoutLeadIn(v)
	p.grid(v, product)
	width, height := displaySize(v)
	p.Renditions = Ladder(width, height, product.Rungs)
	p.Input = newInput(container, v, p.Rate)
	if leadIn > 0 {
		// The first decoded frame may be one of those before the keyframe.
		p.Input.LeadIn, p.Input.Relative = leadIn, false
	}
	p.Chunks = p.cut(v, container.Indexed)
	if a := probe.Audio; a != nil && product.Audio != nil {
		p.Audio = &AudioPlan{
			Stream:     a.Index,
			Origin:     reduce(ffmpeg.Rational{Num: v.Start * v.TimeBase.Num, Den: v.TimeBase.Den}),
			SampleRate: product.Audio.SampleRate,
			Channels:   product.Audio.Channels,
			Bitrate:    product.Audio.Bitrate,
			Language:   a.Language,
		}
	}
	p.CPU = estimate(p, v)
	p.Probe = probe
	brief := *v
	brief.Keyframes, brief.KeyGap = nil, nil
	p.Probe.Video = &brief
	return p, nil
}

// checkSource refuses what would not give a faithful stream. The error continues
// a sentence that begins with the file's name.
func checkSource(probe ffmpeg.Probe) error {
	v := probe.Video
	switch {
	case v == nil:
		return myrmidon.WithHint(errors.New("has no video stream"),
			"name a file with moving pictures; sound alone is not supported yet")
	case probe.Damage != "":
		return myrmidon.WithHint(fmt.Errorf("is %s", probe.Damage),
			hintDamaged)
	case v.Slots < 1 || v.Rate.Num < 1 || v.Rate.Den < 1 || v.TimeBase.Num < 1 || v.TimeBase.Den < 1:
		return myrmidon.WithHint(errors.New("has no frames that can be timed"),
			"put it into another container first: ffmpeg -i IN -c copy OUT.mkv")
	case v.Transfer == "smpte2084" || v.Transfer == "arib-std-b67":
		return myrmidon.WithHint(fmt.Errorf("is HDR video (%s), which is not supported yet", hdrName(v.Transfer)),
			"make an SDR version first; without tone mapping the colours would be wrong")
	}
	return nil
}

func hdrName(transfer string) string {
	if transfer == "arib-std-b67" {
		return "HLG"
	}
	return "PQ"
}

// versionID names the version: a hash of what the bytes depend on.
func versionID(p *Plan) (string, error) {
	b, err := json.Marshal([]any{p.Version, p.Source.identity(), p.Product, p.Build})
	if err != nil {
		return "", fmt.Errorf("transcode: name the version: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:5]), nil
}

// grid lays frames and segments over the source.
func (p *Plan) grid(v *ffmpeg.Video, product Product) {
	rate := reduce(v.Rate)
	frames := v.Slots
	// A rate above the product's is divided by a whole number, so that each frame
	// that is kept is shown at its own time.
	if k := int64(math.Ceil(rate.Float()/float64(product.MaxRate) - 1e-9)); k > 1 {
		rate = reduce(ffmpeg.Rational{Num: rate.Num, Den: rate.Den * k})
		frames = max(1, (2*frames+k)/(2*k))
	}
	p.Rate, p.Frames = rate, frames
	p.Timescale, p.FrameTicks = rate.Num, rate.Den
	for p.Timescale < minTimescale {
		p.Timescale *= 2
		p.FrameTicks *= 2
	}
	p.SegmentFrames = max(1, int64(math.Round(product.Segment*rate.Float())))
	p.Segments = int((frames + p.SegmentFrames - 1) / p.SegmentFrames)
}

// cut splits the segments into chunks of nearly equal length. How many there are
// depends on the source alone, never on how many slots will work on them.
func (p *Plan) cut(v *ffmpeg.Video, indexed bool) []Chunk {
	n := 1
	// A seek in a container without an index ends beside the mark, by some frames
	// (AVI: wrong ones, counted from there), so such a file is decoded in one go.
	if indexed && p.Segments >= splitSegments {
		n = 2 * max(1, int(math.Round(p.Duration()/chunkPair)))
		n = min(n, p.Segments/2)
	}
	chunks := make([]Chunk, n)
	for k := range chunks {
		from, to := k*p.Segments/n, (k+1)*p.Segments/n
		first := int64(from) * p.SegmentFrames
		chunks[k] = Chunk{
			First:        first,
			Frames:       min(int64(to)*p.SegmentFrames, p.Frames) - first,
			FirstSegment: from,
			Segments:     to - from,
			Seek:         seekFor(v, p.Rate, first, k == 0, p.Input.Deinterlace),
		}
	}
	return chunks
}

// seekFor finds the last keyframe from which all frames from first on can be
// decoded, and the time to ask ffmpeg for.
func seekFor(v *ffmpeg.Video, rate ffmpeg.Rational, first int64, fromStart, deinterlace bool) *float64 {
	if fromStart {
		return nil
	}
	if deinterlace {
		first -= 2 // the filter looks at the frame before
	}
	best := -1
	for i, pts := range v.Keyframes {
		if slot(pts-v.Start, v.TimeBase, rate) > first {
			break
		}
		best = i
	}
	if best <= 0 || best >= len(v.KeyGap) {
		return nil // the first keyframe: nothing is skipped by a seek
	}
	// ffmpeg subtracts 3/23 s from the target for streams with B frames, unless the
	// demuxer searches by presentation time. Without this nudge it would decode a whole
	// group of pictures more. It never reaches the next keyframe, with either.
	nudge := earlySeek
	if gap := v.KeyGap[best]; gap > 0 {
		nudge = min(nudge, float64(gap)*v.TimeBase.Float()/2)
	}
	at := float64(v.Keyframes[best])*v.TimeBase.Float() + nudge
	at = math.Round(at*1e6) / 1e6
	return &at
}

// slot is the number of the grid's frame at a time of so many ticks.
func slot(ticks int64, base, rate ffmpeg.Rational) int64 {
	return rescale(ticks, base, ffmpeg.Rational{Num: rate.Den, Den: rate.Num})
}

// rescale turns ticks of one time base into the nearest of another, halves away from
// zero, as ffmpeg's av_rescale_q does.
func rescale(ticks int64, from, to ffmpeg.Rational) int64 {
	num := big.NewInt(ticks)
	num.Mul(num, big.NewInt(from.Num)).Mul(num, big.NewInt(to.Den))
	den := big.NewInt(from.Den)
	den.Mul(den, big.NewInt(to.Num))
	if den.Sign() == 0 {
		return 0
	}
	negative := num.Sign() < 0
	num.Abs(num)
	// floor((2 num + den) / 2 den)
	num.Lsh(num, 1).Add(num, den).Quo(num, den.Lsh(den, 1))
	if negative {
		num.Neg(num)
	}
	return num.Int64()
}

// reduce divides out the greatest common divisor.
func reduce(r ffmpeg.Rational) ffmpeg.Rational {
	a, b := r.Num, r.Den
	for b != 0 {
		a, b = b, a%b
	}
	if a > 1 {
		return ffmpeg.Rational{Num: r.Num / a, Den: r.Den / a}
	}
	return r
}

// Folders and files of a version. Names are fixed, so that every job can derive them.
const (
	audioFolder    = "audio"
	workFolder     = "work"
	masterFile     = "master.m3u8"
	mediaFile      = "media.m3u8"
	iframeFile     = "iframes.m3u8"
	initFile       = "init.mp4"
	segmentPattern = "%05d.m4s"
)

// streamFolder is where all versions of a stream lie.
func streamFolder(name string) string { return path.Join(name, "hls") }

// versionFolder is where this version lies.
func (p *Plan) versionFolder(name string) string { return path.Join(streamFolder(name), p.ID) }

// SafeName makes a key prefix of a file's base name: without its extension, with
// letters and digits of any script, and with dashes for whatever else would need
// quoting in a shell.
func SafeName(file string) string {
	base := path.Base(file)
	base = strings.TrimSuffix(base, path.Ext(base))
	const most = 100 // bytes; keys end at 1,024
	var b strings.Builder
	dash := false
	for _, r := range base {
		if r == utf8.RuneError || !unicode.In(r, unicode.L, unicode.N, unicode.M) && r != '_' && r != '.' {
			dash = true
			continue
		}
		if b.Len()+utf8.RuneLen(r) > most {
			break
		}
		if dash && b.Len() > 0 {
			b.WriteByte('-')
		}
		dash = false
		b.WriteRune(r)
	}
	if name := strings.Trim(b.String(), "."); name != "" {
		return name
	}
	return "video"
}
