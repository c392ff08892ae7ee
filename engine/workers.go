package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"myrmidon"
)

// WorkerInfo is what a worker says of itself in the registry.
type WorkerInfo struct {
	ID        string    `json:"id"`
	Host      string    `json:"host"`
	PID       int       `json:"pid"`
	Version   string    `json:"version"`
	State     string    `json:"state"` // idle, busy or draining
	Slots     int       `json:"slots"`
	Busy      int       `json:"busy"`
	Priority  int       `json:"priority"`
	Workloads []string  `json:"workloads"` // "transcode/1": name and version of its specs
	Owns      []string  `json:"owns,omitempty"`
	Doing     []string  `json:"doing,omitempty"`
	Done      int64     `json:"done"` // jobs, since it started
	Started   time.Time `json:"started"`

	// Seen is how long ago it was heard of; it is found out when it is read.
	Seen time.Duration `json:"seen_ns,omitempty"`
}

// lostAfter is when a worker that is not heard of counts as lost.
const lostAfter = 15 * time.Second

// Standing is the state as people see it.
func (w WorkerInfo) Standing() string {
	if w.Seen > lostAfter {
		return "lost"
	}
	return w.State
}

// answer does what somebody asks of this worker.
func (w *Worker) answer(data []byte) []byte {
	var in workerRequest
	var out workerReply
	if err := json.Unmarshal(data, &in); err != nil {
		out.Error = myrmidon.AsFailure(fmt.Errorf("worker %s: %w", w.id, err))
	}
	if in.Drain {
		w.log.Info("asked to drain")
		w.Drain()
	}
	if in.Priority != nil && *in.Priority >= 0 && *in.Priority <= 9 {
		w.priority.Store(int64(*in.Priority))
		w.changes()
	}
	answer, err := json.Marshal(out)
	if err != nil {
		w.log.Error("encode an answer", "err", err)
	}
	return answer
}

type workerRequest struct {
	Drain    bool `json:"drain,omitempty"`
	Priority *int `json:"priority,omitempty"`
}

type workerReply struct {
	Error *myrmidon.Failure `json:"error,omitempty"`
}

// info is what the worker says of itself.
func (w *Worker) info() WorkerInfo {
	me := thisProcess()
	out := WorkerInfo{
		ID: w.id, Host: me.Host, PID: me.PID, Version: w.cfg.Version, State: "idle", Slots: w.cfg.Slots,
		Priority: int(w.priority.Load()), Done: w.done.Load(), Started: w.started,
	}
	for _, l := range w.cfg.Workloads {
		out.Workloads = append(out.Workloads, fmt.Sprintf("%s/%d", l.Name, l.Version))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	out.Busy = len(w.doing)
	for _, d := range w.doing {
		if len(out.Doing) < 16 {
			out.Doing = append(out.Doing, strings.TrimSpace(d.Job.Kind+" "+d.Job.Name))
		}
	}
	slices.Sort(out.Doing)
	for run := range w.owns {
		out.Owns = append(out.Owns, run)
	}
	slices.Sort(out.Owns)
	switch {
	case w.drain.Err() != nil:
		out.State = "draining"
	case out.Busy > 0:
		out.State = "busy"
	}
	return out
}

// hello keeps the worker's entry in the registry.
func (w *Worker) hello(ctx context.Context) {
	var rev uint64
	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	for {
		data, err := json.Marshal(w.info())
		if err == nil {
			rev, err = w.fleet.Put(ctx, workerKey(w.id), data, rev)
		}
		if errors.Is(err, ErrConflict) {
			rev = 0
			if e, eerr := w.fleet.Entry(ctx, workerKey(w.id)); eerr == nil {
				rev = e.Revision
			}
		} else if err != nil && ctx.Err() == nil {
			w.log.Warn("could not say that this worker is there", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-w.changed:
			// At most one change a second is told: jobs may be short.
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// Workers lists a fleet's workers, in order of host and process.
func Workers(ctx context.Context, f Fleet) ([]WorkerInfo, error) {
	entries, err := f.Entries(ctx, "worker/")
	if err != nil {
		return nil, err
	}
	var out []WorkerInfo
	for _, e := range entries {
		var w WorkerInfo
		if err := json.Unmarshal(e.Value, &w); err != nil {
			continue // not ours; it is gone in a minute
		}
		w.Seen = e.Age
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b WorkerInfo) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), a.PID-b.PID, strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

// AskWorker asks the worker whose ID begins with prefix to drain, or to change its
// priority, and returns its ID.
func AskWorker(ctx context.Context, f Fleet, prefix string, drain bool, priority *int) (id string, err error) {
	all, err := Workers(ctx, f)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, w := range all {
		ids = append(ids, w.ID)
	}
	id, found := findID(ids, prefix)
	if prefix == "latest" && len(all) > 0 {
		id = slices.MaxFunc(all, func(x, y WorkerInfo) int { return x.Started.Compare(y.Started) }).ID
	}
	switch {
	case found == 0:
		return "", myrmidon.WithHint(fmt.Errorf("no worker %s at %s", prefix, f.Where()), "myrmidon workers --nats lists them")
	case found > 1:
		return "", myrmidon.WithHint(fmt.Errorf("%d workers begin with %s", found, prefix), "give more of the ID")
	}
	data, err := json.Marshal(workerRequest{drain, priority})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	answer, err := f.Ask(ctx, workerTopic(id), data)
	if errors.Is(err, ErrNobody) {
		return "", myrmidon.WithHint(fmt.Errorf("worker %s does not answer", id), "it may have ended: myrmidon workers --nats shows when it was last seen")
	}
	if err != nil {
		return "", err
	}
	var out workerReply
	if err := json.Unmarshal(answer, &out); err != nil {
		return "", fmt.Errorf("worker %s: %w", id, err)
	}
	if out.Error != nil {
		return "", out.Error
	}
	return id, nil
}
