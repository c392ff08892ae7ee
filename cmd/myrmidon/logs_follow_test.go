package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/logs"
	"myrmidon/internal/testkit/sinkfault"
	"myrmidon/internal/testkit/sqsstub"
)

// follow runs a follower beside a test, until the function that it returns is called.
func (s *logShop) follow(args ...string) (end func(want int, kill bool) logs.Summary) {
	s.t.Helper()
	c := s.command(append([]string{"logs", "ship", "--follow", "-q"}, args...)...)
	var out, told bytes.Buffer
	c.Stdout, c.Stderr = &out, &told
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	return func(want int, kill bool) (sum logs.Summary) {
		s.t.Helper()
		how := syscall.SIGTERM
		if kill {
			how = syscall.SIGKILL
		}
		if err := c.Process.Signal(how); err != nil {
			s.t.Fatal(err)
		}
		err := c.Wait()
		if kill {
			return sum
		}
		if status(err) != want || json.Unmarshal(out.Bytes(), &sum) != nil {
			s.t.Fatalf("exit %v, want %d\n%s%s", err, want, out.String(), told.String())
		}
		return sum
	}
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestLogsFollowAQueueUntilEachLineIsAcknowledged(t *testing.T) {
	s := newLogShop(t, 6, 50)
	stub := new(sqsstub.Queue)
	var requests atomic.Int64
	stub.Fail = func(string) int {
		if requests.Add(1)%7 == 3 {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	srv := httptest.NewServer(stub)
	defer srv.Close()
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	server := sinkfault.NewLumberjack(l, func(n int) sinkfault.Window {
		return sinkfault.Window{Die: n == 1, Keep: 20, Late: 20 * time.Millisecond}
	})
	defer server.Close()
	s.put("not a log", []byte("what?\n"))
	files, err := filepath.Glob(filepath.Join(s.s3.Dir(), "logs", filepath.FromSlash(logFolder), "*"))
	if err != nil || len(files) != 6 {
		t.Fatal(files, err)
	}
	stub.Put(`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"logs"}`)
	notification := func(key string) string {
		return fmt.Sprintf(`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"logs"},"object":{"key":%q,"size":1}}}]}`, url.QueryEscape(key))
	}
	for i, f := range files {
		body := notification(logFolder + filepath.Base(f))
		if i == 1 {
			w, err := json.Marshal(map[string]string{"Type": "Notification", "Message": body})
			if err != nil {
				t.Fatal(err)
			}
			body = string(w)
		}
		stub.Put(body)
	}
	stub.Put(notification("not a log"))
	stub.Put(notification("gone"))
	s.put("AWSLogs/1/ELBAccessLogTestFile", []byte("Enable AccessLog for ELB\n")) // these two are no logs by their names
	stub.Put(notification("AWSLogs/1/ELBAccessLogTestFile"))
	stub.Put(notification("AWSLogs/"))
	stub.Put("a message of somebody else")
	const messages = 12
	end := s.follow("sqs://"+srv.URL+"/1/logs?region=us-east-1", "--to", "lumberjack://"+server.Addr(), "--parked-to", "parked.jsonl", "--slots", "4")
	until(t, "all messages but the strange one are deleted", func() bool { return stub.Deleted() == messages-1 })
	sum := end(3, false)
	if got := ids(t, server.Received()); len(got) != s.lines || sum.Lines.Acked != int64(s.lines) || sum.Lines.Unparsed != 1 || sum.Objects.Failed != 2 {
		t.Errorf("%d of %d lines arrived; %+v", len(got), s.lines, sum)
	}
	parked, err := os.ReadFile(filepath.Join(s.dir, "parked.jsonl"))
	if err != nil || !strings.Contains(string(parked), `"text":"what?"`) || !strings.Contains(string(parked), "the object is gone") {
		t.Errorf("%v\n%s", err, parked)
	}
	if stub.Left() != 1 {
		t.Errorf("%d messages are left", stub.Left())
	}
}

// A message whose lines are not acknowledged is not deleted, whatever happens.
func TestAMessageIsNotDeletedBeforeItsLinesArrive(t *testing.T) {
	s := newLogShop(t, 1, 50)
	stub := new(sqsstub.Queue)
	srv := httptest.NewServer(stub)
	defer srv.Close()
	l, err := sinkfault.Listen()
	if err != nil {
		t.Fatal(err)
	}
	server := sinkfault.NewLumberjack(l, func(int) sinkfault.Window { return sinkfault.Window{Silent: true} })
	defer server.Close()
	files, err := filepath.Glob(filepath.Join(s.s3.Dir(), "logs", filepath.FromSlash(logFolder), "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	stub.Put(fmt.Sprintf(`{"detail-type":"Object Created","source":"aws.s3","detail":{"bucket":{"name":"logs"},"object":{"key":%q}}}`, logFolder+filepath.Base(files[0])))
	end := s.follow("sqs://"+srv.URL+"/1/logs?region=us-east-1", "--to", "lumberjack://"+server.Addr())
	until(t, "the lines are sent", func() bool { return len(server.Received()) > 0 })
	end(0, true)
	if stub.Left() != 1 || stub.Deleted() != 0 {
		t.Errorf("%d messages are left, %d deleted", stub.Left(), stub.Deleted())
	}
}

func TestLogsFollowAPrefix(t *testing.T) {
	s := newLogShop(t, 2, 30)
	quiet := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		select {
		case quiet <- b.String():
		default:
		}
	}))
	defer hook.Close()
	out := filepath.Join(s.dir, "out.ndjson")
	count := func() int {
		data, _ := os.ReadFile(out)
		return bytes.Count(data, []byte("\n"))
	}
	args := []string{"s3://logs/AWSLogs/", "--to", out, "--every", "1s", "--expect", "2s", "--webhook", hook.URL}
	end := s.follow(args...)
	until(t, "what is there has arrived", func() bool { return count() == s.lines })
	at := time.Date(2026, 11, 20, 13, 0, 0, 0, time.UTC)
	s.put(logFolder+"0_early_20261120T0900Z_10.0.0.9_z.log", []byte(balancerLine(at, 200, 1)))
	until(t, "what sorts before the rest has arrived", func() bool { return count() == s.lines+1 })
	select {
	case body := <-quiet:
		if !strings.Contains(body, `"quiet":true`) {
			t.Error(body)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody was told that no line comes any more")
	}
	end(0, true)
	// After a kill it goes on with what is new.
	s.put(logFolder+"1_late_20261120T0900Z_10.0.0.9_z.log", []byte(balancerLine(at, 200, 2)))
	end = s.follow(args...)
	until(t, "what came meanwhile has arrived", func() bool { return count() == s.lines+2 })
	if sum := end(0, false); sum.Lines.Acked != 1 || sum.Objects.Read != 1 {
		t.Errorf("%+v", sum)
	}
}
