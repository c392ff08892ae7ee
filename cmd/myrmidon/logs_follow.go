package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/internal/logs"
	"myrmidon/internal/notify"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

const (
	// queueAgain is how long a message waits whose object could not be shipped for now.
	queueAgain = 30 * time.Second
	// remembered is how many objects are known as done, so that a notification that comes
	// again ships nothing.
	remembered = 100_000
	// lateNames is how much older an object's name may be than the object: one that came
	// later than that, a copy for instance, is not found. Folders of days before are not
	// listed.
	lateNames = 7 * 24 * time.Hour
	// tellFollow is how often a follower says how it is.
	tellFollow = time.Minute
)

// following is a process that ships objects as they come.
type following struct {
	*app
	f      *shipFlags
	spec   logs.Spec
	ships  *logs.Follower
	dir    string // of its state
	parked string // file for lines that were not delivered

	slots  chan struct{}
	work   sync.WaitGroup
	mu     sync.Mutex
	busy   map[string]chan struct{} // by name
	done   map[string]string        // ETags by name
	stored error                    // why what is parked could not be written
}

// followLogs ships what comes until a signal.
func (a *app) followLogs(ctx context.Context, f shipFlags, source string) error {
	if a.nats.url != "" {
		return usage(errors.New("--follow works in this process: leave --nats away"))
	}
	queue := strings.HasPrefix(source, "sqs://")
	var spec logs.Spec
	var err error
	if queue {
		spec.Address = logs.Address{Source: source, Base: bare(source)}
		spec.Filter, err = f.filter()
		if err == nil {
			err = f.sink(&spec)
		}
	} else {
		spec, err = f.spec(ctx, source)
		if err == nil && spec.Single {
			err = usage(fmt.Errorf("%s is one object: --follow needs a prefix or a queue", source))
		}
	}
	if err != nil {
		return err
	}
	n := &following{app: a, f: &f, spec: spec, slots: make(chan struct{}, a.slots), busy: make(map[string]chan struct{}), done: make(map[string]string)}
	if err := n.open(source); err != nil {
		return err
	}
	// The first signal lets what is under way end, the second cuts it off.
	taking, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	working, cut := context.WithCancel(ctx)
	defer cut()
	var watch sync.WaitGroup
	watch.Go(func() { n.watch(taking) })
	context.AfterFunc(taking, func() {
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		select {
		case <-again:
			cut()
		case <-working.Done():
		}
	})
	if queue {
		err = n.queue(taking, working, source)
	} else {
		err = n.poll(taking, working)
	}
	n.work.Wait()
	stop()
	watch.Wait()
	return n.end(err)
}

// open prepares the state's folder and the sink.
func (n *following) open(source string) error {
	s, err := n.state()
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(source + "\x00" + n.spec.Sink))
	n.dir = filepath.Join(s.Dir(), "follow", hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	if n.parked = n.f.parkedTo; n.parked == "" {
		n.parked = filepath.Join(n.dir, "parked.jsonl")
	}
	cfg := n.logsConfig()
	cfg.Checkpoints = folderCheckpoints(n.dir)
	n.ships, err = cfg.NewFollower(n.spec)
	return err
}

// end prints the summary.
func (n *following) end(err error) error {
	sum, closeErr := n.ships.Close()
	sum.Destination = bare(n.spec.Sink)
	err = errors.Join(err, closeErr, n.stored, sum.Lines.Check())
	out := n.stdout
	if n.spec.Sink == "-" {
		out = n.stderr
	}
	data, jsonErr := json.Marshal(sum)
	fmt.Fprintln(out, string(data))
	if err = errors.Join(err, jsonErr); err != nil {
		return err
	}
	if sum.Objects.Failed > 0 {
		return &exitError{exitPartial, fmt.Errorf("not everything was delivered: %s", n.parked)}
	}
	return nil
}

// watch says how it goes, and when no line comes any more.
func (n *following) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told, quiet := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Since(told) > tellFollow && !n.quiet {
			told = time.Now()
			l := n.ships.Lines()
			fmt.Fprintf(n.screen, "myrmidon: %d lines, %d acked, %d not parsed, %d refused\n", l.Encountered, l.Acked, l.Unparsed, l.Failed)
		}
		is := n.f.expect > 0 && n.ships.Quiet() > n.f.expect
		if is != quiet {
			quiet = is
			n.tellQuiet(ctx, is)
		}
	}
}

// tellQuiet says that no line comes any more, or that lines come again.
func (n *following) tellQuiet(ctx context.Context, is bool) {
	what := "lines come again"
	if is {
		what = fmt.Sprintf("no line has come for %v", n.f.expect)
	}
	n.log.Warn(what, "source", n.spec.Base)
	if n.f.webhook == "" {
		return
	}
	body, err := json.Marshal(map[string]any{"source": n.spec.Base, "quiet": is, "text": "myrmidon: " + n.spec.Base + ": " + what})
	if err != nil {
		return
	}
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.f.webhook, bytes.NewReader(body))
	if err == nil {
		req.Header.Set("Content-Type", "application/json")
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err == nil {
			err = resp.Body.Close()
		}
	}
	if err != nil {
		n.log.Warn("the webhook was not reached", "err", err)
	}
}

// one ships an object, unless it is done, and parks what is left of it. Two at a time of
// one name are one after the other.
func (n *following) one(ctx context.Context, from logs.Address, key, etag string) error {
	name := from.Name(key)
	for {
		n.mu.Lock()
		other, busy := n.busy[name]
		if !busy {
			if etag != "" && n.done[name] == etag {
				n.mu.Unlock()
				return nil
			}
			n.busy[name] = make(chan struct{})
			n.mu.Unlock()
			break
		}
		n.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	rejects, found, err := n.ships.Ship(ctx, from, key)
	if err == nil {
		err = n.park(rejects)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.busy[name])
	delete(n.busy, name)
	if err == nil {
		if len(n.done) >= remembered {
			clear(n.done)
		}
		n.done[name] = found
	}
	return err
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

// queue ships what a queue's messages tell of.
func (n *following) queue(taking, working context.Context, source string) error {
	q, err := notify.NewQueue(taking, source)
	if err != nil {
		return usage(err)
	}
	for pause := time.Second; taking.Err() == nil; {
		select {
		case n.slots <- struct{}{}: // messages are received for those who can work on them
			<-n.slots
		case <-taking.Done():
			return nil
		}
		messages, err := q.Receive(taking, cap(n.slots)-len(n.slots))
		if taking.Err() != nil && len(messages) == 0 {
			return nil
		}
		if err != nil {
			if myrmidon.IsPermanent(err) {
				return err
			}
			n.log.Warn("the queue does not answer; trying on", "err", err)
			select {
			case <-time.After(pause):
			case <-taking.Done():
			}
			pause = min(2*pause, time.Minute)
			continue
		}
		pause = time.Second
		for _, m := range messages {
			n.slots <- struct{}{}
			n.work.Go(func() {
				defer func() { <-n.slots }()
				n.message(working, q, m)
			})
		}
	}
	return nil
}

// message ships the objects of a message, and deletes it when all are done. One that is no
// notification stays in the queue, for its redrive policy.
func (n *following) message(ctx context.Context, q *notify.Queue, m notify.Message) {
	stop := q.Keep(ctx, m, func(err error) { n.log.Warn("a message could not be kept", "message", m.ID, "err", err) })
	defer stop()
	objects, err := notify.Parse(m.Body)
	if err != nil {
		n.log.Warn("a message is left in the queue", "message", m.ID, "err", err)
		return
	}
	for _, o := range objects {
		from := logs.Address{Source: "s3://" + o.Bucket, Base: "s3://" + o.Bucket}
		if !logs.IsLog(o.Key) {
			continue
		}
		if err = n.one(ctx, from, o.Key, strings.Trim(o.ETag, `"`)); err != nil {
			break
		}
	}
	stop()
	after := context.WithoutCancel(ctx)
	if err != nil {
		n.log.Warn("an object is tried again", "message", m.ID, "err", err)
		if err := q.Hide(after, m, queueAgain); err != nil {
			n.log.Warn("a message could not be given back", "message", m.ID, "err", err)
		}
		return
	}
	if err := q.Delete(after, m); err != nil {
		n.log.Warn("a message could not be deleted and comes again", "message", m.ID, "err", err)
	}
}

// poll ships what comes below a prefix.
func (n *following) poll(taking, working context.Context) error {
	store, err := wire.Bucket(n.spec.Source)
	if err != nil {
		return err
	}
	file := filepath.Join(n.dir, "seen.json")
	seen := new(notify.Seen)
	if data, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(data, seen); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	start := n.spec.Filter.Since
	if start.IsZero() {
		start = time.Now().Add(-time.Hour)
	}
	var mu sync.Mutex
	under := make(map[string]object.Info) // way
	finish := func(o object.Info, err error) {
		mu.Lock()
		defer mu.Unlock()
		delete(under, o.Key)
		if err != nil {
			n.log.Warn("an object is tried again", "object", o.Key, "err", err)
			return
		}
		var pending time.Time
		for _, u := range under {
			if pending.IsZero() || u.Modified.Before(pending) {
				pending = u.Modified
			}
		}
		seen.Finish(o, pending)
		data, err := json.Marshal(seen)
		if err == nil {
			err = replaceFile(file, data)
		}
		if err != nil {
			n.log.Warn("what is done could not be remembered", "err", err)
		}
	}
	return notify.Poll(taking, n.f.every, func(ctx context.Context) error {
		filter := logs.Filter{Since: seen.After(start).Add(-lateNames)}
		err := logs.List(ctx, store, filter, func(o object.Info) error {
			mu.Lock()
			_, busy := under[o.Key]
			fresh := !busy && seen.New(o, start)
			if fresh {
				under[o.Key] = o
			}
			mu.Unlock()
			if !fresh {
				return nil
			}
			select {
			case n.slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			n.work.Go(func() {
				defer func() { <-n.slots }()
				finish(o, n.one(working, n.spec.Address, o.Key, ""))
			})
			return nil
		})
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if myrmidon.IsPermanent(err) {
			return err
		}
		n.log.Warn("the prefix could not be listed; trying on", "err", err)
		return nil
	})
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
