package elb_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"myrmidon/elb"
)

const (
	albLine    = `https 2026-03-01T10:20:30.123456Z app/web/0123456789abcdef [2001:db8::7]:51422 10.0.1.20:8080 0.001 0.215 -1 200 - 1496 48340 "GET https://shop.example:443/a b?q=1 HTTP/2.0" "Agent \x22quoted\x22" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web/1 "Root=1-2-3" "shop.example" "session-reused" 20 2026-03-01T10:20:30.001000Z "waf,forward" "-" "-" "10.0.1.20:8080 10.0.1.21:8080" "502 -" "-" "-" TID_1 "-" "-" "-" 10.0.9.9`
	nlbLine    = `tls 2.0 2026-03-01T10:20:30 net/edge/0123456789abcdef 0a1b2c3d 198.51.100.4:40000 10.0.0.5:443 5 - 98 246 - arn:aws:acm:eu-west-1:123456789012:certificate/1 - ECDHE-RSA-AES128-SHA tlsv12 - edge.example h2 h2 "h2","http/1.1" 2026-03-01T10:20:29`
	clbLine    = `2026-03-01T10:20:30.123456Z edge 198.51.100.4:40000 10.0.0.5:80 0.000043 0.000785 0.000023 200 200 0 612 "GET http://shop.example:80/ HTTP/1.1" "\"crawler of things\" 1.0" - -`
	connLine   = `2026-03-01T10:20:30.123456Z 198.51.100.4 40000 443 TLSv1.3 TLS_AES_128_GCM_SHA256 0.004 "CN=client,O=Example Ltd" NotBefore=2023-09-21T22:43:21Z;NotAfter=2026-06-17T22:43:21Z 0FEF25 Success TID_1`
	healthLine = `http 2026-03-01T10:20:30.123456Z 0.0021 10.0.1.20:8080 targetgroup/web/1 unhealthy 503 Target.ResponseCodeMismatch`
	cfLine     = "2026-03-01\t10:20:30\tFRA56-P1\t224281\t198.51.100.4\tGET\td1.cloudfront.net\t/a%20b\t000\t-\tMozilla/5.0%20(X)\tq=1\t-\tMiss\tabc==\tshop.example\thttps\t883\t0.036"
	s3Line     = `79a5 logs.example [01/Mar/2026:12:20:30 +0200] 198.51.100.4 - 3E57427F3EXAMPLE REST.GET.OBJECT a/%2522 "GET /a/" HTTP/1.1" 403 AccessDenied 243 - 8 - "-" "curl "7" on x" - hostid= SigV4 ECDHE-RSA-AES128-GCM-SHA256 AuthHeader logs.example.s3.amazonaws.com TLSv1.3 - Yes eu-west-1`
)

func TestLinesOfEachFormat(t *testing.T) {
	for _, test := range []struct {
		name   string
		format elb.Format
		line   string
		want   map[string]any // some of the fields; nil means absent
	}{
		{"an application load balancer's", elb.ALB, albLine, map[string]any{
			"type": "https", "time": "2026-03-01T10:20:30.123456Z", "client_ip": "2001:db8::7", "client_port": 51422.0,
			"target_ip": "10.0.1.20", "response_processing_time": -1.0, "target_status_code": nil, "request": nil,
			"request_method": "GET", "request_url": "https://shop.example:443/a b?q=1", "request_protocol": "HTTP/2.0",
			"user_agent": `Agent \x22quoted\x22`, "target_port_list": []any{"10.0.1.20:8080", "10.0.1.21:8080"},
			"target_status_code_list": []any{502.0, nil}, "redirect_url": nil, "ip_address": "10.0.9.9", "extra": nil, "malformed": nil,
		}},
		{"with columns that AWS adds next year", elb.ALB, albLine + ` new "and \x22newer"`, map[string]any{
			"ip_address": "10.0.9.9", "extra": []any{"new", `and \x22newer`},
		}},
		{"of a former year", elb.ALB, strings.Join(strings.Fields(albLine)[:12], " "), map[string]any{
			"sent_bytes": 48340.0, "request_url": nil, "ip_address": nil,
		}},
		{"a number that is none", elb.ALB, strings.Replace(albLine, " 200 - 1496 ", " abc 1e3 0x10 ", 1), map[string]any{
			"elb_status_code": nil, "target_status_code": nil, "received_bytes": nil, "sent_bytes": 48340.0,
			"malformed": map[string]any{"elb_status_code": "abc", "target_status_code": "1e3", "received_bytes": "0x10"},
		}},
		{"an address that is none", elb.ALB, strings.Replace(albLine, "10.0.1.20:8080", "lambda:http", 1), map[string]any{
			"target_ip": nil, "target_port": nil, "malformed": map[string]any{"target_ip": "lambda", "target_port": "http"},
		}},
		{"an IPv6 address without brackets", elb.ALB, strings.Replace(albLine, "[2001:db8::7]:51422", "2001:db8::7:51422", 1), map[string]any{
			"client_ip": "2001:db8::7", "client_port": 51422.0,
		}},
		{"an IPv6 address without a port", elb.ALB, strings.Replace(albLine, "[2001:db8::7]:51422", "2001:db8::7", 1), map[string]any{
			"client_ip": "2001:db8::7", "client_port": nil,
		}},
		{"a request that does not split", elb.ALB, strings.Replace(albLine, "GET https://shop.example:443/a b?q=1 HTTP/2.0", "- http://shop.example:80- ", 1), map[string]any{
			"request": "- http://shop.example:80- ", "request_method": nil, "request_url": "http://shop.example:80-", "request_protocol": nil,
		}},
		{"a request of one word", elb.ALB, strings.Replace(albLine, "GET https://shop.example:443/a b?q=1 HTTP/2.0", "GARBAGE", 1), map[string]any{
			"request": "GARBAGE", "request_method": nil, "request_url": nil, "request_protocol": nil,
		}},
		{"a list of codes with a word", elb.ALB, strings.Replace(albLine, `"502 -"`, `"502 x"`, 1), map[string]any{
			"target_status_code_list": nil, "malformed": map[string]any{"target_status_code_list": "502 x"},
		}},
		{"bytes that JSON cannot hold", elb.ALB, strings.Replace(albLine, "Agent", "A\x00\x1f\xff\u00e9\t", 1), map[string]any{
			"user_agent": "A\x00\x1f\ufffd\u00e9\t" + ` \x22quoted\x22`,
		}},
		{"a network load balancer's", elb.NLB, nlbLine, map[string]any{
			"version": "2.0", "time": "2026-03-01T10:20:30Z", "client_ip": "198.51.100.4", "destination_port": 443.0, "connection_time": 5.0,
			"tls_handshake_time": nil, "alpn_client_preference_list": []any{"h2", "http/1.1"}, "tls_connection_creation_time": "2026-03-01T10:20:29Z",
		}},
		{"a classic load balancer's", elb.Classic, clbLine, map[string]any{
			"elb": "edge", "backend_ip": "10.0.0.5", "backend_port": 80.0, "user_agent": `\"crawler of things\" 1.0`, "ssl_cipher": nil, "sent_bytes": 612.0,
		}},
		{"of a TCP listener", elb.Classic, `2026-03-01T10:20:30.123456Z edge 198.51.100.4:40000 10.0.0.5:80 0.000943 0.00001 0.000015 - - 134 859 "- - - " "-" - -`, map[string]any{
			"elb_status_code": nil, "request": nil, "request_method": nil, "request_url": nil, "request_protocol": nil, "user_agent": nil, "sent_bytes": 859.0,
		}},
		{"a user agent that ends in a backslash", elb.Classic, strings.Replace(clbLine, `"\"crawler of things\" 1.0"`, `"C:\"`, 1), map[string]any{
			"user_agent": `C:\`, "extra": nil,
		}},
		{"a connection's", elb.ALBConnection, connLine, map[string]any{
			"time": "2026-03-01T10:20:30.123456Z", "client_port": 40000.0, "listener_port": 443.0, "tls_handshake_latency": 0.004,
			"leaf_client_cert_subject": "CN=client,O=Example Ltd", "tls_verify_status": "Success", "conn_trace_id": "TID_1",
		}},
		{"a health check's", elb.ALBHealthCheck, healthLine, map[string]any{
			"latency": 0.0021, "target_addr": nil, "target_ip": "10.0.1.20", "target_port": 8080.0, "status_code": 503.0, "reason_code": "Target.ResponseCodeMismatch",
		}},
		{"a health check's of a function", elb.ALBHealthCheck, strings.Replace(healthLine, "10.0.1.20:8080", "arn:aws:lambda:eu-west-1:1:function:f", 1), map[string]any{
			"target_addr": "arn:aws:lambda:eu-west-1:1:function:f", "target_ip": nil, "target_port": nil, "malformed": nil,
		}},
		{"CloudFront's", elb.CloudFront, cfLine, map[string]any{
			"time": "2026-03-01T10:20:30Z", "date": nil, "c_ip": "198.51.100.4", "cs_uri_stem": "/a%20b", "sc_status": 0.0, "cs_referer": nil,
			"cs_user_agent": "Mozilla/5.0%20(X)", "time_taken": 0.036,
		}},
		{"S3's, with quotes that a client sent", elb.S3Access, s3Line, map[string]any{
			"time": "2026-03-01T10:20:30Z", "requester": nil, "request_method": "GET", "request_url": `/a/"`, "http_status": 403.0, "error_code": "AccessDenied",
			"user_agent": `curl "7" on x`, "tls_version": "TLSv1.3", "acl_required": "Yes", "source_region": "eu-west-1", "extra": nil,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := elb.Detect("", []byte(test.line)); got != test.format {
				t.Errorf("Detect = %v, want %v", got, test.format)
			}
			var r elb.Record
			if err := r.Parse(test.format, []byte(test.line)); err != nil {
				t.Fatal(err)
			}
			checkFields(t, decode(t, elb.Encoder{}.AppendJSON(nil, &r)), test.want)
			checkNames(t, &r)
		})
	}
}

// checkFields compares the fields that want names.
func checkFields(t *testing.T, got, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if !equal(got[name], value) {
			t.Errorf("%s = %#v, want %#v", name, got[name], value)
		}
	}
}

func equal(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k := range a {
			if !equal(a[k], b[k]) {
				return false
			}
		}
		return true
	}
	return a == b
}

// checkNames looks at what the two sets of names and Nulls promise.
func checkNames(t *testing.T, r *elb.Record) {
	t.Helper()
	flat := decode(t, elb.Encoder{}.AppendJSON(nil, r))
	nulls := decode(t, elb.Encoder{Nulls: true}.AppendJSON(nil, r))
	ecs := decode(t, elb.Encoder{Names: elb.ECS}.AppendJSON(nil, r))
	if len(flat) != len(ecs) {
		t.Errorf("%d fields, %d in ECS", len(flat), len(ecs))
	}
	for _, f := range r.Fields() {
		value, there := nulls[f.Name]
		if !there || !equal(value, flat[f.Name]) {
			t.Errorf("%s is %v, with nulls %v (there: %t)", f.Name, flat[f.Name], value, there)
		}
		if s, ok := ecs[f.ECS].(string); ok && f.ECS == "http.version" {
			ecs[f.ECS] = "HTTP/" + s
		}
		if !equal(ecs[f.ECS], flat[f.Name]) {
			t.Errorf("%s is %v, as %s %v", f.Name, flat[f.Name], f.ECS, ecs[f.ECS])
		}
	}
}

func TestALBLinesHave39Keys(t *testing.T) {
	for _, line := range [][]byte{fullLine, ordinaryLine, []byte(albLine)} {
		var r elb.Record
		if err := r.Parse(elb.ALB, line); err != nil {
			t.Fatal(err)
		}
		if n := len(topKeys(t, elb.Encoder{Nulls: true}.AppendJSON(nil, &r))); n != 39 {
			t.Errorf("%d keys, want 39", n)
		}
	}
	if len(fullLine) != 702 {
		t.Errorf("the benchmark's line is %d bytes long, not 702", len(fullLine))
	}
}

func TestFieldsAreTyped(t *testing.T) {
	var r elb.Record
	if err := r.Parse(elb.ALB, []byte(albLine)); err != nil {
		t.Fatal(err)
	}
	if n, ok := r.Get("elb_status_code").Int(); n != 200 || !ok {
		t.Errorf("elb_status_code = %d, %t", n, ok)
	}
	if f, ok := r.Get("response_processing_time").Float(); f != -1 || !ok {
		t.Errorf("response_processing_time = %v, %t", f, ok)
	}
	if _, ok := r.Get("user_agent").Int(); ok {
		t.Error("a user agent is an integer")
	}
	want := time.Date(2026, 3, 1, 10, 20, 30, 123456000, time.UTC)
	if at, ok := r.Time(); !ok || !at.Equal(want) || at.Location() != time.UTC {
		t.Errorf("Time = %v, %t", at, ok)
	}
	for _, name := range []string{"target_status_code", "request", "no_such_field"} {
		if v := r.Get(name); !v.Absent() {
			t.Errorf("%s = %q, want absent", name, v.Bytes())
		}
	}
	if v := r.Get("source.ip"); string(v.Bytes()) != "2001:db8::7" || v.Kind() != elb.Address {
		t.Errorf("source.ip = %q, %v", v.Bytes(), v.Kind())
	}
	var items []string
	for item := range r.Get("target_status_code_list").Items() {
		items = append(items, string(item))
	}
	if got := strings.Join(items, "|"); got != "502|-" {
		t.Errorf("items = %s", got)
	}
	for line, format := range map[string]elb.Format{cfLine: elb.CloudFront, s3Line: elb.S3Access, nlbLine: elb.NLB} {
		if err := r.Parse(format, []byte(line)); err != nil {
			t.Fatal(err)
		}
		if at, ok := r.Time(); !ok || !at.Equal(want.Truncate(time.Second)) {
			t.Errorf("%v: Time = %v, %t", format, at, ok)
		}
	}
	position, err := elb.Lookup(elb.NLB, "destination_ip")
	if err != nil || string(r.At(position).Bytes()) != "10.0.0.5" && r.Format() == elb.NLB {
		t.Errorf("At(%d) = %q, %v", position, r.At(position).Bytes(), err)
	}
	if _, err := elb.Lookup(elb.NLB, "elb_status_code"); err == nil || !strings.Contains(err.Error(), "connection_time") {
		t.Errorf("Lookup of a name that is not there: %v", err)
	}
}

func TestAFieldCanBeOverwritten(t *testing.T) {
	line := []byte(albLine)
	var r elb.Record
	if err := r.Parse(elb.ALB, line); err != nil {
		t.Fatal(err)
	}
	url := r.Get("request_url").Bytes()
	for i := bytes.IndexByte(url, '?') + 1; i < len(url); i++ {
		url[i] = '"' // what needs an escape most
	}
	got := decode(t, elb.Encoder{}.AppendJSON(nil, &r))
	if got["request_url"] != `https://shop.example:443/a b?"""` {
		t.Errorf("request_url = %v", got["request_url"])
	}
	_ = append(r.Column(3), "overwritten"...)
	if string(r.Column(4)) != "10.0.1.20:8080" {
		t.Errorf("an append to a column changed the next: %q", r.Column(4))
	}
}

func TestLinesThatAreNone(t *testing.T) {
	for _, test := range []struct {
		name   string
		format elb.Format
		line   string
		want   string
		column int
	}{
		{"a time that is none", elb.ALB, strings.Replace(albLine, "03-01T", "02-30T", 1), "column 2 (time) at byte 6 is no time", 1},
		{"an open quote", elb.ALB, albLine[:strings.Index(albLine, "quoted")], "(user_agent) at byte 174 opens a quote that is never closed", 13},
		{"a health check", elb.ALB, healthLine, "is no load balancer's name", 2},
		{"a balancer's line", elb.ALBHealthCheck, albLine, "column 3 (latency) at byte 34 is no number", 2},
		{"a connection's line", elb.Classic, connLine, "is no address and port", 2},
		{"no version", elb.NLB, albLine, "is no version", 1},
		{"no day", elb.CloudFront, strings.Replace(cfLine, "-03-", "-13-", 1), "is no day", 0},
		{"no time of day", elb.CloudFront, strings.Replace(cfLine, "10:20", "24:20", 1), "is no time of day", 1},
		{"no month", elb.S3Access, strings.Replace(s3Line, "Mar", "Mrz", 1), "is no time such as", 2},
		{"nothing", elb.ALB, "", "column 2 (time) at byte 0", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r elb.Record
			err := r.Parse(test.format, []byte(test.line))
			var syntax *elb.SyntaxError
			if !errors.As(err, &syntax) || !strings.Contains(err.Error(), test.want) || syntax.Format != test.format {
				t.Fatalf("err = %v, want %q", err, test.want)
			}
			if syntax.Column != test.column {
				t.Errorf("column %d, want %d", syntax.Column, test.column)
			}
			if r.Format() != elb.Unknown || string(elb.Encoder{}.AppendJSON(nil, &r)) != "{}" || len(r.Fields()) != 0 {
				t.Error("the record is not empty")
			}
		})
	}
}

func TestDetectByKey(t *testing.T) {
	for key, want := range map[string]elb.Format{
		"AWSLogs/1/elasticloadbalancing/eu-west-1/2026/03/01/1_elasticloadbalancing_eu-west-1_app.web.0123_20260301T1020Z_10.0.0.1_abc.log.gz":                  elb.ALB,
		"AWSLogs/1/elasticloadbalancing/eu-west-1/2026/03/01/1_elasticloadbalancing_eu-west-1_net.edge.0123_20260301T1020Z_abc.log.gz":                          elb.NLB,
		"x/AWSLogs/1/elasticloadbalancing/eu-west-1/2026/03/01/1_elasticloadbalancing_eu-west-1_edge_20260301T1020Z_10.0.0.1_abc.log":                           elb.Classic,
		"AWSLogs/1/elasticloadbalancing/eu-west-1/2026/03/01/conn_log.1_elasticloadbalancing_eu-west-1_app.web.0123_20260301T1020Z_10.0.0.1_abc.log.gz":         elb.ALBConnection,
		"AWSLogs/1/elasticloadbalancing/eu-west-1/2026/03/01/health_check_log_1_elasticloadbalancing_eu-west-1_app.web.0123_20260301T1020Z_10.0.0.1_abc.log.gz": elb.ALBHealthCheck,
		"cf/E2ABCDEFGHIJKL.2026-03-01-10.1a2b3c4d.gz": elb.CloudFront,
		"logs/2026-03-01-10-20-30-3E57427F3EXAMPLE":   elb.S3Access,
		"notes.txt": elb.Unknown,
		"":          elb.Unknown,
	} {
		if got := elb.Detect(key, nil); got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
		if got := elb.Detect(key, []byte(nlbLine)); got != elb.NLB {
			t.Errorf("%s with a line of NLB: %v", key, got)
		}
	}
	for _, line := range []string{"", "hello world, this is", "2026-03-01T10:20:30Z INFO started in 3 s", "\x1f\x8b\x08\x00", `{"a": "b"}`} {
		if got := elb.Detect("", []byte(line)); got != elb.Unknown {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestFormatsHaveNames(t *testing.T) {
	for f := elb.Classic; f <= elb.S3Access; f++ {
		if got, err := elb.ParseFormat(f.String()); got != f || err != nil {
			t.Errorf("ParseFormat(%s) = %v, %v", f, got, err)
		}
		names := make(map[string]bool)
		for _, field := range elb.Fields(f) {
			if field.Source == "" || field.AWS == "" || names[field.Name] || names[field.ECS] {
				t.Errorf("%v: field %+v", f, field)
			}
			names[field.Name], names[field.ECS] = true, true
		}
	}
	if _, err := elb.ParseFormat("unknown"); err == nil || !strings.Contains(err.Error(), "alb-connection") {
		t.Errorf("ParseFormat(unknown): %v", err)
	}
}

func TestALineAllocatesNothing(t *testing.T) {
	var r elb.Record
	dst := make([]byte, 0, 8192)
	for line, format := range map[string]elb.Format{
		string(fullLine): elb.ALB, albLine: elb.ALB, nlbLine: elb.NLB, clbLine: elb.Classic, connLine: elb.ALBConnection,
		healthLine: elb.ALBHealthCheck, cfLine: elb.CloudFront, s3Line: elb.S3Access,
		strings.Replace(albLine, " 200 ", " abc ", 1) + " extra": elb.ALB,
	} {
		line := []byte(line)
		if n := testing.AllocsPerRun(100, func() {
			if err := r.Parse(format, line); err != nil {
				t.Fatal(err)
			}
			dst = elb.Encoder{}.AppendJSON(dst[:0], &r)
			dst = elb.Encoder{Names: elb.ECS, Nulls: true}.AppendJSON(dst[:0], &r)
			_, _ = r.Get("elb_status_code").Int()
			_, _ = r.Get("response_processing_time").Float()
			_, _ = r.Time()
			for range r.Get("target_port_list").Items() {
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations a line", format, n)
		}
	}
}
