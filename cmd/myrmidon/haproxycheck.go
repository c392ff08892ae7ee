package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"myrmidon"
	"myrmidon/haproxy"
)

// What Nagios and its like take exit statuses for (plugin guidelines, 2.5).
const (
	checkOK = iota
	checkWarning
	checkCritical
	checkUnknown
)

var checkNames = [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}

// checkFlags are the limits; a negative one is not looked at.
type checkFlags struct {
	haproxyFlags
	down, backendsDown int64
	queue              int64
	sessionUse         float64
	errorsRate         float64
	over               time.Duration
}

// A violation is a row beyond a limit.
type violation struct {
	Limit string  `json:"limit"`
	Type  string  `json:"type"`
	Row   string  `json:"row"`
	State string  `json:"state,omitempty"`
	Value float64 `json:"value"`
	Max   float64 `json:"max"`
}

// A verdict is what check says.
type verdict struct {
	Status     string      `json:"status"`
	Summary    string      `json:"summary"`
	Violations []violation `json:"violations,omitempty"`
	Missing    []string    `json:"missing,omitempty"`
	Targets    int         `json:"targets"`
	Rows       int         `json:"rows"`

	exit int
	perf []string
}

func (a *app) checkCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check TARGET...",
		Short: "Compare the statistics with limits, for Nagios and scripts",
		Long: `Compare the statistics of all processes with limits, and print a line for monitors, with the
offending rows below it. Without a limit, no server and no backend may be down.

The exit status is that of Nagios' plugins, unlike that of all other commands:

  0  OK        all targets answered, and no limit is exceeded
  1  WARNING   no limit is exceeded, as far as is known: some targets did not answer
  2  CRITICAL  a limit is exceeded
  3  UNKNOWN   no target answered, or the command is used wrongly

A server counts as down if any process says so. --max-errors-rate takes two looks, --over
apart, and adds ereq, econ, eresp and eint.
` + targetsHelp,
		Example: `  myrmidon haproxy check --max-down 0 --max-queue 10 /run/haproxy/*.sock
  myrmidon haproxy check --max-session-use 80 --max-errors-rate 5 --over 10s --match 'api_*' /run/haproxy/*.sock`,
		Args: func(*cobra.Command, []string) error { return nil },
		RunE: func(c *cobra.Command, in []string) error {
			v, err := f.run(c.Context(), c.Flags(), in)
			if err != nil {
				return a.unknown(err)
			}
			if err := a.printVerdict(v); err != nil {
				return &exitError{checkUnknown, err}
			}
			if v.exit != 0 {
				return &exitError{status: v.exit}
			}
			return nil
		},
	}
	// Wrong usage is UNKNOWN too, in the environment as in flags: 2 would be taken for a
	// limit that is exceeded.
	c.PersistentPreRunE = func(c *cobra.Command, in []string) error {
		if err := a.prepare(c, in); err != nil {
			return a.unknown(err)
		}
		return nil
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return a.unknown(myrmidon.WithHint(err, c.CommandPath()+" --help shows the flags"))
	})
	fl := c.Flags()
	f.source(fl)
	f.rows(fl)
	fl.Int64Var(&f.down, "max-down", -1, "so many servers may be down")
	fl.Int64Var(&f.backendsDown, "max-backends-down", -1, "so many backends may be down")
	fl.Int64Var(&f.queue, "max-queue", -1, "so many requests may wait, in any row")
	fl.Float64Var(&f.sessionUse, "max-session-use", -1, "so many percent of a session limit may be used, in any row that has one")
	fl.Float64Var(&f.errorsRate, "max-errors-rate", -1, "so many errors a second, in any row")
	fl.DurationVar(&f.over, "over", 2*time.Second, "what --max-errors-rate is measured over")
	return c
}

// unknown says that there is no verdict, and why.
func (a *app) unknown(err error) error {
	v := verdict{exit: checkUnknown, Status: checkNames[checkUnknown], Summary: plain(strings.ReplaceAll(err.Error(), "\n", "; "))}
	if werr := a.printVerdict(v); werr != nil {
		err = errors.Join(err, werr)
	}
	return &exitError{checkUnknown, err}
}

// run reads the targets, once or twice, and judges.
func (f *checkFlags) run(ctx context.Context, given *pflag.FlagSet, in []string) (verdict, error) {
	for _, name := range []string{"max-down", "max-backends-down", "max-queue", "max-session-use", "max-errors-rate"} {
		if l := given.Lookup(name); l.Changed && strings.HasPrefix(l.Value.String(), "-") {
			return verdict{}, fmt.Errorf("--%s %s: a limit cannot be negative", name, l.Value)
		}
	}
	if f.down < 0 && f.backendsDown < 0 && f.queue < 0 && f.sessionUse < 0 && f.errorsRate < 0 {
		f.down, f.backendsDown = 0, 0
	}
	if f.over <= 0 {
		return verdict{}, fmt.Errorf("--over %v: it must be more than nothing", f.over)
	}
	filter, err := f.filter()
	if err != nil {
		return verdict{}, err
	}
	p, c, err := f.open(ctx, in, haproxy.Config{Window: f.over})
	if err != nil {
		return verdict{}, err
	}
	defer c.Close()
	if err := c.Poll(ctx); err != nil {
		return verdict{}, errors.Join(append(p.missing, err)...)
	}
	if f.errorsRate >= 0 {
		select {
		case <-ctx.Done():
			return verdict{}, ctx.Err()
		case <-time.After(f.over):
		}
		if err := c.Poll(ctx); err != nil {
			return verdict{}, err
		}
	}
	var v verdict
	c.Use(func(s *haproxy.Snapshot) { v = f.judge(p, s, filter) })
	return v, nil
}

// judge compares a snapshot with the limits.
func (f *checkFlags) judge(p *pool, s *haproxy.Snapshot, filter haproxy.Filter) verdict {
	t := s.Table
	view := t.View(filter)
	var v verdict
	row := func(limit string, i int, value, most float64) violation {
		return violation{limit, t.Type(i).String(), rowName(t, i), plain(t.Text(i, t.Column("status"))), value, most}
	}
	var said []string
	count := func(what string, typ haproxy.Type, most int64) {
		if most < 0 {
			return
		}
		var down []violation
		for _, i := range view.Rows {
			if t.Type(i) == typ && strings.HasPrefix(t.State(i), "DOWN") {
				down = append(down, row(what+" down", i, 1, float64(most)))
			}
		}
		v.perf = append(v.perf, fmt.Sprintf("%ss_down=%d;;%d;0", what, len(down), most))
		if int64(len(down)) > most {
			said = append(said, fmt.Sprintf("%s down (at most %d)", plural(len(down), what), most))
			v.Violations = append(v.Violations, down...)
		}
	}
	each := func(limit string, most float64, value func(i int) (float64, bool)) {
		if most < 0 {
			return
		}
		worst, n := 0.0, 0
		for _, i := range view.Rows {
			x, ok := value(i)
			if !ok {
				continue
			}
			worst = max(worst, x)
			if x > most {
				n++
				v.Violations = append(v.Violations, row(limit, i, x, most))
			}
		}
		v.perf = append(v.perf, fmt.Sprintf("%s=%.6g;;%.6g;0", strings.ReplaceAll(limit, " ", "_"), worst, most))
		if n > 0 {
			said = append(said, fmt.Sprintf("%s up to %.6g in %s (at most %.6g)", limit, worst, plural(n, "row"), most))
		}
	}
	count("server", haproxy.Server, f.down)
	count("backend", haproxy.Backend, f.backendsDown)
	each("queue", float64(f.queue), func(i int) (float64, bool) {
		n, ok := t.Int(i, t.Column("qcur"))
		return float64(n), ok
	})
	each("session use", f.sessionUse, func(i int) (float64, bool) {
		n, ok := t.Int(i, t.Column("scur"))
		most, limited := t.Int(i, t.Column("slim"))
		return 100 * float64(n) / float64(max(most, 1)), ok && limited && most > 0
	})
	each("errors a second", f.errorsRate, func(i int) (float64, bool) {
		sum, some := 0.0, false
		for _, name := range []string{"ereq", "econ", "eresp", "eint"} {
			rate, ok := s.Rate(i, t.Column(name))
			sum, some = sum+rate, some || ok
		}
		return sum, some
	})
	f.conclude(&v, p, s, said, len(view.Rows))
	return v
}

// conclude makes a verdict of what was found.
func (f *checkFlags) conclude(v *verdict, p *pool, s *haproxy.Snapshot, said []string, rows int) {
	v.Targets, v.Rows = len(s.Targets)+len(p.missing), rows
	for _, err := range p.failures(s) {
		v.Missing = append(v.Missing, plain(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	v.exit = checkOK
	switch {
	case len(said) > 0:
		v.exit = checkCritical
	case rows == 0:
		v.exit = checkUnknown
		said = append(said, "no row is of that --type and --match")
	case len(v.Missing) > 0:
		v.exit = checkWarning
	}
	if len(v.Missing) > 0 {
		said = append(said, fmt.Sprintf("%d of %s did not answer in full", len(v.Missing), plural(v.Targets, "target")))
	}
	if len(said) == 0 {
		said = []string{fmt.Sprintf("%s within limits, %s", plural(rows, "row"), plural(v.Targets, "target"))}
	}
	v.Status, v.Summary = checkNames[v.exit], strings.Join(said, ", ")
	v.perf = append(v.perf, fmt.Sprintf("targets_missing=%d;0;;0;%d", len(v.Missing), v.Targets))
}

// printVerdict prints the line for monitors, and what is behind it.
func (a *app) printVerdict(v verdict) error {
	if a.json {
		return json.NewEncoder(a.stdout).Encode(v)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HAPROXY %s - %s", v.Status, strings.ReplaceAll(v.Summary, "|", "/"))
	if len(v.perf) > 0 {
		b.WriteString(" | ")
		b.WriteString(strings.Join(slices.DeleteFunc(v.perf, func(p string) bool { return p == "" }), " "))
	}
	b.WriteByte('\n')
	for _, x := range v.Violations {
		fmt.Fprintf(&b, "%s  %s %s", x.Limit, x.Type, strings.ReplaceAll(x.Row, "|", "/"))
		if strings.HasSuffix(x.Limit, " down") {
			fmt.Fprintf(&b, "  %s\n", x.State)
		} else {
			fmt.Fprintf(&b, "  %.6g (at most %.6g)\n", x.Value, x.Max)
		}
	}
	for _, m := range v.Missing {
		fmt.Fprintf(&b, "missing  %s\n", strings.ReplaceAll(m, "|", "/"))
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}
