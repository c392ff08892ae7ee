package jetstream_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/natsserver"
)

// A replica may be behind, or not answer: whether an entry was forgotten is asked of its leader.
func TestAnEntryThatWasForgottenIsMadeAgainByTheLeadersWord(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	b := connect(t, jetstream.Remote{URL: s.URL()})
	tap, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	asked, err := tap.SubscribeSync("$JS.API.DIRECT.GET.>")
	if err == nil {
		err = tap.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "run/a", []byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Forget(t.Context(), "run/a"); err != nil {
		t.Fatal(err)
	}
	rev, err := b.Put(t.Context(), "run/a", []byte("two"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "run/a", []byte("three"), 0); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("an entry that is there: %v, want ErrConflict", err)
	}
	if e, err := b.Entry(t.Context(), "run/a"); err != nil || string(e.Value) != "two" || e.Revision != rev {
		t.Errorf("%q of revision %d, want two of %d: %v", e.Value, e.Revision, rev, err)
	}
	if err := tap.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := asked.Pending(); err != nil || n > 0 {
		t.Errorf("replicas were asked %d times: %v", n, err)
	}
}
