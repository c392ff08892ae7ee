package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"myrmidon"
)

// The workload's name, its phases by number, and its kinds.
const (
	workload   = "torture"
	phaseWork  = 0
	phaseClose = 1

	kindShort = workload + ".short"
	kindLong  = workload + ".long"
	kindClose = workload + ".close"
)

var phaseNames = []string{"work", "close"}

// attempts is how often the engine tries a failing item (engine, package comment). The
// verifier's own count of what must be parked is built on it.
const attempts = 3

// closings is how many items the phase close has, one a job.
const closings = 8

// spec is a run's spec. Which items there are, how they are cut into jobs and what
// becomes of each follows from it alone.
type spec struct {
	Tag   string `json:"tag"` // the first part of its effects' names
	Seed  uint64 `json:"seed"`
	Items int    `json:"items"` // of the phase work
}

// draw returns the random numbers that belong to a place in the run.
func (s spec) draw(at ...uint32) *rand.Rand {
	mix := uint64(len(at))
	for _, x := range at {
		mix = (mix ^ uint64(x)) * 0x9e3779b97f4a7c15
		mix ^= mix >> 29
	}
	return rand.New(rand.NewPCG(s.Seed, mix))
}

// What draw is asked for, its first place.
const (
	ofShards uint32 = iota
	ofSlice
	ofItem
	ofJob
)

// shards returns the number of items of each shard of the phase work. Shard k opens the
// shards 2k+1 and 2k+2 with its first slice.
func (s spec) shards() []int {
	r := s.draw(ofShards)
	out := make([]int, 3+r.IntN(6))
	left := s.Items
	for i := range out[1:] {
		out[i] = r.IntN(2*left/(len(out)-i) + 1)
		left -= out[i]
	}
	out[len(out)-1] = left
	return out
}

// block is a job before it has an address: a range of a shard's items.
type block struct {
	shard, first, count uint32
	long                bool
}

func (b block) kind() string {
	if b.long {
		return kindLong
	}
	return kindShort
}

// slice returns the blocks of the slice that begins at item next of a shard with total
// items. They have 10 to 100 items; in small runs fewer, so that there are some to lose.
func (s spec) slice(shard, next uint32, total int) []block {
	r := s.draw(ofSlice, shard, next)
	most := min(max(s.Items/50, 10), myrmidon.MaxJobItems)
	var out []block
	for n := 1 + r.IntN(12); n > 0 && int(next) < total; n-- {
		count := uint32(min(10+r.IntN(most-9), total-int(next)))
		out = append(out, block{shard, next, count, r.IntN(4) == 0})
		next += count
	}
	return out
}

// blocks returns all blocks of the phase work.
func (s spec) blocks() (out []block) {
	for shard, total := range s.shards() {
		for next := 0; next < total; {
			slice := s.slice(uint32(shard), uint32(next), total)
			out = append(out, slice...)
			last := slice[len(slice)-1]
			next = int(last.first + last.count)
		}
	}
	return out
}

// fault is how an item fails.
type fault struct {
	times     uint32 // it fails in the attempts up to this one
	permanent bool
}

// fault returns how an item of the phase work fails by itself.
func (s spec) fault(shard, index uint32) fault {
	switch p := s.draw(ofItem, shard, index).IntN(1000); {
	case p < 10:
		return fault{times: 1}
	case p < 15:
		return fault{times: 2}
	case p < 18:
		return fault{times: attempts}
	case p < 20:
		return fault{times: attempts, permanent: true}
	}
	return fault{}
}

// whole says whether the first attempt of a block fails as a whole.
func (s spec) whole(b block) bool { return s.draw(ofJob, b.shard, b.first).IntN(32) == 0 }

// length is how long a block takes: up to 60 ms, or as a long one up to 4 s, which is more
// than deliveryLease.
func (s spec) length(b block) time.Duration {
	x := s.draw(ofJob, b.shard, b.first, 1).Float64()
	if b.long {
		return 200*time.Millisecond + time.Duration(x*x*float64(3800*time.Millisecond))
	}
	return time.Duration(x * float64(60*time.Millisecond))
}

// name is the name of an item's effect.
func (s spec) name(phase, shard, index uint32) string {
	return fmt.Sprintf("%s/%s/%d/%d", s.Tag, phaseNames[phase], shard, index)
}

// content is what an item's effect holds.
func (s spec) content(phase, shard, index uint32) string {
	return fmt.Sprintf("%s holds %016x", s.name(phase, shard, index), s.draw(phase, shard, index, 1).Uint64())
}

// cursor is the planner's. The engine counts a shard's items too, so each finds out
// whether the other has lost some.
type cursor struct {
	Shard uint32 `json:"shard"`
	Left  int    `json:"left"`
}

// load makes the workload. Its effects go to put; a nil put is enough for an owner,
// which neither plans nor handles.
func load(put func(ctx context.Context, name, content string) error) myrmidon.Workload {
	h := handler{put}
	return myrmidon.Workload{
		Name: workload, Version: 1,
		Phases:  []myrmidon.Phase{{Name: phaseNames[phaseWork]}, {Name: phaseNames[phaseClose], AfterFailures: true}},
		Planner: myrmidon.PlannerFunc(plan),
		Kinds: []myrmidon.Kind{
			{Name: kindShort, Handler: h},
			{Name: kindLong, Handler: h, Long: true},
			{Name: kindClose, Handler: h},
		},
	}
}

// plan implements myrmidon.Planner.
func plan(_ context.Context, step myrmidon.Step) (myrmidon.Slice, error) {
	var s spec
	if err := json.Unmarshal(step.Spec, &s); err != nil {
		return myrmidon.Slice{}, myrmidon.Permanent(fmt.Errorf("torture: spec: %w", err))
	}
	if step.Phase == phaseClose {
		out := myrmidon.Slice{Group: "close", Done: true}
		for i := range closings {
			out.Jobs = append(out.Jobs, myrmidon.Planned{Kind: kindClose, Name: fmt.Sprintf("close %d", i), Units: 1, Spec: step.Spec})
		}
		return out, nil
	}
	shards := s.shards()
	if int(step.Shard) >= len(shards) {
		return myrmidon.Slice{}, myrmidon.Permanent(fmt.Errorf("torture: plan shard %d of %d", step.Shard, len(shards)))
	}
	at := cursor{step.Shard, shards[step.Shard]}
	if len(step.Cursor) > 0 {
		if err := json.Unmarshal(step.Cursor, &at); err != nil {
			return myrmidon.Slice{}, myrmidon.Permanent(fmt.Errorf("torture: cursor: %w", err))
		}
	}
	total := shards[step.Shard]
	if at.Shard != step.Shard || at.Left+int(step.Next) != total {
		return myrmidon.Slice{}, myrmidon.Permanent(fmt.Errorf("torture: plan shard %d of %d items from item %d: the cursor is that of shard %d with %d left",
			step.Shard, total, step.Next, at.Shard, at.Left))
	}
	out := myrmidon.Slice{Group: fmt.Sprintf("shard %d", step.Shard)}
	for _, b := range s.slice(step.Shard, step.Next, total) {
		out.Jobs = append(out.Jobs, myrmidon.Planned{
			Kind: b.kind(), Name: fmt.Sprintf("shard %d from %d", b.shard, b.first), Count: b.count, Units: int64(b.count), Spec: step.Spec,
		})
		at.Left -= int(b.count)
	}
	if step.Next == 0 {
		for _, id := range []uint32{2*step.Shard + 1, 2*step.Shard + 2} {
			if int(id) < len(shards) {
				c, err := json.Marshal(cursor{id, shards[id]})
				if err != nil {
					return out, err
				}
				out.Children = append(out.Children, myrmidon.Shard{ID: id, Group: fmt.Sprintf("shard %d", id), Cursor: c})
			}
		}
	}
	var err error
	out.Done = at.Left == 0
	out.Cursor, err = json.Marshal(at)
	return out, err
}

// handler does jobs: it takes the time that they take and writes an effect for each item
// that does not fail. That its effects cannot be stored is never a failure of a job: it
// tries until it is stopped. So what is parked is known beforehand.
type handler struct {
	put func(ctx context.Context, name, content string) error
}

var (
	errItem  = errors.New("the item fails in this attempt")
	errBlock = errors.New("the job fails in its first attempt")
)

// Handle implements myrmidon.Handler.
func (h handler) Handle(ctx context.Context, job myrmidon.Job) (out myrmidon.Result, err error) {
	var s spec
	if err := json.Unmarshal(job.Spec, &s); err != nil {
		return out, myrmidon.Permanent(fmt.Errorf("torture: spec of job %q: %w", job.Name, err))
	}
	b := block{job.Shard, job.First, job.Count, job.Long}
	working := job.Phase == phaseWork
	if working && job.Attempt == 1 && s.whole(b) {
		return out, errBlock
	}
	for i := range job.Items() {
		if working {
			if err := sleep(ctx, s.length(b)/time.Duration(b.count)); err != nil {
				return out, err
			}
		}
		if f := s.fault(job.Shard, i); working && f.times >= job.Attempt {
			fail := myrmidon.AsFailure(errItem)
			fail.Permanent = f.permanent
			out.Items = append(out.Items, myrmidon.ItemResult{Index: i, Error: fail})
			continue
		}
		content := s.content(job.Phase, job.Shard, i)
		if err := h.put(ctx, s.name(job.Phase, job.Shard, i), content); err != nil {
			return out, err
		}
		out.Items = append(out.Items, myrmidon.ItemResult{Index: i, Name: s.name(job.Phase, job.Shard, i), Bytes: int64(len(content))})
	}
	if !working {
		out.Output, err = json.Marshal(closing{job.First})
	}
	return out, err
}

// closing is the output of a job of the phase close.
type closing struct {
	Closed uint32 `json:"closed"`
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
