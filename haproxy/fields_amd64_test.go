package haproxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// checkDump parses a dump as this processor does, and as one does that has no readFields.
func checkDump(t *testing.T, dump []byte) {
	t.Helper()
	if !hasReadFields {
		t.Skip("this processor reads field by field")
	}
	var quick, slow Table
	err := quick.ParseCSV(dump)
	hasReadFields = false
	wantErr := slow.ParseCSV(dump)
	hasReadFields = true
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("%q\ngives %v\nwant  %v", dump, err, wantErr)
	}
	if !slices.Equal(quick.cells, slow.cells) || !slices.Equal(quick.starts, slow.starts) ||
		!slices.Equal(quick.types, slow.types) || !bytes.Equal(quick.extra, slow.extra) {
		t.Fatalf("%q\ngives %x\nwant  %x", dump, quick.cells, slow.cells)
	}
	for i, s := range quick.shapes {
		if !slices.Equal(s.cols, slow.shapes[i].cols) {
			t.Fatalf("%q\nrow %d has the columns %v\nwant %v", dump, i, s.cols, slow.shapes[i].cols)
		}
	}
}

func TestDumpsAtOnceAreThoseByField(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 20
	}
	for _, version := range []string{"2.6.12", "3.0.0", "3.4.0"} {
		dump, _ := keptDumps(t, version)
		checkDump(t, dump)
		// Each of its bytes may be another.
		random := rand.New(rand.NewPCG(5, 6))
		for range rounds {
			broken := bytes.Clone(dump)
			for range 1 + random.IntN(3) {
				broken[random.IntN(len(broken))] = ",,\n\"-0519x\x00\xff"[random.IntN(12)]
			}
			checkDump(t, broken)
		}
	}
}

// FuzzDump has rows behind rows, which FuzzRow has not, and a header of any number of columns.
func FuzzDump(f *testing.F) {
	f.Add([]byte("a,FRONTEND,0,1,2,3,4,5,\nb,\"x,y\",2,-1,00,,,9,\n"), 5, true)
	f.Add([]byte(strings.Repeat("a,b,2,"+strings.Repeat("1,", 253)+"\n", 9)), 253, true)
	f.Add([]byte(strings.Repeat("a,b,2"+strings.Repeat(",", 252)+",12345678901234567\n", 9)), 253, false)
	f.Fuzz(func(t *testing.T, rows []byte, columns int, trailing bool) {
		if columns < 0 || columns > 300 {
			return
		}
		dump := []byte("# pxname,svname,type")
		for i := range columns {
			dump = fmt.Appendf(dump, ",c%d", i)
		}
		if trailing {
			dump = append(dump, ',')
		}
		dump = append(append(append(dump, '\n'), rows...), "\n\n"...)
		checkDump(t, bytes.Replace(dump, []byte("\n\n\n"), []byte("\n\n"), 1))
	})
}
