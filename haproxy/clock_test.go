package haproxy

import (
	"strconv"
	"testing"
	"time"
)

// TestClocksThatStepBackTakeNothingBack sets back the clocks of HAProxy's host, of which its
// start time and uptime come, and the poller's own.
func TestClocksThatStepBackTakeNothingBack(t *testing.T) {
	const hour = 3600
	s := newStub(t, nil)
	c := collector(t, Config{Targets: []Target{{Address: s.path}}, Window: 10 * time.Second})
	clock := time.Unix(1_700_000_000, 0) // without a monotonic one behind it
	c.now = func() time.Time { return clock }
	var last int64
	restarts := 0
	step := func(what string, start, uptime int, counted int, forward time.Duration) *Snapshot {
		t.Helper()
		clock = clock.Add(forward)
		s.set(says(dump(7, start, uptime, "app,s,1,"+strconv.Itoa(counted)+",2,UP,2,\n")))
		snap := poll(t, c)
		for _, e := range snap.Events {
			if e.Kind != EventRestart {
				t.Errorf("%s: the event is %+v", what, e)
			}
			restarts++
		}
		n, ok := snap.Table.Int(0, snap.Table.Column("stot"))
		if !ok || n < last {
			t.Errorf("%s: stot went from %d to %d", what, last, n)
		}
		last = n
		return snap
	}
	rate := func(snap *Snapshot) float64 {
		r, ok := snap.Rate(0, snap.Table.Column("stot"))
		if ok && (r < 0 || r > 100) {
			t.Errorf("the rate is %v over %v", r, snap.Window)
		}
		return r
	}
	start := 1_699_990_000
	step("at first", start, 10000, 100, time.Second)
	if r := rate(step("steady", start, 10001, 110, time.Second)); r != 10 {
		t.Errorf("the rate is %v", r)
	}
	rate(step("uptime steps back", start, 10002-hour, 120, time.Second))
	if last != 120 || restarts != 0 {
		t.Errorf("an uptime that stepped back: stot is %d, %d restarts", last, restarts)
	}
	rate(step("both step back", start-hour, 10003-2*hour, 130, time.Second))
	rate(step("and go on", start-hour, 10004-2*hour, 140, time.Second))
	rate(step("still", start-hour, 10005-2*hour, 150, time.Second))
	if restarts > 1 {
		t.Errorf("%d restarts of one step", restarts)
	}
	told := restarts
	rate(step("the poller's steps back", start-hour, 10006-2*hour, 160, -time.Hour))
	if r := rate(step("and goes on", start-hour, 10007-2*hour, 170, time.Second)); r != 10 {
		t.Errorf("the rate after the step is %v", r)
	}
	rate(step("all of them at once", start-2*hour, 10008-3*hour, 180, -time.Hour))
	if r := rate(step("and go on", start-2*hour, 10009-3*hour, 190, time.Second)); r != 10 {
		t.Errorf("the rate after the last step is %v", r)
	}
	if restarts-told > 1 {
		t.Errorf("%d restarts of the last step", restarts-told)
	}
	told = restarts
	before := last
	rate(step("a true restart by a clock that is behind", start-3*hour, 0, 5, -time.Hour))
	if last != before+5 || restarts-told != 1 {
		t.Errorf("a restart: stot went from %d to %d, %d restarts", before, last, restarts-told)
	}
}

func TestRatesAreOverHalfTheWindowToTheWholeAndOnePoll(t *testing.T) {
	s := newStub(t, nil)
	c := collector(t, Config{Targets: []Target{{Address: s.path}}, Window: 10 * time.Second})
	began := time.Unix(1_700_000_000, 0)
	clock := began
	c.now = func() time.Time { return clock }
	counted := 0
	for second := range 60 {
		// In each second one more than in that before.
		counted += second
		s.set(says(dump(7, 100, second, "app,s,1,"+strconv.Itoa(counted)+",2,UP,2,\n")))
		clock = began.Add(time.Duration(second) * time.Second)
		snap := poll(t, c)
		if second < 11 {
			continue
		}
		if snap.Window < 5*time.Second || snap.Window > 11*time.Second {
			t.Fatalf("after %d s the rate is over %v", second, snap.Window)
		}
		// The mean of what was counted in each second of the window.
		n := int(snap.Window / time.Second)
		want := float64(second) - float64(n-1)/2
		if r, ok := snap.Rate(0, snap.Table.Column("stot")); !ok || r != want {
			t.Errorf("after %d s the rate over %v is %v, want %v", second, snap.Window, r, want)
		}
	}
}
