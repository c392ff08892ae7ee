package haproxy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestADumpThatFlowsInIsTheSame(t *testing.T) {
	real, _ := everyField(t)
	for name, dump := range map[string]string{
		"a real one":         string(real),
		"small":              small,
		"lines in quotes":    "# pxname,svname,a,type,\np,s,\"x\n\ny\",2,\np,t,\"u\nv\",2,\np,u,3,2,\n\n",
		"quotes in quotes":   "# pxname,svname,a,type,\np,s,1,2,\np,t,\"u\"\"v\",2,\np,\"\"\"u\",3,2,\np,v,3,2,\n\n",
		"no row":             "# pxname,svname,type,\n\n",
		"a damaged row":      "# pxname,svname,a,type,\np,s,1,2,\np,t,1,\np,u,1,2,\n\n",
		"rows behind":        "# pxname,svname,a,type,\np,s,1,2,\n\np,t,1,2,\n\n",
		"cut off":            strings.TrimSuffix(small, "\n"),
		"no header":          "p,s,1,2,\np,t,1,2,\n\n",
		"a header of others": "# a,b,c,\np,s,1,\np,t,1,\n\n",
	} {
		for _, step := range []int{1, 7, 100, 1500} {
			whole := checkStream(t, step, dump)
			if _, err := ParseCSV([]byte(dump)); whole != (err == nil) {
				t.Errorf("%s by %d: whole is %v of a dump that gives %v", name, step, whole, err)
			}
			if again := checkStream(t, step, dump, dump, dump); again != whole {
				t.Errorf("%s by %d: with others of its kind whole is %v", name, step, again)
			}
		}
	}
}

// checkStream lets dumps flow into a stream side by side, step bytes at a time, and fails
// unless their table is that of Merge. It reports whether the stream was whole, as it must
// not be if one of the dumps is wrong.
func checkStream(tb testing.TB, step int, dumps ...string) (whole bool) {
	tb.Helper()
	const info = "Name: HAProxy\nPid: 1\n\n"
	var m Merger
	s := &stream{merger: &m, out: new(Table), fixed: true}
	var flows []*inflow
	kept := make([][]byte, len(dumps)) // of each answer
	most := 0
	for i, dump := range dumps {
		flows = append(flows, &inflow{stream: s, first: i == 0, step: step})
		most = max(most, len(info+dump))
	}
	for n := 0; n < most; n += step {
		for i, dump := range dumps {
			answer := info + dump
			if n < len(answer) {
				more := answer[n:min(n+step, len(answer))]
				kept[i] = append(bytes.Clone(kept[i]), more...) // it moves each time
				flows[i].look(kept[i])
				kept[i] = flows[i].forget(kept[i])
			}
		}
	}
	var tables []*Table
	for i, dump := range dumps {
		flows[i].end([]Reply{{CSV: kept[i][min(len(info), len(kept[i])):]}})
		if t, err := ParseCSV([]byte(dump)); err == nil {
			tables = append(tables, t)
		}
	}
	if s.broken {
		return false
	}
	if len(tables) < len(dumps) {
		tb.Fatalf("a dump is wrong, and the stream is whole: %q", dumps)
	}
	got, want := m.Table(), merge(tb, tables...)
	if !slices.Equal(rows(got), rows(want)) || csvOf(tb, got) != csvOf(tb, want) {
		tb.Fatalf("by %d: got\n%s\nwant\n%s", step, csvOf(tb, got), csvOf(tb, want))
	}
	return true
}

// What differs breaks the stream, or is merged as it would be by itself.
func TestDumpsThatDifferFlowTogether(t *testing.T) {
	const header = "# pxname,svname,stot,cookie,type,\n"
	row := func(name string, n int) string { return fmt.Sprintf("p,%s,%d,c%d,2,\n", name, n, n) }
	var long strings.Builder
	for i := range 200 {
		long.WriteString(row(fmt.Sprintf("s%03d", i), i))
	}
	for name, c := range map[string]struct {
		dumps []string
		whole bool
	}{
		"alike":             {[]string{header + long.String(), header + long.String()}, true},
		"other cookies":     {[]string{header + row("s", 1) + row("t", 2), header + row("s", 3) + row("t", 4)}, true},
		"a cell is empty":   {[]string{header + row("s", 1), header + "p,s,,,2,\n", header + "p,s,2,\"x,\"\"y\",2,\n"}, true},
		"fewer at the end":  {[]string{header + row("s", 1) + row("t", 2), header + row("s", 3)}, true},
		"more at the end":   {[]string{header + row("s", 1), header + row("s", 1) + row("t", 2)}, true},
		"another order":     {[]string{header + row("s", 1) + row("t", 2), header + row("t", 1) + row("s", 2)}, true},
		"another header":    {[]string{header + row("s", 1), "# pxname,svname,type,\np,s,2,\n"}, true},
		"no rows":           {[]string{header, header + row("s", 1)}, true},
		"the 20th is cut":   {[]string{header + long.String(), header + long.String()[:500]}, false},
		"the 2nd has more":  {[]string{header + long.String(), "# pxname,svname,stot,eint,cookie,type,\n" + strings.ReplaceAll(long.String(), ",c", ",1,c"), header + long.String()}, true},
		"the 1st is wrong":  {[]string{header + row("s", 1) + "p,t,2,\n", header + row("s", 1) + row("t", 2), header + row("s", 1) + row("t", 2)}, false},
		"the 150th differs": {[]string{header + long.String(), header + strings.Replace(long.String(), "s150", "t150", 1)}, true},
	} {
		for i := range c.dumps {
			c.dumps[i] += "\n" // the blank line, or the end of a row
		}
		for _, step := range []int{1, 40, 700} {
			if whole := checkStream(t, step, c.dumps...); whole != c.whole {
				t.Errorf("%s by %d: whole is %v", name, step, whole)
			}
		}
	}
}
