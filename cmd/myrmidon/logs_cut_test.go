package main

import (
	"math/rand/v2"
	"net/url"
	"sync/atomic"
	"testing"

	"myrmidon/internal/testkit/kinesalite"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/netfault"
)

// cutting is a proxy whose first connections are cut at bytes that a seed chooses: every other one
// of what is sent, below most, the rest of an answer, below answer.
func cutting(t *testing.T, target string, seed uint64, cuts int32, most, answer int64) (p *netfault.Proxy, opened *atomic.Int32) {
	t.Helper()
	p, err := netfault.NewProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	opened = new(atomic.Int32)
	random := rand.New(rand.NewPCG(seed, 6))
	p.ResetAfter(func() (sent, answered int64) {
		switch n := opened.Add(1); {
		case n > cuts:
			return -1, -1
		case n%2 == 0:
			return -1, random.Int64N(answer)
		}
		return random.Int64N(most), -1
	})
	return p, opened
}

// From versitygw to Elastic's own server, whose connections break anywhere: in a window, and in
// its acknowledgement, which has 6 bytes, when the window has arrived.
func TestLogsReachLogstashThoughConnectionsAreCut(t *testing.T) {
	long.Test(t)
	const cuts = 6
	s := newLogShop(t, 6, 700)
	addr, received := logstash(t)
	p, opened := cutting(t, addr, 1, cuts, 12<<10, 6)
	sum, problems := s.run(0, "logs", "ship", "s3://logs/AWSLogs/", "--to", "lumberjack://"+p.Addr(), "-q")
	docs := received()
	got := ids(t, docs)
	t.Logf("%d lines, %d documents with %d IDs over %d connections", s.lines, len(docs), len(got), opened.Load())
	if len(got) != s.lines || sum.Lines.Acked != int64(s.lines) || opened.Load() <= cuts {
		t.Errorf("%d of %d lines arrived, %d connections; %+v\n%s", len(got), s.lines, opened.Load(), sum, problems)
	}
	if len(docs) == len(got) {
		t.Error("no acknowledgement was lost: nothing was sent again")
	}
}

func TestLogsReachKinesisThoughConnectionsAreCut(t *testing.T) {
	long.Test(t)
	const cuts = 2
	server := kinesalite.Start(t)
	at, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Create(t.Context(), "access", 2); err != nil {
		t.Fatal(err)
	}
	s := newLogShop(t, 3, 400)
	p, opened := cutting(t, at.Host, 3, cuts, 500<<10, 200)
	sum, problems := s.run(0, "logs", "ship", "s3://logs/", "--to", "kinesis://access?region=us-east-1&endpoint=http://"+p.Addr(), "-q")
	docs := streamed(t, server)
	got := ids(t, docs)
	t.Logf("%d lines, %d records with %d IDs over %d connections", s.lines, len(docs), len(got), opened.Load())
	if len(got) != s.lines || sum.Lines.Acked != int64(s.lines) || opened.Load() <= cuts {
		t.Errorf("%d of %d lines arrived, %d connections; %+v\n%s", len(got), s.lines, opened.Load(), sum, problems)
	}
	if len(docs) == len(got) {
		t.Error("no answer was lost: nothing was sent again")
	}
}
