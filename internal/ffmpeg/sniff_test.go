package ffmpeg

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"myrmidon"
)

func transportStream(packet, lead, n int) []byte {
	b := bytes.Repeat([]byte{0xff}, lead+n*packet)
	for i := range n {
		b[lead+i*packet] = 0x47
	}
	return b
}

func TestSniffNamesTheDemuxer(t *testing.T) {
	tests := []struct {
		name    string
		head    []byte
		want    string
		indexed bool
	}{
		{"an MP4 begins with ftyp", []byte("\x00\x00\x00\x20ftypisom\x00\x00\x02\x00"), "mov", true},
		{"an old QuickTime file begins with moov", []byte("\x00\x00\x12\x34moov\x00\x00\x00\x6cmvhd"), "mov", true},
		{"a QuickTime file may begin with wide", []byte("\x00\x00\x00\x08wide\x00\x00\x00\x00mdat"), "mov", true},
		{"an mdat may have a 64-bit size", []byte("\x00\x00\x00\x01mdat\x00\x00\x00\x01\x00\x00\x00\x00"), "mov", true},
		{"Matroska and WebM begin with EBML", []byte("\x1aE\xdf\xa3\x01\x00\x00\x00"), "matroska", true},
		{"a transport stream has a sync byte each 188 bytes", transportStream(188, 0, 8), "mpegts", false},
		{"a transport stream may begin within a packet", transportStream(188, 77, 8), "mpegts", false},
		{"an M2TS has them each 192 bytes", transportStream(192, 4, 8), "mpegts", false},
		{"a short transport stream is one too", transportStream(188, 0, 3), "mpegts", false},
		{"a program stream begins with a pack", []byte("\x00\x00\x01\xba\x44\x00"), "mpeg", false},
		{"AVI is a RIFF", []byte("RIFF\x00\x00\x01\x00AVI LIST"), "avi", false},
		{"FLV", []byte("FLV\x01\x05\x00\x00\x00\x09"), "flv", false},
		{"ASF", []byte("\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"), "asf", false},
		{"Ogg", []byte("OggS\x00\x02"), "ogg", false},
		{"MXF", []byte("\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02\x04\x00"), "mxf", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Sniff(test.head)
			if want := (Container{test.want, test.indexed}); err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestSniffSaysWhatTheFileIsInstead(t *testing.T) {
	tests := []struct{ head, want string }{
		{"", "empty"},
		{"#EXTM3U\n#EXT-X-VERSION:3\n", "an HLS playlist"},
		{"\xef\xbb\xbf\n#EXTM3U\n", "an HLS playlist"},
		{"ffconcat version 1.0\nfile x.mp4\n", "an ffconcat list"},
		{"<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\">", "a DASH manifest"},
		{"<!DOCTYPE html><html>", "an HTML page"},
		{"  <HTML><head>", "an HTML page"},
		{"<?xml version='1.0'?><Error><Code>NoSuchKey</Code>", "an XML document"},
		{"\x89PNG\r\n\x1a\n\x00\x00", "a PNG picture"},
		{"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG picture"},
		{"GIF89a", "a GIF picture"},
		{"RIFF\x00\x00\x00\x00WEBPVP8 ", "a WebP picture"},
		{"\x00\x00\x00\x1cftypavif", "an AVIF picture"},
		{"RIFF\x00\x00\x00\x00WAVEfmt ", "audio only"},
		{"ID3\x04\x00", "audio only"},
		{"fLaC\x00\x00", "audio only"},
		{"%PDF-1.7", "a PDF document"},
		{"PK\x03\x04\x14", "a ZIP archive"},
		{"YUV4MPEG2 W160 H90", "raw video"},
		{"\x00\x00\x00\x01\x67\x64\x00\x1f", "a bare H.264"},
		{"dear diary\n", `a text file (it begins "dear diary")`},
		{strings.Repeat("\x00", 4096), "zero bytes"},
		{"\x7fELF\x02\x01\x01", "not media that is known here (it begins 7f 45 4c 46"},
		{"file 'other.mp4'\n", "a text file"},
	}
	for _, test := range tests {
		c, err := Sniff([]byte(test.head))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.20q: got %+v, %v; want an error with %q", test.head, c, err, test.want)
			continue
		}
		if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
			t.Errorf("%.20q: %v is not permanent or has no hint", test.head, err)
		}
	}
}

func TestSniffFileNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.mp4"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "list.mp4"), []byte("#EXTM3U\n"))
	for name, want := range map[string]string{
		"gone.mp4": "no such file",
		"list.mp4": "list.mp4 is an HLS playlist, not media",
		"fifo.mp4": "fifo.mp4 is not a regular file", // and is not waited for
		".":        "is a folder",
	} {
		_, err := SniffFile(filepath.Join(dir, name))
		if err == nil || !strings.Contains(err.Error(), want) || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
			t.Errorf("%s: got %v (hint %q), want a permanent error with %q", name, err, myrmidon.Hint(err), want)
		}
	}
}

func TestInputTakesAnyPath(t *testing.T) {
	tl := tools(t)
	content := read(t, sample(t))
	for _, name := range []string{"-i.mp4", "http:evil,x|y.mp4", "a\nb %03d.mp4", "crypto:x.mp4", "quote'\".mp4", "file:x.mp4"} {
		path := write(t, filepath.Join(t.TempDir(), name), content)
		t.Chdir(filepath.Dir(path))
		for _, given := range []string{path, name} { // absolute and relative
			if p, _, err := tl.Probe(t.Context(), given, t.TempDir()); err != nil || p.Video.Frames != 72 {
				t.Errorf("%q: %v", given, err)
			}
		}
	}
}

// TestNothingElseIsOpened feeds ffmpeg files that name other files and a URL. Forced
// through each demuxer that sniffing can choose, none may reach either.
func TestNothingElseIsOpened(t *testing.T) {
	tl := tools(t)
	var requests atomic.Int64
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			requests.Add(1)
		}
	}
	server.Start()
	defer server.Close()

	dir := t.TempDir()
	secret := write(t, filepath.Join(dir, "secret.mp4"), read(t, sample(t)))
	write(t, filepath.Join(dir, "secret.ts"), transportStream(188, 0, 20))
	opened := watchOpens(t, secret)

	hls := "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n" + server.URL + "/a.ts\n#EXTINF:3,\nfile://" + secret + "\n#EXT-X-ENDLIST\n"
	concat := "ffconcat version 1.0\nfile " + secret + "\nfile " + server.URL + "/a.mp4\n"
	dash := `<?xml version="1.0"?><MPD type="static"><BaseURL>` + server.URL + `/</BaseURL></MPD>`
	files := map[string][]byte{
		"playlist.mp4": []byte(hls),
		"concat.mp4":   []byte(concat),
		"dash.mp4":     []byte(dash),
		// The same behind a header that passes the sniff.
		"hidden.mp4":  append([]byte("\x00\x00\x00\x14ftypisom\x00\x00\x02\x00isom"), hls...),
		"hidden.mkv":  append([]byte("\x1aE\xdf\xa3\x80"), concat...),
		"dref.mp4":    withDref(t, read(t, sample(t)), "alis", alias("/secret.mp4")),
		"url.mp4":     withDref(t, read(t, sample(t)), "url ", server.URL+"/a.mp4\x00"),
		"rmra.mov":    referenceMovie(server.URL + "/a.mp4\x00"),
		"playlist.ts": append(transportStream(188, 0, 4), hls...),
	}
	for name, content := range files {
		path := write(t, filepath.Join(dir, name), content)
		// Through the front door: whatever it says, nothing else is opened.
		_, _, probeErr := tl.Probe(t.Context(), path, t.TempDir())
		if strings.HasPrefix(name, "playlist.mp4") || strings.HasPrefix(name, "concat") || strings.HasPrefix(name, "dash") {
			if probeErr == nil || !myrmidon.IsPermanent(probeErr) {
				t.Errorf("%s: probe says %v, want a permanent error", name, probeErr)
			}
		}
		// And as if the sniff had been fooled.
		for _, demuxer := range []string{"mov", "matroska", "mpegts", "mpeg", "avi", "flv", "asf", "ogg", "mxf"} {
			if demuxer != "mov" && name != "playlist.mp4" {
				continue
			}
			args := append(Container{Name: demuxer}.Input(path), "-t", "1", "-f", "null", "-")
			out, err := tl.Run(t.Context(), Command{Args: args, Dir: t.TempDir()})
			if err == nil && out.Frames > 0 && demuxer != "mov" {
				t.Errorf("%s as %s: %d frames came out", name, demuxer, out.Frames)
			}
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests went out, want 0", n)
	}
	if opened() {
		t.Error("the other file was opened")
	}

	// The test can fail: without the options, these files do reach out.
	for _, control := range []struct {
		name    string
		options []string
	}{
		{"playlist.mp4", []string{"-protocol_whitelist", "file,http,tcp", "-allowed_extensions", "ALL"}},
		{"dref.mp4", []string{"-enable_drefs", "1"}},
	} {
		args := append(control.options, "-i", filepath.Join(dir, control.name), "-f", "null", "-")
		_, err := tl.Run(t.Context(), Command{Args: args, Dir: t.TempDir()})
		if !opened() || requests.Load() == 0 {
			t.Errorf("%s does not even work unprotected (%v): this test proves nothing", control.name, err)
		}
	}
}

// withDref replaces the data reference of an MP4's first track, which says "in this
// file", by one to another place, keeping all sizes around it right.
func withDref(t *testing.T, mp4 []byte, kind, target string) []byte {
	t.Helper()
	old := []byte("\x00\x00\x00\x0curl \x00\x00\x00\x01")
	at := bytes.Index(mp4, old)
	if at < 0 {
		t.Fatal("there is no data reference")
	}
	entry := binary.BigEndian.AppendUint32(nil, uint32(12+len(target)))
	entry = append(append(append(entry, kind...), 0, 0, 0, 0), target...)
	out := slices.Concat(mp4[:at], entry, mp4[at+len(old):])
	var grow func(start, end int)
	grow = func(start, end int) {
		for start+8 <= end {
			size := int(binary.BigEndian.Uint32(mp4[start:]))
			if size < 8 || start+size > end {
				return
			}
			if start < at && at < start+size {
				binary.BigEndian.PutUint32(out[start:], uint32(size+len(entry)-len(old)))
				body := start + 8
				if string(mp4[start+4:start+8]) == "dref" {
					return
				}
				grow(body, start+size)
			}
			start += size
		}
	}
	grow(0, len(mp4))
	return out
}

// alias is the body of a QuickTime alias to a file in the same folder: fixed fields,
// then the path as an entry of type 2.
func alias(path string) string {
	b := make([]byte, 10+1+27+12+1+63+16)
	b = append(b, 0, 1, 0, 1) // levels from and to
	b = append(b, make([]byte, 16)...)
	b = append(b, 0, 2, 0, byte(len(path)))
	b = append(b, path...)
	if len(path)%2 == 1 {
		b = append(b, 0)
	}
	return string(append(b, 0xff, 0xff, 0, 0))
}

// referenceMovie is a QuickTime movie that only points to another (rmra).
func referenceMovie(target string) []byte {
	wrap := func(kind string, body ...[]byte) []byte {
		b := slices.Concat(body...)
		return slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(8+len(b))), []byte(kind), b)
	}
	rdrf := wrap("rdrf", []byte{0, 0, 0, 0}, []byte("url "), binary.BigEndian.AppendUint32(nil, uint32(len(target))), []byte(target))
	return wrap("moov", wrap("rmra", wrap("rmda", rdrf)))
}

func FuzzSniff(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x20ftypisom"))
	f.Add([]byte("#EXTM3U\n"))
	f.Add(transportStream(188, 3, 6))
	f.Fuzz(func(t *testing.T, head []byte) {
		c, err := Sniff(head)
		if (err == nil) != (c.Name != "") {
			t.Errorf("got %+v and %v", c, err)
		}
		if text := bytes.TrimSpace(head); err == nil && bytes.HasPrefix(text, []byte("#EXTM3U")) {
			t.Error("a playlist passes")
		}
	})
}
