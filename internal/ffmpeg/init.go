package ffmpeg

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Init is what an init segment (ftyp and moov) says of its one track.
type Init struct {
	TrackID    uint32
	Timescale  uint32 // ticks a second
	Handler    string // "vide" or "soun"
	Codec      string // for CODECS (RFC 6381): "avc1.64001f", "mp4a.40.2"
	Width      int    // coded; 0 for sound
	Height     int
	SampleRate int // 0 for pictures
	Channels   int
	Language   string // ISO 639-2, "und" if unknown
	// MediaTime is where the edit list begins to play, ticks of the media: sound's
	// priming, to be skipped. 0 without an edit list.
	MediaTime int64
	// Delay is the empty edit before it, ticks: how much later than time 0 the
	// media begins.
	Delay int64

	// What trex says of samples for which fragments say nothing.
	DefaultDuration, DefaultSize, DefaultFlags uint32
}

// ParseInit reads an init segment: ftyp, moov, and nothing that matters besides. One
// track is expected, with its movie extends box (mvex). b is not kept.
func ParseInit(b []byte) (Init, error) {
	whole := box{kind: "file", end: len(b)}
	moov, err := need(b, whole, "moov")
	if err != nil {
		return Init{}, fmt.Errorf("ffmpeg: init segment: %w", err)
	}
	in, err := parseMoov(b, moov)
	if err != nil {
		return Init{}, fmt.Errorf("ffmpeg: init segment: %w", err)
	}
	return in, nil
}

func parseMoov(b []byte, moov box) (Init, error) {
	in := Init{Language: "und"}
	trak, err := need(b, moov, "trak")
	if err != nil {
		return in, err
	}
	tkhd, err := need(b, trak, "tkhd")
	if err != nil {
		return in, err
	}
	f := fieldsOf(b, tkhd)
	version, _ := f.full()
	f.skip(8 << min(version, 1)) // creation and modification time
	in.TrackID = f.u32()
	if f.err != nil {
		return in, f.err
	}
	mdia, err := need(b, trak, "mdia")
	if err != nil {
		return in, err
	}
	if err := in.parseMedia(b, mdia); err != nil {
		return in, err
	}
	if err := in.parseEdits(b, moov, trak); err != nil {
		return in, err
	}
	mvex, err := need(b, moov, "mvex")
	if err != nil {
		return in, fmt.Errorf("%w: the file is not fragmented", err)
	}
	trex, err := need(b, mvex, "trex")
	if err != nil {
		return in, err
	}
	f = fieldsOf(b, trex)
	f.full()
	if id := f.u32(); f.err == nil && id != in.TrackID {
		return in, trex.wrong("it is for track %d, and the track is %d", id, in.TrackID)
	}
	f.skip(4) // sample description index
	in.DefaultDuration, in.DefaultSize, in.DefaultFlags = f.u32(), f.u32(), f.u32()
	return in, f.err
}

// parseMedia reads mdhd, hdlr and the sample description.
func (in *Init) parseMedia(b []byte, mdia box) error {
	mdhd, err := need(b, mdia, "mdhd")
	if err != nil {
		return err
	}
	f := fieldsOf(b, mdhd)
	version, _ := f.full()
	f.skip(8 << min(version, 1))
	in.Timescale = f.u32()
	f.skip(4 << min(version, 1)) // duration
	if packed := f.u16(); packed&0x7fff != 0 {
		letter := func(shift int) byte { return byte(packed>>shift&31) + 0x60 }
		in.Language = string([]byte{letter(10), letter(5), letter(0)})
	}
	if f.err != nil {
		return f.err
	}
	if in.Timescale == 0 {
		return mdhd.wrong("its time scale is 0")
	}
	hdlr, err := need(b, mdia, "hdlr")
	if err != nil {
		return err
	}
	f = fieldsOf(b, hdlr)
	f.skip(8)
	in.Handler = string(f.take(4))
	if f.err != nil {
		return f.err
	}
	at := mdia
	for _, kind := range []string{"minf", "stbl", "stsd"} {
		if at, err = need(b, at, kind); err != nil {
			return err
		}
	}
	f = fieldsOf(b, at)
	f.full()
	if n := f.u32(); f.err == nil && n != 1 {
		return at.wrong("%d sample descriptions, not one", n)
	}
	if f.err != nil {
		return f.err
	}
	entry, err := nextBox(b, f.at, at.end)
	if err != nil {
		return err
	}
	switch in.Handler {
	case "vide":
		return in.parseVisual(b, entry)
	case "soun":
		return in.parseAudio(b, entry)
	}
	return hdlr.wrong("handler %q is neither pictures nor sound", in.Handler)
}

// parseEdits reads the edit list, if there is one: at most an empty edit, then one
// edit at normal speed.
func (in *Init) parseEdits(b []byte, moov, trak box) error {
	edts, ok, err := child(b, trak, 0, "edts")
	if err != nil || !ok {
		return err
	}
	elst, ok, err := child(b, edts, 0, "elst")
	if err != nil || !ok {
		return err
	}
	mvhd, err := need(b, moov, "mvhd")
	if err != nil {
		return err
	}
	f := fieldsOf(b, mvhd)
	version, _ := f.full()
	f.skip(8 << min(version, 1))
	movieScale := f.u32()
	if f.err != nil {
		return f.err
	}
	if movieScale == 0 {
		return mvhd.wrong("its time scale is 0")
	}
	f = fieldsOf(b, elst)
	version, _ = f.full()
	n := f.u32()
	for i := range n {
		var duration uint64
		var media int64
		if version == 1 {
			duration, media = f.u64(), int64(f.u64())
		} else {
			duration, media = uint64(f.u32()), int64(int32(f.u32()))
		}
		f.skip(4) // rate
		switch {
		case f.err != nil:
			return f.err
		case media == -1 && i == 0:
			hi, lo := bits.Mul64(duration, uint64(in.Timescale))
			if hi != 0 || lo/uint64(movieScale) > math.MaxInt64 {
				return elst.wrong("an empty edit of %d ticks", duration)
			}
			in.Delay = int64(lo / uint64(movieScale))
		case media < 0:
			return elst.wrong("edit %d begins at %d", i, media)
		default:
			in.MediaTime = media
			if i+1 != n {
				return elst.wrong("%d edits: only one, after an empty one, is understood", n)
			}
		}
	}
	return f.err
}

// parseVisual reads a VisualSampleEntry (ISO/IEC 14496-12, 12.1.3).
func (in *Init) parseVisual(b []byte, entry box) error {
	f := fieldsOf(b, entry)
	f.skip(24)
	in.Width, in.Height = int(f.u16()), int(f.u16())
	if f.err != nil {
		return f.err
	}
	var config, codec string
	switch entry.kind {
	case "avc1", "avc3":
		config = "avcC"
	case "hvc1", "hev1":
		config = "hvcC"
	case "av01":
		config = "av1C"
	case "vp08", "vp09":
		config = "vpcC"
	default:
		return entry.wrong("an unknown kind of pictures")
	}
	c, ok, err := child(b, entry, 78, config)
	if err != nil {
		return err
	}
	if !ok {
		return entry.wrong("it holds no %q", config)
	}
	f = fieldsOf(b, c)
	switch config {
	case "avcC": // ISO/IEC 14496-15, 5.3.3
		f.skip(1)
		codec = fmt.Sprintf("%s.%x", entry.kind, f.take(3))
	case "hvcC":
		codec = hevcString(entry.kind, f)
	case "av1C": // "AV1 Codec ISO Media File Format Binding", 2.3.3 and 5
		f.skip(1)
		v, w := f.u8(), f.u8()
		tier, depth := "M", 8
		if w&0x80 != 0 {
			tier = "H"
		}
		if w&0x40 != 0 {
			depth = 10
			if w&0x20 != 0 {
				depth = 12
			}
		}
		codec = fmt.Sprintf("av01.%d.%02d%s.%02d", v>>5, v&31, tier, depth)
	case "vpcC": // "VP Codec ISO Media File Format Binding"
		f.full()
		profile, level, depth := f.u8(), f.u8(), f.u8()>>4
		codec = fmt.Sprintf("%s.%02d.%02d.%02d", entry.kind, profile, level, depth)
	}
	in.Codec = codec
	return f.err
}

// hevcString is ISO/IEC 14496-15, annex E.3: profile space and number, compatibility
// flags in reverse bit order, tier and level, constraint bytes without trailing zeros.
func hevcString(kind string, f *fields) string {
	f.skip(1)
	general := f.u8()
	compatibility := f.u32()
	constraints := f.take(6)
	level := f.u8()
	s := kind + "." + [4]string{"", "A", "B", "C"}[general>>6] + fmt.Sprintf("%d", general&31) +
		fmt.Sprintf(".%X", bits.Reverse32(compatibility))
	if general&0x20 != 0 {
		s += fmt.Sprintf(".H%d", level)
	} else {
		s += fmt.Sprintf(".L%d", level)
	}
	for len(constraints) > 0 && constraints[len(constraints)-1] == 0 {
		constraints = constraints[:len(constraints)-1]
	}
	for _, c := range constraints {
		s += fmt.Sprintf(".%X", c)
	}
	return s
}

// parseAudio reads an AudioSampleEntry (ISO/IEC 14496-12, 12.2.3) of version 0, the
// only one outside QuickTime.
func (in *Init) parseAudio(b []byte, entry box) error {
	f := fieldsOf(b, entry)
	f.skip(8)
	version := f.u16()
	f.skip(6)
	in.Channels = int(f.u16())
	f.skip(6)
	in.SampleRate = int(f.u32() >> 16)
	if f.err != nil {
		return f.err
	}
	if version != 0 {
		return entry.wrong("sound description version %d is QuickTime's", version)
	}
	switch entry.kind {
	case "mp4a":
		esds, ok, err := child(b, entry, 28, "esds")
		if err != nil {
			return err
		}
		if !ok {
			return entry.wrong("it holds no %q", "esds")
		}
		in.Codec, err = esdsString(b, esds)
		return err
	case "Opus", "fLaC", "ac-3", "ec-3":
		in.Codec = strings.ToLower(entry.kind)
		if entry.kind == "fLaC" {
			in.Codec = entry.kind
		}
		return nil
	}
	return entry.wrong("an unknown kind of sound")
}

// esdsString walks ES_Descriptor, DecoderConfigDescriptor and DecoderSpecificInfo
// (ISO/IEC 14496-1, 7.2.6) to the object type: "mp4a.40.2" is AAC-LC.
func esdsString(b []byte, esds box) (string, error) {
	f := fieldsOf(b, esds)
	f.full()
	f.expect(3, "it begins with no ES_Descriptor")
	f.skip(2)
	flags := f.u8()
	if flags&0x80 != 0 { // depends on another stream
		f.skip(2)
	}
	if flags&0x40 != 0 { // URL
		f.skip(int(f.u8()))
	}
	if flags&0x20 != 0 { // clock reference
		f.skip(2)
	}
	f.expect(4, "it holds no DecoderConfigDescriptor")
	object := f.u8()
	f.skip(12)
	if f.err == nil && object != 0x40 {
		return fmt.Sprintf("mp4a.%02x", object), f.err
	}
	f.expect(5, "it holds no DecoderSpecificInfo")
	// AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1): 5 bits, or 31 and 6 bits more.
	config := uint16(f.u8()) << 8
	kind := config >> 11
	if kind == 31 {
		config |= uint16(f.u8())
		kind = 32 + config>>5&63
	}
	return fmt.Sprintf("mp4a.40.%d", kind), f.err
}

// expect reads a descriptor's tag, which must be this one, and skips its length, 7
// bits a byte, 4 bytes at most. otherwise says what it means if it is another.
func (f *fields) expect(tag uint8, otherwise string) {
	if got := f.u8(); f.err == nil && got != tag {
		f.err = f.of.wrong("%s", otherwise)
	}
	for range 4 {
		if f.u8()&0x80 == 0 {
			break
		}
	}
}
