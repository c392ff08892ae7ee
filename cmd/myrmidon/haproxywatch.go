package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/haproxy"
)

// refind is how often patterns, names and files of targets are looked at again.
const refind = 10 * time.Second

// poller polls a collector at even intervals.
type poller struct {
	pool      *pool
	collector *haproxy.Collector
	every     time.Duration
	complain  func(error)

	found time.Time
	said  string // the last complaint, which is not repeated
}

// poll polls once. It looks for targets again now and then; what cannot be found again
// leaves them as they are.
func (p *poller) poll(ctx context.Context) error {
	if time.Since(p.found) >= refind {
		if !p.found.IsZero() {
			p.lookAgain(ctx)
		}
		p.found = time.Now()
	}
	return p.collector.Poll(ctx)
}

func (p *poller) lookAgain(ctx context.Context) {
	listed := p.pool.listed
	if p.pool.flags.file != "" {
		var err error
		if listed, err = readTargets(p.pool.flags.file, p.pool.flags.groups); err != nil {
			p.sayOnce(fmt.Errorf("%w: the targets stay as they were", err))
			return
		}
	}
	next := pool{flags: p.pool.flags, args: p.pool.args, listed: listed}
	targets, err := next.find(ctx)
	if err == nil && len(next.missing) > 0 {
		// A name that does not resolve for a moment, or a socket that is being replaced, is
		// no reason to forget its processes.
		err = errors.Join(next.missing...)
	}
	if err == nil {
		err = p.collector.SetTargets(targets)
	}
	if err != nil {
		p.sayOnce(fmt.Errorf("%w: the targets stay as they were", err))
		return
	}
	p.said = ""
	*p.pool = next
}

func (p *poller) sayOnce(err error) {
	if ctx := err.Error(); ctx != p.said {
		p.said = ctx
		p.complain(err)
	}
}

// run polls until ctx ends, or after said that it has enough. A poll that reached nothing
// is after's to judge.
func (p *poller) run(ctx context.Context, after func(error) (more bool, err error)) error {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		err := p.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if more, err := after(err); err != nil || !more {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watchFlags are those of watch.
type watchFlags struct {
	haproxyFlags
	every  time.Duration
	to     string
	count  int
	events bool
}

func (a *app) watchCommand() *cobra.Command {
	var f watchFlags
	c := &cobra.Command{
		Use:   "watch TARGET...",
		Short: "Write rates, states and events as lines of JSON, again and again",
		Long: `Poll all targets at even intervals and write lines of JSON, by "what":

  poll   one an interval: time, the seconds that rates are over, targets, and which failed
  row    one a row and interval: state, how many processes say what, gauges, rates a second
  event  one a change: state (a row of one target went from UP to DOWN), restart, lost, back

Counters stay monotone when processes restart or are reloaded, so rates are right across that.
--fields chooses fields: counters appear as rates, others as they are. Patterns, names and the
file of targets are looked at again every ten seconds. A target that fails is named in "poll", and
the others go on; the command ends with Ctrl-C, or after --count intervals.
` + targetsHelp,
		Example: `  myrmidon haproxy watch --every 1s /run/haproxy/*.sock | jq 'select(.what == "event")'
  myrmidon haproxy watch --type backend --fields req_tot,hrsp_5xx,qcur /run/haproxy/*.sock
  myrmidon haproxy watch --events --to file:///var/log/haproxy-events.jsonl /run/haproxy/*.sock`,
		Args: args(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, in []string) error { return a.watch(c.Context(), &f, in) },
	}
	fl := c.Flags()
	f.source(fl)
	f.rows(fl)
	f.columns(fl)
	fl.DurationVar(&f.every, "every", time.Second, "the interval")
	fl.StringVar(&f.to, "to", "", "append to this file, as in file:///var/log/haproxy.jsonl (default: stdout)")
	fl.IntVar(&f.count, "count", 0, "end after so many intervals (default: never)")
	fl.BoolVar(&f.events, "events", false, "events only")
	return c
}

// watchWindow is what the rates of watch and top are over: a few intervals, so that they
// follow changes and do not jump.
func watchWindow(every time.Duration) time.Duration { return max(3*every, 2*time.Second) }

func (a *app) watch(ctx context.Context, f *watchFlags, in []string) (err error) {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	if f.every < 10*time.Millisecond {
		return usage(fmt.Errorf("--every %v: 10ms at least", f.every))
	}
	if f.count < 0 {
		return usage(fmt.Errorf("--count %d: it cannot be less than nothing", f.count))
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	out := a.stdout
	if f.to != "" {
		file, err := openLog(f.to)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	p, collector, err := f.open(ctx, in, haproxy.Config{Window: watchWindow(f.every)})
	if err != nil {
		return err
	}
	defer collector.Close()
	a.hasBegun()
	for _, m := range p.missing {
		a.complain(m)
	}
	w := watchWriter{flags: f, filter: filter, pool: p}
	polls, failed, reached := 0, false, false
	poll := poller{pool: p, collector: collector, every: f.every, complain: a.complain}
	err = poll.run(ctx, func(pollErr error) (bool, error) {
		if pollErr != nil && !errors.Is(pollErr, haproxy.ErrNone) {
			return false, pollErr
		}
		if pollErr != nil && polls == 0 {
			return false, pollErr // it has never worked: most likely a mistake
		}
		var werr error
		collector.Use(func(s *haproxy.Snapshot) {
			failed = s.Failed() > 0 || len(p.missing) > 0
			reached = pollErr == nil
			werr = w.snapshot(s, pollErr == nil)
		})
		if werr == nil {
			_, werr = out.Write(w.buf)
		}
		polls++
		return f.count == 0 || polls < f.count, werr
	})
	switch {
	case err != nil:
		return err
	case f.count > 0 && !reached:
		return errors.New("at last no target answered")
	case f.count > 0 && failed:
		return &exitError{exitPartial, errors.New("some targets did not answer: the lines with \"what\":\"poll\" name them")}
	}
	return nil
}

// openLog opens the file of --to for appending.
func openLog(to string) (*os.File, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "file" || u.Path == "" || u.Host != "" && u.Host != "localhost" {
		return nil, usage(myrmidon.WithHint(fmt.Errorf("--to %s: only files can be written to", to), "as in: --to file:///var/log/haproxy.jsonl"))
	}
	return os.OpenFile(u.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
}

// watchWriter turns snapshots into lines.
type watchWriter struct {
	flags  *watchFlags
	filter haproxy.Filter
	pool   *pool
	view   haproxy.View
	buf    []byte
}

// gauges and counters of a row, unless --fields says otherwise.
var (
	watchGauges   = []string{"scur", "qcur", "act", "bck", "rtime", "ttime"}
	watchCounters = []string{"stot", "req_tot", "bin", "bout", "hrsp_2xx", "hrsp_4xx", "hrsp_5xx", "ereq", "econ", "eresp", "eint", "wretr", "dreq"}
)

type watchPoll struct {
	What    string    `json:"what"`
	Time    time.Time `json:"time"`
	Window  float64   `json:"window"`
	Targets int       `json:"targets"`
	Failed  []string  `json:"failed,omitempty"`
}

type watchRow struct {
	What      string             `json:"what"`
	Time      time.Time          `json:"time"`
	Type      string             `json:"type"`
	Proxy     string             `json:"proxy"`
	Server    string             `json:"server"`
	State     string             `json:"state,omitempty"`
	States    map[string]int     `json:"states,omitempty"`
	Processes int                `json:"processes"`
	Values    map[string]any     `json:"values,omitempty"`
	Rates     map[string]float64 `json:"rates,omitempty"`
}

// snapshot makes the lines of one poll. Rows are those of this poll only.
func (w *watchWriter) snapshot(s *haproxy.Snapshot, reached bool) error {
	w.buf = w.buf[:0]
	at := s.Time.UTC().Round(time.Millisecond)
	for i := range s.Events {
		e := s.Events[i]
		e.Time = at
		if !w.takes(&e) {
			continue
		}
		if err := w.line(struct {
			What string `json:"what"`
			haproxy.Event
		}{"event", e}); err != nil {
			return err
		}
	}
	if w.flags.events {
		return nil
	}
	poll := watchPoll{What: "poll", Time: at, Window: round(s.Window.Seconds()), Targets: len(s.Targets) + len(w.pool.missing)}
	for _, err := range w.pool.failures(s) {
		poll.Failed = append(poll.Failed, err.Error())
	}
	if err := w.line(poll); err != nil || !reached {
		return err
	}
	if err := known(s.Table, w.flags.fields); err != nil {
		return err
	}
	w.view.Select(s.Table, w.filter)
	for _, i := range w.view.Rows {
		if err := w.line(w.row(s, i, at)); err != nil {
			return err
		}
	}
	return nil
}

// takes reports whether an event is about a row that is asked for, or about a target.
func (w *watchWriter) takes(e *haproxy.Event) bool {
	return e.Kind != haproxy.EventState || w.filter.Takes(e.Type, e.Proxy, e.Server)
}

func (w *watchWriter) row(s *haproxy.Snapshot, i int, at time.Time) watchRow {
	t := s.Table
	r := watchRow{
		What: "row", Time: at, Type: t.Type(i).String(), Proxy: string(t.Proxy(i)), Server: string(t.Server(i)),
		State: t.State(i), Processes: t.Processes(i), Values: make(map[string]any),
	}
	t.States(i, func(state []byte, n int) {
		if r.States == nil {
			r.States = make(map[string]int)
		}
		r.States[strings.ToValidUTF8(string(state), "\ufffd")] += n
	})
	rate := func(name string) bool {
		x, ok := s.Rate(i, t.Column(name))
		if ok {
			if r.Rates == nil {
				r.Rates = make(map[string]float64)
			}
			r.Rates[name] = round(x)
		}
		return ok
	}
	value := func(name string) {
		col := t.Column(name)
		if n, ok := t.Int(i, col); ok {
			r.Values[name] = n
		} else if text := t.Text(i, col); text != "" {
			r.Values[name] = text
		}
	}
	if len(w.flags.fields) == 0 {
		for _, name := range watchGauges {
			value(name)
		}
		for _, name := range watchCounters {
			rate(name)
		}
		return r
	}
	for _, name := range w.flags.fields {
		if !rate(name) && !s.Counter(i, t.Column(name)) {
			value(name)
		}
	}
	return r
}

func (w *watchWriter) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.buf = append(append(w.buf, b...), '\n')
	return nil
}

// round keeps three digits behind the point.
func round(x float64) float64 { return float64(int64(x*1000+0.5)) / 1000 }
