package jetstream_test

import (
	"testing"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

// TestAcknowledgementsOutliveClose: an orderly end loses none, though none was waited for.
func TestAcknowledgementsOutliveClose(t *testing.T) {
	for range 10 {
		cfg := jetstream.Config{Dir: t.TempDir()}
		b, err := jetstream.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		var jobs []myrmidon.Job
		for i := range 1000 {
			jobs = append(jobs, job(i))
		}
		if err := b.Commit(t.Context(), engine.Batch{Jobs: jobs}); err != nil {
			t.Fatal(err)
		}
		all := pull(t, b, len(jobs))
		for _, d := range all {
			if err := d.Ack(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if b, err = jetstream.Open(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		again, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: engine.MaxPull})
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > 0 {
			t.Errorf("%d jobs or more came again that were acknowledged before the end", len(again))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
