package hls

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Multivariant is a multivariant playlist: the variants of a presentation, the best
// first choice at the front, and the renditions that they share.
type Multivariant struct {
	// Version is EXT-X-VERSION; 0 means the lowest that the content needs.
	Version int
	// IndependentSegments says that each segment of each media playlist can be
	// decoded without another.
	IndependentSegments bool
	Renditions          []Rendition
	Variants            []Variant
	IFrames             []IFrameVariant
}

// RenditionType is the TYPE of EXT-X-MEDIA.
type RenditionType string

// The rendition types.
const (
	Audio          RenditionType = "AUDIO"
	Video          RenditionType = "VIDEO"
	Subtitles      RenditionType = "SUBTITLES"
	ClosedCaptions RenditionType = "CLOSED-CAPTIONS"
)

// Rendition is one alternative of a group, such as a language: EXT-X-MEDIA (bis,
// section 4.4.6.1). Empty fields are not written.
type Rendition struct {
	Type RenditionType
	// Group is the GROUP-ID by which variants name the group.
	Group string
	// Name is for people, and unique in its group.
	Name string
	// URI is the media playlist. Empty for closed captions, and for what is in the
	// variants' own segments.
	URI           string
	Language      string // RFC 5646: "en"
	AssocLanguage string
	// Default says that players should take this one unless told; at most one of a
	// group. It implies AutoSelect, which says that players may take it because it
	// suits the user's surroundings.
	Default, AutoSelect bool
	Forced              bool   // subtitles only
	InstreamID          string // closed captions only: "CC1", "SERVICE1"
	Characteristics     string
	Channels            string // audio: "2", "6", "16/JOC"
	BitDepth            int    // audio: bits a sample
	SampleRate          int    // audio: Hz
}

// Variant is one combination of renditions: EXT-X-STREAM-INF (bis, section 4.4.6.2).
type Variant struct {
	// Bandwidth is the peak segment bit rate and AverageBandwidth the mean, of the
	// whole variant with its largest renditions, in bits a second.
	Bandwidth, AverageBandwidth int64
	Codecs                      string // RFC 6381: "avc1.640028,mp4a.40.2"
	SupplementalCodecs          string
	Resolution                  Resolution // zero without video
	FrameRate                   float64    // frames a second, written with three decimals; 0 means none
	VideoRange                  VideoRange
	// Audio, Video, Subtitles and ClosedCaptions name groups of Renditions.
	// ClosedCaptions may be [NoClosedCaptions].
	Audio, Video, Subtitles, ClosedCaptions string
	URI                                     string
}

// NoClosedCaptions says of a variant that it has none: CLOSED-CAPTIONS=NONE. If one
// variant says so, all must.
const NoClosedCaptions = "NONE"

// IFrameVariant is an I-frame playlist: EXT-X-I-FRAME-STREAM-INF (bis, section
// 4.4.6.3). Fields are those of [Variant].
type IFrameVariant struct {
	Bandwidth, AverageBandwidth int64
	Codecs                      string
	Resolution                  Resolution
	VideoRange                  VideoRange
	Video                       string
	URI                         string
}

// Resolution is the size at which video is best shown, in pixels.
type Resolution struct{ Width, Height int }

// VideoRange names the transfer characteristics of video.
type VideoRange string

// The video ranges.
const (
	SDR VideoRange = "SDR"
	HLG VideoRange = "HLG"
	PQ  VideoRange = "PQ"
)

// Append appends the playlist to b. On error it returns b as it was.
func (m *Multivariant) Append(b []byte) ([]byte, error) {
	out, err := m.append(b)
	if err != nil {
		return b, fmt.Errorf("hls: multivariant playlist: %w", err)
	}
	return out, nil
}

// WriteTo writes the playlist to w, in one piece if it is valid and not at all if it
// is not.
func (m *Multivariant) WriteTo(w io.Writer) (int64, error) { return writeTo(w, m.Append) }

func (m *Multivariant) append(b []byte) ([]byte, error) {
	groups, err := m.groups()
	if err != nil {
		return nil, err
	}
	version, err := chooseVersion(m.Version, m.neededVersion())
	if err != nil {
		return nil, err
	}
	if len(m.Variants) == 0 {
		return nil, errors.New("it has no variants")
	}
	b = append(b, "#EXTM3U\n"...)
	if version > 1 { // 1 is what no version means
		b = appendInt(b, "#EXT-X-VERSION:", int64(version))
	}
	if m.IndependentSegments {
		b = append(b, "#EXT-X-INDEPENDENT-SEGMENTS\n"...)
	}
	for i := range m.Renditions {
		if b, err = m.Renditions[i].append(b); err != nil {
			return nil, fmt.Errorf("rendition %d: %w", i, err)
		}
	}
	none := 0
	for i := range m.Variants {
		if m.Variants[i].ClosedCaptions == NoClosedCaptions {
			none++
		}
		if b, err = m.Variants[i].append(b, groups); err != nil {
			return nil, fmt.Errorf("variant %d: %w", i, err)
		}
	}
	if none != 0 && none != len(m.Variants) {
		return nil, fmt.Errorf("ClosedCaptions: %d of %d variants say %s; all must, or none", none, len(m.Variants), NoClosedCaptions)
	}
	for i := range m.IFrames {
		if b, err = m.IFrames[i].append(b, groups); err != nil {
			return nil, fmt.Errorf("variant of I-frames %d: %w", i, err)
		}
	}
	return b, nil
}

// neededVersion returns the lowest version that allows what the playlist holds (bis,
// section 8): 7 for the SERVICE values of INSTREAM-ID; 4 with renditions, which older
// players would take for a presentation without sound; else 1.
func (m *Multivariant) neededVersion() int {
	version := 1
	for i := range m.Renditions {
		version = max(version, 4)
		if strings.HasPrefix(m.Renditions[i].InstreamID, "SERVICE") {
			version = 7
		}
	}
	return version
}

// group is what variants refer to.
type group struct {
	kind RenditionType
	id   string
}

// groups returns the groups that the renditions form, and checks what only shows
// among them.
func (m *Multivariant) groups() (map[group]bool, error) {
	groups := make(map[group]bool)
	type named struct {
		group
		name string
	}
	names := make(map[named]bool)
	defaults := make(map[group]bool)
	for i, r := range m.Renditions {
		g := group{r.Type, r.Group}
		groups[g] = true
		if names[named{g, r.Name}] {
			return nil, fmt.Errorf("rendition %d: field Name: %q is twice in group %q", i, r.Name, r.Group)
		}
		names[named{g, r.Name}] = true
		if r.Default && defaults[g] {
			return nil, fmt.Errorf("rendition %d: Default: group %q has two", i, r.Group)
		}
		defaults[g] = defaults[g] || r.Default
	}
	return groups, nil
}

// check says what the fields of r may not be together.
func (r *Rendition) check() error {
	if r.Group == "" {
		return fmt.Errorf("field Group: %w", errEmpty)
	}
	if r.Name == "" {
		return fmt.Errorf("field Name: %w", errEmpty)
	}
	captions := r.Type == ClosedCaptions
	switch {
	case r.Type != Audio && r.Type != Video && r.Type != Subtitles && !captions:
		return fmt.Errorf("field Type: %q is none", r.Type)
	case captions && r.URI != "":
		return errors.New("URI: closed captions have none")
	case r.Type == Subtitles && r.URI == "":
		return errors.New("URI: subtitles need one")
	case captions != (r.InstreamID != ""):
		return errors.New("InstreamID: closed captions need one, and nothing else has one")
	case captions && !validInstream(r.InstreamID):
		return fmt.Errorf("InstreamID: %q is not CC1 to CC4 or SERVICE1 to SERVICE63", r.InstreamID)
	case r.Forced && r.Type != Subtitles:
		return errors.New("field Forced: only subtitles can be")
	case r.BitDepth < 0 || r.SampleRate < 0:
		return fmt.Errorf("BitDepth %d, SampleRate %d: negative", r.BitDepth, r.SampleRate)
	}
	return nil
}

// validInstream knows the channels of CEA-608 and CEA-708.
func validInstream(id string) bool {
	digits, ok := strings.CutPrefix(id, "CC")
	limit := 4
	if !ok {
		digits, ok = strings.CutPrefix(id, "SERVICE")
		limit = 63
	}
	n, err := strconv.Atoi(digits)
	return ok && err == nil && n >= 1 && n <= limit && strconv.Itoa(n) == digits
}

func (r *Rendition) append(b []byte) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	a := attributes{b: append(b, "#EXT-X-MEDIA:"...)}
	a.plain("TYPE", string(r.Type))
	a.quoted("GROUP-ID", r.Group)
	a.optional("LANGUAGE", r.Language)
	a.optional("ASSOC-LANGUAGE", r.AssocLanguage)
	a.quoted("NAME", r.Name)
	if r.Default {
		a.plain("DEFAULT", "YES")
	}
	if r.Default || r.AutoSelect {
		a.plain("AUTOSELECT", "YES")
	}
	if r.Forced {
		a.plain("FORCED", "YES")
	}
	a.optional("INSTREAM-ID", r.InstreamID)
	if r.BitDepth > 0 {
		a.integer("BIT-DEPTH", int64(r.BitDepth))
	}
	if r.SampleRate > 0 {
		a.integer("SAMPLE-RATE", int64(r.SampleRate))
	}
	a.optional("CHARACTERISTICS", r.Characteristics)
	a.optional("CHANNELS", r.Channels)
	if r.URI != "" {
		a.uri("URI", r.URI)
	}
	return append(a.b, '\n'), a.err
}

// bandwidth writes BANDWIDTH and AVERAGE-BANDWIDTH.
func (a *attributes) bandwidth(peak, average int64) {
	if peak <= 0 {
		a.fail(fmt.Errorf("field Bandwidth: %d bits a second is none", peak))
	}
	a.integer("BANDWIDTH", peak)
	if average < 0 || average > peak {
		a.fail(fmt.Errorf("AverageBandwidth: %d is not between 0 and the peak, %d", average, peak))
	}
	if average > 0 {
		a.integer("AVERAGE-BANDWIDTH", average)
	}
}

func (a *attributes) resolution(r Resolution) {
	if r == (Resolution{}) {
		return
	}
	if r.Width <= 0 || r.Height <= 0 {
		a.fail(fmt.Errorf("Resolution: %dx%d is none", r.Width, r.Height))
	}
	a.plain("RESOLUTION", strconv.Itoa(r.Width)+"x"+strconv.Itoa(r.Height))
}

func (a *attributes) videoRange(r VideoRange) {
	switch r {
	case "":
	case SDR, HLG, PQ:
		a.plain("VIDEO-RANGE", string(r))
	default:
		a.fail(fmt.Errorf("VideoRange: %q is none", r))
	}
}

// group writes a reference to a group of renditions.
func (a *attributes) group(groups map[group]bool, kind RenditionType, id string) {
	if id == "" {
		return
	}
	if !groups[group{kind, id}] {
		a.fail(fmt.Errorf("%s: no rendition is in a group %q", kind, id))
	}
	a.quoted(string(kind), id)
}

func (v *Variant) append(b []byte, groups map[group]bool) ([]byte, error) {
	a := attributes{b: append(b, "#EXT-X-STREAM-INF:"...)}
	a.bandwidth(v.Bandwidth, v.AverageBandwidth)
	a.optional("CODECS", v.Codecs)
	a.optional("SUPPLEMENTAL-CODECS", v.SupplementalCodecs)
	a.resolution(v.Resolution)
	if v.FrameRate != 0 {
		if !(v.FrameRate >= 0.001 && v.FrameRate <= math.MaxInt32) { // NaN, too
			a.fail(fmt.Errorf("FrameRate: %g is none", v.FrameRate))
		}
		a.plain("FRAME-RATE", strconv.FormatFloat(v.FrameRate, 'f', 3, 64))
	}
	a.videoRange(v.VideoRange)
	a.group(groups, Audio, v.Audio)
	a.group(groups, Video, v.Video)
	a.group(groups, Subtitles, v.Subtitles)
	if v.ClosedCaptions == NoClosedCaptions {
		a.plain(string(ClosedCaptions), NoClosedCaptions)
	} else {
		a.group(groups, ClosedCaptions, v.ClosedCaptions)
	}
	if err := checkURI("URI", v.URI); err != nil {
		a.fail(err)
	} else if v.URI[0] == '#' {
		a.fail(fmt.Errorf(`URI: %q begins with "#"`, v.URI))
	}
	return append(a.b, "\n"+v.URI+"\n"...), a.err
}

func (v *IFrameVariant) append(b []byte, groups map[group]bool) ([]byte, error) {
	a := attributes{b: append(b, "#EXT-X-I-FRAME-STREAM-INF:"...)}
	a.bandwidth(v.Bandwidth, v.AverageBandwidth)
	a.optional("CODECS", v.Codecs)
	a.resolution(v.Resolution)
	a.videoRange(v.VideoRange)
	a.group(groups, Video, v.Video)
	a.uri("URI", v.URI)
	return append(a.b, '\n'), a.err
}
