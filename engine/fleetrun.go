package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"myrmidon"
)

// LeaseTime is how long a run of a fleet keeps an owner that is not heard of. An owner
// renews its lease each second.
const LeaseTime = 10 * time.Second

// Order is what a fleet's workers need to know of a run. It is there while the run is
// under way.
type Order struct {
	Run      string          `json:"run"`
	Workload string          `json:"workload"`
	Version  uint32          `json:"version"`
	Spec     json.RawMessage `json:"spec"`
	Term     uint64          `json:"term"` // of the owner that wrote it
	Paused   bool            `json:"paused,omitempty"`
	Kinds    []string        `json:"paused_kinds,omitempty"`
	// Cancelled: what is under way ends, what is queued is dropped.
	Cancelled bool `json:"cancelled,omitempty"`
}

func runKey(id string) string   { return "run/" + id }
func orderKey(id string) string { return "order/" + id }
func ownTopic(id string) string { return "own." + id }

func reportPrefix(run string) string { return "report/" + run + "/" }
func itemsPrefix(run string) string  { return "items/" + run + "/" }

// FleetRuns are the runs of a fleet.
type FleetRuns struct {
	fleet Fleet
	me    Owner
}

// RunsOf returns the runs of a fleet.
func RunsOf(f Fleet) *FleetRuns { return &FleetRuns{f, thisProcess()} }

// FleetRun is a run of a fleet. One process owns it by a lease: its entry in the registry,
// which it replaces each second and only if nobody else has. An owner that was stopped,
// cut off or believed dead finds its next replacement refused, and ends.
type FleetRun struct {
	ID    string
	fleet Fleet
	me    Owner

	mu    sync.Mutex
	rev   uint64 // of our entry, while we own the run
	value []byte // of our entry
	prior *Info  // how the run stood when we locked it, until it is saved
	order []byte // as last stored
	oRev  uint64
}

func (f *FleetRuns) run(id string) *FleetRun { return &FleetRun{ID: id, fleet: f.fleet, me: f.me} }

// Create implements Homes.
func (f *FleetRuns) Create(info Info) (Home, error) {
	r := f.run(ulid.Make().String())
	info.ID, info.Created, info.State, info.Owner, info.Term = r.ID, time.Now().UTC(), myrmidon.Planning, f.me, 1
	info.Durability = f.fleet.Durability()
	// The order first: a run that is taken over has one.
	r.mu.Lock()
	err := r.saveOrder(info)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r, r.save(info)
}

// Find implements Homes.
func (f *FleetRuns) Find(prefix string) (Home, error) {
	entries, err := f.fleet.Entries(context.Background(), "run/")
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, strings.TrimPrefix(e.Key, "run/"))
	}
	switch id, found := findID(ids, prefix); found {
	case 1:
		return f.run(id), nil
	case 0:
		return nil, myrmidon.WithHint(fmt.Errorf("%w: %s at %s", ErrNoRun, prefix, f.fleet.Where()), "myrmidon runs --nats lists them")
	default:
		return nil, myrmidon.WithHint(fmt.Errorf("%d runs begin with %s", found, prefix), "give more of the ID")
	}
}

// List implements Homes.
func (f *FleetRuns) List() (infos []Info, problems []error, err error) {
	entries, err := f.fleet.Entries(context.Background(), "run/")
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		info, err := f.run(strings.TrimPrefix(e.Key, "run/")).decode(e)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		infos = append(infos, info)
	}
	return infos, problems, nil
}

// RunID implements Home.
func (r *FleetRun) RunID() string { return r.ID }

// Place implements Home.
func (r *FleetRun) Place() string { return r.fleet.Where() }

func (r *FleetRun) owner() Owner { return r.me }

func (r *FleetRun) decode(e Entry) (Info, error) {
	var info Info
	if err := json.Unmarshal(e.Value, &info); err != nil || info.ID != r.ID {
		return info, myrmidon.WithHint(fmt.Errorf("the registry at %s has no run under the key of run %s: %v", r.fleet.Where(), r.ID, err),
			"another program has written it; myrmidon runs prune does not touch it")
	}
	info.Live = !info.State.Ended() && !info.Left && !info.Free && e.Age < LeaseTime
	return info, nil
}

// Info implements Home.
func (r *FleetRun) Info() (Info, error) {
	info, _, err := r.entry()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rev > 0 {
		info.Live = true
	}
	return info, err
}

func (r *FleetRun) entry() (Info, Entry, error) {
	e, err := r.fleet.Entry(context.Background(), runKey(r.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, e, fmt.Errorf("%w: %s at %s", ErrNoRun, r.ID, r.fleet.Where())
	}
	if err != nil {
		return Info{}, e, err
	}
	info, err := r.decode(e)
	return info, e, err
}

// Lock takes the run's lease if its owner has given it up, or was not heard of for
// LeaseTime.
func (r *FleetRun) Lock() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rev > 0 {
		return nil
	}
	info, e, err := r.entry()
	if err != nil {
		return err
	}
	if info.Live {
		return r.owned(info)
	}
	prior := info
	info.Owner = r.me
	info.Term++
	info.Left, info.Free = false, false
	data, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("engine: run %s: %w", r.ID, err)
	}
	rev, err := r.fleet.Put(context.Background(), runKey(r.ID), data, e.Revision)
	if errors.Is(err, ErrConflict) {
		if now, _, err := r.entry(); err == nil {
			info = now
		}
		return r.owned(info)
	}
	if err != nil {
		return err
	}
	r.rev, r.value, r.prior = rev, data, &prior
	o, err := r.fleet.Entry(context.Background(), orderKey(r.ID))
	switch {
	case err == nil:
		r.order, r.oRev = o.Value, o.Revision
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

func (r *FleetRun) owned(info Info) error {
	return myrmidon.WithHint(fmt.Errorf("run %s: %w: %s", r.ID, ErrOwned, info.Owner),
		"watch it with myrmidon runs show --nats, or end it with myrmidon runs cancel --nats")
}

// Unlock gives the run up: another process may take it at once.
func (r *FleetRun) Unlock() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	rev := r.rev
	r.rev = 0
	if rev == 0 {
		return nil
	}
	info, e, err := r.entry()
	if err != nil || e.Revision != rev || info.State.Ended() || info.Left || info.Free {
		return nil // somebody else has it, or nobody needs it
	}
	info.Left = true
	if p := r.prior; p != nil { // it was only looked at
		info.Left, info.Free = p.Left, !p.Left
	}
	data, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("engine: run %s: %w", r.ID, err)
	}
	if _, err := r.fleet.Put(context.Background(), runKey(r.ID), data, rev); err != nil && !errors.Is(err, ErrConflict) {
		return err
	}
	return nil
}

// drop ends the ownership without a word: the lease ends by itself, and then another
// process may carry the run.
func (r *FleetRun) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rev = 0
}

// confirm stores the run's entry once more as it is, which renews the lease. The error
// wraps ErrOwned if another process has taken the run.
func (r *FleetRun) confirm() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put(r.value)
}

// put replaces the run's entry; r.mu is held.
func (r *FleetRun) put(data []byte) error {
	rev, err := r.fleet.Put(context.Background(), runKey(r.ID), data, r.rev)
	if errors.Is(err, ErrConflict) {
		r.rev = 0
		who := "another process"
		if now, _, err := r.entry(); err == nil {
			who = now.Owner.String()
		}
		return myrmidon.WithHint(fmt.Errorf("run %s was taken over: %w: %s", r.ID, ErrOwned, who),
			"this process was not heard of for a while; watch the run with myrmidon runs show --nats "+r.ID)
	}
	if err == nil {
		r.rev, r.value = rev, data
	}
	return err
}

// cancel tells the workers that the run is cancelled, before its end is written.
func (r *FleetRun) cancel(info Info) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	info.State = myrmidon.Cancelled
	return r.saveOrder(info)
}

// save replaces the run's entry, which renews the lease.
func (r *FleetRun) save(info Info) error {
	info.Updated = time.Now().UTC()
	data, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("engine: run %s: %w", r.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.put(data); err != nil {
		return err
	}
	r.prior = nil
	return r.saveOrder(info)
}

// saveOrder tells the workers, if there is something new; r.mu is held.
func (r *FleetRun) saveOrder(info Info) error {
	ctx := context.Background()
	if info.State.Ended() && info.State != myrmidon.Cancelled {
		if r.oRev == 0 {
			return nil
		}
		r.order, r.oRev = nil, 0
		return r.fleet.Forget(ctx, orderKey(r.ID))
	}
	data, err := json.Marshal(Order{
		Run: r.ID, Workload: info.Workload, Version: info.Version, Spec: info.Spec, Term: info.Term,
		Paused: info.Paused, Kinds: info.Kinds, Cancelled: info.State == myrmidon.Cancelled,
	})
	if err != nil {
		return fmt.Errorf("engine: run %s: %w", r.ID, err)
	}
	if bytes.Equal(data, r.order) {
		return nil
	}
	for {
		rev, err := r.fleet.Put(ctx, orderKey(r.ID), data, r.oRev)
		if err == nil {
			r.order, r.oRev = data, rev
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		// A former owner wrote last; the lease, which we hold, decides.
		e, err := r.fleet.Entry(ctx, orderKey(r.ID))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.oRev = 0
		case err != nil:
			return err
		default:
			var there Order
			if json.Unmarshal(e.Value, &there) == nil && there.Term > info.Term {
				return fmt.Errorf("run %s was taken over: %w", r.ID, ErrOwned)
			}
			r.oRev = e.Revision
		}
	}
}

// free forgets what only a retry would need, and the order.
func (r *FleetRun) free() error {
	ctx := context.Background()
	if err := r.fleet.Forget(ctx, orderKey(r.ID)); err != nil {
		return err
	}
	prefixes := []string{snapshotPrefix(r.ID), startsPrefix(r.ID), parkedPrefix(r.ID)}
	if info, _, err := r.entry(); err == nil && strings.HasSuffix(info.Blobs, "/") {
		prefixes = append(prefixes, info.Blobs)
	}
	return r.unset(ctx, prefixes...)
}

func (r *FleetRun) unset(ctx context.Context, prefixes ...string) error {
	for _, p := range prefixes {
		keys, err := r.fleet.Keys(ctx, p)
		if err != nil {
			return err
		}
		if err := r.fleet.Unset(ctx, keys...); err != nil {
			return err
		}
	}
	return nil
}

// Abandon implements Home.
func (r *FleetRun) Abandon() error {
	info, err := abandoned(r)
	if err != nil {
		return err
	}
	if err := r.save(info); err != nil {
		return err
	}
	if err := r.fleet.Purge(context.Background(), r.ID, 0); err != nil {
		return err
	}
	return r.free()
}

// Remove implements Home.
func (r *FleetRun) Remove() error {
	ctx := context.Background()
	if err := r.fleet.Purge(ctx, r.ID, 0); err != nil {
		return err
	}
	if err := r.free(); err != nil {
		return err
	}
	if err := r.unset(ctx, reportPrefix(r.ID), itemsPrefix(r.ID)); err != nil {
		return err
	}
	r.drop()
	return r.fleet.Forget(ctx, runKey(r.ID))
}

// Control implements Home.
func (r *FleetRun) Control() Control {
	return Control{r.ID, func(ctx context.Context, in controlRequest) (out controlReply, err error) {
		if in.Do == doParked {
			// More than fits an answer; it is on the broker anyway.
			if info, err := r.Info(); err != nil || !info.Live {
				return out, errors.Join(ErrNoOwner, err)
			}
			out.Parked, err = listParked(ctx, r.fleet, r.ID)
			return out, err
		}
		data, err := json.Marshal(in)
		if err != nil {
			return out, err
		}
		within, cancel := context.WithTimeout(ctx, LeaseTime/2)
		defer cancel()
		answer, err := r.fleet.Ask(within, ownTopic(r.ID), data)
		if errors.Is(err, ErrNobody) {
			return out, ErrNoOwner
		}
		if err != nil && within.Err() != nil && ctx.Err() == nil {
			// Its connection may outlive it: a machine that lost its power says no goodbye.
			if info, _, ierr := r.entry(); ierr == nil && !info.Live {
				return out, ErrNoOwner
			}
		}
		if err != nil {
			return out, err
		}
		return out, json.Unmarshal(answer, &out)
	}}
}

// stops are what ends listening.
type stops []func()

func (s stops) close() {
	for _, stop := range s {
		stop()
	}
}

// listen answers questions, and hears of the jobs under way.
func (r *FleetRun) listen(run *Run) (closer, error) {
	var out stops
	stop, err := r.fleet.Answer(ownTopic(r.ID), func(data []byte) []byte {
		var in controlRequest
		var reply controlReply
		if err := json.Unmarshal(data, &in); err != nil {
			reply.Error = myrmidon.AsFailure(fmt.Errorf("control: %w", err))
		} else {
			reply = run.answer(in)
		}
		answer, err := json.Marshal(reply)
		if err != nil {
			run.log.Error("control: encode an answer", "err", err)
		}
		return answer
	})
	if err != nil {
		return nil, err
	}
	out = append(out, stop)
	stop, err = r.fleet.Answer(doingTopic(r.ID), func(data []byte) []byte {
		var now []doing
		if err := json.Unmarshal(data, &now); err != nil {
			run.log.Warn("what a worker told is not understood", "err", err)
			return nil
		}
		run.heard(now)
		return nil
	})
	if err != nil {
		out.close()
		return nil, err
	}
	return append(out, stop), nil
}
