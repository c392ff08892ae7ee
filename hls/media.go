package hls

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

// Media is a media playlist: the segments of one rendition in order.
type Media struct {
	// Version is EXT-X-VERSION; 0 means the lowest that the content needs.
	Version int
	// TargetDuration is EXT-X-TARGETDURATION in seconds; 0 means the longest
	// segment's duration, and at least 1. It is rounded to the nearest second, or up
	// where Version is below 6: there the tag is a bound on durations as they are, and
	// later on rounded ones (bis, section 8).
	TargetDuration int
	// MediaSequence is the number of the first segment.
	MediaSequence int64
	// DiscontinuitySequence counts the discontinuities before the first segment.
	DiscontinuitySequence int64
	PlaylistType          PlaylistType
	// IndependentSegments says that each segment can be decoded without another.
	IndependentSegments bool
	// IFramesOnly says that each segment is one I-frame; its duration lasts to the
	// next one (bis, section 4.4.3.6).
	IFramesOnly bool
	// Map is the initialization section of all segments up to one with its own.
	Map      *Map
	Segments []Segment
	// EndList says that no segment will be added.
	EndList bool
}

// PlaylistType says how a media playlist may change: EXT-X-PLAYLIST-TYPE.
type PlaylistType string

// The playlist types. A playlist without one may drop segments at its front.
const (
	VOD   PlaylistType = "VOD"   // never changes
	Event PlaylistType = "EVENT" // only grows
)

// Map names an initialization section: EXT-X-MAP.
type Map struct {
	URI       string
	ByteRange *ByteRange // nil means the whole resource
}

// ByteRange is a part of a resource, in bytes. The offset is always written, so no
// reader has to know what came before.
type ByteRange struct {
	Length, Offset int64
}

// Segment is one media segment.
type Segment struct {
	URI string
	// Duration is in seconds and is written with six decimals, nearest first. A
	// rounding error is thus below a microsecond a segment.
	Duration float64
	Title    string // for people; may be empty
	// ByteRange is the part of URI; nil means all of it.
	ByteRange *ByteRange
	// Discontinuity says that timestamps, codecs or tracks change before this
	// segment.
	Discontinuity bool
	// Gap says that the segment is missing and should not be loaded.
	Gap bool
	// Map replaces the initialization section from this segment on; nil keeps it.
	Map *Map
	// ProgramDateTime is the wall-clock time of the segment's first sample; zero
	// means none.
	ProgramDateTime time.Time
}

// maxDuration bounds durations in seconds to what every reader can hold.
const maxDuration = 1 << 31

// Append appends the playlist to b. On error it returns b as it was.
func (m *Media) Append(b []byte) ([]byte, error) {
	out, err := m.append(b)
	if err != nil {
		return b, fmt.Errorf("hls: media playlist: %w", err)
	}
	return out, nil
}

// WriteTo writes the playlist to w, in one piece if it is valid and not at all if it
// is not.
func (m *Media) WriteTo(w io.Writer) (int64, error) { return writeTo(w, m.Append) }

func writeTo(w io.Writer, appendTo func([]byte) ([]byte, error)) (int64, error) {
	b, err := appendTo(nil)
	if err != nil {
		return 0, err
	}
	n, err := w.Write(b)
	if err != nil {
		return int64(n), fmt.Errorf("hls: write a playlist: %w", err)
	}
	return int64(n), nil
}

func (m *Media) append(b []byte) ([]byte, error) {
	version, err := chooseVersion(m.Version, m.neededVersion())
	if err != nil {
		return nil, err
	}
	target, err := m.target(version)
	if err != nil {
		return nil, err
	}
	switch {
	case m.MediaSequence < 0:
		return nil, fmt.Errorf("MediaSequence: %d is negative", m.MediaSequence)
	case m.DiscontinuitySequence < 0:
		return nil, fmt.Errorf("DiscontinuitySequence: %d is negative", m.DiscontinuitySequence)
	case m.PlaylistType != "" && m.PlaylistType != VOD && m.PlaylistType != Event:
		return nil, fmt.Errorf("PlaylistType: %q is none", m.PlaylistType)
	}
	b = append(b, "#EXTM3U\n"...)
	b = appendInt(b, "#EXT-X-VERSION:", int64(version))
	b = appendInt(b, "#EXT-X-TARGETDURATION:", int64(target))
	if m.MediaSequence != 0 {
		b = appendInt(b, "#EXT-X-MEDIA-SEQUENCE:", m.MediaSequence)
	}
	if m.DiscontinuitySequence != 0 {
		b = appendInt(b, "#EXT-X-DISCONTINUITY-SEQUENCE:", m.DiscontinuitySequence)
	}
	if m.PlaylistType != "" {
		b = append(b, "#EXT-X-PLAYLIST-TYPE:"+string(m.PlaylistType)+"\n"...)
	}
	if m.IFramesOnly {
		b = append(b, "#EXT-X-I-FRAMES-ONLY\n"...)
	}
	if m.IndependentSegments {
		b = append(b, "#EXT-X-INDEPENDENT-SEGMENTS\n"...)
	}
	if m.Map != nil {
		if b, err = appendMap(b, m.Map); err != nil {
			return nil, err
		}
	}
	for i := range m.Segments {
		if b, err = m.Segments[i].append(b); err != nil {
			return nil, fmt.Errorf("segment %d: %w", i, err)
		}
	}
	if m.EndList {
		b = append(b, "#EXT-X-ENDLIST\n"...)
	}
	return b, nil
}

// target returns the target duration, which no segment's may exceed when rounded
// (bis, section 4.4.3.1). It reckons with the durations as they are written:
// 4.4999999 becomes 4.500000, which a reader rounds to 5.
func (m *Media) target(version int) (int, error) {
	longest, below := 1, int64(500_000)
	if version < 6 {
		below = 999_999
	}
	for i := range m.Segments {
		us, err := m.Segments[i].microseconds()
		if err != nil {
			return 0, fmt.Errorf("segment %d: %w", i, err)
		}
		rounded := int((us + below) / 1_000_000)
		if m.TargetDuration != 0 && rounded > m.TargetDuration {
			return 0, fmt.Errorf("segment %d: Duration: %g s is longer than the target duration, %d s",
				i, m.Segments[i].Duration, m.TargetDuration)
		}
		longest = max(longest, rounded)
	}
	switch {
	case m.TargetDuration < 0:
		return 0, fmt.Errorf("TargetDuration: %d is negative", m.TargetDuration)
	case m.TargetDuration > 0:
		return m.TargetDuration, nil
	}
	return longest, nil
}

// neededVersion returns the lowest version that allows what the playlist holds (bis,
// section 8).
func (m *Media) neededVersion() int {
	version := 3 // decimal durations
	anyMap := m.Map != nil
	ranges := false
	for i := range m.Segments {
		anyMap = anyMap || m.Segments[i].Map != nil
		ranges = ranges || m.Segments[i].ByteRange != nil
	}
	if ranges || m.IFramesOnly {
		version = 4
	}
	if anyMap {
		version = 6
		if m.IFramesOnly {
			version = 5
		}
	}
	return version
}

// chooseVersion returns the version to write.
func chooseVersion(asked, needed int) (int, error) {
	if asked == 0 {
		return needed, nil
	}
	if asked < needed {
		return 0, fmt.Errorf("field Version: %d does not allow what the playlist holds, which needs %d", asked, needed)
	}
	return asked, nil
}

// microseconds returns the duration as it is written.
func (s *Segment) microseconds() (int64, error) {
	if !(s.Duration > 0 && s.Duration <= maxDuration) { // NaN, too
		return 0, fmt.Errorf("field Duration: %g s is no duration", s.Duration)
	}
	us := int64(math.Round(s.Duration * 1e6))
	if us == 0 {
		return 0, fmt.Errorf("field Duration: %g s is less than a microsecond", s.Duration)
	}
	return us, nil
}

func (s *Segment) append(b []byte) ([]byte, error) {
	us, err := s.microseconds()
	if err != nil {
		return nil, err
	}
	if err := checkText("Title", s.Title); err != nil {
		return nil, err
	}
	if err := checkURI("URI", s.URI); err != nil {
		return nil, err
	}
	// A line that begins with "#" is a comment.
	if s.URI[0] == '#' {
		return nil, fmt.Errorf(`URI: %q begins with "#"`, s.URI)
	}
	if s.Discontinuity {
		b = append(b, "#EXT-X-DISCONTINUITY\n"...)
	}
	if s.Map != nil {
		if b, err = appendMap(b, s.Map); err != nil {
			return nil, err
		}
	}
	if !s.ProgramDateTime.IsZero() {
		b = append(b, "#EXT-X-PROGRAM-DATE-TIME:"...)
		b = s.ProgramDateTime.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
		b = append(b, '\n')
	}
	if s.Gap {
		b = append(b, "#EXT-X-GAP\n"...)
	}
	b = append(b, "#EXTINF:"...)
	b = strconv.AppendInt(b, us/1_000_000, 10)
	b = append(b, '.')
	b = append(b, strconv.FormatInt(1_000_000+us%1_000_000, 10)[1:]...)
	b = append(b, ","+s.Title+"\n"...)
	if s.ByteRange != nil {
		text, err := s.ByteRange.text()
		if err != nil {
			return nil, err
		}
		b = append(b, "#EXT-X-BYTERANGE:"+text+"\n"...)
	}
	return append(b, s.URI+"\n"...), nil
}

func appendMap(b []byte, m *Map) ([]byte, error) {
	a := attributes{b: append(b, "#EXT-X-MAP:"...)}
	a.uri("URI", m.URI)
	if m.ByteRange != nil {
		text, err := m.ByteRange.text()
		if err != nil {
			return nil, fmt.Errorf("Map: %w", err)
		}
		a.quoted("BYTERANGE", text)
	}
	if a.err != nil {
		return nil, fmt.Errorf("Map: %w", a.err)
	}
	return append(a.b, '\n'), nil
}

// text returns the range as length@offset.
func (r *ByteRange) text() (string, error) {
	if r.Length <= 0 || r.Offset < 0 || r.Offset > math.MaxInt64-r.Length {
		return "", fmt.Errorf("ByteRange: %d bytes from %d are no range", r.Length, r.Offset)
	}
	return strconv.FormatInt(r.Length, 10) + "@" + strconv.FormatInt(r.Offset, 10), nil
}

func appendInt(b []byte, tag string, n int64) []byte {
	return append(strconv.AppendInt(append(b, tag...), n, 10), '\n')
}
