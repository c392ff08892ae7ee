package ffmpeg

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"myrmidon"
)

func TestFind(t *testing.T) {
	const good = `case "$*" in
-version) echo "ffmpeg version 6.1.1 Copyright (c) 2000-2023 the FFmpeg developers"; echo "configuration: --enable-libx264";;
*-encoders) echo " V....D libx264              libx264 H.264"; echo " A....D aac                  AAC";;
esac`
	tests := []struct {
		name    string
		ffmpeg  string // script; "" for none
		ffprobe bool
		version string
		err     string // part of the error, "" for none
		hint    string
	}{
		{"a complete build is found", good, true, "6.1.1", "", ""},
		{"a build from the repository is taken for new", strings.Replace(good, "6.1.1", "N-109542-g0123456", 1), true, "N-109542-g0123456", "", ""},
		{"5.1 is just new enough", strings.Replace(good, "6.1.1", "5.1.9-0+deb12u1", 1), true, "5.1.9-0+deb12u1", "", ""},
		{"a version with a letter before it is understood", strings.Replace(good, "6.1.1", "n7.0", 1), true, "n7.0", "", ""},
		{"5.0 is too old", strings.Replace(good, "6.1.1", "5.0.3", 1), true, "", "version 5.0.3; 5.1 or later", "MYRMIDON_FFMPEG"},
		{"4.4 is too old", strings.Replace(good, "6.1.1", "4.4.2-0ubuntu0.22.04.1", 1), true, "", "version 4.4.2", "MYRMIDON_FFMPEG"},
		{"a build without libx264 is refused", strings.Replace(good, "V....D libx264", "V....D libx265", 1), true, "", "without the encoder libx264", "MYRMIDON_FFMPEG"},
		{"a program that is not ffmpeg is refused", `echo "hello there"`, true, "", "does not say its version", "MYRMIDON_FFMPEG"},
		{"a program that fails is refused", `exit 3`, true, "", "does not run", "MYRMIDON_FFMPEG"},
		{"without ffprobe beside it nothing works", good, false, "", "no ffprobe beside", "MYRMIDON_FFPROBE"},
		{"a variable that points nowhere is an error", "", true, "", "no such file", "set MYRMIDON_FFMPEG to"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if test.ffmpeg != "" {
				script(t, filepath.Join(dir, "ffmpeg"), test.ffmpeg)
			}
			if test.ffprobe {
				script(t, filepath.Join(dir, "ffprobe"), "exit 0")
			}
			t.Setenv("MYRMIDON_FFMPEG", dir)
			got, err := Find(t.Context())
			if test.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got.Version != test.version || len(got.Build) != 16 || got.FFmpeg != filepath.Join(dir, "ffmpeg") || got.FFprobe != filepath.Join(dir, "ffprobe") {
					t.Errorf("got %+v", got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Fatalf("got error %v, want one with %q", err, test.err)
			}
			if !myrmidon.IsPermanent(err) || !strings.Contains(myrmidon.Hint(err), test.hint) {
				t.Errorf("permanent %v, hint %q; want a permanent error with a hint on %q", myrmidon.IsPermanent(err), myrmidon.Hint(err), test.hint)
			}
		})
	}
}

func TestFindLooksInThePathAndNamesTheRemedy(t *testing.T) {
	t.Setenv("MYRMIDON_FFMPEG", "")
	t.Setenv("PATH", t.TempDir())
	if _, err := os.Stat(layerFFmpeg); err == nil {
		t.Skip("this machine has a Lambda layer")
	}
	_, err := Find(t.Context())
	if err == nil || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
		t.Fatalf("got %v with hint %q", err, myrmidon.Hint(err))
	}
	for goos, want := range map[string]string{"darwin": "brew install ffmpeg", "linux": "package manager"} {
		if got := remedy(goos, false); !strings.Contains(got, want) {
			t.Errorf("on %s: %q", goos, got)
		}
	}
	if got := remedy("linux", true); !strings.Contains(got, "apt-get install ffmpeg") {
		t.Errorf("on Debian: %q", got)
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	script(t, filepath.Join(dir, "ffmpeg"), "sleep 600")
	script(t, filepath.Join(dir, "ffprobe"), "exit 0")
	t.Setenv("MYRMIDON_FFMPEG", filepath.Join(dir, "ffmpeg"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Find(ctx); err == nil || myrmidon.IsPermanent(err) {
		t.Errorf("got %v, want a passing error", err)
	}
}

func TestFindTheRealFFmpeg(t *testing.T) {
	tools(t)
	got, err := Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := Find(t.Context())
	if err != nil || *again != *got {
		t.Errorf("got %+v, then %+v (%v)", got, again, err)
	}
}

func BenchmarkFind(b *testing.B) {
	tools(b)
	for b.Loop() {
		if _, err := Find(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
