package haproxy

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/testkit/haproxyd"
)

var update = flag.Bool("update", false, "write the golden table and the dumps anew")

// rulesFile is the golden table: a field, and its rule in rows of a frontend, a backend,
// a server and a listener; "-" where such rows do not have it. It was judged line by line.
var rulesFile = filepath.Join("testdata", "rules.txt")

func everyField(tb testing.TB) (csv, typed []byte) { return keptDumps(tb, "2.6.12") }

// keptDumps are those of a process of a version that fills every field: see
// startEveryField. -update writes them.
func keptDumps(tb testing.TB, version string) (csv, typed []byte) {
	tb.Helper()
	var out [2][]byte
	for i, form := range []string{".csv", ".typed"} {
		data, err := os.ReadFile(filepath.Join("testdata", version+form))
		if err != nil {
			tb.Fatal(err)
		}
		out[i] = data
	}
	return out[0], out[1]
}

// startEveryField starts a process that has a value in every field of every type of rows,
// those too that are there only while they are in use, and returns its dumps: an agent
// answers, a server starts slowly, another is tracked, a third is observed.
func startEveryField(t *testing.T) (version string, csv, typed []byte) {
	agent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := agent.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "up\n")
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		agent.Close()
		<-ended
	})
	port := agent.Addr().(*net.TCPAddr).Port
	s := haproxyd.Start(t, haproxyd.Config{Frontends: 1, Backends: 1, Servers: 4, Extra: fmt.Sprintf(`
backend every
  balance roundrobin
  option httpchk GET /
  cookie SRV insert
  server slow unix@DIR/origin.sock check inter 100ms cookie "x,y" maxconn 9 maxqueue 50 observe layer7 pool-max-conn 10 slowstart 60s
  server tracks unix@DIR/origin.sock track every/slow cookie t
  server agent unix@DIR/origin.sock agent-check agent-addr 127.0.0.1 agent-port %d agent-inter 100ms cookie a
`, port)})
	s.Get(0, 3, "/")
	ask := func(command string) string {
		out, err := s.Ask(command)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	s.WaitState("every", "slow", "UP")
	ask("disable server every/slow")
	ask("enable server every/slow") // and so it starts slowly
	// A check that comes too late on a busy machine takes its code out again: the dump that has
	// all is the one to keep.
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		out := ask("show stat typed")
		typed = []byte(out)
		if strings.Contains(out, ".throttle.") && strings.Contains(out, ".agent_code.") && strings.Contains(out, ".check_code.") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the agent does not answer, or no server starts slowly")
		}
	}
	for line := range strings.Lines(ask("show info")) {
		if v, ok := strings.CutPrefix(line, "Version: "); ok {
			version, _, _ = strings.Cut(strings.TrimSpace(v), "-") // without Debian's own number
		}
	}
	return version, []byte(ask("show stat")), typed
}

func TestBuiltInTagsAreThoseOfARealProcess(t *testing.T) {
	version, csv, typed := startEveryField(t)
	if *update {
		for name, data := range map[string][]byte{version + ".csv": csv, version + ".typed": typed} {
			if err := os.WriteFile(filepath.Join("testdata", name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, kept := everyField(t)
	sources := map[string][]byte{"2.6.12, as kept": kept}
	if strings.HasPrefix(version, "2.6.") {
		sources[version] = typed
	} else {
		t.Logf("HAProxy %s has tags of its own: only the dump of 2.6.12 that is kept is compared", version)
	}
	for name, data := range sources {
		_, tags, err := ParseTyped(data)
		if err != nil {
			t.Fatal(err)
		}
		for field := range tags {
			if _, ok := builtIn()[field]; !ok {
				t.Errorf("%s: %s is not built in", name, field)
			}
		}
		for field, byType := range builtIn() {
			for typ, want := range byType {
				if got := tags[field][typ]; got != want {
					t.Errorf("%s: %s of a %v is %v, built in %v", name, field, Type(typ), got, want)
				}
			}
		}
	}
}

// merged are what fields of one rule come to: no two rules have all in common.
var merged = map[Rule][]struct {
	values []string
	want   string
}{
	Sum:               {{[]string{"7", "3", "8"}, "18"}, {[]string{"7", "0", ""}, "7"}},
	SumLimits:         {{[]string{"7", "3", "8"}, "18"}, {[]string{"7", "0", "8"}, "mixed"}, {[]string{"0", "0", "0"}, "0"}},
	Max:               {{[]string{"7", "3", "8"}, "8"}, {[]string{"7", "-1", "7"}, "7"}},
	Min:               {{[]string{"7", "3", "8"}, "3"}, {[]string{"7", "-1", "8"}, "-1"}},
	Least:             {{[]string{"7", "3", "8"}, "3"}, {[]string{"7", "-1", "8"}, "7"}, {[]string{"-1", "-1", "-1"}, "-1"}},
	Average:           {{[]string{"7", "3", "8"}, "6"}, {[]string{"7", "", "8"}, "8"}}, // 7.5, rounded
	AverageByRequests: {{[]string{"7", "3", "8"}, "5"}, {[]string{"7", "", "8"}, "8"}}, // of 1, 2 and 1 requests
	Same:              {{[]string{"7", "7", "7"}, "7"}, {[]string{"7", "3", "7"}, "7 2/3, 3 1/3"}},
	Worst:             {{[]string{"UP", "DOWN", "UP"}, "UP 2/3, DOWN 1/3"}},
}

// goldenRow reads a line of the golden table.
func goldenRow(line string) (field string, rules []string) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return "", nil
	}
	return words[0], words[1:]
}

func TestEveryFieldIsMergedAsTheGoldenTableSays(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	golden, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, f := range DefaultRules().Fields() {
		listed[fmt.Sprint(f.Name, " ", f.Type)] = true
	}
	var fields []string
	for line := range strings.Lines(string(golden)) {
		field, rules := goldenRow(line)
		if len(rules) != int(Other) {
			t.Fatalf("%q has not one rule for each type", line)
		}
		fields = append(fields, field)
		for typ, name := range rules {
			typ := Type(typ)
			key := fmt.Sprint(field, " ", typ)
			if name == "-" {
				if listed[key] {
					t.Errorf("%s has a rule, and should have none", key)
				}
				continue
			}
			rule, err := ParseRule(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := DefaultRules().Rule(field, typ); got != rule || !listed[key] {
				t.Errorf("%s: the rule is %v, want %v", key, got, rule)
			}
			delete(listed, key)
			if rule == Key {
				checkKey(t, field, typ)
			} else {
				checkRule(t, field, typ, rule)
			}
		}
	}
	for key := range listed {
		t.Errorf("%s is not in the golden table", key)
	}
	csv, _ := everyField(t)
	for _, col := range parse(t, string(csv)).Columns() {
		if col != "-" && !slices.Contains(fields, col) {
			t.Errorf("%s of the dump is not in the golden table", col)
		}
	}
}

// checkRule merges three processes that differ in a field.
func checkRule(t *testing.T, field string, typ Type, rule Rule) {
	t.Helper()
	for _, c := range merged[rule] {
		var tables []*Table
		for i, v := range c.values {
			fields := []string{field + "=" + v}
			if rule == AverageByRequests {
				fields = append(fields, fmt.Sprintf("req_tot=%d", 1+i%2))
			}
			tables = append(tables, one(t, typ, fields...))
		}
		m := merge(t, tables...)
		if got := m.Text(0, m.Column(field)); got != c.want || m.Len() != 1 {
			t.Errorf("%s of a %v, %v: %q come to %q, want %q", field, typ, rule, c.values, got, c.want)
		}
		if rule == Worst && m.State(0) != "DOWN" {
			t.Errorf("%s of a %v: the state is %s", field, typ, m.State(0))
		}
	}
	if len(merged[rule]) == 0 {
		t.Errorf("there is no merge of %v", rule)
	}
}

// checkKey merges rows that differ in a key alone: they stay two.
func checkKey(t *testing.T, field string, typ Type) {
	t.Helper()
	row := map[string]string{"pxname": "p", "svname": "s", "type": fmt.Sprint(int(typ))}
	table := func() *Table {
		return parse(t, fmt.Sprintf("# pxname,svname,type,stot,\n%s,%s,%s,1,\n\n", row["pxname"], row["svname"], row["type"]))
	}
	a := table()
	if m := merge(t, a, table()); m.Len() != 1 || m.Text(0, m.Column("stot")) != "2" {
		t.Errorf("two processes' rows of one key are %q", rows(m))
	}
	row[field] = fmt.Sprint(int(typ+1) % int(Other))
	if m := merge(t, a, table()); m.Len() != 2 {
		t.Errorf("rows that differ in %s become %q", field, rows(m))
	}
}

func writeGolden(t *testing.T) {
	var out bytes.Buffer
	for _, field := range DefaultRules().names {
		out.WriteString(field)
		for typ := range Other {
			f := DefaultRules().field(field, typ)
			if f.Tag == (Tag{}) {
				out.WriteString(" -")
			} else {
				fmt.Fprintf(&out, " %v", f.Rule)
			}
		}
		out.WriteByte('\n')
	}
	if err := os.WriteFile(rulesFile, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
