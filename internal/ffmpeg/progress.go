package ffmpeg

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"sync/atomic"
)

// meter follows what `-progress` writes: blocks of key=value lines, each ended by
// progress=continue or progress=end (ffmpeg, "Advanced options").
type meter struct {
	pid    atomic.Int64 // 0 until the process has started
	frames atomic.Int64
	rss    atomic.Int64 // bytes now
	peak   atomic.Int64 // bytes, largest so far
	beat   chan<- struct{}
}

// read follows r to its end. A block counts as a sign of life only if something in
// it has moved: a hung ffmpeg may still print.
func (m *meter) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, 4096)
	var last, now uint64
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull { // an overlong line is read in parts, none of which matters
			return
		}
		key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte("="))
		switch string(key) {
		case "frame":
			if n, err := strconv.ParseInt(string(value), 10, 64); err == nil && n >= 0 {
				m.frames.Store(n)
			}
			now = mix(now, value)
		case "total_size", "out_time_us", "dup_frames", "drop_frames":
			now = mix(now, value)
		case "progress":
			m.sample()
			// The last block is printed before the process cleans up: with it the
			// peak is the final one.
			if now != last || string(value) == "end" {
				pulse(m.beat)
			}
			last, now = now, 0
		}
	}
}

// mix adds value to a fingerprint of a block (FNV-1a).
func mix(sum uint64, value []byte) uint64 {
	for _, c := range value {
		sum = (sum ^ uint64(c)) * 0x100000001b3
	}
	return sum*31 + 1
}

// sample reads how much memory the process holds.
func (m *meter) sample() {
	pid := m.pid.Load()
	if pid == 0 {
		return
	}
	now, peak := residentMemory(int(pid))
	if now > 0 {
		m.rss.Store(now)
	}
	if peak > m.peak.Load() {
		m.peak.Store(peak)
	}
}
