package haproxy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// small is a dump with every type of row, text in quotes, and an unknown column.
const small = `# pxname,svname,qcur,scur,slim,stot,bin,status,weight,lastchg,iid,type,rate,lastsess,qtime,req_tot,check_status,mode,novel,
web,FRONTEND,,3,500,10,1000,OPEN,,,2,0,4,,,12,,http,,
web,sock-1,,3,0,10,1000,OPEN,,,2,3,,,,,,http,,
app,"a,""1""",0,1,200,7,700,UP,10,33,3,2,2,5,8,9,L7OK,http,x,
app,b,0,0,,0,0,DOWN 1/2,10,4,3,2,0,-1,0,0,L4CON,http,,
app,BACKEND,0,1,50,7,700,UP,20,33,3,1,2,5,8,9,,http,,

`

func parse(tb testing.TB, data string) *Table {
	tb.Helper()
	t, err := ParseCSV([]byte(data))
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// rows shows a table as sorted lines "type proxy/server field=value …".
func rows(t *Table) []string {
	var out []string
	for i := range t.Len() {
		var b strings.Builder
		fmt.Fprintf(&b, "%v %s/%s", t.Type(i), t.Proxy(i), t.Server(i))
		cols := slices.Clone(t.Columns())
		slices.Sort(cols)
		for _, name := range cols {
			if v := t.Text(i, t.Column(name)); v != "" {
				fmt.Fprintf(&b, " %s=%q", name, v)
			}
		}
		out = append(out, b.String())
	}
	slices.Sort(out)
	return out
}

func csvOf(tb testing.TB, t *Table) string {
	tb.Helper()
	var b bytes.Buffer
	if err := t.View(Filter{}).WriteCSV(&b); err != nil {
		tb.Fatal(err)
	}
	return b.String()
}

func TestACSVDumpIsWrittenAsItWasRead(t *testing.T) {
	if got := csvOf(t, parse(t, small)); got != small {
		t.Errorf("got\n%s\nwant\n%s", got, small)
	}
	real, _ := everyField(t)
	if got := csvOf(t, parse(t, string(real))); got != string(real) {
		t.Error("the dump of a real process differs after parsing and writing")
	}
}

func TestCellsAreNumbersOrTextToTheLetter(t *testing.T) {
	for _, field := range []string{
		"0", "7", "-1", "-0", "007", "1.5", "999999999999999999", "4611686018427387903", "4611686018427387904",
		"9223372036854775807", "-9223372036854775808", "18446744073709551615", "-4611686018427387904", "-4611686018427387905",
		"99999999999999999999999", "+5", "1e3", " 1", "\xff\xfe", "-", "é", "UP 1/3",
	} {
		data := "# pxname,svname,x,type,\np,s," + field + ",2,\n\n"
		tab := parse(t, data)
		if got := tab.Text(0, tab.Column("x")); got != field {
			t.Errorf("%q became %q", field, got)
		}
		if got := csvOf(t, tab); got != data {
			t.Errorf("written again, %q is %q", data, got)
		}
	}
	tab := parse(t, "# pxname,svname,a,b,c,type\np,s,18446744073709551615,-9223372036854775808,x,2\n\n")
	for name, want := range map[string]int64{"a": 1<<63 - 1, "b": -1 << 63} {
		if got, ok := tab.Int(0, tab.Column(name)); !ok || got != want {
			t.Errorf("%s is %d, %v", name, got, ok)
		}
	}
	if _, ok := tab.Int(0, tab.Column("c")); ok {
		t.Error("text is a number")
	}
}

func TestQuotedFieldsAreReadByRFC4180(t *testing.T) {
	tab := parse(t, "# pxname,svname,last_chk,desc,type,\np,s,\"a, \"\"b\"\"\nc\",\"\",2,\np,t,\"plain\",\"7\",2,\n\n")
	if got, want := tab.Text(0, tab.Column("last_chk")), "a, \"b\"\nc"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := tab.Text(1, tab.Column("last_chk")); got != "plain" {
		t.Errorf("got %q", got)
	}
	if n, ok := tab.Int(1, tab.Column("desc")); !ok || n != 7 {
		t.Errorf("a number in quotes is %d, %v", n, ok)
	}
}

func TestEveryPrefixOfADumpIsCutOff(t *testing.T) {
	var tab Table
	for n := range len(small) {
		if err := tab.ParseCSV([]byte(small[:n])); !errors.Is(err, ErrTruncated) {
			t.Fatalf("%d bytes of %d: %v", n, len(small), err)
		}
		if tab.Len() != 0 {
			t.Fatalf("%d bytes left %d rows", n, tab.Len())
		}
	}
	if err := tab.ParseCSV([]byte(small)); err != nil || tab.Len() != 5 {
		t.Fatalf("the whole: %d rows, %v", tab.Len(), err)
	}
}

func TestWhatIsNoDumpIsRefused(t *testing.T) {
	for name, data := range map[string]string{
		"an answer":            "Unknown command\n\n",
		"permission":           "Permission denied\n\n",
		"no names":             "# a,b,\n\n",
		"too many cells":       "# pxname,svname,type,\np,s,2,3,\n\n",
		"too few cells":        "# pxname,svname,type,\np,s,\n\n",
		"no last cell":         "# pxname,svname,type\np,s\n\n",
		"rows after the end":   "# pxname,svname,type,\np,s,2,\n\np,s,2,\n\n",
		"text behind a quote":  "# pxname,svname,type,\np,\"s\"x,2,\n\n",
		"quotes in the header": "# pxname,\"svname,type,\n\n",
	} {
		if tab, err := ParseCSV([]byte(data)); err == nil {
			t.Errorf("%s: it gave %d rows", name, tab.Len())
		}
	}
	if tab, err := ParseCSV([]byte("# pxname,svname,type,\n\n")); err != nil || tab.Len() != 0 {
		t.Errorf("a dump without rows: %v", err)
	}
}

func TestACommaTooManyIsNoCell(t *testing.T) {
	for _, row := range []string{"p,s,2,7", "p,s,2,", "p,s,2,x", `p,s,2,"7,8"`, "p,s,2,007"} {
		want := parse(t, "# pxname,svname,type,novel\n"+row+"\n\n")
		got, err := ParseCSV([]byte("# pxname,svname,type,novel\n" + row + ",\n\n"))
		if err != nil || got.Len() != 1 || got.Text(0, 3) != want.Text(0, 3) {
			t.Errorf("%s with a comma more: %v", row, err)
		}
		if _, err := ParseCSV([]byte("# pxname,svname,type,novel\n" + row + ",,\n\n")); err == nil {
			t.Errorf("%s with two more is taken", row)
		}
	}
}

func TestARowOfTenMegabytesIsRead(t *testing.T) {
	long := strings.Repeat("x", 10<<20)
	tab := parse(t, "# pxname,svname,last_chk,type,\np,s,"+long+",2,\np,u,\""+long+"\",2,\n\n")
	for i := range 2 {
		if got := tab.Text(i, tab.Column("last_chk")); got != long {
			t.Errorf("row %d has %d bytes", i, len(got))
		}
	}
}

func TestATableUsesItsMemoryAgain(t *testing.T) {
	data := [][]byte{[]byte(small), []byte(strings.ReplaceAll(small, "UP", "DOWN"))}
	var tab Table
	i := 0
	allocs := testing.AllocsPerRun(100, func() {
		if err := tab.ParseCSV(data[i%2]); err != nil {
			t.Fatal(err)
		}
		i++
	})
	if allocs != 0 {
		t.Errorf("a parse allocates %v times", allocs)
	}
}

func TestTypedAndJSONSayWhatTheyAre(t *testing.T) {
	typed := "F.2.0.0.pxname.1:KNS:str:web\nF.2.0.1.svname.1:KNS:str:FRONTEND\nF.2.0.7.stot.1:MCP:u64:18446744073709551615\n" +
		"F.2.0.32.type.1:CGS:u32:0\nS.3.1.0.pxname.1:KNS:str:app\nS.3.1.1.svname.1:KNS:str:s:1\nS.3.1.32.type.1:CGS:u32:2\n\n"
	tab, tags, err := ParseTyped([]byte(typed))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`frontend web/FRONTEND pxname="web" stot="18446744073709551615" svname="FRONTEND" type="0"`,
		`server app/s:1 pxname="app" svname="s:1" type="2"`,
	}
	if got := rows(tab); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := tags["stot"][Frontend].String(); got != "MCP:u64" {
		t.Errorf("the tag is %q", got)
	}
	for n := range len(typed) {
		if _, _, err := ParseTyped([]byte(typed[:n])); err == nil {
			t.Errorf("%d bytes of %d were taken", n, len(typed))
		}
	}
	js := `[[{"objType":"Server","proxyId":3,"id":1,"field":{"pos":0,"name":"pxname"},"tags":{"origin":"Key","nature":"Name","scope":"Service"},"value":{"type":"str","value":"a\"b"}},` +
		`{"objType":"Server","proxyId":3,"id":1,"field":{"pos":1,"name":"svname"},"tags":{"origin":"Key","nature":"Name","scope":"Service"},"value":{"type":"str","value":"s"}}]]`
	tab, tags, err = ParseJSON([]byte(js + "\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(tab.Proxy(0)); got != `a"b` || tags["pxname"][Server].String() != "KNS:str" {
		t.Errorf("got %q and %v", got, tags)
	}
	for n := range len(js) {
		if _, _, err := ParseJSON([]byte(js[:n])); err == nil {
			t.Errorf("%d bytes of %d were taken", n, len(js))
		} else if n > 0 && !errors.Is(err, ErrTruncated) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// A table that holds a merge of several headers has none of its own that a dump could have.
func TestAHeaderOfNothingIsNotThatOfAMerge(t *testing.T) {
	table := merge(t, parse(t, small), parse(t, version3))
	if err := table.ParseCSV([]byte("# \n\n")); !errors.Is(err, ErrNotStats) {
		t.Errorf("it gives %v", err)
	}
}
