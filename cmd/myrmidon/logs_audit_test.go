package main

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/logs"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/sinkfault"
)

// audit runs an audit, and returns its rows and its sum.
func (s *logShop) audit(want int, args ...string) (rows []logs.Difference, sum logs.AuditSum) {
	s.t.Helper()
	c := s.command(append([]string{"logs", "audit", "--json"}, args...)...)
	var out, told bytes.Buffer
	c.Stdout, c.Stderr = &out, &told
	if exit := status(c.Run()); exit != want {
		s.t.Fatalf("audit %v: exit status %d, want %d\n%s%s", args, exit, want, out.String(), told.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, line := range lines {
		if i == len(lines)-1 {
			if err := json.Unmarshal([]byte(line), &sum); err != nil {
				s.t.Fatal(err)
			}
			break
		}
		var d logs.Difference
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			s.t.Fatal(err)
		}
		rows = append(rows, d)
	}
	return rows, sum
}

func TestAnAuditFindsWhatADestinationLacks(t *testing.T) {
	long.Test(t)
	s := newLogShop(t, 5, 60)
	bulk := sinkfault.NewBulk(nil)
	srv := httptest.NewServer(bulk)
	defer srv.Close()
	index := srv.URL + "/alb"

	_, sum := s.audit(3, "s3://logs/AWSLogs/", "--to", index)
	if sum.Missing != int64(s.lines) || sum.Different != 5 {
		t.Errorf("of an empty index: %+v", sum)
	}
	s.run(0, "logs", "ship", "s3://logs/AWSLogs/", "--to", index, "-q", "--where", "elb_status_code != 500")
	_, sum = s.audit(0, "s3://logs/", "--to", index, "--where", "elb_status_code != 500")
	if sum.Found != int64(s.lines)*3/4 || sum.Objects != 5 {
		t.Errorf("what was shipped: %+v", sum)
	}
	rows, sum := s.audit(3, "s3://logs/AWSLogs/", "--to", srv.URL+"/a*")
	if len(rows) != 5 || sum.Missing != int64(s.lines)/4 || rows[0].Missing != 15 {
		t.Errorf("without the condition: %+v %+v", sum, rows)
	}
	// A name that is longer than what an index keeps of it is asked for by IDs.
	deep := "s3://logs/deep/" + strings.Repeat("folder/", 60)
	s.put(strings.TrimPrefix(deep, "s3://logs/")+"x.log", []byte(balancerLine(time.Now(), 200, 1)))
	s.audit(3, deep, "--to", index)
	s.run(0, "logs", "ship", deep, "--to", index, "-q")
	if _, sum = s.audit(0, deep, "--to", index); sum.Found != 1 {
		t.Errorf("under a long name: %+v", sum)
	}

	// Files: what was cut out of one, and what is there twice.
	s.run(0, "logs", "ship", "s3://logs/AWSLogs/", "--to", "out.ndjson?rotate-bytes=60000", "-q")
	s.audit(0, "s3://logs/AWSLogs/", "--to", "out.ndjson")
	parts, err := filepath.Glob(filepath.Join(s.dir, "out*.ndjson")) // the newest may be empty
	if err != nil || len(parts) < 2 {
		t.Fatalf("files %q: %v", parts, err)
	}
	file, data := "", []byte(nil)
	for _, part := range parts {
		b, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > len(data) {
			file, data = part, b
		}
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if err := os.WriteFile(file, append(bytes.Clone(data), lines[3]...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, sum = s.audit(3, "s3://logs/AWSLogs/", "--to", "out.ndjson"); sum.Missing != 0 || sum.Twice != 1 || sum.Different != 1 {
		t.Errorf("of a file that has a line twice: %+v", sum)
	}
	if err := os.WriteFile(file, append(bytes.Join(lines[3:], nil), lines[3]...), 0o644); err != nil {
		t.Fatal(err)
	}
	_, sum = s.audit(3, "s3://logs/AWSLogs/", "--to", "out.ndjson")
	if sum.Missing != 3 || sum.Twice != 1 || sum.Surplus != 0 {
		t.Errorf("of a file that lost three lines: %+v", sum)
	}
	s.s3.Bucket(t, "archive")
	s.run(0, "logs", "ship", "s3://logs/AWSLogs/", "--to", "s3://archive/alb", "-q")
	s.audit(0, "s3://logs/AWSLogs/", "--to", "s3://archive/alb", "--since", "2026-11-20", "--until", "2026-11-21")
	hour := filepath.Join(s.s3.Dir(), "archive/alb/2026/11/20/12", "20261120T1200*Z-*.ndjson")
	if all, err := filepath.Glob(hour + "*"); err != nil || len(all) == 0 {
		t.Errorf("nothing is %s.gz: %v", hour, err)
	} else if plain, err := filepath.Glob(hour); err != nil || len(plain) > 0 {
		t.Errorf("%v are not packed: %v", plain, err)
	}
	// A time is one of milliseconds, on both sides.
	_, sum = s.audit(0, "s3://logs/AWSLogs/", "--to", "s3://archive/alb", "--since", "2026-11-20T12:00:00.0701Z", "--until", "2026-11-20T12:00:00.1309Z")
	if sum.Lines != 60 || sum.Found != 60 {
		t.Errorf("of 60 milliseconds with a line each: %+v", sum)
	}

	for _, to := range []string{"lumberjack://h:5044", "kinesis://s?region=r", "tcp://h:1", "-"} {
		c := s.command("logs", "audit", "s3://logs/", "--to", to)
		if told, err := c.CombinedOutput(); status(err) != 2 || !strings.Contains(string(told), "cannot be asked") {
			t.Errorf("%s: %v\n%s", to, err, told)
		}
	}
}
