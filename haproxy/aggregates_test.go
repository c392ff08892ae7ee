package haproxy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestBackendsCountTheirServersOnceAState(t *testing.T) {
	const head = "# pxname,svname,status,check_status,type,\n"
	one := parse(t, head+"app,a,UP,* L7OK,2,\napp,b,DOWN 1/2,L4CON,2,\napp,c,no check,,2,\napp,d,UP 1/3,L7OK,2,\napp,BACKEND,UP,,1,\nlone,BACKEND,DOWN,,1,\n\n")
	two := parse(t, head+"app,a,UP,L7OK,2,\napp,b,UP,L4OK,2,\napp,c,MAINT,,2,\napp,d,UP,L7OK,2,\napp,BACKEND,UP,,1,\nlone,BACKEND,DOWN,,1,\n\n")
	both, err := Merge(nil, one, two)
	if err != nil {
		t.Fatal(err)
	}
	write := func(f Filter, fields ...string) string {
		v := both.View(f)
		v.Fields = fields
		var out bytes.Buffer
		if err := WritePrometheus(&out, Part{View: v}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	// a and d are UP to both, b and c to one of them. Without a row of a server among those to write.
	all := write(Filter{Types: []Type{Backend}})
	for _, want := range []string{
		`agg_server_status{proxy="app",state="UP"} 4`, `agg_server_status{proxy="app",state="DOWN"} 1`, `agg_server_status{proxy="app",state="MAINT"} 1`,
		`agg_check_status{proxy="app",state="L7OK"} 2`, `agg_check_status{proxy="app",state="L4CON"} 1`, `agg_check_status{proxy="app",state="L4OK"} 1`,
		`agg_server_status{proxy="lone",state="UP"} 0`,
	} {
		if !strings.Contains(all, "haproxy_backend_"+want+"\n") {
			t.Errorf("it lacks %s:\n%s", want, all)
		}
	}
	var each bytes.Buffer
	if err := WritePrometheus(&each, Part{View: one.View(Filter{}), Labels: []string{"process", "1"}}, Part{View: two.View(Filter{}), Labels: []string{"process", "2"}}); err != nil {
		t.Fatal(err)
	}
	for process, up := range map[string]int{"1": 3, "2": 3} {
		if want := fmt.Sprintf(`haproxy_backend_agg_server_status{process="%s",proxy="app",state="UP"} %d`, process, up); !strings.Contains(each.String(), want+"\n") {
			t.Errorf("by process it lacks %s:\n%s", want, each.String())
		}
	}
	if got := write(Filter{}, "stot"); strings.Contains(got, "agg_") {
		t.Errorf("they are written though only stot is asked for:\n%s", got)
	}
	got := write(Filter{}, "agg_check_status")
	if strings.Count(got, "# TYPE haproxy_backend_agg_check_status gauge") != 1 || strings.Contains(got, "agg_server") {
		t.Errorf("asked for agg_check_status alone:\n%s", got)
	}
}

func TestServersCountWhatTheChecksOfProcessesSay(t *testing.T) {
	const head = "# pxname,svname,status,check_status,type,\n"
	var tables []*Table
	for _, check := range []string{"L7OK", "* L7OK", "L4CON", "INI", ""} {
		tables = append(tables, parse(t, head+"app,a,UP,"+check+",2,\napp,b,no check,,2,\napp,BACKEND,UP,,1,\n\n"))
	}
	view := merge(t, tables...).View(Filter{})
	view.Fields = []string{"check_status"}
	var out bytes.Buffer
	if err := WritePrometheus(&out, Part{View: view}); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for line := range strings.Lines(out.String()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok {
			got[name] = value
		}
	}
	for _, state := range checkStates {
		want := map[string]string{"L7OK": "2", "L4CON": "1"}[state]
		if want == "" {
			want = "0"
		}
		if name := `haproxy_server_check_status{proxy="app",server="a",state="` + state + `"`; got[name] != want {
			t.Errorf("%s is %q, want %s", name, got[name], want)
		}
	}
	// The exporter has neither servers that are not checked nor states before the first check.
	if len(got) != len(checkStates) || strings.Count(out.String(), "# TYPE") != 1 {
		t.Errorf("got\n%s", out.String())
	}
}
