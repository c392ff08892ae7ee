package haproxy

import (
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// fenced returns whole pages of so many bytes or more. The pages before and behind them cannot be
// touched: who does ends the test.
func fenced(t *testing.T, size int) []byte {
	t.Helper()
	page := syscall.Getpagesize()
	size = (size + page - 1) / page * page
	mapped, err := syscall.Mmap(-1, 0, size+2*page, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(mapped) })
	within := mapped[page : page+size : page+size]
	if err := syscall.Mprotect(within, syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	return within
}

// words are those that the memory holds.
func words[T int64 | uint64](memory []byte) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)/8)
}

// anyBytes are rows of a kind: what is likely in them differs.
func anyBytes(random *rand.Rand, n int) []byte {
	from := []string{
		",,,,1,2\n", "0123456789", "x", "-,,,0123456789", ",1,2,3,4,5", ",,,,,,,,,,\n", "123456789,,,", `abcd,,,"`, "\n", ",",
	}[random.IntN(10)]
	b := make([]byte, n)
	for i := range b {
		b[i] = from[random.IntN(len(from))]
		if random.IntN(64) == 0 {
			b[i] = byte(random.IntN(256))
		}
	}
	return b
}

// TestRowsAreReadWithinTheirMemory has dumps, cells and a mask that begin and end where their
// memory does.
func TestRowsAreReadWithinTheirMemory(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	memory := fenced(t, 2*maxBlocks*block)
	cellsAt := words[int64](fenced(t, 8*(maxAtOnce+1)))
	maskAt := words[uint64](fenced(t, 8*(maxAtOnce/64+2)))
	// Of the mask only the words that a row at once has are there.
	mask := (*[maxColumns / 64]uint64)(unsafe.Pointer(&maskAt[len(maskAt)-(maxAtOnce/64+2)]))
	atOnce, rounds := 0, 16_000
	if testing.Short() {
		rounds = 2000
	}
	for round := range rounds {
		size := 1 + random.IntN(len(memory)*3/4)
		if round%2 == 0 {
			size = 1 + random.IntN(3*block)
		}
		raw := memory[:size:size]
		if round%4 < 2 {
			raw = memory[len(memory)-size:]
		}
		copy(raw, anyBytes(random, size))
		raw[size-1] = '\n'
		if end := random.IntN(size); random.IntN(2) == 0 {
			for i, c := range raw[:end] {
				if c == '\n' || c == '"' {
					raw[i] = ','
				}
			}
			raw[end] = '\n'
		}
		row, _, _ := strings.Cut(string(raw), "\n")
		trailing := random.IntN(2) == 0
		columns := min(1+strings.Count(row, ","), maxAtOnce)
		if trailing {
			columns = max(columns-1, 1)
		}
		if random.IntN(8) == 0 {
			columns = 1 + random.IntN(maxAtOnce)
		}
		table := Table{raw: raw, schema: &schema{trailing: trailing}}
		cells := cellsAt[len(cellsAt)-columns-1:][:columns]
		if random.IntN(4) == 0 {
			cells = cellsAt[len(cellsAt)-columns:] // not even one cell more
		}
		next, n, ok := table.readRowAtOnce(cells, 0, mask)
		if !ok {
			continue
		}
		atOnce++
		want, wantMask := make([]int64, columns), [maxColumns / 64]uint64{}
		wantNext, wantN, err := table.readRowByField(want, 0, &wantMask)
		if err != nil || next != wantNext || n != wantN || !slices.Equal(cells[:n], want[:n]) {
			t.Fatalf("%d columns, trailing %t: %q\ngives    %x up to %d\nwant %v %x up to %d", columns, trailing, raw, cells[:n], next, err, want[:wantN], wantNext)
		}
		if used := (columns + 63) / 64; !slices.Equal(mask[:used], wantMask[:used]) {
			t.Fatalf("%d columns: %q\nhas the columns %x\nwant            %x", columns, row, mask[:used], wantMask[:used])
		}
	}
	if hasReadFields && atOnce < rounds/8 {
		t.Errorf("only %d rows were read at once", atOnce)
	}
}

// TestADumpEndsWithItsMemory parses dumps whose last rows, of all lengths, are the last of their
// memory.
func TestADumpEndsWithItsMemory(t *testing.T) {
	const header = "# pxname,svname,type,a,b,c,d,e,f,\n"
	memory := fenced(t, 2*maxBlocks*block)
	var table Table
	for length := 20; length < maxBlocks*block+20; length++ {
		row := "p,s,2,12345678,-1,,7,1234567890123456,"
		if length >= len(row)+2 {
			row += strings.Repeat("x", length-len(row)-1) + ","
		} else {
			row = "p,s,2,,,,,," + strings.Repeat("7", length-12) + ","
		}
		dump := header + row + "\n" + row + "\n\n"
		if len(dump) > len(memory) {
			break
		}
		raw := memory[len(memory)-len(dump):]
		copy(raw, dump)
		if err := table.ParseCSV(raw); err != nil {
			t.Fatal(err)
		}
		if got := csvOf(t, &table); got != dump {
			t.Fatalf("got\n%s\nwant\n%s", got, dump)
		}
	}
}
