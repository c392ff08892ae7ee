package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
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
