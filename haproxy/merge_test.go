package haproxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"myrmidon/internal/testkit/long"
)

func merge(tb testing.TB, tables ...*Table) *Table {
	tb.Helper()
	t, err := Merge(nil, tables...)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// one is a table of one row of a type with the fields given as name=value.
func one(tb testing.TB, typ Type, fields ...string) *Table {
	tb.Helper()
	header, row := "# pxname,svname,type", fmt.Sprintf("p,s,%d", typ)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		header += "," + name
		if strings.ContainsAny(value, `,"`) {
			value = `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
		}
		row += "," + value
	}
	return parse(tb, header+"\n"+row+"\n\n")
}

func TestFieldsAreMergedByTheirRules(t *testing.T) {
	const never = "-1"
	for _, c := range []struct {
		typ    Type
		field  string
		values []string
		want   string
	}{
		{Server, "stot", []string{"1", "2", "3", "4"}, "10"},
		{Server, "stot", []string{"1", "", "", "4"}, "5"},
		{Server, "stot", []string{"", ""}, ""},
		{Server, "scur", []string{"1", "2"}, "3"},
		{Frontend, "rate", []string{"10", "5"}, "15"},
		{Backend, "rate", []string{"10", "5"}, "15"},
		{Backend, "rate_max", []string{"10", "5"}, "10"},
		{Server, "smax", []string{"10", "25", "3"}, "25"},
		{Frontend, "slim", []string{"500", "500"}, "1000"},
		{Frontend, "slim", []string{"0", "0"}, "0"},
		{Frontend, "slim", []string{"", "0"}, "0"},
		{Server, "slim", []string{"", "200"}, "mixed"},
		{Frontend, "rate_lim", []string{"0", "100", "100"}, "mixed"},
		{Frontend, "rate_lim", []string{"100", "100", "100"}, "300"},
		{Backend, "act", []string{"3", "2"}, "3"},
		{Server, "act", []string{"1", "1"}, "1"},
		{Server, "bck", []string{"0", "1"}, "1"},
		{Backend, "agg_server_status", []string{"1", "4"}, "4"},
		{Backend, "downtime", []string{"10", "12"}, "12"},
		{Server, "check_health", []string{"4", "2"}, "2"},
		{Server, "check_duration", []string{"4", "9"}, "9"},
		{Server, "qtime_max", []string{"4", "9"}, "9"},
		{Server, "lastsess", []string{never, "7", "3"}, "3"},
		{Server, "lastsess", []string{never, never}, never},
		{Server, "lastsess", []string{never, "18446744073709551615"}, "18446744073709551615"},
		{Server, "lastsess", []string{"18446744073709551615", "7"}, "7"},
		{Server, "lastchg", []string{"12", "10"}, "10"},
		{Server, "weight", []string{"10", "10"}, "10"},
		{Server, "weight", []string{"10", "20"}, "15"},
		{Server, "status", []string{"UP", "UP", "UP", "UP"}, "UP"},
		{Server, "status", []string{"UP", "DOWN", "UP", "UP"}, "UP 3/4, DOWN 1/4"},
		{Server, "status", []string{"UP 1/3", "UP"}, "UP 1/2, UP 1/3 1/2"},
		{Server, "check_status", []string{"L7OK", "L4CON", "L7OK"}, "L7OK 2/3, L4CON 1/3"},
		{Server, "check_code", []string{"200", "", "200"}, "200 2/3"},
		{Server, "qlimit", []string{"50", "50"}, "50"},
		{Server, "qlimit", []string{"50", "60"}, "50 1/2, 60 1/2"},
		{Server, "cookie", []string{"a", "b"}, "a 1/2, b 1/2"},
		{Frontend, "mode", []string{"http", "http"}, "http"},
		{Server, "novel", []string{"5", "5"}, "5"},
		{Server, "novel", []string{"5", "6"}, "5 1/2, 6 1/2"},
		{Server, "stot", []string{"18446744073709551615", "18446744073709551615"}, "36893488147419103230"},
		{Server, "stot", []string{"4611686018427387903", "1"}, "4611686018427387904"},
		{Server, "stot", []string{"-9223372036854775808", "9223372036854775807", "3"}, "2"},
		{Server, "smax", []string{"18446744073709551615", "5"}, "18446744073709551615"},
		{Server, "check_health", []string{"-9223372036854775808", "5"}, "-9223372036854775808"},
		{Server, "stot", []string{"1", "many"}, "mixed"},
		{Server, "stot", []string{"many"}, "many"},
	} {
		var tables []*Table
		for _, v := range c.values {
			tables = append(tables, one(t, c.typ, c.field+"="+v))
		}
		m := merge(t, tables...)
		if got := m.Text(0, m.Column(c.field)); got != c.want {
			t.Errorf("%v %s of %q: got %q, want %q", c.typ, c.field, c.values, got, c.want)
		}
		if got := m.Processes(0); got != len(c.values) {
			t.Errorf("%v %s: %d processes", c.typ, c.field, got)
		}
	}
}

func TestAveragesWeighByRequests(t *testing.T) {
	for _, c := range []struct {
		rows []string // qtime, req_tot, stot
		want string
	}{
		{[]string{"10 1 0", "20 3 0"}, "18"}, // 17.5, rounded
		{[]string{"10 0 0", "20 3 0"}, "20"},
		{[]string{"10 0 0", "20 0 0"}, "20"}, // nobody weighs anything: the greatest
		{[]string{"10  1", "20  3"}, "18"},   // TCP has sessions
		{[]string{"7 1 9", "7 3 9", "7 8 9"}, "7"},
		{[]string{"-5 2 0", "-8 1 0"}, "-6"},
		{[]string{"4000000000 4000000000000000000 0", "4000000000 4000000000000000000 0"}, "4000000000"},
		// Sums of 64 bits would not do, neither of products nor of weights.
		{[]string{"4611686018427387903 4 0", "100 1 0"}, "3689348814741910342"},
		{slices.Concat(slices.Repeat([]string{"5 2305843009213693952 0"}, 4), slices.Repeat([]string{"9 2305843009213693952 0"}, 4)), "7"},
		{[]string{"10 9223372036854775807 0", "20 1 0"}, "10"},
		{[]string{" 5 5", "4 5 5"}, "4"},
		{[]string{"x 5 5", "4 5 5"}, "mixed"},
	} {
		var tables []*Table
		for _, r := range c.rows {
			f := strings.Split(r, " ")
			tables = append(tables, one(t, Server, "qtime="+f[0], "req_tot="+f[1], "stot="+f[2]))
		}
		m := merge(t, tables...)
		if got := m.Text(0, m.Column("qtime")); got != c.want {
			t.Errorf("%q: got %s, want %s", c.rows, got, c.want)
		}
	}
}

func TestTheWorstStateIsTheState(t *testing.T) {
	order := []string{"DOWN", "DOWN 1/2", "STOP", "MAINT (via be/srv)", "FULL", "odd", "NOLB", "DRAIN", "UP 1/3", "no check", "UP"}
	for i := range order {
		for k := i; k < len(order); k++ {
			for _, pair := range [][2]string{{order[i], order[k]}, {order[k], order[i]}} {
				m := merge(t, one(t, Server, "status="+pair[0]), one(t, Server, "status="+pair[1]))
				if got := m.State(0); got != order[i] {
					t.Errorf("of %q the state is %q", pair, got)
				}
			}
		}
	}
	if got := merge(t, one(t, Server, "status=DOWN (agent)"), one(t, Server, "status=UP")).State(0); got != "DOWN (agent)" {
		t.Errorf("got %q", got)
	}
}

func TestRowsAreFoundWhateverTheirOrder(t *testing.T) {
	header := "# pxname,svname,stot,type,\n"
	a := parse(t, header+"a,s,1,2,\nb,s,2,2,\nc,s,3,2,\n\n")
	b := parse(t, header+"c,s,30,2,\nnew,s,70,2,\na,s,10,2,\na,s,5,3,\n\n")
	want := []string{
		`listener a/s pxname="a" stot="5" svname="s" type="3"`,
		`server a/s pxname="a" stot="11" svname="s" type="2"`,
		`server b/s pxname="b" stot="2" svname="s" type="2"`,
		`server c/s pxname="c" stot="33" svname="s" type="2"`,
		`server new/s pxname="new" stot="70" svname="s" type="2"`,
	}
	for _, m := range []*Table{merge(t, a, b), merge(t, b, a)} {
		if got := rows(m); !slices.Equal(got, want) {
			t.Errorf("got\n%s", strings.Join(got, "\n"))
		}
	}
	// The n-th row of a key belongs to the n-th.
	a = parse(t, header+"x,s,1,2,\ny,s,9,2,\nx,s,2,2,\n\n")
	b = parse(t, header+"y,s,90,2,\nx,s,10,2,\nx,s,20,2,\nx,s,300,2,\n\n")
	want = []string{
		`server x/s pxname="x" stot="11" svname="s" type="2"`,
		`server x/s pxname="x" stot="22" svname="s" type="2"`,
		`server x/s pxname="x" stot="300" svname="s" type="2"`,
		`server y/s pxname="y" stot="99" svname="s" type="2"`,
	}
	for _, m := range []*Table{merge(t, a, b), merge(t, b, a), merge(t, a, b, parse(t, header+"\n"))} {
		if got := rows(m); !slices.Equal(got, want) {
			t.Errorf("got\n%s", strings.Join(got, "\n"))
		}
	}
}

func TestOfRowsOfOneKeyTheNthBelongTogetherWhereTheOrderDiffers(t *testing.T) {
	header := "# pxname,svname,stot,type,\n"
	m := merge(t, parse(t, header+"x,s,1,2,\ny,s,9,2,\nx,s,2,2,\n\n"), parse(t, header+"x,s,10,2,\nx,s,20,2,\ny,s,90,2,\n\n"))
	want := []string{
		`server x/s pxname="x" stot="11" svname="s" type="2"`,
		`server x/s pxname="x" stot="22" svname="s" type="2"`,
		`server y/s pxname="y" stot="99" svname="s" type="2"`,
	}
	if got := rows(m); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestTablesThatWereMergedCountAllTheirProcesses(t *testing.T) {
	of := func(qtime, requests, status string) *Table {
		return one(t, Server, "qtime="+qtime, "req_tot="+requests, "status="+status)
	}
	pair := merge(t, of("10", "1", "UP"), of("20", "3", "DOWN"))
	other := merge(t, of("40", "2", "DOWN"), of("50", "2", "UP"), of("50", "2", "DOWN"))
	for _, m := range []*Table{merge(t, pair, other), merge(t, other, pair)} {
		if m.Processes(0) != 5 || m.Text(0, m.Column("status")) != "DOWN 3/5, UP 2/5" || m.Text(0, m.Column("qtime")) != "35" {
			t.Errorf("%d processes, %s, qtime %s", m.Processes(0), m.Text(0, m.Column("status")), m.Text(0, m.Column("qtime")))
		}
	}
	// Neither do sums of the last merge stay in the memory that the next one uses.
	var m Merger
	out := new(Table)
	for range 2 {
		m.Reset(out)
		for _, x := range []*Table{merge(t, of("1", "1", "UP"), of("3", "1", "UP")), pair} {
			if err := m.Add(x); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.Table().Text(0, out.Column("qtime")); got != "12" { // 74 of 6, rounded
			t.Errorf("qtime is %s", got)
		}
		m.Reset(out)
		if err := m.Add(other); err != nil {
			t.Fatal(err)
		}
		if got := m.Table().Text(0, out.Column("qtime")); got != "47" { // 280 of 6, rounded
			t.Errorf("qtime is %s", got)
		}
	}
}

func TestANameThatAnotherVersionTagsAsAKeyIsShownWhereItDiffers(t *testing.T) {
	rules := (*Rules)(nil).Learn(Tags{"guid": {Server: {Origin: 'K', Nature: 'N', Scope: 'S', Value: "str"}}}, "3.9")
	m, err := Merge(rules, one(t, Server, "guid=a"), one(t, Server, "guid=b"))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Text(0, m.Column("guid")); got != "a 1/2, b 1/2" {
		t.Errorf("got %s", got)
	}
}

// version3 is what another version might answer: columns in another order, more and
// fewer of them, and no comma at the end of a line.
const version3 = `# svname,pxname,type,stot,status,qtime,req_tot,h3_data_rcvd,h3_state
FRONTEND,web,0,5,OPEN,,6,44,on
sock-1,web,3,5,OPEN,,,,
"a,""1""",app,2,3,DOWN,20,3,,
b,app,2,1,UP,3,1,7,off
BACKEND,app,1,3,UP,20,3,,

`

func TestAnotherVersionsColumnsAreKnownByName(t *testing.T) {
	a, b := parse(t, small), parse(t, version3)
	for _, m := range []*Table{merge(t, a, b), merge(t, b, a), merge(t, b, a, parse(t, "# pxname,svname,type,\n\n"))} {
		got := make(map[string]string)
		for i := range m.Len() {
			for _, col := range []string{"stot", "status", "qtime", "h3_data_rcvd", "h3_state", "bin", "mode"} {
				got[fmt.Sprintf("%s/%s %s", m.Proxy(i), m.Server(i), col)] = m.Text(i, m.Column(col))
			}
		}
		for key, want := range map[string]string{
			"web/FRONTEND stot": "15", "web/FRONTEND h3_data_rcvd": "44 1/2", "web/FRONTEND h3_state": "on 1/2",
			`app/a,"1" stot`: "10", `app/a,"1" status`: "DOWN 1/2, UP 1/2", `app/a,"1" qtime`: "11", // (8*9+20*3)/12
			"app/b status": "DOWN 1/2 1/2, UP 1/2", "app/b qtime": "3", "web/FRONTEND bin": "1000", "web/FRONTEND mode": "http 1/2",
		} {
			if got[key] != want {
				t.Errorf("%s: got %q, want %q", key, got[key], want)
			}
		}
	}
}

func TestLearnedTagsAndOverridesDecide(t *testing.T) {
	_, tags, err := ParseTyped([]byte("F.2.0.0.pxname.1:KNS:str:web\nF.2.0.1.svname.1:KNS:str:FRONTEND\nF.2.0.32.type.1:CGS:u32:0\n" +
		"F.2.0.200.h3_data_rcvd.1:MCP:u64:0\nF.2.0.201.h3_peak.1:MMP:u64:0\nF.2.0.202.rate_max.1:MGP:u32:1\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	rules := (*Rules)(nil).Learn(tags, "3.9")
	for field, want := range map[string]Rule{"h3_data_rcvd": Sum, "h3_peak": Max, "rate_max": Max, "stot": Sum, "never_seen": Same} {
		if got := rules.Rule(field, Frontend); got != want {
			t.Errorf("%s: %v, want %v", field, got, want)
		}
	}
	mine, err := rules.With(Override{Field: "smax", Types: []Type{Backend}, Rule: Sum, Note: "why not"},
		Override{Field: "mine", Rule: Average})
	if err != nil {
		t.Fatal(err)
	}
	// What is learned later changes nothing that a user said.
	mine = mine.Learn(builtIn(), "2.6.12")
	if b, f := mine.Rule("smax", Backend), mine.Rule("smax", Frontend); b != Sum || f != Max {
		t.Errorf("smax is %v and %v", b, f)
	}
	if rules.Rule("smax", Backend) != Max {
		t.Error("an override changed the rules that it was made from")
	}
	m, err := Merge(mine, one(t, Backend, "smax=1", "mine=2"), one(t, Backend, "smax=2", "mine=4"), one(t, Backend, "smax=4", "mine=9"))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Text(0, m.Column("smax")) + " " + m.Text(0, m.Column("mine")); got != "7 5" {
		t.Errorf("got %s", got)
	}
	for _, bad := range []Override{{}, {Field: "pxname", Rule: Sum}, {Field: "stot", Rule: Key}, {Field: "stot", Rule: 99}, {Field: "a", Types: []Type{9}}} {
		if _, err := rules.With(bad); err == nil {
			t.Errorf("the override %+v was taken", bad)
		}
	}
}

// random makes a dump whose rows and values meet those of others often.
func random(r *rand.Rand) string {
	names := []string{"pxname", "svname", "type", "stot", "smax", "check_health", "lastsess", "qtime", "req_tot", "weight", "slim", "status", "cookie", "novel"}
	columns := append([]string(nil), names[:3]...)
	for _, n := range names[3:] {
		if r.IntN(5) > 0 {
			columns = append(columns, n)
		}
	}
	r.Shuffle(len(columns), func(i, j int) { columns[i], columns[j] = columns[j], columns[i] })
	values := []string{"", "", "0", "1", "2", "7", "-1", "4611686018427387903", "18446744073709551615", "-9223372036854775808", "UP", "DOWN", "UP 1/3", `"a,b"`}
	var b strings.Builder
	b.WriteString("# " + strings.Join(columns, ",") + "\n")
	for range r.IntN(6) {
		for i, c := range columns {
			if i > 0 {
				b.WriteByte(',')
			}
			switch c {
			case "pxname", "svname":
				b.WriteString([]string{"a", "b", "c"}[r.IntN(3)])
			case "type":
				fmt.Fprint(&b, r.IntN(4))
			default:
				b.WriteString(values[r.IntN(len(values))])
			}
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return b.String()
}

// checkLaws fails if merging is not what Merger promises.
func checkLaws(tb testing.TB, a, b, c *Table) {
	tb.Helper()
	if got := merge(tb, a); !slices.Equal(rows(got), rows(a)) || csvOf(tb, got) != csvOf(tb, a) {
		tb.Fatalf("merge(x) is not x:\n%q\n%q", rows(got), rows(a))
	}
	want := rows(merge(tb, a, b, c))
	for name, got := range map[string]*Table{
		"c b a":   merge(tb, c, b, a),
		"b a c":   merge(tb, b, a, c),
		"(a b) c": merge(tb, merge(tb, a, b), c),
		"a (b c)": merge(tb, a, merge(tb, b, c)),
		"(c a) b": merge(tb, merge(tb, c, a), b),
	} {
		if !slices.Equal(rows(got), want) {
			tb.Fatalf("%s gives\n%s\nand a b c\n%s", name, strings.Join(rows(got), "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestMergingKeepsItsLaws(t *testing.T) {
	long.Test(t)
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		a, b, c := random(r), random(r), random(r)
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { checkLaws(t, parse(t, a), parse(t, b), parse(t, c)) }) {
			t.Fatalf("of\n%s\n%s\n%s", a, b, c)
		}
	}
}

func TestAMergerUsesItsMemoryAgain(t *testing.T) {
	var tables [4]*Table
	shared := parse(t, small).schema
	for i := range tables {
		tables[i] = parse(t, strings.Replace(small, "UP", []string{"UP", "DOWN"}[i%2], 1))
		tables[i].schema = shared
	}
	var m Merger
	out := [2]*Table{{}, {}}
	n := 0
	allocs := testing.AllocsPerRun(100, func() {
		m.Reset(out[n%2])
		n++
		for _, tab := range tables {
			if err := m.Add(tab); err != nil {
				t.Fatal(err)
			}
		}
		m.Table()
	})
	if allocs != 0 {
		t.Errorf("a merge allocates %v times", allocs)
	}
}

func TestEveryRuleHasATagAndAReason(t *testing.T) {
	fields := DefaultRules().Fields()
	if len(fields) < 260 {
		t.Fatalf("only %d fields", len(fields))
	}
	for _, f := range fields {
		if f.Source == SourceUnknown || f.Rule.String() == "" || f.Tag.String() == "" {
			t.Errorf("%+v", f)
		}
		if f.Source == SourceOverride && f.Note == "" {
			t.Errorf("%s is overridden without a reason", f.Name)
		}
		if back, err := ParseRule(f.Rule.String()); err != nil || back != f.Rule {
			t.Errorf("%v is read back as %v, %v", f.Rule, back, err)
		}
	}
}
