package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/logs"
)

func TestParkedJobsAreToldByTheirItems(t *testing.T) {
	whole := myrmidon.Failure{Message: "no such bucket"}
	item := func(i uint32, name, reason string) engine.ParkedItem {
		return engine.ParkedItem{Index: i, Name: name, Reason: myrmidon.Failure{Message: reason}}
	}
	for _, c := range []struct {
		name string
		in   engine.Parked
		want []parkedRow
	}{
		{"each item with its own reason, not the job's first", engine.Parked{
			Job: myrmidon.Job{Kind: "k", Name: "a", Count: 4, Only: []uint32{1, 3}}, Reason: whole,
			Items: []engine.ParkedItem{item(1, "b", "cut"), item(3, "d", "gone")},
		}, []parkedRow{{"k b", "cut"}, {"k d", "gone"}}},
		{"a handler without names", engine.Parked{
			Job: myrmidon.Job{Kind: "k", Name: "a", Count: 2, Only: []uint32{1}}, Reason: whole, Items: []engine.ParkedItem{item(1, "", "cut")},
		}, []parkedRow{{"k a, item 1", "cut"}}},
		{"items that did not fit", engine.Parked{
			Job: myrmidon.Job{Kind: "k", Name: "a", Count: 5}, Reason: whole, Items: []engine.ParkedItem{item(0, "a", "cut")},
		}, []parkedRow{{"k a", "cut"}, {"k: 4 more", "no such bucket"}}},
		{"a job that failed as one", engine.Parked{Job: myrmidon.Job{Kind: "k", Name: "a", Count: 3}, Reason: whole}, []parkedRow{{"k a and 2 more", "no such bucket"}}},
		{"a job of one", engine.Parked{Job: myrmidon.Job{Kind: "k", Name: "a", Count: 1}, Reason: whole}, []parkedRow{{"k a", "no such bucket"}}},
		{"a plan", engine.Parked{Job: myrmidon.Job{Kind: "w.plan", Name: "plan"}, Reason: whole}, []parkedRow{{"w.plan plan", "no such bucket"}}},
	} {
		if got := parkedRows(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A job of logs holds several objects: only what is bad of them is listed, with its own reason.
func TestParkedLogsAreListedByTheirObjects(t *testing.T) {
	s := newLogShop(t, 2, 5)
	good := balancerLine(time.Date(2026, 11, 20, 15, 0, 0, 0, time.UTC), 200, 1)
	s.put(logFolder+"123456789012_elasticloadbalancing_eu-west-1_app.web.50dc6c495c0c9188_20261120T1500Z_10.0.0.1_bad.log", []byte(good+"what?\n"))
	s.put(logFolder+"123456789012_elasticloadbalancing_eu-west-1_app.web.50dc6c495c0c9188_20261120T1600Z_10.0.0.1_torn.log.gz", zipped(t, []byte(good))[:60])
	s.run(3, "logs", "ship", "s3://logs/", "--to", "out.ndjson", "-q")
	out, err := s.command("parked", "list", "latest").Output()
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(rows) != 3 || !strings.Contains(rows[1], "_bad.log") || !strings.Contains(rows[1], "1 of 2 lines") || !strings.Contains(rows[2], "_torn.log.gz") || strings.Contains(rows[2], "1 of 2 lines") {
		t.Fatalf("%s", out)
	}
	id := strings.Fields(rows[1])[1]
	if out, err = s.command("parked", "show", "latest", id).Output(); err != nil {
		t.Fatal(err)
	}
	var shown engine.Parked
	if err := json.Unmarshal(out, &shown); err != nil || len(shown.Items) != 2 || shown.Items[0].Index != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	var note logs.Note
	if err := json.Unmarshal(shown.Items[0].Note, &note); err != nil || len(note.Rejects) != 1 || note.Rejects[0].Offset != int64(len(good)) || note.Rejects[0].Reason == "" {
		t.Errorf("%v\n%s", err, out)
	}
}
