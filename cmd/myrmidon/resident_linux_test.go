package main

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestCleanMappingsAreThoseThatNobodyWroteTo(t *testing.T) {
	want := []extent{{0x400000, 0x500000}, {0x600000, 0x700000}}
	for _, file := range []string{"/bin/myrmidon", "/opt/my tools/myrmidon", "/bin/myrmidon (deleted)", "/memfd:myrmidon (deleted)"} {
		smaps := strings.ReplaceAll(`00400000-00500000 r-xp 00000000 fe:00 7   FILE
Size:               1024 kB
Anonymous:             0 kB
Swap:                  0 kB
00500000-00600000 r--p 00100000 fe:00 7   FILE
Anonymous:             4 kB
Swap:                  0 kB
00600000-00700000 r--p 00200000 fe:00 7   FILE
Anonymous:             0 kB
Swap:                  0 kB
SwapPss:               0 kB
00700000-00800000 rw-p 00300000 fe:00 7   FILE
Anonymous:             0 kB
Swap:                  0 kB
00800000-00900000 r--p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
00900000-00a00000 r-xp 00000000 00:00 0   [vdso]
Anonymous:             0 kB
Swap:                  0 kB
00a00000-00b00000 r--p 00400000 fe:00 7   FILE
Anonymous:             0 kB
Swap:                  4 kB
00b00000-00c00000 r-xp 00000000 fe:00 8   /lib/libc.so.6
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex
`, "FILE", file)
		if got := cleanMappings([]byte(smaps), file); !slices.Equal(got, want) {
			t.Errorf("%s: %x, want %x", file, got, want)
		}
	}
}

func TestConstantMappingsAreThoseThatCanOnlyBeRead(t *testing.T) {
	for _, file := range []string{"/bin/myrmidon", "/opt/my tools/myrmidon", "/bin/myrmidon (deleted)"} {
		maps := strings.ReplaceAll(`00400000-00500000 r-xp 00000000 fe:00 7   FILE
00500000-00600000 r--p 00100000 fe:00 7   FILE
00600000-00700000 rw-p 00200000 fe:00 7   FILE
00700000-00800000 r--s 00300000 fe:00 7   FILE
00800000-00900000 r--p 00000000 00:00 0
00900000-00a00000 r--p 00000000 fe:00 8   /lib/libc.so.6
00a00000-00b00000 r--p 00000000 fe:00 9   /oldFILE
`, "FILE", file)
		if got, want := constantMappings([]byte(maps), file), []extent{{0x500000, 0x600000}}; !slices.Equal(got, want) {
			t.Errorf("%s: %x, want %x", file, got, want)
		}
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

// mapConstants makes all constants of this program resident.
func mapConstants(t *testing.T) {
	t.Helper()
	giveBack(slog.New(slog.DiscardHandler), "/proc/self/maps", func(maps []byte, file string) []extent {
		for _, m := range constantMappings(maps, file) {
			const populateRead = 22 // MADV_POPULATE_READ, of Linux 5.14
			if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, populateRead); errno != 0 {
				t.Skip("this kernel cannot be asked to map pages: ", errno)
			}
		}
		return nil
	})
}

func TestPagesOfTheProgramAreGivenBack(t *testing.T) {
	for name, give := range map[string]func(*slog.Logger){"all": giveBackPages, "constants": giveBackConstants} {
		t.Run(name, func(t *testing.T) {
			mapConstants(t)
			before := residentOfFiles(t)
			give(slog.New(slog.DiscardHandler))
			if after := residentOfFiles(t); after > before*3/4 {
				t.Errorf("%d kB of files are resident, %d before", after, before)
			}
		})
	}
}
