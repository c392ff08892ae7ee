package main

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3stub"
)

// A store that has too much to do, or a network that breaks, costs time and a bounded
// number of requests, and no object.
func TestClonesInBadWeather(t *testing.T) {
	long.Test(t)
	t.Parallel()
	const n = 3000
	for name, tt := range map[string]struct {
		fault func(s3stub.Request) *s3stub.Fault
		most  int64 // copies that may be asked for
		again int64 // that may arrive twice
	}{
		// The limiter halves, and what is told to slow down waits: far from a request more
		// for each object.
		"half of all copies are told to slow down for 3 s": {forAWhile(3*time.Second, s3stub.Rate(7, 0.5, s3stub.Fault{Status: 503}, s3stub.Copy)), n * 12 / 10, 0},
		"all copies are, for 1 s":                          {forAWhile(time.Second, s3stub.Every(1, s3stub.Fault{Status: 503, Header: map[string]string{"Retry-After": "1"}}, s3stub.Copy)), n * 13 / 10, 0},
		"each 20th connection is reset":                    {s3stub.Every(20, s3stub.Fault{Reset: true}, s3stub.Copy, s3stub.List), n * 12 / 10, 0},
		"each 50th answer is lost":                         {s3stub.Every(50, s3stub.Fault{Reset: true, After: true}, s3stub.Copy), n * 11 / 10, n * 3 / 100},
		"each 100th copy takes 2 s":                        {s3stub.Every(100, s3stub.Fault{Delay: 2 * time.Second}, s3stub.Copy), n, 0},
		"errors come with status 200":                      {s3stub.Every(50, s3stub.Fault{Status: 500, InBody: true}, s3stub.Copy), n * 11 / 10, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCloneShop(t, s3stub.Config{Latency: quickly})
			s.mirror(n)
			s.s3.Inject(tt.fault)
			start := time.Now()
			s.says(0, []string{"copied 3000   skipped 0   failed 0"}, "clone", "s3://from", "s3://into", "-q")
			a, c := s.s3.Arrivals("into"), s.s3.Counts()
			t.Logf("%.1f s, %d copies asked for, %d refused, %d arrived again", time.Since(start).Seconds(), c[s3stub.Copy].Requests, c[s3stub.Copy].Injected, a.Again)
			if a.Objects != n || a.Wrong > 0 || a.Again > tt.again {
				t.Errorf("arrived %+v", a)
			}
			if c[s3stub.Copy].Injected == 0 {
				t.Error("nothing went wrong")
			}
			if got := c[s3stub.Copy].Requests; got > tt.most {
				t.Errorf("%d copies asked for, at most %d are due", got, tt.most)
			}
			if got := c[s3stub.List].Requests; got > 30 {
				t.Errorf("%d listings", got)
			}
		})
	}
}

// mirror makes the source full of n objects and the destination empty.
func (s *cloneShop) mirror(n int) {
	s.t.Helper()
	for _, err := range []error{s.s3.AddSynthetic("from", numbered(n)), s.s3.AddMirror("into", numbered(n), "")} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// forAWhile gives a chooser's faults from the first copy on, for as long as d.
func forAWhile(d time.Duration, choose func(s3stub.Request) *s3stub.Fault) func(s3stub.Request) *s3stub.Fault {
	var end atomicTime
	return func(r s3stub.Request) *s3stub.Fault {
		if r.Verb != s3stub.Copy || time.Now().After(end.orSet(time.Now().Add(d))) {
			return nil
		}
		return choose(r)
	}
}

// Ctrl-C once finishes what is under way, twice ends it at once. Either way the rest is
// done later, and nothing is lost.
func TestInterruptedClonesGoOn(t *testing.T) {
	long.Test(t)
	t.Parallel()
	const n = 8000
	for name, tt := range map[string]struct {
		signals int
		again   int64
	}{"once": {1, 0}, "twice": {2, 1000}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newCloneShop(t, s3stub.Config{Latency: quickly})
			s.mirror(n)
			c := s.command("clone", "s3://from", "s3://into", "--delete")
			var said bytes.Buffer
			c.Stdout, c.Stderr = &said, &said
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(20 * time.Second); s.s3.Arrivals("into").Objects < 1500 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			for range tt.signals {
				if err := c.Process.Signal(os.Interrupt); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Millisecond)
			}
			begun := time.Now()
			err := c.Wait()
			if status(err) != 130 || !strings.Contains(said.String(), "runs resume") || time.Since(begun) > 5*time.Second {
				t.Errorf("%v after %v\n%s", err, time.Since(begun), said.String())
			}
			at := s.s3.Arrivals("into").Objects
			if at >= n {
				t.Fatalf("all %d objects had arrived", at)
			}
			s.says(0, []string{"copied 8000   skipped 0   failed 0"}, "runs", "resume", "latest", "-q")
			if a := s.s3.Arrivals("into"); a.Objects != n || a.Wrong > 0 || a.Again > tt.again {
				t.Errorf("arrived %+v", a)
			}
		})
	}
}

// SIGTERM is what a machine that goes down sends.
func TestATerminatedCloneGoesOn(t *testing.T) {
	long.Test(t)
	const n = 4000
	s := newCloneShop(t, s3stub.Config{Latency: quickly})
	s.mirror(n)
	c := s.command("clone", "s3://from", "s3://into", "-q")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); s.s3.Arrivals("into").Objects < 500 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); status(err) != 130 {
		t.Error(err)
	}
	s.says(0, []string{"copied 4000"}, "runs", "resume", "latest", "-q")
	if a := s.s3.Arrivals("into"); a.Objects != n || a.Again > 0 {
		t.Errorf("arrived %+v", a)
	}
}

// atomicTime is a time that is set once.
type atomicTime struct {
	once sync.Once
	at   time.Time
}

func (a *atomicTime) orSet(t time.Time) time.Time {
	a.once.Do(func() { a.at = t })
	return a.at
}
