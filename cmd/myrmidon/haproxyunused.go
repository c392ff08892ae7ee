package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"myrmidon/haproxy"
	"myrmidon/internal/textgrid"
)

func (a *app) unusedCommand() *cobra.Command {
	var f haproxyFlags
	c := &cobra.Command{
		Use:   "unused TARGET...",
		Short: "List frontends, backends and servers that never took traffic",
		Long: `List frontends, backends and servers that took no session, no request and no byte in any
process since it started: a first step to pare down a large configuration. It says how long
that is: the age of the youngest process, as what an older one did before a restart is not known
("clear counters all" hides traffic, too). Targets that do not answer may have had some: the exit
status is then 3.
` + targetsHelp,
		Example: "  myrmidon haproxy unused /run/haproxy/*.sock\n  myrmidon haproxy unused --type backend --json /run/haproxy/*.sock | jq -r .proxy",
		Args:    args(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, in []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			if len(filter.Types) == 0 {
				filter.Types = []haproxy.Type{haproxy.Frontend, haproxy.Backend, haproxy.Server}
			}
			return a.once(c.Context(), &f, in, false, func(_ *pool, s *haproxy.Snapshot) error {
				return a.printUnused(s, filter)
			})
		},
	}
	f.source(c.Flags())
	f.rows(c.Flags())
	return c
}

// printUnused prints the rows without traffic, and since when.
func (a *app) printUnused(s *haproxy.Snapshot, filter haproxy.Filter) error {
	t := s.Table
	view := t.View(filter)
	all := len(view.Rows)
	view.Rows = slices.DeleteFunc(view.Rows, func(i int) bool {
		n, ok := sumOf(t, i, "stot", "req_tot", "bin", "bout")
		return !ok || n != 0
	})
	if a.json {
		enc := json.NewEncoder(a.stdout)
		for _, i := range view.Rows {
			if err := enc.Encode(struct {
				Type   string `json:"type"`
				Proxy  string `json:"proxy"`
				Server string `json:"server"`
				State  string `json:"state"`
			}{t.Type(i).String(), string(t.Proxy(i)), string(t.Server(i)), t.State(i)}); err != nil {
				return err
			}
		}
	} else {
		out := textgrid.Table{Columns: []textgrid.Column{{Title: "PROXY/SERVER", Least: 16}, {Title: "TYPE"}, {Title: "STATE"}}}
		for _, i := range view.Rows {
			state := shortState(t, i)
			out.Rows = append(out.Rows, []textgrid.Cell{{Text: rowName(t, i)}, {Text: t.Type(i).String()}, {Text: plain(state), Paint: paintState(state)}})
		}
		if len(out.Rows) > 0 {
			width, _ := a.terminal()
			if err := out.Write(a.stdout, width, a.colours()); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(a.screen, "%d of %s took no traffic %s\n", len(view.Rows), plural(all, "row"), since(s))
	return nil
}

// since says for how long all processes have counted.
func since(s *haproxy.Snapshot) string {
	youngest, n := int64(-1), 0
	unknown := false
	for i := range s.Targets {
		for _, p := range s.Targets[i].Processes {
			if p.Stopping {
				continue
			}
			n++
			if p.PID == 0 {
				unknown = true
			} else if youngest < 0 || p.Uptime < youngest {
				youngest = p.Uptime
			}
		}
	}
	if youngest < 0 {
		return "since the start, which a stats page does not tell"
	}
	text := "in the last " + age(youngest) + ", since the start of the youngest of " + strings.ReplaceAll(plural(n, "process"), "processs", "processes")
	if unknown {
		text += " (a stats page does not tell when its process started)"
	}
	return text
}

func (a *app) fieldsCommand() *cobra.Command {
	var f haproxyFlags
	c := &cobra.Command{
		Use:   "fields [TARGET...]",
		Short: "Tell how each field is merged, and why",
		Long: `List every field of each type of rows: the rule by which the values of several processes become
one, HAProxy's own tag (origin, nature, scope, type), and why, where this program knows better.
With targets, the tags of their versions are asked for; without, those of HAProxy 2.6 are
shown, and of 3.5 for later fields.

  sum                  added                          max, min  the greatest, the least
  sum-limits           added; mixed if one has none   least     the youngest age, without "never"
  average-by-requests  weighted by requests           average   each process counts once
  same, key            the same in all processes, else who says what; numbers are "mixed"
  worst                as same; the worst is the state

--rules FILE replaces rules, here and in the other commands:

  rules:
    - {field: rate_max, types: [backend], rule: sum, note: an upper bound}
`,
		Example: "  myrmidon haproxy fields\n  myrmidon haproxy fields --match 'rate*' --type backend /run/haproxy.sock",
		Args:    args(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, in []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			rules := haproxy.DefaultRules()
			if f.rules != "" {
				if rules, err = readRules(f.rules); err != nil {
					return err
				}
			}
			if len(in) > 0 || f.file != "" {
				p, collector, err := f.open(c.Context(), in, haproxy.Config{})
				if err != nil {
					return err
				}
				defer collector.Close()
				if err := collector.Poll(c.Context()); err != nil {
					return err
				}
				rules = collector.Rules()
				collector.Use(func(s *haproxy.Snapshot) { err = a.partial(p, s) })
				if err != nil {
					return errors.Join(a.printFields(rules, filter), err)
				}
			}
			return a.printFields(rules, filter)
		},
	}
	f.source(c.Flags())
	c.Flags().StringSliceVar(&f.types, "type", nil, "only fields of rows of these types: frontend, backend, server, listener")
	c.Flags().StringSliceVar(&f.match, "match", nil, "only fields whose names are like this: 'rate*'")
	return c
}

// printFields prints a line for each field and those types for which it is the same.
func (a *app) printFields(rules *haproxy.Rules, filter haproxy.Filter) error {
	type line struct {
		Field   string   `json:"field"`
		Types   []string `json:"types"`
		Rule    string   `json:"rule"`
		Tag     string   `json:"tag,omitempty"`
		Source  string   `json:"source"`
		Version string   `json:"version,omitempty"`
		Unit    string   `json:"unit,omitempty"`
		Note    string   `json:"note,omitempty"`
	}
	var lines []line
	for _, f := range rules.Fields() {
		fits := len(filter.Match) == 0
		for _, m := range filter.Match {
			ok, _ := path.Match(m, f.Name) // checked before
			fits = fits || ok
		}
		if !fits || len(filter.Types) > 0 && !slices.Contains(filter.Types, f.Type) {
			continue
		}
		l := line{f.Name, []string{f.Type.String()}, f.Rule.String(), f.Tag.String(), f.Source, f.Version, unit(f), f.Note}
		if f.Tag == (haproxy.Tag{}) {
			l.Tag = ""
		}
		same := slices.IndexFunc(lines, func(x line) bool {
			return x.Field == l.Field && x.Rule == l.Rule && x.Tag == l.Tag && x.Source == l.Source && x.Note == l.Note
		})
		if same >= 0 {
			lines[same].Types = append(lines[same].Types, l.Types...)
			continue
		}
		lines = append(lines, l)
	}
	if len(lines) == 0 {
		return errors.New("no field is called like that in rows of these types")
	}
	if a.json {
		enc := json.NewEncoder(a.stdout)
		for _, l := range lines {
			if err := enc.Encode(l); err != nil {
				return err
			}
		}
		return nil
	}
	out := textgrid.Table{Columns: []textgrid.Column{
		{Title: "FIELD"}, {Title: "TYPES", Least: 4}, {Title: "RULE"}, {Title: "UNIT"}, {Title: "TAG", Rank: 1}, {Title: "SOURCE"}, {Title: "WHY", Least: 8},
	}}
	for _, l := range lines {
		letters := ""
		for _, t := range l.Types {
			letters += t[:1]
		}
		why := l.Note
		if why == "" {
			why = "the tag says so"
		}
		out.Rows = append(out.Rows, []textgrid.Cell{
			{Text: plain(l.Field)}, {Text: letters}, {Text: l.Rule}, {Text: l.Unit}, {Text: l.Tag}, {Text: l.Source}, {Text: plain(why)},
		})
	}
	width, _ := a.terminal()
	return out.Write(a.stdout, width, a.colours())
}

// unit is what a field counts in, as far as its tag or HAProxy's guide (9.1) says.
func unit(f haproxy.Field) string {
	switch f.Name {
	case "qtime", "ctime", "rtime", "ttime", "qtime_max", "ctime_max", "rtime_max", "ttime_max", "check_duration", "agent_duration":
		return "ms"
	case "bin", "bout", "comp_in", "comp_out", "comp_byp", "h2_wire_in", "h2_wire_out":
		return "bytes"
	case "throttle":
		return "%"
	}
	switch f.Tag.Nature {
	case 'A', 'D':
		return "s"
	case 'R':
		return "/s"
	}
	if strings.HasSuffix(f.Name, "rate_max") || f.Name == "rate_lim" {
		return "/s"
	}
	return ""
}
