package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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
		Long: `List the runs of this machine, newest first, with where they stand. A run that nobody
carries although it has not ended is "interrupted": resume it.

A run is named by its ID, by the beginning of it, or by "latest".`,
		Example: `  myrmidon runs
  myrmidon runs --json | jq .id`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return a.listRuns() },
	}
	c.AddCommand(a.runsShow(), a.runsResume(), a.runsRetry(), a.runsCancel(), a.runsPause(), a.runsPrune())
	return c
}

// runArg is a command on one run.
func (a *app) runArg(use, short, example string, do func(ctx context.Context, d *engine.RunDir, rest []string) error, argsRange cobra.PositionalArgs) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: "  " + example, Args: args(argsRange),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, in []string) error {
			d, err := a.find(in[0])
			if err != nil {
				return err
			}
			return do(c.Context(), d, in[1:])
		},
	}
}

func (a *app) find(id string) (*engine.RunDir, error) {
	s, err := a.state()
	if err != nil {
		return nil, err
	}
	return s.Find(id)
}

func (a *app) completeRuns(_ *cobra.Command, in []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := a.state()
	if err != nil || len(in) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	infos, _, err := s.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out := []string{"latest\tthe newest run"}
	for _, i := range infos {
		out = append(out, i.ID+"\t"+i.Standing()+" "+plain(i.Title))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// standing is an Info with its standing, for JSON.
type standing struct {
	engine.Info
	Standing string `json:"standing"`
}

func (a *app) listRuns() error {
	s, err := a.state()
	if err != nil {
		return err
	}
	infos, problems, err := s.List()
	if err != nil {
		return err
	}
	if a.json {
		for i := len(infos) - 1; i >= 0; i-- {
			a.printJSON(standing{infos[i], infos[i].Standing()})
		}
	} else if len(infos) > 0 {
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "RUN\tSTARTED\tSTATE\tITEMS\tFAILED\tWHAT")
		for i := len(infos) - 1; i >= 0; i-- {
			r := infos[i]
			fmt.Fprintf(w, "%s\t%s\t%s\t%d/%d\t%d\t%s\n", r.ID, r.Created.Format(time.DateTime), r.Standing(),
				r.Counts.Done, r.Counts.Planned, r.Counts.Failed, plain(r.Title))
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
		func(ctx context.Context, d *engine.RunDir, _ []string) error {
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

func (a *app) showReport(d *engine.RunDir, info engine.Info) error {
	rep, err := d.Report()
	if errors.Is(err, os.ErrNotExist) && info.State == myrmidon.Cancelled || err == nil && rep.State != info.State {
		// It was cancelled while nobody carried it: there is no report, or one of a former end.
		if a.json {
			a.printJSON(standing{info, info.Standing()})
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
	fmt.Fprintf(a.stdout, "all items: %s\nreport:    %s\n", rep.ItemsFile, d.Path("report.json"))
	return nil
}

func (a *app) runsResume() *cobra.Command {
	c := a.runArg("resume RUN", "Go on with a run that was interrupted or paused", "myrmidon runs resume latest",
		func(ctx context.Context, d *engine.RunDir, _ []string) error {
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Live && info.Paused {
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
func (a *app) tellAgain(d *engine.RunDir, info engine.Info) error {
	rep, err := d.Report()
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(rep)
		return nil
	}
	fmt.Fprintf(a.screen, "myrmidon: run %s has succeeded already\n", d.ID)
	if p := present(info.Workload, nil); p != nil {
		for _, line := range p.Result(rep) {
			fmt.Fprintln(a.stdout, line)
		}
	}
	return nil
}

// takeUp carries a run that has no owner.
func (a *app) takeUp(ctx context.Context, d *engine.RunDir, info engine.Info, retry bool, ids []string) error {
	if err := d.Lock(); err != nil {
		return err
	}
	a.keepDurability(info)
	c, err := a.carrier(ctx, info.Workload)
	if err != nil {
		return errors.Join(err, d.Unlock())
	}
	c.total = 1
	tasks := make(chan task, 1)
	tasks <- task{d, retry, ids}
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
func (a *app) retry(ctx context.Context, d *engine.RunDir, ids []string) error {
	n, err := d.Control().Retry(ctx, ids...)
	if err == nil {
		fmt.Fprintf(a.stdout, "%s of run %s tried again\n", plural(n, "job"), d.ID)
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
		return fmt.Errorf("run %s has nothing parked: it %s", d.ID, endWord(info.State))
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
		func(ctx context.Context, d *engine.RunDir, _ []string) error {
			err := d.Control().Cancel(ctx)
			if !errors.Is(err, engine.ErrNoOwner) {
				return err
			}
			if err := d.Lock(); errors.Is(err, engine.ErrOwned) {
				return myrmidon.WithHint(fmt.Errorf("%w, which has not begun with it", err), "try again when it has: myrmidon runs shows where it stands")
			} else if err != nil {
				return err
			}
			return errors.Join(d.Abandon(), d.Unlock())
		}, cobra.ExactArgs(1))
}

func (a *app) runsPause() *cobra.Command {
	return a.runArg("pause RUN", "Stop a run where it is; runs resume lets it go on", "myrmidon runs pause latest",
		func(ctx context.Context, d *engine.RunDir, _ []string) error {
			err := d.Control().Pause(ctx, true)
			if errors.Is(err, engine.ErrNoOwner) {
				return myrmidon.WithHint(fmt.Errorf("run %s is not under way", d.ID), "myrmidon runs shows where it stands")
			}
			return err
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
		RunE: func(*cobra.Command, []string) error {
			s, err := a.state()
			if err != nil {
				return err
			}
			infos, _, err := s.List()
			if err != nil {
				return err
			}
			for _, i := range infos {
				if !i.State.Ended() || time.Since(i.Ended) < older {
					continue
				}
				if !dry {
					if err := a.forget(s, i.ID); err != nil {
						return err
					}
				}
				fmt.Fprintln(a.stdout, i.ID)
			}
			return nil
		},
	}
	c.Flags().DurationVar(&older, "older-than", 30*24*time.Hour, "only runs that ended so long ago")
	c.Flags().BoolVar(&dry, "dry-run", false, "print which, forget none")
	return c
}

func (a *app) forget(s *engine.State, id string) error {
	d, err := s.Find(id)
	if err != nil {
		return err
	}
	if err := d.Lock(); err != nil {
		return err
	}
	return d.Remove()
}

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
	show := a.runArg("show RUN PARKED", "Show one parked job with its spec", "myrmidon parked show latest 0-0-3-0",
		func(ctx context.Context, d *engine.RunDir, rest []string) error {
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
			return myrmidon.WithHint(fmt.Errorf("run %s has nothing parked as %s", d.ID, rest[0]), "myrmidon parked list "+d.ID+" shows what is parked")
		}, cobra.ExactArgs(2))
	retry := a.runArg("retry RUN [PARKED...]", "Give parked jobs another try", "myrmidon parked retry latest", a.retry, cobra.MinimumNArgs(1))
	a.runFlags(retry.Flags())
	drop := a.runArg("drop RUN [PARKED...]", "Forget parked jobs; their items stay failed", "myrmidon parked drop latest", a.dropParked, cobra.MinimumNArgs(1))
	c.AddCommand(list, show, retry, drop)
	return c
}

// parkedOf lists what is parked of a run, whether somebody carries it or not.
func (a *app) parkedOf(ctx context.Context, d *engine.RunDir) ([]engine.Parked, error) {
	parked, err := d.Control().Parked(ctx)
	if !errors.Is(err, engine.ErrNoOwner) {
		return parked, err
	}
	err = a.withParked(ctx, d, func(p *engine.ParkedJobs) (err error) {
		parked, err = p.List()
		return err
	})
	return parked, err
}

// withParked opens the parked jobs of a run that nobody carries.
func (a *app) withParked(ctx context.Context, d *engine.RunDir, use func(*engine.ParkedJobs) error) error {
	if err := d.Lock(); err != nil {
		return err
	}
	a.durability = "process"
	p, err := engine.OpenParked(ctx, d, a.openQueue)
	if err != nil {
		return errors.Join(err, d.Unlock())
	}
	return errors.Join(use(p), p.Close(), d.Unlock())
}

func (a *app) listParked(ctx context.Context, in []string) error {
	s, err := a.state()
	if err != nil {
		return err
	}
	var ids []string
	if len(in) > 0 {
		ids = in
	} else {
		infos, _, err := s.List()
		if err != nil {
			return err
		}
		for _, i := range infos {
			if i.Parked > 0 || i.Live || !i.State.Ended() {
				ids = append(ids, i.ID)
			}
		}
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	rows, unread := 0, 0
	for _, id := range ids {
		d, err := s.Find(id)
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
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.ID, p.ID, strings.TrimSpace(p.Job.Kind+" "+p.Job.Name), p.Time.Format(time.DateTime), plain(p.Reason.Message))
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

func (a *app) dropParked(ctx context.Context, d *engine.RunDir, ids []string) error {
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
	fmt.Fprintf(a.stdout, "%s of run %s dropped\n", plural(n, "job"), d.ID)
	return nil
}
