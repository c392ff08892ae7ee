package playback

import (
	"strconv"
	"strings"
	"testing"
)

// decoded is what ffmpeg says of one stream that it decoded to the end.
type decoded struct {
	kind   string // "video" or "audio"
	frames int
	pts    []int64 // in ticks of the stream, one a frame
	length []int64 // how long each frame lasts, ticks
}

// decodeAll plays everything that the playlist names: all renditions and all sound.
// The muxer framecrc writes a line for each decoded frame.
func decodeAll(t *testing.T, url string) []decoded {
	t.Helper()
	out := run(t, ffmpegProgram(), "-nostdin", "-v", "warning", "-i", url,
		"-map", "0:v", "-map", "0:a?", "-fps_mode", "passthrough", "-f", "framecrc", "-")
	var streams []decoded
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		// "#media_type 0: video", in the order of the numbers.
		if rest, ok := strings.CutPrefix(line, "#media_type "); ok {
			_, kind, _ := strings.Cut(rest, ": ")
			streams = append(streams, decoded{kind: kind})
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// stream, dts, pts, duration, size, checksum
		fields := strings.Split(line, ",")
		if len(fields) < 6 {
			t.Fatalf("ffmpeg's framecrc writes %q", line)
		}
		var n [4]int64
		for i := range n {
			v, err := strconv.ParseInt(strings.TrimSpace(fields[i]), 10, 64)
			if err != nil {
				t.Fatalf("ffmpeg's framecrc writes %q: %v", line, err)
			}
			n[i] = v
		}
		s := &streams[n[0]]
		s.frames++
		s.pts = append(s.pts, n[2])
		s.length = append(s.length, n[3])
	}
	return streams
}

func TestFFmpegPlaysEveryRenditionWithoutAWarning(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			s := transcoded(t, tt.name, tt.clip)
			o := serve(t, s.dir)
			var videos, audios int
			for i, d := range decodeAll(t, o.url+"/"+s.master) {
				switch d.kind {
				case "video":
					videos++
					if d.frames != s.source.frames {
						t.Errorf("stream %d has %d frames, want the source's %d", i, d.frames, s.source.frames)
					}
				case "audio":
					audios++
				default:
					t.Errorf("stream %d is %q", i, d.kind)
				}
				if d.frames == 0 {
					t.Errorf("stream %d (%s) has no frame", i, d.kind)
				}
				checkSteady(t, i, d)
			}
			if videos != tt.renditions {
				t.Errorf("%d renditions, want %d", videos, tt.renditions)
			}
			if got, want := audios > 0, s.source.audio; got != want {
				t.Errorf("sound: %v, want %v", got, want)
			}
			o.check(t, max(1, tt.renditions)) // ffmpeg reads the sound once a variant
		})
	}
}

// checkSteady reports frames that do not begin where the one before ends.
func checkSteady(t *testing.T, i int, d decoded) {
	t.Helper()
	for f := 1; f < d.frames; f++ {
		if got, want := d.pts[f], d.pts[f-1]+d.length[f-1]; got != want {
			t.Errorf("stream %d (%s), frame %d begins at tick %d, want %d", i, d.kind, f, got, want)
			return
		}
	}
}
