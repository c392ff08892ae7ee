package ffmpeg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Two ways to write fragments that begin at time 0 although B frames are coded before
// they are shown: offsets that may be negative, or an edit list in the init segment.
const (
	fragmented = "+frag_keyframe+empty_moov+default_base_moof+negative_cts_offsets"
	withEdits  = "+frag_keyframe+empty_moov+default_base_moof+delay_moov"
)

// chunk is frames [from, to) of the test pictures, encoded by a process of its own as
// a transcode does: 12 frames a segment.
func chunk(tb testing.TB, name, movflags string, from, to int) string {
	args := []string{
		"-f", "lavfi", "-i", "testsrc2=s=160x90:r=24:d=4", "-vf",
		fmt.Sprintf("trim=start_frame=%d:end_frame=%d,setpts=PTS-STARTPTS", from, to),
	}
	args = append(args, "-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-g", "12", "-keyint_min", "12",
		"-sc_threshold", "0", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1", "-movflags", movflags)
	return made(tb, name, args...)
}

// aacTrack is 4 seconds of sound as one fragmented file with its priming kept.
func aacTrack(tb testing.TB) string {
	return made(tb, "sound.mp4", "-f", "lavfi", "-i", "sine=d=4:r=48000", "-c:a", "aac", "-ac", "2", "-b:a", "64k",
		"-movflags", "+empty_moov+delay_moov+default_base_moof", "-frag_duration", "1000000")
}

func fragments(tb testing.TB, path string) *File {
	tb.Helper()
	f, err := ReadFragments(path)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// TestChunksStitch is what the whole design of transcoding stands on: chunks encoded
// apart, each beginning at time 0, play as one after a patch of a few numbers.
//
// With negative offsets ffmpeg's own demuxer (5.1) shows all frames later by the largest
// of them, here two frames. With an edit list they begin at 0.
func TestChunksStitch(t *testing.T) {
	t.Run("negative offsets", func(t *testing.T) { testStitch(t, "n", fragmented, 0, 2) })
	t.Run("edit list", func(t *testing.T) { testStitch(t, "e", withEdits, 2, 0) })
}

// testStitch: priming is the edit list's media time, shift how much later than its
// presentation time ffmpeg shows a frame, both in frames.
func testStitch(t *testing.T, name, movflags string, priming, shift int64) {
	first := fragments(t, chunk(t, name+"0.mp4", movflags, 0, 48))
	second := fragments(t, chunk(t, name+"1.mp4", movflags, 48, 90))
	if !bytes.Equal(first.Init, second.Init) {
		t.Error("the init segments of two chunks differ")
	}
	info := first.Info
	if info.Handler != "vide" || info.Width != 160 || info.Height != 90 || info.MediaTime != priming*int64(info.Timescale)/24 || info.Delay != 0 ||
		!strings.HasPrefix(info.Codec, "avc1.64") || len(info.Codec) != len("avc1.64001f") {
		t.Errorf("init says %+v", info)
	}
	ticks := uint64(info.Timescale / 24)
	var whole bytes.Buffer
	whole.Write(first.Init)
	sequence, at := uint32(0), uint64(0)
	for _, f := range append(first.Fragments, second.Fragments...) {
		sequence++
		if sequence == 1 && f.BaseTime != 0 {
			t.Errorf("the chunk begins at %d", f.BaseTime)
		}
		if err := f.Patch(sequence, at); err != nil {
			t.Fatal(err)
		}
		var segment bytes.Buffer
		n, err := WriteSegment(&segment, &f)
		if err != nil || n != int64(segment.Len()) {
			t.Fatalf("%d of %d bytes, %v", n, segment.Len(), err)
		}
		got, err := CheckSegment(info, segment.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		want := SegmentInfo{
			Frames: len(f.Samples), Sequence: sequence, BaseTime: at, Duration: ticks * uint64(len(f.Samples)), FirstPTS: int64(at) + info.MediaTime,
			FirstOffset: int64(len(styp) + len(f.Moof) + 8), FirstSize: int64(f.Samples[0].Size),
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("segment %d (-want +got)\n%s", sequence, d)
		}
		at += f.Duration()
		whole.Write(segment.Bytes())
	}
	if sequence != 8 || at != 90*ticks {
		t.Errorf("%d segments, %d ticks", sequence, at)
	}
	path := write(t, filepath.Join(t.TempDir(), "whole.mp4"), whole.Bytes())
	var out bytes.Buffer
	o, err := tools(t).Run(t.Context(), Command{
		Dir: t.TempDir(), Stdout: &out,
		Args: append([]string{"-copyts"}, append(Container{Name: "mov"}.Input(path), "-fps_mode", "passthrough", "-f", "framecrc", "-")...),
	})
	if err != nil || len(o.Log) > 0 {
		t.Fatalf("%v: %q", err, o.Log)
	}
	times := frameTimes(t, out.String())
	if len(times) != 90 {
		t.Fatalf("%d frames of 90 play", len(times))
	}
	for i, pts := range times {
		if pts != int64(i)+shift {
			t.Fatalf("frame %d is shown at %d", i, pts)
		}
	}
	// And a byte that is wrong is found.
	rest := bytes.Clone(whole.Bytes()[len(first.Init):])
	if _, err := ParseFragments(append(bytes.Clone(first.Init), rest[:len(rest)-1]...)); err == nil {
		t.Error("a file that lacks its last byte passes")
	}
}

func TestSoundIsCutAnew(t *testing.T) {
	file := fragments(t, aacTrack(t))
	if i := file.Info; i.Handler != "soun" || i.Codec != "mp4a.40.2" || i.SampleRate != 48000 || i.Channels != 2 || i.MediaTime != 1024 {
		t.Errorf("init says %+v", i)
	}
	var samples []Sample
	var data []byte
	for _, f := range file.Fragments {
		samples = append(samples, f.Samples...)
		data = append(data, f.Data()...)
	}
	var whole bytes.Buffer
	whole.Write(file.Init)
	at, sequence := uint64(0), uint32(0)
	for len(samples) > 0 {
		n, size := min(len(samples), 47), 0 // 47 frames are a second, about
		for _, s := range samples[:n] {
			size += int(s.Size)
		}
		sequence++
		f, err := BuildFragment(sequence, file.Info.TrackID, at, samples[:n], data[:size])
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(samples[:n], f.Samples); d != "" || f.BaseTime != at || f.Sequence != sequence || !bytes.Equal(f.Data(), data[:size]) {
			t.Errorf("fragment %d: base %d, sequence %d\n%s", sequence, f.BaseTime, f.Sequence, d)
		}
		var segment bytes.Buffer
		if _, err := WriteSegment(&segment, &f); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckSegment(file.Info, segment.Bytes()); err != nil {
			t.Fatal(err)
		}
		whole.Write(segment.Bytes())
		at += f.Duration()
		samples, data = samples[n:], data[size:]
	}
	path := write(t, filepath.Join(t.TempDir(), "whole.mp4"), whole.Bytes())
	decode := func(path string) []byte {
		var out bytes.Buffer
		o, err := tools(t).Run(t.Context(), Command{
			Dir: t.TempDir(), Stdout: &out,
			Args: append(Container{Name: "mov"}.Input(path), "-f", "s16le", "-"),
		})
		if err != nil || len(o.Log) > 0 {
			t.Fatalf("%v: %q", err, o.Log)
		}
		return out.Bytes()
	}
	if a, b := decode(aacTrack(t)), decode(path); !bytes.Equal(a, b) || len(a) < 4*48000*4 {
		t.Errorf("%d bytes of sound, and %d after the cut", len(a), len(b))
	}
}

func TestFragmentsWithASidx(t *testing.T) {
	path := made(t, "dash.mp4", "-f", "lavfi", "-i", "testsrc2=s=160x90:r=24:d=2", "-c:v", "libx264", "-g", "24", "-bf", "2",
		"-movflags", fragmented+"+dash")
	f := fragments(t, path)
	for i := range f.Fragments {
		fr := &f.Fragments[i]
		if fr.Sidx == nil {
			t.Fatal("there is no sidx: the test is about one")
		}
		if err := fr.Patch(uint32(i+10), 1<<33); err != nil {
			t.Fatal(err)
		}
		var segment bytes.Buffer
		if _, err := WriteSegment(&segment, fr); err != nil {
			t.Fatal(err)
		}
		got, err := CheckSegment(f.Info, segment.Bytes())
		if err != nil || got.BaseTime != 1<<33 || got.Sequence != uint32(i+10) {
			t.Errorf("%+v, %v", got, err)
		}
		if at := fr.earliestAt; binary.BigEndian.Uint64(fr.Sidx[at:]) != uint64(got.FirstPTS) {
			t.Errorf("sidx says %d, and the samples %d", binary.BigEndian.Uint64(fr.Sidx[at:]), got.FirstPTS)
		}
	}
}

func TestPatchRefusesWhatDoesNotFit(t *testing.T) {
	f, err := BuildFragment(1, 1, 0, []Sample{{Duration: 1024, Size: 1, Sync: true}}, []byte{0})
	if err != nil {
		t.Fatal(err)
	}
	f.longBaseTime = false // as a tfdt of version 0 has it
	before := bytes.Clone(f.Moof)
	if err := f.Patch(2, 1<<32); err == nil || !bytes.Equal(before, f.Moof) {
		t.Errorf("got %v", err)
	}
	f.longBaseTime = true
	if err := f.Patch(2, 1<<63); err == nil || !bytes.Equal(before, f.Moof) {
		t.Errorf("got %v", err)
	}
	if err := f.Patch(2, 1<<32); err != nil || f.BaseTime != 1<<32 || f.Sequence != 2 {
		t.Errorf("got %v", err)
	}
}

// built is a segment of four frames made by hand, which tests spoil.
func built(tb testing.TB, change func([]Sample)) (Init, []byte) {
	tb.Helper()
	samples := []Sample{
		{Duration: 10, Size: 4, CTS: 0, Sync: true},
		{Duration: 10, Size: 3, CTS: 20},
		{Duration: 10, Size: 2, CTS: -10},
		{Duration: 10, Size: 1, CTS: -10},
	}
	if change != nil {
		change(samples)
	}
	var data []byte
	for _, s := range samples {
		data = append(data, bytes.Repeat([]byte{'x'}, int(s.Size))...)
	}
	f, err := BuildFragment(3, 1, 100, samples, data)
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := WriteSegment(&b, &f); err != nil {
		tb.Fatal(err)
	}
	return Init{TrackID: 1, Timescale: 240, Handler: "vide"}, b.Bytes()
}

func TestCheckSegment(t *testing.T) {
	init, good := built(t, nil)
	got, err := CheckSegment(init, good)
	want := SegmentInfo{Frames: 4, Sequence: 3, BaseTime: 100, Duration: 40, FirstPTS: 100, FirstOffset: int64(len(good) - 10), FirstSize: 4}
	if err != nil || got != want {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	spoil := func(kind string, skip int, b ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[bytes.Index(bad, []byte(kind))+4+skip:], b)
		return bad
	}
	with := func(change func([]Sample)) []byte {
		_, b := built(t, change)
		return b
	}
	tests := []struct {
		name    string
		segment []byte
		want    string
	}{
		{"a segment that is cut short", good[:len(good)-1], `box "mdat" at byte 168: size 18 runs 1 bytes beyond`},
		{"a byte too many", append(bytes.Clone(good), 0), "box"},
		{"nothing", nil, "no pair of moof and mdat"},
		{"no mdat", good[:len(good)-18], "no pair of moof and mdat"},
		{"a wrong data offset", spoil("trun", 8, 0, 0, 0, 7), "its data offset is 7"},
		{"another track", spoil("tfhd", 4, 0, 0, 0, 9), "track 9"},
		{"a sample whose size is wrong", spoil("trun", 12, 0, 0, 0, 9), "it holds 10 bytes and its samples 15"},
		{"a sample that is too small", spoil("trun", 12, 0, 0, 0, 3), "it holds 10 bytes and its samples 9"},
		{"more samples than bytes", spoil("trun", 4, 0xff, 0xff, 0xff, 0xff), "do not fit"},
		{"a box of size 0", spoil("mfhd", -8, 0, 0, 0, 0), "less than its header"},
		{"a box larger than its parent", spoil("traf", -8, 0, 0, 0x7f, 0xff), "beyond its surroundings"},
		{"a first frame that is no keyframe", with(func(s []Sample) { s[0].Sync, s[1].Sync = false, true }), "not a sync sample"},
		{"a frame that lasts longer", with(func(s []Sample) { s[1].Duration = 11 }), "sample 1 of 4 lasts 11 ticks"},
		{"two frames at one time", with(func(s []Sample) { s[1].CTS = 10 }), "at the time of another"},
		{"a hole between frames", with(func(s []Sample) { s[1].CTS = 30 }), "off the grid"},
		{"a frame between two slots", with(func(s []Sample) { s[1].CTS = 13 }), "off the grid"},
		{"an empty frame", with(func(s []Sample) { s[2].Size = 0 }), "is empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, err := CheckSegment(init, test.segment); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, test.want)
			}
		})
	}
	t.Run("only sound may end with a shorter sample", func(t *testing.T) {
		short := with(func(s []Sample) { s[1], s[2], s[3] = s[0], s[0], s[0]; s[3].Duration = 5 })
		if _, err := CheckSegment(init, short); err == nil {
			t.Error("pictures may")
		}
		sound := init
		sound.Handler = "soun"
		if got, err := CheckSegment(sound, short); err != nil || got.Duration != 35 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestBuildFragmentRefuses(t *testing.T) {
	one := []Sample{{Duration: 1, Size: 2, Sync: true}}
	for name, build := range map[string]func() (Fragment, error){
		"no samples":       func() (Fragment, error) { return BuildFragment(1, 1, 0, nil, nil) },
		"too few bytes":    func() (Fragment, error) { return BuildFragment(1, 1, 0, one, []byte{1}) },
		"too many bytes":   func() (Fragment, error) { return BuildFragment(1, 1, 0, one, []byte{1, 2, 3}) },
		"track 0":          func() (Fragment, error) { return BuildFragment(1, 0, 0, one, []byte{1, 2}) },
		"an absurd moment": func() (Fragment, error) { return BuildFragment(1, 1, 1<<63, one, []byte{1, 2}) },
	} {
		if _, err := build(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCodecStrings(t *testing.T) {
	tests := []struct {
		name, want string
		args       []string
	}{
		{"H.264 main", "avc1.4d", []string{"-c:v", "libx264", "-profile:v", "main", "-level", "3.1"}},
		{"HEVC main", "hvc1.1.6.L", []string{"-c:v", "libx265", "-x265-params", "log-level=none", "-tag:v", "hvc1"}},
		{"AV1", "av01.0.00M.08", []string{"-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime"}},
		{"VP9", "vp09.00.10.08", []string{"-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			needEncoder(t, test.args[1])
			path := filepath.Join(t.TempDir(), "x.mp4")
			create(t, append(append([]string{"-f", "lavfi", "-i", "testsrc2=s=64x64:r=5:d=1,format=yuv420p"}, test.args...), "-movflags", withEdits, path)...)
			if got := fragments(t, path).Info.Codec; !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, want %q…", got, test.want)
			} else {
				t.Log(got)
			}
		})
	}
}

// FuzzSegment: whatever the bytes, no panic, no size that is believed, and what
// passes can be patched, written and checked again.
func FuzzSegment(f *testing.F) {
	init, good := built(f, nil)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := CheckSegment(init, b)
		if err == nil && (got.Frames < 1 || got.FirstOffset+got.FirstSize > int64(len(b))) {
			t.Errorf("got %+v of %d bytes", got, len(b))
		}
	})
}

func FuzzFragments(f *testing.F) {
	f.Add(read(f, chunk(f, "c0.mp4", fragmented, 0, 48)))
	f.Add(read(f, aacTrack(f)))
	f.Add([]byte("\x00\x00\x00\x08moov"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := ParseFragments(bytes.Clone(b))
		if err != nil {
			return
		}
		for i := range file.Fragments {
			fr := &file.Fragments[i]
			if err := fr.Patch(7, 1<<20); err != nil {
				continue
			}
			var segment bytes.Buffer
			if _, err := WriteSegment(&segment, fr); err != nil {
				t.Fatal(err)
			}
			got, err := CheckSegment(file.Info, segment.Bytes())
			if err == nil && (got.Sequence != 7 || got.BaseTime != 1<<20 || got.Frames != len(fr.Samples)) {
				t.Errorf("got %+v", got)
			}
		}
	})
}

func FuzzTopLevel(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08moov\x00\x00\x00\x10mdat"))
	f.Add([]byte("\x00\x00\x00\x01mdat\x7f\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := topLevelOf(bytes.NewReader(b), int64(len(b)), maxTopLevel)
		if err != nil || got.missing < 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
