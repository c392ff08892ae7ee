package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"myrmidon"
	"myrmidon/haproxy"
)

const targetsHelp = `
TARGET is the path of a stats socket or of a master socket, a pattern of such paths,
tcp://host:port, or the URL of a stats page (http://user:password@host/stats). A name in
tcp://name:port stands for all its addresses, each a process of its own; of IPv4 if it has
any, so that a host with both counts once. --targets FILE names more, with labels and groups:

  targets:
    - {address: /run/haproxy/*.sock, groups: [edge], labels: {site: fra}}
    - {address: tcp://lb.example.com:9999, name: lb}
`

// haproxyFlags are those of the commands that read statistics.
type haproxyFlags struct {
	file    string
	groups  []string
	rules   string
	timeout time.Duration

	types  []string
	match  []string
	fields []string
}

// source adds the flags that say where statistics come from.
func (h *haproxyFlags) source(f *pflag.FlagSet) {
	f.StringVar(&h.file, "targets", "", "YAML file of targets, with labels and groups")
	f.StringSliceVar(&h.groups, "group", nil, "of --targets, only these groups")
	f.StringVar(&h.rules, "rules", "", "YAML file of rules that replace ours: see myrmidon haproxy fields --help")
	f.DurationVar(&h.timeout, "timeout", haproxy.DefaultTimeout, "how long each target has to answer")
}

// rows adds the flags that choose rows.
func (h *haproxyFlags) rows(f *pflag.FlagSet) {
	f.StringSliceVar(&h.types, "type", nil, "only rows of these types: frontend, backend, server, listener")
	f.StringSliceVar(&h.match, "match", nil, `only proxies like this, or with a "/" proxy/server: 'api_*', 'api_*/web-?'`)
}

func (h *haproxyFlags) columns(f *pflag.FlagSet) {
	f.StringSliceVar(&h.fields, "fields", nil, "only these fields, by their names in show stat")
}

// filter is what the flags of rows say.
func (h *haproxyFlags) filter() (haproxy.Filter, error) {
	out := haproxy.Filter{Match: h.match}
	for _, name := range h.types {
		t, err := haproxy.ParseType(name)
		if err != nil {
			return out, usage(err)
		}
		out.Types = append(out.Types, t)
	}
	if err := out.Check(); err != nil {
		return out, usage(err)
	}
	return out, nil
}

// haproxyCommand holds what reads HAProxy's statistics; with the words of a command
// line behind its own, what they need of it. None of it makes a run.
func (a *app) haproxyCommand(words ...string) *cobra.Command {
	c := &cobra.Command{
		Use:     "haproxy",
		GroupID: "work",
		Short:   "Read the statistics of all HAProxy processes as those of one",
		Long: `Read the statistics of any number of HAProxy processes and present them as those of one:
counters add up, averages weigh by requests, maxima stay maxima, the state is the worst, with who
says what. myrmidon haproxy fields tells the rule of every field.
` + targetsHelp,
		Example: `  myrmidon haproxy stats /run/haproxy/*.sock
  myrmidon haproxy top /run/haproxy/*.sock`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(named(words, []making{
		{"stats", a.statsCommand},
		{"top", a.haproxyTopCommand},
		{"watch", a.watchCommand},
		{"serve", a.serveCommand},
		{"check", a.checkCommand},
		{"unused", a.unusedCommand},
		{"fields", a.fieldsCommand},
	})...)
	for _, sub := range c.Commands() {
		for name, values := range map[string][]string{"type": {"frontend", "backend", "server", "listener"}, "sort": haproxy.SortKeys()} {
			if sub.Flags().Lookup(name) != nil {
				mustComplete(sub.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
			}
		}
	}
	return c
}

// pool is the targets of a command, and what is known of them.
type pool struct {
	flags   *haproxyFlags
	args    []string
	listed  []listedTarget
	labels  map[string]map[string]string // by target's name
	missing []error                      // patterns and names that stand for nothing
}

// open finds the targets and makes the collector of a command.
func (h *haproxyFlags) open(ctx context.Context, args []string, cfg haproxy.Config) (*pool, *haproxy.Collector, error) {
	p, err := h.find(ctx, args, &cfg)
	if err != nil {
		return nil, nil, err
	}
	collector, err := haproxy.New(cfg)
	if err != nil {
		return nil, nil, usage(err)
	}
	return p, collector, nil
}

// find finds the targets of a command, and fills in what its flags say of the collector.
func (h *haproxyFlags) find(ctx context.Context, args []string, cfg *haproxy.Config) (*pool, error) {
	p := &pool{flags: h, args: args}
	if h.timeout <= 0 {
		return nil, usage(fmt.Errorf("--timeout %v: it must be more than nothing", h.timeout))
	}
	if h.file == "" && len(h.groups) > 0 {
		return nil, usage(errors.New("--group needs --targets, the file whose groups it means"))
	}
	if h.file == "" && len(args) == 0 {
		return nil, usage(myrmidon.WithHint(errors.New("no target: name stats sockets, tcp://host:port or URLs of stats pages"),
			"as in: myrmidon haproxy stats /run/haproxy/*.sock; --targets FILE names them in a file"))
	}
	var err error
	if h.rules != "" {
		if cfg.Rules, err = readRules(h.rules); err != nil {
			return nil, err
		}
	}
	if h.file != "" {
		if p.listed, err = readTargets(h.file, h.groups); err != nil {
			return nil, err
		}
	}
	if cfg.Targets, err = p.find(ctx); err != nil {
		return nil, err
	}
	if len(cfg.Targets) == 0 {
		return nil, errors.Join(p.missing...)
	}
	cfg.Timeout = h.timeout
	return p, nil
}

// failures are the targets that did not answer.
func (p *pool) failures(s *haproxy.Snapshot) []error {
	out := append([]error(nil), p.missing...)
	for i := range s.Targets {
		if s.Targets[i].Err != nil {
			out = append(out, s.Targets[i].Err)
		}
	}
	return out
}

// once reads all targets once and calls show with what they say. What is missing is told,
// and makes the exit status that of a result in part.
func (a *app) once(ctx context.Context, h *haproxyFlags, args []string, keep bool, show func(*pool, *haproxy.Snapshot) error) error {
	cfg := haproxy.Config{KeepProcesses: keep}
	p, err := h.find(ctx, args, &cfg)
	if err != nil {
		return err
	}
	giveBackConstants(a.log)
	// What one look allocates is needed until its end: collecting garbage meanwhile takes a
	// tenth of the time, and frees nothing (make bench-haproxy).
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	s, err := haproxy.ReadAll(ctx, cfg)
	switch {
	case s == nil:
		return usage(err) // a target is none
	case err != nil:
		return errors.Join(append(p.missing, err)...)
	}
	if err := show(p, s); err != nil {
		return err
	}
	return a.partial(p, s)
}

// partial names what is missing.
func (a *app) partial(p *pool, s *haproxy.Snapshot) error {
	for _, w := range twice(s) {
		a.complain(w)
	}
	failures := p.failures(s)
	if len(failures) == 0 {
		return nil
	}
	for _, err := range failures {
		a.complain(err)
	}
	return &exitError{exitPartial, fmt.Errorf("%d of %s answered in full: the result lacks the others",
		len(s.Targets)-s.Failed(), plural(len(s.Targets)+len(p.missing), "target"))}
}

// twice finds processes behind two targets, as a socket and a port of one process are.
func twice(s *haproxy.Snapshot) []error {
	type identity struct {
		node       string
		pid, start int64
	}
	var out []error
	seen := make(map[identity]string)
	for i := range s.Targets {
		t := &s.Targets[i]
		if t.Err != nil {
			continue
		}
		for k := range t.Processes {
			q := &t.Processes[k]
			id := identity{q.Node, q.PID, q.Start}
			if first, ok := seen[id]; ok && q.Node != "" && q.PID > 0 && q.Start > 0 && first != t.Name {
				out = append(out, fmt.Errorf("%s and %s seem to be the same process (PID %d on %s): it counts twice", first, t.Name, q.PID, q.Node))
				continue
			}
			seen[id] = t.Name
		}
	}
	return out
}

// terminal is the width of the terminal that results go to, and whether it is one.
func (a *app) terminal() (width int, ok bool) {
	w := a.stdout
	if f, is := w.(*firstError); is {
		w = f.w
	}
	f, is := w.(*os.File)
	if !is || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return width, true
}

// colours reports whether results may have colours (https://no-color.org).
func (a *app) colours() bool {
	_, ok := a.terminal()
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// rowName is how people call a row.
func rowName(t *haproxy.Table, i int) string {
	switch t.Type(i) {
	case haproxy.Frontend, haproxy.Backend:
		return plain(string(t.Proxy(i)))
	}
	return plain(string(t.Proxy(i)) + "/" + string(t.Server(i)))
}

// known returns an error that names the first field that the statistics do not have.
func known(t *haproxy.Table, fields []string) error {
	for _, name := range fields {
		if t.Column(name) < 0 {
			return usage(myrmidon.WithHint(fmt.Errorf("there is no field %q", name),
				"these processes have "+strings.Join(t.Columns(), ", ")))
		}
	}
	return nil
}
