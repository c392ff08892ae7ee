package myrmidon_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	// What the outside module imports: a cached result ends when they change.
	_ "myrmidon/haproxy"
	_ "myrmidon/hls"
	_ "myrmidon/object"
)

// TestAnOutsideModuleImportsThePublicPackages builds and runs testdata/outside, a
// module of its own, as a user's would be: nothing that a public package exposes may
// come from an internal one, and go.mod must not ask for what is not there. It uses
// what the module cache holds; the network is off.
func TestAnOutsideModuleImportsThePublicPackages(t *testing.T) {
	// So does it when the outside module changes: go test notes what is read here.
	if _, err := os.ReadDir(filepath.Join("testdata", "outside")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "outside")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".")
	build.Dir = filepath.Join("testdata", "outside")
	build.Env = append(os.Environ(), "GOPROXY=off", "GOWORK=off", "GOFLAGS=-mod=readonly -trimpath", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build in %s: %v\n%s\nif it asks for an update, run go mod tidy in that folder", build.Dir, err, out)
	}
	run := exec.CommandContext(t.Context(), program, filepath.Join(dir, "store"))
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("outside: %v\n%s", err, out)
	}
	want := `#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:3
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-MAP:URI="init.mp4"
#EXTINF:1.000000,
00000.m4s
#EXTINF:2.000000,
00001.m4s
#EXTINF:3.000000,
00002.m4s
#EXT-X-ENDLIST
# pxname,svname,stot,status,type,
app,web,42,"DOWN 1/2, UP 1/2",2,

read lb, PID 7, 52 bytes
web is UP, 1 processes, rate 0 true, 0 failed
`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("what it prints (-want +got):\n%s", diff)
	}
}
