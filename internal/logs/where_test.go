package logs

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/elb"
	"myrmidon/object"
)

// albLine is a line of an Application Load Balancer.
func albLine(at time.Time, status int, url, agent string) string {
	return fmt.Sprintf(`https %s app/web/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.086 0.048 0.037 %d 200 0 57 "GET %s HTTP/1.1" %q ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/t/73e2d6bc24d8a067 "Root=1-58337281-1d84f3d73c47ec4e58577259" "www.example.com" "-" 1 %s "forward" "-" "-" "10.0.0.1:80" "200" "-" "-"`,
		at.UTC().Format("2006-01-02T15:04:05.000000Z"), status, url, agent, at.UTC().Format("2006-01-02T15:04:05.000000Z"))
}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func parsed(t *testing.T, line string) *elb.Record {
	t.Helper()
	r := new(elb.Record)
	if err := r.Parse(elb.ALB, []byte(line)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConditions(t *testing.T) {
	r := parsed(t, albLine(noon, 503, "https://www.example.com:443/a?x=1", "curl/7.46.0"))
	for text, want := range map[string]bool{
		`elb_status_code >= 500`: true, `elb_status_code < 500`: false, `elb_status_code == 503.0`: true, `elb_status_code != 503`: false,
		`elb_status_code <= 503`: true, `elb_status_code <= 502`: false, `elb_status_code > 503`: false, `elb_status_code < 503`: false,
		`user_agent <= "curl/7.46.0"`: true, `user_agent < "curl/7.46.0"`: false, `time <= "2026-11-20T12:00:00Z"`: true,
		`http.response.status_code > 502`:                                           true,
		`user_agent contains "curl"`:                                                true,
		`user_agent =~ "^curl/[0-9.]+$"`:                                            true,
		`user_agent =~ 'bot'`:                                                       false,
		`not user_agent contains "curl"`:                                            false,
		`redirect_url`:                                                              false,
		`target_ip`:                                                                 true,
		`redirect_url == "x"`:                                                       false,
		`redirect_url != "x"`:                                                       false, // absent: every comparison is false
		`client_ip == "192.168.131.39"`:                                             true,
		`time >= "2026-11-20T12:00:00Z"`:                                            true,
		`time > "2026-11-20T12:00:00Z"`:                                             false,
		`target_processing_time < 0.05`:                                             true,
		`target_status_code_list == 200`:                                            true,
		`target_status_code_list > 200`:                                             false,
		`target_port_list contains "10.0.0"`:                                        true,
		`sc_status == 200`:                                                          false, // of another format
		`elb_status_code == 1 or elb_status_code == 2 or user_agent`:                true,
		`elb_status_code == 503 or elb_status_code == 2 and redirect_url`:           true, // and binds closer
		`(elb_status_code == 503 or elb_status_code == 2) and redirect_url`:         false,
		`not (elb_status_code == 503) or not redirect_url`:                          true,
		`NOT redirect_url AND elb_status_code>=500`:                                 true,
		`request_url contains "and not (x)" or request_url contains '/a?x=1'`:       true,
		strings.Repeat("not ", 50) + "elb_status_code == 503":                       true,
		`target_group_arn =~ "targetgroup/t/" and domain_name == "www.example.com"`: true,
	} {
		w, err := ParseWhere(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := w.Match(r); got != want {
			t.Errorf("%s: %t, want %t", text, got, want)
		}
	}
}

func TestConditionsThatAreWrongSayWhere(t *testing.T) {
	for text, want := range map[string]string{
		``: "character 1: the name of a field", `elb_status >= 5`: "no format has a field", `elb_status_code >= "5"`: "character 20",
		`elb_status_code >= 500 and`: "the name of a field", `elb_status_code = 500`: "written ==", `(elb_status_code`: "a ) is missing",
		`elb_status_code >= 500 500`: "not expected", `user_agent == curl`: "text in quotes", `user_agent =~ "("`: "missing closing",
		`elb_status_code contains "5"`: "has no text", `time > "noon"`: "is a time", `"x" == "x"`: "the name of a field", `user_agent ==`: "a value is expected",
		strings.Repeat("(", 200): "levels", `user_agent == "x`: "quotes",
	} {
		_, err := ParseWhere(text)
		if err == nil || !strings.Contains(err.Error(), want) || !myrmidon.IsPermanent(err) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseWhere(f *testing.F) {
	for _, s := range []string{`elb_status_code >= 500 and not (user_agent =~ "x")`, `time == "`, `((`, "\x00"} {
		f.Add(s)
	}
	r := new(elb.Record)
	if err := r.Parse(elb.ALB, []byte(albLine(noon, 200, "http://x/", "a"))); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		if w, err := ParseWhere(text); err == nil {
			w.Match(r)
		}
	})
}

func TestFieldsAreChosenByEitherName(t *testing.T) {
	line := albLine(noon, 503, `https://www.example.com:443/\x22,{"a":1}`, `cur"l,[1]`)
	for _, ecs := range []bool{false, true} {
		p, err := Filter{Fields: []string{"elb_status_code", "user_agent.original", "target_port_list"}, ECS: ecs}.Prepare()
		if err != nil {
			t.Fatal(err)
		}
		doc := p.Append([]byte("before"), parsed(t, line))
		var got map[string]any
		if err := json.Unmarshal(doc[len("before"):], &got); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		names := []string{"elb_status_code", "user_agent", "target_port_list"}
		if ecs {
			names = []string{"http.response.status_code", "user_agent.original", "aws.elb.target_port"}
		}
		if len(got) != 3 {
			t.Errorf("%s", doc)
		}
		for _, n := range names {
			if got[n] == nil {
				t.Errorf("no %s in %s", n, doc)
			}
		}
	}
	if _, err := (Filter{Fields: []string{"nope"}}).Prepare(); err == nil {
		t.Error("an unknown field was taken")
	}
}

func TestQueriesAreRedacted(t *testing.T) {
	p, err := Filter{RedactQuery: true}.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	doc := string(p.Append(nil, parsed(t, albLine(noon, 200, "https://h/p=1?token=s3cret&b&c=&d=s3=cret", "a?b=c"))))
	if frag := string(p.Append(nil, parsed(t, albLine(noon, 200, "https://h/p?a=b#c=d", "a")))); !strings.Contains(frag, `"https://h/p?a=X#c=X"`) {
		t.Error(frag)
	}
	if !strings.Contains(doc, "https://h/p=1?token=XXXXXX&X&c=&d=XXXXXXX\"") || strings.Contains(doc, "s3") || !strings.Contains(doc, "a?b=c") {
		t.Error(doc)
	}
}

// Clients write spaces and quotes into URLs, AWS new columns behind the known ones.
func TestNoPartOfAQueryIsLeft(t *testing.T) {
	p, err := Filter{RedactQuery: true}.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	alb := func(url string) string { return albLine(noon, 200, url, "agent") }
	for name, line := range map[string]string{
		"behind a space":               alb("https://h/p?a=b s3cret"),
		"behind a space and a version": alb("https://h/p?a=b HTTP/1.1 s3cret"),
		"behind a quote":               alb(`https://h/p?a=\x22s3cret\x22`),
		"in a fragment":                alb("https://h/p?a=b#token=s3cret"),
		"of a request that is cut off": strings.Replace(alb("https://h/p?a=b s3cret"), " HTTP/1.1", "", 1),
		"of Classic's escaped quotes":  `2026-11-20T12:00:00.000000Z elb 192.0.2.1:1 10.0.0.1:80 0 0 0 200 200 0 29 "GET http://h/?a=\"s3cret\" s3cret HTTP/1.1" "curl" - -`,
		"in a column without a name":   alb("https://h/p") + strings.Repeat(" -", 40) + ` "https://h/?a=s3cret"`,
	} {
		r := new(elb.Record)
		if err := r.Parse(elb.Detect("", []byte(line)), []byte(line)); err != nil {
			t.Fatal(err)
		}
		if doc := string(p.Append(nil, r)); strings.Contains(doc, "s3cret") {
			t.Errorf("%s: %s", name, doc)
		}
	}
}

func TestASampleIsTheSameEachTime(t *testing.T) {
	p, err := Filter{Sample: 0.1}.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	r := parsed(t, albLine(noon, 200, "http://x/", "a"))
	taken := func() (n int, which string) {
		for i := range 20_000 {
			r.Offset = int64(i) * 400
			if p.Takes(r, "s3://b/k") {
				n++
				which += fmt.Sprint(i, " ")
			}
		}
		return n, which
	}
	n, first := taken()
	_, second := taken()
	if n < 1800 || n > 2200 || first != second {
		t.Errorf("%d of 20000 were taken", n)
	}
}

func TestObjectsAreChosenByTheirTime(t *testing.T) {
	f := Filter{Since: noon, Until: noon.Add(time.Hour)}
	day := "AWSLogs/1/elasticloadbalancing/eu-west-1/2026/11/20/1_elasticloadbalancing_eu-west-1_app.web.50dc_"
	for key, want := range map[string]bool{
		day + "20261120T1155Z_10.0.0.1_abc.log.gz":   true, // the slack of clocks
		day + "20261120T1154Z_10.0.0.1_abc.log.gz":   false,
		day + "20261120T1200Z_10.0.0.1_abc.log.gz":   true,
		day + "20261120T1300Z_10.0.0.1_abc.log.gz":   true,
		day + "20261120T1400Z_10.0.0.1_abc.log.gz":   true, // an hour's interval
		day + "20261120T1404Z_10.0.0.1_abc.log.gz":   true,
		day + "20261120T1405Z_10.0.0.1_abc.log.gz":   false,
		"s3/2026-11-20-12-30-00-0123456789ABCDEF":    true,
		"s3/2026-11-20-11-30-00-0123456789ABCDEF":    false,
		"s3/2026-11-21-12-30-00-0123456789ABCDEF":    true, // best effort: hours late
		"s3/2026-11-23-12-30-00-0123456789ABCDEF":    false,
		"s3/2026-11-20-00-00-00-0123456789ABCDEF":    true, // all of a day
		"s3/2026-11-19-00-00-00-0123456789ABCDEF":    false,
		"cf/EMLARXS9EXAMPLE.2026-11-20-12.a103fd.gz": true,
		"cf/EMLARXS9EXAMPLE.2026-11-20-10.a103fd.gz": false,
		"AWSLogs/1/ELBAccessLogTestFile":             false,
		"AWSLogs/1/":                                 false,
		"copied.log":                                 true,
	} {
		if got := f.wants(object.Info{Key: key, Modified: noon.Add(24 * time.Hour)}); got != want {
			t.Errorf("%s: %t", key, got)
		}
	}
	if f.wants(object.Info{Key: "copied.log", Modified: noon.Add(-time.Hour)}) {
		t.Error("an object that was written before the time asked for was taken")
	}
	for key, want := range map[string]string{
		"a/2025/01/02/x": "a/2026/11/20", "2025/01/02/x": "2026/11/20", "a/2026/11/20/x": "a/2026/11/20/x", "a/2026/12/01/x": "a/2026/12/01/x", "a/x": "a/x",
	} {
		if got := f.jump(key); got != want {
			t.Errorf("from %s the listing goes on behind %s, want %s", key, got, want)
		}
	}
	// What began before midnight is in the folder of the day before.
	f.Since = time.Date(2026, 11, 20, 0, 30, 0, 0, time.FixedZone("", 3600))
	for key, want := range map[string]string{"a/2026/11/01/x": "a/2026/11/19", "a/2026/11/18/x": "a/2026/11/19", "a/2026/11/19/x": "a/2026/11/19/x"} {
		if got := f.jump(key); got != want {
			t.Errorf("since %v, from %s the listing goes on behind %s, want %s", f.Since, key, got, want)
		}
	}
	f.Since = time.Date(2026, 11, 20, 0, 30, 0, 0, time.UTC)
	if got := f.jump("a/2026/11/01/x"); got != "a/2026/11/19" {
		t.Errorf("since %v, the listing goes on behind %s", f.Since, got)
	}
}
