package ffmpeg

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
)

// probeEntries asks for everything a Probe needs in one run of ffprobe. The packets
// of all streams are listed, not the video's alone: which stream that is comes last in
// ffprobe's output, a second run costs 90 ms of CPU, and the sound's packets tell
// where it begins and ends. Two hours of 30 frames a second with AAC are 550,000 lines,
// 3 s of CPU for ffprobe.
const probeEntries = "packet=codec_type,stream_index,pts,dts,duration,flags" +
	":packet_side_data=skip_samples" +
	":stream=index,codec_name,codec_type,codec_tag_string,width,height,sample_aspect_ratio,pix_fmt," +
	"field_order,color_range,color_space,color_primaries,color_transfer,time_base,start_pts," +
	"nb_frames,r_frame_rate,avg_frame_rate,has_b_frames,sample_rate,channels,channel_layout" +
	":stream_disposition=default,attached_pic" +
	":stream_tags=language" +
	":stream_side_data=rotation" +
	":format=duration"

const (
	maxProbeLine    = 64 << 10 // bytes; a stream's line is about 500
	maxProbePackets = 8 << 20  // video packets: 38 hours at 60 a second, 192 MiB of stamps
	maxProbeStreams = 256

	// noTime marks a time stamp that is missing. maxTime bounds those that are
	// believed, so that differences and sums of a few never overflow.
	noTime  = math.MinInt64
	maxTime = 1 << 60
)

// stamp is what is kept of a video packet: 24 bytes.
type stamp struct {
	pts      int64 // ticks, or noTime
	dts      int64 // ticks, or noTime
	duration int32 // ticks; 0 if unknown
	flags    int32
}

// The flags of a stamp.
const (
	flagKey = 1 << iota
	flagDiscard
)

// track collects the packets of one stream.
type track struct {
	video     bool
	packets   int64
	corrupt   int64
	stamps    []stamp // video only, in file order
	first     int64   // first PTS that is shown, ticks
	firstSkip int64   // samples to skip at it
	last      int64   // largest end of a packet, ticks
}

// probeScanner is an io.Writer that takes ffprobe's compact output: lines of
// section|key=value|key=value…, packets first, then streams, then the format.
type probeScanner struct {
	line    []byte
	tracks  map[int64]*track
	streams []map[string]string
	format  map[string]string
	total   int64
}

var errProbeOutput = errors.New("ffprobe's output makes no sense")

func (s *probeScanner) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 || len(s.line) > 0 {
			end := i
			if i < 0 {
				end = len(b)
			}
			if len(s.line)+end > maxProbeLine {
				return 0, fmt.Errorf("%w: a line is longer than %d bytes", errProbeOutput, maxProbeLine)
			}
			s.line = append(s.line, b[:end]...)
			if i < 0 {
				return n, nil
			}
			if err := s.take(s.line); err != nil {
				return 0, err
			}
			s.line = s.line[:0]
		} else if err := s.take(b[:i]); err != nil {
			return 0, err
		}
		b = b[i+1:]
	}
	return n, nil
}

func (s *probeScanner) take(line []byte) error {
	section, rest, ok := bytes.Cut(line, []byte("|"))
	if !ok {
		return nil
	}
	switch string(section) {
	case "packet":
		return s.packet(rest)
	case "stream":
		if len(s.streams) < maxProbeStreams {
			s.streams = append(s.streams, compactFields(rest))
		}
	case "format":
		s.format = compactFields(rest)
	}
	return nil
}

// packet notes one packet. It allocates nothing but the growth of stamps.
func (s *probeScanner) packet(fields []byte) error {
	var index, skip int64
	pts, dts, duration := int64(noTime), int64(noTime), int64(0)
	var video bool
	var flags int32
	var corrupt bool
	for len(fields) > 0 {
		var field []byte
		if i := bytes.IndexByte(fields, '|'); i < 0 {
			field, fields = fields, nil
		} else {
			field, fields = fields[:i], fields[i+1:]
		}
		i := bytes.IndexByte(field, '=')
		if i < 0 {
			continue // the name of a nested section
		}
		value := field[i+1:]
		switch string(field[:i]) {
		case "codec_type":
			video = string(value) == "video"
		case "stream_index":
			index = ticks(value)
		case "pts":
			pts = ticks(value)
		case "dts":
			dts = ticks(value)
		case "duration":
			duration = max(ticks(value), 0)
		case "skip_samples":
			skip = max(ticks(value), 0)
		case "flags":
			if bytes.IndexByte(value, 'K') >= 0 {
				flags |= flagKey
			}
			if bytes.IndexByte(value, 'D') >= 0 {
				flags |= flagDiscard
			}
			corrupt = bytes.IndexByte(value, 'C') >= 0
		}
	}
	t := s.tracks[index]
	if t == nil {
		if len(s.tracks) >= maxProbeStreams || index < 0 {
			return nil
		}
		t = &track{video: video, first: noTime, last: noTime}
		if s.tracks == nil {
			s.tracks = make(map[int64]*track)
		}
		s.tracks[index] = t
	}
	t.packets++
	if corrupt {
		t.corrupt++
	}
	if at := firstTime(pts, dts); at != noTime && flags&flagDiscard == 0 {
		if t.first == noTime || at < t.first {
			t.first, t.firstSkip = at, skip
		}
		t.last = max(t.last, at+duration)
	}
	if !video {
		return nil
	}
	if s.total++; s.total > maxProbePackets {
		return fmt.Errorf("it has more than %d video packets", maxProbePackets)
	}
	t.stamps = append(t.stamps, stamp{pts, dts, int32(min(duration, math.MaxInt32)), flags})
	return nil
}

// firstTime is the first of its arguments that is a time.
func firstTime(times ...int64) int64 {
	for _, t := range times {
		if t != noTime {
			return t
		}
	}
	return noTime
}

// ticks parses a decimal number, noTime for "N/A" and what is not believable.
func ticks(b []byte) int64 {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 {
		return noTime
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' || n > maxTime/10 {
			return noTime
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	if n > maxTime || n < -maxTime {
		return noTime
	}
	return n
}

// compactFields splits key=value|key=value, where a backslash escapes. Of a key that
// comes twice the first value counts.
func compactFields(b []byte) map[string]string {
	fields := make(map[string]string)
	var field strings.Builder
	end := func() {
		if key, value, ok := strings.Cut(field.String(), "="); ok {
			if _, twice := fields[key]; !twice && value != "N/A" {
				fields[key] = value
			}
		}
		field.Reset()
	}
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '|':
			end()
		case b[i] == '\\' && i+1 < len(b):
			i++
			switch b[i] {
			case 'n':
				field.WriteByte('\n')
			case 'r':
				field.WriteByte('\r')
			case 'b':
				field.WriteByte('\b')
			case 'f':
				field.WriteByte('\f')
			default:
				field.WriteByte(b[i])
			}
		default:
			field.WriteByte(b[i])
		}
	}
	end()
	return fields
}
