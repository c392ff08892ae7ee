#!/bin/sh
# Runs every fuzz target of the module for the time given: scripts/fuzz.sh 20s
#
# go test fuzzes one target of one package at a time, so the targets are looked up
# first. It goes on after a target that fails, and fails at the end.
set -eu

cd "$(dirname "$0")/.."
go=${GO:-go}
fuzztime=${1:-20s}

# One "package target" a line: targets are found in the files that go builds.
# shellcheck disable=SC2016 # the dollars are the template's
targets=$("$go" list -f '{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}' ./... | while read -r package file; do
	[ -n "$file" ] || continue
	sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$package \1|p" "$file"
done)
if [ -z "$targets" ]; then
	echo "fuzz: found no fuzz target at all" >&2
	exit 1
fi

failed=
while read -r package target; do
	echo "fuzz: $package $target for $fuzztime"
	"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$package" </dev/null || failed="$failed $package.$target"
done <<EOF
$targets
EOF
if [ -n "$failed" ]; then
	echo "fuzz: failed:$failed" >&2
	exit 1
fi
