package ffmpeg

// Probe is what is known of a media file before anything is decoded. It is the
// input of plans, so it holds no path and no time of day: the same bytes give the
// same Probe. Times are in the stream's own ticks (TimeBase), exact.
type Probe struct {
	Format   string  `json:"format"`             // the demuxer used: "mov", "matroska", …
	Indexed  bool    `json:"indexed"`            // seeks land on keyframes exactly (mov, matroska)
	Size     int64   `json:"size"`               // bytes
	Duration float64 `json:"duration"`           // seconds; of the video stream, else the container
	BitRate  int64   `json:"bit_rate,omitempty"` // of the whole file, bits a second
	Video    *Video  `json:"video,omitempty"`
	Audio    *Audio  `json:"audio,omitempty"` // the default (else the first) audio stream
	// Damage names what is wrong without being fatal to probing: "cut off: 180 of
	// 576 frames are in the file". Empty for a sound file.
	Damage string `json:"damage,omitempty"`
}

// Rational is a fraction; Den is never 0 in a valid value.
type Rational struct {
	Num int64 `json:"num"`
	Den int64 `json:"den"`
}

// Float returns the fraction's value.
func (r Rational) Float() float64 { return float64(r.Num) / float64(r.Den) }

// Video describes the first video stream that is not a cover picture.
type Video struct {
	Index       int      `json:"index"` // among all streams, as in 0:<index>
	Codec       string   `json:"codec"` // ffprobe's codec_name
	Width       int      `json:"width"` // coded, before rotation and aspect
	Height      int      `json:"height"`
	Rotation    int      `json:"rotation,omitempty"` // degrees clockwise to show it: 0, 90, 180, 270
	SAR         Rational `json:"sar"`                // sample aspect ratio; 1:1 if unknown
	PixelFormat string   `json:"pixel_format"`
	Interlaced  bool     `json:"interlaced,omitempty"`
	Range       string   `json:"color_range,omitempty"` // "tv", "pc" or ""
	Matrix      string   `json:"color_matrix,omitempty"`
	Primaries   string   `json:"color_primaries,omitempty"`
	Transfer    string   `json:"color_transfer,omitempty"`

	TimeBase Rational `json:"time_base"` // seconds a tick
	Start    int64    `json:"start"`     // PTS of the first shown frame, ticks
	End      int64    `json:"end"`       // PTS of the last shown frame plus its duration, ticks
	Frames   int64    `json:"frames"`    // frames to be shown, counted packet by packet
	// Rate is the frame rate of the grid: exact for constant rates (24000/1001), else
	// the usual rate nearest to the mean or to the median gap, whichever is faster, 60 at
	// most. Variable is set when frames do not fall one
	// to a grid slot, and when the last frame is too short for its slot or lasts nobody
	// knows how long: the fps filter may then give the last slot or not.
	Rate     Rational `json:"rate"`
	Variable bool     `json:"variable,omitempty"`
	// Slots is how many frames the constant-rate output has, that is, what
	// setpts=PTS-Start,fps=Rate:round=near gives: Frames unless Variable. A constant
	// rate may give more after the last (a long last duration), never fewer.
	Slots int64 `json:"slots"`
	// Keyframes are the PTS, ticks, of frames where decoding may begin, ascending,
	// at least one second apart (others are left out), the first always included: it is
	// before Start where an edit list begins between keyframes.
	// NextKeyframe gaps matter for seeking: KeyGap[i] is the distance in ticks from
	// Keyframes[i] to the very next keyframe in the file, listed or not (0 at the end).
	Keyframes []int64 `json:"keyframes,omitempty"`
	KeyGap    []int64 `json:"key_gap,omitempty"`
	// LeadIn is the distance in ticks from Start to the first keyframe, where the file
	// begins between keyframes (a recording of a broadcast) and decoders can give nothing
	// before that; 0 otherwise.
	LeadIn  int64 `json:"lead_in,omitempty"`
	BFrames bool  `json:"b_frames,omitempty"` // has_b_frames > 0: ffmpeg seeks 3/23 s early
}

// Audio describes an audio stream.
type Audio struct {
	Index      int      `json:"index"`
	Codec      string   `json:"codec"`
	SampleRate int      `json:"sample_rate"`
	Channels   int      `json:"channels"`
	Layout     string   `json:"layout,omitempty"`
	Language   string   `json:"language,omitempty"`
	TimeBase   Rational `json:"time_base"`
	Start      int64    `json:"start"`   // PTS of the first packet, ticks (after priming is skipped, where the container says)
	Samples    int64    `json:"samples"` // estimate from the stream's duration
}
