package haproxy

import (
	"io"
	"strconv"
	"strings"
	"sync"
)

// A metric is how HAProxy's own exporter calls a field.
type metric struct {
	field, name string
	counter     bool
	millis      bool   // in seconds there, in milliseconds in the dump
	code        string // the label "code"
	types       [types]bool
}

// exported are HAProxy's names (addons/promex/service-prometheus.c of 2.6, and
// src/stats-proxy.c of 3.5, which has some that 2.6 has not) without their prefixes
// "haproxy_frontend_" and so on. "c" is a counter, "g" a gauge, "ms" a gauge in
// milliseconds. The agg_ fields are counted from the servers: see aggregates.
const exported = `
qcur current_queue g BS
qmax max_queue g BS
scur current_sessions g FBSL
smax max_sessions g FBSL
slim limit_sessions g FBSL
stot sessions_total c FBSL
bin bytes_in_total c FBSL
bout bytes_out_total c FBSL
dreq requests_denied_total c FBL
dresp responses_denied_total c FBSL
ereq request_errors_total c FL
econ connection_errors_total c BS
eresp response_errors_total c BS
wretr retry_warnings_total c BS
wredis redispatch_warnings_total c BS
weight weight g BS
act active_servers g B
act active g S
bck backup_servers g B
bck backup g S
chkfail check_failures_total c S
chkdown check_up_down_total c BS
lastchg check_last_change_seconds g BS
downtime downtime_seconds_total c BS
qlimit queue_limit g S
throttle current_throttle g S
lbtot loadbalanced_total c BS
rate current_session_rate g FBS
rate_lim limit_session_rate g F
rate_max max_session_rate g FBS
check_code check_code g S
check_duration check_duration_seconds ms S
hrsp_1xx http_responses_total{1xx} c FBS
hrsp_2xx http_responses_total{2xx} c FBS
hrsp_3xx http_responses_total{3xx} c FBS
hrsp_4xx http_responses_total{4xx} c FBS
hrsp_5xx http_responses_total{5xx} c FBS
hrsp_other http_responses_total{other} c FBS
req_rate_max http_requests_rate_max g F
req_tot http_requests_total c FBS
cli_abrt client_aborts_total c BS
srv_abrt server_aborts_total c BS
comp_in http_comp_bytes_in_total c FB
comp_out http_comp_bytes_out_total c FB
comp_byp http_comp_bytes_bypassed_total c FB
comp_rsp http_comp_responses_total c FB
lastsess last_session_seconds g BS
qtime queue_time_average_seconds ms BS
ctime connect_time_average_seconds ms BS
rtime response_time_average_seconds ms BS
ttime total_time_average_seconds ms BS
conn_rate_max connections_rate_max g F
conn_tot connections_total c FL
intercepted intercepted_requests_total c F
dcon denied_connections_total c FL
dses denied_sessions_total c FL
wrew failed_header_rewriting_total c FBSL
connect connection_attempts_total c BS
reuse connection_reuses_total c BS
cache_lookups http_cache_lookups_total c FB
cache_hits http_cache_hits_total c FB
cache_hint_hits http_cache_hint_hits_total c FB
srv_icur idle_connections_current g S
src_ilim idle_connections_limit g S
qtime_max max_queue_time_seconds ms BS
ctime_max max_connect_time_seconds ms BS
rtime_max max_response_time_seconds ms BS
ttime_max max_total_time_seconds ms BS
eint internal_errors_total c FBSL
idle_conn_cur unsafe_idle_connections_current g S
safe_conn_cur safe_idle_connections_current g S
used_conn_cur used_connections_current g S
need_conn_est need_connections_current g S
uweight uweight g BS
priv_idle_cur private_idle_connections_current g S
reqbin req_bytes_in_total c FBSL
reqbout req_bytes_out_total c FBSL
resbin res_bytes_in_total c FBSL
resbout res_bytes_out_total c FBSL
`

var metrics = sync.OnceValue(func() []metric {
	var out []metric
	for line := range strings.Lines(exported) {
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		m := metric{field: w[0], counter: w[2] == "c", millis: w[2] == "ms"}
		m.name, m.code, _ = strings.Cut(strings.TrimSuffix(w[1], "}"), "{")
		for t, letter := range "FBSL" {
			m.types[t] = strings.ContainsRune(w[3], letter)
		}
		out = append(out, m)
	}
	return out
})

// statesOf are those that HAProxy's exporter writes, in its order.
func statesOf(t Type) []string {
	switch t {
	case Frontend:
		return []string{"DOWN", "UP"}
	case Backend:
		return []string{"DOWN", "UP"}
	case Server:
		return []string{"DOWN", "UP", "MAINT", "DRAIN", "NOLB"}
	case Listener:
		return []string{"WAITING", "OPEN", "FULL"}
	}
	return nil
}

// exportedState is what the exporter calls a state of the dump.
func exportedState(t Type, state []byte) string {
	word := string(state)
	if i := strings.IndexAny(word, " ("); i >= 0 {
		word = word[:i]
	}
	switch {
	case t == Frontend && word == "OPEN", word == "no": // no check
		return "UP"
	case t == Frontend && word == "STOP":
		return "DOWN"
	}
	return word
}

// A Part is a view and the labels of its rows.
type Part struct {
	View *View
	// Labels are written first, in this order: names and values by turns.
	Labels []string
}

// WritePrometheus writes the rows in the text format of Prometheus (version 0.0.4), with
// the names and labels of HAProxy's own exporter where they mean the same. The metric
// status, and of servers check_status, counts the processes in a state; a backend's
// agg_server_status and agg_check_status count its servers that one process at least sees
// in it. A frontend that is paused is PAUSED, not UP, and averages are those of the dump,
// not too small before 512 requests, as the exporter's are. What the dump leaves empty and
// what could not be merged is left out. Fields that the exporter does not have are written
// if Fields of the view names them, as "haproxy_backend_" and the field, as gauges.
//
// Several parts, such as one a process, become one exposition; their labels must differ.
func WritePrometheus(w io.Writer, parts ...Part) error {
	p := promWriter{w: w, out: make([]byte, 0, writeSize+writeSize/4)}
	for typ := range Other {
		p.states(typ, "status", parts)
		last := ""
		for _, m := range metrics() {
			if m.field == "check_code" && typ == Server { // where the exporter has it
				p.states(typ, "check_status", parts)
			}
			if m.types[typ] {
				p.metric(typ, m, m.name != last, parts)
				last = m.name
			}
		}
		if typ == Backend {
			p.aggregates(parts)
		}
		for _, m := range p.more(typ, parts) {
			p.metric(typ, m, true, parts)
		}
	}
	p.flush(0)
	return p.err
}

type promWriter struct {
	w   io.Writer
	out []byte
	err error
}

func (p *promWriter) flush(least int) {
	if len(p.out) <= least || p.err != nil {
		return
	}
	_, p.err = p.w.Write(p.out)
	p.out = p.out[:0]
}

// more are the fields that views ask for and that the exporter does not have.
func (p *promWriter) more(typ Type, parts []Part) []metric {
	var out []metric
	seen := make(map[string]bool)
	for _, m := range metrics() {
		seen[m.field] = m.types[typ] || seen[m.field]
	}
	seen["status"], seen["check_status"] = true, typ == Server
	for _, part := range parts {
		for _, name := range part.View.Fields {
			if !seen[name] && (typ != Backend || !isAggregate(name)) {
				seen[name] = true
				m := metric{field: name, name: metricName(name)}
				m.types[typ] = true
				out = append(out, m)
			}
		}
	}
	return out
}

// metricName makes a name of a field that Prometheus takes.
func metricName(field string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, field)
}

// wants reports whether the view writes a field.
func (v *View) wants(field string) bool {
	if len(v.Fields) == 0 {
		return true
	}
	for _, f := range v.Fields {
		if f == field {
			return true
		}
	}
	return false
}

func (p *promWriter) header(typ Type, name, kind string) {
	p.out = append(p.out, "# TYPE haproxy_"...)
	p.out = append(p.out, typ.String()...)
	p.out = append(p.out, '_')
	p.out = append(p.out, name...)
	p.out = append(p.out, ' ')
	p.out = append(p.out, kind...)
	p.out = append(p.out, '\n')
}

// metric writes one field of all rows of a type, and its header if first says so.
func (p *promWriter) metric(typ Type, m metric, first bool, parts []Part) {
	for _, part := range parts {
		v := part.View
		t := v.Table
		col := t.Column(m.field)
		if col < 0 || !v.wants(m.field) {
			continue
		}
		for _, i := range v.Rows {
			if t.types[i] != typ {
				continue
			}
			c := t.cell(i, col)
			n, ok := t.Int(i, col)
			if !ok {
				continue
			}
			if first {
				kind := "gauge"
				if m.counter {
					kind = "counter"
				}
				p.header(typ, m.name, kind)
				first = false
			}
			p.labels(typ, m.name, part, i)
			if m.code != "" {
				p.label(",", "code", []byte(m.code))
			}
			p.out = append(p.out, "} "...)
			switch {
			case m.millis:
				p.out = strconv.AppendFloat(p.out, float64(n)/1000, 'f', -1, 64)
			case isText(c): // beyond an int64
				p.out = t.appendCell(p.out, c)
			default:
				p.out = strconv.AppendInt(p.out, n, 10)
			}
			p.out = append(p.out, '\n')
			p.flush(writeSize)
		}
	}
}

// labels writes the name and the labels, without the closing brace.
func (p *promWriter) labels(typ Type, name string, part Part, i int) {
	t := part.View.Table
	p.out = append(p.out, "haproxy_"...)
	p.out = append(p.out, typ.String()...)
	p.out = append(p.out, '_')
	p.out = append(p.out, name...)
	sep := "{"
	for k := 0; k+1 < len(part.Labels); k += 2 {
		p.label(sep, part.Labels[k], []byte(part.Labels[k+1]))
		sep = ","
	}
	p.label(sep, "proxy", t.Proxy(i))
	if typ == Server || typ == Listener {
		p.label(",", typ.String(), t.Server(i))
	}
}

func (p *promWriter) label(sep, name string, value []byte) {
	p.out = append(p.out, sep...)
	p.out = append(p.out, name...)
	p.out = append(p.out, `="`...)
	for _, c := range []byte(strings.ToValidUTF8(string(value), "\ufffd")) {
		switch c {
		case '\\', '"':
			p.out = append(p.out, '\\', c)
		case '\n':
			p.out = append(p.out, `\n`...)
		default:
			p.out = append(p.out, c)
		}
	}
	p.out = append(p.out, '"')
}

// states writes how many processes say which state: of rows in field status, or of the
// last check of servers in field check_status.
func (p *promWriter) states(typ Type, field string, parts []Part) {
	first := true
	for _, part := range parts {
		v := part.View
		col := v.Table.Column(field)
		if col < 0 || !v.wants(field) {
			continue
		}
		for _, i := range v.Rows {
			if v.Table.types[i] != typ || field == "check_status" && v.Table.cell(i, col) == empty {
				continue
			}
			if first {
				p.header(typ, field, "gauge")
				first = false
			}
			p.statesOf(typ, field, part, i, col)
			p.flush(writeSize)
		}
	}
}

func (p *promWriter) statesOf(typ Type, field string, part Part, i, col int) {
	states := statesOf(typ)
	if field == "check_status" {
		states = checkStates
	}
	var known [16]int
	var others []string
	var counts []int
	part.View.Table.values(i, col, func(state []byte, n int) {
		word := exportedState(typ, trimProgress(state))
		for k, s := range states {
			if s == word {
				known[k] += n
				return
			}
		}
		if field == "status" { // of a check that was never made, the exporter writes no state
			others, counts = append(others, word), append(counts, n)
		}
	})
	write := func(state string, n int) {
		p.labels(typ, field, part, i)
		p.label(",", "state", []byte(state))
		p.out = append(p.out, "} "...)
		p.out = strconv.AppendInt(p.out, int64(n), 10)
		p.out = append(p.out, '\n')
	}
	for k, s := range states {
		write(s, known[k])
	}
	for k, s := range others {
		write(s, counts[k])
	}
}
