package haproxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"myrmidon/internal/testkit/long"
)

// A row that is read at once is held against the same row, read field by field.

// checkRow reads a row of so many columns that others follow, and tells whether at once.
func checkRow(t *testing.T, row string, columns int, trailing bool) bool {
	t.Helper()
	const before = "a,b\n"
	table := Table{raw: []byte(before + row + "\n" + strings.Repeat("1,2,3,4,5\n", 10)), schema: &schema{trailing: trailing}}
	room := make([]int64, columns+len(row)+64)
	for i := range room {
		room[i] = empty
	}
	cells, want := room[:columns:columns+1], make([]int64, columns)
	var mask, wantMask [maxColumns / 64]uint64
	for i := range mask {
		mask[i] = ^uint64(0) // of the row before
	}
	next, n, ok := table.readRowAtOnce(cells, len(before), &mask)
	if i := slices.IndexFunc(room[columns+1:], func(c int64) bool { return c != empty }); i >= 0 {
		t.Fatalf("%d columns: %q was written to cell %d", columns, row, columns+1+i)
	}
	if !ok {
		return false
	}
	wantNext, wantN, err := table.readRowByField(want, len(before), &wantMask)
	if err != nil || next != wantNext || n != wantN || !slices.Equal(cells[:n], want[:n]) {
		t.Fatalf("%d columns, trailing %t: %q\ngives    %x up to %d\nwant %v %x up to %d", columns, trailing, row, cells[:n], next, err, want[:wantN], wantNext)
	}
	if words := (columns + 63) / 64; !slices.Equal(mask[:words], wantMask[:words]) {
		t.Fatalf("%d columns: %q\nhas the columns %x\nwant            %x", columns, row, mask[:words], wantMask[:words])
	}
	return true
}

func TestRowsAtOnceAreThoseByField(t *testing.T) {
	long.Test(t)
	random := rand.New(rand.NewPCG(1, 2))
	field := func() string {
		switch random.IntN(12) {
		case 0, 1, 2:
			return ""
		case 3, 4, 5:
			return fmt.Sprint(random.IntN(10))
		case 6:
			return strings.Repeat("0", 1+random.IntN(3)) + fmt.Sprint(random.IntN(3))
		case 7:
			return strings.Repeat("x", 1+random.IntN(90))
		case 8:
			return "-" + "0123456789x/:"[random.IntN(13):][:random.IntN(2)] + strings.Repeat("3", random.IntN(3)*random.IntN(9))
		case 9:
			return fmt.Sprint(random.Uint64() >> random.IntN(64))
		case 10: // nearly a number
			b := []byte(fmt.Sprint(random.Uint64() >> random.IntN(64)))
			b[random.IntN(len(b))] = byte(random.IntN(256))
			return strings.Map(func(r rune) rune {
				if r == ',' || r == '\n' || r == '"' && random.IntN(8) > 0 {
					return '.'
				}
				return r
			}, string(b))
		default:
			return "127.0.0.1:8080"[:1+random.IntN(14)]
		}
	}
	atOnce := 0
	for range 30_000 {
		columns := 1 + random.IntN(140)
		fields := make([]string, columns)
		run := 0 // columns of digits
		for i := range fields {
			if run == 0 && random.IntN(12) == 0 {
				run = random.IntN(40)
			}
			if run > 0 {
				run--
				fields[i] = fmt.Sprint(random.IntN(10))
			} else {
				fields[i] = field()
			}
		}
		row := strings.Join(fields, ",")
		if row == "" {
			continue // a blank line
		}
		trailing := random.IntN(2) == 0
		if trailing {
			row += ","
		}
		switch random.IntN(40) {
		case 0:
			row += "," // one more
		case 1:
			row = row[:len(row)-1]
		case 2:
			row += "5" // behind the last comma
		case 3:
			row = strings.Repeat("7,", columns+random.IntN(50))
		}
		if row != "" && checkRow(t, row, columns, trailing) {
			atOnce++
		}
	}
	if hasReadFields && atOnce < 10_000 {
		t.Errorf("only %d rows were read at once", atOnce)
	}
}

func TestUsualRowsAreReadAtOnce(t *testing.T) {
	if !hasReadFields {
		t.Skip("this processor reads field by field")
	}
	for _, version := range []string{"2.6.12", "3.0.0", "3.4.0"} {
		csv, _ := keptDumps(t, version)
		lines := strings.Split(string(csv), "\n")
		columns := strings.Count(lines[0], ",")
		for _, line := range lines[1 : len(lines)-2] {
			if len(line) < maxBlocks*block && !strings.Contains(line, `"`) && !checkRow(t, line, columns, true) {
				t.Errorf("%s: %q is read field by field", version, line)
			}
		}
	}
}

func FuzzRow(f *testing.F) {
	f.Add("web,FRONTEND,,,0,0,500,12345678,1234567890123456,12345678901234567,0,-1,-,00,http,", 15)
	f.Add(strings.Repeat("1,", 70)+strings.Repeat("x", 80)+",", 71)
	f.Fuzz(func(t *testing.T, row string, columns int) {
		row, _, _ = strings.Cut(row, "\n")
		if row == "" || columns < 1 || columns > 1000 {
			return
		}
		checkRow(t, row, columns, true)
		checkRow(t, row, columns, false)
	})
}
