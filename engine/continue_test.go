package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"myrmidon"
)

// limited is a workload of one job of n items, whose handler is h.
func limited(t *testing.T, n uint32, h myrmidon.HandlerFunc) *bench {
	c := newCounting()
	b := newBench(t, c)
	b.cfg.Workload.Phases = b.cfg.Workload.Phases[:1]
	b.cfg.Workload.Planner = myrmidon.PlannerFunc(func(context.Context, myrmidon.Step) (myrmidon.Slice, error) {
		return myrmidon.Slice{Jobs: []myrmidon.Planned{{Kind: "count.item", Count: n}}, Done: true}, nil
	})
	b.cfg.Workload.Kinds = []myrmidon.Kind{{Name: "count.item", Handler: h, Limit: 300 * time.Millisecond}}
	return b
}

func TestAJobWhoseTimeIsOverGoesOnInAnother(t *testing.T) {
	calls := 0
	b := limited(t, 3, func(ctx context.Context, j myrmidon.Job) (res myrmidon.Result, err error) {
		if at, ok := ctx.Deadline(); !ok || time.Until(at) > 300*time.Millisecond {
			t.Errorf("the deadline is %v, %v", at, ok)
		}
		calls++
		for k := range j.Items() {
			it := myrmidon.ItemResult{Index: k}
			switch {
			case k == 1 && calls < 9:
				it.Error = myrmidon.AsFailure(myrmidon.Continue(errors.New("not yet")))
			case k == 2 && calls == 4: // a failure in between counts as one
				it.Error = myrmidon.AsFailure(errors.New("it failed"))
			case k == 2 && calls < 6:
				it.Error = myrmidon.AsFailure(myrmidon.Continue(errors.New("not yet")))
			}
			res.Items = append(res.Items, it)
		}
		return res, nil
	})
	began := time.Now()
	rep := wait(t, b.start(t), myrmidon.Succeeded)
	if calls != 9 || rep.Usage.Failures != 1 || rep.Usage.Jobs != 9 || time.Since(began) > 15*time.Second {
		t.Errorf("%d calls, %+v", calls, rep.Usage)
	}
	for _, it := range rep.Items {
		if want := map[uint32]uint32{0: 1, 1: 2, 2: 2}[it.Index]; it.Attempts != want || (it.LastError == "it failed") != (it.Index == 2) {
			t.Errorf("%+v, want %d attempts", it, want)
		}
	}
}

func TestAJobThatDoesNotStopInTimeFails(t *testing.T) {
	b := limited(t, 1, func(ctx context.Context, _ myrmidon.Job) (res myrmidon.Result, err error) {
		<-ctx.Done()
		return res, myrmidon.Permanent(ctx.Err())
	})
	rep := wait(t, b.start(t), myrmidon.Failed)
	if rep.Error == nil || rep.Error.Message != context.DeadlineExceeded.Error() {
		t.Errorf("%+v", rep.Error)
	}
}

func TestARunOfItemsThatAreDoneInPartIsPartial(t *testing.T) {
	for _, part := range []bool{false, true} {
		b := limited(t, 2, func(_ context.Context, j myrmidon.Job) (res myrmidon.Result, err error) {
			for k := range j.Items() {
				res.Items = append(res.Items, myrmidon.ItemResult{Index: k, Part: part && k == 1, Error: myrmidon.AsFailure(myrmidon.Permanent(errors.New("a bad line")))})
			}
			return res, nil
		})
		want := map[bool]myrmidon.State{false: myrmidon.Failed, true: myrmidon.Partial}[part]
		if rep := wait(t, b.start(t), want); rep.Counts.Failed != 2 || len(rep.Parked) != 1 {
			t.Errorf("%+v", rep.Counts)
		}
	}
}
