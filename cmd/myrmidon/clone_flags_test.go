package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/s3stub"
)

// till counts the requests that a stub is sent, by bucket and by the verbs of a bill.
type till struct {
	mu sync.Mutex
	n  map[string]map[string]int64
}

var billed = map[s3stub.Verb]string{
	s3stub.List: "list", s3stub.Head: "head", s3stub.Get: "get", s3stub.GetTags: "get", s3stub.Put: "put", s3stub.UploadPart: "put",
	s3stub.Copy: "copy", s3stub.CopyPart: "part-copy", s3stub.CreateUpload: "post", s3stub.Complete: "post",
	s3stub.Delete: "delete", s3stub.DeleteMany: "delete", s3stub.Abort: "delete",
}

// watch counts from now on; fault may be nil.
func (c *till) watch(s *s3stub.Server, fault func(s3stub.Request) *s3stub.Fault) {
	c.mu.Lock()
	c.n = map[string]map[string]int64{"from": {}, "into": {}}
	c.mu.Unlock()
	s.Inject(func(r s3stub.Request) *s3stub.Fault {
		verb := billed[r.Verb]
		if verb == "" {
			verb = "other: " + r.Verb.String()
		}
		c.mu.Lock()
		c.n[r.Bucket][verb]++
		c.mu.Unlock()
		if fault != nil {
			return fault(r)
		}
		return nil
	})
}

func (c *till) of(bucket, verb string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[bucket][verb]
}

// billedReport is what --json prints of a clone.
type billedReport struct {
	engine.Report
	Cost struct {
		Source      map[string]int64 `json:"source"`
		Destination map[string]int64 `json:"destination"`
		AtLeast     bool             `json:"at_least"`
		USD         float64          `json:"usd"`
		Writes      int64            `json:"writes"`
	} `json:"cost"`
}

func (s *cloneShop) report(out string) (r billedReport) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return r
}

// stocked makes from and into, with objects in from.
func (s *cloneShop) stocked(keys ...string) {
	s.t.Helper()
	s.buckets("from", "into")
	s.put("from", "data of ", keys...)
}

func (s *cloneShop) put(bucket, data string, keys ...string) {
	s.t.Helper()
	for _, k := range keys {
		if err := s.s3.PutObject(bucket, s3stub.Object{Key: k}, []byte(data+k)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// keys are of the form prefix00000.
func someKeys(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return out
}

func TestTheBillIsWhatTheServerCounted(t *testing.T) {
	long.Test(t)
	s := newCloneShop(t, s3stub.Config{MaxCopy: 6 << 20})
	s.stocked(someKeys("k", 3000)...)
	if err := s.s3.PutObject("from", s3stub.Object{Key: "large", Attributes: s3stub.Attributes{Tags: map[string]string{"a": "b"}}}, bytes.Repeat([]byte("x"), 7<<20)); err != nil {
		t.Fatal(err)
	}
	s.put("into", "", someKeys("extra", 20)...)
	var c till
	c.watch(s.s3, nil)
	out, problems, exit := s.run("clone", "s3://from", "s3://into", "--json", "-q", "--delete", "--verify=read", "--include", "k000*", "--include", "extra*", "--include", "large")
	if exit != 0 {
		t.Fatalf("exit %d\n%s%s", exit, out, problems)
	}
	r := s.report(out)
	if diff := cmp.Diff(c.n, map[string]map[string]int64{"from": r.Cost.Source, "into": r.Cost.Destination}); diff != "" {
		t.Errorf("the server counted -, the report says +\n%s", diff)
	}
	if r.Cost.AtLeast || r.Cost.USD <= 0 || c.of("into", "copy") < 100 || c.of("into", "delete") == 0 || c.of("from", "get") == 0 {
		t.Errorf("%+v", r.Cost)
	}

	// A plain copy asks for nothing but the copies and the listings.
	c.watch(s.s3, nil)
	out, problems, exit = s.run("clone", "s3://from", "s3://into", "--json", "-q", "--exclude", "large")
	r = s.report(out)
	if diff := cmp.Diff(c.n, map[string]map[string]int64{"from": r.Cost.Source, "into": r.Cost.Destination}); exit != 0 || diff != "" {
		t.Errorf("exit %d, %s\nthe server counted -, the report says +\n%s", exit, problems, diff)
	}
	for _, b := range []string{"from", "into"} {
		if n := c.of(b, "head") + c.of(b, "get"); n != 0 {
			t.Errorf("%d reads of %s", n, b)
		}
	}
	if n := c.of("into", "copy"); n != 2900 {
		t.Errorf("%d copies", n)
	}
	out, _, _ = s.run("runs", "show", "latest")
	if want := fmt.Sprintf("copy 2900, post 1, delete 1   $%.3f at AWS prices of", r.Cost.USD); !strings.Contains(out, want) {
		t.Errorf("the report does not say %q:\n%s", want, out)
	}
}

func TestTheBillOfAKilledCloneSaysAtLeast(t *testing.T) {
	long.Test(t)
	const n = 8000
	s := newCloneShop(t, s3stub.Config{Latency: map[s3stub.Verb]time.Duration{s3stub.Copy: 10 * time.Millisecond}})
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(n)), s.s3.AddMirror("into", numbered(n), "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var c till
	c.watch(s.s3, nil)
	s.killAt("into", n/2, "clone", "s3://from", "s3://into", "-q")
	before := c.of("into", "copy")
	out, problems, exit := s.run("runs", "resume", "latest", "-q", "--json")
	if exit != 0 {
		t.Fatalf("exit %d\n%s", exit, problems)
	}
	r := s.report(out)
	made, said := c.of("into", "copy"), r.Cost.Destination["copy"]
	t.Logf("%d copies before the kill, %d in all, %d in the report", before, made, said)
	// What the jobs under way had sent is missing.
	if !r.Cost.AtLeast || said > made || said < made-cloneSlots*myrmidon.MaxJobItems-1024 {
		t.Errorf("the report says %+v", r.Cost)
	}
	out, _, _ = s.run("runs", "show", "latest")
	if !strings.Contains(out, "at least list") || !strings.Contains(out, "at least $") {
		t.Errorf("the report does not say that it is not sure:\n%s", out)
	}
}

// killAt runs a command and kills it when so many objects have arrived.
func (s *cloneShop) killAt(bucket string, objects int64, args ...string) {
	s.t.Helper()
	s.killWhen(func() bool { return s.s3.Arrivals(bucket).Objects >= objects }, s.command(args...))
}

func (s *cloneShop) killWhen(now func() bool, c *exec.Cmd) {
	s.t.Helper()
	var problems bytes.Buffer
	c.Stderr = &problems
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for deadline := time.Now().Add(30 * time.Second); !now(); {
		select {
		case err := <-ended:
			s.t.Fatalf("ended too early: %v\n%s", err, problems.String())
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatal("it takes too long")
		}
	}
	if err := c.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-ended
}

func TestAListOfKeysIsCloned(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	keys := someKeys("k", 5000)
	s.stocked(append(keys, "new\nline", "{brace", `{"key":"x"}`, "sp ace ")...)
	s.put("into", "data of ", keys[3]) // alike
	s.put("into", "", keys[4])         // of another size
	list := strings.Join([]string{keys[4], keys[3], keys[4999], "", "nowhere", keys[4], "{brace", `{"key":"new\nline","state":"failed"}`, "sp ace ", keys[7] + "\r"}, "\n")
	if err := os.WriteFile(filepath.Join(s.dir, "list"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	var c till
	c.watch(s.s3, nil)
	args := []string{"clone", "s3://from", "s3://into", "--files-from", "list", "--verify"}
	out, problems, exit := s.run(append(args, "--dry-run")...)
	if exit != 3 || strings.Count(out, "copy") != 6 || !strings.Contains(out, "missing             0  nowhere\n") || !strings.Contains(problems, "would copy 6 objects, skip 1, leave out 0") {
		t.Errorf("a dry run: exit %d\n%s%s", exit, out, problems)
	}
	c.watch(s.s3, nil)
	out, problems, exit = s.run(append(args, "--report", "report.jsonl")...)
	if exit != 3 || !strings.Contains(out+problems, "copied 6   skipped 1   verified 7   failed 1") {
		t.Errorf("exit %d\n%s%s", exit, out, problems)
	}
	want := []string{keys[3], keys[4], keys[7], keys[4999], "new\nline", "sp ace ", "{brace"}
	if got := s.s3.Keys("into"); !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	if data, _ := s.s3.Data("into", keys[4]); string(data) != "data of "+keys[4] {
		t.Errorf("%s is %q", keys[4], data)
	}
	if c.of("from", "list") != 0 { // eight keys are asked for one by one
		t.Errorf("requests %v", c.n)
	}
	lines, err := os.ReadFile(filepath.Join(s.dir, "report.jsonl"))
	if err != nil || !strings.Contains(string(lines), `{"key":"nowhere","size":0,"action":"copy","state":"failed"`) {
		t.Errorf("%v\n%s", err, lines)
	}

	// A report is a list: what failed is copied once it is there.
	s.put("from", "", "nowhere")
	if out, problems, exit := s.run("clone", "s3://from", "s3://into", "--files-from", "report.jsonl"); exit != 0 || !strings.Contains(out, "copied 1   skipped 7 ") {
		t.Errorf("exit %d\n%s%s", exit, out, problems)
	}
	// What looks like JSON is a key where NUL bytes separate them, also from standard input.
	cmd := s.command("clone", "s3://from", "s3://into", "--files-from", "-", "--from0", "-q")
	cmd.Stdin = strings.NewReader(`{"key":"x"}` + "\x00\x00" + keys[0])
	if out, err := cmd.CombinedOutput(); err != nil || s.s3.Len("into") != 10 {
		t.Errorf("%v, %d objects\n%s", err, s.s3.Len("into"), out)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "state", "runs", "*", "list", "*")); len(left) != 2 { // of the run that failed in part, for a retry
		t.Errorf("of lists are left %q", left)
	}
}

// A list that is long against the bucket takes listings, a plain copy at most one HEAD.
func TestRequestsOfALongList(t *testing.T) {
	long.Test(t)
	s := newCloneShop(t, s3stub.Config{})
	keys := someKeys("k", 20_000)
	s.stocked(keys...)
	for name, tt := range map[string]struct {
		keys         []string
		extra        string
		lists, heads int64 // at most, both sides together
	}{
		"all, into an empty bucket":    {keys, "--size-only", 20 + 8, 0},
		"every hundredth":              {every(keys, 100), "--size-only", 4, 200},
		"every hundredth, all are new": {every(keys[50:], 100), "--if-missing", 4, 200},
		"every hundredth, in any case": {every(keys[25:], 100), "--all", 2, 200},
	} {
		t.Run(name, func(t *testing.T) {
			if _, problems, exit := s.run("rm", "-r", "s3://into"); exit != 0 {
				t.Fatal(problems)
			}
			var c till
			c.watch(s.s3, nil)
			cmd := s.command("clone", "s3://from", "s3://into", "--files-from", "-", "--json", "-q", tt.extra)
			cmd.Stdin = strings.NewReader(strings.Join(append(tt.keys, tt.keys[:10]...), "\n"))
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			r := s.report(string(out))
			if diff := cmp.Diff(c.n, map[string]map[string]int64{"from": r.Cost.Source, "into": r.Cost.Destination}); diff != "" {
				t.Errorf("the server counted -, the report says +\n%s", diff)
			}
			lists, heads := c.of("from", "list")+c.of("into", "list"), c.of("from", "head")+c.of("into", "head")
			if lists > tt.lists || heads > tt.heads || s.s3.Len("into") != len(tt.keys) || c.of("into", "copy") != int64(len(tt.keys)) {
				t.Errorf("%d LIST, %d HEAD, %d objects; at most %d and %d for %d\n%v", lists, heads, s.s3.Len("into"), tt.lists, tt.heads, len(tt.keys), c.n)
			}
		})
	}
}

func every(keys []string, n int) (out []string) {
	for i := 0; i < len(keys); i += n {
		out = append(out, keys[i])
	}
	return out
}

func TestAKilledCloneOfAListFromStandardInputGoesOn(t *testing.T) {
	long.Test(t)
	const n = 6000
	s := newCloneShop(t, s3stub.Config{Latency: map[s3stub.Verb]time.Duration{s3stub.Copy: 10 * time.Millisecond}})
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(2*n)), s.s3.AddMirror("into", numbered(2*n), "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, "films/%06d/index.m3u8\n", 2*(n-1-i))
	}
	c := s.command("clone", "s3://from", "s3://into", "-q", "--files-from", "-")
	c.Stdin = strings.NewReader(list.String())
	s.killWhen(func() bool { return s.s3.Arrivals("into").Objects >= n/3 }, c)
	out, problems, exit := s.run("runs", "resume", "latest", "-q")
	a := s.s3.Arrivals("into")
	if exit != 0 || a.Objects != n || a.Again > 1024 || a.Wrong != 0 {
		t.Errorf("exit %d, %d objects, %d again\n%s%s", exit, a.Objects, a.Again, out, problems)
	}
	for _, k := range s.s3.Keys("into") {
		var i int
		if _, err := fmt.Sscanf(k, "films/%d/", &i); err != nil || i%2 != 0 {
			t.Fatalf("%s was not in the list", k)
		}
	}
}

func TestWhatIsThereIsNotReplaced(t *testing.T) {
	long.Test(t)
	for _, how := range []string{"by the service", "streamed", "into a folder"} {
		t.Run(how, func(t *testing.T) {
			s := newCloneShop(t, s3stub.Config{})
			s.stocked("a", "b", "c", "late")
			into, args := "into", []string{"clone", "s3://from", "s3://into", "--if-missing", "--report", "r.jsonl"}
			switch how {
			case "streamed":
				args[2] += "?endpoint=" + strings.Replace(s.s3.URL(), "127.0.0.1", "localhost", 1)
			case "into a folder":
				into, args[2] = "", "./out"
				if err := os.MkdirAll(filepath.Join(s.dir, "out"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			there := func(key, data string) {
				if into != "" {
					s.put(into, data, key)
				} else if err := os.WriteFile(filepath.Join(s.dir, "out", key), []byte(data+key), 0o600); err != nil {
					t.Error(err)
				}
			}
			there("b", "other ")
			var once sync.Once
			s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
				// Between the listing and the copies somebody stores another one.
				if r.Verb == s3stub.Copy || r.Verb == s3stub.Put || r.Verb == s3stub.Get {
					once.Do(func() { there("late", "other ") })
				}
				return nil
			})
			out, problems, exit := s.run(args...)
			if exit != 0 || !strings.Contains(out, "copied 2   skipped 2   failed 0") {
				t.Errorf("exit %d\n%s%s", exit, out, problems)
			}
			for key, want := range map[string]string{"a": "data of a", "b": "other b", "c": "data of c", "late": "other late"} {
				got, _ := s.s3.Data("into", key)
				if into == "" {
					got, _ = os.ReadFile(filepath.Join(s.dir, "out", key))
				}
				if string(got) != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			if lines, _ := os.ReadFile(filepath.Join(s.dir, "r.jsonl")); !strings.Contains(string(lines), `"key":"late","size":12,"action":"skip","state":"done"`) {
				t.Errorf("the report has\n%s", lines)
			}
		})
	}
}

func TestObjectsThatChangeBetweenListingAndCopy(t *testing.T) {
	long.Test(t)
	for name, tt := range map[string]struct {
		how     string
		changes int // how often k changes just before it is copied
		exit    int
		says    string
		data    string // of k in the end
	}{
		"are reported":                          {"fail", 1, 3, "copied 2   skipped 0   failed 1", ""},
		"are copied as they are":                {"copy", 1, 0, "copied 3   skipped 0   failed 0", "new 1 k"},
		"are copied though they change thrice":  {"copy", 3, 0, "copied 3   skipped 0   failed 0", "new 3 k"},
		"are reported if they never come still": {"copy", 9, 3, "copied 2   skipped 0   failed 1", ""},
		"are skipped":                           {"skip", 1, 0, "copied 2   skipped 1   failed 0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newCloneShop(t, s3stub.Config{})
			s.stocked("a", "k", "z")
			var mu sync.Mutex
			done := 0
			s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
				mu.Lock()
				defer mu.Unlock()
				if r.Verb == s3stub.Copy && r.Key == "k" && done < tt.changes {
					done++
					s.put("from", fmt.Sprintf("new %d ", done), "k")
				}
				return nil
			})
			out, problems, exit := s.run("clone", "s3://from", "s3://into", "--if-changed", tt.how)
			if exit != tt.exit || !strings.Contains(out+problems, tt.says) {
				t.Errorf("exit %d\n%s%s", exit, out, problems)
			}
			if data, _ := s.s3.Data("into", "k"); string(data) != tt.data {
				t.Errorf("k is %q, want %q", data, tt.data)
			}
		})
	}
}

func TestLimitsOfRateAndBandwidth(t *testing.T) {
	long.Test(t)
	s := newCloneShop(t, s3stub.Config{})
	s.stocked(someKeys("k", 300)...)
	var mu sync.Mutex
	var at []time.Time
	s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
		if r.Bucket == "into" {
			mu.Lock()
			at = append(at, time.Now())
			mu.Unlock()
		}
		return nil
	})
	const rate, burst, late = 150, 15, 10
	out, problems, exit := s.run("clone", "s3://from", "s3://into", "--rate", "150", "--concurrency", "8", "-q")
	if exit != 0 || len(at) < 301 {
		t.Fatalf("exit %d: %d requests\n%s%s", exit, len(at), out, problems)
	}
	// In any time there are as many as are due, and what was not used of a tenth of a second. Where
	// the server lags, those under way come late, and with later ones: not more than are under way.
	best := 0
	for i := range at { // the first one looks whether it may write
		for j := i; i > 0 && j < len(at); j++ {
			took, n := at[j].Sub(at[i]), j-i+1
			if took < time.Second {
				best = max(best, n)
			}
			if float64(n) > rate*took.Seconds()+burst+late {
				t.Fatalf("%d requests within %v", n, took)
			}
		}
	}
	if best < rate/2 {
		t.Errorf("at most %d requests within a second", best)
	}
	s.s3.Inject(nil)
	for _, k := range []string{"m1", "m2", "m3", "m4"} {
		if err := s.s3.PutObject("from", s3stub.Object{Key: k}, bytes.Repeat([]byte(k), 500_000)); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	out, problems, exit = s.run("clone", "s3://from", "./out", "--bwlimit", "2MB", "--include", "m*", "-q")
	if took := time.Since(start); exit != 0 || took < 1900*time.Millisecond || took > 30*time.Second {
		t.Errorf("4 MB at 2 MB a second took %v, exit %d\n%s%s", took, exit, out, problems)
	}
	// What the service copies by itself is not bound.
	start = time.Now()
	out, problems, exit = s.run("clone", "s3://from", "s3://into", "--bwlimit", "1kB", "--include", "m*", "-q")
	if took := time.Since(start); exit != 0 || took > time.Minute { // 4 MB at 1 kB a second would take an hour
		t.Errorf("server-side copies took %v, exit %d\n%s%s", took, exit, out, problems)
	}
}

func TestBadValuesNameTheirFlag(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	s.stocked("a")
	bad := map[string]string{
		"json":  `{"name":"a"}`,
		"long":  strings.Repeat("x", 5000),
		"large": strings.Repeat("x", 2<<20),
	}
	for name, data := range bad {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte("a\n"+data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		args []string
		says []string
	}{
		"a bandwidth of no size": {[]string{"--bwlimit", "fast"}, []string{"--bwlimit fast", "a size is"}},
		"no bandwidth":           {[]string{"--bwlimit", "0"}, []string{"--bwlimit 0", "without the flag"}},
		"a negative rate":        {[]string{"--rate", "-1"}, []string{"--rate -1", "without the flag"}},
		"a rate of no number":    {[]string{"--rate", "many"}, []string{"--rate", "many"}},
		"not a number":           {[]string{"--rate", "NaN"}, []string{"--rate NaN"}},
		"a word for if-changed":  {[]string{"--if-changed", "cry"}, []string{"--if-changed cry", "fail, copy or skip"}},
		"both":                   {[]string{"--if-missing", "--all"}, []string{"--if-missing", "--all"}},
		"from0 alone":            {[]string{"--from0"}, []string{"--from0", "--files-from"}},
		"a list and delete":      {[]string{"--files-from", "json", "--delete"}, []string{"--files-from", "--delete"}},
		"a list that is missing": {[]string{"--files-from", "none"}, []string{"--files-from", "none", "standard input"}},
		"a list that is none":    {[]string{"--files-from", "json"}, []string{"--files-from json", "line 2", `"key"`}},
		"a long key":             {[]string{"--files-from", "long"}, []string{"--files-from long", "line 2", "5000", "--from0"}},
		"a long line":            {[]string{"--files-from", "large"}, []string{"--files-from large", "line 2", "--from0"}},
	} {
		out, problems, exit := s.run(append([]string{"clone", "s3://from", "s3://into"}, tt.args...)...)
		for _, want := range tt.says {
			if exit != 2 || !strings.Contains(problems, want) {
				t.Errorf("%s: exit %d, want 2 and %q\n%s%s", name, exit, want, out, problems)
			}
		}
	}
	if s.s3.Len("into") != 0 {
		t.Error("something was copied")
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "myrmidon-worker-*", "keys-*")); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// The list of a fleet's run is on the broker, its requests come with the jobs' results, and
// both are right after a worker was killed.
func TestAListOnAFleet(t *testing.T) {
	long.Test(t)
	t.Parallel()
	const n = 4000
	s := newCloneShop(t, s3stub.Config{Latency: map[s3stub.Verb]time.Duration{s3stub.Copy: 5 * time.Millisecond}})
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(2*n)), s.s3.AddMirror("into", numbered(2*n), "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	broker := natsserver.Start(t, natsserver.Options{})
	worker := func() *exec.Cmd {
		c := s.command("worker", "--slots", "4", "--workloads", "clone", "--nats", broker.URL())
		c.Env = append(c.Env, "MYRMIDON_STATE="+filepath.Join(t.TempDir(), "state"))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Signal(syscall.SIGTERM) // it may have been killed
			_ = c.Wait()
		})
		return c
	}
	first := worker()
	var list strings.Builder
	for i := range n {
		fmt.Fprintf(&list, "films/%06d/index.m3u8\n", 2*i)
	}
	var c till
	c.watch(s.s3, nil)
	cmd := s.command("clone", "s3://from", "s3://into", "-q", "--json", "--files-from", "-", "--nats", broker.URL())
	cmd.Stdin = strings.NewReader(list.String())
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.until("copies by the first", func() bool { return s.s3.Arrivals("into").Objects > 0 }) // or it may have none under way
	worker()
	s.until("copies", func() bool { return s.s3.Arrivals("into").Objects >= n/4 })
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, problems.String())
	}
	r := s.report(out.String())
	if a := s.s3.Arrivals("into"); a.Objects != n || a.Again > 1024 {
		t.Errorf("%d objects, %d again", a.Objects, a.Again)
	}
	made, said := c.of("into", "copy"), r.Cost.Destination["copy"]
	if !r.Cost.AtLeast || said > made || said < n-1024 {
		t.Errorf("%d copies, and the report says %+v", made, r.Cost)
	}
}
