package hls_test

import (
	"fmt"
	"os"

	"myrmidon/hls"
)

func ExampleMedia() {
	m := hls.Media{
		PlaylistType:        hls.VOD,
		IndependentSegments: true,
		Map:                 &hls.Map{URI: "init.mp4"},
		Segments: []hls.Segment{
			{URI: "00000.m4s", Duration: 4.004},
			{URI: "00001.m4s", Duration: 2.002},
		},
		EndList: true,
	}
	if _, err := m.WriteTo(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// #EXTM3U
	// #EXT-X-VERSION:6
	// #EXT-X-TARGETDURATION:4
	// #EXT-X-PLAYLIST-TYPE:VOD
	// #EXT-X-INDEPENDENT-SEGMENTS
	// #EXT-X-MAP:URI="init.mp4"
	// #EXTINF:4.004000,
	// 00000.m4s
	// #EXTINF:2.002000,
	// 00001.m4s
	// #EXT-X-ENDLIST
}

func ExampleMultivariant() {
	m := hls.Multivariant{
		IndependentSegments: true,
		Renditions: []hls.Rendition{
			{Type: hls.Audio, Group: "audio", Name: "English", Language: "en", Default: true, Channels: "2", URI: "audio/media.m3u8"},
		},
		Variants: []hls.Variant{{
			Bandwidth: 2_150_000, AverageBandwidth: 1_960_000, Codecs: "avc1.64001f,mp4a.40.2",
			Resolution: hls.Resolution{Width: 1280, Height: 720}, FrameRate: 24, Audio: "audio", URI: "720p/media.m3u8",
		}},
	}
	if _, err := m.WriteTo(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// #EXTM3U
	// #EXT-X-VERSION:4
	// #EXT-X-INDEPENDENT-SEGMENTS
	// #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",LANGUAGE="en",NAME="English",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio/media.m3u8"
	// #EXT-X-STREAM-INF:BANDWIDTH=2150000,AVERAGE-BANDWIDTH=1960000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=24.000,AUDIO="audio"
	// 720p/media.m3u8
}
