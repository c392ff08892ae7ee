package haproxy

import (
	"context"
	"testing"
	"time"
)

// TestASteadyPollAllocatesNothingBeyondReading feeds a Collector by hand what it would read
// from two processes, of every field, and lets it parse, merge, settle and publish.
func TestASteadyPollAllocatesNothingBeyondReading(t *testing.T) {
	csv, _ := everyField(t)
	answer := append([]byte("Name: HAProxy\nVersion: 2.6.12\nPid: 1\nUptime_sec: 50\nStart_time_sec: 100\nStopping: 0\n\n"), csv...)
	a, b := newStub(t, says(string(answer))), newStub(t, says(string(answer)))
	// The window ends with each poll, so that what rates count from moves too.
	c := collector(t, Config{Targets: []Target{{Address: a.path}, {Address: b.path}}, Window: time.Nanosecond, KeepProcesses: true})
	poll(t, c)
	poll(t, c)
	stot := c.snap.Table.Column("stot")
	want := c.snap.Table.Text(0, stot)
	allocs := testing.AllocsPerRun(50, func() {
		for _, s := range c.slots {
			// As source.read has it, without the connection.
			r, err := s.source.split(append(s.source.buffer(), answer...))
			s.replies, s.err, s.tags, s.before = append(s.replies[:0], r), err, nil, nil
		}
		c.mergeAll()
		if c.learn() {
			t.Error("there was something to learn")
		}
		c.settle()
		c.mu.Lock()
		c.publish(time.Now())
		c.polls++
		c.mu.Unlock()
	})
	if allocs != 0 {
		t.Errorf("a steady poll allocates %v times beyond reading", allocs)
	}
	if got := c.snap.Table.Text(0, stot); got != want || c.snap.Failed() != 0 || c.snap.Window <= 0 {
		t.Errorf("stot is %s, want %s; %d failed", got, want, c.snap.Failed())
	}
	if err := c.Poll(context.Background()); err != nil { // and goes on
		t.Error(err)
	}
}
