package haproxy

import (
	"context"
	"testing"

	"myrmidon/internal/testkit/haproxyd"
)

// large is as big as the dumps of the article: about 1,550 rows.
var large = haproxyd.Config{Frontends: 48, Backends: 150, Servers: 9}

// dumps are of four real processes with some traffic.
func dumps(tb testing.TB) [][]byte {
	tb.Helper()
	var out [][]byte
	for i := range 4 {
		s := haproxyd.Start(tb, large)
		for k := range 20 {
			s.Get(k, 1+i, "/missing")
			s.Get(k, 1, "/")
		}
		s.WaitState("be_000", "web-000-01", "DOWN")
		replies, err := Read(context.Background(), Target{Address: s.Socket})
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, replies[0].CSV)
		s.Stop()
	}
	return out
}
