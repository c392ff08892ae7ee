package playback

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// screenshots may name a folder in which to keep what the browser showed, for a look.
const screenshots = "MYRMIDON_SCREENSHOTS"

// seen is what page and driver report: see player.mjs.
type seen struct {
	Browser     string       `json:"browser"`
	Levels      []level      `json:"levels"`
	Errors      []complaint  `json:"errors"`
	Console     []string     `json:"console"`
	Buffered    [][2]float64 `json:"buffered"` // seconds
	Ended       bool         `json:"ended"`
	CurrentTime float64      `json:"currentTime"`
	Duration    float64      `json:"duration"`
	Width       int          `json:"width"`
	Height      int          `json:"height"`
	Frames      int          `json:"frames"` // decoded
	Dropped     int          `json:"dropped"`
	AudioBytes  int64        `json:"audioBytes"`
	Picture     picture      `json:"picture"`
	Switches    []struct {
		Level, Width, Height int
		picture
	} `json:"switches"`
}

type level struct {
	Width, Height int
	Bitrate       int64
	Codecs        string
}

// complaint is an error of hls.js or of the video element, also one that hls.js calls
// not fatal: a gap that it jumps over is such a one.
type complaint struct {
	Type, Details, Message string
	Fatal                  bool
	At                     float64
	Buffer                 float64 // seconds buffered from there on, where hls.js says so
}

// late reports whether all that went wrong is that pictures came late though the stream was there:
// the browser, or its machine, did not keep up with the rate.
func (s seen) late() bool {
	for _, c := range s.Errors {
		if c.Details != "bufferStalledError" || c.Fatal || c.Buffer < 1 {
			return false
		}
	}
	return len(s.Errors) > 0
}

// play plays a stream by a function of the page, at the first of the rates; where the browser is
// late, at the next. A stream that stalls by its own fault does so at each.
func play(t *testing.T, s stream, script string, options map[string]any, rates ...float64) (*origin, seen, image.Image) {
	t.Helper()
	for {
		o := serve(t, s.dir)
		options["url"], options["rate"] = o.url+"/"+s.master, rates[0]
		got, screen := browse(t, script, options)
		rates = rates[1:]
		if len(rates) == 0 || !got.late() {
			return o, got, screen
		}
		t.Logf("the browser is late at %.1f s: once more, slower", got.Errors[0].At)
	}
}

// picture is the brightness of a frame, 0 to 255.
type picture struct{ Mean, Deviation float64 }

// visible reports whether p is a test picture or a film rather than one plain colour.
func (p picture) visible() bool { return p.Mean > 16 && p.Mean < 240 && p.Deviation > 4 }

// findChromium looks where scripts/setup.sh looks.
func findChromium() (string, error) {
	if named := os.Getenv("CHROMIUM"); named != "" {
		return exec.LookPath(named)
	}
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Chromium.app/Contents/MacOS/Chromium",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no chromium on $PATH")
}

// browserFlags keep the browser to what the test serves: no update, no sync, no name
// but 127.0.0.1. Sound may play without a click.
var browserFlags = []string{
	"--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
	"--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
	"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
}

// pages serves the page that plays, from another origin than the stream's.
func pages(t *testing.T) string {
	t.Helper()
	hls := filepath.Join("node_modules", "hls.js", "dist", "hls.min.js")
	if _, err := os.Stat(hls); err != nil {
		t.Fatalf("playback: hls.js: %v (make test installs it)", err)
	}
	mux := http.NewServeMux()
	for path, file := range map[string]string{"/{$}": "page.html", "/player.mjs": "player.mjs", "/hls.js": hls} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + "/"
}

// browse opens the page in a new browser, calls one of its functions and returns what
// that saw, and the screen at the end.
func browse(t *testing.T, script string, options map[string]any) (seen, image.Image) {
	t.Helper()
	chromium, err := findChromium()
	if err != nil {
		t.Fatalf("playback: Chromium: %v (make test installs it; CHROMIUM=/path/to/chromium names another)", err)
	}
	profile, err := os.MkdirTemp(scratch, "profile-")
	if err != nil {
		t.Fatal(err)
	}
	screenshot := filepath.Join(t.TempDir(), "screen.png")
	job, err := json.Marshal(map[string]any{
		"chromium": chromium, "args": browserFlags, "profile": profile, "page": pages(t),
		"script": script, "options": options, "screenshot": screenshot,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "play.mjs")
	// Playwright closes the browser on SIGTERM; killed, it would leave it behind.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(job), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("playback: node play.mjs: %v (make test installs what is missing)\n%s", err, stderr.Bytes())
	}
	var s seen
	if err := json.Unmarshal(stdout.Bytes(), &s); err != nil {
		t.Fatalf("playback: play.mjs writes no JSON: %v\n%s", err, stdout.Bytes())
	}
	return s, readScreen(t, screenshot)
}

func readScreen(t *testing.T, path string) image.Image {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv(screenshots); dir != "" {
		name := strings.NewReplacer("/", "-", " ", "-").Replace(t.Name()) + ".png"
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Error(err)
		}
	}
	screen, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return screen
}

// look measures a screen as player.mjs measures a frame.
func look(screen image.Image) picture {
	var sum, squares, n float64
	for y := screen.Bounds().Min.Y; y < screen.Bounds().Max.Y; y++ {
		for x := screen.Bounds().Min.X; x < screen.Bounds().Max.X; x++ {
			r, g, b, _ := screen.At(x, y).RGBA() // 0 to 65535
			luma := (0.2126*float64(r) + 0.7152*float64(g) + 0.0722*float64(b)) / 257
			sum, squares, n = sum+luma, squares+luma*luma, n+1
		}
	}
	mean := sum / n
	return picture{mean, math.Sqrt(max(0, squares/n-mean*mean))}
}

// checkSilence reports everything that browser, page or hls.js complained of.
func checkSilence(t *testing.T, s seen) {
	t.Helper()
	for _, c := range s.Errors {
		t.Errorf("at %.3f s %s: %s: %s (fatal: %v)", c.At, c.Type, c.Details, c.Message, c.Fatal)
	}
	for _, line := range s.Console {
		t.Errorf("the browser's console: %s", line)
	}
}

func TestChromiumPlaysEachRenditionToTheEnd(t *testing.T) {
	for _, tt := range streams {
		t.Run(tt.name, func(t *testing.T) {
			s := transcoded(t, tt.name, tt.clip)
			first := tt.renditions - 1 // hls.js counts from the smallest
			if tt.everyLevel {
				first = 0
			}
			for i := first; i < tt.renditions; i++ {
				t.Run(fmt.Sprintf("level %d", i), func(t *testing.T) { playThrough(t, s, i, tt.renditions) })
			}
		})
	}
}

// playThrough buffers all of one level and plays it to the end.
func playThrough(t *testing.T, s stream, i, renditions int) {
	o, got, screen := play(t, s, "playThrough", map[string]any{"level": i}, 4, 2, 1)
	checkSilence(t, got)
	o.check(t, 1)
	if t.Failed() {
		return // the rest would only repeat it
	}
	t.Logf("Chromium %s: %d frames, %d dropped, %d bytes of sound, buffered %v",
		got.Browser, got.Frames, got.Dropped, got.AudioBytes, got.Buffered)
	if len(got.Levels) != renditions {
		t.Errorf("hls.js sees the levels %+v, want %d", got.Levels, renditions)
	}
	want := []string{fmt.Sprintf("%dp", got.Levels[i].Height)}
	if s.source.audio {
		want = append(want, "audio")
	}
	slices.Sort(want)
	if got := o.renditions(); !slices.Equal(got, want) {
		t.Errorf("it fetched segments of %q, want %q", got, want)
	}
	// Sound may last a little longer than pictures: its frames are 1,024 samples.
	const slack = 0.1
	if math.Abs(got.Duration-s.source.duration) > slack {
		t.Errorf("duration %.3f s, want %.3f", got.Duration, s.source.duration)
	}
	if len(got.Buffered) != 1 || got.Buffered[0][0] > 0.001 || got.Buffered[0][1] < s.source.duration-slack {
		t.Errorf("buffered %v, want one range from 0 to %.3f", got.Buffered, s.source.duration)
	}
	if !got.Ended || math.Abs(got.CurrentTime-got.Duration) > slack {
		t.Errorf("ended: %v at %.3f s of %.3f", got.Ended, got.CurrentTime, got.Duration)
	}
	if got.Frames != s.source.frames {
		t.Errorf("it decoded %d frames, want %d", got.Frames, s.source.frames)
	}
	if got.Dropped > got.Frames*9/10 {
		t.Errorf("it dropped %d frames of %d", got.Dropped, got.Frames)
	}
	if got.Width != got.Levels[i].Width || got.Height != got.Levels[i].Height {
		t.Errorf("the picture is %dx%d, the playlist says %dx%d", got.Width, got.Height, got.Levels[i].Width, got.Levels[i].Height)
	}
	if (got.AudioBytes > 0) != s.source.audio {
		t.Errorf("it decoded %d bytes of sound; the source has sound: %v", got.AudioBytes, s.source.audio)
	}
	if !got.Picture.visible() {
		t.Errorf("no frame is more than plain: %+v", got.Picture)
	}
	if p := look(screen); !p.visible() {
		t.Errorf("the screen is plain at the end: %+v", p)
	}
}

func TestChromiumSwitchesToEachRenditionWhilePlaying(t *testing.T) {
	for _, tt := range streams {
		if tt.renditions < 2 {
			continue // nothing to switch to
		}
		t.Run(tt.name, func(t *testing.T) {
			s := transcoded(t, tt.name, tt.clip)
			o, got, screen := play(t, s, "playEachLevel", map[string]any{}, 1, 0.5)
			checkSilence(t, got)
			o.check(t, 2) // once on the way up, once on the way down
			if want := 2*tt.renditions - 1; len(got.Switches) != want {
				t.Errorf("%d switches, want %d", len(got.Switches), want)
			}
			for _, sw := range got.Switches {
				if want := got.Levels[sw.Level]; sw.Width != want.Width || sw.Height != want.Height {
					t.Errorf("level %d shows %dx%d, want %dx%d", sw.Level, sw.Width, sw.Height, want.Width, want.Height)
				}
				if !sw.visible() {
					t.Errorf("level %d shows a plain picture: %+v", sw.Level, sw.picture)
				}
			}
			if (got.AudioBytes > 0) != s.source.audio {
				t.Errorf("it decoded %d bytes of sound; the source has sound: %v", got.AudioBytes, s.source.audio)
			}
			if p := look(screen); !p.visible() {
				t.Errorf("the screen is plain at the end: %+v", p)
			}
		})
	}
}
