package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"myrmidon/internal/testkit/sqsstub"
	"myrmidon/object"
)

func config(slots int) Config {
	return Config{Slots: make(chan struct{}, slots), Log: slog.New(slog.DiscardHandler), Again: 50 * time.Millisecond, Pause: 10 * time.Millisecond}
}

// run runs a feed beside a test, until the function that it returns is called.
func run(t *testing.T, f *Feed, do Do) (end func()) {
	t.Helper()
	taking, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(taking, t.Context(), do, func(error) {})
	}()
	var once sync.Once
	end = func() { once.Do(func() { stop(); <-done }) }
	t.Cleanup(end)
	return end
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// calls counts how often each key came.
type calls struct {
	mu   sync.Mutex
	keys map[string]int
}

func (c *calls) add(key string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = make(map[string]int)
	}
	c.keys[key]++
	return c.keys[key]
}

func (c *calls) of(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys[key]
}

func (c *calls) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.keys)
}

func put(keys ...string) string {
	var records []string
	for _, key := range keys {
		records = append(records, fmt.Sprintf(`{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"logs"},"object":{"key":%q,"eTag":"e","sequencer":"1"}}}`, key))
	}
	return `{"Records":[` + strings.Join(records, ",") + `]}`
}

// queueFeed is a feed of a stub.
func queueFeed(t *testing.T, cfg Config, stub *sqsstub.Queue, name string) (*Feed, *followed) {
	t.Helper()
	srv := httptest.NewServer(stub)
	t.Cleanup(srv.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	f, err := cfg.Queue(t.Context(), "sqs://"+srv.URL+"/1/"+name+"?region=eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	return f, f.source.(*followed)
}

func TestASessionThatExpiresInTheMiddleLosesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(token string) {
		data := "[media]\naws_access_key_id=A\naws_secret_access_key=S\naws_session_token=" + token + "\n"
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("old")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	stub := new(sqsstub.Queue)
	var requests, expired atomic.Int64
	var over atomic.Bool // the old session; what found no new one would not look again for a minute
	stub.Refuse = func(_ http.ResponseWriter, r *http.Request, _ string) (int, string) {
		if requests.Add(1) == 12 {
			write("new") // as a tool would
			over.Store(true)
		}
		if over.Load() && r.Header.Get("X-Amz-Security-Token") != "new" {
			expired.Add(1)
			return http.StatusBadRequest, "com.amazon.coral.service#ExpiredTokenException"
		}
		return 0, ""
	}
	const messages = 40
	for i := range messages {
		stub.Put(put(fmt.Sprint("k", i)))
	}
	srv := httptest.NewServer(stub)
	defer srv.Close()
	f, err := config(4).Queue(t.Context(), "sqs://"+srv.URL+"/1/logs?region=eu-west-1&profile=media")
	if err != nil {
		t.Fatal(err)
	}
	var came calls
	end := run(t, f, func(_ context.Context, o Object) error {
		came.add(o.Key)
		return nil
	})
	until(t, "all messages are deleted", func() bool { return stub.Deleted() == messages })
	end()
	if came.len() != messages || expired.Load() == 0 {
		t.Errorf("%d of %d objects came; %d requests were refused", came.len(), messages, expired.Load())
	}
	for key, n := range came.keys {
		if n != 1 {
			t.Errorf("%s came %d times", key, n)
		}
	}
}

func TestAQueueWhoseClockIsOther(t *testing.T) {
	stub := new(sqsstub.Queue)
	stub.Refuse = func(w http.ResponseWriter, r *http.Request, _ string) (int, string) {
		now := time.Now().Add(40 * time.Minute)
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		if signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date")); err != nil || now.Sub(signed).Abs() > 5*time.Minute {
			return http.StatusForbidden, "com.amazon.coral.service#InvalidSignatureException"
		}
		return 0, ""
	}
	stub.Put("x")
	_, q := queueFeed(t, config(1), stub, "logs")
	if got, err := q.Receive(t.Context(), 1); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
}

// inProcess hands requests to a server without a network: a bubble's clock does not stop for it.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func TestAMessageIsKeptPastItsFirstTerm(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	synctest.Test(t, func(t *testing.T) {
		stub := new(sqsstub.Queue)
		stub.Put(put("slow"))
		f, err := config(2).Queue(t.Context(), "sqs://http://queue/1/logs?region=eu-west-1")
		if err != nil {
			t.Fatal(err)
		}
		q := f.source.(*followed)
		q.api.Client = &http.Client{Transport: inProcess{stub}}
		q.visibility = 6 * time.Second
		var came calls
		end := run(t, f, func(context.Context, Object) error {
			came.add("slow")
			time.Sleep(2*q.visibility + time.Second)
			return nil
		})
		time.Sleep(3 * q.visibility)
		end()
		if stub.Deleted() != 1 || stub.Received() != 1 || came.of("slow") != 1 || stub.Hidden() == 0 {
			t.Errorf("deleted %d times, received %d times, handled %d times, kept %d times", stub.Deleted(), stub.Received(), came.of("slow"), stub.Hidden())
		}
	})
}

func TestOneBadAmongTenHoldsNothingUp(t *testing.T) {
	stub := new(sqsstub.Queue)
	for i := range 9 {
		stub.Put(put(fmt.Sprint("k", i)))
	}
	stub.Put("\x00garbage{")
	f, _ := queueFeed(t, config(2), stub, "logs")
	var came calls
	end := run(t, f, func(_ context.Context, o Object) error {
		if came.add(o.Key) == 1 && o.Key == "k3" {
			return errors.New("not now")
		}
		return nil
	})
	until(t, "the nine are deleted and the strange one was seen", func() bool { return stub.Deleted() == 9 && f.Stats().Strange > 0 })
	end()
	if stub.Left() != 1 || came.of("k3") != 2 || came.len() != 9 {
		t.Errorf("%d left, k3 came %d times, %d objects, %+v", stub.Left(), came.of("k3"), came.len(), f.Stats())
	}
}

// Ten records in one message, one of them wrong: the nine are done, and the message stays.
func TestOneBadRecordAmongTenHoldsNothingUp(t *testing.T) {
	stub := new(sqsstub.Queue)
	stub.Put(put("a", "b", "c", "d", "bad%zz", "e", "f", "g", "h", "i"))
	f, q := queueFeed(t, config(2), stub, "logs")
	var came calls
	end := run(t, f, func(_ context.Context, o Object) error { came.add(o.Key); return nil })
	until(t, "the nine came", func() bool { return came.len() == 9 && f.Stats().Strange == 1 })
	end()
	if stub.Left() != 1 || q.waiting() != 0 {
		t.Errorf("%d left", stub.Left())
	}
}

func TestTwoFollowersShareAQueue(t *testing.T) {
	stub := new(sqsstub.Queue)
	const messages = 60
	for i := range messages {
		stub.Put(put(fmt.Sprint("k", i)))
	}
	one, _ := queueFeed(t, config(2), stub, "logs")
	two, _ := queueFeed(t, config(2), stub, "logs")
	var came calls
	var by [2]atomic.Int64
	do := func(i int) Do {
		return func(ctx context.Context, o Object) error {
			by[i].Add(1)
			came.add(o.Key)
			for by[1-i].Load() == 0 && ctx.Err() == nil { // the other may begin late
				time.Sleep(time.Millisecond)
			}
			return nil
		}
	}
	ends := []func(){run(t, one, do(0)), run(t, two, do(1))}
	until(t, "all messages are deleted", func() bool { return stub.Deleted() == messages })
	for _, end := range ends {
		end()
	}
	if came.len() != messages || by[0].Load()+by[1].Load() != messages || by[0].Load() == 0 || by[1].Load() == 0 {
		t.Errorf("%d objects, %d and %d times", came.len(), by[0].Load(), by[1].Load())
	}
}

// What was received and not begun goes back at once when nothing more is taken.
func TestWhatIsNotBegunIsGivenBack(t *testing.T) {
	stub := new(sqsstub.Queue)
	for i := range 4 {
		stub.Put(put(fmt.Sprint("k", i)))
	}
	cfg := config(4)
	cfg.Again = time.Minute
	for range 3 {
		cfg.Slots <- struct{}{} // others are at work
	}
	f, q := queueFeed(t, cfg, stub, "logs")
	begun, goOn := make(chan struct{}, 4), make(chan struct{})
	end := run(t, f, func(context.Context, Object) error {
		begun <- struct{}{}
		select {
		case <-goOn:
		case <-t.Context().Done():
		}
		return nil
	})
	until(t, "all are received", func() bool { return stub.Received() == 4 })
	<-begun
	ended := make(chan struct{})
	go func() { end(); close(ended) }()
	until(t, "three are given back", func() bool { n, err := q.Depth(t.Context()); return err == nil && n == 3 })
	close(goOn)
	<-ended
	if stub.Deleted() != 1 || stub.Left() != 3 {
		t.Errorf("%d deleted, %d left", stub.Deleted(), stub.Left())
	}
}

// A message waits longer each time that its object is not done.
func TestWhatFailsIsTriedMoreAndMoreRarely(t *testing.T) {
	stub := new(sqsstub.Queue)
	stub.Put(put("k"))
	cfg := config(1)
	cfg.Again = 10 * time.Second
	f, _ := queueFeed(t, cfg, stub, "logs")
	run(t, f, func(context.Context, Object) error { return errors.New("not now") })
	for i, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		until(t, "it was given back", func() bool { return stub.Hidden() == i+1 })
		if is := stub.Term(); is > want || is < want-5*time.Second {
			t.Errorf("after %d times it waits %v, want %v", i+1, is, want)
		}
		stub.Expire()
	}
}

func TestASourceThatFailsIsTriedAgain(t *testing.T) {
	stub := new(sqsstub.Queue)
	var denied atomic.Bool
	denied.Store(true)
	stub.Refuse = func(http.ResponseWriter, *http.Request, string) (int, string) {
		if denied.Load() {
			return http.StatusForbidden, "com.amazon.coral.service#AccessDeniedException"
		}
		return 0, ""
	}
	stub.Put(put("k"))
	f, _ := queueFeed(t, config(1), stub, "logs")
	other, _ := queueFeed(t, config(1), stub, "gone")
	var came calls
	run(t, f, func(_ context.Context, o Object) error { came.add(o.Key); return nil })
	if Hopeless([]*Feed{f, other}) {
		t.Error("a feed that was not tried counts as hopeless")
	}
	run(t, other, func(context.Context, Object) error { return nil })
	until(t, "both are hopeless", func() bool { return Hopeless([]*Feed{f, other}) })
	denied.Store(false)
	until(t, "the object came", func() bool { return came.of("k") == 1 })
	if s := f.Stats(); s.Failing != nil || !s.Worked || s.Told.IsZero() || Hopeless([]*Feed{f, other}) {
		t.Errorf("%+v", s)
	}
	if s := other.Stats(); s.Failing == nil || s.Since.IsZero() || s.Worked {
		t.Errorf("%+v", s)
	}
}

func TestAnEventThatComesAgainDoesNothing(t *testing.T) {
	var d Done
	var times atomic.Int64
	ship := func(found string) func() (string, error) {
		return func() (string, error) { times.Add(1); time.Sleep(time.Millisecond); return found, nil }
	}
	one := Object{Bucket: "logs", Key: "k", ETag: "a", Sequencer: "1"}
	var five sync.WaitGroup
	for range 5 {
		five.Go(func() {
			if err := d.Once(t.Context(), "k", one, ship("a")); err != nil {
				t.Error(err)
			}
		})
	}
	five.Wait()
	if times.Load() != 1 {
		t.Errorf("five notifications were worked on %d times", times.Load())
	}
	// It was replaced before it was read: that event is over, too, and so is that of what was
	// found; but not that of the first bytes, should they come back.
	replaced := Object{Bucket: "logs", Key: "r", ETag: "a", Sequencer: "1"}
	for _, step := range []struct {
		o    Object
		want int64
	}{
		{replaced, 1},
		{replaced, 0},
		{Object{Key: "r", ETag: "b", Sequencer: "2"}, 0},
		{Object{Key: "r", ETag: "a", Sequencer: "3"}, 1},
		{Object{Key: "r"}, 1}, // nobody knows what it is
		{Object{Key: "r"}, 1},
	} {
		before := times.Load()
		if err := d.Once(t.Context(), "r", step.o, ship("b")); err != nil || times.Load()-before != step.want {
			t.Errorf("%+v: worked on %d times, want %d", step.o, times.Load()-before, step.want)
		}
	}
	gone := Object{Key: "g", ETag: "a", Sequencer: "1"}
	for range 2 { // it was not there, and may come back
		before := times.Load()
		if err := d.Once(t.Context(), "g", gone, ship("")); err != nil || times.Load() != before+1 {
			t.Errorf("what was not found counts as done: %v", err)
		}
	}
	no := errors.New("no")
	if err := d.Once(t.Context(), "n", one, func() (string, error) { return "", no }); !errors.Is(err, no) {
		t.Error(err)
	}
	before := times.Load()
	if err := d.Once(t.Context(), "n", one, ship("a")); err != nil || times.Load() != before+1 {
		t.Error("what failed counts as done")
	}
}

// An object that fails is found again, however much newer ones are done meanwhile, and after a
// restart.
func TestAListingWaitsForWhatFails(t *testing.T) {
	at := time.Now().Add(-50 * time.Minute)
	info := func(key string, minutes int) object.Info {
		return object.Info{Key: key, ETag: key, Modified: at.Add(time.Duration(minutes) * time.Minute)}
	}
	all := []object.Info{info("a", 0), info("b", 20), info("c", 40), info("gone", 1)}
	var mu sync.Mutex
	cfg := ListingConfig{
		Name: "here", File: filepath.Join(t.TempDir(), "seen.json"), Every: 5 * time.Millisecond,
		List: func(_ context.Context, _ time.Time, fn func(object.Info) error) error {
			mu.Lock()
			defer mu.Unlock()
			for _, o := range all {
				if err := fn(o); err != nil {
					return err
				}
			}
			return nil
		},
	}
	var came calls
	follow := func(good bool) func() {
		f, err := config(2).Listing(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return run(t, f, func(_ context.Context, o Object) error {
			came.add(o.Key)
			if !good && (o.Key == "a" || o.Key == "gone") {
				return errors.New("not now")
			}
			return nil
		})
	}
	end := follow(false)
	until(t, "it is tried again", func() bool { return came.of("a") > 2 && came.of("c") == 1 && came.of("b") == 1 })
	mu.Lock()
	all = all[:3]
	mu.Unlock()
	end()
	before := came.of("a")
	end = follow(true)
	until(t, "it is tried after a restart", func() bool { return came.of("a") > before })
	time.Sleep(20 * time.Millisecond) // a few listings
	end()
	if came.of("a") != before+1 || came.of("b") != 1 || came.of("c") != 1 {
		t.Errorf("%v", came.keys)
	}
}
