package kinesis_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/testkit/kinesalite"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/sink"
	"myrmidon/sink/kinesis"
	"myrmidon/sink/sinktest"
)

func record(n int) sink.Record {
	return sink.Record{ID: fmt.Sprint("id-", n), Data: fmt.Appendf(nil, `{"n":%d}`, n), Key: fmt.Sprint("key-", n%10)}
}

func records(n int) []sink.Record {
	out := make([]sink.Record, n)
	for i := range out {
		out[i] = record(i)
	}
	return out
}

func open(t *testing.T, cfg kinesis.Config) *kinesis.Sink {
	t.Helper()
	s, err := kinesis.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// environment sets credentials, and nothing else.
func environment(t *testing.T, endpoint string) {
	for _, name := range []string{"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_KINESIS"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKID")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "sesame")
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_ENDPOINT_URL", endpoint)
}

// fake runs a server with a script, and returns a sink for it.
func fake(t *testing.T, script func(int) sinkfault.Call) (*sinkfault.Kinesis, *kinesis.Sink) {
	t.Helper()
	srv := sinkfault.NewKinesis("events", script)
	h := httptest.NewServer(srv)
	t.Cleanup(h.Close)
	environment(t, h.URL)
	return srv, open(t, kinesis.Config{Stream: "events"})
}

func TestKinesisIsASink(t *testing.T) {
	srv := kinesalite.Start(t)
	srv.Setenv(t)
	n := 0
	sinktest.Run(t, func(t *testing.T) sinktest.Opened {
		n++
		stream := fmt.Sprint("events-", n)
		if err := srv.Create(t.Context(), stream, 2); err != nil {
			t.Fatal(err)
		}
		return sinktest.Opened{Sink: open(t, kinesis.Config{Stream: stream}), Received: func() []string {
			got, err := srv.Records(t.Context(), stream)
			if err != nil {
				t.Fatal(err)
			}
			out := []string{}
			for _, r := range got {
				out = append(out, string(r.Data))
			}
			return out
		}}
	}, sinktest.Options{Largest: 1<<20 - 100, Many: 1200})
}

func TestRecordsOfAKeyGoToOneShard(t *testing.T) {
	srv := kinesalite.Start(t)
	srv.Setenv(t)
	if err := srv.Create(t.Context(), "by-key", 4); err != nil {
		t.Fatal(err)
	}
	rs := records(100)
	long := strings.Repeat("日", 300)
	rs[0].Key, rs[1].Key = long, long
	rs[2].Key, rs[2].ID = "", ""
	if err := open(t, kinesis.Config{Stream: "by-key"}).Send(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	got, err := srv.Records(t.Context(), "by-key")
	if err != nil || len(got) != 100 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	shards, all := make(map[string]string), make(map[string]bool)
	for _, r := range got {
		if was, ok := shards[r.PartitionKey]; ok && was != r.Shard {
			t.Errorf("key %q is in %s and %s", r.PartitionKey, was, r.Shard)
		}
		shards[r.PartitionKey] = r.Shard
		all[r.Shard] = true
	}
	if len(shards) != 12 || len(all) < 2 {
		t.Errorf("%d keys in %d shards, want 12 in several", len(shards), len(all))
	}
}

func TestLimitsHold(t *testing.T) {
	srv, s := fake(t, nil)
	rs := records(20)
	for i := range rs { // 20 of 1 MiB: 5 a request at most
		rs[i].Data = []byte(`{"x":"` + strings.Repeat("x", 1<<20-8-len(rs[i].Key)) + `"}`)
	}
	rs[7].Data = append(rs[7].Data, ' ')
	err := s.Send(t.Context(), rs)
	var p *sink.PartialError
	if !errors.As(err, &p) || len(p.Failed) != 1 || p.Failed[0].Index != 7 || !myrmidon.IsPermanent(p.Failed[0].Err) {
		t.Fatalf("Send: %.300v, want record 7 alone to be too large", err)
	}
	if srv.Requests() != 4 || len(srv.Received()) != 19 {
		t.Errorf("%d requests for 19 records of 1 MiB, want 4; %d arrived", srv.Requests(), len(srv.Received()))
	}
}

func TestWhatBecomesOfRecords(t *testing.T) {
	codes := map[int]string{2: "ProvisionedThroughputExceededException", 5: "InternalFailure"}
	_, s := fake(t, func(int) sinkfault.Call {
		return sinkfault.Call{Item: func(i int, _ string) string { return codes[i] }}
	})
	err := s.Send(t.Context(), records(7))
	var p *sink.PartialError
	if !errors.As(err, &p) || len(p.Failed) != 2 || p.Failed[0].Index != 2 || p.Failed[1].Index != 5 {
		t.Fatalf("Send: %v", err)
	}
	throttled, internal := myrmidon.AsFailure(p.Failed[0].Err), myrmidon.AsFailure(p.Failed[1].Err)
	if throttled.After != time.Second || internal.After != 0 || throttled.Permanent || internal.Permanent {
		t.Errorf("%+v, %+v", throttled, internal)
	}
	if n := s.Stats().Throttled; n != 1 {
		t.Errorf("%d throttled", n)
	}
}

// TestAnAnswerWithoutEachResultIsAFailure: nobody knows which records the results are of.
func TestAnAnswerWithoutEachResultIsAFailure(t *testing.T) {
	for _, results := range []int{0, 2, 4} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"FailedRecordCount":0,"Records":[%s]}`, strings.TrimSuffix(strings.Repeat(`{"SequenceNumber":"1","ShardId":"0"},`, results), ","))
		}))
		environment(t, srv.URL)
		s := open(t, kinesis.Config{Stream: "events"})
		var p *sink.PartialError
		if err := s.Send(t.Context(), records(3)); err == nil || errors.As(err, &p) || myrmidon.IsPermanent(err) {
			t.Errorf("%d results for 3 records: %v, want a failure of all", results, err)
		}
		srv.Close()
	}
}

// TestRecordsWithoutKeyAreSpread over the shards, by their content.
func TestRecordsWithoutKeyAreSpread(t *testing.T) {
	srv, s := fake(t, nil)
	rs := records(20)
	for i := range rs {
		rs[i].ID, rs[i].Key = "", ""
	}
	if err := s.Send(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	keys := srv.Keys()
	slices.Sort(keys)
	if n := len(slices.Compact(keys)); n != len(rs) {
		t.Errorf("%d keys for %d records", n, len(rs))
	}
}

func TestFailuresOfALaterRequestKeepTheirPlace(t *testing.T) {
	srv, s := fake(t, func(request int) sinkfault.Call {
		return sinkfault.Call{Item: func(i int, _ string) string {
			if request == 1 && i == 3 {
				return "InternalFailure"
			}
			return ""
		}}
	})
	err := s.Send(t.Context(), records(1100))
	var p *sink.PartialError
	if !errors.As(err, &p) || len(p.Failed) != 1 || p.Failed[0].Index != 503 || srv.Requests() != 3 {
		t.Errorf("Send: %v after %d requests, want record 503 to have failed, and 3", err, srv.Requests())
	}
}

func TestWhatBecomesOfRequests(t *testing.T) {
	for _, c := range []struct {
		name      string
		call      sinkfault.Call
		permanent bool
		after     time.Duration
		want      string
	}{
		{"throttled", sinkfault.Call{Status: 400, Error: "ProvisionedThroughputExceededException"}, false, time.Second, "ProvisionedThroughput"},
		{"an internal failure", sinkfault.Call{Status: 500, Error: "InternalFailure"}, false, 0, "InternalFailure"},
		{"503", sinkfault.Call{Status: 503, Error: "ServiceUnavailable"}, false, time.Second, "ServiceUnavailable"},
		{"an answer that is lost", sinkfault.Call{Lose: true}, false, 0, "EOF"},
		{"no such stream", sinkfault.Call{Status: 400, Error: "ResourceNotFoundException"}, true, 0, "ResourceNotFound"},
		{"no right", sinkfault.Call{Status: 400, Error: "AccessDeniedException"}, true, 0, "AccessDenied"},
		{"a wrong key", sinkfault.Call{Status: 400, Error: "UnrecognizedClientException"}, true, 0, "UnrecognizedClient"},
		{"a wrong secret", sinkfault.Call{Status: 400, Error: "InvalidSignatureException"}, true, 0, "InvalidSignature"},
		{"an expired session", sinkfault.Call{Status: 400, Error: "ExpiredTokenException"}, false, time.Minute, "ExpiredToken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, s := fake(t, func(n int) sinkfault.Call {
				if n == 0 {
					return c.call
				}
				return sinkfault.Call{}
			})
			err := s.Send(t.Context(), records(3))
			var p *sink.PartialError
			if err == nil || errors.As(err, &p) || myrmidon.IsPermanent(err) != c.permanent || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sesame") {
				t.Fatalf("Send: %v (permanent: %v)", err, myrmidon.IsPermanent(err))
			}
			if f := myrmidon.AsFailure(err); f.After != c.after || c.permanent && f.Hint == "" {
				t.Errorf("after %s, hint %q; want %s", f.After, f.Hint, c.after)
			}
			before := len(srv.Received()) // the lost answer's
			if err := s.Send(t.Context(), records(3)); err != nil || len(srv.Received()) != before+3 {
				t.Errorf("again: %v, there are %d", err, len(srv.Received()))
			}
		})
	}
}

func TestASessionThatHasExpiredIsLookedForAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(token string) {
		text := "[default]\naws_access_key_id=AKID\naws_secret_access_key=sesame\naws_session_token=" + token + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	srv := sinkfault.NewKinesis("events", func(n int) sinkfault.Call {
		if n == 1 {
			write("new") // as a tool would
			return sinkfault.Call{Status: 400, Error: "ExpiredTokenException"}
		}
		return sinkfault.Call{}
	})
	h := httptest.NewServer(srv)
	defer h.Close()
	environment(t, h.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	s := open(t, kinesis.Config{Stream: "events"})
	for range 3 {
		if err := s.Send(t.Context(), records(1)); err != nil {
			t.Fatal(err)
		}
	}
	if got := srv.Tokens(); !slices.Equal(got, []string{"old", "old", "new", "new"}) {
		t.Errorf("sessions %v", got)
	}
}

func TestNothingIsLost(t *testing.T) {
	doubles := 0
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			srv, s := fake(t, func(n int) sinkfault.Call {
				r := rand.New(rand.NewPCG(seed, uint64(n)))
				item := func(int, string) string {
					if r.IntN(5) == 0 {
						return "InternalFailure"
					}
					return ""
				}
				switch r.IntN(5) {
				case 0:
					return sinkfault.Call{Status: 500, Error: "InternalFailure"}
				case 1:
					return sinkfault.Call{Lose: true, Item: item}
				}
				return sinkfault.Call{Item: item}
			})
			r := rand.New(rand.NewPCG(seed, 9))
			b := sink.NewBatcher(s, sink.BatcherConfig{
				Records: 1 + r.IntN(40), Attempts: 100, Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, Ordered: seed%2 == 0,
			})
			n := 50 + r.IntN(150)
			for i := range n {
				if _, err := b.Add(t.Context(), record(i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			var want []string
			for i := range n {
				want = append(want, string(record(i).Data))
			}
			slices.Sort(want)
			got := slices.Sorted(slices.Values(srv.Received()))
			doubles += len(got) - n
			if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if doubles == 0 {
		t.Error("no record came twice: the schedules test nothing")
	}
}

func TestBadConfigurations(t *testing.T) {
	environment(t, "")
	for name, cfg := range map[string]kinesis.Config{
		"no stream":               {},
		"a secret for a stream":   {Stream: "AKID:sesame@events"},
		"a secret in an endpoint": {Stream: "events", Endpoint: "http://AKID:sesame@host"},
		"no URL":                  {Stream: "events", Endpoint: "host:4567"},
		"no such profile":         {Stream: "events", Profile: "nobody"},
	} {
		_, err := kinesis.New(t.Context(), cfg)
		if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v, want a permanent error with a hint and no secret", name, err)
		}
	}
	t.Setenv("AWS_REGION", "")
	if _, err := kinesis.New(t.Context(), kinesis.Config{Stream: "events"}); !myrmidon.IsPermanent(err) || !strings.Contains(err.Error(), "no region") {
		t.Errorf("without a region: %v", err)
	}
}
