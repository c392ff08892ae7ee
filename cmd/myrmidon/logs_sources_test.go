package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/logs"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/internal/testkit/sqsstub"
)

// told is what a process beside a test writes.
type told struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *told) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *told) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// follower is a process that follows.
type follower struct {
	t         *testing.T
	c         *exec.Cmd
	out, told *told
}

func (s *logShop) follower(args ...string) *follower {
	s.t.Helper()
	f := &follower{s.t, s.command(append([]string{"logs", "ship", "--follow"}, args...)...), new(told), new(told)}
	f.c.Stdout, f.c.Stderr = f.out, f.told
	if err := f.c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = f.c.Process.Kill() })
	return f
}

var taken = regexp.MustCompile(`taking events at webhook(://\S+)`)

// hook returns the URL of a webhook.
func (f *follower) hook() (at string) {
	f.t.Helper()
	until(f.t, "events are taken", func() bool {
		m := taken.FindStringSubmatch(f.told.String())
		if m != nil {
			at = "http" + m[1]
		}
		return m != nil
	})
	return at
}

// end ends it by SIGTERM, and returns its summary.
func (f *follower) end(want int) (sum logs.Summary) {
	f.t.Helper()
	if err := f.c.Process.Signal(syscall.SIGTERM); err != nil {
		f.t.Fatal(err)
	}
	err := f.c.Wait()
	if status(err) != want || json.Unmarshal([]byte(f.out.String()), &sum) != nil {
		f.t.Fatalf("exit %v, want %d\n%s%s", err, want, f.out, f.told)
	}
	if err := sum.Check(); err != nil {
		f.t.Error(err)
	}
	return sum
}

func (f *follower) kill() {
	f.t.Helper()
	if err := f.c.Process.Kill(); err != nil {
		f.t.Fatal(err)
	}
	_ = f.c.Wait() // that it was killed
}

// escapedLogs are escaped in notifications.
const escapedLogs = "%d+a %%41.log"

// upload puts objects through the server, which gives them ETags, and returns them.
func (s *logShop) upload(name string, objects, lines int) (out []listed) {
	s.t.Helper()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	folder := filepath.Join(s.dir, "src")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		s.t.Fatal(err)
	}
	for o := range objects {
		var b bytes.Buffer
		for i := range lines {
			b.WriteString(balancerLine(at.Add(time.Duration(o*lines+i)*time.Millisecond), 200, i))
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf(name, o)), b.Bytes(), 0o600); err != nil {
			s.t.Fatal(err)
		}
		s.lines += lines
	}
	if said, err := s.command("clone", "-q", folder, "s3://logs/").CombinedOutput(); err != nil {
		s.t.Fatalf("%v\n%s", err, said)
	}
	data, err := s.command("ls", "-r", "--json", "s3://logs").Output()
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var l listed
		if err := json.Unmarshal(line, &l); err != nil || l.ETag == "" {
			s.t.Fatalf("%v: %s", err, line)
		}
		out = append(out, l)
	}
	if len(out) != objects {
		s.t.Fatalf("%v", out)
	}
	return out
}

// event is a notification of S3.
func event(o listed, sequencer string) string {
	return fmt.Sprintf(`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"logs"},"object":{"key":%q,"size":%d,"eTag":%q,"sequencer":%q}}}]}`, url.QueryEscape(o.Key), o.Size, o.ETag, sequencer)
}

func post(t *testing.T, at, body string, want int) {
	t.Helper()
	resp, err := http.Post(at, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != want {
		t.Errorf("status %d, want %d", resp.StatusCode, want)
	}
}

// lumberjackServer is one that answers by a script.
func lumberjackServer(t *testing.T, script func(window int) sinkfault.Window) *sinkfault.Lumberjack {
	t.Helper()
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	s := sinkfault.NewLumberjack(l, script)
	t.Cleanup(s.Close)
	return s
}

func queueServer(t *testing.T) (*sqsstub.Queue, string) {
	t.Helper()
	stub := new(sqsstub.Queue)
	srv := httptest.NewServer(stub)
	t.Cleanup(srv.Close)
	return stub, "sqs://" + srv.URL + "/1/logs?region=us-east-1"
}

// Queues, a folder and a webhook in one process; a queue that is not there is named, and holds
// nothing up.
func TestLogsFollowManySources(t *testing.T) {
	s := newLogShop(t, 0, 0)
	stub, queue := queueServer(t)
	server := lumberjackServer(t, func(int) sinkfault.Window { return sinkfault.Window{} })
	objects := s.upload(escapedLogs, 3, 40)
	stub.Put(event(objects[0], "1"))
	stub.Put(event(objects[1], "1"))
	if err := os.Mkdir(filepath.Join(s.dir, "more"), 0o700); err != nil {
		t.Fatal(err)
	}
	line := balancerLine(time.Now().UTC().Add(-time.Hour), 200, 7)
	if err := os.WriteFile(filepath.Join(s.dir, "more", "a.log"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	alarms := make(chan string, 10)
	alarm := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var said struct{ Name string }
		if json.NewDecoder(r.Body).Decode(&said) == nil {
			alarms <- said.Name
		}
	}))
	defer alarm.Close()
	file := filepath.Join(s.dir, "status.json")
	f := s.follower("q="+queue, "disk=more", "gone="+strings.Replace(queue, "/logs?", "/other?", 1), "hook=webhook://127.0.0.1:0/s3",
		"--to", "lumberjack://"+server.Addr(), "--every", "1s", "--stats", "1s", "--json", "--status", file,
		"--expect", "1h,disk=1s", "--webhook", alarm.URL)
	post(t, f.hook(), event(objects[2], "1"), 200)
	var is logs.Summary
	by := make(map[string]logs.SourceSummary)
	until(t, "the status says that all is done", func() bool {
		data, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(data, &is) != nil {
			return false
		}
		acked, waiting := int64(0), int64(0) // what is acknowledged counts for its source a little later, and waits until then
		for _, of := range is.Sources {
			by[of.Name] = of
			acked += of.Lines.Acked
			waiting += of.Waiting
		}
		return is.Lines.Acked == int64(s.lines+1) && acked == is.Lines.Acked && waiting == 0 && by["disk"].Quiet && by["gone"].Failing != ""
	})
	if name := <-alarms; name != "disk" {
		t.Errorf("%s is told as quiet", name)
	}
	if is.State != "following" || is.Time.IsZero() || len(is.Sources) != 4 {
		t.Errorf("%+v", is)
	}
	for name, want := range map[string]int64{"q": 80, "disk": 1, "hook": 40, "gone": 0} {
		of := by[name]
		if of.Lines.Acked != want || (of.Lag != nil) != (want > 0) || of.LastSeen.IsZero() != (want == 0) || of.Quiet != (name == "disk") || (of.Failing != "") != (name == "gone") || of.Waiting != 0 {
			t.Errorf("%s: %+v", name, of)
		}
	}
	if lag := *by["disk"].Lag; lag < 3600 || lag > 3700 {
		t.Errorf("a line of an hour ago is %v s old", lag)
	}
	sum := f.end(0)
	if sum.Lines.Acked != int64(s.lines+1) || sum.Objects.Read != 4 || sum.Objects.Bytes == 0 || sum.CPU == 0 || sum.PeakMemory == 0 || len(ids(t, server.Received())) != s.lines+1 {
		t.Errorf("%+v", sum)
	}
	if !strings.Contains(f.told.String(), "gone cannot be followed") || !strings.Contains(f.told.String(), `"sources":[{"name":"q"`) {
		t.Errorf("%s", f.told)
	}
	if data, err := os.ReadFile(file); err != nil || json.Unmarshal(data, &is) != nil || is.State != "ended" {
		t.Errorf("%v %s", err, data)
	}
}

func TestNoSourceCanBeFollowed(t *testing.T) {
	s := newLogShop(t, 0, 0)
	_, queue := queueServer(t)
	gone := strings.Replace(queue, "/logs?", "/other?", 1)
	for _, c := range []struct {
		want int
		text string
		args []string
	}{
		{exitFailed, "QueueDoesNotExist", []string{"one=" + gone, "two=" + gone}},
		{exitUsage, "two sources are called", []string{gone, gone}},
		{exitUsage, "no source is called that", []string{gone, "--expect", "nobody=10m"}},
		{exitUsage, "--expect", []string{gone, "--expect", "soon"}},
		{exitUsage, "--stats", []string{gone, "--stats", "1ms"}},
		{exitUsage, "--webhook: this is no URL", []string{gone, "--webhook", "chat/s3cret"}},
		{exitUsage, "belong together", []string{"webhook://127.0.0.1:0/", "--tls-cert", "x"}},
		{exitFailed, "MYRMIDON_WEBHOOK_TOKEN", []string{"webhook://0.0.0.0:0/"}},
		{exitFailed, "topic", []string{"webhook://127.0.0.1:0/", "--sns-topic", "logs"}},
		{exitUsage, "--follow takes several", []string{".", "other"}},
	} {
		args := append([]string{"logs", "ship", "--to", "out.ndjson"}, c.args...)
		if out, err := s.command(args...).CombinedOutput(); status(err) != c.want || !strings.Contains(string(out), c.text) {
			t.Errorf("%v: %v, want %d and %q\n%s", c.args, err, c.want, c.text, out)
		}
	}
}

// A notification that comes five times is worked on once, and so is an object that was replaced
// before it was read, whose two events come.
func TestTheSameNotificationFiveTimes(t *testing.T) {
	s := newLogShop(t, 0, 0)
	stub, queue := queueServer(t)
	server := lumberjackServer(t, func(int) sinkfault.Window { return sinkfault.Window{} })
	objects := s.upload(escapedLogs, 2, 50)
	replaced := objects[1]
	replaced.ETag = "0123456789abcdef0123456789abcdef"
	for range 5 {
		stub.Put(event(objects[0], "1"))
		stub.Put(event(replaced, "1"))
	}
	stub.Put(event(objects[1], "2"))
	f := s.follower(queue, "--to", "lumberjack://"+server.Addr(), "--slots", "6")
	until(t, "all messages are deleted", func() bool { return stub.Deleted() == 11 })
	sum := f.end(0)
	got := server.Received()
	if sum.Objects.Read != 2 || sum.Lines.Acked != 100 || len(got) != 100 || len(ids(t, got)) != 100 {
		t.Errorf("%d lines arrived, %d of them once; %+v", len(got), len(ids(t, got)), sum)
	}
}

// A destination that refuses everything, as with a wrong password, costs no message: it is named,
// and lines arrive once it takes them.
func TestAFollowerWaitsForARefusingDestination(t *testing.T) {
	s := newLogShop(t, 0, 0)
	stub, queue := queueServer(t)
	var open atomic.Bool
	bulk := sinkfault.NewBulk(func(int) sinkfault.Call {
		if !open.Load() {
			return sinkfault.Call{Status: http.StatusUnauthorized, Error: "security_exception"}
		}
		return sinkfault.Call{}
	})
	server := httptest.NewServer(bulk)
	defer server.Close()
	stub.Put(event(s.upload(escapedLogs, 1, 20)[0], "1"))
	file := filepath.Join(s.dir, "status.json")
	f := s.follower(queue, "--to", server.URL+"/alb", "--status", file, "--stats", "1s", "-q")
	until(t, "the status names the refusal", func() bool {
		data, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(data), `"lastError":`) && strings.Contains(string(data), "security_exception")
	})
	until(t, "the message is given back", func() bool { return stub.Hidden() > 0 }) // or that comes after its term is ended here
	open.Store(true)
	stub.Expire()
	until(t, "the message is deleted", func() bool { return stub.Deleted() == 1 })
	if sum := f.end(0); sum.Lines.Acked != 20 || sum.Objects.Read != 1 || sum.Sources[0].LastError != "" || len(bulk.Received()) != 20 {
		t.Errorf("%+v", sum)
	}
}

// A follower of a queue and a webhook is killed while lines are under way: messages and events
// come again, and no line is lost.
func TestAFollowerThatIsKilledLosesNothing(t *testing.T) {
	s := newLogShop(t, 0, 0)
	stub, queue := queueServer(t)
	var dead atomic.Bool
	server := lumberjackServer(t, func(n int) sinkfault.Window {
		if n == 2 {
			dead.Store(true) // from now on it takes, and says nothing
		}
		return sinkfault.Window{Silent: dead.Load()}
	})
	objects := s.upload(escapedLogs, 6, 150)
	args := []string{"q=" + queue, "hook=webhook://127.0.0.1:0/s3", "--to", "lumberjack://" + server.Addr(), "--slots", "4"}
	f := s.follower(args...)
	at := f.hook()
	for i, o := range objects {
		if i < 3 {
			stub.Put(event(o, "1"))
			continue
		}
		for range 3 {
			post(t, at, event(o, "1"), 200)
		}
	}
	until(t, "lines are under way that are not acknowledged", func() bool { return dead.Load() && server.Windows() > 2 })
	f.kill()
	stub.Expire()
	dead.Store(false)
	f = s.follower(args...)
	expired := time.Now()
	again := func() { // a request of the killed process may have taken messages after it was dead
		if time.Since(expired) > time.Second {
			expired = time.Now()
			stub.Expire()
		}
	}
	// Some objects were done before.
	until(t, "each line has arrived", func() bool { again(); return len(ids(t, server.Received())) == s.lines })
	until(t, "all messages are deleted", func() bool { again(); return stub.Left() == 0 })
	until(t, "all events are done", func() bool {
		left, err := filepath.Glob(filepath.Join(s.dir, "state", "follow", "events", "*", "*.json"))
		return err == nil && len(left) == 0
	})
	sum := f.end(0)
	if sum.Lines.Failed != 0 || len(ids(t, server.Received())) != s.lines {
		t.Errorf("%+v", sum)
	}
}

// The events of a real server, by a webhook.
func TestLogsFollowAServersOwnEvents(t *testing.T) {
	s := newLogShop(t, 0, 0)
	server := lumberjackServer(t, func(int) sinkfault.Window { return sinkfault.Window{} })
	f := s.follower("webhook://127.0.0.1:0/s3", "--to", "lumberjack://"+server.Addr())
	t.Setenv("VGW_EVENT_WEBHOOK_URL", f.hook())
	if err := s.s3.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.upload("%d.log", 3, 40)
	until(t, "each line has arrived", func() bool { return len(server.Received()) == s.lines })
	if sum := f.end(0); sum.Lines.Acked != int64(s.lines) || sum.Objects.Read != 3 || sum.Sources[0].Strange != 0 {
		t.Errorf("%+v\n%s", sum, f.told)
	}
}
