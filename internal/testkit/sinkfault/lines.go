package sinkfault

import (
	"bufio"
	"net"
	"strings"
	"time"
)

// Peer is what a server of lines does with one connection. The zero value reads to the end
// and then closes.
type Peer struct {
	// Lines is after how many lines the server closes, if it is above 0: with unread
	// bytes that resets the connection.
	Lines int
	// Slow is a pause after each line.
	Slow time.Duration
	// Stays keeps the connection open after the client's end.
	Stays bool
}

// Lines is a server that reads lines over TCP, as Logstash's tcp input does.
type Lines struct {
	Kept
	server
	ended chan struct{}
}

// NewLines serves l until Close. script, unless it is nil, says what happens to each
// connection, counted from 0.
func NewLines(l net.Listener, script func(connection int) Peer) *Lines {
	s := &Lines{ended: make(chan struct{})}
	s.start(l, func(c net.Conn) {
		var p Peer
		if script != nil {
			p = script(s.Connections() - 1)
		}
		in := bufio.NewReaderSize(c, 64<<10)
		for n := 1; ; n++ {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			s.add(strings.TrimSuffix(line, "\n"))
			if n == p.Lines {
				return
			}
			time.Sleep(p.Slow)
		}
		if p.Stays {
			<-s.ended
		}
	})
	return s
}

// Close ends the server and waits for its goroutines.
func (s *Lines) Close() {
	close(s.ended)
	s.server.Close()
}
