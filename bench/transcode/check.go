package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"myrmidon"
)

// check compares what A and C made in the first round.
func (b *bench) check(ctx context.Context, t *table) ([]verdict, error) {
	verdicts, err := b.checkPictures(ctx, t)
	if err != nil {
		return nil, err
	}
	sound, err := b.checkSound(ctx, t)
	if err != nil {
		return nil, err
	}
	same, err := b.checkSame(ctx, t)
	return append(append(verdicts, sound...), same), err
}

// checkSame compares the trees that A wrote. A single round gets a second run.
func (b *bench) checkSame(ctx context.Context, t *table) (verdict, error) {
	v := verdict{what: "the same bytes each time", target: "1 tree", got: "1 tree"}
	dirs := t.dirs[0]
	if len(dirs) == 1 {
		dir := filepath.Join(b.dir, "A-again")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return v, err
		}
		if _, err := b.ours(ctx, dir); err != nil {
			return v, err
		}
		dirs = append(dirs, dir)
	}
	digests := make(map[string]bool)
	files := 0
	for _, dir := range dirs {
		var sum string
		var err error
		if sum, files, err = treeDigest(outputOf(dir)); err != nil {
			return v, err
		}
		digests[sum] = true
		v.got = fmt.Sprintf("%d different in %d runs of %d files, %s…", len(digests), len(dirs), files, sum[:12])
	}
	v.pass = len(digests) == 1 && files > 0
	return v, nil
}

// treeDigest is the SHA-256 over the relative paths and the bytes of all files below
// dir, in order of their paths, and how many there are.
func treeDigest(dir string) (digest string, files int, err error) {
	sum := sha256.New()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		inner, err := fileSum(path)
		if err != nil {
			return err
		}
		files++
		// A path holds no zero byte, and the inner sum's length is fixed.
		fmt.Fprintf(sum, "%s\x00%s", filepath.ToSlash(relative), inner)
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)), files, err
}

// ask runs ffmpeg in dir and returns what it prints.
func (b *bench) ask(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, b.tools.FFmpeg, append([]string{"-nostdin", "-hide_banner", "-v", "error"}, args...)...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	if stderr.Len() > 0 {
		return nil, myrmidon.WithHint(fmt.Errorf("%s complains: %s", strings.Join(cmd.Args, " "), bytes.TrimSpace(stderr.Bytes())),
			"a stream that does not decode cleanly is not worth measuring")
	}
	return out, nil
}

// timing is how the frames of a stream lie in time.
type timing struct {
	frames int
	first  float64       // seconds
	deltas map[int64]int // how often each distance occurs, ticks
	base   [2]int64      // numerator and denominator of a tick
}

// parseTiming reads what ffmpeg's framecrc muxer writes of one stream: "#tb 0: 1/12288",
// then "stream, dts, pts, duration, size, crc" a frame.
func parseTiming(out []byte) (timing, error) {
	t := timing{deltas: make(map[int64]int), base: [2]int64{0, 1}}
	var last int64
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, "#tb 0: "); ok {
			if _, err := fmt.Sscanf(rest, "%d/%d", &t.base[0], &t.base[1]); err != nil {
				return t, fmt.Errorf("read the time base in %q: %w", line, err)
			}
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, ",")
		if len(fields) < 3 {
			return t, fmt.Errorf("%q is no line of framecrc", line)
		}
		pts, err := strconv.ParseInt(strings.TrimSpace(fields[2]), 10, 64)
		if err != nil {
			return t, fmt.Errorf("read the time in %q: %w", line, err)
		}
		if t.frames == 0 {
			t.first = float64(pts) * float64(t.base[0]) / float64(t.base[1])
		} else {
			t.deltas[pts-last]++
		}
		last = pts
		t.frames++
	}
	return t, nil
}

// constant reports whether all distances are one frame of so many a second.
func (t timing) constant(num, den int64) bool {
	if len(t.deltas) != 1 {
		return t.frames == 1
	}
	for d := range t.deltas {
		return d*t.base[0]*num == den*t.base[1]
	}
	return false
}
