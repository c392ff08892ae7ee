package haproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"myrmidon/internal/testkit/haproxyd"
)

// large is as big as the dumps of the article: about 1,550 rows.
var large = haproxyd.Config{Frontends: 48, Backends: 150, Servers: 9}

// dumps are of four real processes with some traffic.
func dumps(tb testing.TB) [][]byte {
	tb.Helper()
	var out [][]byte
	for i := range 4 {
		s := haproxyd.Start(tb, large)
		for k := range 20 {
			s.Get(k, 1+i, "/missing")
			s.Get(k, 1, "/")
		}
		s.WaitState("be_000", "web-000-01", "DOWN")
		replies, err := Read(within(tb), Target{Address: s.Socket})
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, replies[0].CSV)
		s.Stop()
	}
	return out
}

func readAll(tb testing.TB, cfg Config) *Snapshot {
	tb.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	s, err := ReadAll(context.Background(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestCSVTypedAndJSONOfOneProcessAreTheSame(t *testing.T) {
	s := haproxyd.Start(t, haproxyd.Config{Frontends: 3, Backends: 3, Servers: 5, Extra: `
backend odd
  server s 127.0.0.1:1 disabled cookie "x,y"
`})
	s.Get(0, 5, "/")
	s.Get(1, 2, "/missing")
	s.WaitState("be_002", "web-002-01", "DOWN")
	answer := func(command string) []byte {
		out, err := s.Ask(command)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(out)
	}
	// Checks go on and ages grow: what is compared are answers between two dumps in which
	// not a byte differs, so nothing is left out.
	var raw, typedRaw, jsonRaw []byte
	for range 200 {
		raw, typedRaw, jsonRaw = answer("show stat"), answer("show stat typed"), answer("show stat json")
		if bytes.Equal(answer("show stat"), raw) {
			break
		}
		raw = nil
	}
	if raw == nil {
		t.Fatal("no two dumps were the same")
	}
	csv := parse(t, string(raw))
	typed, tags, err := ParseTyped(typedRaw)
	if err != nil {
		t.Fatal(err)
	}
	js, jsonTags, err := ParseJSON(jsonRaw)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for name, other := range map[string]*Table{"typed": typed, "JSON": js} {
		if other.Len() != csv.Len() {
			t.Fatalf("%s has %d rows, CSV %d", name, other.Len(), csv.Len())
		}
		for i := range csv.Len() {
			for _, col := range csv.Columns() {
				if col == "-" { // it separates modules, in CSV alone
					continue
				}
				got, want := other.Text(i, other.Column(col)), csv.Text(i, csv.Column(col))
				if got != want {
					t.Errorf("%s: row %d, %s: %q, in CSV %q", name, i, col, got, want)
				}
				if want != "" {
					compared++
				}
			}
		}
	}
	if compared < 1000 {
		t.Errorf("only %d cells were compared", compared)
	}
	if n := csv.Column("cookie"); csv.Text(csv.Len()-2, n) != "x,y" {
		t.Errorf("the cookie is %q", csv.Text(csv.Len()-2, n))
	}
	for field, byType := range tags {
		for typ := range byType { // JSON does not say it
			byType[typ].Persistence = 0
		}
		if byType != jsonTags[field] {
			t.Errorf("%s: %v in typed, %v in JSON", field, byType, jsonTags[field])
		}
	}
}

func TestLearnedRulesAreThoseBuiltIn(t *testing.T) {
	s := haproxyd.Start(t, haproxyd.Config{Frontends: 2, Backends: 2, Servers: 4})
	for name, target := range map[string]Target{"socket": {Address: s.Socket}, "tcp": {Address: s.TCP}} {
		replies, err := Read(within(t), target)
		if err != nil {
			t.Fatal(err)
		}
		tags, err := LearnTags(within(t), target, parse(t, string(replies[0].CSV)))
		if err != nil {
			t.Fatal(err)
		}
		version := replies[0].Process.Version
		rules := (*Rules)(nil).Learn(tags, version)
		if !strings.HasPrefix(version, "2.6.") {
			t.Logf("%s: HAProxy %s may have other tags", name, version)
			continue
		}
		// Those of fields that no row of the samples uses are not written.
		unused := strings.Fields("throttle tracked hanafail src_ilim agent_status agent_code agent_duration agent_desc agent_rise agent_fall agent_health last_agt")
		if name == "tcp" {
			unused = append(unused, "addr", "cookie", "algo") // hidden from level user
		}
		for _, want := range DefaultRules().Fields() {
			if want.Version != "2.6.12" {
				continue // a later field
			}
			got := rules.field(want.Name, want.Type)
			if got.Rule != want.Rule || got.Tag != want.Tag {
				t.Errorf("%s: %s of a %v is learned as %v by %v, built in as %v by %v", name, want.Name, want.Type, got.Rule, got.Tag, want.Rule, want.Tag)
			}
			if learned := got.Version == version; learned == slices.Contains(unused, want.Name) {
				t.Errorf("%s: that %s of a %v was learned is %v", name, want.Name, want.Type, learned)
			}
		}
	}
}

func TestFourProcessesBecomeOne(t *testing.T) {
	var cfg Config
	var tables []*Table
	for i := range 4 {
		s := haproxyd.Start(t, large)
		s.Get(0, 3+i, "/")
		s.Get(1, 2, "/missing")
		s.WaitState("be_000", "web-000-01", "DOWN")
		s.WaitState("be_149", "web-149-01", "DOWN")
		if i == 3 {
			if _, err := s.Ask("disable server be_007/web-007-05"); err != nil {
				t.Fatal(err)
			}
		}
		cfg.Targets = append(cfg.Targets, Target{Address: s.Socket})
	}
	snap := readAll(t, cfg)
	for _, target := range cfg.Targets {
		replies, err := Read(within(t), target)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, parse(t, string(replies[0].CSV)))
	}
	m := snap.Table
	if m.Len() < 1500 || m.Len() != tables[0].Len() {
		t.Fatalf("%d rows, of %d", m.Len(), tables[0].Len())
	}
	// What a few lines of plain Go find.
	for i := range m.Len() {
		for _, field := range []string{"stot", "hrsp_2xx", "hrsp_4xx", "bin", "req_tot"} {
			col := m.Column(field)
			if strings.HasPrefix(string(m.Proxy(i)), "origin") {
				continue // checks go on
			}
			var want int64
			for _, tab := range tables {
				n, _ := tab.Int(i, col)
				want += n
			}
			if got, _ := m.Int(i, col); got != want {
				t.Errorf("%s/%s %s is %d, want %d", m.Proxy(i), m.Server(i), field, got, want)
			}
		}
	}
	find := func(proxy, server string) int {
		for i := range m.Len() {
			if string(m.Proxy(i)) == proxy && string(m.Server(i)) == server {
				return i
			}
		}
		t.Fatalf("no row %s/%s", proxy, server)
		return -1
	}
	for _, c := range []struct{ proxy, server, field, want string }{
		{"be_007", "web-007-05", "status", "no check 3/4, MAINT 1/4"},
		{"be_000", "web-000-01", "status", "DOWN"},
		{"be_000", "web-000-00", "weight", "10"},
		{"fe_000", "FRONTEND", "stot", "4"}, // a connection each
		{"fe_000", "FRONTEND", "hrsp_2xx", "18"},
		{"fe_001", "FRONTEND", "hrsp_4xx", "8"},
		{"fe_000", "FRONTEND", "slim", "2000"},
		{"fe_000", "sock-1", "type", "3"},
		{"be_000", "BACKEND", "mode", "http"},
		{"be_007", "web-007-07", "lastsess", "-1"},
	} {
		if got := m.Text(find(c.proxy, c.server), m.Column(c.field)); got != c.want {
			t.Errorf("%s/%s %s is %q, want %q", c.proxy, c.server, c.field, got, c.want)
		}
	}
	if got := m.State(find("be_007", "web-007-05")); got != "MAINT" {
		t.Errorf("the state is %s", got)
	}
}

func TestTCPAndThePageSayWhatTheSocketSays(t *testing.T) {
	s := haproxyd.Start(t, haproxyd.Config{Frontends: 1, Backends: 1, Servers: 2})
	s.Get(0, 3, "/")
	var want string
	for _, address := range []string{s.Socket, "unix://" + s.Socket, s.TCP, "tcp://" + s.TCP, s.Page, s.Page + ";csv"} {
		snap := readAll(t, Config{Targets: []Target{{Address: address}}})
		p := snap.Targets[0].Processes[0]
		if strings.HasPrefix(address, "http") != (p.PID == 0) || p.Target != strings.TrimSuffix(address, ";csv") {
			t.Errorf("%s: %+v", address, p)
		}
		var got []string
		for i := range snap.Table.Len() {
			got = append(got, fmt.Sprintf("%s/%s %s", snap.Table.Proxy(i), snap.Table.Server(i), snap.Table.Text(i, snap.Table.Column("hrsp_2xx"))))
		}
		text := strings.Join(got[2:], "\n") // behind the page itself
		text = text[strings.Index(text, "fe_000"):]
		if want == "" {
			want = text
		}
		if text != want {
			t.Errorf("%s says\n%s\nand the socket\n%s", address, text, want)
		}
	}
}

func TestPrometheusIsAsHAProxysOwnExporterHasIt(t *testing.T) {
	s := haproxyd.Start(t, haproxyd.Config{Frontends: 2, Backends: 2, Servers: 5})
	s.Get(0, 4, "/")
	s.Get(1, 2, "/missing")
	s.WaitState("be_000", "web-000-01", "DOWN")
	s.WaitState("be_001", "web-001-01", "DOWN")
	scrape := func() (samples map[string]float64, kinds map[string]string) {
		resp, err := http.Get(strings.TrimSuffix(s.Page, "/stats") + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return exposition(string(body))
	}
	theirs, theirTypes := scrape()
	var out bytes.Buffer
	table := readAll(t, Config{Targets: []Target{{Address: s.Socket}}}).Table
	if err := WritePrometheus(&out, Part{View: table.View(Filter{})}); err != nil {
		t.Fatal(err)
	}
	ours, ourTypes := exposition(out.String())
	for column, metric := range map[string]string{"qtime": "queue", "ctime": "connect", "rtime": "response", "ttime": "total"} {
		ms, err := strconv.ParseFloat(cell(t, table, "be_000", "web-000-04", column), 64)
		name := fmt.Sprintf(`haproxy_server_%s_time_average_seconds{proxy="be_000",server="web-000-04"}`, metric)
		if got, ok := ours[name]; err != nil || !ok || got != ms/1000 {
			t.Errorf("%s is %v, its %s %v ms, %v", name, got, column, ms, err)
		}
	}
	// A stream is accounted for when it has ended, which is after its client has the answer.
	after, _ := scrape()
	if len(ours) < 300 {
		t.Fatalf("only %d samples", len(ours))
	}
	// Older ones have what these are made of, and leave them out.
	later := regexp.MustCompile(`_current_session_rate|server_(active|backup|http_requests_total)|listener_connections_total`)
	for name, value := range ours {
		their, ok := theirs[name]
		if !ok {
			if !later.MatchString(name) {
				t.Errorf("%s is ours alone", name)
			}
			continue
		}
		if strings.Contains(name, "_time_average_seconds") {
			// Theirs of 2.6 are over 512 requests, also where there were four, and rounded up: they
			// say only whether there was any time.
			if (value > 0) != (their > 0) && (value > 0) != (after[name] > 0) {
				t.Errorf("%s is %v, theirs %v", name, value, their)
			}
			continue
		}
		moving := regexp.MustCompile(`last|downtime|(server|backend)_check_|rate|proxy="(page|origin)"|server="web-...-0[01]"|"be_...".* (backend|server)_(sessions|bytes)`).MatchString(name)
		if value != their && value != after[name] && !moving {
			t.Errorf("%s is %v, theirs %v", name, value, their)
		}
	}
	for name, kind := range ourTypes {
		if theirTypes[name] != kind && !(theirTypes[name] == "" && later.MatchString(name)) {
			t.Errorf("%s is a %s, theirs a %s", name, kind, theirTypes[name])
		}
	}
	for name := range theirs {
		if _, ok := ours[name]; !ok && theirs[name] == theirs[name] &&
			!regexp.MustCompile(`^haproxy_(process|sticktable|resolver)|check_code`).MatchString(name) {
			t.Errorf("%s is theirs alone: %v", name, theirs[name])
		}
	}
}

// exposition reads samples and types of Prometheus's text format.
func exposition(text string) (samples map[string]float64, kinds map[string]string) {
	samples, kinds = make(map[string]float64), make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(line); strings.HasPrefix(line, "# TYPE") {
			kinds[f[2]] = f[3]
		} else if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			samples[line[:i]], _ = strconv.ParseFloat(line[i+1:], 64)
		}
	}
	return samples, kinds
}
