package haproxy

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// Cells that lie side by side are added four at once if they are plain numbers: beside any
// others each of them still has its own sum.
func TestSumsSideBySideAreEachRight(t *testing.T) {
	columns := strings.Split("hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,stot,bin,bout,smax", ",")
	header := "# pxname,svname,type," + strings.Join(columns, ",") + "\n"
	values := []string{
		"0", "1", "7", "-1", "2305843009213693951", "2305843009213693952", "-2305843009213693953",
		"4611686018427387903", "-4611686018427387904", "18446744073709551615", "-99999999999999999999",
	}
	r := rand.New(rand.NewPCG(6, 28))
	for range 3000 {
		n := 2 + r.IntN(3)
		tables := make([]*Table, n)
		want := make([]*big.Int, len(columns))
		for i := range tables {
			row := "p,s,2"
			for k, name := range columns {
				v := values[0]
				if r.IntN(3) == 0 {
					v = values[r.IntN(len(values))]
				}
				row += "," + v
				x, _ := new(big.Int).SetString(v, 10)
				switch {
				case i == 0:
					want[k] = x
				case name != "smax":
					want[k].Add(want[k], x)
				case x.Cmp(want[k]) > 0:
					want[k] = x
				}
			}
			tables[i] = parse(t, header+row+"\n\n")
		}
		got := merge(t, tables...)
		for k, name := range columns {
			if text := string(got.AppendText(nil, 0, got.Column(name))); text != fmt.Sprint(want[k]) {
				t.Fatalf("%s of %d processes is %s, want %s", name, n, text, want[k])
			}
		}
	}
}
