package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"myrmidon/internal/testkit/long"
)

// TestLinesOnStdoutAreAloneThere, also where results are asked for as JSON: they go to stderr.
func TestLinesOnStdoutAreAloneThere(t *testing.T) {
	s := newLogShop(t, 1, 3)
	c := s.command("logs", "ship", "s3://logs/", "--to", "-", "--json")
	var told bytes.Buffer
	c.Stderr = &told
	out, err := c.Output()
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(got) != 3 {
		t.Fatalf("%v: %d lines on stdout, want 3:\n%s", err, len(got), out)
	}
	for _, line := range got {
		if !strings.HasPrefix(line, `{"@timestamp":`) {
			t.Errorf("on stdout: %s", line)
		}
	}
	if !strings.Contains(told.String(), `"workload":"logs"`) || !strings.Contains(told.String(), `"acked":3`) {
		t.Errorf("neither report nor summary are on stderr:\n%s", told.String())
	}
	// Where lines go elsewhere, results are on stdout.
	if out, err = s.command("logs", "ship", "s3://logs/", "--to", "x.ndjson", "--json").Output(); err != nil || bytes.Count(out, []byte("\n")) != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestFieldsAreListedAsJSONAndCompleted(t *testing.T) {
	s := newLogShop(t, 0, 0)
	out, err := s.command("logs", "fields", "alb", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var f fieldRow
		if err := dec.Decode(&f); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		found = found || f.Format == "alb" && f.Name == "client_ip" && f.ECS == "source.ip" && len(f.Short) == 1 && f.Short[0] == "client"
	}
	if !found {
		t.Errorf("client_ip is not there:\n%s", out)
	}
	for flag, command := range map[string]string{"--by": "top", "--fields": "parse"} {
		out, err = s.command("__complete", "logs", command, flag, "status,elb_st").Output()
		if err != nil || !strings.HasPrefix(string(out), "status,elb_status_code\n:") {
			t.Errorf("%s: %v\n%s", flag, err, out)
		}
	}
}

// TestTooManyValuesAreSaid: counts that leave lines out are not passed off as all.
func TestTooManyValuesAreSaid(t *testing.T) {
	long.Test(t)
	s := newLogShop(t, 0, 0)
	var in bytes.Buffer
	for i := range topKeys + 5 {
		fmt.Fprintf(&in, "2026-03-01T10:20:30.123456Z 10.0.%d.%d %d 443 - - - - - - Failed:ClientCertUntrusted TID_1\n", i>>8&255, i&255, 1024+i>>16)
	}
	c := s.command("logs", "top", "--by", "client,client_port", "-n", "1", "-q", "--json")
	c.Stdin = &in
	var told bytes.Buffer
	c.Stderr = &told
	out, err := c.Output()
	if status(err) != 1 || bytes.Count(out, []byte("\n")) != 1 || !strings.Contains(told.String(), "5 lines of later ones are not counted") {
		t.Errorf("%v\n%s%s", err, out, told.String())
	}
}
