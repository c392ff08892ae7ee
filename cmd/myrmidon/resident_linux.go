package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"log/slog"
	"os"
	"strconv"
	"syscall"
)

// giveBackPages lets the kernel take back those pages of the program's own file that were read so
// far. Most are of the beginning of packages that this command never calls: 8 of 17 MB that would
// be counted as resident while it runs. What is needed again is mapped again, from the kernel's
// memory as a rule. It takes some 2 ms, so it is for commands that run for long.
//
// MADV_DONTNEED makes a page what its file has (madvise(2)), so it must not reach memory that
// differs from its file, nor memory that another goroutine may have unmapped and mapped anew since
// its address was read. The program's own file stays where it is.
func giveBackPages(log *slog.Logger) { giveBack(log, "/proc/self/smaps", cleanMappings) }

// giveBackConstants is giveBackPages of what is no code: 3 MB of it, in a fifth of a millisecond,
// which a command that reads once can spare. It does not ask the kernel what differs from the file,
// which takes most of the time of giveBackPages: nothing does where the program is loaded at the
// address that it was linked for. Code can: debuggers write breakpoints.
func giveBackConstants(log *slog.Logger) {
	if linkedForItsAddress() {
		giveBack(log, "/proc/self/maps", constantMappings)
	}
}

// giveBack lets the kernel take back the mappings that find chooses of those that the process has.
func giveBack(log *slog.Logger, list string, find func(maps []byte, file string) []extent) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		log.Debug("the program's own file stays resident", "err", err)
		return
	}
	maps, err := os.ReadFile(list)
	if err != nil {
		log.Debug("the program's own file stays resident", "err", err)
		return
	}
	for _, m := range find(maps, program) {
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED); errno != 0 {
			log.Debug("the program's own file stays resident", "err", errno)
		}
	}
}

// linkedForItsAddress tells whether the program's file is an executable for one address (ET_EXEC of
// elf(5)): no loader has put addresses into its constants.
func linkedForItsAddress() bool {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	var header struct {
		Ident [elf.EI_NIDENT]byte
		Type  elf.Type
	}
	return binary.Read(f, binary.NativeEndian, &header) == nil && header.Type == elf.ET_EXEC
}

// constantMappings returns the mappings of a file, as proc_pid_maps(5) has them, that can only be
// read.
func constantMappings(maps []byte, file string) (out []extent) {
	for line := range bytes.Lines(maps) {
		fields := bytes.Fields(line)
		if len(fields) < 6 || string(fields[1]) != "r--p" || !bytes.HasSuffix(line, []byte(" "+file+"\n")) {
			continue
		}
		if m, ok := parseExtent(fields[0]); ok {
			out = append(out, m)
		}
	}
	return out
}

// extent is a part of the address space.
type extent struct{ start, end uintptr }

// cleanMappings returns the mappings of a file, as proc_pid_smaps(5) has them, that cannot be written
// and have no page that differs from the file, in memory or swapped out. Others may have such pages:
// of a position-independent program a loader wrote to them before it forbade that, and a debugger
// writes breakpoints. The file's name is as /proc/self/exe has it, which says the same as smaps does
// if the file was deleted or replaced, or has no name.
func cleanMappings(smaps []byte, file string) (out []extent) {
	var m extent
	clean := false
	for line := range bytes.Lines(smaps) {
		fields := bytes.Fields(line)
		switch {
		case len(fields) < 2:
		case fields[0][len(fields[0])-1] != ':': // the first line of a mapping
			var ok bool
			m, ok = parseExtent(fields[0])
			clean = ok && fields[1][0] == 'r' && fields[1][1] == '-' && bytes.HasSuffix(line, []byte(" "+file+"\n"))
		case string(fields[0]) == "Anonymous:":
			clean = clean && string(fields[1]) == "0"
		case string(fields[0]) == "Swap:": // comes behind Anonymous
			if clean && string(fields[1]) == "0" {
				out = append(out, m)
			}
		}
	}
	return out
}

// parseExtent parses 00400000-011aa000.
func parseExtent(text []byte) (e extent, ok bool) {
	from, to, _ := bytes.Cut(text, []byte("-"))
	start, err1 := strconv.ParseUint(string(from), 16, 64)
	end, err2 := strconv.ParseUint(string(to), 16, 64)
	return extent{uintptr(start), uintptr(end)}, err1 == nil && err2 == nil && start < end
}
