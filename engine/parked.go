package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"myrmidon"
)

// Parked is what could not be done after its attempts, or never can be: a job that
// holds only its failed items, or the plan of a shard.
type Parked struct {
	// ID names it within its run: "<phase>-<shard>-<first item>-<epoch>", "plan" in place
	// of the item for a plan.
	ID     string           `json:"id"`
	Job    myrmidon.Job     `json:"job"`
	Reason myrmidon.Failure `json:"reason"`
	Time   time.Time        `json:"time"`
	// Items are those of the job's items that the handler told apart, in its order: each with
	// its own name and reason, where Reason is the weightiest of all. What is beyond
	// maxParkedItems is left out, notes first. Reports hold the items' evidence instead.
	Items []ParkedItem `json:"items,omitempty"`
}

// ParkedItem is an item of a parked job.
type ParkedItem struct {
	Index  uint32           `json:"index"`
	Name   string           `json:"name,omitempty"`
	Reason myrmidon.Failure `json:"reason"`
	Note   json.RawMessage  `json:"note,omitempty"` // the handler's: its workload knows the shape
}

// maxParkedItems bounds the items of an entry, in bytes of JSON: it also holds the job's spec
// and its reason, and has to fit a message.
const maxParkedItems = 256 << 10

// parkedItems returns what a handler said of the items that are parked, which ascend.
func parkedItems(said []myrmidon.ItemResult, parked []uint32) (out []ParkedItem) {
	room := maxParkedItems
	for _, it := range said {
		if _, found := slices.BinarySearch(parked, it.Index); !found || it.Error == nil {
			continue
		}
		p := ParkedItem{Index: it.Index, Name: it.Name, Reason: *it.Error, Note: it.Note}
		data, err := json.Marshal(p)
		if err != nil || len(data) > room {
			p.Note = nil // no JSON, or too long
			if data, err = json.Marshal(p); err != nil || len(data) > room {
				continue
			}
		}
		room -= len(data)
		out = append(out, p)
	}
	return out
}

func parkedPrefix(run string) string { return "parked/" + run + "/" }

func park(ctx context.Context, b Blobs, p Parked) error {
	item := "plan"
	if !strings.HasSuffix(p.Job.Kind, planSuffix) {
		for i := range p.Job.Items() {
			item = fmt.Sprint(i)
			break
		}
	}
	p.ID = fmt.Sprintf("%d-%d-%s-%d", p.Job.Phase, p.Job.Shard, item, p.Job.Epoch)
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("engine: park %s: %w", p.ID, err)
	}
	return b.Set(ctx, parkedPrefix(p.Job.Run)+p.ID, data)
}

// listParked returns what is parked of a run, in order of ID.
func listParked(ctx context.Context, b Blobs, run string) ([]Parked, error) {
	var out []Parked
	err := b.Each(ctx, parkedPrefix(run), func(key string, value []byte) error {
		var p Parked
		if err := json.Unmarshal(value, &p); err != nil {
			return fmt.Errorf("engine: parked entry %s: %w", key, err)
		}
		out = append(out, p)
		return nil
	})
	slices.SortFunc(out, func(a, b Parked) int { return strings.Compare(a.ID, b.ID) })
	return out, err
}

// Retry gives parked jobs of a run under way another try: those with the given IDs, or
// all without any. It returns how many jobs it stored.
//
// The new jobs and the event that takes their failures back are stored together, so that
// no item is without both. An entry that is left behind by a crash after that is ignored
// by the next retry, since its items are no longer failed.
func (r *Run) Retry(ids ...string) (int, error) {
	ctx := context.Background()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending {
		return 0, myrmidon.WithHint(fmt.Errorf("run %s is ending", r.info.ID), "try again in a second")
	}
	all, err := r.chosen(ctx, ids)
	if err != nil {
		return 0, err
	}
	epoch := r.tracker.epoch + 1
	stored := 0
	for batch := range retryBatches(all) {
		event := Event{Type: EventRetried, Run: r.info.ID, Time: time.Now().UTC(), Epoch: epoch, Nonce: rand.Uint64()}
		var jobs []myrmidon.Job
		var taken []string
		for _, p := range batch {
			j := p.Job
			if !r.tracker.refail(&j) {
				continue // its event is on its way, or its items are done: see stillParked
			}
			taken = append(taken, parkedPrefix(r.info.ID)+p.ID)
			j.Epoch, j.Attempt, j.Continued = epoch, 1, 0
			jobs = append(jobs, j)
			j.Spec = nil
			event.Jobs = append(event.Jobs, j)
		}
		if len(jobs) == 0 {
			continue
		}
		if err := r.backend.Commit(ctx, Batch{Jobs: jobs, Events: []Event{event}}); err != nil {
			return stored, err
		}
		if err := r.tracker.apply(0, event); err != nil {
			return stored, err
		}
		stored += len(jobs)
		if err := r.backend.Unset(ctx, taken...); err != nil {
			return stored, err
		}
	}
	r.wake()
	return stored, nil
}

// retryBatches yields the entries in batches whose event fits a message: it names each
// item that is tried again.
func retryBatches(all []Parked) iter.Seq[[]Parked] {
	return func(yield func([]Parked) bool) {
		from, size := 0, 0
		for i, p := range all {
			n := 200 + 6*len(p.Job.Name) + 11*len(p.Job.Only) // escaped at worst
			if i > from && (size+n > MaxMessage/2 || i-from == MaxSliceJobs) {
				if !yield(all[from:i]) {
					return
				}
				from, size = i, 0
			}
			size += n
		}
		if from < len(all) {
			yield(all[from:])
		}
	}
}

// chosen returns the parked entries with these IDs, or all without any. One that is not
// there is an error that names it.
func (r *Run) chosen(ctx context.Context, ids []string) ([]Parked, error) {
	all, err := listParked(ctx, r.backend, r.info.ID)
	if err != nil || len(ids) == 0 {
		return all, err
	}
	var out []Parked
	for _, id := range ids {
		i := slices.IndexFunc(all, func(p Parked) bool { return p.ID == id })
		if i < 0 {
			return nil, myrmidon.WithHint(fmt.Errorf("run %s has nothing parked as %s", r.info.ID, id), "myrmidon parked list "+r.info.ID+" shows what is parked")
		}
		out = append(out, all[i])
	}
	return out, nil
}

// Parked lists what is parked of a run under way.
func (r *Run) Parked() ([]Parked, error) {
	return listParked(context.Background(), r.backend, r.info.ID)
}

// Drop forgets parked entries of a run under way: those with the given IDs, or all
// without any. Their items stay failed in the report.
func (r *Run) Drop(ids ...string) (int, error) {
	ctx := context.Background()
	all, err := r.chosen(ctx, ids)
	if err != nil {
		return 0, err
	}
	keys := make([]string, len(all))
	for i, p := range all {
		keys[i] = parkedPrefix(r.info.ID) + p.ID
	}
	return len(all), r.backend.Unset(ctx, keys...)
}

// stillParked lists what is parked and forgets entries whose items are done: those of a
// job whose worker died after it had parked them and before its event was stored, and of a
// retry that died before it removed them.
func (r *Run) stillParked(ctx context.Context) ([]Parked, error) {
	all, err := listParked(ctx, r.backend, r.info.ID)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var left []Parked
	var done []string
	for _, p := range all {
		p.Items = nil // see Parked: a report of a million failures holds them elsewhere
		if r.tracker.refail(&p.Job) {
			left = append(left, p)
			continue
		}
		done = append(done, parkedPrefix(r.info.ID)+p.ID)
	}
	return left, r.backend.Unset(ctx, done...)
}

// ParkedJobs are the parked jobs of a run that has no owner.
type ParkedJobs struct {
	run   *Run // not carried: only its backend, home and name are used
	close func() error
}

// OpenParked opens the parked jobs of a run whose lock the caller holds. A run whose
// queue is gone has none. open is not called for a run of a fleet.
func OpenParked(ctx context.Context, home Home, open func(ctx context.Context, dir string) (Backend, error)) (*ParkedJobs, error) {
	info, err := home.Info()
	if err != nil {
		return nil, err
	}
	p := &ParkedJobs{run: &Run{info: info, home: home}, close: func() error { return nil }}
	switch h := home.(type) {
	case *FleetRun:
		p.run.backend = h.fleet
	case *RunDir:
		if _, err := os.Stat(h.Path("queue")); errors.Is(err, fs.ErrNotExist) {
			p.run.backend = NewMemory()
		} else if p.run.backend, err = open(ctx, h.Path("queue")); err != nil {
			return nil, err
		}
		p.close = p.run.backend.Close
	}
	return p, nil
}

// List returns them, in order of ID.
func (p *ParkedJobs) List() ([]Parked, error) { return p.run.Parked() }

// Drop forgets those with the given IDs, or all without any.
func (p *ParkedJobs) Drop(ids ...string) (int, error) {
	n, err := p.run.Drop(ids...)
	if err != nil {
		return n, err
	}
	left, err := p.run.Parked()
	if err != nil {
		return n, err
	}
	p.run.info.Parked = len(left)
	return n, p.run.home.save(p.run.info)
}

// Close releases the queue.
func (p *ParkedJobs) Close() error { return p.close() }
