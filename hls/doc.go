// Package hls writes HTTP Live Streaming playlists as RFC 8216 and its successor,
// draft-pantos-hls-rfc8216bis (cited here as "bis"), define them.
//
// A [Media] playlist lists the segments of one rendition; with IFramesOnly set, the
// keyframes of one. A [Multivariant] playlist (once called master) lists the variants
// of a presentation and the renditions that they share.
//
// # Promises
//
// What is written is valid or is not written: a value that the format cannot hold (a
// line break in a URI, a quote in a name, a group that is not there, a segment longer
// than the target duration) is an error that names the field. The same value gives
// the same bytes, always: attributes have a fixed order, lines end in "\n", and no
// version, tag or attribute is written that the content does not need.
//
// # Limits
//
// Text must be in Unicode normalisation form C (RFC 8216, section 4.1); that is left
// to the caller. URIs are written as they are given: make one from a path by
// (&url.URL{Path: path}).String(), which escapes spaces and puts "./" before a part
// with a colon. Keys, date ranges and the low-latency tags are not written.
//
// The package needs only the standard library. Its values hold no locks: they may be
// written from many goroutines as long as nobody changes them.
package hls
