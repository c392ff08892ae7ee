package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"myrmidon/internal/logs"
	"myrmidon/internal/notify"
)

// following is a process that ships objects as they come.
//
//	sources ── objects ──► one ──► Follower ──► sink
//	   ▲                    │
//	   └──── done, again ◄──┘       watch: status, --expect
type following struct {
	*app
	f       *shipFlags
	spec    logs.Spec
	ships   *logs.Follower
	dir     string // of its state
	parked  string // file for lines that were not delivered
	sources []*logFeed
	done    notify.Done

	mu     sync.Mutex
	stored error // why what is parked could not be written
	status error // why the status file could not be written
}

// followLogs ships what comes until a signal.
func (a *app) followLogs(ctx context.Context, f shipFlags, in []string) error {
	if a.nats.url != "" {
		return usage(errors.New("--follow works in this process: leave --nats away"))
	}
	if err := f.checkFollow(); err != nil {
		return err
	}
	if err := enoughFiles(shipFiles(a.slots, len(in), f.to)+webhookFiles(in), "logs ship --follow"); err != nil {
		return err
	}
	n := &following{app: a, f: &f}
	var err error
	if n.spec.Filter, err = f.filter(); err != nil {
		return err
	}
	n.spec.Address = logs.Address{Source: in[0], Base: bare(in[0])}
	if err := f.sink(&n.spec); err != nil {
		return err
	}
	if n.sources, err = f.sources(ctx, in); err != nil {
		return err
	}
	for _, source := range n.sources {
		if err := apart(source.address, n.spec.Sink); err != nil {
			return err
		}
	}
	signalled, working, stop := untilSignals(ctx)
	defer stop()
	if err := n.open(working); err != nil {
		return err
	}
	n.hasBegun()
	taking, end := context.WithCancelCause(signalled)
	defer end(nil)
	var watch, feeds sync.WaitGroup
	watch.Go(func() { n.watch(taking) })
	watch.Go(func() { n.alarm(taking) })
	for _, s := range n.sources {
		feeds.Go(func() {
			s.feed.Run(taking, working, func(ctx context.Context, o notify.Object) error { return n.one(ctx, s, o) },
				func(err error) { n.failed(s, err, end) })
		})
	}
	feeds.Wait()
	end(nil)
	watch.Wait()
	if err = context.Cause(taking); signalled.Err() != nil || errors.Is(err, context.Canceled) {
		err = nil
	}
	return n.end(err)
}

// open opens the sink, the sources and the folder of what is known of them: its checkpoints are
// those of a sink, whichever sources it is filled from.
func (n *following) open(ctx context.Context) error {
	s, err := n.state()
	if err != nil {
		return err
	}
	n.dir = filepath.Join(s.Dir(), "follow", shortHash(n.spec.Sink))
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	if n.parked = n.f.parkedTo; n.parked == "" {
		n.parked = filepath.Join(n.dir, "parked.jsonl")
	}
	cfg := n.logsConfig()
	cfg.Checkpoints = folderCheckpoints(n.dir)
	if n.ships, err = cfg.NewFollower(n.spec); err != nil {
		return err
	}
	feeds := notify.Config{Slots: make(chan struct{}, n.slots), Log: n.log}
	for _, s := range n.sources {
		if err := n.openSource(ctx, feeds, s); err != nil {
			_, closeErr := n.ships.Close()
			return errors.Join(err, closeErr)
		}
	}
	for _, left := range notify.LeftIn(n.events()) {
		fmt.Fprintf(n.screen, "myrmidon: %s of %s left here, which is not followed now\n", plural(left.Events, "event"), plain(left.Address))
	}
	return nil
}

// failed says that a source cannot be followed, once until it can be again, and ends all if
// none can be.
func (n *following) failed(s *logFeed, err error, end context.CancelCauseFunc) {
	if feeds := n.feeds(); notify.Hopeless(feeds) {
		var all []error
		for i, f := range feeds {
			all = append(all, fmt.Errorf("%s: %w", n.sources[i].name, f.Stats().Failing))
		}
		end(errors.Join(all...))
		return
	}
	if !s.failing.Swap(true) {
		n.complain(fmt.Errorf("%s cannot be followed for now; trying on: %w", s.name, err))
	}
}

func (n *following) feeds() (out []*notify.Feed) {
	for _, s := range n.sources {
		out = append(out, s.feed)
	}
	return out
}

// end prints the summary.
func (n *following) end(err error) error {
	_, closeErr := n.ships.Close()
	sum := n.summary()
	n.mu.Lock()
	err = errors.Join(err, closeErr, n.stored, sum.Check())
	n.mu.Unlock()
	out := n.stdout
	if n.spec.Sink == "-" {
		out = n.stderr
	}
	data, jsonErr := json.Marshal(sum)
	fmt.Fprintln(out, string(data))
	n.writeStatus(sum, "ended")
	if err = errors.Join(err, jsonErr, n.status); err != nil {
		return err
	}
	if sum.Objects.Failed > 0 {
		return &exitError{exitPartial, fmt.Errorf("not everything was delivered: %s", n.parked)}
	}
	return nil
}

// one ships an object, unless it is done, and parks what is left of it.
func (n *following) one(ctx context.Context, s *logFeed, o notify.Object) error {
	from := s.of(o)
	if !logs.IsLog(o.Key) {
		return nil
	}
	return n.done.Once(ctx, from.Name(o.Key), o, func() (string, error) {
		s.count.Begin()
		shipped, err := n.ships.Ship(ctx, from, o.Key)
		s.count.End(shipped, err)
		if err == nil {
			err = n.park(shipped.Rejects)
		}
		return shipped.ETag, err
	})
}

// of is where an object is that a source tells of.
func (s *logFeed) of(o notify.Object) logs.Address {
	if o.Bucket == "" {
		return s.address
	}
	return logs.Address{Source: "s3://" + o.Bucket, Base: "s3://" + o.Bucket}
}

// giveUp parks an object that could not be shipped for a day.
func (n *following) giveUp(ctx context.Context, s *logFeed, o notify.Object, why error) error {
	given, err := n.ships.GiveUp(ctx, s.of(o), o.Key, why, n.park)
	if err != nil {
		return err
	}
	s.count.Begin()
	s.count.End(given, nil)
	return nil
}

// park appends lines that were not delivered to a file, before anybody hears that their
// object is done.
func (n *following) park(rejects []logs.Reject) error {
	if len(rejects) == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, r := range rejects {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(n.parked, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(b.Bytes())
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		n.stored = fmt.Errorf("park what was not delivered: %w", err)
	}
	return err
}

// folderCheckpoints keeps checkpoints in a folder, whatever the run.
type folderCheckpoints string

// Load implements [logs.Checkpoints].
func (d folderCheckpoints) Load(_ context.Context, _, _, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), name))
}

// Save implements [logs.Checkpoints].
func (d folderCheckpoints) Save(_ context.Context, _, _, name string, data []byte) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	return replaceFile(filepath.Join(string(d), name), data)
}

// Forget implements [logs.Checkpoints].
func (d folderCheckpoints) Forget(_ context.Context, _, _, name string) error {
	if err := os.Remove(filepath.Join(string(d), name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
