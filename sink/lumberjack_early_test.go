package sink_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"myrmidon/sink"
)

// readWindow reads a window without packing, and returns how many records it holds.
func readWindow(c io.Reader) (uint32, error) {
	var head [10]byte
	if _, err := io.ReadFull(c, head[:6]); err != nil {
		return 0, err
	}
	count := binary.BigEndian.Uint32(head[2:])
	for range count {
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return 0, err
		}
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[6:]))); err != nil {
			return 0, err
		}
	}
	return count, nil
}

// TestAnAcknowledgementOfTheWindowBeforeLosesNothing: the second of two comes when the next window
// of as many records is under way, and the peer dies before it has read that.
func TestAnAcknowledgementOfTheWindowBeforeLosesNothing(t *testing.T) {
	client, server := net.Pipe() // what is written is read, or not written
	died := make(chan error, 1)
	go func() {
		died <- func() error {
			count, err := readWindow(server)
			ack := binary.BigEndian.AppendUint32([]byte("2A"), count)
			if err == nil {
				_, err = server.Write(ack)
			}
			if err == nil {
				_, err = io.ReadFull(server, make([]byte, 1)) // of the next window
			}
			if err == nil {
				_, err = server.Write(ack)
			}
			if err == nil { // whoever reads the acknowledgement has noted it when it reads again
				_, err = server.Write([]byte("2A\x00\x00\x00\x00"))
			}
			return errors.Join(err, server.Close())
		}()
	}()
	s := newLumberjack(t, sink.LumberjackConfig{Conns: sink.Conns{Address: "x:1", Dial: func(context.Context, string, string) (net.Conn, error) {
		return client, nil
	}}})
	if err := s.Send(t.Context(), records(3)); err != nil {
		t.Fatal(err)
	}
	long := records(3)
	for i := range long {
		long[i].Data = []byte(`{"a":"` + strings.Repeat("x", 100<<10) + `"}`)
	}
	err := s.Send(t.Context(), long)
	var part *sink.PartialError
	if err == nil || errors.As(err, &part) {
		t.Errorf("Send of what the peer never read: %v, want an error of the whole batch", err)
	}
	if err := <-died; err != nil {
		t.Error(err)
	}
}
