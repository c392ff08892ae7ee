package ffmpeg

import (
	"context"
	"io"
	"slices"
	"sync"
)

// How much of an object is read at a time, bytes. ffmpeg asks for all from an offset on
// and hangs up when it has seen enough, so that one read to the end would be cut off in
// the middle and what is under way be lost. Steps begin small, since many a seek is for
// a header, and grow to a quarter of what was read in sequence, which bounds the waste
// to a fifth. They end where coming takes much longer than being asked for.
const (
	headStep   = 4 << 10  // for a look at a box
	firstStep  = 64 << 10 // after a seek
	earlyStep  = 256 << 10
	maxStep    = 4 << 20
	stepShare  = 4
	maxWindows = 4         // places that are read by turns
	keptBehind = 512 << 10 // for going back a little
)

// readAhead reads an object in steps and keeps the last of them for a few places: a
// demuxer whose pictures and sound lie far from one another goes to and fro between
// them, and after a look at the index it comes back to where it was. It holds
// maxWindows*(maxStep+keptBehind) bytes at most, 18 MiB.
type readAhead struct {
	size int64
	read ReadRange

	mu      sync.Mutex
	windows []*window // the last used first
}

// window is a place that is read in sequence.
type window struct {
	start int64  // of data
	data  []byte // never changed, only replaced
	run   int64  // bytes that were read in sequence
}

func (w *window) end() int64 { return w.start + int64(len(w.data)) }

// step is how much to read next.
func (w *window) step(first int64) int64 {
	return min(max(w.run/stepShare, min(w.run, earlyStep), first), maxStep)
}

// from returns bytes of the object from at on, which must lie within it: at least one
// and at most limit. They are read only. first is the step for a new place.
func (r *readAhead) from(ctx context.Context, at, limit, first int64) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.place(at)
	if at == w.end() {
		behind := w.data[max(0, len(w.data)-keptBehind):]
		b := slices.Grow(slices.Clip(behind), int(w.step(first)))[:len(behind)]
		n, err := r.read(ctx, at, b[len(b):][:min(w.step(first), limit, r.size-at)])
		switch {
		case n == 0 && err == nil:
			return nil, io.ErrUnexpectedEOF
		case n == 0:
			return nil, err
		}
		// An error after some bytes comes again with the next step, or it does not.
		w.start, w.data = at-int64(len(behind)), b[:len(behind)+n]
		w.run += int64(n)
	}
	b := w.data[at-w.start:]
	return b[:min(int64(len(b)), limit)], nil
}

// place returns the window that holds at or ends there, else a new and empty one. It
// becomes the last used.
func (r *readAhead) place(at int64) *window {
	i := slices.IndexFunc(r.windows, func(w *window) bool { return at >= w.start && at <= w.end() })
	w := &window{start: at}
	switch {
	case i >= 0:
		w = r.windows[i]
		r.windows = slices.Delete(r.windows, i, i+1)
	case len(r.windows) == maxWindows:
		r.windows = r.windows[:maxWindows-1]
	}
	r.windows = slices.Insert(r.windows, 0, w)
	return w
}
