package object_test

import (
	"context"
	"fmt"
	"strings"

	"myrmidon/object"
)

func ExampleStore() {
	ctx := context.Background()
	var store object.Store = object.NewMem() // or object.NewDir("out")
	for _, key := range []string{"talk/hls/master.m3u8", "talk/hls/1080p/00000.m4s"} {
		err := store.Put(ctx, key, strings.NewReader("bytes"), 5, object.Attrs{CacheControl: "no-cache"})
		if err != nil {
			fmt.Println(err)
		}
	}
	for info, err := range store.List(ctx, "talk/", "") {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(info.Key, info.Size, info.ContentType)
	}
	// Output:
	// talk/hls/1080p/00000.m4s 5 video/iso.segment
	// talk/hls/master.m3u8 5 application/vnd.apple.mpegurl
}
