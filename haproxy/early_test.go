package haproxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestADumpParsedWhileItIsReadIsTheSame(t *testing.T) {
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
		var want Table
		wantErr := want.ParseCSV([]byte(dump))
		info := "Name: HAProxy\nPid: 1\n\n"
		answer := info + dump
		for _, step := range []int{1, 7, 100, 1500} {
			e := &early{shared: new(earlySchema), step: step}
			for n := step; n < len(answer); n += step {
				e.look([]byte(answer[:n])) // which moves each time
			}
			rowsBefore := e.table.rows
			err := e.finish([]byte(dump))
			if fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Errorf("%s by %d: %v, want %v", name, step, err, wantErr)
			}
			if err != nil {
				continue
			}
			if !slices.Equal(rows(&e.table), rows(&want)) || csvOf(t, &e.table) != csvOf(t, &want) {
				t.Errorf("%s by %d: got\n%s\nwant\n%s", name, step, csvOf(t, &e.table), csvOf(t, &want))
			}
			if name == "a real one" && rowsBefore < want.rows-8 {
				t.Errorf("by %d only %d rows of %d were read early", step, rowsBefore, want.rows)
			}
		}
	}
}
