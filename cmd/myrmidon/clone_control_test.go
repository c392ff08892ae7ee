package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"myrmidon/internal/clone/documents"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/s3server"
	"myrmidon/internal/testkit/s3stub"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

// background is a command that runs beside a test.
type background struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   bytes.Buffer // stdout and stderr, when it has ended
	ended chan error
}

func (s *cloneShop) start(args ...string) *background {
	s.t.Helper()
	b := &background{t: s.t, cmd: s.command(args...), ended: make(chan error, 1)}
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	if err := b.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { b.ended <- b.cmd.Wait() }()
	s.t.Cleanup(func() { _ = b.cmd.Process.Kill() }) // it may have ended
	return b
}

// end sends a signal and waits.
func (b *background) end(sig os.Signal) (out string, exit int) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(sig); err != nil {
		b.t.Fatal(err)
	}
	return b.wait()
}

func (b *background) wait() (out string, exit int) {
	b.t.Helper()
	select {
	case err := <-b.ended:
		return b.out.String(), status(err)
	case <-time.After(60 * time.Second):
		b.t.Fatalf("%q does not end", b.cmd.Args)
		return "", 0
	}
}

// until waits for something to become true.
func (s *cloneShop) until(what string, is func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("no %s; there is %q", what, s.s3.Keys("commands"))
		}
	}
}

// document decodes one of the bucket for commands.
func document[T any](s *cloneShop, key string) (v T) {
	s.t.Helper()
	data, ok := s.s3.Data("commands", key)
	if err := json.Unmarshal(data, &v); !ok || err != nil {
		s.t.Fatalf("%s: there %t, %v: %s", key, ok, err, data)
	}
	return v
}

// told returns the keys that the answers to a clone name, and what they say has failed.
func (s *cloneShop) told(id string) (files, failed []string) {
	s.t.Helper()
	m := document[documents.Response](s, id+"/clone-response")
	keys := m.Segments.Values
	for _, p := range m.Segments.Pages {
		keys = append(keys, document[documents.Segments](s, p).Values...)
	}
	if len(keys) != m.Segments.Count {
		s.t.Errorf("%s: %d segments, %d are listed", id, m.Segments.Count, len(keys))
	}
	for _, k := range keys {
		if q := document[documents.SegmentRequest](s, k); q.Run != m.Run {
			s.t.Errorf("%s is of run %s, the manifest of %s", k, q.Run, m.Run)
		}
		r := document[documents.SegmentResponse](s, documents.ResponseKey(k))
		for _, f := range r.Files {
			files = append(files, string(f))
		}
		for _, f := range r.Failed {
			failed = append(failed, string(f.Key))
		}
	}
	slices.Sort(files)
	return files, failed
}

func (s *cloneShop) buckets(names ...string) {
	s.t.Helper()
	for _, b := range names {
		if err := s.s3.AddBucket(b); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *cloneShop) object(bucket, key, text string) {
	s.t.Helper()
	if err := s.s3.PutObject(bucket, s3stub.Object{Key: key}, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *cloneShop) runs() int {
	s.t.Helper()
	out, problems, exit := s.run("runs", "--json")
	if exit != 0 {
		s.t.Fatal(problems)
	}
	return strings.Count(out, "\n")
}

func TestAWatcherDoesWhatOthersAskFor(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	s.buckets("commands", "from", "films", "into", "other")
	keys := []string{"a/b/1", "ab/1", "top", "with space/+%", "é/1", "line\nbreak"}
	for i := range 1500 {
		keys = append(keys, fmt.Sprintf("films/%04d", i))
	}
	slices.Sort(keys)
	for _, k := range keys {
		s.object("from", k, "x")
	}
	s.object("films", "one/1", "x")
	s.object("commands", "unrelated", "x")
	s.object("commands", "broken/clone-request", `{"id":"broken","source":{"name":"from"}}`)
	s.object("commands", "local/clone-request", `{"id":"local","source":{"name":"/etc"},"destination":{"name":"into"}}`)
	s.object("commands", "nowhere/clone-request", `{"id":"nowhere","source":{"name":"nowhere"},"destination":{"name":"into"}}`)
	s.object("commands", "7-films-other/clone-request", `{"id":7,"source":{"name":"films"},"destination":{"name":"other"}}`)

	watcher := s.start("clone", "--watch", "s3://commands", "--every", "50ms")
	out, problems, exit := s.run("clone", "--submit", "s3://commands/first", "s3://from", "s3://into/copy", "--wait", "--every", "20ms")
	if exit != 0 || !strings.Contains(out, fmt.Sprintf("copied %d   failed 0", len(keys))) {
		t.Errorf("exit %d\n%s%s", exit, out, problems)
	}
	for _, k := range keys {
		if _, ok := s.s3.Object("into", "copy/"+k); !ok {
			t.Errorf("%q is not there", k)
		}
	}
	if files, failed := s.told("first"); !slices.Equal(files, keys) || len(failed) > 0 {
		t.Errorf("told of %d keys of %d, failed %q", len(files), len(keys), failed)
	}
	if r := document[documents.SegmentResponse](s, "first/ab-segment-response"); len(r.Files) != 1 || r.Files[0] != "ab/1" || r.Destination.Prefix != "copy/" {
		t.Errorf("ab: %+v", r)
	}
	s.until("answers", func() bool {
		there := s.s3.Keys("commands")
		return slices.Contains(there, "nowhere/clone-response") && slices.Contains(there, "7-films-other/one-segment-response") &&
			slices.Contains(there, "broken/clone-response") && slices.Contains(there, "local/clone-response")
	})
	s.until("end of the runs", func() bool { // one that is cut off by the signal is the watcher's status
		out, _, _ := s.run("runs", "--json")
		return strings.Count(out, `"state":"succeeded"`) == 2
	})
	if _, ok := s.s3.Object("other", "one/1"); !ok {
		t.Error("what was asked for by the article's long key was not copied")
	}
	for id, says := range map[string]string{"broken": "broken/clone-request: destination.name", "local": "source.name", "nowhere": "nowhere"} {
		if r := document[documents.Response](s, id+"/clone-response"); r.State != "failed" || !strings.Contains(r.Error, says) || r.Segments.Count != 0 {
			t.Errorf("%s: %+v", id, r)
		}
	}
	time.Sleep(200 * time.Millisecond) // some more looks
	told, exit := watcher.end(os.Interrupt)
	if n := s.runs(); exit != 0 || n != 3 {
		t.Errorf("the watcher ended with %d after %d runs:\n%s", exit, n, told)
	}
	// What has failed at the watcher's is the requester's status, too.
	_, problems, exit = s.run("clone", "--submit", "s3://commands/nowhere", "s3://nowhere", "s3://into", "--wait")
	if exit != 1 || !strings.Contains(problems, "nowhere") {
		t.Errorf("exit %d\n%s", exit, problems)
	}
}

func TestARequesterHearsOfObjectsThatFail(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	s.buckets("commands", "from", "into")
	for i := range 20 {
		s.object("from", fmt.Sprintf("k%02d", i), "x")
	}
	s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
		if r.Verb == s3stub.Copy && r.Key == "k07" {
			return &s3stub.Fault{Status: 403}
		}
		return nil
	})
	watcher := s.start("clone", "--watch", "s3://commands", "--every", "50ms")
	out, problems, exit := s.run("clone", "--submit", "s3://commands/first", "s3://from", "s3://into", "--wait", "--json", "--every", "20ms")
	var sum struct{ Segments, Answered, Copied, Failed int }
	if err := json.Unmarshal([]byte(out), &sum); err != nil || exit != 3 || sum.Copied != 19 || sum.Failed != 1 || sum.Answered != sum.Segments || !strings.Contains(problems, "k07") {
		t.Errorf("exit %d, %v\n%s%s", exit, err, out, problems)
	}
	s.until("end", func() bool {
		return document[documents.Response](s, "first/clone-response").State != ""
	})
	s.s3.Inject(nil)
	if _, problems, exit := s.run("runs", "retry", "latest", "-q"); exit != 0 {
		t.Errorf("retry: exit %d\n%s", exit, problems)
	}
	if files, failed := s.told("first"); len(files) != 20 || len(failed) > 0 || document[documents.Response](s, "first/clone-response").State != "" {
		t.Errorf("told of %q, failed %q", files, failed)
	}
	watcher.end(os.Interrupt)
}

func TestWhatIsSkippedIsNotAnsweredAsCopied(t *testing.T) {
	for name, tt := range map[string]struct {
		flag  []string
		there string // the bucket that gets another k while it is copied
	}{
		"because another object is there": {[]string{"--if-missing"}, "into"},
		"because it has changed":          {[]string{"--if-changed", "skip"}, "from"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newCloneShop(t, s3stub.Config{})
			s.buckets("commands")
			s.stocked("a", "k", "z")
			var once sync.Once
			s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
				if r.Verb == s3stub.Copy && r.Key == "k" {
					once.Do(func() { s.put(tt.there, "another ", "k") })
				}
				return nil
			})
			out, problems, exit := s.run(append([]string{"clone", "--control", "s3://commands/1", "s3://from", "s3://into"}, tt.flag...)...)
			if exit != 0 || !strings.Contains(out, "copied 2   skipped 1   failed 0") {
				t.Errorf("exit %d\n%s%s", exit, out, problems)
			}
			if files, failed := s.told("1"); !slices.Equal(files, []string{"a", "z"}) || !slices.Equal(failed, []string{"k"}) {
				t.Errorf("told of %q, failed %q", files, failed)
			}
			_, problems, exit = s.run("clone", "--submit", "s3://commands/2", "s3://from", "s3://into", "--if-missing")
			if exit != 2 || !strings.Contains(problems, "--if-missing") {
				t.Errorf("submit: exit %d\n%s", exit, problems)
			}
		})
	}
	s := newCloneShop(t, s3stub.Config{})
	s.buckets("commands")
	for _, args := range [][]string{{"--watch", "s3://commands"}, {"--control", "s3://commands/1", "s3://from", "s3://into"}} {
		if _, problems, exit := s.run(append([]string{"clone", "--files-from", "list"}, args...)...); exit != 2 || !strings.Contains(problems, "not of a list") {
			t.Errorf("%q: exit %d\n%s", args, exit, problems)
		}
	}
}

func TestAKilledWatcherGoesOnWithItsRuns(t *testing.T) {
	long.Test(t)
	const n = 4000
	s := newCloneShop(t, s3stub.Config{Latency: map[s3stub.Verb]time.Duration{s3stub.Copy: 30 * time.Millisecond}})
	s.buckets("commands")
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(n)), s.s3.AddMirror("into", numbered(n), "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	requester := s.start("clone", "--submit", "s3://commands/first", "s3://from", "s3://into", "--wait", "--every", "20ms")
	kills := 0
	for goal := int64(100); goal < n; goal += 1300 {
		watcher := s.start("clone", "--watch", "s3://commands", "--every", "50ms", "--concurrency", "64")
		s.until("copies", func() bool { return s.s3.Arrivals("into").Objects >= goal })
		watcher.end(os.Kill)
		kills++
	}
	if a := s.s3.Arrivals("into"); a.Objects == n {
		t.Fatal("all was copied before the last kill")
	}
	watcher := s.start("clone", "--watch", "s3://commands", "--every", "50ms")
	if out, exit := requester.wait(); exit != 0 {
		t.Errorf("the requester ended with %d\n%s", exit, out)
	}
	s.until("end", func() bool {
		out, _, _ := s.run("runs", "--json")
		return strings.Contains(out, `"state":"succeeded"`)
	})
	out, exit := watcher.end(os.Interrupt)
	files, failed := s.told("first")
	a := s.s3.Arrivals("into")
	if a.Objects != n || a.Wrong != 0 || len(files) != n || len(slices.Compact(files)) != n || len(failed) > 0 {
		t.Errorf("arrived %+v, told of %d, failed %q", a, len(files), failed)
	}
	if a.Again > 1000*int64(kills) {
		t.Errorf("%d objects were copied again after %d kills", a.Again, kills)
	}
	if runs := s.runs(); runs != 1 || exit != 0 {
		t.Errorf("%d runs for one request, exit %d\n%s", runs, exit, out)
	}
}

func TestCloneWithDocuments(t *testing.T) {
	long.Test(t)
	s := newCloneShop(t, s3stub.Config{})
	s.buckets("commands", "from", "into")
	s.object("from", "a/1", "x")
	s.object("commands", "asked/clone-request", `{"id":"asked","source":{"name":"from"},"destination":{"name":"into"}}`)
	s.object("commands", "secret/clone-request", `{"id":"secret","source":{"name":"from","accessKeyId":"sesame"},"destination":{"name":"into"}}`)
	local := t.TempDir()
	for _, tt := range []struct {
		name, args string
		exit       int
		says       string
	}{
		{"other buckets than asked for", "--control s3://commands/asked s3://from s3://elsewhere", 2, "destination.name"},
		{"another prefix than asked for", "--control s3://commands/asked s3://from/a s3://into", 2, "source.prefix"},
		{"a dry run of what is asked for", "--control s3://commands/asked --dry-run", 0, "a/1"},
		{"as asked for", "--control s3://commands/asked", 0, "copied 1"},
		{"answered", "--control s3://commands/asked", 1, "clone-response already"},
		{"not asked for", "--control s3://commands/named s3://from s3://into/2", 0, "copied 1"},
		{"to a folder", "--control s3://commands/local s3://from " + local, 0, "copied 1"},
		{"nothing asked for", "--control s3://commands/none", 1, "no clone-request"},
		{"a secret", "--control s3://commands/secret", 1, "source.accessKeyId"},
		{"no ID", "--control s3://commands s3://from s3://into", 2, "ID"},
		{"a folder of this machine", "--control ./commands/x s3://from s3://into", 2, "not in a bucket"},
		{"one argument", "--control s3://commands/named s3://from", 2, "1 arguments"},
		{"none", "", 2, "0 arguments"},
		{"two ways", "--control s3://commands/a --watch s3://commands", 2, "one of them"},
		{"--wait alone", "--wait s3://from s3://into", 2, "--submit"},
		{"deleting for others", "--watch s3://commands --delete", 2, "--delete"},
		{"watching what is not there", "--watch s3://nowhere", 1, "nowhere"},
		{"asking for more than a request has", "--submit s3://commands/more s3://from s3://into --all", 2, "--all"},
		{"asking for a folder", "--submit s3://commands/more ./here s3://into", 2, "source.name"},
		{"asking", "--submit s3://commands/new s3://from/a?region=r s3://into", 0, "s3://commands/new/clone-request"},
		{"asking again", "--submit s3://commands/new s3://from/a?region=r s3://into", 0, "s3://commands/new/clone-request"},
		{"asking for something else", "--submit s3://commands/new s3://from s3://into", 1, "another ID"},
		{"asking for what was answered", "--submit s3://commands/named s3://from s3://into", 1, "another ID"},
	} {
		before := len(s.s3.Keys("commands"))
		out, problems, exit := s.run(append([]string{"clone", "-q"}, strings.Fields(tt.args)...)...)
		if exit != tt.exit || !strings.Contains(out+problems, tt.says) || strings.Contains(out+problems, "sesame") {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", tt.name, exit, tt.exit, tt.says, out, problems)
		}
		if after := len(s.s3.Keys("commands")); (tt.exit != 0 || strings.Contains(tt.args, "--dry-run")) && after != before {
			t.Errorf("%s: %d documents became %d", tt.name, before, after)
		}
	}
	for _, id := range []string{"asked", "named", "local"} {
		if files, failed := s.told(id); !slices.Equal(files, []string{"a/1"}) || len(failed) > 0 {
			t.Errorf("%s: told of %q, failed %q", id, files, failed)
		}
	}
	if m := document[documents.Response](s, "local/clone-response"); m.Destination.Name != "file://"+local {
		t.Errorf("%+v", m)
	}
	data, _ := s.s3.Data("commands", "new/clone-request")
	if want := `{"id":"new","source":{"name":"from","prefix":"a/","region":"r"},"destination":{"name":"into"}}`; string(data) != want {
		t.Errorf("%s", data)
	}
	if errors.Is(os.Remove(local+"/a/1"), os.ErrNotExist) {
		t.Error("nothing was copied to the folder")
	}
}

func TestAFleetAnswersRequests(t *testing.T) {
	broker := natsserver.Start(t, natsserver.Options{})
	s := newCloneShop(t, s3stub.Config{Latency: map[s3stub.Verb]time.Duration{s3stub.Copy: 20 * time.Millisecond}})
	s.buckets("commands", "from", "into")
	var keys []string
	for i := range 1200 {
		keys = append(keys, fmt.Sprintf("%02d/%04d", i/50, i))
		s.object("from", keys[i], "x")
	}
	worker := s.start("worker", "--nats", broker.URL(), "--slots", "2")
	watcher := s.start("clone", "--watch", "s3://commands", "--nats", broker.URL(), "--every", "50ms")
	requester := s.start("clone", "--submit", "s3://commands/first", "s3://from", "s3://into", "--wait", "--every", "20ms")
	s.until("copies", func() bool { return s.s3.Len("into") > 100 })
	watcher.end(os.Kill)
	if out, exit := requester.wait(); exit != 0 {
		t.Errorf("exit %d\n%s", exit, out)
	}
	if files, failed := s.told("first"); !slices.Equal(files, keys) || len(failed) > 0 || s.s3.Len("into") != len(keys) {
		t.Errorf("told of %d, failed %q, %d arrived", len(files), failed, s.s3.Len("into"))
	}
	worker.end(os.Interrupt)
}

// What the stub does is what we know of S3; this is another's server.
func TestDocumentsOnAnotherServer(t *testing.T) {
	server := s3server.Start(t)
	server.Setenv(t)
	for _, b := range []string{"commands", "from", "into"} {
		server.Bucket(t, b)
	}
	s := newCloneShop(t, s3stub.Config{})
	s.env = server.Env()
	from, err := wire.Bucket("s3://from?endpoint=" + server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		if err := from.Put(t.Context(), fmt.Sprintf("%02d/%04d", i/20, i), strings.NewReader("x"), 1, object.Attrs{}); err != nil {
			t.Fatal(err)
		}
	}
	watcher := s.start("clone", "--watch", "s3://commands", "--every", "50ms", "--verify")
	for _, id := range []string{"first", "second"} {
		out, problems, exit := s.run("clone", "--submit", "s3://commands/"+id, "s3://from", "s3://into/"+id, "--wait", "--every", "20ms")
		if exit != 0 || !strings.Contains(out, "3 of 3 segments   copied 60   failed 0") {
			t.Errorf("%s: exit %d\n%s%s", id, exit, out, problems)
		}
	}
	watcher.end(os.Interrupt)
	out, problems, exit := s.run("ls", "-r", "s3://into")
	if exit != 0 || strings.Count(out, "\n") != 120 {
		t.Errorf("exit %d\n%s%s", exit, out, problems)
	}
}
