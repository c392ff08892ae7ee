package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/haproxy"
	"myrmidon/internal/textgrid"
)

// statsFlags are those of stats beyond the common ones.
type statsFlags struct {
	haproxyFlags
	csv, prometheus, breakdown bool
	sort                       string
	top                        int
}

func (a *app) statsCommand() *cobra.Command {
	var f statsFlags
	c := &cobra.Command{
		Use:   "stats TARGET...",
		Short: "Print the statistics of all processes as one",
		Long: `Print the statistics of all processes as one: a table for people, as wide as the terminal, or
--csv in the shape of "show stat", --json with an object a row and line, or --prometheus with
the names of HAProxy's own exporter. --breakdown prints each process for itself, beside the
others. Where processes differ in what cannot be added up, a field says who says what ("UP 3/4,
DOWN 1/4") or is "mixed".

If targets do not answer, the others are printed, the missing ones are named, and the exit
status is 3; if none does, it is 1.
` + targetsHelp,
		Example: `  myrmidon haproxy stats /run/haproxy/*.sock
  myrmidon haproxy stats --type backend --match 'api_*' --sort errors --top 20 tcp://10.0.0.1:9999
  myrmidon haproxy stats --csv --fields scur,stot,rtime /run/haproxy/*.sock`,
		Args: args(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, in []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			if n := btoi(f.csv) + btoi(f.prometheus) + btoi(a.json); n > 1 {
				return usage(errors.New("--csv, --json and --prometheus are three forms: choose one"))
			}
			if f.top < 0 {
				return usage(fmt.Errorf("--top %d: it cannot be less than nothing", f.top))
			}
			if f.top > 0 && f.sort == "" {
				return usage(myrmidon.WithHint(errors.New("--top needs --sort, which says what is at the top"), "as in: --sort errors --top 20"))
			}
			return a.once(c.Context(), &f.haproxyFlags, in, f.breakdown, func(p *pool, s *haproxy.Snapshot) error {
				return a.printStats(&f, filter, p, s)
			})
		},
	}
	fl := c.Flags()
	f.source(fl)
	f.rows(fl)
	f.columns(fl)
	fl.BoolVar(&f.csv, "csv", false, `print CSV as "show stat" does`)
	fl.BoolVar(&f.prometheus, "prometheus", false, "print the text format of Prometheus")
	fl.BoolVar(&f.breakdown, "breakdown", false, "each process for itself")
	fl.StringVar(&f.sort, "sort", "", "the greatest first, by a field or by one of "+strings.Join(haproxy.SortKeys(), ", "))
	fl.IntVar(&f.top, "top", 0, "only so many rows, with --sort (default: all)")
	return c
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// part is a table of a breakdown, or the merged one, which is of no process.
type part struct {
	process *haproxy.Process
	name    string
	labels  map[string]string
	view    *haproxy.View
}

// parts are the tables to print: the merged one, or with breakdown one a process.
func parts(p *pool, s *haproxy.Snapshot, filter haproxy.Filter, breakdown bool) []part {
	if !breakdown {
		return []part{{view: s.Table.View(filter)}}
	}
	count := make(map[string]int)
	s.Each(func(q *haproxy.Process, _ *haproxy.Table) { count[q.Target]++ })
	var out []part
	s.Each(func(q *haproxy.Process, t *haproxy.Table) {
		name := q.Target
		if count[q.Target] > 1 {
			name += "#" + strconv.FormatInt(q.PID, 10)
		}
		out = append(out, part{process: q, name: name, labels: p.labels[q.Target], view: t.View(filter)})
	})
	return out
}

// printStats writes the snapshot in the form that the flags ask for.
func (a *app) printStats(f *statsFlags, filter haproxy.Filter, p *pool, s *haproxy.Snapshot) error {
	if err := known(s.Table, f.fields); err != nil {
		return err
	}
	list := parts(p, s, filter, f.breakdown)
	for _, x := range list {
		x.view.Fields = fieldsOf(x.view.Table, f.fields)
		if f.sort != "" {
			if err := x.view.Sort(f.sort); err != nil {
				return usage(err)
			}
		}
		if f.top > 0 {
			x.view.Top(f.top)
		}
	}
	switch {
	case f.prometheus:
		return haproxy.WritePrometheus(a.stdout, promParts(list)...)
	case f.csv && !f.breakdown:
		return list[0].view.WriteCSV(a.stdout)
	case f.csv:
		return writeProcessCSV(a.stdout, list, f.fields)
	case a.json:
		for _, x := range list {
			if err := writeRowsJSON(a.stdout, x); err != nil {
				return err
			}
		}
		return nil
	}
	width, _ := a.terminal()
	for k, x := range list {
		if f.breakdown {
			if k > 0 {
				fmt.Fprintln(a.stdout)
			}
			fmt.Fprintf(a.stdout, "%s  PID %d  up %s  HAProxy %s\n", plain(x.name), x.process.PID, age(x.process.Uptime), plain(x.process.Version))
		}
		t := statsTable(x.view, width)
		if err := t.Write(a.stdout, width, a.colours()); err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf are the fields that a table has: another process's version may have fewer.
func fieldsOf(t *haproxy.Table, fields []string) []string {
	return slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return t.Column(f) < 0 })
}

// promParts names the processes of a breakdown by a label.
func promParts(list []part) []haproxy.Part {
	var out []haproxy.Part
	for _, x := range list {
		part := haproxy.Part{View: x.view}
		if x.process != nil {
			part.Labels = append(part.Labels, "process", x.name)
			for _, k := range slices.Sorted(maps.Keys(x.labels)) {
				part.Labels = append(part.Labels, k, x.labels[k])
			}
		}
		out = append(out, part)
	}
	return out
}

// writeProcessCSV writes a breakdown: the process is the first column.
func writeProcessCSV(w io.Writer, list []part, fields []string) error {
	out := csv.NewWriter(w)
	// Versions differ in columns: all of them, in the order in which they are met.
	var columns []string
	add := func(names ...string) {
		for _, n := range names {
			if !slices.Contains(columns, n) {
				columns = append(columns, n)
			}
		}
	}
	for _, x := range list {
		if len(fields) > 0 {
			add("pxname", "svname", "type")
			add(fields...)
		} else {
			add(x.view.Table.Columns()...)
		}
	}
	record := append([]string{"# process"}, columns...)
	if err := out.Write(record); err != nil {
		return err
	}
	for _, x := range list {
		t := x.view.Table
		for _, i := range x.view.Rows {
			record = append(record[:0], x.name)
			for _, name := range columns {
				record = append(record, t.Text(i, t.Column(name)))
			}
			if err := out.Write(record); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// writeRowsJSON writes the rows of a part, each with the process that it is of.
func writeRowsJSON(w io.Writer, x part) error {
	if x.process == nil {
		return x.view.WriteJSON(w)
	}
	head, err := json.Marshal(struct {
		Process string            `json:"process"`
		PID     int64             `json:"pid,omitempty"` // "pid" of a row is HAProxy's number
		Labels  map[string]string `json:"labels,omitempty"`
	}{x.name, 0, x.labels})
	if err != nil {
		return err
	}
	var rows bytes.Buffer
	if err := x.view.WriteJSON(&rows); err != nil {
		return err
	}
	var out bytes.Buffer
	for line := range bytes.Lines(rows.Bytes()) {
		out.Write(head[:len(head)-1])
		out.WriteByte(',')
		out.Write(line[1:])
	}
	_, err = w.Write(out.Bytes())
	return err
}

// statColumn is a column of the table of stats.
type statColumn struct {
	textgrid.Column
	value func(t *haproxy.Table, i int) string
}

func number(fields ...string) func(t *haproxy.Table, i int) string {
	return func(t *haproxy.Table, i int) string {
		if len(fields) == 1 && t.Mixed(i, t.Column(fields[0])) {
			return "mixed"
		}
		n, ok := sumOf(t, i, fields...)
		if !ok {
			return ""
		}
		return short(n)
	}
}

// statColumns are those that people look at first, with what is left out first where the
// terminal is narrow.
var statColumns = []statColumn{
	{textgrid.Column{Title: "QUEUE", Right: true, Rank: 3}, number("qcur")},
	{textgrid.Column{Title: "RATE", Right: true, Rank: 2}, number("rate")},
	{textgrid.Column{Title: "CUR", Right: true, Rank: 1}, number("scur")},
	{textgrid.Column{Title: "MAX", Right: true, Rank: 6}, number("smax")},
	{textgrid.Column{Title: "LIMIT", Right: true, Rank: 7}, number("slim")},
	{textgrid.Column{Title: "TOTAL", Right: true, Rank: 1}, number("stot")},
	{textgrid.Column{Title: "REQUESTS", Right: true, Rank: 8}, number("req_tot")},
	{textgrid.Column{Title: "IN", Right: true, Rank: 5}, number("bin")},
	{textgrid.Column{Title: "OUT", Right: true, Rank: 5}, number("bout")},
	{textgrid.Column{Title: "4XX", Right: true, Rank: 9}, number("hrsp_4xx")},
	{textgrid.Column{Title: "5XX", Right: true, Rank: 4}, number("hrsp_5xx")},
	{textgrid.Column{Title: "ERRORS", Right: true, Rank: 1}, number("ereq", "econ", "eresp", "eint")},
	{textgrid.Column{Title: "MS", Right: true, Rank: 9}, number("ttime")},
	{textgrid.Column{Title: "CHECK", Rank: 10}, func(t *haproxy.Table, i int) string { return plain(t.Text(i, t.Column("check_status"))) }},
	{textgrid.Column{Title: "SINCE", Right: true, Rank: 8}, func(t *haproxy.Table, i int) string {
		n, ok := t.Int(i, t.Column("lastchg"))
		if !ok {
			return ""
		}
		return age(n)
	}},
}

// statsTable makes the table of a view; 0 is a width without a limit.
func statsTable(v *haproxy.View, width int) *textgrid.Table {
	columns := statColumns
	if len(v.Fields) > 0 {
		columns = nil
		for _, f := range v.Fields {
			columns = append(columns, statColumn{textgrid.Column{Title: f, Right: true, Least: 8}, func(t *haproxy.Table, i int) string {
				return plain(t.Text(i, t.Column(f)))
			}})
		}
	}
	out := &textgrid.Table{Columns: []textgrid.Column{{Title: "PROXY/SERVER", Least: 16}, {Title: "TYPE"}, {Title: "STATE", Least: 8}}}
	for _, c := range columns {
		out.Columns = append(out.Columns, c.Column)
	}
	t := v.Table
	for _, i := range v.Rows {
		state := shortState(t, i)
		shown := state
		if width == 0 || width >= 120 {
			if full := t.Text(i, t.Column("status")); full != "" {
				shown = full
			}
		}
		typ := t.Type(i).String()
		row := []textgrid.Cell{{Text: rowName(t, i)}, {Text: typ}, {Text: plain(shown), Paint: paintState(state)}}
		for _, c := range columns {
			x := textgrid.Cell{Text: c.value(t, i)}
			if c.Title == "ERRORS" && x.Text != "" && x.Text != "0" {
				x.Paint = "33"
			}
			row = append(row, x)
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

// age writes seconds as people say them: 42s, 5m12s, 3h20m, 12d4h.
func age(s int64) string {
	switch {
	case s < 0:
		return "never"
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}
