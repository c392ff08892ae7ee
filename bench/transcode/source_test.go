package main

import (
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"myrmidon/internal/ffmpeg"
)

func TestSource(t *testing.T) {
	if testing.Short() {
		t.Skip("encodes a second of video")
	}
	tools, err := ffmpeg.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir()) // there is no npm
	s := sourceMaker{ffmpeg: tools.FFmpeg, cache: filepath.Join(t.TempDir(), "cache"), seconds: 1, progress: io.Discard}
	path, origin, err := s.make(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(origin, "ffmpeg's testsrc2") {
		t.Errorf("without the clip the source is %q, want ffmpeg's test pictures", origin)
	}
	probe, _, err := tools.Probe(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v, a := probe.Video, probe.Audio
	if v == nil || v.Width != 1920 || v.Height != 1080 || v.Frames != 24 || v.Rate.Float() != 24 {
		t.Errorf("pictures: %+v, want 24 frames of 1920x1080, 24 a second", v)
	}
	if a == nil || a.Channels != 2 || a.SampleRate != 48000 {
		t.Errorf("sound: %+v, want 48,000 samples a second in stereo", a)
	}

	again, _, err := s.make(t.Context(), "")
	if err != nil || again != path {
		t.Errorf("the second time it is %q, error %v; want %q from the cache", again, err, path)
	}

	silent := filepath.Join(t.TempDir(), "silent.mp4")
	if out, err := exec.Command(tools.FFmpeg, "-v", "error", "-f", "lavfi", "-i", "testsrc=d=1", silent).CombinedOutput(); err != nil {
		t.Fatalf("make a silent clip: %v\n%s", err, out)
	}
	if path, _, err := s.make(t.Context(), silent); err == nil {
		t.Errorf("a clip without sound gave %s, want an error", path)
	}
}
