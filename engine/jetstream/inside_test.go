package jetstream

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"myrmidon/engine"
	"myrmidon/internal/testkit/natsserver"
)

func TestWhichServersAreTooOld(t *testing.T) {
	for version, want := range map[string]bool{
		"2.9.25": true, "2.11.9": true, "2.11.9-RC.1": true, "1.4.1": true, "2.2": true,
		"2.12.0": false, "2.12.0-beta.1": false, "2.15.2": false, "2.100.0": false, "3.0.0": false,
		"": false, "dev": false, "x.y.z": false, // builds without a release
	} {
		if got := tooOld(version); got != want {
			t.Errorf("tooOld(%q) is %v", version, got)
		}
	}
}

func TestDisplayHidesSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"nats://localhost:4222":                           "nats://localhost:4222",
		"nats://ada:pw@localhost:4222":                    "nats://localhost:4222",
		"nats://token@localhost:4222":                     "nats://localhost:4222",
		"localhost:4222":                                  "localhost:4222",
		"ada:pw@localhost:4222":                           "localhost:4222",
		"ada:p@w@localhost:4222":                          "localhost:4222",
		"nats://ada:p@w@localhost:4222":                   "nats://localhost:4222",
		"nats://ada:%zz@localhost:4222":                   "nats://localhost:4222",
		"nats://ada:%zz@pw@localhost:4222":                "nats://localhost:4222",
		"nats://ada:p/w@localhost:4222":                   "nats://localhost:4222",
		"nats://a:4222?token=pw":                          "nats://a:4222",
		"tls://ada:pw@[::1]:4222":                         "tls://[::1]:4222",
		"nats://ada:pw@one:4222, nats://ada:pw@two:4222 ": "nats://one:4222,nats://two:4222",
		"nats://ada:p,w@localhost:4222":                   "nats://(no address),localhost:4222",
		"":                                                "",
	} {
		if got := display(in); got != want {
			t.Errorf("display(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestHowLongARetryWaitsYet(t *testing.T) {
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339Nano) }
	for name, c := range map[string]struct {
		wait, notBefore string
		delivered       uint64
		least, most     time.Duration
	}{
		"just stored":        {"10s", at(10 * time.Second), 1, 9 * time.Second, 10 * time.Second},
		"stored a while ago": {"10s", at(4 * time.Second), 1, 3 * time.Second, 4 * time.Second},
		"its time has come":  {"10s", at(-time.Second), 1, -time.Hour, 0},

		"the clock was set back an hour meanwhile":    {"10s", at(time.Hour), 1, 9 * time.Second, 10 * time.Second},
		"the clock was set forward an hour meanwhile": {"10s", at(-time.Hour), 1, -2 * time.Hour, 0},
		"the server has counted the wait":             {"10s", at(time.Hour), 2, 0, 0},
		"no wait":                                     {"", "", 1, 0, 0},
		"a wait that is none":                         {"soon", at(time.Hour), 1, 0, 0},
		"a wait below zero":                           {"-10s", at(time.Hour), 1, -time.Hour, 0},
		"a time that is none":                         {"10s", "tomorrow", 1, 9 * time.Second, 10 * time.Second},
		"no time":                                     {"10s", "", 1, 9 * time.Second, 10 * time.Second},
		"a time in another zone":                      {"2h", time.Now().Add(time.Minute).In(time.FixedZone("", 5*3600)).Format(time.RFC3339Nano), 1, 58 * time.Second, time.Minute},
	} {
		m := nats.NewMsg("x")
		if c.wait != "" {
			m.Header.Set(waitHeader, c.wait)
		}
		if c.notBefore != "" {
			m.Header.Set(notBeforeHeader, c.notBefore)
		}
		if got := early(m, c.delivered); got < c.least || got > c.most {
			t.Errorf("%s: it waits %v yet, want %v to %v", name, got, c.least, c.most)
		}
	}
	if got := early(&nats.Msg{}, 1); got != 0 {
		t.Errorf("without headers it waits %v", got)
	}
}

func TestAWorkerThatIsNoLongerSeenIsForgotten(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	b, err := Connect(t.Context(), Remote{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	status, err := b.workers.Status(t.Context())
	if err != nil || status.TTL() != time.Minute {
		t.Errorf("entries of workers live for %v, %v; want a minute", status.TTL(), err)
	}
	if status, err := b.runs.Status(t.Context()); err != nil || status.TTL() != 0 {
		t.Errorf("entries of runs live for %v, %v; want for ever", status.TTL(), err)
	}
	const ttl = time.Second // a minute is too long for a test
	if b.workers, err = b.bucket(t.Context(), "SHORT", ttl); err != nil {
		t.Fatal(err)
	}
	// Seen twice, with less than its time between, it is there for longer than its time.
	// Where this process is stopped meanwhile, the worker is not seen in time: once more.
	var rev uint64
	for kept := false; !kept; {
		first := time.Now()
		rev, err = b.Put(t.Context(), "worker/w", []byte("1"), 0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(ttl / 2)
		second := time.Now()
		if rev, err = b.Put(t.Context(), "worker/w", []byte("2"), rev); err == nil {
			time.Sleep(ttl * 3 / 4)
			_, err = b.Entry(t.Context(), "worker/w")
			first = second
		}
		if kept = err == nil; kept {
			break
		}
		if age := time.Since(first); age < ttl {
			t.Fatalf("a worker that was seen %v ago: %v", age, err)
		}
		if err := b.Forget(t.Context(), "worker/w"); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := b.Entry(t.Context(), "worker/w")
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is still there: %v", err)
		}
	}
	if all, err := b.Entries(t.Context(), "worker/"); err != nil || len(all) > 0 {
		t.Errorf("entries: %v, %v", all, err)
	}
	if _, err := b.Put(t.Context(), "worker/w", []byte("3"), rev); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("a revision of an entry that is gone: %v, want ErrConflict", err)
	}
	if _, err := b.Put(t.Context(), "worker/w", []byte("3"), 0); err != nil {
		t.Errorf("a worker that is back: %v", err)
	}
}
