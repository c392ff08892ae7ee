package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3stub"
)

// cloneShop is the program beside a stub of S3.
type cloneShop struct {
	t       *testing.T
	program string
	dir     string
	s3      *s3stub.Server
	env     []string // beside that of the test and the stub's
}

func newCloneShop(t *testing.T, cfg s3stub.Config) *cloneShop {
	t.Helper()
	program, err := exec.LookPath("myrmidon") // TestMain puts it there
	if err != nil {
		t.Fatal(err)
	}
	return &cloneShop{t: t, program: program, dir: t.TempDir(), s3: s3stub.New(t, cfg)}
}

func (s *cloneShop) command(args ...string) *exec.Cmd {
	c := exec.Command(s.program, args...)
	c.Dir = s.dir
	c.Env = append(append(os.Environ(), s.s3.Env()...), "MYRMIDON_STATE="+filepath.Join(s.dir, "state"))
	c.Env = append(c.Env, s.env...)
	return c
}

// run runs a command to its end and returns what it printed, and its exit status.
func (s *cloneShop) run(args ...string) (stdout, stderr string, exit int) {
	s.t.Helper()
	c := s.command(args...)
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	err := c.Run()
	if code := status(err); code >= 0 {
		return out.String(), problems.String(), code
	}
	s.t.Fatalf("myrmidon %s: %v\n%s", strings.Join(args, " "), err, problems.String())
	return "", "", 0
}

// numbered is a set of small objects.
func numbered(n int) s3stub.Synthetic {
	return s3stub.Synthetic{N: n, Size: 100, Key: s3stub.Numbered("films/", 6, "/index.m3u8")}
}

func TestAKilledCloneGoesOnWithNothingLostOrCopiedTwice(t *testing.T) {
	long.Test(t)
	const n = 12_000
	s := newCloneShop(t, s3stub.Config{Latency: map[s3stub.Verb]time.Duration{s3stub.Copy: 10 * time.Millisecond, s3stub.List: 10 * time.Millisecond}})
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(n)), s.s3.AddMirror("into", numbered(n), "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	args := []string{"clone", "s3://from", "s3://into", "-q"}
	kills := 0
	var again []int64 // that a process copied although one before had
	since := func() {
		n := s.s3.Arrivals("into").Again
		for _, a := range again {
			n -= a
		}
		again = append(again, n)
	}
	for range 5 {
		c := s.command(args...)
		before := s.s3.Arrivals("into").Objects
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		goal := before + 200 + random.Int64N(1500)
		for deadline := time.Now().Add(30 * time.Second); s.s3.Arrivals("into").Objects < goal && time.Now().Before(deadline); {
			select {
			case err := <-ended:
				t.Fatalf("ended with %v after %d objects", err, s.s3.Arrivals("into").Objects)
			case <-time.After(2 * time.Millisecond):
			}
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
		since()
		kills++
		args = []string{"runs", "resume", "latest", "-q"}
	}
	if at := s.s3.Arrivals("into").Objects; at >= n {
		t.Fatalf("all %d objects had arrived before the last kill", at)
	}
	out, problems, exit := s.run(args...)
	since()
	a := s.s3.Arrivals("into")
	t.Logf("%d kills, %d objects, again after each: %d; %s", kills, a.Objects, again[1:], strings.TrimSpace(out))
	if exit != 0 || a.Objects != n || a.Wrong != 0 || len(a.Missing) > 0 {
		t.Errorf("exit %d, arrived %+v\n%s", exit, a, problems)
	}
	// A process that was killed leaves at most the 1,000 or so that it had under way to be
	// asked for again, and what nobody killed copies nothing twice.
	for i, n := range again {
		if n > 1000 || i == 0 && n > 0 {
			t.Errorf("process %d copied %d objects that were there already", i+1, n)
		}
	}
}

func TestACloneReportsEachObject(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	for _, b := range []string{"from", "into"} {
		if err := s.s3.AddBucket(b); err != nil {
			t.Fatal(err)
		}
	}
	attributes := s3stub.Attributes{ContentType: "video/mp4", CacheControl: "no-cache", Metadata: map[string]string{"origin": "camera 1"}, Tags: map[string]string{"team": "a b"}}
	keys := []string{"plain", "a/b", "ab", "with space", "plus+", "per%cent", "line\nbreak", "é", "e\u0301", "/leading", "two//slashes", "marker/", strings.Repeat("k", 1024)}
	for _, k := range keys {
		data := []byte(k)
		if k == "marker/" {
			data = nil
		}
		if err := s.s3.PutObject("from", s3stub.Object{Key: k, Attributes: attributes}, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.s3.PutObject("into", s3stub.Object{Key: "extra"}, []byte("x")); err != nil {
		t.Fatal(err)
	}
	out, problems, exit := s.run("clone", "s3://from", "s3://into", "--verify", "--report", "report.jsonl", "--delete")
	if exit != 0 {
		t.Fatalf("exit %d\n%s%s", exit, out, problems)
	}
	if want := fmt.Sprintf("copied %d   skipped 0   deleted 1   verified %d   failed 0", len(keys), len(keys)); !strings.Contains(out, want) {
		t.Errorf("the result does not say %q:\n%s", want, out)
	}
	for _, k := range keys {
		got, ok := s.s3.Object("into", k)
		data, _ := s.s3.Data("into", k)
		source, _ := s.s3.Data("from", k)
		if !ok || !bytes.Equal(data, source) || got.ContentType != "video/mp4" || got.CacheControl != "no-cache" || got.Metadata["origin"] != "camera 1" || got.Tags["team"] != "a b" {
			t.Errorf("%q: there %t, %q, %+v", k, ok, data, got.Attributes)
		}
	}
	// One HEAD, of what is deleted.
	if c := s.s3.Counts(); c[s3stub.Head].Requests != 1 || c[s3stub.Get].Requests != 0 || c[s3stub.Copy].Requests != int64(len(keys)) {
		t.Errorf("requests: %+v", c)
	}
	f, err := os.Open(filepath.Join(s.dir, "report.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := make(map[string]reportLine)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var l reportLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		seen[l.Key] = l
	}
	for _, k := range keys {
		if l := seen[k]; l.State != "done" || l.Source == "" || l.Destination != l.Source || l.How != "server" || l.Attempts != 1 {
			t.Errorf("%q has the line %+v", k, l)
		}
	}
	if l := seen["extra"]; l.Action != "delete" {
		t.Errorf("what was deleted has the line %+v", l)
	}
}

func TestClonesThatFailSayWhatAndWhy(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	for _, b := range []string{"from", "into"} {
		if err := s.s3.AddBucket(b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		if err := s.s3.PutObject("from", s3stub.Object{Key: fmt.Sprintf("k%02d", i)}, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.s3.PutObject("into", s3stub.Object{Key: "extra"}, []byte("x")); err != nil {
		t.Fatal(err)
	}
	s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
		if r.Verb == s3stub.Copy && r.Key == "k07" {
			return &s3stub.Fault{Status: 403}
		}
		return nil
	})
	out, problems, exit := s.run("clone", "s3://from", "s3://into", "--delete")
	if exit != 3 || !strings.Contains(problems, `copy "k07"`) || !strings.Contains(problems, "nothing was deleted") || !strings.Contains(out, "copied 19") {
		t.Errorf("exit %d\n%s%s", exit, out, problems)
	}
	if keys := s.s3.Keys("into"); len(keys) != 20 || keys[0] != "extra" {
		t.Errorf("the destination has %q", keys)
	}
	s.s3.Inject(nil)
	for name, tt := range map[string]struct {
		args []string
		exit int
		says string
	}{
		"a bucket that is not there": {[]string{"clone", "s3://nowhere", "s3://into"}, 1, "nowhere"},
		"a folder that is not there": {[]string{"clone", "./nowhere", "s3://into"}, 1, "nowhere"},
		"onto itself":                {[]string{"clone", "s3://from", "s3://from/x"}, 2, "overlap"},
		"a bad pattern":              {[]string{"clone", "s3://from", "s3://into", "--exclude", "["}, 2, "pattern"},
		"too much to delete":         {[]string{"clone", "s3://from/none", "s3://into", "--delete", "--max-delete", "3"}, 1, "20 objects"},
		"rm of a folder":             {[]string{"rm", "s3://into/"}, 2, "-r"},
	} {
		out, problems, exit := s.run(tt.args...)
		if exit != tt.exit || !strings.Contains(out+problems, tt.says) {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", name, exit, tt.exit, tt.says, out, problems)
		}
	}
}

func TestListAddUpAndDelete(t *testing.T) {
	long.Test(t)
	s := newCloneShop(t, s3stub.Config{})
	if err := s.s3.AddBucket("store"); err != nil {
		t.Fatal(err)
	}
	for i := range 2500 {
		if err := s.s3.PutObject("store", s3stub.Object{Key: fmt.Sprintf("a/%04d", i)}, []byte("four")); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{"b/x", "b/y", "top"} {
		if err := s.s3.PutObject("store", s3stub.Object{Key: k}, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	s.s3.Reset()
	out, _, exit := s.run("ls", "s3://store")
	if got := strings.Fields(out); exit != 0 || len(got) != 5 || got[0] != "a/" || got[1] != "b/" || got[4] != "top" {
		t.Errorf("ls: exit %d\n%s", exit, out)
	}
	if n := s.s3.Counts()[s3stub.List].Requests; n > 3 {
		t.Errorf("ls took %d requests: folders are to be passed over", n)
	}
	if out, _, _ = s.run("ls", "-r", "--json", "s3://store"); strings.Count(out, "\n") != 2503 {
		t.Errorf("ls -r has %d lines", strings.Count(out, "\n"))
	}
	if out, _, _ = s.run("du", "--json", "s3://store"); strings.TrimSpace(out) != `{"objects":2503,"bytes":10003,"key":""}` {
		t.Errorf("du: %s", out)
	}
	if _, _, exit = s.run("rm", "-r", "s3://store", "--include", "a/*", "--dry-run"); exit != 0 || s.s3.Len("store") != 2503 {
		t.Errorf("a dry run left %d objects, exit %d", s.s3.Len("store"), exit)
	}
	if _, _, exit = s.run("rm", "-r", "s3://store", "--include", "a/*"); exit != 0 || s.s3.Len("store") != 3 {
		t.Errorf("%d objects are left, exit %d", s.s3.Len("store"), exit)
	}
	if _, _, exit = s.run("rm", "s3://store/b/x"); exit != 0 || s.s3.Len("store") != 2 {
		t.Errorf("%d objects are left, exit %d", s.s3.Len("store"), exit)
	}
	if _, problems, exit := s.run("rm", "s3://store/b/x"); exit != 1 {
		t.Errorf("an object that is not there: exit %d\n%s", exit, problems)
	}
}
