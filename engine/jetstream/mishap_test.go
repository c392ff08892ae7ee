package jetstream_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/netfault"
)

// storm commits from many goroutines: each plans a shard of its own by slices, and tells
// of events without a cursor in between.
type storm struct {
	planners, slices int
	mu               sync.Mutex
	stale            int
	slowest          time.Duration
	storing          sync.WaitGroup
}

// start begins the storm; wait ends when all is stored.
func (s *storm) start(t *testing.T, b engine.Backend) {
	for p := range s.planners {
		s.storing.Go(func() {
			for n := 1; n <= s.slices; n++ {
				if !s.slice(t, b, uint32(p), uint32(n)) {
					return
				}
			}
		})
	}
}

// slice stores slice n of shard p, and an event by itself.
func (s *storm) slice(t *testing.T, b engine.Backend, p, n uint32) bool {
	c, err := b.Cursor(t.Context(), runID, 0, p)
	if err != nil {
		t.Errorf("cursor: %v", err)
		return false
	}
	if c.Steps != n-1 {
		t.Errorf("shard %d stands at slice %d, want %d", p, c.Steps, n-1)
		return false
	}
	c.Steps = n
	j := job(int(n))
	j.Shard = p
	e := engine.Event{Type: engine.EventPlanned, Run: runID, Shard: p, Step: n, Next: n + 1}
	start := time.Now()
	err = b.Commit(t.Context(), engine.Batch{Jobs: []myrmidon.Job{j}, Events: []engine.Event{e}, Next: c})
	took := time.Since(start)
	stale := errors.Is(err, engine.ErrStaleSlice) // it was stored and the answer was lost
	s.mu.Lock()
	s.slowest = max(s.slowest, took)
	if stale {
		s.stale++
	}
	s.mu.Unlock()
	if err != nil && !stale {
		t.Errorf("commit: %v", err)
		return false
	}
	e.Type, e.Nonce = engine.EventResult, uint64(p)<<32|uint64(n)
	if err := b.Commit(t.Context(), engine.Batch{Events: []engine.Event{e}}); err != nil {
		t.Errorf("commit of an event: %v", err)
		return false
	}
	return true
}

// check finds each slice once: its job, its event and its cursor; and each event that has
// no cursor at least once.
func (s *storm) check(t *testing.T, b engine.Backend) {
	t.Helper()
	type at struct{ shard, n uint32 }
	slices, results, jobs := make(map[at]int), make(map[at]int), make(map[at]int)
	err := b.Read(t.Context(), runID, 0, false, func(_ uint64, e engine.Event) error {
		if e.Type == engine.EventPlanned {
			slices[at{e.Shard, e.Step}]++
		} else {
			results[at{e.Shard, e.Step}]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(pull(t, b, s.planners*s.slices), rest(t, b)...) {
		j := d.Job()
		if !d.Again() {
			jobs[at{j.Shard, j.First}]++
		}
	}
	bad := 0
	for p := range uint32(s.planners) {
		for n := uint32(1); n <= uint32(s.slices); n++ {
			k := at{p, n}
			if slices[k] != 1 || jobs[k] != 1 || results[k] < 1 {
				if bad++; bad < 10 {
					t.Errorf("slice %d of shard %d: its event is there %d times, its job %d times (want 1), its result %d times (want 1 or more)", n, p, slices[k], jobs[k], results[k])
				}
			}
		}
	}
	t.Logf("%d slices, %d of them refused the second time; the slowest took %v", s.planners*s.slices, s.stale, s.slowest)
}

func (s *storm) wait(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	go func() { s.storing.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(100 * time.Second):
		t.Fatal("the commits do not end")
	}
}

func TestABrokerIsRestartedDuringCommits(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	b := connect(t, jetstream.Remote{URL: s.URL()})
	st := &storm{planners: 50, slices: 100}
	st.start(t, b)
	var gone time.Duration
	for range 4 {
		time.Sleep(150 * time.Millisecond)
		start := time.Now()
		if err := errors.Join(s.Kill(), s.Restart()); err != nil {
			t.Fatal(err)
		}
		gone += time.Since(start)
	}
	st.wait(t)
	if st.slowest > gone+8*time.Second {
		t.Errorf("a commit took %v although the broker was gone for %v in all", st.slowest, gone)
	}
	st.check(t, b)
}

// behindProxy returns a broker, a backend on it, and what can break their connection.
func behindProxy(t *testing.T) (*natsserver.Server, *netfault.Proxy, *jetstream.Backend) {
	t.Helper()
	s := natsserver.Start(t, natsserver.Options{})
	proxy, err := netfault.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	return s, proxy, connect(t, jetstream.Remote{URL: "nats://" + proxy.Addr()})
}

func TestABrokerIsCutOffDuringCommits(t *testing.T) {
	t.Parallel()
	_, proxy, b := behindProxy(t)
	st := &storm{planners: 50, slices: 100}
	st.start(t, b)
	time.Sleep(200 * time.Millisecond)
	proxy.Cut()
	time.Sleep(5 * time.Second)
	proxy.Heal()
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		proxy.Reset()
	}
	st.wait(t)
	st.check(t, b)
}

// Readers that follow a log look for another consumer when the connection is back; one that
// is ended at that moment ends, too.
func TestAReaderEndsWhileTheConnectionComesBack(t *testing.T) {
	t.Parallel()
	s, proxy, b := behindProxy(t)
	plan(t, b, 1, 1)
	watcher, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watcher.Close)
	asked := make(chan string, 1000) // for the consumer of a name
	if _, err := watcher.Subscribe("$JS.API.CONSUMER.CREATE.MYRMIDON.>", func(m *nats.Msg) {
		name, _, _ := strings.Cut(strings.Split(m.Subject, ".")[5], "_") // the reader's, and a number
		asked <- name
	}); err != nil {
		t.Fatal(err)
	}
	if err := watcher.Flush(); err != nil {
		t.Fatal(err)
	}
	const readers = 100
	ended := make(chan error, readers)
	ends := make(map[string]func())
	for range readers {
		ctx, end := context.WithCancel(t.Context())
		defer end()
		reading := make(chan bool, 1)
		go func() {
			ended <- b.Read(ctx, runID, 0, true, func(uint64, engine.Event) error { reading <- true; return nil })
		}()
		<-reading
		ends[<-asked] = end
	}
	proxy.Reset()
	for i := range readers {
		end := ends[<-asked]
		// Before the answer is there, and after: in 50 steps of 40 us.
		time.AfterFunc(time.Duration(i%50)*40*time.Microsecond, end)
	}
	late := time.After(time.Minute)
	for i := range readers {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("a reader that was ended: %v", err)
			}
		case <-late:
			t.Fatalf("%d of %d readers read on", readers-i, readers)
		}
	}
}

func TestABrokerComesBackEmpty(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	b := connect(t, jetstream.Remote{URL: s.URL()})
	plan(t, b, 1, 1)
	if err := errors.Join(s.Kill(), os.RemoveAll(s.StoreDir()), s.Restart()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, do := range map[string]func() error{
		"commit":  func() error { return b.Commit(ctx, engine.Batch{Jobs: []myrmidon.Job{job(1)}}) },
		"batch":   func() error { return b.Commit(ctx, sliceOf(2, 1)) },
		"set":     func() error { return b.Set(ctx, "a", []byte("b")) },
		"value":   func() error { _, err := b.Value(ctx, "a"); return err },
		"keys":    func() error { _, err := b.Keys(ctx, "a/"); return err },
		"cursor":  func() error { _, err := b.Cursor(ctx, runID, 0, 0); return err },
		"put":     func() error { _, err := b.Put(ctx, "run/a", nil, 0); return err },
		"entry":   func() error { _, err := b.Entry(ctx, "run/a"); return err },
		"entries": func() error { _, err := b.Entries(ctx, "run/"); return err },
		"purge":   func() error { return b.Purge(ctx, runID, 0) },
		"watch":   func() error { return b.Watch(ctx, "order/", func(engine.Entry) {}) },
		"follow": func() error {
			return b.Read(ctx, runID, 0, true, func(uint64, engine.Event) error { return nil })
		},
		"pull": func() error {
			_, err := b.Pull(ctx, engine.PullRequest{Lane: lane, N: 1, Wait: 15 * time.Second})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := do()
			if err == nil || !strings.Contains(err.Error(), "has no stream") || !strings.Contains(myrmidon.Hint(err), "empty store folder") {
				t.Errorf("it says %v (hint: %s)", err, myrmidon.Hint(err))
			}
		})
	}
}

// publish stores a message as another program would, and returns its sequence.
func publish(t *testing.T, url string, m *nats.Msg) uint64 {
	t.Helper()
	conn, js := raw(t, url)
	defer conn.Close()
	ack, err := js.PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func TestARetryWaitsItsTimeAlthoughTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	b := connect(t, jetstream.Remote{URL: s.URL()})
	const wait = 300 * time.Millisecond
	for name, notBefore := range map[string]time.Time{
		"back":    time.Now().Add(time.Hour),
		"forward": time.Now().Add(-time.Hour),
	} {
		j := job(7)
		data, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, s.URL(), &nats.Msg{Subject: "myr.retry." + runID + ".test.0.short.work", Data: data, Header: nats.Header{
			"Myrmidon-Wait":       {wait.String()},
			"Myrmidon-Not-Before": {notBefore.UTC().Format(time.RFC3339Nano)},
		}})
		start := time.Now()
		ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, Retries: true, N: 1, Wait: 20 * time.Second})
		took := time.Since(start)
		if err != nil || len(ds) != 1 {
			t.Fatalf("the clock was set %s: %d retries, %v", name, len(ds), err)
		}
		if took > wait+10*time.Second || name == "back" && took < wait-50*time.Millisecond {
			t.Errorf("the clock was set %s: the retry came after %v, want %v", name, took, wait)
		}
		if err := ds[0].Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestForgedJobsAreLeftOut(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	var log logged
	b := connect(t, jetstream.Remote{URL: s.URL(), Log: log.logger()})
	const subject = "myr.job." + runID + ".test.0.short.work"
	as := func(change func(*myrmidon.Job)) string {
		j := job(0)
		change(&j)
		data, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	forged := map[string]string{
		"nothing":                 "",
		"not JSON":                "\x00\xff{",
		"JSON of another shape":   `[1,2,3]`,
		"null":                    `null`,
		"another run":             as(func(j *myrmidon.Job) { j.Run = "01K000000000000000000OTHER" }),
		"a run with a wildcard":   as(func(j *myrmidon.Job) { j.Run = ">" }),
		"another workload":        as(func(j *myrmidon.Job) { j.Kind = "other.work" }),
		"another kind":            as(func(j *myrmidon.Job) { j.Kind = "test.plan" }),
		"another version":         as(func(j *myrmidon.Job) { j.Version = 9 }),
		"a long one":              as(func(j *myrmidon.Job) { j.Long = true }),
		"four billion items":      as(func(j *myrmidon.Job) { j.Count = 1<<32 - 1 }),
		"items beyond 32 bits":    as(func(j *myrmidon.Job) { j.First, j.Count = 1<<32-1, 100 }),
		"no items":                as(func(j *myrmidon.Job) { j.Count = 0 }),
		"a number beyond 32 bits": strings.Replace(as(func(*myrmidon.Job) {}), `1`, `99999999999999999999`, 1),
		"a spec of 900 KiB":       as(func(j *myrmidon.Job) { j.Spec = json.RawMessage(`"` + strings.Repeat("x", 900<<10) + `"`) }),
		"a spec of 100 KiB":       as(func(j *myrmidon.Job) { j.Spec = json.RawMessage(`"` + strings.Repeat("x", 100<<10) + `"`) }),
		"a tower of brackets":     strings.Repeat("[", 700<<10),
	}
	first := 0
	sequences := make(map[string]uint64)
	for name, data := range forged {
		if err := b.Commit(t.Context(), engine.Batch{Jobs: []myrmidon.Job{job(first)}}); err != nil {
			t.Fatal(err)
		}
		first++
		sequences[name] = publish(t, s.URL(), &nats.Msg{Subject: subject, Data: []byte(data)})
	}
	if err := b.Commit(t.Context(), engine.Batch{Jobs: []myrmidon.Job{job(first)}}); err != nil {
		t.Fatal(err)
	}
	for i, d := range pull(t, b, first+1) {
		if got := int(d.Job().First); got != i {
			t.Errorf("job %d came as the %d-th", got, i)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if ds := rest(t, b); len(ds) > 0 {
		t.Errorf("a forged job was handed out: %+v", ds[0].Job())
	}
	// What is off the queue does not come again when its lease ends.
	untilFresh(t, s.URL(), "nothing is left of them", func(i *natsjs.ConsumerInfo) bool { return i.NumAckPending == 0 && i.NumPending == 0 })
	text := log.String()
	for name, seq := range sequences {
		found := 0
		for line := range strings.Lines(text) {
			if strings.Contains(line, "level=ERROR") && strings.Contains(line, "subject="+subject) && strings.Contains(line, fmt.Sprintf("sequence=%d ", seq)) {
				found++
				if len(line) > 2000 {
					t.Errorf("%s: the log line has %d bytes", name, len(line))
				}
			}
		}
		if found != 1 {
			t.Errorf("%s: %d ERROR lines name its subject and sequence %d, want 1", name, found, seq)
		}
	}
}

func TestForgedEventsAreLeftOut(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	var log logged
	b := connect(t, jetstream.Remote{URL: s.URL(), Log: log.logger()})
	event := func(n uint32) engine.Batch {
		return engine.Batch{Events: []engine.Event{{Type: engine.EventPlanned, Run: runID, Step: n}}}
	}
	n := uint32(0)
	for _, data := range []string{"", "\xff", "[]", `{"type":7}`, `{"type":"planned","run":"01K000000000000000000OTHER"}`, `{"time":"never"}`, `null`} {
		n++
		if err := b.Commit(t.Context(), event(n)); err != nil {
			t.Fatal(err)
		}
		publish(t, s.URL(), &nats.Msg{Subject: "myr.event." + runID, Data: []byte(data)})
	}
	n++
	if err := b.Commit(t.Context(), event(n)); err != nil {
		t.Fatal(err)
	}
	want := uint32(1)
	err := b.Read(t.Context(), runID, 0, false, func(seq uint64, e engine.Event) error {
		if e.Run != runID || e.Step != want {
			t.Errorf("at %d: %+v, want step %d", seq, e, want)
		} else {
			want++
		}
		return nil
	})
	if err != nil || want != n+1 {
		t.Errorf("read up to step %d, %v, want %d", want-1, err, n)
	}
	if got := strings.Count(log.String(), "level=ERROR"); got != int(n)-1 {
		t.Errorf("%d ERROR lines, want %d:\n%s", got, n-1, log.String())
	}
}

func TestTheWorkerOfTheLowestPriorityGetsTheJob(t *testing.T) {
	t.Parallel()
	s := natsserver.Start(t, natsserver.Options{})
	backends := []*jetstream.Backend{connect(t, jetstream.Remote{URL: s.URL()}), connect(t, jetstream.Remote{URL: s.URL()})}
	rest(t, backends[0]) // makes the consumer
	for round, priorities := range [][2]int{{0, 5}, {5, 0}, {9, 8}, {3, 4}, {7, 1}} {
		got := make(chan int, 2)
		for w, b := range backends {
			go func() {
				ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: 1, Wait: time.Minute, Priority: priorities[w]})
				if err != nil {
					t.Error(err)
				}
				for _, d := range ds {
					if err := d.Ack(t.Context()); err != nil {
						t.Error(err)
					}
				}
				got <- w
			}()
			untilFresh(t, s.URL(), "it waits before the next one does", func(i *natsjs.ConsumerInfo) bool { return i.NumWaiting == w+1 })
		}
		want := []int{0, 1}
		if priorities[1] < priorities[0] {
			want = []int{1, 0}
		}
		for i, w := range want { // the second job is for the one that is left
			if err := backends[0].Commit(t.Context(), engine.Batch{Jobs: []myrmidon.Job{job(2*round + i)}}); err != nil {
				t.Fatal(err)
			}
			if one := <-got; one != w {
				t.Errorf("of workers with priorities %v, number %d got job %d, want %d", priorities, one, i, w)
			}
		}
	}
}

// untilFresh waits until the broker says what it should of the consumer of fresh jobs.
func untilFresh(t *testing.T, url, what string, ok func(*natsjs.ConsumerInfo) bool) {
	t.Helper()
	conn, js := raw(t, url)
	defer conn.Close()
	c, err := js.Consumer(t.Context(), "MYRMIDON", "fresh-test-0-short")
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		info, err := c.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ok(info) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s; the broker says %+v", what, info)
		}
	}
}
