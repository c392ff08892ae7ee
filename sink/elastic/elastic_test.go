package elastic_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/sink"
	"myrmidon/sink/elastic"
	"myrmidon/sink/sinktest"
)

func record(n int) sink.Record {
	return sink.Record{ID: fmt.Sprint("id-", n), Data: fmt.Appendf(nil, `{"n":%d}`, n)}
}

func records(n int) []sink.Record {
	out := make([]sink.Record, n)
	for i := range out {
		out[i] = record(i)
	}
	return out
}

// serve runs the server, and returns a sink for it.
func serve(t *testing.T, bulk *sinkfault.Bulk, cfg elastic.Config) *elastic.Sink {
	t.Helper()
	srv := httptest.NewServer(bulk)
	t.Cleanup(srv.Close)
	cfg.URL, cfg.Index = srv.URL, "alb"
	s, err := elastic.New(cfg)
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

func TestElasticIsASink(t *testing.T) {
	for name, plain := range map[string]bool{"packed": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Opened {
				bulk := sinkfault.NewBulk(nil)
				return sinktest.Opened{Sink: serve(t, bulk, elastic.Config{Plain: plain}), Received: bulk.Received}
			}, sinktest.Options{DropsDoubles: true})
		})
	}
}

// outcome says what failed for good and what for now, of n records.
func outcome(err error, n int) (permanent, now []int) {
	var p *sink.PartialError
	if errors.As(err, &p) {
		for _, f := range p.Failed {
			if myrmidon.IsPermanent(f.Err) {
				permanent = append(permanent, f.Index)
			} else {
				now = append(now, f.Index)
			}
		}
		return permanent, now
	}
	if err != nil && !myrmidon.IsPermanent(err) {
		for i := range n {
			now = append(now, i)
		}
	}
	return permanent, now
}

func TestWhatBecomesOfRecords(t *testing.T) {
	answers := map[int]string{
		1: "400 document_parsing_exception", 2: "429 es_rejected_execution_exception", 3: "503 unavailable_shards_exception",
		4: "409 version_conflict_engine_exception", 5: "500 internal", 6: "404 index_not_found_exception", 7: "403 cluster_block_exception",
	}
	bulk := sinkfault.NewBulk(func(int) sinkfault.Call {
		return sinkfault.Call{Item: func(i int, _ string) string { return answers[i] }}
	})
	s := serve(t, bulk, elastic.Config{})
	err := s.Send(t.Context(), records(9))
	permanent, now := outcome(err, 9)
	if !slices.Equal(permanent, []int{1, 6, 7}) || !slices.Equal(now, []int{2, 3, 5}) {
		t.Errorf("permanent %v, for now %v (%v)", permanent, now, err)
	}
	if st := s.Stats(); st.Created != 2 || st.Doubles != 1 {
		t.Errorf("%+v", st)
	}
	var p *sink.PartialError
	if errors.As(err, &p) {
		for i, f := range p.Failed {
			if pushed := f.Index == 2 || f.Index == 3; (myrmidon.AsFailure(f.Err).After > 0) != pushed {
				t.Errorf("failure %d, %v, is pushed back: %v", i, f.Err, !pushed)
			}
		}
	}
}

// TestAnAnswerWithoutEachResultIsAFailure: nobody knows which records the results are of.
func TestAnAnswerWithoutEachResultIsAFailure(t *testing.T) {
	for _, items := range []int{0, 2, 4} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"errors":false,"items":[%s]}`, strings.TrimSuffix(strings.Repeat(`{"create":{"status":201}},`, items), ","))
		}))
		s, err := elastic.New(elastic.Config{URL: srv.URL, Index: "alb"})
		if err != nil {
			t.Fatal(err)
		}
		var p *sink.PartialError
		if err := s.Send(t.Context(), records(3)); err == nil || errors.As(err, &p) || myrmidon.IsPermanent(err) {
			t.Errorf("%d results for 3 records: %v, want a failure of all", items, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	}
}

func TestFailuresOfALaterRequestKeepTheirPlace(t *testing.T) {
	bulk := sinkfault.NewBulk(func(request int) sinkfault.Call {
		return sinkfault.Call{Item: func(i int, _ string) string {
			if request == 1 && i == 3 {
				return "400 document_parsing_exception"
			}
			return ""
		}}
	})
	s := serve(t, bulk, elastic.Config{})
	if permanent, now := outcome(s.Send(t.Context(), records(4100)), 4100); !slices.Equal(permanent, []int{2003}) || now != nil || bulk.Requests() != 3 {
		t.Errorf("permanent %v, for now %v after %d requests, want record 2003 alone, and 3", permanent, now, bulk.Requests())
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
		{"503 with Retry-After", sinkfault.Call{Status: 503, Error: "x", RetryAfter: 7}, false, 7 * time.Second, "503"},
		{"429 without", sinkfault.Call{Status: 429, Error: "circuit_breaking_exception"}, false, time.Second, "circuit_breaking"},
		{"500", sinkfault.Call{Status: 500}, false, 0, "500"},
		{"502 of a proxy", sinkfault.Call{Status: 502}, false, 0, "502"},
		{"408", sinkfault.Call{Status: 408}, false, 0, "408"},
		{"401", sinkfault.Call{Status: 401, Error: "security_exception"}, true, 0, "security_exception"},
		{"403", sinkfault.Call{Status: 403, Error: "security_exception"}, true, 0, "403"},
		{"404", sinkfault.Call{Status: 404}, true, 0, "404"},
		{"a redirect", sinkfault.Call{Status: 302}, true, 0, "302"},
		{"an answer that is lost", sinkfault.Call{Lose: true}, false, 0, "EOF"},
		{"an index that is missing", sinkfault.Call{Item: func(int, string) string { return "404 index_not_found_exception" }}, true, 0, "index_not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bulk := sinkfault.NewBulk(func(n int) sinkfault.Call {
				if n == 0 {
					return c.call
				}
				return sinkfault.Call{}
			})
			s := serve(t, bulk, elastic.Config{})
			err := s.Send(t.Context(), records(3))
			var p *sink.PartialError
			if err == nil || errors.As(err, &p) || myrmidon.IsPermanent(err) != c.permanent || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Send: %v (permanent: %v)", err, myrmidon.IsPermanent(err))
			}
			if f := myrmidon.AsFailure(err); f.After != c.after || c.permanent && f.Hint == "" {
				t.Errorf("after %s, hint %q; want %s", f.After, f.Hint, c.after)
			}
			if err := s.Send(t.Context(), records(3)); err != nil || len(bulk.Received()) != 3 {
				t.Errorf("again: %v, there are %d", err, len(bulk.Received()))
			}
		})
	}
}

func TestARequestThatIsTooLargeIsHalved(t *testing.T) {
	bulk := sinkfault.NewBulk(nil)
	bulk.MaxBytes = 200
	s := serve(t, bulk, elastic.Config{})
	rs := records(20)
	rs[13].Data = []byte(`{"long":"` + strings.Repeat("x", 300) + `"}`)
	permanent, now := outcome(s.Send(t.Context(), rs), 20)
	if !slices.Equal(permanent, []int{13}) || now != nil || len(bulk.Received()) != 19 {
		t.Errorf("permanent %v, for now %v, %d stored; want 13 alone, and 19", permanent, now, len(bulk.Received()))
	}
}

func TestADestinationThatFailsInTheMiddleKeepsWhatItHas(t *testing.T) {
	bulk := sinkfault.NewBulk(func(n int) sinkfault.Call {
		if n == 1 {
			return sinkfault.Call{Status: 503}
		}
		return sinkfault.Call{}
	})
	s := serve(t, bulk, elastic.Config{})
	_, now := outcome(s.Send(t.Context(), records(5000)), 5000)
	if len(now) != 3000 || now[0] != 2000 || bulk.Requests() != 2 {
		t.Errorf("%d failed after %d requests, want the last 3,000 after 2", len(now), bulk.Requests())
	}
}

func TestSecretsComeFromTheEnvironmentAndStayThere(t *testing.T) {
	for _, c := range []struct {
		name, want string
		env        map[string]string
	}{
		{"an API key", "ApiKey c2VzYW1l", map[string]string{"ELASTICSEARCH_API_KEY": "c2VzYW1l"}},
		{"a password", "Basic dXM6c2VzYW1l", map[string]string{"ELASTICSEARCH_USERNAME": "us", "ELASTICSEARCH_PASSWORD": "sesame"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			bulk := sinkfault.NewBulk(nil)
			bulk.Authorization = c.want
			if err := serve(t, bulk, elastic.Config{}).Send(t.Context(), records(1)); err != nil {
				t.Error(err)
			}
			bulk.Authorization = "other"
			err := serve(t, bulk, elastic.Config{}).Send(t.Context(), records(1))
			if !myrmidon.IsPermanent(err) || strings.Contains(err.Error()+myrmidon.Hint(err), "sesame") || strings.Contains(err.Error(), "c2VzYW1l") {
				t.Errorf("with a wrong secret: %v", err)
			}
		})
	}
}

func TestBadAddresses(t *testing.T) {
	for _, c := range [][2]string{
		{"ftp://host", "alb"},
		{"host:9200", "alb"},
		{"http://us:sesame@host", "alb"},
		{"http://host?x=sesame", "alb"},
		{"http://host", ""},
		{"http://host", "_all"},
		{"http://host", "a/b"},
		{"http://host", "ALB"},
		{"http://host", "a*"},
		{"http://\x7f", "a"},
	} {
		_, err := elastic.New(elastic.Config{URL: c[0], Index: c[1]})
		if !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" || strings.Contains(err.Error(), "sesame") {
			t.Errorf("New of %q: %v, want a permanent error with a hint and no secret", c, err)
		}
	}
}

func TestALongIDIsReplacedByItsHash(t *testing.T) {
	bulk := sinkfault.NewBulk(nil)
	s := serve(t, bulk, elastic.Config{})
	a, b := record(1), record(2)
	a.ID, b.ID = strings.Repeat("x", 600)+"a", strings.Repeat("x", 600)+"b"
	for range 2 {
		if err := s.Send(t.Context(), []sink.Record{a, b}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(bulk.Received()); n != 2 {
		t.Errorf("%d are stored, want 2", n)
	}
}

// TestNothingIsLostOrDoubled sends through a batcher to a server that fails by chance.
func TestNothingIsLostOrDoubled(t *testing.T) {
	doubles := uint64(0)
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 8))
		bulk := sinkfault.NewBulk(func(n int) sinkfault.Call {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			item := func(_ int, doc string) string {
				switch {
				case doc == `{"n":7}`:
					return "400 document_parsing_exception"
				case r.IntN(5) == 0:
					return "500 some_exception"
				}
				return ""
			}
			switch r.IntN(6) {
			case 0:
				return sinkfault.Call{Status: 500}
			case 1, 2:
				return sinkfault.Call{Item: item, Lose: true}
			}
			return sinkfault.Call{Item: item}
		})
		s := serve(t, bulk, elastic.Config{})
		n := 50 + r.IntN(200)
		var parked []string
		b := sink.NewBatcher(s, sink.BatcherConfig{
			Records: 1 + r.IntN(40), Attempts: 100, Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
			Parked: func(r sink.Record, _ error) error { parked = append(parked, string(r.Data)); return nil },
		})
		for i := range n {
			if _, err := b.Add(t.Context(), record(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		var want []string
		for i := range n {
			if i != 7 {
				want = append(want, string(record(i).Data))
			}
		}
		slices.Sort(want)
		got := slices.Sorted(slices.Values(bulk.Received()))
		if diff := cmp.Diff(want, got); diff != "" || !slices.Equal(parked, []string{`{"n":7}`}) {
			t.Errorf("seed %d: parked %v, stored (-want +got):\n%s", seed, parked, diff)
		}
		doubles += s.Stats().Doubles
	}
	if doubles == 0 {
		t.Error("no record came twice: the schedules test nothing")
	}
}

func TestASlowServerIsGivenUp(t *testing.T) {
	over := make(chan struct{})
	bulk := sinkfault.NewBulk(func(int) sinkfault.Call { <-over; return sinkfault.Call{} })
	s := serve(t, bulk, elastic.Config{Timeout: 20 * time.Millisecond})
	defer close(over)
	if err := s.Send(t.Context(), records(1)); err == nil || myrmidon.IsPermanent(err) {
		t.Errorf("Send: %v, want an error of the moment", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := s.Send(ctx, records(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send: %v, want the end of its context", err)
	}
}
