package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

// trial is one run under torture.
type trial struct {
	setting
	dir     string
	until   time.Duration // faults begin before this
	end     time.Duration // all are over
	strikes []strike
}

// outcome is what came of a trial.
type outcome struct {
	violations []string
	wall       time.Duration
	faults     [3]int // that struck, by kind
	repeats    int    // writes done again
	owners     uint64 // that the run had
	parked     int64
	left       uint64 // messages that are still on the broker
}

// newTrial draws a trial from its seed.
func newTrial(seed uint64, items int, namespaces bool, dir string) *trial {
	r := rand.New(rand.NewPCG(seed, 1))
	t := &trial{dir: dir}
	t.spec = spec{Tag: fmt.Sprintf("t%d", seed), Seed: seed, Items: items}
	t.workers, t.slots, t.namespaces, t.brokers = 3, 4, namespaces, 1
	if r.IntN(4) == 0 {
		t.brokers = 3
	}
	t.until = 5*time.Second + time.Duration(r.Int64N(int64(7*time.Second)))
	t.end = t.until + 4*time.Second
	if items < 2000 {
		t.until, t.end = 5*time.Second, 7*time.Second
	}
	t.strikes = schedule(r, t.victims(), t.until, t.end)
	if !namespaces {
		t.strikes = withoutBrokerCuts(t.strikes)
	}
	return t
}

// withoutBrokerCuts makes kills of the cuts of a broker: a broker without a namespace has
// no cable.
func withoutBrokerCuts(all []strike) []strike {
	for i, s := range all {
		if s.kind == cut && isBroker(s.victim) {
			all[i].kind = kill
		}
	}
	return all
}

// patience is how long a run may take when all faults are over.
const patience = 120 * time.Second

// run carries the trial out. The error is one of the machine, not a finding.
func (t *trial) run(ctx context.Context) (out outcome, err error) {
	began := time.Now()
	// A folder that is there holds the store of another run's broker.
	if err := os.Mkdir(t.dir, 0o755); err != nil {
		return out, myrmidon.WithHint(err, "name another folder with -keep")
	}
	if err := t.writeSchedule(); err != nil {
		return out, err
	}
	w, err := newWorld(ctx, t.dir, t.setting)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	// The observer comes first and makes what a fleet needs on the broker: how a new
	// cluster settles is not what is tested.
	watch, err := newObserver(ctx, w.url(), t.spec.Tag)
	if err != nil {
		return out, err
	}
	defer watch.close()
	if err := w.start(); err != nil {
		return out, err
	}
	limit, cancel := context.WithTimeout(ctx, t.end+patience)
	defer cancel()
	if err := watch.wait(limit, watch.there); err != nil {
		return out, errors.Join(fmt.Errorf("torture: the run was not made: %w", err), w.dump())
	}
	if err := t.torture(ctx, w, watch, &out); err != nil {
		return out, err
	}
	if err := watch.wait(limit, watch.ended); err != nil && ctx.Err() != nil {
		return out, err
	} else if err != nil {
		out.wall = time.Since(began)
		out.violations = append(out.violations, fmt.Sprintf("the run has not ended %v after the last fault", patience))
		out.violations = append(out.violations, w.unexpected(false)...)
		return out, w.dump()
	}
	out.violations, err = t.judge(ctx, w, watch, &out)
	if err == nil && len(out.violations) > 0 {
		err = w.dump()
	}
	out.wall = time.Since(began)
	return out, err
}

// torture lets the faults strike.
func (t *trial) torture(ctx context.Context, w *world, watch *observer, out *outcome) error {
	began := time.Now()
	struck := make(map[strike]bool)
	for _, s := range steps(t.strikes) {
		if err := sleep(ctx, s.at-time.Since(began)); err != nil {
			return err
		}
		select {
		case <-watch.ended:
			// What is left would strike nobody at work.
			if s.begin {
				continue
			}
		default:
		}
		if s.begin {
			hit, err := w.begin(s.strike)
			if err != nil {
				return err
			}
			if hit {
				struck[s.strike] = true
				out.faults[s.kind]++
			}
			continue
		}
		if struck[s.strike] {
			if err := w.finish(s.strike); err != nil {
				return err
			}
		}
	}
	return nil
}

// judge gathers the evidence and compares it with what must be.
func (t *trial) judge(ctx context.Context, w *world, watch *observer, out *outcome) ([]string, error) {
	ev := evidence{info: watch.info}
	home, err := engine.RunsOf(watch.fleet).Find(watch.info.ID)
	if err != nil {
		return nil, err
	}
	if ev.report, err = home.Report(); err != nil {
		return []string{err.Error()}, nil
	}
	lines, err := home.OpenItems()
	if err != nil {
		return []string{err.Error()}, nil
	}
	ev.items, err = readItems(lines)
	if err = errors.Join(err, lines.Close()); err != nil {
		return []string{err.Error()}, nil
	}
	wrong := w.unexpected(false)
	// Late writers may still be at work: they belong to the picture.
	if err := w.drain(30 * time.Second); err != nil {
		wrong = append(wrong, err.Error())
	}
	if len(wrong) == 0 {
		wrong = w.unexpected(true)
	}
	ev.effects, ev.closedAt = w.effects.seen()
	wrong = append(wrong, verify(t.spec, ev)...)
	if _, err := watch.fleet.Entry(ctx, "order/"+watch.info.ID); !errors.Is(err, fs.ErrNotExist) {
		wrong = append(wrong, fmt.Sprintf("the order of the run is still there: %v", err))
	}
	standing, err := watch.fleet.Standing(ctx)
	if err != nil {
		return wrong, err
	}
	out.left, out.repeats, out.owners, out.parked = standing.Messages, repeats(ev.effects), ev.info.Term, ev.info.Counts.Failed
	return wrong, nil
}

// writeSchedule says what is going to be done, for whoever reads the logs.
func (t *trial) writeSchedule() error {
	var b strings.Builder
	text, err := json.Marshal(t.spec)
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "run %s, %d brokers\n", text, t.brokers)
	for _, s := range t.strikes {
		fmt.Fprintln(&b, s)
	}
	return os.WriteFile(filepath.Join(t.dir, "faults.txt"), []byte(b.String()), 0o644)
}

// observer watches a run from outside.
type observer struct {
	fleet *jetstream.Backend
	there chan struct{} // closed when the run is there
	ended chan struct{} // closed when it has ended
	info  engine.Info   // to be read after ended
	stop  context.CancelFunc
	done  chan struct{}
}

func newObserver(ctx context.Context, url, tag string) (*observer, error) {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	fleet, err := role{Name: "observer", Broker: url}.connect(limit, slog.New(slog.DiscardHandler))
	if err == nil && fleet == nil {
		err = limit.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("torture: connect to the broker: %w", err)
	}
	o := &observer{fleet: fleet, there: make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{})}
	ctx, o.stop = context.WithCancel(ctx)
	go o.watch(ctx, tag)
	return o, nil
}

// watch looks every 200 ms. A broker that is struck does not answer for a while.
func (o *observer) watch(ctx context.Context, tag string) {
	defer close(o.done)
	runs := engine.RunsOf(o.fleet)
	found := false
	for ctx.Err() == nil {
		info, err := findRun(runs, tag)
		if err == nil && !found {
			found = true
			close(o.there)
		}
		if err == nil && info.State.Ended() {
			o.info = info
			close(o.ended)
			return
		}
		_ = sleep(ctx, 200*time.Millisecond) // ctx is looked at
	}
}

// wait waits for a channel to be closed.
func (o *observer) wait(ctx context.Context, what <-chan struct{}) error {
	select {
	case <-what:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the observer; its backend first, since what it asks for has no other end.
func (o *observer) close() {
	o.stop()
	if err := o.fleet.Close(); err != nil {
		fmt.Fprintf(os.Stderr, "torture: %v\n", err)
	}
	<-o.done
}
