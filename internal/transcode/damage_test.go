package transcode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/testkit/long"
	"myrmidon/object"
)

// TestBadInputIsRefusedByName gives files that cannot become a stream. Each must be
// a permanent error with the file's name and a remedy, and nothing may be published.
func TestBadInputIsRefusedByName(t *testing.T) {
	long.Test(t)
	good := clip(t, "good.mp4", join(lavfi("320x180", "24", 8), fast("-g", "24", "-bf", "2"))...)
	matroska := clip(t, "good.mkv", "-i", good, "-c", "copy")
	read := func(t *testing.T, file string) []byte {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(t *testing.T, name string, b []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	tests := []struct {
		name   string
		source func(*testing.T) string
		want   string // regular expression
	}{
		{"empty", func(t *testing.T) string { return write(t, "a.mp4", nil) }, `^a\.mp4 is empty`},
		{"text", func(t *testing.T) string { return write(t, "a.mp4", []byte("hello, world\n")) }, `^a\.mp4 is a text file`},
		{"a playlist", func(t *testing.T) string { return write(t, "a.mp4", []byte("#EXTM3U\n/etc/passwd\n")) }, `^a\.mp4 is an HLS playlist`},
		{"missing", func(t *testing.T) string { return filepath.Join(t.TempDir(), "a.mp4") }, `a\.mp4: no such file`},
		{"the moov is cut off", func(t *testing.T) string { return write(t, "a.mp4", read(t, good)[:100000]) }, `a\.mp4`},
		{"sound only", func(t *testing.T) string { return clip(t, "a.mp4", join(tone(1, "mono"), []string{"-c:a", "aac"})...) }, `^a\.mp4: it has no moving pictures`},
		{
			"cut off, with the moov in front", func(t *testing.T) string {
				front := clip(t, "front.mp4", "-i", good, "-c", "copy", "-movflags", "+faststart")
				b := read(t, front)
				return write(t, "a.mp4", b[:len(b)*2/3])
			}, `a\.mp4 is cut off: \d+ of 192 frames`,
		},
		{
			"cut-off Matroska", func(t *testing.T) string {
				b := read(t, matroska)
				return write(t, "a.mkv", b[:len(b)*2/3])
			}, `a\.mkv is cut off: `,
		},
		{
			"rotten bits in the second chunk", func(t *testing.T) string {
				b := read(t, good)
				at := len(b) * 7 / 10
				for i := range 3000 {
					b[at+i] ^= 0x55
				}
				return write(t, "a.mp4", b)
			}, `^a\.mp4 is damaged at about 0:0[4-6]: \d+ frames? could not be decoded`,
		},
		{
			"rotten bits that only a decoder sees", func(t *testing.T) string {
				b := read(t, good)
				at, size := packetAt(t, good, 5)
				for i := range 60 {
					b[at+size/2+i] ^= 0x2a
				}
				return write(t, "a.mp4", b)
			}, `^a\.mp4 is damaged at about 0:05: \d+ frames? could not be decoded`,
		},
		{
			"rotten sound", func(t *testing.T) string {
				// All of it: single packets of AAC may be anything.
				file := clip(t, "s.mkv", join(lavfi("320x180", "24", 2), tone(2, "stereo"), fast("-c:a", "ac3"))...)
				b := read(t, file)
				for i := 0; i+1 < len(b); i++ {
					if b[i] == 0x0b && b[i+1] == 0x77 && i%2 == 0 {
						clear(b[i : i+60])
					}
				}
				return write(t, "a.mkv", b)
			}, `^a\.mkv: sound: it is damaged: `,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			source := tt.source(t)
			_, err := b.run(specOf(source, small()))
			if err == nil {
				t.Fatal("it was accepted")
			}
			t.Logf("%v (%s)", err, myrmidon.Hint(err))
			if !regexp.MustCompile(tt.want).MatchString(err.Error()) {
				t.Errorf("got %q, want %s", err, tt.want)
			}
			if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
				t.Errorf("permanent %v, hint %q: both are wanted", myrmidon.IsPermanent(err), myrmidon.Hint(err))
			}
			if found, err := filepath.Glob(filepath.Join(b.dir, "*/hls/*.m3u8")); err != nil || len(found) > 0 {
				t.Errorf("published: %v, %v", found, err)
			}
			if _, statErr := os.Stat(source); statErr != nil {
				return
			}
			// An object with these bytes is refused in the same words.
			far := newRemote(t, source, filepath.Base(source))
			spec := specOf(source, small())
			spec.Source = "mem://masters/" + filepath.Base(source)
			if _, farErr := far.run(spec); farErr == nil || farErr.Error() != err.Error() || myrmidon.Hint(farErr) != myrmidon.Hint(err) || !myrmidon.IsPermanent(farErr) {
				t.Errorf("as an object: %v (%s)", farErr, myrmidon.Hint(farErr))
			}
		})
	}
}

// packetAt finds the packet of pictures at a second, and its bytes in the file.
func packetAt(t *testing.T, file string, second int) (pos, size int) {
	t.Helper()
	cmd := exec.Command(needTools(t).FFprobe, "-v", "error", "-select_streams", "v",
		"-show_entries", "packet=pts_time,size,pos", "-of", "csv=p=0", file)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, fmt.Sprintf("%d.000000,", second)); ok {
			if _, err := fmt.Sscanf(rest, "%d,%d", &size, &pos); err != nil {
				t.Fatal(err)
			}
			return pos, size
		}
	}
	t.Fatalf("%s has no packet at %d s", file, second)
	return 0, 0
}

// TestASourceThatChangesIsNoticed writes to the source after it was planned.
func TestASourceThatChangesIsNoticed(t *testing.T) {
	source := clip(t, "a.mp4", join(lavfi("320x180", "24", 1), fast())...)
	b := newBench(t)
	raw, err := json.Marshal(specOf(source, small()))
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := b.jobs(raw, phaseEncode)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(source, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, writeErr := f.WriteString("more")
	if err := errors.Join(writeErr, f.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = b.handlers[KindEncode].Handle(t.Context(), jobs[0])
	if err == nil || err.Error() != "a.mp4 has changed since it was planned" || !myrmidon.IsPermanent(err) {
		t.Errorf("got %v", err)
	}
}

// failingStore refuses to Put what ends in suffix.
type failingStore struct {
	object.Store
	suffix string
	err    error
}

func (s failingStore) Put(ctx context.Context, key string, body io.Reader, size int64, attrs object.Attrs) error {
	if strings.HasSuffix(key, s.suffix) {
		return s.err
	}
	return s.Store.Put(ctx, key, body, size, attrs)
}

// TestAFailingStoreLeavesNoHalfAnswer lets single writes fail: the master must come
// last, and results only after what they name.
func TestAFailingStoreLeavesNoHalfAnswer(t *testing.T) {
	source := clip(t, "a.mp4", join(lavfi("320x180", "24", 1), fast())...)
	full := myrmidon.Permanent(myrmidon.WithHint(syscall.ENOSPC, "free space"))
	for _, suffix := range []string{"plan.json", "00000.m4s", "chunk-00000.json", initFile, mediaFile, iframeFile, masterFile} {
		t.Run(suffix, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			mem := object.NewMem()
			b.workload = Workload(Config{
				Tools: needTools(t), TempDir: b.temp,
				Open: func(string) (object.Store, error) { return failingStore{mem, suffix, full}, nil },
			})
			for _, k := range b.workload.Kinds {
				b.handlers[k.Name] = k.Handler
			}
			_, err := b.run(specOf(source, small()))
			if !errors.Is(err, syscall.ENOSPC) || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) != "free space" {
				t.Errorf("got %v (hint %q)", err, myrmidon.Hint(err))
			}
			if _, err := mem.Head(t.Context(), "a/hls/"+masterFile); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a master playlist is there: %v", err)
			}
			for info, err := range mem.List(t.Context(), "", "") {
				if err != nil {
					t.Fatal(err)
				}
				if suffix == "00000.m4s" && strings.Contains(info.Key, "/chunk-") {
					t.Errorf("%s is there without its segment", info.Key)
				}
			}
			if left, err := os.ReadDir(b.temp); err != nil || len(left) > 0 {
				t.Errorf("left in the temporary folder: %v, %v", left, err)
			}
		})
	}
}

func TestASpecThatIsWrongIsRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Spec)
		want   string
	}{
		{"relative source", func(s *Spec) { s.Source = "talk.mp4" }, `transcode: source: "talk.mp4" is neither an absolute path nor an address`},
		{"a long source", func(s *Spec) { s.Source = "s3://b/" + strings.Repeat("a", 9000) }, `transcode: source: an address of 9007 bytes is longer than 8192`},
		{"an object where only files are known", func(s *Spec) { s.Source = "s3://masters/talk.mp4" }, `transcode: source s3://masters/talk.mp4: only files of this machine`},
		{"no destination", func(s *Spec) { s.Dest = "" }, "transcode: dest: missing"},
		{"a name that climbs out", func(s *Spec) { s.Name = "../../etc" }, "transcode: name: "},
		{"verify", func(s *Spec) { s.Verify = "maybe" }, `transcode: verify: "maybe" is neither "quick" nor "decode"`},
		{"product", func(s *Spec) { s.Product.Kind = "dash" }, `transcode: product: kind: "dash" is not known`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := specOf("/in/talk.mp4", Default())
			tt.change(&s)
			raw, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Workload(Config{Open: func(string) (object.Store, error) { return object.NewMem(), nil }}).Planner.Plan(t.Context(), myrmidon.Step{Spec: raw})
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || !myrmidon.IsPermanent(err) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestClock(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0:00", 7.9: "0:07", 67: "1:07", 3723: "1:02:03"} {
		if got := clock(seconds); got != want {
			t.Errorf("clock(%v) = %s, want %s", seconds, got, want)
		}
	}
}

// FuzzEachFragment reads files that are no fragmented MP4, or nearly one.
func FuzzEachFragment(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08ftyp\x00\x00\x00\x08moov\x00\x00\x00\x08moof\x00\x00\x00\x08mdat"))
	f.Add([]byte("\x00\x00\x00\x01mdat\x00\x00\x00\x00\x00\x00\x00\x10"))
	f.Add([]byte("\xff\xff\xff\xffmoof"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "f.mp4")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		// Whatever the bytes are, it ends, and takes no more memory than they allow.
		_ = eachFragment(file, func([]byte, *ffmpeg.Fragment) error { return nil })
	})
}
