package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/engine"
)

func (a *app) parkedCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "parked",
		GroupID: "runs",
		Short:   "List, show, retry or drop what could not be done",
		Long: `What could not be done after its attempts, or never can be, is parked with its reason:
nothing is dropped silently.`,
		Example: "  myrmidon parked list\n  myrmidon parked retry latest",
		Args:    args(cobra.NoArgs), // a mistyped subcommand is an error
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	list := &cobra.Command{
		Use: "list [RUN]", Short: "List what is parked, of one run or of all", Example: "  myrmidon parked list latest",
		Args: args(cobra.MaximumNArgs(1)), ValidArgsFunction: a.completeRuns,
		RunE: func(cc *cobra.Command, in []string) error { return a.listParked(cc.Context(), in) },
	}
	show := a.runArg("show RUN PARKED", "Show one parked job with its spec, and its items with their reasons", "myrmidon parked show latest 0-0-3-0",
		func(ctx context.Context, d engine.Home, rest []string) error {
			parked, err := a.parkedOf(ctx, d)
			if err != nil {
				return err
			}
			for _, p := range parked {
				if p.ID == rest[0] {
					a.printJSON(p)
					return nil
				}
			}
			return myrmidon.WithHint(fmt.Errorf("run %s has nothing parked as %s", d.RunID(), rest[0]), "myrmidon parked list "+d.RunID()+" shows what is parked")
		}, cobra.ExactArgs(2))
	retry := a.runArg("retry RUN [PARKED...]", "Give parked jobs another try", "myrmidon parked retry latest", a.retry, cobra.MinimumNArgs(1))
	a.runFlags(retry.Flags())
	drop := a.runArg("drop RUN [PARKED...]", "Forget parked jobs; their items stay failed", "myrmidon parked drop latest", a.dropParked, cobra.MinimumNArgs(1))
	c.AddCommand(list, show, retry, drop)
	return c
}

// parkedOf lists what is parked of a run, whether somebody carries it or not.
func (a *app) parkedOf(ctx context.Context, d engine.Home) ([]engine.Parked, error) {
	parked, err := d.Control().Parked(ctx)
	if !errors.Is(err, engine.ErrNoOwner) {
		return parked, err
	}
	list := func(p *engine.ParkedJobs) (err error) {
		parked, err = p.List()
		return err
	}
	if _, shared := d.(*engine.FleetRun); shared {
		// Only read: a run that waits for a worker to carry it stays as it is.
		p, err := engine.OpenParked(ctx, d, nil)
		if err != nil {
			return nil, err
		}
		return parked, errors.Join(list(p), p.Close())
	}
	return parked, a.withParked(ctx, d, list)
}

// withParked opens the parked jobs of a run that nobody carries.
func (a *app) withParked(ctx context.Context, d engine.Home, use func(*engine.ParkedJobs) error) error {
	if err := a.lock(ctx, d); err != nil {
		return err
	}
	if _, shared := d.(*engine.FleetRun); shared {
		p, err := engine.OpenParked(ctx, d, nil)
		if err != nil {
			return errors.Join(err, d.Unlock())
		}
		return errors.Join(use(p), p.Close(), d.Unlock())
	}
	a.durability = "process"
	p, err := engine.OpenParked(ctx, d, a.openQueue)
	if err != nil {
		return errors.Join(err, d.Unlock())
	}
	return errors.Join(use(p), p.Close(), d.Unlock())
}

func (a *app) listParked(ctx context.Context, in []string) error {
	var ids []string
	if len(in) > 0 {
		ids = in
	} else {
		runs, _, err := a.allRuns(ctx)
		if err != nil {
			return err
		}
		for _, i := range runs {
			if i.Parked > 0 || i.Live || !i.State.Ended() {
				ids = append(ids, i.ID)
			}
		}
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	rows, unread := 0, 0
	for _, id := range ids {
		d, err := a.find(ctx, id)
		if err != nil {
			return err
		}
		parked, err := a.parkedOf(ctx, d)
		if err != nil {
			// One run that somebody takes up this moment, or that is damaged, hides no other.
			a.complain(err)
			unread++
			continue
		}
		for _, p := range parked {
			if a.json {
				a.printJSON(p)
				continue
			}
			if rows++; rows == 1 {
				fmt.Fprintln(w, "RUN\tPARKED\tWHAT\tWHEN\tREASON")
			}
			for _, row := range parkedRows(p) {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.RunID(), p.ID, plain(row.what), p.Time.Format(time.DateTime), plain(row.reason))
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case unread == 0:
		return nil
	case unread == len(ids):
		return &exitError{status: exitFailed}
	}
	return &exitError{status: exitPartial}
}

type parkedRow struct{ what, reason string }

// parkedRows tells of each item of a parked job. A job whose items its handler did not tell
// apart is a row by itself: it is called by its first item.
func parkedRows(p engine.Parked) []parkedRow {
	rows := make([]parkedRow, 0, len(p.Items))
	for _, it := range p.Items {
		name := it.Name
		if name == "" {
			name = fmt.Sprintf("%s, item %d", p.Job.Name, it.Index)
			if p.Job.Count == 1 {
				name = p.Job.Name
			}
		}
		rows = append(rows, parkedRow{strings.TrimSpace(p.Job.Kind + " " + name), it.Reason.Message})
	}
	rest := p.Job.Len() - len(rows)
	switch {
	case len(rows) > 0 && rest > 0:
		rows = append(rows, parkedRow{fmt.Sprintf("%s: %d more", p.Job.Kind, rest), p.Reason.Message})
	case len(rows) > 0:
	case rest > 1:
		rows = append(rows, parkedRow{fmt.Sprintf("%s %s and %d more", p.Job.Kind, p.Job.Name, rest-1), p.Reason.Message})
	default: // a job of one item, or a plan, which has none
		rows = append(rows, parkedRow{strings.TrimSpace(p.Job.Kind + " " + p.Job.Name), p.Reason.Message})
	}
	return rows
}

func (a *app) dropParked(ctx context.Context, d engine.Home, ids []string) error {
	n, err := d.Control().Drop(ctx, ids...)
	if errors.Is(err, engine.ErrNoOwner) {
		err = a.withParked(ctx, d, func(p *engine.ParkedJobs) (err error) {
			n, err = p.Drop(ids...)
			return err
		})
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s of run %s dropped\n", plural(n, "job"), d.RunID())
	return nil
}
