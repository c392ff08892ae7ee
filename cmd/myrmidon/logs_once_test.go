package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// In the article nobody noticed that some environments had no lines at all.
func TestOneShipmentCallsTheWebhookThatNothingCame(t *testing.T) {
	s := newLogShop(t, 1, 3)
	calls := make(chan map[string]any, 4)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		calls <- body
		w.WriteHeader(http.StatusNoContent)
	}))
	defer hook.Close()
	s.run(3, "logs", "ship", "s3://logs/other/", "--to", "none.ndjson", "-q", "--expect", "10m", "--webhook", hook.URL)
	select {
	case body := <-calls:
		if body["source"] != "s3://logs/other/" || body["quiet"] != true || !strings.Contains(body["text"].(string), "no line at all") {
			t.Errorf("%v", body)
		}
	default:
		t.Fatal("the webhook was not called")
	}
	sum, _ := s.run(0, "logs", "ship", "s3://logs/AWSLogs/", "--to", "out.ndjson", "-q", "--expect", "1000000h", "--webhook", hook.URL)
	if len(calls) > 0 {
		t.Errorf("it was called where lines are: %v", <-calls)
	}
	if sum.Bucket != "logs" || sum.Key != "AWSLogs/" || sum.Source != "s3://logs/AWSLogs/" {
		t.Errorf("the summary is of %q, %q, %q", sum.Source, sum.Bucket, sum.Key)
	}
}

func TestFlagsThatOnlyFollowAreRefusedWithoutIt(t *testing.T) {
	s := newLogShop(t, 1, 1)
	for _, args := range [][]string{
		{"--status", "s.json"},
		{"--every", "5s"},
		{"--stats", "5s"},
		{"--sns-topic", "arn:aws:sns:eu-west-1:1:t"},
		{"--tls-cert", "c.pem"},
		{"--webhook", "http://127.0.0.1:1/"},
	} {
		c := s.command(append([]string{"logs", "ship", "s3://logs/", "--to", "out.ndjson"}, args...)...)
		out, err := c.CombinedOutput()
		if status(err) != exitUsage || !strings.Contains(string(out), args[0]) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	s.env = []string{"MYRMIDON_EVERY=5s"} // set for other commands
	s.run(0, "logs", "ship", "s3://logs/", "--to", "out.ndjson", "-q")
}

func TestStdoutIsNoFile(t *testing.T) {
	s := newLogShop(t, 1, 3)
	file := filepath.Join(s.dir, "stdout")
	out, err := s.command("logs", "ship", "s3://logs/", "--to", "stdout", "-q").Output()
	if _, there := os.Stat(file); err != nil || len(ids(t, strings.Split(strings.TrimSpace(string(out)), "\n"))) != 3 || there == nil {
		t.Errorf("%v\n%s", err, out)
	}
	s.run(0, "logs", "ship", "s3://logs/", "--to", "./stdout", "-q")
	if data, err := os.ReadFile(file); err != nil || strings.Count(string(data), "\n") != 3 {
		t.Errorf("%v\n%s", err, data)
	}
}
