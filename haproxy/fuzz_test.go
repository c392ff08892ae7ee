package haproxy

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzMerge holds parser, writer and merger against each other: what is parsed is
// written so that it is parsed again, and merging keeps its laws.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(small), []byte(version3), []byte("# pxname,svname,type,\n\n"))
	f.Add([]byte("# pxname,svname,stot,stot,type\na,b,1,2,2\n\n"), []byte("# svname,stot,pxname\nFRONTEND,-9,\"\"\n\n"), []byte(small))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		var tables []*Table
		for _, data := range [][]byte{a, b, c} {
			before := bytes.Clone(data)
			tab, err := ParseCSV(data)
			if !bytes.Equal(before, data) {
				t.Fatal("the dump was changed")
			}
			checkStream(t, 5, string(data))
			checkStream(t, 9, string(data), string(data))
			if err != nil {
				continue
			}
			again, err := ParseCSV([]byte(csvOf(t, tab)))
			if err != nil {
				t.Fatalf("%q is written as %q: %v", data, csvOf(t, tab), err)
			}
			if got, want := csvOf(t, again), csvOf(t, tab); got != want {
				t.Fatalf("%q is written as %q, then %q", data, want, got)
			}
			tables = append(tables, tab)
		}
		checkStream(t, 7, string(a), string(b), string(c))
		if len(tables) == 3 {
			checkLaws(t, tables[0], tables[1], tables[2])
		}
	})
}

// FuzzTyped feeds the slower parsers.
func FuzzTyped(f *testing.F) {
	f.Add([]byte("F.2.0.0.pxname.1:KNS:str:web\nF.2.0.1.svname.1:KNS:str:FRONTEND\n\n"))
	f.Add([]byte(`[[{"objType":"Server","field":{"pos":0,"name":"pxname"},"value":{"value":"a"}},{"objType":"Server","field":{"pos":1,"name":"svname"},"value":{"value":"a"}}]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []func([]byte) (*Table, Tags, error){ParseTyped, ParseJSON} {
			tab, tags, err := read(data)
			if err != nil {
				continue
			}
			if tab.Len() == 0 || len(tags) == 0 {
				t.Fatal("nothing, and no error")
			}
			var out strings.Builder
			if err := merge(t, tab, tab).View(Filter{}).WriteJSON(&out); err != nil {
				t.Fatal(err)
			}
		}
	})
}
