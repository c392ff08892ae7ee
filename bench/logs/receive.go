package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync/atomic"

	"myrmidon/bench/internal/role"
)

// A receiver is the process that is shipped to.
type receiver struct {
	Lumberjack, TCP string // host:port

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startReceiver starts it. The caller stops it.
func startReceiver(ctx context.Context) (*receiver, error) {
	cmd, err := role.Command(ctx, "receive")
	if err != nil {
		return nil, err
	}
	r := &receiver{cmd: cmd}
	if r.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r.out = bufio.NewReader(out)
	line, err := r.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, r)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receive: %w", err), r.stop())
	}
	return r, nil
}

// count returns how many lines have come since it was asked last.
func (r *receiver) count() (n int64, err error) {
	if _, err := io.WriteString(r.in, "\n"); err != nil {
		return 0, err
	}
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		return 0, fmt.Errorf("receive: %w", err)
	}
	return n, json.Unmarshal(line, &n)
}

func (r *receiver) stop() error { return errors.Join(r.in.Close(), r.cmd.Wait()) }

// receive is the other side: it prints its addresses, and a count for each line of in, until
// that ends.
func receive(ctx context.Context, in io.Reader, out io.Writer) error {
	var n atomic.Int64
	lumberjack, err := listen(ctx, func(c net.Conn) error { return acknowledge(c, &n) })
	if err != nil {
		return err
	}
	tcp, err := listen(ctx, func(c net.Conn) error { return countLines(c, &n) })
	if err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	if err := answers.Encode(receiver{Lumberjack: lumberjack, TCP: tcp}); err != nil {
		return err
	}
	asks := bufio.NewScanner(in)
	for asks.Scan() {
		if err := answers.Encode(n.Swap(0)); err != nil {
			return err
		}
	}
	return asks.Err()
}

// listen serves connections on loopback until the process ends, and returns the address.
func listen(ctx context.Context, serve func(net.Conn) error) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = serve(c) // lines that are missing then are counted as missing
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String(), nil
}

// countLines reads to the end.
func countLines(c net.Conn, n *atomic.Int64) error {
	buf := make([]byte, 256<<10)
	for {
		k, err := c.Read(buf)
		n.Add(int64(bytes.Count(buf[:k], []byte("\n"))))
		if err != nil {
			return err
		}
	}
}

// acknowledge reads windows of Lumberjack, version 2, that are not packed, and acknowledges
// each when all of it has come.
func acknowledge(c net.Conn, n *atomic.Int64) error {
	in := bufio.NewReaderSize(c, 256<<10)
	var head [10]byte
	var window, seen uint32
	for {
		if _, err := io.ReadFull(in, head[:6]); err != nil {
			return err
		}
		switch string(head[:2]) {
		case "2W":
			window, seen = binary.BigEndian.Uint32(head[2:6]), 0
			continue
		case "2J":
		default:
			return fmt.Errorf("a frame %q", head[:2])
		}
		if _, err := io.ReadFull(in, head[6:10]); err != nil {
			return err
		}
		if _, err := in.Discard(int(binary.BigEndian.Uint32(head[6:10]))); err != nil {
			return err
		}
		if seen++; seen < window {
			continue
		}
		n.Add(int64(window))
		answer := binary.BigEndian.AppendUint32([]byte("2A"), binary.BigEndian.Uint32(head[2:6]))
		if _, err := c.Write(answer); err != nil {
			return err
		}
	}
}
