package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/engine"
)

func (a *app) runsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "runs",
		GroupID: "runs",
		Short:   "List runs; show, resume, retry, cancel or pause one",
		Long: `List the runs of this machine, newest first, with where they stand; with --nats those of
the fleet as well. A run that nobody carries although it has not ended is "interrupted":
resume it.

A run is named by its ID, by the beginning of it, or by "latest". It is looked for on this
machine first, then in the fleet.`,
		Example: `  myrmidon runs
  myrmidon runs --json | jq .id`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.listRuns(c.Context()) },
	}
	c.AddCommand(a.runsShow(), a.runsResume(), a.runsRetry(), a.runsCancel(), a.runsPause(), a.runsItems(), a.runsPrune())
	return c
}

// runArg is a command on one run.
func (a *app) runArg(use, short, example string, do func(ctx context.Context, d engine.Home, rest []string) error, argsRange cobra.PositionalArgs) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: "  " + example, Args: args(argsRange),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, in []string) error {
			d, err := a.find(c.Context(), in[0])
			if err != nil {
				return err
			}
			return do(c.Context(), d, in[1:])
		},
	}
}

// find looks for a run on this machine first, then in the fleet.
func (a *app) find(ctx context.Context, id string) (engine.Home, error) {
	s, err := a.state()
	if err != nil {
		return nil, err
	}
	if id == "latest" && a.nats.url != "" {
		return a.findIn(ctx, id)
	}
	d, err := s.Find(id)
	if err == nil || a.nats.url == "" || !errors.Is(err, engine.ErrNoRun) {
		return d, err
	}
	return a.findIn(ctx, id)
}

func (a *app) findIn(ctx context.Context, id string) (engine.Home, error) {
	fleet, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	return engine.RunsOf(fleet).Find(id)
}

// places returns where runs are kept: this machine, and the fleet.
func (a *app) places(ctx context.Context) ([]place, error) {
	s, err := a.state()
	if err != nil {
		return nil, err
	}
	out := []place{{"here", s}}
	if a.nats.url != "" {
		fleet, err := a.connect(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, place{"fleet", engine.RunsOf(fleet)})
	}
	return out, nil
}

type place struct {
	name  string
	homes engine.Homes
}

// allRuns lists the runs of all places, oldest first.
func (a *app) allRuns(ctx context.Context) (out []standing, problems []error, err error) {
	places, err := a.places(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range places {
		infos, bad, err := p.homes.List()
		if err != nil {
			return nil, nil, err
		}
		problems = append(problems, bad...)
		for _, i := range infos {
			out = append(out, standing{i, i.Standing(), p.name})
		}
	}
	slices.SortFunc(out, func(x, y standing) int { return strings.Compare(x.ID, y.ID) })
	return out, problems, nil
}

func (a *app) completeRuns(c *cobra.Command, in []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(in) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	runs, _, err := a.allRuns(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out := []string{"latest\tthe newest run"}
	for _, i := range runs {
		out = append(out, i.ID+"\t"+i.Standing+" "+plain(i.Title))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// standing is an Info with its standing, for JSON.
type standing struct {
	engine.Info
	Standing string `json:"standing"`
	Where    string `json:"where,omitempty"` // here or fleet
}

func (a *app) listRuns(ctx context.Context) error {
	runs, problems, err := a.allRuns(ctx)
	if err != nil {
		return err
	}
	slices.Reverse(runs)
	switch {
	case a.json:
		for _, r := range runs {
			a.printJSON(r)
		}
	case len(runs) > 0:
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprint(w, "RUN\tSTARTED\tSTATE\tITEMS\tFAILED\t")
		if a.nats.url != "" {
			fmt.Fprint(w, "WHERE\t")
		}
		fmt.Fprintln(w, "WHAT")
		for _, r := range runs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d/%d\t%d\t", r.ID, r.Created.Format(time.DateTime), r.Standing, r.Counts.Done, r.Counts.Planned, r.Counts.Failed)
			if a.nats.url != "" {
				fmt.Fprintf(w, "%s\t", r.Where)
			}
			fmt.Fprintln(w, plain(r.Title))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for _, p := range problems {
		a.complain(p)
	}
	if len(problems) > 0 {
		return &exitError{status: exitPartial}
	}
	return nil
}

func (a *app) runsShow() *cobra.Command {
	return a.runArg("show RUN", "Show where a run stands, or its report", "myrmidon runs show latest",
		func(ctx context.Context, d engine.Home, _ []string) error {
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.State.Ended() {
				return a.showReport(d, info)
			}
			s, err := d.Control().Stats(ctx)
			if errors.Is(err, engine.ErrNoOwner) {
				s, err = engine.Stats{Info: info}, nil
			}
			if err != nil {
				return err
			}
			if a.json {
				a.printJSON(struct {
					engine.Stats
					Standing string `json:"standing"`
				}{s, s.Standing()})
				return nil
			}
			a.showInfo(s.Info)
			for _, r := range s.Running {
				share := 0.0
				if r.Total > 0 {
					share = float64(r.Done) / float64(r.Total)
				}
				fmt.Fprintf(a.stdout, "  %-24s %s %3.0f %%  attempt %d\n", r.Name, bar(share), share*100, r.Attempt)
			}
			if s.ETA > 0 {
				fmt.Fprintf(a.stdout, "ETA      %s\n", clock(s.ETA))
			}
			return nil
		}, cobra.ExactArgs(1))
}

func (a *app) showInfo(i engine.Info) {
	fmt.Fprintf(a.stdout, "run      %s  %s\n", i.ID, i.Workload)
	fmt.Fprintf(a.stdout, "what     %s\n", plain(i.Title))
	state := i.Standing()
	if i.Phase != "" && !i.State.Ended() {
		state += ", phase " + i.Phase
	}
	fmt.Fprintf(a.stdout, "state    %s\n", state)
	if i.Live {
		fmt.Fprintf(a.stdout, "owner    %s\n", i.Owner)
	}
	fmt.Fprintf(a.stdout, "started  %s, worked on for %s\n", i.Created.Format(time.DateTime), clock(i.Active))
	fmt.Fprintf(a.stdout, "items    %d of %d done, %d failed\n", i.Counts.Done, i.Counts.Planned, i.Counts.Failed)
	fmt.Fprintf(a.stdout, "used     %.1f CPU-s, peak %s\n", (i.Totals.CPU + i.OwnCPU).Seconds(), size(i.PeakRSS))
	if i.LastError != "" {
		fmt.Fprintf(a.stdout, "error    %s\n", plainLines(i.LastError))
		if i.Hint != "" {
			fmt.Fprintf(a.stdout, "         %s\n", i.Hint)
		}
	}
	if i.Standing() == "interrupted" {
		fmt.Fprintf(a.stdout, "         go on with: myrmidon runs resume %s\n", i.ID)
	}
}

func (a *app) showReport(d engine.Home, info engine.Info) error {
	rep, err := d.Report()
	if errors.Is(err, os.ErrNotExist) && info.State == myrmidon.Cancelled || err == nil && rep.State != info.State {
		// It was cancelled while nobody carried it: there is no report, or one of a former end.
		if a.json {
			a.printJSON(standing{Info: info, Standing: info.Standing()})
			return nil
		}
		a.showInfo(info)
		return nil
	}
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(rep)
		return nil
	}
	a.showInfo(info)
	if p := present(info.Workload, nil); p != nil && rep.State == myrmidon.Succeeded {
		for _, line := range p.Result(rep) {
			fmt.Fprintln(a.stdout, line)
		}
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PHASE\tITEM\tSTATE\tTRIES\tBYTES\tCPU\tERROR")
	for _, it := range rep.Items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%.1f s\t%s\n", it.Phase, it.Name, it.State, it.Attempts, size(it.Bytes), it.CPU, plain(it.LastError))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if rep.ItemsFile != "" {
		fmt.Fprintf(a.stdout, "all items: %s\nreport:    %s\n", rep.ItemsFile, d.Place())
	} else {
		fmt.Fprintf(a.stdout, "all items: myrmidon runs items %s\nreport at: %s\n", d.RunID(), d.Place())
	}
	return nil
}

func (a *app) runsResume() *cobra.Command {
	c := a.runArg("resume RUN", "Go on with a run that was interrupted or paused", "myrmidon runs resume latest",
		func(ctx context.Context, d engine.Home, _ []string) error {
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Live && (info.Paused || len(info.Kinds) > 0) {
				return d.Control().Pause(ctx, false)
			}
			if info.State == myrmidon.Succeeded {
				return a.tellAgain(d, info)
			}
			return a.takeUp(ctx, d, info, false, nil)
		}, cobra.ExactArgs(1))
	a.runFlags(c.Flags())
	return c
}

// tellAgain prints what came of a run that has succeeded already: its owner may have been
// killed between the run's end and the line that tells of it.
func (a *app) tellAgain(d engine.Home, info engine.Info) error {
	rep, err := d.Report()
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(rep)
		return nil
	}
	fmt.Fprintf(a.screen, "myrmidon: run %s has succeeded already\n", d.RunID())
	if p := present(info.Workload, nil); p != nil {
		for _, line := range p.Result(rep) {
			fmt.Fprintln(a.stdout, line)
		}
	}
	return nil
}

// lock makes this process the owner of a run. A fleet's run may have an owner that died a
// moment ago: its lease is waited for.
func (a *app) lock(ctx context.Context, d engine.Home) error {
	said := false
	for deadline := time.Now().Add(engine.LeaseTime + 2*time.Second); ; {
		err := d.Lock()
		if _, shared := d.(*engine.FleetRun); !shared || !errors.Is(err, engine.ErrOwned) || time.Now().After(deadline) {
			return err
		}
		if _, asked := d.Control().Stats(ctx); !errors.Is(asked, engine.ErrNoOwner) {
			return err // it lives
		}
		if !said {
			said = true
			fmt.Fprintf(a.screen, "myrmidon: the owner of run %s does not answer; waiting for its lease to end (%v)\n", d.RunID(), engine.LeaseTime)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takeUp carries a run that has no owner.
func (a *app) takeUp(ctx context.Context, d engine.Home, info engine.Info, retry bool, ids []string) error {
	if err := a.lock(ctx, d); err != nil {
		return err
	}
	a.keepDurability(info)
	_, shared := d.(*engine.FleetRun)
	c, err := a.carrier(ctx, info.Workload, shared)
	if err != nil {
		return errors.Join(err, d.Unlock())
	}
	c.total = 1
	tasks := make(chan task, 1)
	tasks <- task{home: d, retry: retry, ids: ids}
	close(tasks)
	return c.carry(ctx, tasks)
}

// keepDurability makes the level that a run was begun with hold for what comes after,
// unless another one is asked for.
func (a *app) keepDurability(info engine.Info) {
	if !a.durabilityGiven && info.Durability != "" {
		a.durability = info.Durability
	}
}

func (a *app) runsRetry() *cobra.Command {
	c := a.runArg("retry RUN [PARKED...]", "Give what a run parked another try", "myrmidon runs retry latest", a.retry, cobra.MinimumNArgs(1))
	a.runFlags(c.Flags())
	return c
}

// retry retries parked jobs of a run, whether somebody carries it or not.
func (a *app) retry(ctx context.Context, d engine.Home, ids []string) error {
	n, err := d.Control().Retry(ctx, ids...)
	if err == nil {
		fmt.Fprintf(a.stdout, "%s of run %s tried again\n", plural(n, "job"), d.RunID())
		return nil
	}
	if !errors.Is(err, engine.ErrNoOwner) {
		return err
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	if info.Parked == 0 && info.State.Ended() {
		return fmt.Errorf("run %s has nothing parked: it %s", d.RunID(), endWord(info.State))
	}
	return a.takeUp(ctx, d, info, true, ids)
}

func endWord(s myrmidon.State) string {
	switch s {
	case myrmidon.Cancelled:
		return "was cancelled"
	case myrmidon.Partial:
		return "ended, and what it parked was dropped"
	}
	return string(s)
}

func (a *app) runsCancel() *cobra.Command {
	return a.runArg("cancel RUN", "End a run for good", "myrmidon runs cancel latest",
		func(ctx context.Context, d engine.Home, _ []string) error {
			err := d.Control().Cancel(ctx)
			if !errors.Is(err, engine.ErrNoOwner) {
				return err
			}
			if err := a.lock(ctx, d); errors.Is(err, engine.ErrOwned) {
				return myrmidon.WithHint(fmt.Errorf("%w, which has not begun with it", err), "try again when it has: myrmidon runs shows where it stands")
			} else if err != nil {
				return err
			}
			return errors.Join(d.Abandon(), d.Unlock())
		}, cobra.ExactArgs(1))
}

func (a *app) runsPause() *cobra.Command {
	var kinds []string
	c := a.runArg("pause RUN", "Stop a run, or its jobs of some kinds, where it is; runs resume lets it go on", "myrmidon runs pause latest --kind transcode.encode",
		func(ctx context.Context, d engine.Home, _ []string) error {
			err := d.Control().Pause(ctx, true, kinds...)
			if errors.Is(err, engine.ErrNoOwner) {
				return myrmidon.WithHint(fmt.Errorf("run %s is not under way", d.RunID()), "myrmidon runs shows where it stands")
			}
			return err
		}, cobra.ExactArgs(1))
	c.Flags().StringSliceVar(&kinds, "kind", nil, "only jobs of this kind; those under way go on")
	return c
}

func (a *app) runsItems() *cobra.Command {
	return a.runArg("items RUN", "Print the evidence of a run that has ended, a line of JSON an item", "myrmidon runs items latest | jq -r 'select(.state == \"parked\").name'",
		func(_ context.Context, d engine.Home, _ []string) error {
			items, err := d.OpenItems()
			if errors.Is(err, os.ErrNotExist) {
				return myrmidon.WithHint(fmt.Errorf("run %s has no evidence yet", d.RunID()), "it is written when a run ends: myrmidon runs show "+d.RunID())
			}
			if err != nil {
				return err
			}
			_, err = io.Copy(a.stdout, items)
			return errors.Join(err, items.Close())
		}, cobra.ExactArgs(1))
}

func (a *app) runsPrune() *cobra.Command {
	var older time.Duration
	var dry bool
	c := &cobra.Command{
		Use:     "prune",
		Short:   "Forget runs that ended long ago",
		Long:    "Forget runs that have ended, with their reports and what they parked. What they made stays.",
		Example: "  myrmidon runs prune --older-than 168h --dry-run",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			places, err := a.places(c.Context())
			if err != nil {
				return err
			}
			for _, p := range places {
				infos, _, err := p.homes.List()
				if err != nil {
					return err
				}
				for _, i := range infos {
					if !i.State.Ended() || time.Since(i.Ended) < older {
						continue
					}
					if !dry {
						if err := forget(p.homes, i.ID); err != nil {
							return err
						}
					}
					fmt.Fprintln(a.stdout, i.ID)
				}
				if p.name == "fleet" && !dry {
					if err := forgetLists(c.Context(), a.fleet, infos, time.Now()); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	c.Flags().DurationVar(&older, "older-than", 30*24*time.Hour, "only runs that ended so long ago")
	c.Flags().BoolVar(&dry, "dry-run", false, "print which, forget none")
	return c
}

func forget(s engine.Homes, id string) error {
	d, err := s.Find(id)
	if err != nil {
		return err
	}
	if err := d.Lock(); err != nil {
		return err
	}
	return d.Remove()
}
