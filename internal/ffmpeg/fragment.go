package ffmpeg

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

const (
	// maxFragmented bounds a file that is taken apart in memory. A 12-second chunk of
	// 1080p is about 10 MB.
	maxFragmented = 512 << 20
	// maxSamples bounds the samples of a fragment: 4.6 hours of 60 frames a second.
	maxSamples = 1 << 20
)

// Sample flags of ISO/IEC 14496-12, 8.8.3.1.
const (
	flagNonSync   = 0x00010000 // sample_is_non_sync_sample
	flagsSync     = 0x02000000 // sample_depends_on = 2: on none
	flagsOrdinary = 0x01010000 // sample_depends_on = 1, and non-sync
)

// Flags of tfhd (8.8.7) and trun (8.8.8).
const (
	trackBaseOffset  = 0x000001
	trackDescription = 0x000002
	trackDuration    = 0x000008
	trackSize        = 0x000010
	trackFlags       = 0x000020
	trackBaseIsMoof  = 0x020000

	runDataOffset = 0x000001
	runFirstFlags = 0x000004
	runDuration   = 0x000100
	runSize       = 0x000200
	runFlags      = 0x000400
	runCTS        = 0x000800
)

// File is a fragmented MP4 of one track, taken apart.
type File struct {
	Init      []byte // ftyp and moov
	Info      Init   // what Init says
	Fragments []Fragment
}

// Fragment is one moof with its mdat. The slices share the memory of what was parsed.
type Fragment struct {
	Sidx []byte // the segment index before the moof; nil without one
	Moof []byte
	Mdat []byte // the whole box, header included

	Sequence uint32
	TrackID  uint32
	BaseTime uint64 // decode time of the first sample, ticks
	Samples  []Sample

	data int // where the samples begin in Mdat
	// Where in Moof and Sidx the numbers are that Patch writes.
	sequenceAt, baseTimeAt, earliestAt int
	longBaseTime, longEarliest         bool // 64 bits
}

// Sample is one entry of a fragment's sample table.
type Sample struct {
	Duration uint32 // ticks
	Size     uint32 // bytes
	CTS      int32  // presentation time less decode time, ticks
	Sync     bool
}

// ReadFragments reads the fragmented MP4 at path, at most 512 MiB, into memory and
// takes it apart; see [ParseFragments].
func ReadFragments(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("ffmpeg: read fragments: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("ffmpeg: read fragments: %w", err)
	}
	if info.Size() > maxFragmented {
		return nil, fmt.Errorf("ffmpeg: read fragments: %s has %d bytes; at most %d are taken",
			path, info.Size(), maxFragmented)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("ffmpeg: read fragments of %s: %w", path, err)
	}
	file, err := ParseFragments(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

// ParseFragments takes apart what ffmpeg writes with -movflags
// +frag_keyframe+empty_moov+default_base_moof: ftyp, moov, and pairs of moof and mdat,
// each pair with a styp and a sidx before it or not. The result shares b.
//
// Every size is checked: boxes fill the file, samples fill their mdat exactly, and
// each data offset points at its start. Errors name the box and its byte offset.
func ParseFragments(b []byte) (*File, error) {
	file, err := parseFragments(b)
	if err != nil {
		return nil, fmt.Errorf("ffmpeg: fragmented MP4: %w", err)
	}
	return file, nil
}

func parseFragments(b []byte) (*File, error) {
	p := parser{buf: b, file: new(File)}
	if err := eachBox(b, 0, len(b), p.top); err != nil {
		return nil, err
	}
	switch {
	case p.file.Init == nil:
		return nil, fmt.Errorf("it has no moov")
	case p.moof != nil:
		return nil, p.moof.wrong("it is not followed by an mdat")
	case p.sidx != nil:
		return nil, p.sidx.wrong("it is not followed by a moof")
	}
	return p.file, nil
}

// parser holds what belongs to the next fragment.
type parser struct {
	buf        []byte
	file       *File
	ftyp       *box
	moof, sidx *box
}

// top takes one box of the top level.
func (p *parser) top(b box) error {
	if p.moof != nil && b.kind != "mdat" {
		return p.moof.wrong("it is followed by %v, not by its mdat", b)
	}
	switch b.kind {
	case "ftyp":
		if p.ftyp != nil || b.start != 0 {
			return b.wrong("it is not the first box")
		}
		p.ftyp = &b
	case "moov":
		if p.file.Init != nil {
			return b.wrong("there are two of them")
		}
		start := b.start
		if p.ftyp != nil {
			if p.ftyp.end != b.start {
				return b.wrong("it does not follow ftyp")
			}
			start = 0
		}
		p.file.Init = p.buf[start:b.end:b.end]
		info, err := parseMoov(p.buf, b)
		if err != nil {
			return err
		}
		p.file.Info = info
	case "sidx":
		if p.sidx != nil {
			return b.wrong("a second one for the same fragment")
		}
		p.sidx = &b
	case "moof":
		if p.file.Init == nil {
			return b.wrong("it comes before moov")
		}
		p.moof = &b
	case "mdat":
		if p.moof == nil {
			return b.wrong("it belongs to no moof")
		}
		f, err := parseFragment(p.buf, p.file.Info, p.sidx, *p.moof, b)
		if err != nil {
			return err
		}
		p.file.Fragments = append(p.file.Fragments, f)
		p.moof, p.sidx = nil, nil
	case "styp", "mfra", "free", "skip":
	default:
		return b.wrong("it is not expected here")
	}
	return nil
}

// parseFragment reads one fragment and checks its sizes against one another.
func parseFragment(buf []byte, info Init, sidx *box, moof, mdat box) (Fragment, error) {
	f := Fragment{Moof: moof.bytes(buf), Mdat: mdat.bytes(buf), data: mdat.body - mdat.start}
	mfhd, err := need(buf, moof, "mfhd")
	if err != nil {
		return f, err
	}
	r := fieldsOf(buf, mfhd)
	r.full()
	f.sequenceAt = r.at - moof.start
	f.Sequence = r.u32()
	if r.err != nil {
		return f, r.err
	}
	traf, err := need(buf, moof, "traf")
	if err != nil {
		return f, err
	}
	defaults, err := f.parseTrackHeader(buf, info, traf)
	if err != nil {
		return f, err
	}
	tfdt, err := need(buf, traf, "tfdt")
	if err != nil {
		return f, err
	}
	r = fieldsOf(buf, tfdt)
	version, _ := r.full()
	f.baseTimeAt, f.longBaseTime = r.at-moof.start, version == 1
	if f.longBaseTime {
		f.BaseTime = r.u64()
	} else {
		f.BaseTime = uint64(r.u32())
	}
	if r.err != nil {
		return f, r.err
	}
	at := uint64(mdat.body - moof.start) // where the next run's data must begin
	err = eachBox(buf, traf.body, traf.end, func(b box) error {
		if b.kind != "trun" {
			return nil
		}
		return f.parseRun(buf, b, defaults, &at)
	})
	if err != nil {
		return f, err
	}
	if want := uint64(mdat.end - moof.start); at != want {
		return f, mdat.wrong("it holds %d bytes and its samples %d", mdat.end-mdat.body, at-uint64(mdat.body-moof.start))
	}
	if len(f.Samples) == 0 {
		return f, moof.wrong("it holds no sample")
	}
	if sidx != nil {
		return f, f.parseIndex(buf, info, *sidx)
	}
	return f, nil
}

// parseTrackHeader reads tfhd and returns what holds for samples unless a run says
// otherwise.
func (f *Fragment) parseTrackHeader(buf []byte, info Init, traf box) (d runDefaults, err error) {
	tfhd, err := need(buf, traf, "tfhd")
	if err != nil {
		return d, err
	}
	d = runDefaults{info.DefaultDuration, info.DefaultSize, info.DefaultFlags}
	r := fieldsOf(buf, tfhd)
	_, flags := r.full()
	f.TrackID = r.u32()
	if flags&trackBaseOffset != 0 {
		return d, tfhd.wrong("a base data offset: its addresses are of the whole file, and so it cannot be moved")
	}
	if flags&trackBaseIsMoof == 0 {
		return d, tfhd.wrong("default-base-is-moof is not set")
	}
	if flags&trackDescription != 0 {
		if n := r.u32(); r.err == nil && n != 1 {
			return d, tfhd.wrong("sample description %d, of one", n)
		}
	}
	if flags&trackDuration != 0 {
		d.duration = r.u32()
	}
	if flags&trackSize != 0 {
		d.size = r.u32()
	}
	if flags&trackFlags != 0 {
		d.flags = r.u32()
	}
	if r.err != nil {
		return d, r.err
	}
	if f.TrackID != info.TrackID {
		return d, tfhd.wrong("track %d, and the file's is %d", f.TrackID, info.TrackID)
	}
	return d, nil
}

type runDefaults struct{ duration, size, flags uint32 }

// parseRun appends the samples of a trun. at is where its data must begin, from the
// moof's start, and is moved to where it ends.
func (f *Fragment) parseRun(buf []byte, trun box, d runDefaults, at *uint64) error {
	r := fieldsOf(buf, trun)
	_, flags := r.full() // CTS is read as signed in version 0 too, as all demuxers do
	count := r.u32()
	if flags&runDataOffset != 0 {
		if offset := int64(int32(r.u32())); r.err == nil && offset != int64(*at) {
			return trun.wrong("its data offset is %d and its data begins at %d", offset, *at)
		}
	} else if len(f.Samples) == 0 {
		return trun.wrong("it has no data offset")
	}
	first, hasFirst := uint32(0), flags&runFirstFlags != 0
	if hasFirst {
		first = r.u32()
	}
	width := 0
	for _, flag := range []uint32{runDuration, runSize, runFlags, runCTS} {
		if flags&flag != 0 {
			width += 4
		}
	}
	if r.err != nil {
		return r.err
	}
	if uint64(count) > maxSamples-uint64(len(f.Samples)) || int64(count)*int64(width) > int64(r.rest()) {
		return trun.wrong("%d samples do not fit into %d bytes", count, r.rest())
	}
	for i := range count {
		s := Sample{Duration: d.duration, Size: d.size}
		sampleFlags := d.flags
		if i == 0 && hasFirst {
			sampleFlags = first
		}
		if flags&runDuration != 0 {
			s.Duration = r.u32()
		}
		if flags&runSize != 0 {
			s.Size = r.u32()
		}
		if flags&runFlags != 0 {
			if v := r.u32(); i > 0 || !hasFirst {
				sampleFlags = v
			}
		}
		if flags&runCTS != 0 {
			s.CTS = int32(r.u32())
		}
		s.Sync = sampleFlags&flagNonSync == 0
		*at += uint64(s.Size)
		f.Samples = append(f.Samples, s)
	}
	return r.err
}

// parseIndex checks that sidx speaks of this fragment alone.
func (f *Fragment) parseIndex(buf []byte, info Init, sidx box) error {
	r := fieldsOf(buf, sidx)
	version, _ := r.full()
	r.skip(4) // reference ID
	scale := r.u32()
	f.earliestAt, f.longEarliest = r.at-sidx.start, version == 1
	r.skip(8 << min(version, 1)) // earliest presentation time, first offset
	r.skip(2)
	count := r.u16()
	size := r.u32()
	switch {
	case r.err != nil:
		return r.err
	case scale != info.Timescale:
		return sidx.wrong("its time scale is %d and the track's %d", scale, info.Timescale)
	case count != 1 || size>>31 != 0:
		return sidx.wrong("it does not index one fragment (%d references)", count)
	case int64(size) != int64(len(f.Moof)+len(f.Mdat)):
		return sidx.wrong("it says that the fragment has %d bytes, and it has %d", size, len(f.Moof)+len(f.Mdat))
	}
	f.Sidx = sidx.bytes(buf)
	return nil
}

// Data returns the bytes of the samples, one after another.
func (f *Fragment) Data() []byte { return f.Mdat[f.data:] }

// Duration is the sum of the samples' durations, ticks.
func (f *Fragment) Duration() uint64 {
	var sum uint64
	for _, s := range f.Samples {
		sum += uint64(s.Duration)
	}
	return sum
}

// earliest is the smallest presentation time, from the first sample's decode time.
func (f *Fragment) earliest() int64 {
	var at, least int64
	for i, s := range f.Samples {
		if t := at + int64(s.CTS); i == 0 || t < least {
			least = t
		}
		at += int64(s.Duration)
	}
	return least
}

// putBoxHeader appends the size and the kind of a box to b.
func putBoxHeader(b []byte, size uint32, kind string) []byte {
	b = binary.BigEndian.AppendUint32(b, size)
	return append(b, kind...)
}
