package logs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The last few failures are the last by time, and the same however often they are asked for.
func TestTheLastFailuresOfASummaryAreTheLast(t *testing.T) {
	var items strings.Builder
	line := func(index int, state, why string) {
		fmt.Fprintf(&items, `{"phase":"ship","index":%d,"name":"o%02[1]d","state":%q,"last_error":%q,"note":{"counts":{"encountered":1,"unparsed":1},"rejects":[{"offset":7,"reason":%[3]q,"kind":"parsing"}]}}`+"\n", index, state, why)
	}
	for i := range 20 {
		line(19-i, "parked", "bad")
	}
	line(15, "parked", "still bad") // tried again: it failed later than the others
	line(0, "done", "")             // tried again, with success
	want := []string{"o04: bad", "o03: bad", "o02: bad", "o01: bad", "o15: still bad"}
	for range 5 {
		s, err := Summarize(strings.NewReader(items.String()))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Failures["objects"]; got.Total != 19 || !slices.Equal(got.LastFew, want) {
			t.Fatalf("%d: %q, want 19: %q", got.Total, got.LastFew, want)
		}
		if got := s.Failures[parsing].LastFew; len(got) != LastFew || got[4] != "o15 at byte 7: still bad" {
			t.Fatalf("%q", got)
		}
	}
}

func TestASummaryNamesBucketAndKey(t *testing.T) {
	for base, want := range map[string][2]string{
		"s3://logs/AWSLogs/a+b%41.gz": {"logs", "AWSLogs/a+b%41.gz"},
		"s3://logs/AWSLogs/":          {"logs", "AWSLogs/"},
		"s3://logs":                   {"logs", ""},
		"/var/log/access.log":         {},
		"":                            {},
	} {
		var s Summary
		s.From(Address{Base: base})
		if got := [2]string{s.Bucket, s.Key}; got != want || s.Source != base {
			t.Errorf("%q: %q, want %q", base, got, want)
		}
	}
}
