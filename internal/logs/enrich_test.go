package logs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"myrmidon/internal/enrich"
)

func TestFieldsAreAddedToDocuments(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "regexes.yaml")
	if err := os.WriteFile(rules, []byte("user_agent_parsers:\n  - regex: '(curl)/(\\d+)'\nos_parsers:\n  - regex: '(Linux)'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const front = "2019-12-04\t21:02:31\tLAX1\t392\t192.0.2.100\tGET\td1.cloudfront.net\t/index.html\t200\t-\tcurl/8%20(Linux)\t-\n"
	for _, c := range []struct {
		filter Filter
		line   string
		want   string
	}{
		{Filter{UserAgent: rules}, albLine(noon, 200, "https://h:443/", "curl/7"), `,"user_agent_name":"curl","user_agent_version":"7"}`},
		{Filter{UserAgent: rules, ECS: true}, front, `,"user_agent.name":"curl","user_agent.version":"8","user_agent.os.name":"Linux"}`},
		{Filter{UserAgent: rules, Fields: []string{"elb_status_code", "user_agent_name"}}, albLine(noon, 200, "https://h:443/", "curl/7"), `,"elb_status_code":200,"user_agent_name":"curl"}`},
		{Filter{UserAgent: rules, Fields: []string{"elb_status_code"}}, albLine(noon, 200, "https://h:443/", "curl/7"), `,"elb_status_code":200}`},
		{Filter{UserAgent: rules}, "2026-11-20T12:00:00.000000Z 10.0.0.1 1 443 TLSv1.2 - 0.1 - - - - TID_1\n", `"conn_trace_id":"TID_1"}`},
	} {
		b := newBench(t)
		b.spec.Filter = c.filter
		b.put("k", []byte(c.line))
		var docs []string
		b.sink.seen = func(doc string) { docs = append(docs, doc) }
		if err := b.do(t.Context(), b.jobs()[0]); err != nil {
			t.Fatal(err)
		}
		if len(docs) != 1 || !strings.HasSuffix(docs[0], c.want) {
			t.Errorf("%+v: %s, want an end of %s", c.filter, docs, c.want)
		}
	}
	if _, err := (Filter{Fields: []string{"user_agent_name"}}).Prepare(); err == nil {
		t.Error("a field is asked for that nothing adds")
	}
	// The jobs of a process share what is open.
	var e enrichers
	one, err := e.prepare(Filter{UserAgent: enrich.Builtin})
	if err != nil {
		t.Fatal(err)
	}
	if two, err := e.prepare(Filter{UserAgent: enrich.Builtin}); err != nil || one.more != two.more {
		t.Error("the rules were read twice", err)
	}
	if three, err := e.prepare(Filter{UserAgent: enrich.Builtin, ECS: true}); err != nil || one.more == three.more {
		t.Error("names were mixed up", err)
	}
}
