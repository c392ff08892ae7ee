// Package playback holds no code: its tests play streams as viewers do.
//
// They make clips, transcode them with the built command, serve what it wrote over
// HTTP and play it to the end in two players that share no code with it or with each
// other: hls.js in headless Chromium, and ffmpeg. What they prove is what no look at
// the files can:
//
//   - every request of a player is answered, by the right content type, from another
//     origin too;
//   - the buffer has one range from 0 to the end: no gap where chunks meet;
//   - each frame arrives: the browser's decoder and ffmpeg count exactly those that the
//     source has, in each rendition, at constant distances;
//   - sound is decoded along, without a gap;
//   - every rendition can be switched to while playing, and shows a picture;
//   - neither player reports an error or a warning.
//
// The tests need ffmpeg, Chromium (or Chrome, with H.264 and AAC) and Node.js, and
// fail without them; `make test` installs them. With -short they are skipped. Node.js
// only drives the browser (play.mjs); package-lock.json pins what it uses. With
// MYRMIDON_SHARED set to a folder with media/*.mp4 they play those clips as well.
//
// Limits: the browser has no display and no sound card, so frames that it drops for
// lack of time are bounded loosely, and lip-sync is not seen.
package playback
