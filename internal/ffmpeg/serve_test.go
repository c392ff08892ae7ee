package ffmpeg

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
)

// counted is an object in memory, and what was read of it.
type counted struct {
	content []byte
	reads   atomic.Int64
	taken   atomic.Int64
	failAt  int64 // reads from here on fail; 0 means never
	err     error
}

func (c *counted) read(ctx context.Context, offset int64, b []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c.reads.Add(1)
	if c.failAt > 0 && offset+int64(len(b)) > c.failAt {
		n := copy(b, c.content[min(offset, c.failAt):c.failAt])
		c.taken.Add(int64(n))
		return n, c.err
	}
	n := copy(b, c.content[offset:])
	c.taken.Add(int64(n))
	return n, nil
}

// serve serves content until the test ends.
func serve(t *testing.T, name string, content []byte) (*Media, *counted) {
	t.Helper()
	c := &counted{content: content}
	m, err := Serve(t.Context(), name, int64(len(content)), c.read)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, c
}

// noise is n bytes in which no two places are alike.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

func TestAServerAnswersItsOneRequestOnly(t *testing.T) {
	content := noise(1000)
	m, c := serve(t, "a.mp4", content)
	s := m.server
	for _, test := range []struct {
		name, request string
		status        int
		body          []byte
		contentRange  string
	}{
		{"all of it", "GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n", 200, content, ""},
		{"as through a proxy", "GET http://{addr}{path} HTTP/1.1\r\nHost: {addr}\r\n\r\n", 200, content, ""},
		{"from an offset on", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=900-\r\n\r\n", 206, content[900:], "bytes 900-999/1000"},
		{"a range", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=10-19\r\n\r\n", 206, content[10:20], "bytes 10-19/1000"},
		{"a range beyond the end", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=990-2000\r\n\r\n", 206, content[990:], "bytes 990-999/1000"},
		{"the last bytes", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=-5\r\n\r\n", 206, content[995:], "bytes 995-999/1000"},
		{"from the end on", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=1000-\r\n\r\n", 416, nil, "bytes */1000"},
		{"the last no bytes", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=-0\r\n\r\n", 416, nil, "bytes */1000"},
		{"two ranges count as none", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=0-1,5-6\r\n\r\n", 200, content, ""},
		{"a range from back to front counts as none", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=9-1\r\n\r\n", 200, content, ""},
		{"a number that is none", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=99999999999999999999-\r\n\r\n", 200, content, ""},

		{"another path", "GET /etc/passwd HTTP/1.1\r\nHost: {addr}\r\n\r\n", 404, nil, ""},
		{"the path and more", "GET {path}/a HTTP/1.1\r\nHost: {addr}\r\n\r\n", 404, nil, ""},
		{"the path with a query", "GET {path}?a=b HTTP/1.1\r\nHost: {addr}\r\n\r\n", 404, nil, ""},
		{"no path", "GET / HTTP/1.1\r\nHost: {addr}\r\n\r\n", 404, nil, ""},
		{"another host's name", "GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n", 404, nil, ""},
		{"another server, through a proxy", "GET http://evil.example{path} HTTP/1.1\r\nHost: {addr}\r\n\r\n", 404, nil, ""},
		{"a tunnel", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 404, nil, ""},
		{"no password", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nProxy-Authorization:\r\n\r\n", 407, nil, ""},
		{"another password", "GET {path} HTTP/1.1\r\nHost: {addr}\r\nProxy-Authorization: Basic ZmZtcGVnOkE=\r\n\r\n", 407, nil, ""},
		{"another method", "POST {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 0\r\n\r\n", 405, nil, ""},
		{"a head", "HEAD {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n", 405, nil, ""},
	} {
		before := c.taken.Load()
		request := strings.NewReplacer("{path}", s.path, "{addr}", s.addr).Replace(test.request)
		if !strings.Contains(request, "Proxy-Authorization") {
			request = strings.TrimSuffix(request, "\r\n") + s.password() + "\r\n\r\n"
		}
		response, body := exchange(t, s.addr, request)
		if response.StatusCode != test.status || response.Header.Get("Content-Range") != test.contentRange {
			t.Errorf("%s: got %s, %q; want %d, %q", test.name, response.Status, response.Header.Get("Content-Range"), test.status, test.contentRange)
		}
		if test.body != nil && !bytes.Equal(body, test.body) {
			t.Errorf("%s: got %d other bytes, want %d", test.name, len(body), len(test.body))
		}
		if test.body == nil && c.taken.Load() != before {
			t.Errorf("%s: the object was read", test.name)
		}
	}
}

// get is a request of the served file, with further lines of its header.
func (s *server) get(lines ...string) string {
	return "GET " + s.path + " HTTP/1.1\r\n" + strings.Join(append(lines, "Host: "+s.addr, s.password()), "\r\n") + "\r\n\r\n"
}

func (s *server) password() string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(s.login))
}

// exchange sends one request as it is.
func exchange(t *testing.T, addr, request string) (*http.Response, []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, body
}

// TestServedContainersAreReadAsFromAFile compares, for each container, the probe and the
// decoded frames, from the start and after a seek.
func TestServedContainersAreReadAsFromAFile(t *testing.T) {
	h264 := []string{"-c:v", "libx264", "-preset", "ultrafast", "-g", "24", "-bf", "2", "-b:v", "3M", "-c:a", "aac"}
	av := func(options ...string) []string {
		return append([]string{"-f", "lavfi", "-i", "testsrc2=s=320x180:r=24:d=6", "-f", "lavfi", "-i", "sine=d=6:r=44100"}, options...)
	}
	for _, test := range []struct {
		name, file string
		args       []string
	}{
		{"MP4, its index at the end", "s-end.mp4", av(h264...)},
		{"MP4, its index in front", "s-front.mp4", av(append(h264, "-movflags", "+faststart")...)},
		{"fragmented MP4", "s-frag.mp4", av(append(h264, "-movflags", "+frag_keyframe+empty_moov")...)},
		{"MP4 with sound far from its pictures", "s-apart.mp4", av(append(h264, "-max_interleave_delta", "0", "-chunk_duration", "60000000")...)},
		{"Matroska", "s.mkv", av(h264...)},
		{"transport stream", "s.ts", av(h264...)},
		{"AVI", "s.avi", av("-c:v", "mpeg4", "-bf", "2", "-c:a", "mp2")},
		{"FLV", "s.flv", av(h264...)},
		{"program stream", "s.mpg", av("-r", "25", "-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2")},
		{"MXF", "s.mxf", av("-r", "25", "-c:v", "mpeg2video", "-bf", "2", "-c:a", "pcm_s16le", "-ar", "48000")},
		{"ASF", "s.wmv", av("-c:v", "wmv2", "-c:a", "wmav2")},
		{"Ogg", "s.ogv", av("-c:v", "libtheora", "-c:a", "libvorbis")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for i, arg := range test.args {
				if (arg == "-c:v" || arg == "-c:a") && test.args[i+1] != "pcm_s16le" {
					needEncoder(t, test.args[i+1])
				}
			}
			file := Local(made(t, test.file, test.args...))
			served, _ := serve(t, test.file, read(t, file.path))
			var probes [2]Probe
			var frames [2]string
			for i, m := range []*Media{file, served} {
				var err error
				if probes[i], _, err = tools(t).ProbeMedia(t.Context(), m, t.TempDir()); err != nil {
					t.Fatal(err)
				}
				for _, seek := range []string{"0", "4"} {
					var out bytes.Buffer
					args := append([]string{"-copyts", "-noaccurate_seek", "-seek_timestamp", "1", "-ss", seek, "-threads", "1"},
						Container{Name: probes[i].Format}.From(m)...)
					args = append(args, "-map", "0", "-fps_mode", "passthrough", "-f", "framemd5", "-")
					if _, err := tools(t).Run(t.Context(), Command{Args: args, Dir: t.TempDir(), Stdout: &out, Media: m}); err != nil {
						t.Fatal(err)
					}
					frames[i] += out.String()
				}
			}
			if d := cmp.Diff(probes[0], probes[1]); d != "" {
				t.Errorf("the probe differs (-file +served)\n%s", d)
			}
			if frames[0] != frames[1] || strings.Count(frames[0], "\n") < 300 {
				t.Errorf("the frames differ, or are few: %d and %d bytes of them", len(frames[0]), len(frames[1]))
			}
		})
	}
}

// TestNothingElseIsOpenedFromWhatIsServed is TestNothingElseIsOpened for objects, whose
// protocol could reach any server.
func TestNothingElseIsOpenedFromWhatIsServed(t *testing.T) {
	tl := tools(t)
	var connections atomic.Int64
	evil := httptest.NewUnstartedServer(http.NotFoundHandler())
	evil.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	evil.Start()
	defer evil.Close()
	secret := write(t, t.TempDir()+"/secret.mp4", read(t, sample(t)))
	opened := watchOpens(t, secret)

	target := evil.URL + "/a.mp4"
	playlist := []byte("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n" + target + "\n#EXTINF:3,\nfile://" + secret + "\n#EXT-X-ENDLIST\n")
	concat := []byte("ffconcat version 1.0\nfile " + secret + "\nfile " + target + "\n")
	dref := func(kind, to string) []byte { return withDref(t, read(t, sample(t)), kind, to) }
	for name, content := range map[string][]byte{
		"playlist.mp4": playlist,
		"concat.mp4":   concat,
		"hidden.mp4":   append([]byte("\x00\x00\x00\x14ftypisom\x00\x00\x02\x00isom"), playlist...),
		"url.mp4":      dref("url ", target+"\x00"),
		"alias.mp4":    dref("alis", alias(target)),
		"file.mp4":     dref("alis", alias(secret)),
		"rmra.mov":     referenceMovie(target + "\x00"),
		"tail.ts":      append(transportStream(188, 0, 4), playlist...),
	} {
		m, _ := serve(t, name, content)
		if _, _, err := tl.ProbeMedia(t.Context(), m, t.TempDir()); (name == "playlist.mp4" || name == "concat.mp4") &&
			(err == nil || !myrmidon.IsPermanent(err)) {
			t.Errorf("%s: probe says %v, want a permanent error", name, err)
		}
		// And as if the sniff had been fooled, by each demuxer that it can choose.
		for _, demuxer := range []string{"mov", "matroska", "mpegts", "mpeg", "avi", "flv", "asf", "ogg", "mxf"} {
			if demuxer != "mov" && name != "playlist.mp4" {
				continue
			}
			args := append(Container{Name: demuxer}.From(m), "-t", "1", "-f", "null", "-")
			// What it says of nonsense, and be it success, does not matter here.
			_, _ = tl.Run(t.Context(), Command{Args: args, Dir: t.TempDir(), Media: m})
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections went out, want 0", n)
	}
	if opened() {
		t.Error("a file was opened")
	}

	// The second wall: even a demuxer that follows a playlist comes to our server only.
	m, c := serve(t, "playlist.mp4", playlist)
	reach := func(url string) []string {
		return []string{"-protocol_whitelist", "http,tcp", "-allowed_extensions", "ALL", "-f", "hls", "-i", url, "-f", "null", "-"}
	}
	_, err := tl.Run(t.Context(), Command{Args: reach(m.url), Dir: t.TempDir(), Media: m})
	if n := connections.Load(); n != 0 || c.taken.Load() == 0 {
		t.Errorf("past the proxy %d connections went out (%v), want 0; %d bytes of the playlist were read", n, err, c.taken.Load())
	}
	// The test can fail: without either wall it goes out.
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(playlist) }))
	defer open.Close()
	if _, err := tl.Run(t.Context(), Command{Args: reach(open.URL), Dir: t.TempDir()}); connections.Load() == 0 {
		t.Errorf("the playlist does not even work unprotected (%v): this test proves nothing", err)
	}
}

func TestAReadThatFailsIsTheRunsError(t *testing.T) {
	content := read(t, made(t, "long.mkv", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=24:d=20", "-c:v", "libx264", "-preset", "ultrafast", "-g", "24", "-b:v", "4M"))
	gone := errors.New("the store is on fire")
	for _, test := range []struct {
		name      string
		err       error
		permanent bool
	}{
		{"for a while", gone, false},
		{"for good", myrmidon.Permanent(gone), true},
	} {
		m, c := serve(t, "talk.mkv", content)
		c.failAt, c.err = int64(len(content)/2), test.err
		_, _, err := tools(t).ProbeMedia(t.Context(), m, t.TempDir())
		if !errors.Is(err, gone) || myrmidon.IsPermanent(err) != test.permanent || !strings.Contains(err.Error(), "read talk.mkv: the store is on fire") {
			t.Errorf("%s: probing says %v (permanent: %v)", test.name, err, myrmidon.IsPermanent(err))
		}

		m, c = serve(t, "talk.mkv", content)
		c.failAt, c.err = int64(len(content)/2), test.err
		args := append(Container{Name: "matroska"}.From(m), "-f", "null", "-")
		out, err := tools(t).Run(t.Context(), Command{Args: args, Dir: t.TempDir(), Media: m})
		if !errors.Is(err, gone) || myrmidon.IsPermanent(err) != test.permanent {
			t.Errorf("%s: decoding says %v (permanent: %v)", test.name, err, myrmidon.IsPermanent(err))
		}
		if strings.Contains(strings.Join(out.Log, "\n"), m.server.path) {
			t.Errorf("%s: the server's address is in the log: %q", test.name, out.Log)
		}
		// Whoever comes now is refused.
		if response, _ := exchange(t, m.server.addr, m.server.get()); response.StatusCode != 502 {
			t.Errorf("%s: after the error the server says %s", test.name, response.Status)
		}
	}
}

// TestWhatIsServedIsCalledByItsName compares what is said of files that are no good.
func TestWhatIsServedIsCalledByItsName(t *testing.T) {
	good := read(t, sample(t))
	for name, content := range map[string][]byte{
		"empty.mp4":   nil,
		"page.mp4":    []byte("<html>"),
		"short.mp4":   good[:len(good)/2],
		"nothing.mp4": append([]byte("\x00\x00\x00\x14ftypisom\x00\x00\x02\x00isom\x00\x00\x00\x0cmoov"), "\x00\x00\x00\x00"...),
		"nothing.mkv": []byte("\x1aE\xdf\xa3\x80 and nothing more"),
		"nothing.flv": []byte("FLV\x01 and nothing more"),
	} {
		path := write(t, t.TempDir()+"/"+name, content)
		_, _, want := tools(t).Probe(t.Context(), path, t.TempDir())
		m, _ := serve(t, name, content)
		_, _, got := tools(t).ProbeMedia(t.Context(), m, t.TempDir())
		if want == nil || got == nil || got.Error() != want.Error() || myrmidon.Hint(got) != myrmidon.Hint(want) || !myrmidon.IsPermanent(got) {
			t.Errorf("%s: got %v (%s)\nwant %v (%s)", name, got, myrmidon.Hint(got), want, myrmidon.Hint(want))
		}
	}
}

// TestABrokenReadBreaksTheResponse looks at the wire: fewer bytes than announced.
func TestABrokenReadBreaksTheResponse(t *testing.T) {
	content := noise(3 << 20)
	m, c := serve(t, "a.mp4", content)
	c.failAt, c.err = 1<<20, io.ErrUnexpectedEOF
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(m.server.password(), ": ")
	request.Header.Set(name, value)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err == nil || response.ContentLength != int64(len(content)) || len(b) > 1<<20 || !bytes.Equal(b, content[:len(b)]) {
		t.Errorf("%d of %d bytes came, with %v", len(b), response.ContentLength, err)
	}
}

func TestWhatNobodyTakesIsNotRead(t *testing.T) {
	m, c := serve(t, "a.mp4", noise(64<<20))
	conn, err := net.Dial("tcp", m.server.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// As ffmpeg is told to have it.
	if err := conn.(*net.TCPConn).SetReadBuffer(socketBuffer); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, m.server.get()); err != nil {
		t.Fatal(err)
	}
	last, still := int64(0), 0
	for still < 20 {
		time.Sleep(5 * time.Millisecond)
		if n := c.taken.Load(); n != last || n == 0 {
			last, still = n, 0
		} else {
			still++
		}
	}
	if last > 1<<20 {
		t.Errorf("%d bytes were read for a client that takes none", last)
	}
}

func TestANewRequestEndsTheReadingForTheOldOne(t *testing.T) {
	content := noise(1 << 20)
	waiting := make(chan struct{})
	m, err := Serve(t.Context(), "a.mp4", int64(len(content)), func(ctx context.Context, at int64, b []byte) (int, error) {
		if at == 0 {
			close(waiting)
			<-ctx.Done() // a store that hangs
			return 0, ctx.Err()
		}
		return copy(b, content[at:]), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	old, err := net.Dial("tcp", m.server.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if _, err := io.WriteString(old, m.server.get()); err != nil {
		t.Fatal(err)
	}
	<-waiting
	_, body := exchange(t, m.server.addr, m.server.get("Range: bytes=500-599"))
	if !bytes.Equal(body, content[500:600]) {
		t.Errorf("got %d other bytes", len(body))
	}
	if err := m.Err(); err != nil {
		t.Errorf("what a client left off is an error: %v", err)
	}
}

func TestCloseEndsARequest(t *testing.T) {
	waiting := make(chan struct{})
	m, err := Serve(t.Context(), "a.mp4", 100, func(ctx context.Context, _ int64, _ []byte) (int, error) {
		close(waiting)
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", m.server.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, m.server.get()); err != nil {
		t.Fatal(err)
	}
	<-waiting
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", m.server.addr); err == nil {
		conn.Close()
		t.Error("the server still listens")
	}
	if err := m.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func FuzzByteRange(f *testing.F) {
	for _, header := range []string{"bytes=0-", "bytes=5-9", "bytes=-5", "bytes=9-5", "bytes=0-1,3-4", "bytes=", "bytes=-", "items=1-2", "bytes=9223372036854775807-"} {
		f.Add(header, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		from, to, status := byteRange([]string{header}, size)
		ok := from >= 0 && from <= to && to <= size
		switch status {
		case http.StatusOK:
			ok = ok && from == 0 && to == size
		case http.StatusPartialContent:
			ok = ok && from < to
		case http.StatusRequestedRangeNotSatisfiable:
			ok = ok && from == to
		default:
			ok = false
		}
		if !ok {
			t.Errorf("%q of %d bytes: %d to %d, status %d", header, size, from, to, status)
		}
	})
}
