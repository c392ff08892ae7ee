// Package transcode turns a video file into an HLS stream: a ladder of renditions
// in fragmented MP4 (CMAF style), one audio rendition, and playlists.
//
// One run is one input file. Its life:
//
//	plan     sniff, identify and probe the file; [MakePlan] lays a grid of frames and
//	         segments over it and cuts the grid into chunks
//	encode   a chunk is decoded once and encoded at every size; audio is encoded
//	         once, whole, as an item of its own
//	verify   every segment is read back: hashes, box sums, sample tables, times that
//	         follow one another across segments and chunks, keyframes that decode
//	publish  init segments, media playlists and, last, the multivariant playlist
//
// # Source and destination
//
// The source is a file of this machine or an object of any store, which ffmpeg is then
// served piece by piece: see [ffmpeg.Serve]. Planning reads it once, whole; a chunk's
// job reads about the chunk, and the sound's the whole file where it is interleaved. A
// file is identified by its SHA-256, an object by its ETag and size, wherever it lies.
// A source that changes under a run is an error. The destination is any store. A request
// that fails is made again a few times before the job is.
//
// Workers need to read the source and to read, write and delete below the stream's
// folder; where listing is denied, old runs' notes (run-ID.json) stay.
//
// # Promises
//
// No frame is lost or doubled at a seam: a chunk is a range of frame numbers on one
// grid for the whole file, and a chunk that holds another number of frames fails.
// The same source, product and ffmpeg build give the same bytes, however many slots
// work on them: each ffmpeg runs single-threaded, and chunks never depend on slots.
// A repeated job finds its result by its name and does nothing.
//
// All objects of one version of a stream lie in a folder named by a hash of source,
// product and ffmpeg build:
//
//	talk/hls/master.m3u8                       replaced last, never cached
//	talk/hls/5be01c2f9a/1080p/media.m3u8       cached for ever, like all below
//	talk/hls/5be01c2f9a/1080p/init.mp4
//	talk/hls/5be01c2f9a/1080p/00000.m4s
//	talk/hls/5be01c2f9a/audio/…
//	talk/hls/5be01c2f9a/work/plan.json         what the run works from
//
// So an older stream stays playable until the new one is complete.
//
// # Limits
//
// HDR (PQ, HLG) is refused: it would need tone mapping. Only the first video stream
// and the default audio stream are used; subtitles and chapters are dropped. Containers
// without a reliable index (MPEG-TS and -PS, AVI, FLV, …) are one chunk, because a seek in
// them does not land on a known frame. Damaged input is an error, never concealed; only
// the frames before the first keyframe of a recording are left out.
package transcode
