package ffmpeg

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// tools returns the real ffmpeg. Without one a test fails.
func tools(tb testing.TB) *Tools {
	tb.Helper()
	t, err := found()
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

var found = sync.OnceValues(func() (*Tools, error) {
	t, err := locate()
	if err != nil {
		return nil, err
	}
	t.Version = "of the tests"
	return t, nil
})

// needEncoder skips a test that needs more than the two encoders that [Find] wants,
// in builds that have not.
func needEncoder(t *testing.T, name string) {
	t.Helper()
	table, err := encoderTable()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(table, []byte(" "+name+" ")) {
		t.Skipf("this ffmpeg has no encoder %s", name)
	}
}

var encoderTable = sync.OnceValues(func() ([]byte, error) {
	t, err := found()
	if err != nil {
		return nil, err
	}
	return ask(context.Background(), t.FFmpeg, "-hide_banner", "-encoders")
})

// create runs the real ffmpeg as a user would, to make a file for a test.
func create(tb testing.TB, args ...string) {
	tb.Helper()
	cmd := exec.Command(tools(tb).FFmpeg, append([]string{"-nostdin", "-v", "error", "-y"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("ffmpeg %q: %v\n%s", args, err, out)
	}
}

// clips makes each file that is asked for once for the whole test binary.
var clips struct {
	sync.Mutex
	dir  string
	made map[string]string
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "myrmidon-ffmpeg-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	clips.dir, clips.made = dir, make(map[string]string)
	status := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// made returns the path of a file of this name made by ffmpeg with these arguments
// before the output.
func made(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	clips.Lock()
	defer clips.Unlock()
	if path, ok := clips.made[name]; ok {
		return path
	}
	path := filepath.Join(clips.dir, name)
	create(tb, append(args, path)...)
	clips.made[name] = path
	return path
}

// lavfi is 3 seconds of moving pictures with sound, 24 frames a second.
func lavfi(video string) []string {
	return []string{"-f", "lavfi", "-i", video, "-f", "lavfi", "-i", "sine=d=3:r=44100"}
}

const pictures = "testsrc2=s=160x90:r=24:d=3"

// sample is an ordinary MP4: H.264 with B frames, keyframes each second, AAC.
func sample(tb testing.TB) string {
	return made(tb, "sample.mp4", append(lavfi(pictures),
		"-c:v", "libx264", "-preset", "veryfast", "-g", "24", "-c:a", "aac", "-metadata:s:a", "language=deu")...)
}

// script writes an executable shell script.
func script(tb testing.TB, path, body string) string {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		tb.Fatal(err)
	}
	return path
}

// write writes a file of a test.
func write(tb testing.TB, path string, content []byte) string {
	tb.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		tb.Fatal(err)
	}
	return path
}

func read(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// cut writes the first part of a file to another.
func cut(tb testing.TB, from string, share float64) string {
	tb.Helper()
	b := read(tb, from)
	return write(tb, filepath.Join(tb.TempDir(), "cut"+filepath.Ext(from)), bytes.Clone(b[:int(float64(len(b))*share)]))
}
