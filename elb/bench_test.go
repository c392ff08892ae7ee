package elb_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon/elb"
)

// fullLine is a line of an Application Load Balancer, 702 bytes long, in which each of the
// 34 columns has a value.
var fullLine = []byte(`https 2025-08-19T21:34:47.383127Z app/web-frontend/50dc6c495c0c9188 203.0.113.77:51422 10.20.30.40:8080 0.001 0.215 0.000 200 200 1496 48340 ` +
	`"GET https://www.example.com:443/api/v2/search?q=load+balancer+logs&pg=3 HTTP/2.0" ` +
	`"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101" ` +
	`ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/api/73e2d6bc24d8a067 ` +
	`"Root=1-58337262-36d228ad5d99923122bbe354" "www.example.com" "arn:aws:acm:us-east-2:123456789012:certificate/1234-5678" ` +
	`20 2025-08-19T21:34:47.167000Z "waf,forward" "https://b.example" "-" "10.20.30.40:8080" "200" "Acceptable" "SpaceInUri" ` +
	`TID_dc57cebed65b444ebc8177bb698fe166 "x" "/y" "-" 10.0.1.7`)

// ordinaryLine is what most lines look like: many columns are "-".
var ordinaryLine = []byte(`http 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.000 0.001 0.000 200 200 34 366 "GET http://www.example.com:80/ HTTP/1.1" "curl/7.46.0" - - arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067 "Root=1-58337262-36d228ad5d99923122bbe354" "-" "-" 0 2018-07-02T22:22:48.364000Z "forward" "-" "-" 10.0.0.1:80 200 "-" "-" TID_dc57cebed65b444ebc8177bb698fe166`)

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct {
		name string
		line []byte
	}{{"full", fullLine}, {"ordinary", ordinaryLine}} {
		b.Run(c.name, func(b *testing.B) {
			var r elb.Record
			b.ReportAllocs()
			b.SetBytes(int64(len(c.line)))
			start := cpuTime(b)
			for b.Loop() {
				if err := r.Parse(elb.ALB, c.line); err != nil {
					b.Fatal(err)
				}
			}
			linesPerSecond(b, 1, start)
		})
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	escaped := []byte(strings.Replace(string(fullLine), "X11; Linux", `X11\x22; Linüx`, 1))
	for _, c := range []struct {
		name    string
		line    []byte
		encoder elb.Encoder
	}{
		{"full", fullLine, elb.Encoder{Nulls: true}},
		{"ordinary", ordinaryLine, elb.Encoder{}},
		{"ecs", fullLine, elb.Encoder{Names: elb.ECS}},
		{"escaped", escaped, elb.Encoder{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var r elb.Record
			var dst []byte
			b.ReportAllocs()
			b.SetBytes(int64(len(c.line)))
			start := cpuTime(b)
			for b.Loop() {
				if err := r.Parse(elb.ALB, c.line); err != nil {
					b.Fatal(err)
				}
				dst = c.encoder.AppendJSON(dst[:0], &r)
			}
			linesPerSecond(b, 1, start)
		})
	}
}

func BenchmarkReader(b *testing.B) {
	object := strings.Repeat(string(fullLine)+"\n", 10_000)
	var dst []byte
	b.SetBytes(int64(len(object)))
	start := cpuTime(b)
	for b.Loop() {
		n := 0
		for r, err := range elb.NewReader(strings.NewReader(object), elb.Config{}).Lines() {
			if err != nil {
				b.Fatal(err)
			}
			dst = elb.Encoder{}.AppendJSON(dst[:0], r)
			n++
		}
		if n != 10_000 {
			b.Fatalf("read %d lines", n)
		}
	}
	linesPerSecond(b, 10_000, start)
}

// usual is the way that most scripts take: a regular expression with a group a column, a
// map, json.Marshal.
var usual = regexp.MustCompile(`^([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*):([0-9]*) ([^ ]*)[:-]([0-9]*) ([-.0-9]*) ([-.0-9]*) ([-.0-9]*) (|[-0-9]*) (-|[-0-9]*) ([-0-9]*) ([-0-9]*) "([^ ]*) (.*) (- |[^ ]*)" "([^"]*)" ([A-Z0-9-_]+) ([A-Za-z0-9.-]*) ([^ ]*) "([^"]*)" "([^"]*)" "([^"]*)" ([-.0-9]*) ([^ ]*) "([^"]*)" "([^"]*)" "([^ ]*)" "([^\s]+?)" "([^\s]+)" "([^ ]*)" "([^ ]*)" ?([^ ]*)?( .*)?$`)

// BenchmarkAgainstRegexp prints how many times faster a line is than with the usual way,
// both measured in this run, in turns.
func BenchmarkAgainstRegexp(b *testing.B) {
	var names []string
	for _, f := range elb.Fields(elb.ALB) {
		names = append(names, f.Name)
	}
	const lines = 500
	var ours, theirs time.Duration
	var r elb.Record
	var dst []byte
	for b.Loop() {
		start := cpuTime(b)
		for range lines {
			groups := usual.FindStringSubmatch(string(fullLine))
			if len(groups) < 36 {
				b.Fatalf("the regular expression matches %d groups", len(groups))
			}
			record := make(map[string]string, len(names))
			for i, group := range groups[1:] {
				record[names[i]] = group
			}
			out, err := json.Marshal(record)
			if err != nil || len(out) < len(fullLine) {
				b.Fatal(err, len(out))
			}
		}
		middle := cpuTime(b)
		for range 100 * lines {
			if err := r.Parse(elb.ALB, fullLine); err != nil {
				b.Fatal(err)
			}
			dst = elb.Encoder{Nulls: true}.AppendJSON(dst[:0], &r)
		}
		theirs += middle - start
		ours += (cpuTime(b) - middle) / 100
	}
	b.ReportMetric(float64(theirs)/float64(ours), "times-faster")
	b.ReportMetric(lines*float64(b.N)/theirs.Seconds(), "regexp-lines/cpu-s")
	b.ReportMetric(lines*float64(b.N)/ours.Seconds(), "elb-lines/cpu-s")
}

// cpuTime is the time that this process spent on processors: other programs on the machine
// add less to it than to the time on the wall.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// linesPerSecond reports how many times the loop ran in a second on the wall, and in one
// of this process's processor time.
func linesPerSecond(b *testing.B, lines int, start time.Duration) {
	n := float64(b.N) * float64(lines)
	b.ReportMetric(n/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(n/(cpuTime(b)-start).Seconds(), "lines/cpu-s")
}
