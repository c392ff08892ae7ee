package ffmpeg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// box is one box of ISO/IEC 14496-12 within a buffer; offsets are from the buffer's
// start.
type box struct {
	kind  string // four characters
	start int    // of the header
	body  int    // of what follows size and kind (and the 64-bit size)
	end   int
}

func (b box) String() string { return fmt.Sprintf("box %q at byte %d", b.kind, b.start) }

// wrong is an error that names the box.
func (b box) wrong(format string, args ...any) error {
	return fmt.Errorf("%v: %s", b, fmt.Sprintf(format, args...))
}

// bytes returns the whole box, header included.
func (b box) bytes(buf []byte) []byte { return buf[b.start:b.end:b.end] }

// nextBox reads the box that begins at start and must end by end.
func nextBox(buf []byte, start, end int) (box, error) {
	if end-start < 8 {
		return box{}, fmt.Errorf("%d bytes at byte %d are too few for a box", end-start, start)
	}
	b := box{kind: string(buf[start+4 : start+8]), start: start, body: start + 8}
	size := uint64(binary.BigEndian.Uint32(buf[start:]))
	if size == 1 {
		if end-start < 16 {
			return box{}, b.wrong("its 64-bit size is cut off")
		}
		size = binary.BigEndian.Uint64(buf[start+8:])
		b.body += 8
	}
	if size < uint64(b.body-start) {
		return box{}, b.wrong("size %d is less than its header", size)
	}
	if size > uint64(end-start) {
		return box{}, b.wrong("size %d runs %d bytes beyond its surroundings", size, size-uint64(end-start))
	}
	b.end = start + int(size)
	return b, nil
}

// eachBox calls visit for the boxes between start and end, in order.
func eachBox(buf []byte, start, end int, visit func(box) error) error {
	for start < end {
		b, err := nextBox(buf, start, end)
		if err != nil {
			return err
		}
		if err := visit(b); err != nil {
			return err
		}
		start = b.end
	}
	return nil
}

// child returns the one box of the kind between start and end; a second is an error.
func child(buf []byte, in box, skip int, kind string) (found box, ok bool, err error) {
	if in.body+skip > in.end {
		return box{}, false, in.wrong("it is too short to hold boxes")
	}
	err = eachBox(buf, in.body+skip, in.end, func(b box) error {
		if b.kind == kind {
			if ok {
				return b.wrong("there are two of them in %v", in)
			}
			found, ok = b, true
		}
		return nil
	})
	return found, ok, err
}

// need is child for a box that must be there.
func need(buf []byte, in box, kind string) (box, error) {
	b, ok, err := child(buf, in, 0, kind)
	if err == nil && !ok {
		err = in.wrong("it holds no %q", kind)
	}
	return b, err
}

// fields reads the numbers in a box one after another. After the first that lies
// beyond the end all are 0 and err is set.
type fields struct {
	of  box
	buf []byte
	at  int
	err error
}

// fieldsOf begins at the box's body.
func fieldsOf(buf []byte, b box) *fields { return &fields{of: b, buf: buf, at: b.body} }

// take returns the next n bytes, or nil.
func (f *fields) take(n int) []byte {
	if f.err != nil {
		return nil
	}
	if n < 0 || n > f.of.end-f.at {
		f.err = f.of.wrong("it ends %d bytes too early", n-(f.of.end-f.at))
		return nil
	}
	b := f.buf[f.at : f.at+n]
	f.at += n
	return b
}

func (f *fields) skip(n int) { f.take(n) }

func (f *fields) u8() uint8 {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) u32() uint32 {
	if b := f.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) u64() uint64 {
	if b := f.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// full reads the version and flags of a full box.
func (f *fields) full() (version uint8, flags uint32) {
	v := f.u32()
	return uint8(v >> 24), v & 0xffffff
}

// rest is how many bytes are left.
func (f *fields) rest() int { return f.of.end - f.at }

// topLevel is what the box headers of a file say.
type topLevel struct {
	moov    bool
	missing int64 // bytes that the last box lacks
}

// scanTopLevel reads only the headers of the boxes of the file at path. A first
// box that is none is not its business.
func scanTopLevel(path string) (topLevel, error) {
	f, err := os.Open(path)
	if err != nil {
		return topLevel{}, openError(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return topLevel{}, err
	}
	return topLevelOf(f, info.Size(), maxTopLevel)
}

// maxTopLevel bounds the boxes looked at: an hour in fragments of one frame.
const maxTopLevel = 1 << 19

// topLevelOf looks at the headers of most boxes at most. Of a file that has more, what
// is missing at the end is not known.
func topLevelOf(r io.ReaderAt, size int64, most int) (topLevel, error) {
	var t topLevel
	head := make([]byte, 16)
	at := int64(0)
	for range most {
		n, err := r.ReadAt(head, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return t, err
		}
		if n == 0 {
			return t, nil
		}
		if n < 8 {
			t.missing = int64(8 - n)
			return t, nil
		}
		length := uint64(binary.BigEndian.Uint32(head))
		least := uint64(8)
		if length == 1 && n == 16 {
			length, least = binary.BigEndian.Uint64(head[8:]), 16
		}
		kind := string(head[4:8])
		if kind == "moov" && length <= uint64(size-at) {
			t.moov = true
		}
		if length < least {
			// To the end of the file (0), or not a box: ffmpeg will say what it
			// thinks of that.
			return t, nil
		}
		if length > uint64(size-at) {
			// Some programs leave other things at the end of a file, and those may
			// look like the header of a huge box.
			switch kind {
			case "ftyp", "moov", "mdat", "moof", "free", "skip", "wide", "uuid", "sidx", "mfra", "meta", "udta":
				t.missing = int64(min(length-uint64(size-at), 1<<62))
			}
			return t, nil
		}
		at += int64(length)
	}
	return t, nil
}
