package transcode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"myrmidon/internal/ffmpeg"
)

const (
	maxInit     = 1 << 20   // bytes of ftyp and moov; ours have under 1 KiB
	maxFragment = 256 << 20 // bytes of a moof or an mdat: one segment
)

// eachFragment calls use with each fragment of the fragmented MP4 at path, in order.
// It holds one fragment at a time, since a file of hours is written in one piece where
// the source cannot be split. init is the same each time; use may keep neither.
func eachFragment(path string, use func(init []byte, f *ffmpeg.Fragment) error) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() {
		// Read only: a failing close loses nothing, but would be worth knowing.
		err = errors.Join(err, file.Close())
	}()
	var init, buf []byte
	for {
		header, kind, size, err := readBoxHeader(file)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		body := size - int64(len(header))
		switch kind {
		case "ftyp", "moov":
			if body > maxInit {
				return fmt.Errorf("read %s: a %s of %d bytes", path, kind, size)
			}
			if init, err = appendBox(init, file, header, body); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
		case "moof", "mdat":
			if body > maxFragment {
				return fmt.Errorf("read %s: a %s of %d bytes", path, kind, size)
			}
			if kind == "moof" {
				buf = append(buf[:0], init...)
			}
			if buf, err = appendBox(buf, file, header, body); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			if kind == "moof" {
				continue
			}
			parsed, err := ffmpeg.ParseFragments(buf)
			if err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			for i := range parsed.Fragments {
				if err := use(init, &parsed.Fragments[i]); err != nil {
					return err
				}
			}
			buf = buf[:0]
		default: // mfra, free: an index of the file, which is taken apart
			if _, err := file.Seek(body, io.SeekCurrent); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
		}
	}
}

// readBoxHeader reads the header of an ISO BMFF box (ISO/IEC 14496-12, 4.2): size and
// kind, and the 64-bit size where there is one. io.EOF means that no box follows.
func readBoxHeader(r io.Reader) (header []byte, kind string, size int64, err error) {
	header = make([]byte, 8, 16)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, "", 0, err
	}
	size = int64(binary.BigEndian.Uint32(header))
	kind = string(header[4:8])
	if size == 1 {
		header = header[:16]
		if _, err := io.ReadFull(r, header[8:]); err != nil {
			return nil, "", 0, fmt.Errorf("the header of a %q is cut off", kind)
		}
		size = int64(binary.BigEndian.Uint64(header[8:]))
	}
	if size < int64(len(header)) {
		return nil, "", 0, fmt.Errorf("a %q claims a size of %d bytes", kind, size)
	}
	return header, kind, size, nil
}

func appendBox(to []byte, r io.Reader, header []byte, body int64) ([]byte, error) {
	to = append(to, header...)
	from := len(to)
	to = append(to, make([]byte, body)...)
	if _, err := io.ReadFull(r, to[from:]); err != nil {
		return nil, fmt.Errorf("a %q is cut off: %w", header[4:8], err)
	}
	return to, nil
}
