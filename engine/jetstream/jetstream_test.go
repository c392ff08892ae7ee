package jetstream_test

import (
	"testing"
	"time"

	"myrmidon/engine"
	"myrmidon/engine/enginetest"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/long"
)

func TestBackend(t *testing.T) {
	t.Parallel()
	configs := make(map[engine.Backend]jetstream.Config)
	open := func(t *testing.T, cfg jetstream.Config) engine.Backend {
		t.Helper()
		b, err := jetstream.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		configs[b] = cfg
		t.Cleanup(func() { b.Close() })
		return b
	}
	for _, d := range []jetstream.Durability{jetstream.Process, jetstream.Second, jetstream.Power} {
		t.Run(string(d), func(t *testing.T) {
			if d != jetstream.Process { // they differ in what is synced
				long.Test(t)
			}
			enginetest.Run(t, enginetest.Options{
				Open: func(t *testing.T, lease time.Duration) engine.Backend {
					return open(t, jetstream.Config{Dir: t.TempDir(), Durability: d, Lease: lease})
				},
				Reopen: func(t *testing.T, b engine.Backend) engine.Backend {
					if err := b.Close(); err != nil {
						t.Fatal(err)
					}
					return open(t, configs[b])
				},
			})
		})
	}
}
