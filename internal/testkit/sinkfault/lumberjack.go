package sinkfault

import (
	"bufio"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

// Window is what a Lumberjack server does with one window. The zero value takes all and
// acknowledges it.
type Window struct {
	// Die closes the connection: before the window's record Keep is read, or, if Keep is
	// the window's length or more, when all is read and kept.
	Die bool
	// Keep is how many records are kept where Die is set.
	Keep int
	// Acks are sent, at once, before the connection dies or instead of the one that is
	// due: in part, twice, too many. Numbers above the window's length become that.
	Acks []uint32
	// Busy is how many acknowledgements of 0 come first, a second apart.
	Busy int
	// Late is how long the acknowledgement takes after that.
	Late time.Duration
	// Silent keeps the records and says nothing.
	Silent bool
}

// Lumberjack is a server of version 2 of the protocol.
type Lumberjack struct {
	Kept
	server
	script  func(window int) Window
	windows chan int // holds the number of the next window
}

// NewLumberjack serves l until Close. script, unless it is nil, says what happens to each
// window; windows are counted from 0 over all connections.
func NewLumberjack(l net.Listener, script func(window int) Window) *Lumberjack {
	s := &Lumberjack{script: script, windows: make(chan int, 1)}
	s.windows <- 0
	s.start(l, func(c net.Conn) {
		in := bufio.NewReaderSize(c, 64<<10)
		for s.window(c, in) == nil {
		}
	})
	return s
}

// Windows returns how many have begun.
func (s *Lumberjack) Windows() int {
	n := <-s.windows
	s.windows <- n
	return n
}

var errDie = errors.New("the script ends the connection")

func (s *Lumberjack) window(c net.Conn, in *bufio.Reader) error {
	kind, count, err := frame(in)
	if err != nil || kind != 'W' {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	number := <-s.windows
	s.windows <- number + 1
	var w Window
	if s.script != nil {
		w = s.script(number)
	}
	limit := count
	if w.Die {
		limit = min(limit, uint32(w.Keep))
	}
	docs, err := s.records(in, nil, limit)
	s.add(docs...)
	if err != nil {
		return err
	}
	if w.Silent {
		_, err := io.Copy(io.Discard, in)
		return errors.Join(err, errDie)
	}
	var out []byte
	for range w.Busy {
		if _, err := c.Write(ack(nil, 0)); err != nil {
			return err
		}
		time.Sleep(time.Second)
	}
	time.Sleep(w.Late)
	for _, n := range w.Acks {
		out = ack(out, min(n, count))
	}
	if w.Acks == nil && !w.Die {
		out = ack(out, count)
	}
	if _, err := c.Write(out); err != nil {
		return err
	}
	if w.Die {
		return errDie
	}
	return nil
}

// records reads frames until docs holds limit records.
func (s *Lumberjack) records(in *bufio.Reader, docs []string, limit uint32) ([]string, error) {
	for uint32(len(docs)) < limit {
		kind, n, err := frame(in)
		if err != nil {
			return docs, err
		}
		switch kind {
		case 'J':
			if n != uint32(len(docs)+1) {
				return docs, errors.New("the records are not numbered from 1")
			}
			var size [4]byte
			if _, err := io.ReadFull(in, size[:]); err != nil {
				return docs, err
			}
			doc := make([]byte, binary.BigEndian.Uint32(size[:]))
			if _, err := io.ReadFull(in, doc); err != nil {
				return docs, err
			}
			docs = append(docs, string(doc))
		case 'C':
			packed := io.LimitReader(in, int64(n))
			unpacked, err := zlib.NewReader(packed)
			if err != nil {
				return docs, err
			}
			docs, err = s.records(bufio.NewReader(unpacked), docs, limit)
			if err != nil {
				return docs, err
			}
			if _, err := io.Copy(io.Discard, packed); err != nil {
				return docs, err
			}
		default:
			return docs, errors.New("a frame of no known kind")
		}
	}
	return docs, nil
}

// frame reads the beginning of one: what it is, and its number or length.
func frame(in io.Reader) (byte, uint32, error) {
	var b [6]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return 0, 0, err
	}
	if b[0] != '2' {
		return 0, 0, errors.New("not version 2")
	}
	return b[1], binary.BigEndian.Uint32(b[2:]), nil
}

func ack(dst []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(append(dst, '2', 'A'), n) }
