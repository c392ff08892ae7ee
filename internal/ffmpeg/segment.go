package ffmpeg

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Sizes of boxes that BuildFragment writes, headers included.
const (
	boxHeaderSize     = 8
	fullBoxHeaderSize = 12
	mfhdSize          = fullBoxHeaderSize + 4
	tfdtVersion1Size  = fullBoxHeaderSize + 8
)

// styp is what every segment begins with: ISO/IEC 14496-12, 8.16.2. The brands say
// that it is a media segment of the base format ("msdh") which needs no index
// ("msix" would demand one).
var styp = []byte("\x00\x00\x00\x18stypmsdh\x00\x00\x00\x00msdhiso6")

// Patch gives the fragment its place in a longer presentation: the sequence number
// (mfhd), the decode time of its first sample (tfdt), and with it the earliest
// presentation time (sidx), in place. It is an error, and nothing is changed, if the
// time does not fit the 32 bits that version 0 of a box has.
func (f *Fragment) Patch(sequence uint32, baseTime uint64) error {
	if baseTime > math.MaxInt64 {
		return fmt.Errorf("ffmpeg: patch fragment: decode time %d is absurd", baseTime)
	}
	if !f.longBaseTime && baseTime > math.MaxUint32 {
		return fmt.Errorf("ffmpeg: patch fragment: decode time %d does not fit the 32 bits of its tfdt", baseTime)
	}
	earliest := int64(baseTime) + f.earliest()
	if f.Sidx != nil {
		if earliest < 0 {
			return fmt.Errorf("ffmpeg: patch fragment: it would begin at %d, before time 0", earliest)
		}
		if !f.longEarliest && earliest > math.MaxUint32 {
			return fmt.Errorf("ffmpeg: patch fragment: time %d does not fit the 32 bits of its sidx", earliest)
		}
	}
	binary.BigEndian.PutUint32(f.Moof[f.sequenceAt:], sequence)
	if f.longBaseTime {
		binary.BigEndian.PutUint64(f.Moof[f.baseTimeAt:], baseTime)
	} else {
		binary.BigEndian.PutUint32(f.Moof[f.baseTimeAt:], uint32(baseTime))
	}
	if f.Sidx != nil {
		if f.longEarliest {
			binary.BigEndian.PutUint64(f.Sidx[f.earliestAt:], uint64(earliest))
		} else {
			binary.BigEndian.PutUint32(f.Sidx[f.earliestAt:], uint32(earliest))
		}
	}
	f.Sequence, f.BaseTime = sequence, baseTime
	return nil
}

// WriteSegment writes the fragment as a media segment: styp, sidx if it has one, moof
// and mdat. It returns how many bytes it wrote.
func WriteSegment(w io.Writer, f *Fragment) (int64, error) {
	var written int64
	for _, part := range [][]byte{styp, f.Sidx, f.Moof, f.Mdat} {
		n, err := w.Write(part)
		written += int64(n)
		if err != nil {
			return written, fmt.Errorf("ffmpeg: write segment %d: %w", f.Sequence, err)
		}
	}
	return written, nil
}

// BuildFragment makes a fragment of samples whose bytes are data, in order. It is how
// sound is cut anew at the boundaries of the pictures' segments. The same arguments
// give the same bytes.
func BuildFragment(sequence, trackID uint32, baseTime uint64, samples []Sample, data []byte) (Fragment, error) {
	if trackID == 0 {
		return Fragment{}, fmt.Errorf("ffmpeg: build fragment: there is no track 0")
	}
	if baseTime > math.MaxInt64 {
		return Fragment{}, fmt.Errorf("ffmpeg: build fragment: decode time %d is absurd", baseTime)
	}
	shape, err := shapeOf(samples, len(data))
	if err != nil {
		return Fragment{}, err
	}
	trafSize := boxHeaderSize + shape.tfhdSize + tfdtVersion1Size + shape.trunSize
	moofSize := boxHeaderSize + mfhdSize + trafSize

	u32 := binary.BigEndian.AppendUint32
	b := make([]byte, 0, moofSize+boxHeaderSize+len(data))
	b = putBoxHeader(b, uint32(moofSize), "moof")
	b = putBoxHeader(b, mfhdSize, "mfhd")
	b = u32(u32(b, 0), sequence)
	b = putBoxHeader(b, uint32(trafSize), "traf")
	b = putBoxHeader(b, uint32(shape.tfhdSize), "tfhd")
	b = u32(u32(b, shape.tfhdFlags), trackID)
	if shape.tfhdFlags&trackDuration != 0 {
		b = u32(b, samples[0].Duration)
	}
	b = u32(b, flagsSync)
	b = putBoxHeader(b, tfdtVersion1Size, "tfdt")
	b = binary.BigEndian.AppendUint64(u32(b, 1<<24), baseTime)
	b = putBoxHeader(b, uint32(shape.trunSize), "trun")
	b = u32(u32(b, 1<<24|shape.trunFlags), uint32(len(samples)))
	b = u32(b, uint32(moofSize+boxHeaderSize))
	for _, s := range samples {
		b = shape.appendSample(b, s)
	}
	b = putBoxHeader(b, uint32(boxHeaderSize+len(data)), "mdat")
	b = append(b, data...)

	// Read back rather than filled in: what was built is what will be parsed.
	moof := box{kind: "moof", body: boxHeaderSize, end: moofSize}
	mdat := box{kind: "mdat", start: moofSize, body: moofSize + boxHeaderSize, end: len(b)}
	f, err := parseFragment(b, Init{TrackID: trackID}, nil, moof, mdat)
	if err != nil {
		return Fragment{}, fmt.Errorf("ffmpeg: build fragment: %w", err)
	}
	return f, nil
}

// tableShape is which fields a sample table needs: what all samples share is said once.
type tableShape struct {
	tfhdFlags, trunFlags uint32
	tfhdSize, trunSize   int // bytes, headers included
}

// shapeOf checks samples against the number of bytes that they come with.
func shapeOf(samples []Sample, bytes int) (tableShape, error) {
	if len(samples) == 0 || len(samples) > maxSamples {
		return tableShape{}, fmt.Errorf("ffmpeg: build fragment: %d samples", len(samples))
	}
	var sum int64
	sameDuration, allSync, anyCTS := true, true, false
	for _, s := range samples {
		sum += int64(s.Size)
		sameDuration = sameDuration && s.Duration == samples[0].Duration
		allSync = allSync && s.Sync
		anyCTS = anyCTS || s.CTS != 0
	}
	if sum != int64(bytes) || sum > maxFragmented {
		return tableShape{}, fmt.Errorf("ffmpeg: build fragment: samples of %d bytes, and %d bytes", sum, bytes)
	}
	shape := tableShape{
		tfhdFlags: trackBaseIsMoof | trackFlags, tfhdSize: fullBoxHeaderSize + 4 + 4,
		trunFlags: runDataOffset | runSize,
	}
	entry := 4
	if sameDuration {
		shape.tfhdFlags |= trackDuration
		shape.tfhdSize += 4
	} else {
		shape.trunFlags |= runDuration
		entry += 4
	}
	if !allSync {
		shape.trunFlags |= runFlags
		entry += 4
	}
	if anyCTS {
		shape.trunFlags |= runCTS
		entry += 4
	}
	shape.trunSize = fullBoxHeaderSize + 8 + entry*len(samples)
	return shape, nil
}

// appendSample appends a sample's entry of trun.
func (t tableShape) appendSample(b []byte, s Sample) []byte {
	if t.trunFlags&runDuration != 0 {
		b = binary.BigEndian.AppendUint32(b, s.Duration)
	}
	b = binary.BigEndian.AppendUint32(b, s.Size)
	if t.trunFlags&runFlags != 0 {
		flags := uint32(flagsOrdinary)
		if s.Sync {
			flags = flagsSync
		}
		b = binary.BigEndian.AppendUint32(b, flags)
	}
	if t.trunFlags&runCTS != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(s.CTS))
	}
	return b
}

// SegmentInfo is what [CheckSegment] found.
type SegmentInfo struct {
	Frames   int // samples
	Sequence uint32
	BaseTime uint64 // decode time of the first sample, ticks
	Duration uint64 // ticks
	// FirstPTS is the earliest presentation time, ticks.
	FirstPTS int64
	// FirstOffset and FirstSize are the first sample's bytes within the segment. An
	// I-frame playlist names the bytes from 0 to FirstOffset+FirstSize.
	FirstOffset, FirstSize int64
}

// CheckSegment checks one media segment of one fragment against its init segment:
//
//   - boxes fill the segment, samples fill the mdat, data offsets are right;
//   - the first sample is a sync sample;
//   - all samples last equally long (the last of a sound track may be shorter);
//   - presentation times are a contiguous grid: none is missing, none comes twice.
//
// Errors name the box and its byte offset in the segment.
func CheckSegment(init Init, segment []byte) (SegmentInfo, error) {
	info, err := checkSegment(init, segment)
	if err != nil {
		return SegmentInfo{}, fmt.Errorf("ffmpeg: segment: %w", err)
	}
	return info, nil
}

func checkSegment(init Init, segment []byte) (SegmentInfo, error) {
	var moof, mdat, sidx *box
	err := eachBox(segment, 0, len(segment), func(b box) error {
		switch {
		case mdat != nil:
			return b.wrong("it follows the mdat, which must be last")
		case b.kind == "styp" && b.start == 0, b.kind == "free", b.kind == "emsg", b.kind == "prft":
		case b.kind == "sidx" && sidx == nil && moof == nil:
			sidx = &b
		case b.kind == "moof" && moof == nil:
			moof = &b
		case b.kind == "mdat" && moof != nil && moof.end == b.start:
			mdat = &b
		default:
			return b.wrong("it is not expected here")
		}
		return nil
	})
	if err != nil {
		return SegmentInfo{}, err
	}
	if mdat == nil {
		return SegmentInfo{}, fmt.Errorf("%d bytes hold no pair of moof and mdat", len(segment))
	}
	f, err := parseFragment(segment, init, sidx, *moof, *mdat)
	if err != nil {
		return SegmentInfo{}, err
	}
	if err := f.checkGrid(*moof, init.Handler == "soun"); err != nil {
		return SegmentInfo{}, err
	}
	return SegmentInfo{
		Frames:      len(f.Samples),
		Sequence:    f.Sequence,
		BaseTime:    f.BaseTime,
		Duration:    f.Duration(),
		FirstPTS:    int64(f.BaseTime) + f.earliest(),
		FirstOffset: int64(mdat.body),
		FirstSize:   int64(f.Samples[0].Size),
	}, nil
}

// checkGrid checks the times of the samples against one another.
func (f *Fragment) checkGrid(moof box, sound bool) error {
	if !f.Samples[0].Sync {
		return moof.wrong("its first sample is not a sync sample")
	}
	if f.BaseTime > math.MaxInt64/2 {
		return moof.wrong("decode time %d is absurd", f.BaseTime)
	}
	n := len(f.Samples)
	step := int64(f.Samples[0].Duration)
	if step == 0 {
		return moof.wrong("its samples have no duration")
	}
	least := f.earliest()
	seen := make([]bool, n)
	at := int64(0)
	for i, s := range f.Samples {
		last := i == n-1
		if d := int64(s.Duration); d != step && !(last && sound && d > 0 && d < step) {
			return moof.wrong("sample %d of %d lasts %d ticks and the first %d", i, n, s.Duration, step)
		}
		if s.Size == 0 {
			return moof.wrong("sample %d of %d is empty", i, n)
		}
		offset := at + int64(s.CTS) - least
		place := offset / step
		switch {
		case offset%step != 0 || place >= int64(n):
			return moof.wrong("sample %d of %d is shown %d ticks after the first, off the grid of %d", i, n, offset, step)
		case seen[place]:
			return moof.wrong("sample %d of %d is shown at the time of another (frame %d)", i, n, place)
		}
		seen[place] = true
		at += step
	}
	return nil
}
