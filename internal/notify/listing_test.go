package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"myrmidon/object"
)

// A listing is in the order of names: what its first page has may be done, up to the newest
// object, before the second page tells of older ones.
func TestAPassTellsOfAllWhateverIsDoneMeanwhile(t *testing.T) {
	now := time.Now()
	var pages [2][]object.Info
	for p, account := range []string{"111", "222"} {
		for hours := range 20 {
			key := fmt.Sprintf("AWSLogs/%s/%02d", account, hours)
			pages[p] = append(pages[p], object.Info{Key: key, ETag: "e", Modified: now.Add(-time.Duration(20-hours) * time.Hour)})
		}
	}
	for name, between := range map[string]struct {
		err  error // of the first listing, after its first page
		kill bool  // the process ends then
	}{
		"in one pass": {}, "after an error": {err: errors.New("503")}, "after a kill": {err: errors.New("killed"), kill: true},
	} {
		t.Run(name, func(t *testing.T) {
			var came calls
			var passes, lists atomic.Int64
			file := filepath.Join(t.TempDir(), "seen.json")
			cfg := ListingConfig{Name: "here", File: file, Every: 5 * time.Millisecond, Start: now.Add(-24 * time.Hour)}
			tell := func(after time.Time, page []object.Info, fn func(object.Info) error) error {
				for _, o := range page {
					if o.Modified.Before(after) {
						continue // as a store does that can tell
					}
					if err := fn(o); err != nil {
						return err
					}
				}
				return nil
			}
			killed := make(chan []byte, 1)
			cfg.List = func(ctx context.Context, after time.Time, fn func(object.Info) error) error {
				first := lists.Add(1) == 1
				if err := tell(after, pages[0], fn); err != nil {
					return err
				}
				if first {
					until(t, "the first page is done, and that is written down", func() bool {
						var s Seen
						data, err := os.ReadFile(file)
						return err == nil && json.Unmarshal(data, &s) == nil && (len(s.Done) == len(pages[0]) || s.Newest.After(pages[0][0].Modified))
					})
					if between.kill {
						data, err := os.ReadFile(file)
						if err != nil {
							t.Error(err)
						}
						killed <- data
						<-ctx.Done()
					}
					if between.err != nil {
						return between.err
					}
				}
				if err := tell(after, pages[1], fn); err != nil {
					return err
				}
				passes.Add(1)
				return nil
			}
			follow := func() func() {
				f, err := config(8).Listing(cfg)
				if err != nil {
					t.Fatal(err)
				}
				return run(t, f, func(_ context.Context, o Object) error { came.add(o.Key); return nil })
			}
			end := follow()
			if between.kill {
				data := <-killed
				end()
				if err := os.WriteFile(file, data, 0o600); err != nil { // as the killed process left it
					t.Fatal(err)
				}
				end = follow()
			}
			// What waits for a slot when the feed ends is left to the next one.
			until(t, "three passes are over, and all came", func() bool { return passes.Load() >= 3 && came.len() == len(pages[0])+len(pages[1]) })
			end()
			for _, page := range pages {
				for _, o := range page {
					if came.of(o.Key) != 1 {
						t.Errorf("%s came %d times", o.Key, came.of(o.Key))
					}
				}
			}
			var s Seen
			data, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(data, &s)
			}
			if newest := pages[1][19].Modified; err != nil || !s.Newest.Equal(newest) || len(s.Done) != 2 {
				t.Errorf("%v: the mark is at %v, want %v; %d are remembered", err, s.Newest, newest, len(s.Done))
			}
		})
	}
}

// An object may come to where a pass has been already, while it goes on: the next one finds it.
func TestTheMarkDoesNotPassWhatCameDuringAPass(t *testing.T) {
	start := time.Now().Add(-10 * time.Hour)
	l := &listing{cfg: ListingConfig{File: filepath.Join(t.TempDir(), "seen.json"), Start: start}, seen: new(Seen), open: make(map[string]*listed)}
	after := l.begin()
	l.begun = start.Add(time.Hour) // the pass takes hours
	info := func(key string, hours int) object.Info {
		return object.Info{Key: key, ETag: key, Modified: start.Add(time.Duration(hours) * time.Hour)}
	}
	for _, o := range []object.Info{info("b", 0), info("z", 6)} {
		if !l.fresh(o, after) {
			t.Fatalf("%s is not taken on", o.Key)
		}
		if err := l.finish(o, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.told(); err != nil {
		t.Fatal(err)
	}
	after = l.begin()
	if !l.fresh(info("a", 2), after) || l.fresh(info("z", 6), after) {
		t.Errorf("what came two hours after the start is missed, or what is done comes again; objects are looked at from %v on", after.Sub(start))
	}
	if after.Before(start.Add(30 * time.Minute)) {
		t.Errorf("the mark stays, at %v", after.Sub(start))
	}
}

// A follower that was away for longer than the hour that it looks back at first goes on from where
// it stopped.
func TestAListingGoesOnFromWhereItStopped(t *testing.T) {
	cfg := ListingConfig{File: filepath.Join(t.TempDir(), "seen.json")}
	look := func() time.Duration {
		f, err := config(1).Listing(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(f.source.(*listing).begin()).Round(time.Minute)
	}
	if back := look(); back != time.Hour {
		t.Errorf("at first it looks back %v", back)
	}
	data, err := json.Marshal(&Seen{Newest: time.Now().Add(-72 * time.Hour)})
	if err == nil {
		err = os.WriteFile(cfg.File, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if back := look(); back != 72*time.Hour+overlap {
		t.Errorf("after three days it looks back %v", back)
	}
	cfg.Start = time.Now().Add(-24 * time.Hour)
	if back := look(); back != 24*time.Hour {
		t.Errorf("with a start it looks back %v", back)
	}
}
