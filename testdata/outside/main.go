// Outside is a program of somebody else: it imports Myrmidon's public packages and
// nothing more. It lists a stream's files from a store and writes a playlist of them, merges the
// statistics of two processes, and polls one.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	// A path without a dot: gofumpt would take it for the standard library's.
	"myrmidon/haproxy"
	"myrmidon/hls"
	"myrmidon/object"
)

func main() {
	if err := run(context.Background(), os.Stdout, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "outside:", err)
		os.Exit(1)
	}
}

// run puts three segments into the folder dir and writes the playlist of what the
// store lists then.
func run(ctx context.Context, w io.Writer, dir string) error {
	folder, err := object.NewDir(dir)
	if err != nil {
		return err
	}
	var store object.Store = folder
	for i := range 3 {
		key := fmt.Sprintf("talk/%05d.m4s", i)
		body := strings.Repeat("x", i+1)
		if err := store.Put(ctx, key, strings.NewReader(body), int64(len(body)), object.Attrs{}); err != nil {
			return err
		}
	}
	media := hls.Media{PlaylistType: hls.VOD, Map: &hls.Map{URI: "init.mp4"}, EndList: true}
	for info, err := range store.List(ctx, "talk/", "") {
		if err != nil {
			return err
		}
		media.Segments = append(media.Segments, hls.Segment{
			URI: strings.TrimPrefix(info.Key, "talk/"), Duration: float64(info.Size),
		})
	}
	if _, err := media.WriteTo(w); err != nil {
		return err
	}
	return statistics(w)
}

// statistics merges what two HAProxy processes say.
func statistics(w io.Writer) error {
	var m haproxy.Merger
	for _, state := range []string{"UP", "DOWN"} {
		t, err := haproxy.ParseCSV([]byte("# pxname,svname,stot,status,type,\napp,web,21," + state + ",2,\n\n"))
		if err != nil {
			return err
		}
		if err := m.Add(t); err != nil {
			return err
		}
	}
	if err := m.Table().View(haproxy.Filter{}).WriteCSV(w); err != nil {
		return err
	}
	return watch(w)
}

// watch polls a process, twice: here one that answers the same each time.
func watch(w io.Writer) error {
	dir, err := os.MkdirTemp("", "outside")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	target := haproxy.Target{Name: "lb", Address: filepath.Join(dir, "s")}
	l, err := net.Listen("unix", target.Address)
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1024))
			io.WriteString(conn, "Name: HAProxy\nVersion: 2.6.12\nPid: 7\nUptime_sec: 60\nStart_time_sec: 5\n\n"+
				"# pxname,svname,stot,status,type,\napp,web,21,UP,2,\n\n")
			conn.Close()
		}
	}()
	ctx := context.Background()
	replies, err := haproxy.Read(ctx, target)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "read %s, PID %d, %d bytes\n", replies[0].Process.Target, replies[0].Process.PID, len(replies[0].CSV))
	c, err := haproxy.New(haproxy.Config{Targets: []haproxy.Target{target}})
	if err != nil {
		return err
	}
	defer c.Close()
	for range 2 {
		if err := c.Poll(ctx); err != nil {
			return err
		}
	}
	c.Use(func(s *haproxy.Snapshot) {
		rate, ok := s.Rate(0, s.Table.Column("stot"))
		fmt.Fprintf(w, "%s is %s, %d processes, rate %g %v, %d failed\n", s.Table.Server(0), s.Table.State(0), s.Table.Processes(0), rate, ok, s.Failed())
	})
	return nil
}
