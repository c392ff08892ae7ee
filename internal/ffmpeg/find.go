package ffmpeg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"myrmidon"
)

// The oldest release that is accepted. 5.1 is the first with -fps_mode, and the
// one that Debian 12 has.
const minMajor, minMinor = 5, 1

// layerFFmpeg is where the usual Lambda layers put a static build.
const layerFFmpeg = "/opt/ffmpeg/ffmpeg"

// neededEncoders are what the products are made with.
var neededEncoders = []string{"libx264", "aac"}

// Tools are the programs that [Find] found.
type Tools struct {
	FFmpeg  string // absolute path
	FFprobe string // absolute path
	Version string // as ffmpeg says it: "5.1.9-0+deb12u1", "N-12345-gabcdef"
	// Build is 16 hex digits of the SHA-256 of what `ffmpeg -version` prints. It is
	// part of content-derived names: another build may encode other bytes.
	Build string
}

// Find looks for ffmpeg and ffprobe: where $MYRMIDON_FFMPEG points (the program or
// its folder; ffprobe is expected beside it unless $MYRMIDON_FFPROBE names it), then
// on $PATH, then at /opt/ffmpeg/ffmpeg, where Lambda layers have it. A variable that
// is set and wrong is an error, never a reason to look further.
//
// It starts ffmpeg twice, side by side (Debian's dynamic build takes 90 ms of CPU a
// start, BenchmarkFind), and checks that it is 5.1 or later and has the encoders
// libx264 and aac. All errors but ctx's are permanent and carry the remedy as hint.
func Find(ctx context.Context) (*Tools, error) {
	t, err := locate()
	if err != nil {
		return nil, err
	}
	var version, encoders []byte
	var versionErr, encodersErr error
	var both sync.WaitGroup
	both.Go(func() { version, versionErr = ask(ctx, t.FFmpeg, "-version") })
	both.Go(func() { encoders, encodersErr = ask(ctx, t.FFmpeg, "-hide_banner", "-encoders") })
	both.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("ffmpeg: ask %s for its version: %w", t.FFmpeg, err)
	}
	if versionErr != nil {
		return nil, unusable(fmt.Errorf("ffmpeg: %s does not run: %w", t.FFmpeg, versionErr))
	}
	if t.Version, err = parseVersion(version); err != nil {
		return nil, unusable(fmt.Errorf("ffmpeg: %s: %w", t.FFmpeg, err))
	}
	if tooOld(t.Version) {
		return nil, unusable(fmt.Errorf("ffmpeg: %s is version %s; %d.%d or later is needed",
			t.FFmpeg, t.Version, minMajor, minMinor))
	}
	if encodersErr != nil {
		return nil, unusable(fmt.Errorf("ffmpeg: %s does not list its encoders: %w", t.FFmpeg, encodersErr))
	}
	if missing := missingEncoders(encoders); len(missing) > 0 {
		return nil, unusable(fmt.Errorf("ffmpeg: %s (version %s) was built without the encoder %s",
			t.FFmpeg, t.Version, strings.Join(missing, " and ")))
	}
	sum := sha256.Sum256(version)
	t.Build = hex.EncodeToString(sum[:8])
	return t, nil
}

// locate finds the two programs without running them.
func locate() (*Tools, error) {
	t := new(Tools)
	var err error
	if named := os.Getenv("MYRMIDON_FFMPEG"); named != "" {
		if info, statErr := os.Stat(named); statErr == nil && info.IsDir() {
			named = filepath.Join(named, "ffmpeg")
		}
		if t.FFmpeg, err = executable(named); err != nil {
			return nil, myrmidon.Permanent(myrmidon.WithHint(
				fmt.Errorf("ffmpeg: MYRMIDON_FFMPEG: %w", err),
				"set MYRMIDON_FFMPEG to the ffmpeg program or to the folder that holds it"))
		}
	} else if t.FFmpeg, err = lookPath("ffmpeg"); err != nil {
		if t.FFmpeg, err = executable(layerFFmpeg); err != nil {
			return nil, unusable(errors.New("ffmpeg: there is no ffmpeg on $PATH"))
		}
	}
	if named := os.Getenv("MYRMIDON_FFPROBE"); named != "" {
		if t.FFprobe, err = executable(named); err != nil {
			return nil, myrmidon.Permanent(myrmidon.WithHint(
				fmt.Errorf("ffmpeg: MYRMIDON_FFPROBE: %w", err),
				"set MYRMIDON_FFPROBE to the ffprobe program"))
		}
		return t, nil
	}
	beside := filepath.Join(filepath.Dir(t.FFmpeg), "ffprobe")
	if t.FFprobe, err = executable(beside); err == nil {
		return t, nil
	}
	// Only a name from $PATH may have its ffprobe elsewhere on $PATH: beside a build
	// that the user named, another build's ffprobe would be a surprise.
	if os.Getenv("MYRMIDON_FFMPEG") == "" {
		if t.FFprobe, err = lookPath("ffprobe"); err == nil {
			return t, nil
		}
	}
	return nil, myrmidon.Permanent(myrmidon.WithHint(
		fmt.Errorf("ffmpeg: there is no ffprobe beside %s", t.FFmpeg),
		"install ffprobe of the same build, or set MYRMIDON_FFPROBE=/path/to/ffprobe"))
}

// lookPath is exec.LookPath with an absolute result; a relative $PATH entry is
// refused as LookPath does.
func lookPath(name string) (string, error) {
	p, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(p)
}

// executable returns the absolute path of the program at path.
func executable(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("%s is not a program", abs)
	}
	return abs, nil
}

// ask runs the program once and returns the first MiB of what it prints.
func ask(ctx context.Context, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = environment(os.TempDir())
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	var out head
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(program), strings.Join(args, " "), err)
	}
	return out.Bytes(), nil
}

// head keeps the first MiB written to it and swallows the rest.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	if room := 1<<20 - h.Len(); room > 0 {
		h.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// parseVersion takes the third word of "ffmpeg version 5.1.9-0+deb12u1 Copyright …".
func parseVersion(out []byte) (string, error) {
	line, _, _ := bytes.Cut(out, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) < 3 || words[0] != "ffmpeg" || words[1] != "version" {
		return "", fmt.Errorf("it does not say its version (it says %q)", clip(string(line), 80))
	}
	return words[2], nil
}

// tooOld compares the release in v. Builds from the repository ("N-109542-g…",
// "git-2024-…") carry none and are taken for new.
func tooOld(v string) bool {
	v = strings.TrimPrefix(v, "n") // the tags, as in Arch's "n6.1"
	majorText, rest, _ := strings.Cut(v, ".")
	major, err := strconv.Atoi(leadingDigits(majorText))
	if err != nil {
		return false
	}
	minor, err := strconv.Atoi(leadingDigits(rest))
	if err != nil {
		minor = 0
	}
	return major < minMajor || major == minMajor && minor < minMinor
}

func leadingDigits(s string) string {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return s
	}
	return s[:end]
}

// missingEncoders reads the table of `ffmpeg -encoders`: flags, name, description.
func missingEncoders(table []byte) []string {
	missing := slices.Clone(neededEncoders)
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) >= 2 {
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == fields[1] })
		}
	}
	return missing
}

// unusable marks err as permanent and adds how to get a good ffmpeg.
func unusable(err error) error {
	return myrmidon.Permanent(myrmidon.WithHint(err, remedy(runtime.GOOS, debian())))
}

func remedy(goos string, debian bool) string {
	const own = "set MYRMIDON_FFMPEG=/path/to/ffmpeg to one that has libx264 and aac"
	switch {
	case goos == "darwin":
		return "brew install ffmpeg, or " + own
	case debian:
		return "sudo apt-get install ffmpeg (Debian 12, Ubuntu 23.04 or later), or " + own
	default:
		return "install ffmpeg 5.1 or later with your package manager, or " + own
	}
}

// debian reports whether apt installs packages here.
func debian() bool {
	_, err := os.Stat("/etc/debian_version")
	return err == nil
}

// clip shortens s to n bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
