package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"myrmidon": main})
}

// clip makes a short film with sound: enough for two chunks at the scripts' sizes.
func clip(t testing.TB, dir, name string, seconds int, extra ...string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	args := []string{
		"-v", "error", "-y",
		"-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=320x180:r=12:d=%d", seconds),
		"-f", "lavfi", "-i", fmt.Sprintf("sine=f=440:d=%d", seconds),
	}
	args = append(args, extra...)
	args = append(args, "-c:v", "libx264", "-preset", "ultrafast", "-g", "24", "-c:a", "aac", "-shortest", path)
	out, err := exec.CommandContext(context.Background(), "ffmpeg", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("make a clip: %v\n%s\n(make test installs ffmpeg)", err, out)
	}
	return path
}

// smallLadder is a product that encodes fast.
const smallLadder = `kind: hls
segment: 2
preset: ultrafast
max_fps: 60
rungs:
  - {name: 180p, width: 320, height: 180, crf: 30, maxrate: 400, bufsize: 600, profile: high}
  - {name: 90p, width: 160, height: 90, crf: 30, maxrate: 200, bufsize: 300, profile: high}
audio: {bitrate: 64, channels: 2, sample_rate: 48000}
`

// TestScripts runs testdata/*.txt: one file a promise.
func TestScripts(t *testing.T) {
	long.Test(t)
	media := t.TempDir()
	film := clip(t, media, "film.mp4", 16)
	broker := natsserver.Start(t, natsserver.Options{})
	guarded := natsserver.Start(t, natsserver.Options{User: "ada", Password: "a secret word"})
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("FILM", film)
			e.Setenv("BROKER", broker.URL())
			e.Setenv("GUARDED", guarded.URL())
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("MYRMIDON_STATE", filepath.Join(e.WorkDir, "state"))
			if err := os.WriteFile(filepath.Join(e.WorkDir, "small.yaml"), []byte(smallLadder), 0o600); err != nil {
				return err
			}
			data, err := os.ReadFile(film)
			if err != nil {
				return err
			}
			// Uploads that went wrong, as they come.
			rotten := append([]byte(nil), data...)
			for i := len(rotten) / 3; i < len(rotten)*2/3; i += 97 {
				rotten[i] ^= 0x5a
			}
			for name, content := range map[string][]byte{
				"empty.mp4":  nil,
				"cut.mp4":    data[:len(data)/2],
				"rotten.mp4": rotten,
				"list.mp4":   []byte("#EXTM3U\n#EXTINF:4,\nhttp://127.0.0.1:1/a.ts\n"),
				"concat.mp4": []byte("ffconcat version 1.0\nfile '/etc/passwd'\n"),
				"page.mp4":   []byte("<!DOCTYPE html><html><body>404</body></html>\n"),
			} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), content, 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	})
}
