package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"myrmidon"
	"myrmidon/haproxy"
	"myrmidon/internal/haproxytop"
)

func (a *app) haproxyTopCommand() *cobra.Command {
	var f haproxyFlags
	var every time.Duration
	c := &cobra.Command{
		Use:   "top TARGET...",
		Short: "Watch all processes live in the terminal",
		Long: `Show rates, sessions, queues, errors and states of all processes as one, live. Frontends are
added up in the first line; a request that passes several of them counts in each, as it does in
HAProxy's own CumReq. The last line but one tells the latest change of a state.

  s, S         next and former order: requests, errors, state, sessions, queue, bytes, time, name
  r            reverse it
  t            all rows, or frontends, backends, servers or listeners only
  /            only names with these letters; Esc shows all again
  Enter        the chosen row as each process sees it; Esc goes back
  p, space     stand still, and go on
  arrows, PgUp, PgDn, Home, End, j, k    choose a row
  q, Ctrl-C    quit

A "*" behind a state means that only some processes say so.
` + targetsHelp,
		Example: "  myrmidon haproxy top /run/haproxy/*.sock\n  myrmidon haproxy top --type backend --every 500ms /run/haproxy/*.sock",
		Args:    args(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, in []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			if every < 100*time.Millisecond {
				return usage(fmt.Errorf("--every %v: 100ms at least", every))
			}
			if _, ok := a.terminal(); !ok || !term.IsTerminal(int(os.Stdin.Fd())) || os.Getenv("TERM") == "dumb" || os.Getenv("TERM") == "" {
				return myrmidon.WithHint(errors.New("top needs a terminal"),
					"myrmidon haproxy stats prints a table once; myrmidon haproxy watch writes lines for programs")
			}
			return a.haproxyTop(c.Context(), &f, filter, every, in)
		},
	}
	f.source(c.Flags())
	f.rows(c.Flags())
	c.Flags().DurationVar(&every, "every", time.Second, "the interval")
	return c
}

func (a *app) haproxyTop(ctx context.Context, f *haproxyFlags, filter haproxy.Filter, every time.Duration, in []string) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	p, collector, err := f.open(ctx, in, haproxy.Config{KeepProcesses: true, Window: watchWindow(every)})
	if err != nil {
		return err
	}
	defer collector.Close()
	// The first poll before the screen: what is wrong from the start is better told below
	// the command than on a screen that goes away.
	if err := collector.Poll(ctx); err != nil {
		return errors.Join(append(p.missing, err)...)
	}
	polled := make(chan error, 1)
	polled <- errors.Join(p.missing...)
	polls := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	poll := poller{pool: p, collector: collector, every: every, complain: func(error) {}, found: time.Now()}
	go func() {
		select {
		case <-ctx.Done():
			polls <- nil
			return
		case <-time.After(every):
		}
		polls <- poll.run(ctx, func(err error) (bool, error) {
			err = errors.Join(append(p.missing, err)...)
			select {
			case polled <- err:
			default: // the screen has not taken the last one yet
			}
			return true, nil
		})
	}()
	err = haproxytop.Run(ctx, haproxytop.Config{Collector: collector, Polled: polled, Filter: filter, Plain: os.Getenv("NO_COLOR") != ""})
	cancel()
	<-polls
	return err
}
