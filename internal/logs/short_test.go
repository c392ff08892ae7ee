package logs

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"myrmidon/elb"
)

// Lines of each format, made after AWS's documentation of it.
var shortLines = []struct {
	format                                     elb.Format
	line                                       string
	client, target, status, method, host, path string
	fields                                     string // what --fields with all short names keeps
}{
	{
		elb.ALB, albLine(noon, 503, "https://www.example.com:443/a/b?x=1", "curl/7.46.0"),
		"192.168.131.39", "10.0.0.1", "503", "GET", "www.example.com", "/a/b", "client_ip domain_name elb_status_code request_method request_url target_ip", // domain_name is the host of others
	},
	{
		elb.Classic, `2026-11-20T12:00:00.123456Z shop 198.51.100.7:2817 10.1.2.3:80 0.000073 0.001048 0.000057 200 200 0 29 "PUT http://[2001:db8::1]:8080 HTTP/1.1" "curl/7.38.0" - -`,
		"198.51.100.7", "10.1.2.3", "200", "PUT", "[2001:db8::1]", "/", "backend_ip client_ip elb_status_code request_method request_url",
	},
	{
		elb.NLB, `tls 2.0 2026-11-20T12:00:00 net/edge/c6e77e28c25b2234 g3d4b5e8bb8464cd 198.51.100.8:51341 10.9.8.7:443 5 2 98 246 - arn:aws:acm:us-east-2:671290407336:certificate/2a108f19-aded-46b0-8493-c63eb1ef4a99 - ECDHE-RSA-AES128-SHA tlsv12 - edge.example.com h2 h2 "h2","http/1.1" 2026-11-20T11:59:59`,
		"198.51.100.8", "10.9.8.7", "", "", "edge.example.com", "", "client_ip destination_ip domain_name",
	},
	{
		elb.ALBHealthCheck, `http 2026-11-20T12:00:00.000000Z 0.013 10.4.4.4:80 app/73e2d6bc24d8a067 Unhealthy 502 Target.ResponseCodeMismatch`,
		"", "10.4.4.4", "Unhealthy", "", "", "", "status target_ip",
	},
	{
		elb.CloudFront, strings.Join(strings.Fields(`2026-11-20 12:00:00 FRA2-C1 2390 203.0.113.9 HEAD d111111abcdef8.cloudfront.net /view/my/file.html 404 - Mozilla/5.0 a=b - Error Fo5f4xOj== www.example.net https 23 0.001 - TLSv1.3 TLS_AES_128_GCM_SHA256 Error HTTP/2.0 - - 11040 0.001 Error text/html 78 - -`), "\t"),
		"203.0.113.9", "", "404", "HEAD", "www.example.net", "/view/my/file.html", "c_ip cs_method cs_uri_stem sc_status x_host_header",
	},
	{
		elb.S3Access, `79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be logs [20/Nov/2026:12:00:00 +0000] 192.0.2.3 - 3E57427F33A59F07 REST.GET.OBJECT a.txt "GET /logs/a.txt?v=1 HTTP/1.1" 403 AccessDenied 113 - 7 - "-" "S3Console/0.4" - h SigV4 ECDHE-RSA-AES128-GCM-SHA256 AuthHeader logs.s3.example.org TLSv1.2 - -`,
		"192.0.2.3", "", "403", "GET", "logs.s3.example.org", "/logs/a.txt", "host_header http_status remote_ip request_method request_url",
	},
}

func TestShortNamesMeanTheSameInAllFormats(t *testing.T) {
	for _, c := range shortLines {
		r := new(elb.Record)
		if err := r.Parse(c.format, []byte(c.line)); err != nil {
			t.Errorf("%s: %v", c.format, err)
			continue
		}
		for name, want := range map[string]string{"client": c.client, "target": c.target, "status": c.status, "method": c.method, "host": c.host, "path": c.path} {
			if got := string(ValueOf(r, name)); got != want {
				t.Errorf("%s of %s: %q, want %q", name, c.format, got, want)
			}
			has, err := ParseWhere(name)
			if err != nil || has.Match(r) != (want != "") {
				t.Errorf("--where %s of %s: %v, %v", name, c.format, !(want != ""), err)
			}
		}
		p, err := Filter{Fields: []string{"client", "target", "status", "method", "host", "path"}}.Prepare()
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(p.Append(nil, r), &doc); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(slices.Sorted(maps.Keys(doc)), " "); got != c.fields {
			t.Errorf("--fields of %s: %s, want %s", c.format, got, c.fields)
		}
		for text, want := range map[string]bool{
			"status >= 500": c.format == elb.ALB, "not status < 500": c.format == elb.ALB || c.format == elb.NLB || c.format == elb.ALBHealthCheck,
			`status == "Unhealthy"`: c.format == elb.ALBHealthCheck, `status =~ "^Un"`: c.format == elb.ALBHealthCheck,
			`path contains "/a" and not path contains "?"`: c.format == elb.ALB || c.format == elb.S3Access,
			`host == "www.example.com"`:                    c.format == elb.ALB,
			`target =~ "^10[.]" and client != "192.0.2.1"`: c.target != "" && c.client != "",
			`method == "HEAD"`:                             c.format == elb.CloudFront,
		} {
			w, err := ParseWhere(text)
			if err != nil {
				t.Fatal(err)
			}
			if w.Match(r) != want {
				t.Errorf("%s of %s: %v", text, c.format, !want)
			}
		}
	}
}
