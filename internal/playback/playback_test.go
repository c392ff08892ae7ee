package playback

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// moduleRoot is the module's folder, seen from this package.
const moduleRoot = "../.."

// scratch holds the program, the clips and the streams of one test binary.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "myrmidon-playback-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	status := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// program is the command, built as users build it.
var program = sync.OnceValues(func() (string, error) {
	if err := dependOnSources(); err != nil {
		return "", err
	}
	path := filepath.Join(scratch, "myrmidon")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "./cmd/myrmidon")
	build.Dir = moduleRoot
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("playback: go build ./cmd/myrmidon: %w\n%s", err, out)
	}
	return path, nil
})

// dependOnSources walks the folders of the module's sources. The program is built by a
// child process, whose inputs go test does not see: without this it would repeat a
// cached "ok" after the program has changed. With it, go test notes the folders that
// the test process itself reads.
func dependOnSources() error {
	return filepath.WalkDir(moduleRoot, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() || path == moduleRoot {
			return nil
		}
		switch name := d.Name(); {
		case strings.HasPrefix(name, "."), name == "node_modules", name == "testdata", name == "out", name == "bin":
			return fs.SkipDir
		}
		return nil
	})
}

// source is a clip and what a player should find in the stream that is made of it.
type source struct {
	path     string
	frames   int     // counted by ffprobe in the clip itself
	duration float64 // of the video, seconds
	audio    bool
}

// lavfiClip has ffmpeg make a clip from its own sources.
func lavfiClip(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	run(t, ffmpegProgram(), append(append([]string{"-nostdin", "-v", "error", "-f", "lavfi", "-i"}, args...), path)...)
	return path
}

// withSound is long enough for two chunks by the default product (at least four
// segments of 4 s), ends in a short segment, and is large enough for two renditions.
// The sound is a sweep, so that no two moments are alike.
func withSound(t *testing.T) string {
	return lavfiClip(t, "with sound.mp4", "testsrc2=size=854x480:rate=25:duration=17.4",
		"-f", "lavfi", "-i", "aevalsrc=0.3*sin(2*PI*(200+40*t)*t)|0.3*sin(2*PI*(300+30*t)*t):sample_rate=48000:duration=17.4",
		"-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-bf", "2", "-pix_fmt", "yuv420p", "-c:a", "aac")
}

// silent has a rate that is no whole number of frames a second, nor is a segment a
// whole number of seconds.
func silent(t *testing.T) string {
	return lavfiClip(t, "silent.mkv", "testsrc2=size=640x360:rate=30000/1001:duration=6",
		"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
}

// sharedClip is a clip of the folder that MYRMIDON_SHARED names.
func sharedClip(name string) func(*testing.T) string {
	return func(t *testing.T) string {
		shared := os.Getenv("MYRMIDON_SHARED")
		if shared == "" {
			t.Skip("MYRMIDON_SHARED is not set: there is no real clip")
		}
		// A relative folder is meant as seen from where the tests were started.
		path, err := filepath.Abs(filepath.Join(shared, "media", name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// streams are what every player plays. Each is made once for all tests.
var streams = []struct {
	name       string
	clip       func(*testing.T) string
	renditions int
	everyLevel bool // play each rendition to the end, not the largest alone
}{
	{"pictures with sound in two chunks", withSound, 2, true},
	{"pictures without sound at 29.97 frames a second", silent, 1, true},
	{"a real film with 5.1 sound", sharedClip("big-buck-bunny-480p-30s.mp4"), 2, false},
	{"a real camera at 12.5 frames a second", sharedClip("traffic-12fps.mp4"), 1, false},
}

// stream is a transcoded clip.
type stream struct {
	dir    string // what is served
	master string // the playlist, below dir
	source source
}

var made struct {
	sync.Mutex
	streams map[string]stream
}

// transcoded makes the stream of a clip, once a test binary.
func transcoded(t *testing.T, name string, clip func(*testing.T) string) stream {
	t.Helper()
	if testing.Short() {
		t.Skip("needs ffmpeg and the built program")
	}
	made.Lock()
	defer made.Unlock()
	if s, ok := made.streams[name]; ok {
		return s
	}
	path := clip(t)
	command, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(scratch, fmt.Sprintf("stream-%d", len(made.streams)))
	run(t, command, "transcode", path, "--to", dir, "--name", "clip", "--verify", "decode",
		"--state", filepath.Join(scratch, "state"), "--quiet")
	s := stream{dir: dir, master: "clip/hls/master.m3u8", source: inspect(t, path)}
	if made.streams == nil {
		made.streams = make(map[string]stream)
	}
	made.streams[name] = s
	return s
}

// inspect asks ffprobe, which counts the packets, so that what is expected does not
// come from the program that is tested.
func inspect(t *testing.T, path string) source {
	t.Helper()
	out := run(t, ffprobeProgram(), "-v", "error", "-count_packets", "-of", "json",
		"-show_entries", "stream=codec_type,nb_read_packets,r_frame_rate", path)
	var probe struct {
		Streams []struct {
			Type    string `json:"codec_type"`
			Packets string `json:"nb_read_packets"`
			Rate    string `json:"r_frame_rate"`
		}
	}
	if err := json.Unmarshal(out, &probe); err != nil {
		t.Fatalf("ffprobe %s: %v\n%s", path, err, out)
	}
	s := source{path: path}
	for _, st := range probe.Streams {
		switch st.Type {
		case "audio":
			s.audio = true
		case "video":
			numerator, denominator, _ := strings.Cut(st.Rate, "/")
			s.frames = number(t, st.Packets)
			s.duration = float64(s.frames) * float64(number(t, denominator)) / float64(number(t, numerator))
		}
	}
	if s.frames == 0 {
		t.Fatalf("ffprobe counts no frame in %s:\n%s", path, out)
	}
	return s
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ffmpegProgram is the ffmpeg that the command finds, too: see internal/ffmpeg.
func ffmpegProgram() string {
	named := os.Getenv("MYRMIDON_FFMPEG")
	if named == "" {
		return "ffmpeg"
	}
	if info, err := os.Stat(named); err == nil && info.IsDir() {
		return filepath.Join(named, "ffmpeg")
	}
	return named
}

func ffprobeProgram() string {
	if named := os.Getenv("MYRMIDON_FFPROBE"); named != "" {
		return named
	}
	if os.Getenv("MYRMIDON_FFMPEG") != "" {
		return filepath.Join(filepath.Dir(ffmpegProgram()), "ffprobe")
	}
	return "ffprobe"
}

// run runs a program and returns its stdout. It must succeed, and say nothing at all
// on stderr.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v (make test installs what is missing)\n%s", name, args, err, stderr.Bytes())
	}
	if stderr.Len() > 0 {
		t.Errorf("%s %q complains:\n%s", name, args, stderr.Bytes())
	}
	return stdout.Bytes()
}
