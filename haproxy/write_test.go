package haproxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func jsonLines(tb testing.TB, v *View) []map[string]any {
	tb.Helper()
	var b bytes.Buffer
	if err := v.WriteJSON(&b); err != nil {
		tb.Fatal(err)
	}
	var out []map[string]any
	for line := range strings.Lines(b.String()) {
		var row map[string]any
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		if err := d.Decode(&row); err != nil {
			tb.Fatalf("%q: %v", line, err)
		}
		out = append(out, row)
	}
	return out
}

func TestJSONLinesAreNumbersAndText(t *testing.T) {
	m := merge(t,
		one(t, Server, "stot=18446744073709551615", "lastsess=-1", "status=UP", "last_chk=a\x01\"\\\xff\u2028,é", "qlimit=5"),
		one(t, Server, "stot=1", "lastsess=-1", "status=DOWN", "last_chk=a\x01\"\\\xff\u2028,é", "qlimit=6"))
	got := jsonLines(t, m.View(Filter{}))[0]
	for key, want := range map[string]string{
		"kind": "server", "processes": "2", "state": "DOWN", "stot": "18446744073709551616", "lastsess": "-1",
		"status": "DOWN 1/2, UP 1/2", "last_chk": "a\x01\"\\\ufffd\u2028,é", "mixed": "[status qlimit]", "pxname": "p",
	} {
		if g := fmt.Sprint(got[key]); g != want {
			t.Errorf("%s is %q, want %q", key, g, want)
		}
	}
	if _, ok := got["stot"].(json.Number); !ok {
		t.Errorf("stot is a %T", got["stot"])
	}
}

func TestAFilterChoosesRows(t *testing.T) {
	tab := parse(t, small)
	for _, c := range []struct {
		filter Filter
		want   string
	}{
		{Filter{}, "web/FRONTEND web/sock-1 app/a,\"1\" app/b app/BACKEND"},
		{Filter{Types: []Type{Backend, Listener}}, "web/sock-1 app/BACKEND"},
		{Filter{Match: []string{"w*"}}, "web/FRONTEND web/sock-1"},
		{Filter{Match: []string{"app/[ab]*", "web/s*"}}, "web/sock-1 app/a,\"1\" app/b"},
		{Filter{Types: []Type{Server}, Match: []string{"web"}}, ""},
	} {
		v := tab.View(c.filter)
		var got []string
		for _, i := range v.Rows {
			got = append(got, string(tab.Proxy(i))+"/"+string(tab.Server(i)))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%+v: got %s", c.filter, g)
		}
	}
	if err := (Filter{Match: []string{"a", "["}}).Check(); err == nil || !strings.Contains(err.Error(), `"["`) {
		t.Errorf("a pattern that is none: %v", err)
	}
}

func TestAViewIsSortedAndCut(t *testing.T) {
	tab := parse(t, "# pxname,svname,ereq,econ,scur,status,cookie,type,\n"+
		"c,s1,1,1,5,UP,,2,\nb,s2,,7,9223372036854775807,DOWN,x,2,\na,s3,,,,MAINT,b,2,\na,s0,3,,1,no check,,2,\n\n")
	for key, want := range map[string]string{
		"errors": "s2 s0 s1 s3", "econ": "s2 s1 s3 s0", "sessions": "s2 s1 s0 s3", "name": "s0 s3 s2 s1", "state": "s2 s3 s0 s1", "cookie": "s3 s2 s1 s0",
	} {
		v := tab.View(Filter{})
		if err := v.Sort(key); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range v.Rows {
			got = append(got, string(tab.Server(i)))
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("by %s: %s, want %s", key, g, want)
		}
		v.Top(2)
		if len(v.Rows) != 2 {
			t.Errorf("the top 2 are %d", len(v.Rows))
		}
	}
	if err := tab.View(Filter{}).Sort("nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("%v", err)
	}
}

func TestFieldsNarrowWhatIsWritten(t *testing.T) {
	v := parse(t, small).View(Filter{Types: []Type{Frontend}})
	v.Fields = []string{"stot", "status"}
	var b bytes.Buffer
	if err := v.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "# pxname,svname,type,stot,status,\nweb,FRONTEND,0,10,OPEN,\n\n"; got != want {
		t.Errorf("got %q", got)
	}
	v.Fields = []string{"none"}
	if err := v.WriteCSV(&b); err == nil || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("%v", err)
	}
}

func TestPrometheusBreaksDownByProcess(t *testing.T) {
	a := one(t, Server, "stot=1", "qtime=1500", "status=UP", "novel=3", "slim=")
	b := one(t, Server, "stot=2", "qtime=0", "status=no check", "novel=4", "slim=")
	fields := []string{"stot", "qtime", "status", "novel", "slim"}
	var out bytes.Buffer
	err := WritePrometheus(&out,
		Part{View: &View{Table: a, Rows: []int{0}, Fields: fields}, Labels: []string{"process", "a\"\n\\"}},
		Part{View: &View{Table: b, Rows: []int{0}, Fields: fields}, Labels: []string{"process", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# TYPE haproxy_server_sessions_total counter\n" +
			`haproxy_server_sessions_total{process="a\"\n\\",proxy="p",server="s"} 1` + "\n" +
			`haproxy_server_sessions_total{process="b",proxy="p",server="s"} 2` + "\n",
		`haproxy_server_queue_time_average_seconds{process="a\"\n\\",proxy="p",server="s"} 1.5` + "\n",
		`haproxy_server_status{process="b",proxy="p",server="s",state="UP"} 1` + "\n",
		`haproxy_server_novel{process="b",proxy="p",server="s"} 4` + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no\n%sin\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "limit_sessions") || strings.Count(out.String(), "# TYPE haproxy_server_status ") != 1 {
		t.Errorf("got\n%s", out.String())
	}
	// A merged row counts its processes by state, and leaves out what is mixed.
	out.Reset()
	m := merge(t, one(t, Server, "status=UP", "slim=", "qlimit=5"), one(t, Server, "status=DOWN", "slim=3", "qlimit=6"), one(t, Server, "status=UP", "slim=", "qlimit=5"))
	if err := WritePrometheus(&out, Part{View: m.View(Filter{})}); err != nil {
		t.Fatal(err)
	}
	for want, n := range map[string]int{`state="UP"} 2`: 1, `state="DOWN"} 1`: 1, `state="MAINT"} 0`: 1, "limit_sessions": 0, "queue_limit": 0} {
		if got := strings.Count(out.String(), want); got != n {
			t.Errorf("%s is there %d times:\n%s", want, got, out.String())
		}
	}
}

type brokenWriter struct{ left int }

var errBroken = errors.New("broken")

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestWritersSayWhenTheyCannotWrite(t *testing.T) {
	tab := parse(t, "# pxname,svname,stot,type,\n"+strings.Repeat("p,s,1,2,\n", 20000)+"\n")
	v := tab.View(Filter{})
	for name, write := range map[string]func(w *brokenWriter) error{
		"CSV": func(w *brokenWriter) error { return v.WriteCSV(w) }, "JSON": func(w *brokenWriter) error { return v.WriteJSON(w) },
		"Prometheus": func(w *brokenWriter) error { return WritePrometheus(w, Part{View: v}) },
	} {
		for _, left := range []int{0, 100_000} {
			if err := write(&brokenWriter{left}); !errors.Is(err, errBroken) {
				t.Errorf("%s after %d bytes: %v", name, left, err)
			}
		}
	}
	if err := new(Table).View(Filter{}).WriteCSV(&bytes.Buffer{}); err == nil {
		t.Error("an empty table was written")
	}
	if got := SortKeys(); !slices.Contains(got, "errors") {
		t.Errorf("%v", got)
	}
}

func TestFieldsAreQuotedWhereCSVNeedsIt(t *testing.T) {
	for field, want := range map[string]string{
		"plain": "plain", "two words": "two words", "a,b": `"a,b"`, `a"b`: `"a""b"`, "a\nb": "\"a\nb\"", "a\rb": "\"a\rb\"", `"`: `""""`, "": "",
	} {
		if got := string(appendQuoted(nil, []byte(field))); got != want {
			t.Errorf("%q is written as %s, want %s", field, got, want)
		}
	}
}

func TestErrorsAreSortedByTheSumOfAllKinds(t *testing.T) {
	table := parse(t, "# pxname,svname,type,ereq,econ,eresp,eint\na,FRONTEND,0,1,,,0\nb,FRONTEND,0,0,,,9\nc,BACKEND,1,,3,2,0\nd,BACKEND,1,,0,4,0\n\n")
	v := table.View(Filter{})
	if err := v.Sort("errors"); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, i := range v.Rows {
		got = append(got, table.Proxy(i)...)
	}
	if string(got) != "bcda" {
		t.Errorf("the order is %s", got)
	}
}
