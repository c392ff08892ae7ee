package hls_test

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon/hls"
)

var update = flag.Bool("update", false, "write the golden files anew")

// writer is what both playlists are.
type writer interface {
	Append([]byte) ([]byte, error)
}

func vod() *hls.Media {
	return &hls.Media{
		PlaylistType:        hls.VOD,
		IndependentSegments: true,
		Map:                 &hls.Map{URI: "init.mp4"},
		Segments: []hls.Segment{
			{URI: "00000.m4s", Duration: 96 * 1001.0 / 24000},
			{URI: "00001.m4s", Duration: 96 * 1001.0 / 24000},
			{URI: "00002.m4s", Duration: 1.0 / 3},
		},
		EndList: true,
	}
}

func ladder() *hls.Multivariant {
	return &hls.Multivariant{
		IndependentSegments: true,
		Renditions: []hls.Rendition{
			{Type: hls.Audio, Group: "audio", Name: "English", Language: "en", Default: true, Channels: "2", URI: "a1b2/audio/media.m3u8"},
			{Type: hls.Audio, Group: "audio", Name: "日本語", Language: "ja", AutoSelect: true, Channels: "6", SampleRate: 48000, BitDepth: 24, URI: "a1b2/ja/media.m3u8"},
			{Type: hls.Subtitles, Group: "subs", Name: "English", Language: "en", Forced: true, Characteristics: "public.easy-to-read", URI: "a1b2/en.m3u8"},
			{Type: hls.ClosedCaptions, Group: "cc", Name: "CC", InstreamID: "CC1"},
		},
		Variants: []hls.Variant{
			{
				Bandwidth: 5_600_000, AverageBandwidth: 4_961_234, Codecs: "avc1.640028,mp4a.40.2", Resolution: hls.Resolution{Width: 1920, Height: 1080},
				FrameRate: 24000.0 / 1001, VideoRange: hls.SDR, Audio: "audio", Subtitles: "subs", ClosedCaptions: "cc", URI: "a1b2/1080p/media.m3u8",
			},
			{
				Bandwidth: 900_000, Codecs: "avc1.64001e,mp4a.40.2", Resolution: hls.Resolution{Width: 640, Height: 360},
				FrameRate: 24, Audio: "audio", URI: "a1b2/360p/media.m3u8",
			},
		},
		IFrames: []hls.IFrameVariant{
			{
				Bandwidth: 300_000, AverageBandwidth: 200_000, Codecs: "avc1.640028", Resolution: hls.Resolution{Width: 1920, Height: 1080},
				VideoRange: hls.SDR, URI: "a1b2/1080p/iframes.m3u8",
			},
		},
	}
}

func TestPlaylistsAreWrittenAsTheGoldenFiles(t *testing.T) {
	rangeOf := func(length, offset int64) *hls.ByteRange { return &hls.ByteRange{Length: length, Offset: offset} }
	for name, playlist := range map[string]writer{
		"vod":          vod(),
		"multivariant": ladder(),
		"iframes": &hls.Media{
			PlaylistType: hls.VOD, IFramesOnly: true, EndList: true, Map: &hls.Map{URI: "init.mp4", ByteRange: rangeOf(812, 0)},
			Segments: []hls.Segment{
				{URI: "00000.m4s", Duration: 2, ByteRange: rangeOf(40_000, 1_024)},
				{URI: "00000.m4s", Duration: 2.1, ByteRange: rangeOf(41_000, 900_000)},
			},
		},
		"event": &hls.Media{
			Version: 8, TargetDuration: 6, MediaSequence: 7, DiscontinuitySequence: 2, PlaylistType: hls.Event,
			Segments: []hls.Segment{
				{
					URI: "https://cdn.example/7.ts?a=b", Duration: 6.4999994, Title: "Opening, \"live\"",
					ProgramDateTime: time.Date(2026, 11, 2, 9, 0, 0, 40e6, time.FixedZone("", 3600)),
				},
				{URI: "8.ts", Duration: 0.000001, Gap: true},
				{URI: "ad.mp4", Duration: 5.96, Discontinuity: true, Map: &hls.Map{URI: "ad-init.mp4"}},
			},
		},
		"oldest": &hls.Media{Segments: []hls.Segment{{URI: "0.ts", Duration: 4.004}}},
		"empty":  &hls.Media{},
		"service": &hls.Multivariant{
			Renditions: []hls.Rendition{{Type: hls.ClosedCaptions, Group: "cc", Name: "CC", InstreamID: "SERVICE63"}},
			Variants:   []hls.Variant{{Bandwidth: 1, URI: "v.m3u8", ClosedCaptions: "cc"}},
		},
		"plain": &hls.Multivariant{Variants: []hls.Variant{{Bandwidth: 1, URI: "v.m3u8", ClosedCaptions: hls.NoClosedCaptions}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := playlist.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".m3u8")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-%s +got):\n%s", path, diff)
			}
		})
	}
}

func TestTargetDurationRoundsWhatIsWritten(t *testing.T) {
	for _, test := range []struct {
		name     string
		version  int
		duration float64
		want     string
	}{
		{"down", 6, 4.499999, "4"},
		{"up from a half", 6, 4.5, "5"},
		{"up from what is written as a half", 6, 4.4999999, "5"},
		{"never to 0", 6, 0.2, "1"},
		{"always up before version 6", 3, 4.004, "5"},
		{"whole seconds stay before version 6", 3, 4, "4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := hls.Media{Version: test.version, Segments: []hls.Segment{{URI: "0.ts", Duration: test.duration}, {URI: "1.ts", Duration: 0.1}}}
			got, err := m.Append(nil)
			if want := "#EXT-X-TARGETDURATION:" + test.want + "\n"; err != nil || !strings.Contains(string(got), want) {
				t.Errorf("got %q, %v, want %q in it", got, err, want)
			}
		})
	}
}

func TestWhatIsNotAPlaylistIsAnErrorThatNamesTheField(t *testing.T) {
	media := func(change func(*hls.Media)) writer { m := vod(); change(m); return m }
	multi := func(change func(*hls.Multivariant)) writer { m := ladder(); change(m); return m }
	segment := func(change func(*hls.Segment)) writer { return media(func(m *hls.Media) { change(&m.Segments[1]) }) }
	variant := func(change func(*hls.Variant)) writer {
		return multi(func(m *hls.Multivariant) { change(&m.Variants[1]) })
	}
	rendition := func(change func(*hls.Rendition)) writer {
		return multi(func(m *hls.Multivariant) { change(&m.Renditions[0]) })
	}
	for _, test := range []struct {
		name     string
		playlist writer
		want     string
	}{
		{"no URI", segment(func(s *hls.Segment) { s.URI = "" }), "segment 1: URI"},
		{"a URI of two lines", segment(func(s *hls.Segment) { s.URI = "a\nb" }), "segment 1: URI"},
		{"a URI that is a tag", segment(func(s *hls.Segment) { s.URI = "#EXT-X-ENDLIST" }), "segment 1: URI"},
		{"a URI with a space", segment(func(s *hls.Segment) { s.URI = "a b" }), "segment 1: URI"},
		{"a URI that is not UTF-8", segment(func(s *hls.Segment) { s.URI = "\xff" }), "segment 1: URI"},
		{"a title of two lines", segment(func(s *hls.Segment) { s.Title = "a\r#EXT" }), "segment 1: Title"},
		{"a byte order mark", segment(func(s *hls.Segment) { s.Title = "\uFEFF" }), "segment 1: Title"},
		{"a C1 control character", segment(func(s *hls.Segment) { s.Title = "\u0085" }), "segment 1: Title"},
		{"no duration", segment(func(s *hls.Segment) { s.Duration = 0 }), "segment 1: field Duration"},
		{"a negative duration", segment(func(s *hls.Segment) { s.Duration = -1 }), "segment 1: field Duration"},
		{"a duration that is no number", segment(func(s *hls.Segment) { s.Duration = math.NaN() }), "segment 1: field Duration"},
		{"an endless duration", segment(func(s *hls.Segment) { s.Duration = math.Inf(1) }), "segment 1: field Duration"},
		{"a duration written as 0", segment(func(s *hls.Segment) { s.Duration = 1e-7 }), "segment 1: field Duration"},
		{"an empty range", segment(func(s *hls.Segment) { s.ByteRange = &hls.ByteRange{} }), "segment 1: ByteRange"},
		{"a range before the start", segment(func(s *hls.Segment) { s.ByteRange = &hls.ByteRange{Length: 1, Offset: -1} }), "segment 1: ByteRange"},
		{"a range beyond all ends", segment(func(s *hls.Segment) { s.ByteRange = &hls.ByteRange{Length: 2, Offset: math.MaxInt64 - 1} }), "segment 1: ByteRange"},
		{"a map with a quote", segment(func(s *hls.Segment) { s.Map = &hls.Map{URI: `a"b`} }), "segment 1: Map: URI"},
		{"a map without a URI", media(func(m *hls.Media) { m.Map = &hls.Map{} }), "Map: URI"},
		{"a map with an empty range", media(func(m *hls.Media) { m.Map.ByteRange = &hls.ByteRange{} }), "Map: ByteRange"},
		{"a target that is too short", media(func(m *hls.Media) { m.TargetDuration = 3 }), "segment 0: Duration"},
		{"a negative target", media(func(m *hls.Media) { m.TargetDuration, m.Segments = -1, nil }), "TargetDuration"},
		{"a version that is too low", media(func(m *hls.Media) { m.Version = 5 }), "Version"},
		{"a negative sequence", media(func(m *hls.Media) { m.MediaSequence = -1 }), "MediaSequence"},
		{"a negative discontinuity sequence", media(func(m *hls.Media) { m.DiscontinuitySequence = -1 }), "DiscontinuitySequence"},
		{"an unknown type", media(func(m *hls.Media) { m.PlaylistType = "vod" }), "PlaylistType"},

		{"no variants", multi(func(m *hls.Multivariant) { m.Variants = nil }), "no variants"},
		{"a version too low for renditions", multi(func(m *hls.Multivariant) { m.Version = 3 }), "Version"},
		{"no bandwidth", variant(func(v *hls.Variant) { v.Bandwidth = 0 }), "variant 1: field Bandwidth"},
		{"a mean above the peak", variant(func(v *hls.Variant) { v.AverageBandwidth = v.Bandwidth + 1 }), "variant 1: AverageBandwidth"},
		{"codecs with a quote", variant(func(v *hls.Variant) { v.Codecs = `avc1",URI="x` }), "variant 1: CODECS"},
		{"half a resolution", variant(func(v *hls.Variant) { v.Resolution.Height = 0 }), "variant 1: Resolution"},
		{"a negative frame rate", variant(func(v *hls.Variant) { v.FrameRate = -24 }), "variant 1: FrameRate"},
		{"a frame rate that is no number", variant(func(v *hls.Variant) { v.FrameRate = math.NaN() }), "variant 1: FrameRate"},
		{"a frame rate written as 0", variant(func(v *hls.Variant) { v.FrameRate = 1e-4 }), "variant 1: FrameRate"},
		{"an unknown video range", variant(func(v *hls.Variant) { v.VideoRange = "HDR" }), "variant 1: VideoRange"},
		{"a group that is not there", variant(func(v *hls.Variant) { v.Audio = "subs" }), "variant 1: AUDIO"},
		{"captions in some variants only", variant(func(v *hls.Variant) { v.ClosedCaptions = hls.NoClosedCaptions }), "ClosedCaptions"},
		{"a variant without a URI", variant(func(v *hls.Variant) { v.URI = "" }), "variant 1: URI"},
		{"a variant whose URI is a comment", variant(func(v *hls.Variant) { v.URI = "#x" }), "variant 1: URI"},
		{"a rendition without a group", rendition(func(r *hls.Rendition) { r.Group = "" }), "rendition 0: field Group"},
		{"a rendition without a name", rendition(func(r *hls.Rendition) { r.Name = "" }), "rendition 0: field Name"},
		{"a name with a line break", rendition(func(r *hls.Rendition) { r.Name = "a\nb" }), "rendition 0: NAME"},
		{"a name with a quote", rendition(func(r *hls.Rendition) { r.Name = `a"` }), "rendition 0: NAME"},
		{"an unknown rendition type", multi(func(m *hls.Multivariant) { m.Renditions[3].Type = "TEXT" }), "rendition 3: field Type"},
		{"forced audio", rendition(func(r *hls.Rendition) { r.Forced = true }), "rendition 0: field Forced"},
		{"audio in a caption channel", rendition(func(r *hls.Rendition) { r.InstreamID = "CC1" }), "rendition 0: InstreamID"},
		{"a negative sample rate", rendition(func(r *hls.Rendition) { r.SampleRate = -1 }), "SampleRate"},
		{"subtitles without a URI", multi(func(m *hls.Multivariant) { m.Renditions[2].URI = "" }), "rendition 2: URI"},
		{"captions with a URI", multi(func(m *hls.Multivariant) { m.Renditions[3].URI = "x" }), "rendition 3: URI"},
		{"an unknown caption channel", multi(func(m *hls.Multivariant) { m.Renditions[3].InstreamID = "CC05" }), "rendition 3: InstreamID"},
		{"a name twice in a group", multi(func(m *hls.Multivariant) { m.Renditions[1].Name = "English" }), "rendition 1: field Name"},
		{"two defaults in a group", multi(func(m *hls.Multivariant) { m.Renditions[1].Default = true }), "rendition 1: Default"},
		{"I-frames without a URI", multi(func(m *hls.Multivariant) { m.IFrames[0].URI = "" }), "variant of I-frames 0: URI"},
		{"I-frames of no group", multi(func(m *hls.Multivariant) { m.IFrames[0].Video = "v" }), "variant of I-frames 0: VIDEO"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.playlist.Append([]byte("before"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Append = %v, want an error that names %q", err, test.want)
			}
			if string(got) != "before" {
				t.Errorf("Append returned %q beside its error, want what it was given", got)
			}
		})
	}
}

// failingWriter takes n bytes and then fails.
type failingWriter struct{ n int }

var errFull = errors.New("full")

func (w *failingWriter) Write(p []byte) (int, error) { return w.n, errFull }

func TestWriteToWritesAllOrNothing(t *testing.T) {
	var buf bytes.Buffer
	n, err := ladder().WriteTo(&buf)
	want, _ := ladder().Append(nil)
	if err != nil || n != int64(buf.Len()) || !bytes.Equal(buf.Bytes(), want) {
		t.Errorf("WriteTo = %d, %v, wrote %d bytes, want Append's %d", n, err, buf.Len(), len(want))
	}
	buf.Reset()
	if n, err := (&hls.Multivariant{}).WriteTo(&buf); n != 0 || err == nil || buf.Len() != 0 {
		t.Errorf("WriteTo of an invalid playlist = %d, %v, wrote %q", n, err, buf.String())
	}
	if n, err := vod().WriteTo(&failingWriter{5}); n != 5 || !errors.Is(err, errFull) {
		t.Errorf("WriteTo a full disk = %d, %v, want 5, %v", n, err, errFull)
	}
}

// FuzzMedia looks for text that gets out of its line or its attribute.
func FuzzMedia(f *testing.F) {
	f.Add("00000.m4s", "title", "init.mp4", 4.004)
	f.Add("a\n#EXT-X-ENDLIST", "", "x\",BYTERANGE=\"", 1e9)
	f.Add("#", "\u2028", " ", math.Copysign(0, -1))
	f.Fuzz(func(t *testing.T, uri, title, initURI string, duration float64) {
		m := hls.Media{
			Map:      &hls.Map{URI: initURI},
			Segments: []hls.Segment{{URI: uri, Title: title, Duration: duration}},
		}
		got, err := m.Append(nil)
		if err != nil {
			return
		}
		lines := strings.Split(string(got), "\n")
		if len(lines) != 7 || lines[5] != uri || lines[6] != "" {
			t.Fatalf("%d lines, want 6, the last %q:\n%s", len(lines)-1, uri, got)
		}
		if lines[3] != `#EXT-X-MAP:URI="`+initURI+`"` || strings.Count(lines[3], `"`) != 2 {
			t.Errorf("map is written as %s", lines[3])
		}
		if strings.HasPrefix(lines[5], "#") || strings.ContainsAny(string(got), "\r\x00") {
			t.Errorf("playlist has a stray tag or character:\n%q", got)
		}
	})
}
