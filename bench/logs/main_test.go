package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"myrmidon/elb"
)

func TestLinesAreWhole(t *testing.T) {
	l := newLines()
	var names []string
	for _, f := range elb.Fields(elb.ALB) {
		names = append(names, f.Name)
	}
	seen := make(map[string]bool)
	for range 1000 {
		line := l.append(nil)
		var r elb.Record
		if err := r.Parse(elb.ALB, line); err != nil || len(line) != lineLength || r.Columns() != 34 {
			t.Fatalf("%d bytes, %d columns, %v: %s", len(line), r.Columns(), err, line)
		}
		if out := string(elb.Encoder{}.AppendJSON(nil, &r)); strings.Contains(out, `"malformed"`) || strings.Contains(out, `"extra"`) {
			t.Fatalf("%s gives %s", line, out)
		}
		if err := theUsualWay(line, names); err != nil {
			t.Fatal(err)
		}
		seen[string(line)] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different lines of 1,000", len(seen))
	}
}

func TestTargetsAreJudgedByTheMedian(t *testing.T) {
	good := round{
		Parse: parseResult{Ours: 1.3e6, Regexp: 2e4}, Lumberjack: shot{Wall: 1}, TCP: shot{Wall: 1}, Inflate: shot{Wall: 1},
		Memory: shot{RSS: 30},
	}
	slow, fat := good, good
	slow.Parse.Ours, slow.Lumberjack.Wall = 1e6, 1.2
	fat.Memory.RSS = 40
	for _, tt := range []struct {
		name   string
		rounds []round
		misses int
	}{
		{"one bad round of three changes nothing", []round{good, slow, good}, 0},
		{"two do: speed and ratio", []round{good, slow, slow}, 2},
		{"memory", []round{fat, fat, good}, 1},
	} {
		r := results{rounds: tt.rounds}
		var out strings.Builder
		if misses := r.print(&out, true); misses != tt.misses || strings.Count(out.String(), "MISSED") != tt.misses {
			t.Errorf("%s: %d misses, want %d:\n%s", tt.name, misses, tt.misses, out.String())
		}
		out.Reset()
		if misses := r.print(&out, false); misses != 0 || strings.Contains(out.String(), "at least") {
			t.Errorf("%s, not judging: %d misses:\n%s", tt.name, misses, out.String())
		}
	}
	r := results{rounds: []round{good}, large: shot{RSS: 50}}
	if misses := r.print(io.Discard, true); misses != 1 {
		t.Errorf("a large object of 50 MB resident: %d misses", misses)
	}
}

func TestWindowsAreAcknowledgedWhenWhole(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var n atomic.Int64
	address, err := listen(ctx, func(c net.Conn) error { return acknowledge(c, &n) })
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, window := range []uint32{3, 1} {
		frames := binary.BigEndian.AppendUint32([]byte("2W"), window)
		for i := range window {
			frames = binary.BigEndian.AppendUint32(append(frames, "2J"...), i+1)
			frames = append(binary.BigEndian.AppendUint32(frames, 2), "{}"...)
		}
		var answer [6]byte
		if _, err := c.Write(frames); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, answer[:]); err != nil {
			t.Fatal(err)
		}
		if got := string(answer[:2]); got != "2A" || binary.BigEndian.Uint32(answer[2:]) != window {
			t.Errorf("a window of %d is answered by %q", window, answer)
		}
	}
	if n.Load() != 4 {
		t.Errorf("%d lines were counted, of 4", n.Load())
	}
}
