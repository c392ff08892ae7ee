package ffmpeg

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"myrmidon"
)

// sniffLen is how much of a file SniffFile looks at: 16 packets of a transport
// stream, or the ftyp box and whatever precedes it.
const sniffLen = 4096

// Container is the kind of file that a sniff saw.
type Container struct {
	Name string // ffmpeg's demuxer: "mov", "matroska", "mpegts", …
	// Indexed is set where seeks land on keyframes exactly. Other containers are
	// searched by byte position, and the search may end beside the mark.
	Indexed bool
}

// Sniff names the container of a file that begins with head (the first 4 KiB, or
// all of a shorter file). Only containers that hold all their media are accepted:
// what names other files (a playlist, ffconcat, DASH, SMIL) is an error that says what
// the file seems to be, permanent and with a hint.
func Sniff(head []byte) (Container, error) {
	c, n := sniff(head)
	if n != nil {
		return Container{}, n.error("the file")
	}
	return c, nil
}

// SniffFile is Sniff for the file at path. Its errors name the file, are permanent
// and wrap what [os.Open] says. Only regular files are opened.
func SniffFile(path string) (Container, error) {
	base := filepath.Base(path)
	// A look before the opening: opening a FIFO would wait for its writer.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		what := "not a regular file"
		if info.IsDir() {
			what = "a folder"
		}
		return Container{}, (&notMedia{what, "name a media file"}).error(base)
	}
	var f *os.File
	if err == nil {
		f, err = os.Open(path)
	}
	if err != nil {
		return Container{}, openError(path, err)
	}
	defer f.Close()
	head := make([]byte, sniffLen)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Container{}, fmt.Errorf("ffmpeg: read the first bytes of %s: %w", path, err)
	}
	c, not := sniff(head[:n])
	if not != nil {
		return Container{}, not.error(base)
	}
	return c, nil
}

// openError turns an error of os.Open into one with a remedy. Only what a person
// must mend is permanent.
func openError(path string, err error) error {
	err = fmt.Errorf("ffmpeg: %w", err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return myrmidon.Permanent(myrmidon.WithHint(err, "check the path: there is no such file"))
	case errors.Is(err, fs.ErrPermission):
		return myrmidon.Permanent(myrmidon.WithHint(err, "give this user the right to read "+path))
	}
	return err
}

// notMedia says what a file is instead of a container that is accepted.
type notMedia struct {
	what string // "an HLS playlist, not media"
	hint string
}

func (n *notMedia) error(name string) error {
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s is %s", name, n.what), n.hint))
}

// sniff returns the container, or what the file is instead.
func sniff(head []byte) (Container, *notMedia) {
	if len(head) == 0 {
		return Container{}, &notMedia{"empty (0 bytes)", "the upload or download never arrived; fetch the file again"}
	}
	if not := sniffForeign(head); not != nil {
		return Container{}, not
	}
	switch {
	case isBMFF(head):
		return Container{Name: "mov", Indexed: true}, nil
	case has(head, 0, "\x1aE\xdf\xa3"): // EBML, RFC 8794
		return Container{Name: "matroska", Indexed: true}, nil
	case has(head, 0, "RIFF") && (has(head, 8, "AVI ") || has(head, 8, "AVIX")):
		return Container{Name: "avi"}, nil
	case has(head, 0, "FLV\x01"):
		return Container{Name: "flv"}, nil
	case has(head, 0, "\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9"): // ASF header object's GUID
		return Container{Name: "asf"}, nil
	case has(head, 0, "OggS"):
		return Container{Name: "ogg"}, nil
	case bytes.Contains(head, []byte("\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01")):
		// An MXF header partition pack (SMPTE 377), after a run-in of any kind.
		return Container{Name: "mxf"}, nil
	case has(head, 0, "\x00\x00\x01\xba"): // pack_start_code, ISO/IEC 13818-1
		return Container{Name: "mpeg"}, nil
	case isTransportStream(head):
		return Container{Name: "mpegts"}, nil
	}
	return Container{}, sniffUnknown(head)
}

func has(head []byte, at int, magic string) bool {
	return len(head) >= at+len(magic) && string(head[at:at+len(magic)]) == magic
}

// isBMFF reports whether head begins with a box of ISO/IEC 14496-12 or QuickTime.
// Files without ftyp (old QuickTime) begin with moov, mdat, wide, free, skip or pnot.
func isBMFF(head []byte) bool {
	if len(head) < 8 {
		return false
	}
	size := uint32(head[0])<<24 | uint32(head[1])<<16 | uint32(head[2])<<8 | uint32(head[3])
	switch string(head[4:8]) {
	case "ftyp", "styp":
		return size >= 8
	case "moov", "mdat", "wide", "free", "skip", "pnot":
		return size >= 8 || size <= 1
	}
	return false
}

// isTransportStream looks for sync bytes: every 188 bytes, 192 (with a time stamp
// before each packet, as on Blu-ray) or 204 (with parity after). It wants five, or
// as many as fit the file, and no fewer than three.
func isTransportStream(head []byte) bool {
	for _, packet := range []int{188, 192, 204} {
		for first := 0; first < packet && first < len(head); first++ {
			seen, at := 0, first
			for at < len(head) && head[at] == 0x47 {
				seen++
				at += packet
			}
			if seen >= 5 || seen >= 3 && at >= len(head) {
				return true
			}
		}
	}
	return false
}

const (
	hintPlaylist = "name the media file itself; what a playlist points to is never opened from here"
	hintPicture  = "name a video; pictures are not transcoded"
	hintAudio    = "name a file with moving pictures; sound alone is not supported yet"
	hintFetch    = "the download probably got an error page or another file; fetch it again"
	hintWrap     = "put the stream into a container first: ffmpeg -i IN -c copy OUT.mkv"
)

// foreign lists magic numbers of what is not accepted, so that the error can say
// what was given.
var foreign = []struct {
	at    int
	magic string
	is    notMedia
}{
	{0, "\x89PNG\r\n\x1a\n", notMedia{"a PNG picture, not a video", hintPicture}},
	{0, "\xff\xd8\xff", notMedia{"a JPEG picture, not a video", hintPicture}},
	{0, "GIF8", notMedia{"a GIF picture, not a video", hintPicture}},
	{8, "WEBP", notMedia{"a WebP picture, not a video", hintPicture}},
	{4, "ftypavif", notMedia{"an AVIF picture, not a video", hintPicture}},
	{4, "ftypheic", notMedia{"an HEIF picture, not a video", hintPicture}},
	{4, "ftypmif1", notMedia{"an HEIF picture, not a video", hintPicture}},
	{8, "WAVE", notMedia{"a WAV file: audio only; not supported yet", hintAudio}},
	{0, "ID3", notMedia{"an MP3 file: audio only; not supported yet", hintAudio}},
	{0, "\xff\xfb", notMedia{"an MP3 file: audio only; not supported yet", hintAudio}},
	{0, "\xff\xf1", notMedia{"an AAC file: audio only; not supported yet", hintAudio}},
	{0, "\xff\xf9", notMedia{"an AAC file: audio only; not supported yet", hintAudio}},
	{0, "fLaC", notMedia{"a FLAC file: audio only; not supported yet", hintAudio}},
	{4, "ftypM4A ", notMedia{"an M4A file: audio only; not supported yet", hintAudio}},
	{0, "YUV4MPEG2 ", notMedia{"raw video (YUV4MPEG2), which is not supported", hintWrap}},
	{0, "DKIF", notMedia{"an IVF file, which is not supported", hintWrap}},
	{0, "%PDF", notMedia{"a PDF document, not media", hintFetch}},
	{0, "PK\x03\x04", notMedia{"a ZIP archive, not media", "unpack the archive and name the video in it"}},
	{0, "Rar!", notMedia{"a RAR archive, not media", "unpack the archive and name the video in it"}},
	{0, "7z\xbc\xaf\x27\x1c", notMedia{"a 7-Zip archive, not media", "unpack the archive and name the video in it"}},
	{0, "\x1f\x8b", notMedia{"gzip data, not media", "unpack it and name the video in it"}},
}

// sniffForeign recognises what must not, or cannot, be opened: first of all the
// text files that make ffmpeg open others.
func sniffForeign(head []byte) *notMedia {
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	lower := bytes.ToLower(text)
	begins := func(s string) bool { return bytes.HasPrefix(lower, []byte(s)) }
	switch {
	case begins("#extm3u"):
		return &notMedia{"an HLS playlist, not media", hintPlaylist}
	case begins("ffconcat"):
		return &notMedia{"an ffconcat list, not media", hintPlaylist}
	case begins("[playlist]"):
		return &notMedia{"a PLS playlist, not media", hintPlaylist}
	case begins("v=0"):
		return &notMedia{"an SDP session description, not media", hintPlaylist}
	case begins("<!doctype html"), begins("<html"):
		return &notMedia{"an HTML page, not media", hintFetch}
	case begins("<"):
		switch {
		case bytes.Contains(lower, []byte("<mpd")):
			return &notMedia{"a DASH manifest, not media", hintPlaylist}
		case bytes.Contains(lower, []byte("<smoothstreamingmedia")):
			return &notMedia{"a Smooth Streaming manifest, not media", hintPlaylist}
		case bytes.Contains(lower, []byte("<html")):
			return &notMedia{"an HTML page, not media", hintFetch}
		}
		return &notMedia{"an XML document, not media", hintFetch}
	}
	for i := range foreign {
		f := &foreign[i]
		if has(head, f.at, f.magic) && (f.at != 8 || has(head, 0, "RIFF")) {
			return &f.is
		}
	}
	return nil
}

// sniffUnknown describes what has no magic number that is known.
func sniffUnknown(head []byte) *notMedia {
	// Not in the table above: a box may have a 64-bit size, announced by a 1.
	switch {
	case has(head, 0, "\x00\x00\x00\x01"), has(head, 0, "\x00\x00\x01\x67"):
		return &notMedia{"a bare H.264 or HEVC stream without a container", hintWrap}
	case has(head, 0, "\x00\x00\x01\xb3"):
		return &notMedia{"a bare MPEG video stream without a container", hintWrap}
	}
	if len(bytes.Trim(head, "\x00")) == 0 {
		return &notMedia{"zero bytes as far as one can see, not media", "the download was never finished; fetch the file again"}
	}
	if isText(head) {
		line, _, _ := strings.Cut(strings.TrimSpace(string(head)), "\n")
		return &notMedia{fmt.Sprintf("a text file (it begins %q), not media", clip(line, 40)), hintFetch}
	}
	return &notMedia{
		fmt.Sprintf("not media that is known here (it begins % x)", head[:min(len(head), 8)]),
		"known are MP4, MOV, MKV, WebM, MPEG-TS, MPEG-PS, AVI, FLV, WMV, Ogg and MXF",
	}
}

func isText(head []byte) bool {
	for _, c := range head {
		if c < ' ' && c != '\t' && c != '\r' && c != '\n' && c != '\f' && c != 0x1b || c == 0x7f {
			return false
		}
	}
	return true
}
