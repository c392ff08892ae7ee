package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/internal/logs"
	"myrmidon/internal/wire"
	"myrmidon/sink/elastic"
)

func (a *app) logsAudit() *cobra.Command {
	var f logFlags
	var to string
	c := &cobra.Command{
		Use:   "audit SOURCE --to DESTINATION",
		Short: "Compare the lines of each object with what a destination has of them",
		Long: `Read the access logs in SOURCE as logs ship does, ask DESTINATION how many lines it has of
each object, and name the objects where the two differ. The exit status is 3 if any does.

DESTINATION is https://host:9200/index of Elasticsearch or OpenSearch (an alias, a data
stream or a pattern such as logstash-* too, so what Logstash has stored can be audited), or
the file, folder or s3://bucket/folder that lines of JSON were shipped to. Lumberjack, TCP
and Kinesis cannot be asked.

--since and --until choose lines on both sides. --where and --sample choose those of the
source: where the destination has more of them than that, the others are told as surplus.
Lines that are no records are counted, and missed nowhere.`,
		Example: `  myrmidon logs audit s3://logs/AWSLogs/123/ --since 24h --to https://elastic:9200/alb
  myrmidon logs audit ./logs --to s3://archive/alb/ --json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, in []string) error { return a.auditLogs(c.Context(), f, in[0], output(to)) },
	}
	fl := c.Flags()
	fl.StringVar(&to, "to", "", "the destination, as logs ship has it")
	needs(c, "to", "name what is audited: --to https://elastic:9200/alb, or the folder that was shipped to")
	f.add(fl, c)
	fl.BoolVar(&f.ecs, "ecs", false, "the documents in the index have names of the Elastic Common Schema")
	return c
}

// auditLogs compares, and prints what differs.
func (a *app) auditLogs(ctx context.Context, f logFlags, source, to string) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	// An index keeps milliseconds of a time.
	filter.Since, filter.Until = filter.Since.Truncate(time.Millisecond), filter.Until.Truncate(time.Millisecond)
	from, err := logSource(ctx, source)
	if err != nil {
		return err
	}
	there, end, err := a.holdings(ctx, to, filter.ECS)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(shipGC)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	rows := 0
	sum, err := a.logsConfig().Audit(ctx, from, filter, a.slots, there, func(d logs.Difference) error {
		if a.json {
			a.printJSON(d)
			return nil
		}
		if rows++; rows == 1 {
			fmt.Fprintln(w, "LINES\tFOUND\tMISSING\tSURPLUS\tTWICE\tOBJECT")
		}
		text := plain(d.Object)
		if d.Reason != "" {
			text += " (" + plain(d.Reason) + ")"
		}
		_, err := fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%s\n", d.Lines, d.Found, d.Missing, d.Surplus, d.Twice, text)
		return err
	})
	if err = errors.Join(err, w.Flush(), end()); err != nil {
		return err
	}
	if a.json {
		a.printJSON(sum)
	} else if !a.quiet {
		fmt.Fprintf(a.screen, "%s, %d lines; found %d, missing %d, surplus %d, twice %d; %s not a record\n",
			plural(sum.Objects, "object"), sum.Lines, sum.Found, sum.Missing, sum.Surplus, sum.Twice, plural(sum.Unparsed, "line"))
	}
	if sum.Different > 0 {
		return &exitError{exitPartial, myrmidon.WithHint(fmt.Errorf("%s not as at the source", plural(sum.Different, "object")),
			"lines that are missing are delivered by shipping the object again; an index keeps those that are there once, files hold them twice then")}
	}
	return nil
}

// holdings opens a destination, to be asked what it has. end tells what else was found.
func (a *app) holdings(ctx context.Context, to string, ecs bool) (there logs.Holdings, end func() error, err error) {
	index, ok, err := wire.Index(to)
	switch {
	case err != nil:
		return nil, nil, usage(err)
	case ok:
		h, err := a.openIndex(ctx, index, ecs)
		if err != nil {
			return nil, nil, errors.Join(err, index.Close())
		}
		return h, index.Close, nil
	case to == "-" || !wire.IsLocal(to) && !strings.HasPrefix(to, "s3://"):
		return nil, nil, usage(myrmidon.WithHint(fmt.Errorf("--to %.100s: this destination cannot be asked what it has", bare(to)),
			"name the Elasticsearch or OpenSearch index, the folder or the bucket in which the lines end up"))
	}
	files := new(logs.Files)
	end = func() error {
		if files.Foreign > 0 {
			fmt.Fprintf(a.screen, "myrmidon: %s of the destination: no documents of logs\n", plural(files.Foreign, "line"))
		}
		return nil
	}
	path, _, _ := strings.Cut(to, "?")
	if !wire.IsLocal(to) {
		files.Store, err = wire.Bucket(to)
		return files, end, err
	}
	if path, err = wire.Folder(path); err != nil {
		return nil, nil, usage(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, myrmidon.WithHint(err, "check the path")
	}
	folder := path
	if !info.IsDir() {
		folder = filepath.Dir(path)
		files.Takes = rotated(filepath.Base(path))
	}
	files.Store, err = wire.Bucket(folder)
	return files, end, err
}

// rotated says which files of a folder are one, or were it before they were put aside: see
// sink.FileConfig.
func rotated(name string) func(key string) bool {
	ending := filepath.Ext(name)
	aside := regexp.MustCompile("^" + regexp.QuoteMeta(strings.TrimSuffix(name, ending)) + `-\d{8}T\d{6}\.\d{3}Z` + regexp.QuoteMeta(ending) + "$")
	return func(key string) bool { return key == name || aside.MatchString(key) }
}

// indexed is an index that can be asked.
type indexed struct {
	index      *elastic.Sink
	object, id string // fields
}

// openIndex finds out how an index keeps where lines are from.
func (a *app) openIndex(ctx context.Context, index *elastic.Sink, ecs bool) (*indexed, error) {
	if err := index.Refresh(ctx); errors.Is(err, elastic.ErrDenied) {
		fmt.Fprintf(a.screen, "myrmidon: %v could not be refreshed (that needs the privilege maintenance): lines of the last seconds may be called missing\n", index)
	} else if err != nil {
		return nil, err
	}
	object, id := "object", "id"
	if ecs {
		object, id = "log.file.path", "event.id"
	}
	h := &indexed{index: index}
	var err error
	if h.object, err = index.Exact(ctx, object); err != nil {
		return nil, err
	}
	if h.id, err = index.Exact(ctx, id); err != nil {
		return nil, err
	}
	if h.object != "" {
		return h, nil
	}
	n, err := index.Count(ctx, elastic.Query{})
	if err == nil && n > 0 {
		err = myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%v has %d documents, but no field %s that is a keyword everywhere", index, n, object),
			"documents with names of the Elastic Common Schema need --ecs; else give the field, or its subfield keyword, the type keyword, and index anew"))
	}
	return h, err
}

// Held implements [logs.Holdings].
func (h *indexed) Held(ctx context.Context, prefix string, single bool, f logs.Filter) iter.Seq2[logs.Held, error] {
	return func(yield func(logs.Held, error) bool) {
		if h.object == "" {
			return // nothing was ever stored
		}
		q := elastic.Query{Field: h.object, Prefix: prefix, Whole: single, Since: f.Since, Until: f.Until}
		for g, err := range h.index.Groups(ctx, h.object, q) {
			if !yield(logs.Held{Object: g.Value, Lines: g.Documents}, err) || err != nil {
				return
			}
		}
	}
}

// OfID implements [logs.Holdings]: an index leaves names out that are longer than its
// ignore_above, 256 characters by default. IDs are short.
func (h *indexed) OfID(ctx context.Context, id string, f logs.Filter) (int64, error) {
	if h.id == "" {
		return 0, nil
	}
	return h.index.Count(ctx, elastic.Query{Field: h.id, Prefix: id + "-", Since: f.Since, Until: f.Until})
}
