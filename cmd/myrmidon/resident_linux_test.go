package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"testing"
)

func TestCleanFilesAreThoseThatNobodyWroteTo(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 fe:00 7   /bin/myrmidon
Size:               1024 kB
Anonymous:             0 kB
00500000-00600000 r--p 00100000 fe:00 7   /bin/myrmidon
Anonymous:             4 kB
00600000-00700000 r--p 00200000 fe:00 7   /bin/myrmidon
Anonymous:             0 kB
00700000-00800000 rw-p 00300000 fe:00 7   /bin/myrmidon
Anonymous:             0 kB
00800000-00900000 r--p 00000000 00:00 0
Anonymous:             0 kB
00900000-00a00000 r-xp 00000000 00:00 0   [vdso]
Anonymous:             0 kB
VmFlags: rd ex
`
	if got, want := cleanFiles([]byte(smaps)), []extent{{0x400000, 0x500000}, {0x600000, 0x700000}}; !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// residentOfFiles is what /proc/self/status has of it, in kB.
func residentOfFiles(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == "RssFile:" {
			kB, err := strconv.Atoi(string(fields[1]))
			if err != nil {
				t.Fatal(err)
			}
			return kB
		}
	}
	t.Fatalf("no RssFile in %s", data)
	return 0
}

func TestPagesOfTheProgramAreGivenBack(t *testing.T) {
	before := residentOfFiles(t)
	giveBackPages(slog.New(slog.NewTextHandler(io.Discard, nil)))
	if after := residentOfFiles(t); after > before*3/4 {
		t.Errorf("%d kB of files are resident, %d before", after, before)
	}
}
