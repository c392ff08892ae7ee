package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"myrmidon/elb"
	"myrmidon/internal/logs"
)

// topKeys is how many combinations of values are counted: what comes beyond them is counted
// as others, so that memory is bounded.
const topKeys = 200_000

func (a *app) logsTop() *cobra.Command {
	var f logFlags
	var by []string
	var most int
	c := &cobra.Command{
		Use:   "top [FILE|FOLDER/|s3://BUCKET/PREFIX|-]... --by FIELD[,FIELD]",
		Short: "Count lines by the values of fields",
		Long: `Count the lines of access logs by the values of one or more fields, the most frequent
first, without a log stack. client, target, status, method, host and path mean the same in
all formats: addresses without ports, and the URL's host and path, without port and query.`,
		Example: `  myrmidon logs top s3://logs/AWSLogs/123/ --since 1h --by target,status,path
  myrmidon logs top access.log.gz --by client --where 'status >= 500' -n 5`,
		RunE: func(c *cobra.Command, in []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			return a.topLogs(c.Context(), filter, by, most, in)
		},
	}
	f.add(c.Flags(), c)
	c.Flags().StringSliceVar(&by, "by", nil, "the fields, such as target,status,path")
	mustComplete(c.RegisterFlagCompletionFunc("by", completeFields))
	c.Flags().IntVarP(&most, "number", "n", 20, "how many are shown; 0 means all")
	needs(c, "by", "name what is counted: --by target,status,path")
	return c
}

// group is a combination of values and how often it came.
type group struct {
	Values map[string]string `json:"values"`
	Lines  int64             `json:"lines"`
	key    string
}

// topLogs counts.
func (a *app) topLogs(ctx context.Context, filter logs.Filter, by []string, most int, in []string) error {
	if most < 0 {
		return usage(fmt.Errorf("-n %d: a number from 0 on", most))
	}
	if len(by) == 0 { // as a variable that is empty gives it
		return usage(errors.New("--by names no field: --by target,status,path"))
	}
	for _, field := range by {
		if _, err := (logs.Filter{Fields: []string{field}}).Prepare(); err != nil {
			return usage(err)
		}
	}
	counts := make(map[string]*int64)
	var others, total int64
	var key []byte
	began := time.Now()
	sum, err := a.readLogs(ctx, filter, in, func(r *elb.Record, _ []byte) error {
		key = key[:0]
		for i, field := range by {
			if i > 0 {
				key = append(key, 0)
			}
			key = append(key, logs.ValueOf(r, field)...)
		}
		total++
		switch n := counts[string(key)]; {
		case n != nil:
			*n++
		case len(counts) < topKeys:
			n := int64(1)
			counts[string(key)] = &n
		default:
			others++
		}
		return nil
	})
	if err != nil {
		return err
	}
	all := make([]group, 0, len(counts))
	for k, n := range counts {
		all = append(all, group{key: k, Lines: *n})
	}
	slices.SortFunc(all, func(x, y group) int { return cmp.Or(cmp.Compare(y.Lines, x.Lines), cmp.Compare(x.key, y.key)) })
	shown := all
	if most > 0 {
		shown = all[:min(most, len(all))]
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if !a.json {
		fmt.Fprintf(w, "LINES\tSHARE\t%s\n", strings.ToUpper(strings.Join(by, "\t")))
	}
	for _, g := range shown {
		values := strings.Split(g.key, "\x00")
		if a.json {
			g.Values = make(map[string]string)
			for i, field := range by {
				g.Values[field] = values[i]
			}
			a.printJSON(g)
			continue
		}
		for i := range values {
			values[i] = plain(cmp.Or(values[i], "-"))
		}
		fmt.Fprintf(w, "%d\t%.1f %%\t%s\n", g.Lines, 100*float64(g.Lines)/float64(total), strings.Join(values, "\t"))
	}
	if !a.quiet {
		fmt.Fprintf(a.screen, "%d lines, %d values, %v\n", total, len(all), time.Since(began).Round(time.Millisecond))
	}
	if others > 0 {
		err = fmt.Errorf("more than %d values: %d lines of later ones are not counted; choose other fields, or --where", topKeys, others)
	}
	return errors.Join(w.Flush(), err, sum.verdict(a))
}
