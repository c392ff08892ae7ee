// Package ffmpeg runs ffmpeg and ffprobe as what they are: large parsers in C that
// are fed hostile files. Every process gets an argument list (never a shell), an
// empty environment, a private temporary folder, resource limits, a process group
// of its own that is killed whole, and exactly one demuxer and one way to read, chosen
// after a look at the file's first bytes, so that a playlist that calls itself
// talk.mp4 opens nothing. What does not lie on this machine is read through a server on
// loopback that knows one object and is ffmpeg's only way out: see [Serve].
//
// The package also reads and writes the little of ISO BMFF (ISO/IEC 14496-12) that
// stitching needs: it takes a fragmented file apart, patches decode times, and
// checks that sample tables and box sizes add up.
//
// It needs ffmpeg 5.1 or later with libx264 and aac; [Find] says what is missing.
package ffmpeg
