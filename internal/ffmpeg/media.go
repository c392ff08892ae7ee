package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Media is what ffmpeg reads from: a file of this machine ([Local]), or an object that
// lies elsewhere and is handed to it piece by piece ([Serve]).
type Media struct {
	name      string // for people
	url       string // as ffmpeg opens it
	protocols string // that it needs for that
	path      string // of a file; "" if it is served
	server    *server
}

// Local is the file at path. A relative path is made absolute, because processes run in
// folders of their own. The path may begin with a dash and hold colons, newlines or
// anything else: after "file:" ffmpeg takes it as it is.
func Local(path string) *Media {
	m := &Media{name: filepath.Base(path), path: path, protocols: "file"}
	if abs, err := filepath.Abs(path); err == nil {
		m.url = "file:" + abs
	} else {
		m.url = "file:" + path
	}
	return m
}

// Name is what people call it: a file's base name, or what [Serve] was given.
func (m *Media) Name() string { return m.name }

// Err is why bytes could not be had from where a served object lies, or nil. It is the
// first such error; all later requests of ffmpeg are refused.
func (m *Media) Err() error {
	if s := m.served(); s != nil {
		return s.failed()
	}
	return nil
}

// served is m's server, or nil.
func (m *Media) served() *server {
	if m == nil {
		return nil
	}
	return m.server
}

// Close ends the serving and waits until the last of it is over. A file needs no Close.
func (m *Media) Close() error {
	if m.server == nil {
		return nil
	}
	return m.server.close()
}

// Sniff is [Sniff] for the first bytes of m. Its errors name it; those that tell of the
// content are permanent.
func (m *Media) Sniff(ctx context.Context) (Container, error) {
	if m.server == nil {
		return SniffFile(m.path)
	}
	head := make([]byte, min(sniffLen, m.server.size))
	if _, err := m.server.reader(ctx).ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return Container{}, fmt.Errorf("ffmpeg: read the first bytes of %s: %w", m.name, err)
	}
	c, not := sniff(head)
	if not != nil {
		return Container{}, not.error(m.name)
	}
	return c, nil
}

// size is the number of bytes of m.
func (m *Media) size() (int64, error) {
	if m.server != nil {
		return m.server.size, nil
	}
	info, err := os.Stat(m.path)
	if err != nil {
		return 0, openError(m.path, err)
	}
	return info.Size(), nil
}

// topLevel looks at the headers of m's boxes.
func (m *Media) topLevel(ctx context.Context) (topLevel, error) {
	if m.server != nil {
		return topLevelOf(m.server.reader(ctx), m.server.size, maxServedBoxes)
	}
	return scanTopLevel(m.path)
}

// Input returns the arguments that open the file at path: see [Container.From].
func (c Container) Input(path string) []string { return c.From(Local(path)) }

// From returns the arguments that open m with c's demuxer and the protocols that m
// needs, and nothing else; the last two are "-i" and the address. Options of the input
// (-ss, -threads, …) go before them. A command with these arguments has m as
// [Command.Media].
func (c Container) From(m *Media) []string {
	args := []string{"-protocol_whitelist", m.protocols, "-format_whitelist", c.Name, "-f", c.Name}
	if c.Name == "mov" {
		// The defaults, spelled out: a track's data may lie in another file (dref),
		// named by a relative or absolute path. Neither is followed.
		args = append(args, "-enable_drefs", "0", "-use_absolute_path", "0")
	}
	if m.server != nil {
		args = append(args, serverOptions...)
	}
	return append(args, "-i", m.url)
}
