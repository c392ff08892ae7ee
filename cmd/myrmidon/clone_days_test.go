package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3stub"
)

// quickly are latencies that let a process be caught at work.
var quickly = map[s3stub.Verb]time.Duration{s3stub.Copy: 10 * time.Millisecond, s3stub.List: 10 * time.Millisecond}

// fill puts objects into a bucket, which it makes if it is not there. Their bytes are their
// keys unless there is a body.
func (s *cloneShop) fill(bucket, body string, keys ...string) {
	s.t.Helper()
	if s.s3.Len(bucket) == 0 {
		_ = s.s3.AddBucket(bucket) // it may be there, empty
	}
	for _, k := range keys {
		data := []byte(body)
		if body == "" {
			data = []byte(k)
		}
		if err := s.s3.PutObject(bucket, s3stub.Object{Key: k}, data); err != nil {
			s.t.Fatal(err)
		}
	}
}

// full is what a bucket holds.
func (s *cloneShop) full(bucket string) map[string]string {
	out := make(map[string]string)
	for _, k := range s.s3.Keys(bucket) {
		data, _ := s.s3.Data(bucket, k)
		out[k] = string(data)
	}
	return out
}

// says fails if an outcome is not the one that is wanted.
func (s *cloneShop) says(exit int, want []string, args ...string) (out string) {
	s.t.Helper()
	stdout, stderr, got := s.run(args...)
	out = stdout + stderr
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.t.Errorf("%q is not said", w)
		}
	}
	if got != exit {
		s.t.Errorf("exit status %d, want %d", got, exit)
	}
	if s.t.Failed() {
		s.t.Logf("%q:\n%s", args, out)
	}
	return out
}

// on gives a fault to one verb's requests to a bucket.
func on(verb s3stub.Verb, bucket string, f s3stub.Fault) func(s3stub.Request) *s3stub.Fault {
	return func(r s3stub.Request) *s3stub.Fault {
		if r.Verb == verb && r.Bucket == bucket {
			return &f
		}
		return nil
	}
}

// Whatever keeps a clone from beginning is said with what to do, and nothing is touched.
func TestClonesThatCannotBegin(t *testing.T) {
	denied := s3stub.Fault{Status: 403}
	for name, tt := range map[string]struct {
		from, into string
		fault      func(s3stub.Request) *s3stub.Fault
		exit       int
		says       []string
	}{
		"no such source":            {"s3://nowhere", "s3://into", nil, 1, []string{"NoSuchBucket", "create the bucket nowhere"}},
		"no such destination":       {"s3://from", "s3://nowhere", nil, 1, []string{"NoSuchBucket", "create the bucket nowhere"}},
		"a source elsewhere":        {"s3://far", "s3://into", nil, 1, []string{"eu-west-1", "s3://far?region=eu-west-1"}},
		"a destination elsewhere":   {"s3://from", "s3://far", nil, 1, []string{"eu-west-1", "s3://far?region=eu-west-1"}},
		"a region that is wrong":    {"s3://from", "s3://far?region=eu-west-2", nil, 1, []string{"eu-west-1"}},
		"the source's list denied":  {"s3://from", "s3://into", on(s3stub.List, "from", denied), 1, []string{"AccessDenied", "s3:ListBucket on s3://from"}},
		"the other's list denied":   {"s3://from", "s3://into", on(s3stub.List, "into", denied), 1, []string{"AccessDenied", "s3:ListBucket on s3://into"}},
		"writing denied":            {"s3://from", "s3://into", on(s3stub.CreateUpload, "into", denied), 1, []string{"AccessDenied", "s3:PutObject on s3://into"}},
		"copying denied":            {"s3://from", "s3://into", on(s3stub.Copy, "into", denied), 1, []string{"AccessDenied", `copy "k"`, "5 objects failed", "nothing was deleted"}},
		"onto itself":               {"s3://from", "s3://from/", nil, 2, []string{"overlap"}},
		"into itself":               {"s3://from", "s3://from/k", nil, 2, []string{"overlap"}},
		"into itself by its server": {"s3://from", "s3://from/k?endpoint=URL", nil, 2, []string{"overlap"}},
		"a folder into itself":      {"./here", "./there/deeper", nil, 2, []string{"overlap"}},
		"a folder that is a file":   {"./file", "s3://into", nil, 1, []string{"is a file"}},
		"into a file":               {"s3://from", "./file", nil, 1, []string{"not a folder"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCloneShop(t, s3stub.Config{})
			s.fill("from", "", "a", "b/c", "k", "l", "m")
			s.fill("into", "old", "extra", "k")
			if err := s.s3.AddBucketIn("far", "eu-west-1"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(s.dir, "here"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("here", filepath.Join(s.dir, "there")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.dir, "file"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.s3.Inject(tt.fault)
			s.says(tt.exit, tt.says, "clone", tt.from, strings.Replace(tt.into, "URL", s.s3.URL(), 1), "--delete")
			if got := s.full("into"); len(got) != 2 || got["extra"] != "old" || got["k"] != "old" || s.s3.Len("from") != 5 || s.s3.Len("far") > 0 {
				t.Errorf("the destination has %q, the source %d objects", got, s.s3.Len("from"))
			}
		})
	}
}

// A listing that lies never costs an object that the source has.
func TestListingsThatLieDeleteNothing(t *testing.T) {
	long.Test(t)
	const n = 2500
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%04d", i)
	}
	const disorder, notThere = "not in the order", "whose listing did not have it"
	for name, tt := range map[string]struct {
		fault      s3stub.Fault
		from, into string // what is said where it is that bucket's listing; "" is no harm
	}{
		"out of order":   {s3stub.Fault{Page: s3stub.SwapKeys(3, 7)}, disorder, disorder},
		"repeated":       {s3stub.Fault{Page: s3stub.RepeatKey(3)}, disorder, disorder},
		"the same again": {s3stub.Fault{Page: s3stub.RepeatPage()}, "not complete", "not complete"},
		"for ever":       {s3stub.Fault{Page: s3stub.ClaimTruncated(true)}, disorder, disorder},
		"keys left out":  {s3stub.Fault{Page: s3stub.SkipKey(5)}, notThere, ""},
		"ends too early": {s3stub.Fault{Page: s3stub.ClaimTruncated(false)}, notThere, ""},
		"broken off":     {s3stub.Fault{Cut: 20_000}, "list the source", "list the destination"},
		"an error":       {s3stub.Fault{Status: 500}, "InternalError", "InternalError"},
	} {
		for liar, says := range map[string]string{"from": tt.from, "into": tt.into} {
			// The copying has been told the truth, or not.
			for when, truths := range map[string]int64{"always": 0, "when it deletes": 1} {
				t.Run(name+", "+liar+", "+when, func(t *testing.T) {
					t.Parallel()
					s := newCloneShop(t, s3stub.Config{})
					s.env = []string{"AWS_MAX_ATTEMPTS=1"}
					s.fill("from", "x", keys...)
					s.fill("into", "x", keys...)
					s.fill("into", "x", "extra")
					var last atomic.Int64 // of those that list the end of the bucket
					s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
						if r.Verb != s3stub.List || r.Bucket != liar || last.Load() < truths {
							if r.Verb == s3stub.List && r.Bucket == liar && strings.Contains(r.RawQuery, "start-after=k1") {
								last.Add(1)
							}
							return nil
						}
						return &tt.fault
					})
					out, problems, exit := s.run("clone", "s3://from", "s3://into", "--delete")
					// 1 where nothing was done at all.
					if says == "" && exit != 0 || says != "" && exit != 3 && exit != 1 {
						t.Errorf("exit status %d", exit)
					}
					if !strings.Contains(problems, says) {
						t.Errorf("%q is not said", says)
					}
					left := s.full("into")
					for _, k := range keys {
						if left[k] != "x" {
							t.Fatalf("%s is gone, and %d of %d are left", k, len(left), n+1)
						}
					}
					// It is in the first page: what lies before the lie may go, once all is copied.
					if _, there := left["extra"]; !there && says != "" && says != notThere && truths == 0 {
						t.Error("something was deleted after a listing that is not complete")
					}
					if t.Failed() {
						t.Logf("%s%s", out, problems)
					}
				})
			}
		}
	}
}

// What happens to an object between its listing and its copy is reported; the others go on.
func TestObjectsThatChangeUnderAClone(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	s.fill("from", "", "a", "changed", "gone", "z")
	s.fill("into", "older", "changed", "extra", "gone")
	var once sync.Once
	s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
		if r.Verb == s3stub.Copy {
			once.Do(func() {
				s.fill("from", "new bytes", "changed")
				s.run("rm", "s3://from/gone")
			})
		}
		return nil
	})
	s.says(3, []string{
		"copied 2", "failed 2", "2 objects failed", `copy "changed"`, `copy "gone"`, "has changed since it was listed", "gone since it was listed",
		"run the clone again", "nothing was deleted",
	}, "clone", "s3://from", "s3://into", "--delete")
	got := s.full("into")
	if got["changed"] != "older" || got["gone"] != "older" || got["a"] != "a" || got["z"] != "z" || got["extra"] != "older" {
		t.Errorf("the destination has %q", got)
	}
	s.says(0, []string{"copied 1", "deleted 2"}, "clone", "s3://from", "s3://into", "--delete", "--checksum")
	if got := s.full("into"); len(got) != 3 || got["changed"] != "new bytes" {
		t.Errorf("the destination has %q", got)
	}
}

// What is there already stays, unless it is to go.
func TestADestinationThatIsNotEmpty(t *testing.T) {
	s := newCloneShop(t, s3stub.Config{})
	s.fill("from", "", "a/b", "same", "size")
	s.fill("into", "", "a", "same", "z")
	s.fill("into", "x", "size")
	s.says(0, []string{"copied 2   skipped 1   failed 0"}, "clone", "s3://from", "s3://into")
	if got := s.full("into"); len(got) != 5 || got["size"] != "size" || got["a"] != "a" || got["a/b"] != "a/b" || got["z"] != "z" {
		t.Errorf("the destination has %q", got)
	}
}

// A session that ends in the middle of a run ends it; with a new one it goes on.
func TestCredentialsThatExpireInTheMiddle(t *testing.T) {
	long.Test(t)
	const n = 8000
	s := newCloneShop(t, s3stub.Config{Token: "of this hour", Latency: quickly})
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(n)), s.s3.AddMirror("into", numbered(n), "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := s.s3.Credentials()
	s.s3.Inject(func(r s3stub.Request) *s3stub.Fault {
		if r.Verb == s3stub.Copy && r.OfVerb == 2500 {
			s.s3.Expire(c.AccessKey)
		}
		return nil
	})
	out := s.says(3, []string{"ExpiredToken", "the session has expired: log in again", "runs retry"}, "clone", "s3://from", "s3://into", "-q")
	if strings.Contains(out, c.Secret) || strings.Contains(out, c.Token) {
		t.Error("a secret is shown")
	}
	if asked := s.s3.Counts()[s3stub.Copy].Requests; asked > n {
		t.Errorf("%d copies were asked for, of %d objects", asked, n)
	}
	s.says(1, []string{"runs retry"}, "runs", "resume", "latest")
	s.s3.AddCredentials(c)
	s.says(0, []string{fmt.Sprintf("copied %d", n)}, "runs", "retry", "latest", "-q")
	if a := s.s3.Arrivals("into"); a.Objects != n || a.Again > 0 || a.Wrong > 0 {
		t.Errorf("arrived %+v", a)
	}
}

// Two clones of one pair do the work twice, and no harm.
func TestTwoClonesOfOnePair(t *testing.T) {
	const n = 3000
	s := newCloneShop(t, s3stub.Config{Latency: quickly})
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(n)), s.s3.AddMirror("into", numbered(n), "")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if out, err := s.command("clone", "s3://from", "s3://into", "-q", "--delete").CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	both.Wait()
	if a := s.s3.Arrivals("into"); a.Objects != n || a.Wrong > 0 {
		t.Errorf("arrived %+v", a)
	}
}
