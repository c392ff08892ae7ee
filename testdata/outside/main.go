// Outside is a program of somebody else: it imports Myrmidon's public packages and
// nothing more. It lists a stream's files from a store and writes a playlist of them, and merges the
// statistics of two processes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
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
	return m.Table().View(haproxy.Filter{}).WriteCSV(w)
}
