package main

import (
	"testing"
	"time"

	"myrmidon/internal/testkit/s3stub"
)

func TestConcurrencyBoundsCopiesUnderWay(t *testing.T) {
	const n, most = 2_000, 20
	s := newCloneShop(t, s3stub.Config{Latency: map[s3stub.Verb]time.Duration{s3stub.Copy: 5 * time.Millisecond}})
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(n)), s.s3.AddMirror("into", numbered(n), "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, problems, exit := s.run("clone", "s3://from", "s3://into", "-q", "--concurrency", "20"); exit != 0 {
		t.Fatalf("exit %d\n%s", exit, problems)
	}
	copies := s.s3.Counts()[s3stub.Copy]
	if copies.Requests != n || copies.Peak > most || copies.Peak < most/2 {
		t.Errorf("%d copies, %d at once at most, want %d and %d", copies.Requests, copies.Peak, n, most)
	}
}
