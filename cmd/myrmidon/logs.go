package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"myrmidon"
	"myrmidon/elb"
	"myrmidon/internal/enrich"
	"myrmidon/internal/logs"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

func (a *app) logsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "logs",
		GroupID: "work",
		Short:   "Take access logs of load balancers, CloudFront and S3 to a log stack",
		Long: `Read access logs of Classic, Application and Network Load Balancers, CloudFront and S3
from a bucket or a disk, and deliver every line, or say which was not and why.`,
		Example: "  myrmidon logs parse access.log.gz\n  myrmidon logs ship s3://logs/AWSLogs/ --since 24h --to lumberjack://logstash:5044",
		Args:    args(cobra.NoArgs), // a mistyped subcommand is an error
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.logsParse(), a.logsShip(), a.logsAudit(), a.logsTop(), a.logsFields())
	return c
}

// logFlags choose lines, and what of them.
type logFlags struct {
	format, since, until, where string
	fields                      []string
	ecs, redact                 bool
	sample                      float64
	geoip                       []string
	userAgent                   string
}

// add adds the flags of choice.
func (f *logFlags) add(fl *pflag.FlagSet, c *cobra.Command) {
	fl.StringVar(&f.format, "format", "", "alb, classic, nlb, alb-connection, alb-health-check, cloudfront or s3 (default: found by name and shape)")
	fl.StringVar(&f.where, "where", "", `only lines like this: 'elb_status_code >= 500 and not request_url contains "/health"'; == != < <= > >= contains =~, and or not ( )`)
	fl.StringVar(&f.since, "since", "", "only lines of this time or later: 24h ago, or 2026-11-01, or 2026-11-01T12:00:00Z")
	fl.StringVar(&f.until, "until", "", "only lines before this time: as --since")
	fl.Float64Var(&f.sample, "sample", 1, "only a share of the lines, such as 0.01; the same ones each time")
	mustComplete(c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formatNames(), cobra.ShellCompDirectiveNoFileComp)))
}

// addShape adds the flags that say what becomes of a line.
func (f *logFlags) addShape(fl *pflag.FlagSet, c *cobra.Command) {
	fl.BoolVar(&f.ecs, "ecs", false, "names of the Elastic Common Schema: source.ip instead of client_ip")
	fl.StringSliceVar(&f.fields, "fields", nil, "only these fields, such as time,client_ip,elb_status_code (myrmidon logs fields lists them); a short name stands for the field that holds it")
	mustComplete(c.RegisterFlagCompletionFunc("fields", completeFields))
	fl.BoolVar(&f.redact, "redact-query", false, "overwrite the values in queries of URLs with X")
	fl.StringArrayVar(&f.geoip, "geoip", nil, "database of addresses in MaxMind's format, such as GeoLite2-City.mmdb: adds client_country, client_city, client_asn and such (may be given again)")
	fl.StringVar(&f.userAgent, "user-agent", "", "rules of user agents, uap-core's regexes.yaml, or builtin: adds user_agent_name, user_agent_os, user_agent_device and such")
}

// completeFields completes the last of some names of fields, short ones first.
func completeFields(_ *cobra.Command, _ []string, text string) (out []string, _ cobra.ShellCompDirective) {
	before := text[:strings.LastIndexByte(text, ',')+1]
	known := make(map[string]bool)
	offer := func(name string) {
		if name = before + name; !known[name] && strings.HasPrefix(name, text) {
			known[name] = true
			out = append(out, name)
		}
	}
	for _, short := range []bool{true, false} {
		for _, name := range formatNames() {
			format, err := elb.ParseFormat(name)
			if err != nil {
				continue
			}
			for i, f := range elb.Fields(format) {
				if !short {
					offer(f.Name)
					continue
				}
				for _, s := range logs.ShortNames(format, i) {
					offer(s)
				}
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func formatNames() []string {
	return []string{"alb", "classic", "nlb", "alb-connection", "alb-health-check", "cloudfront", "s3"}
}

// filter reads the flags.
func (f *logFlags) filter() (out logs.Filter, err error) {
	if f.sample == 0 {
		return out, usage(errors.New("--sample 0 would be no line at all: it is a share, such as 0.01 for one line of a hundred"))
	}
	out = logs.Filter{Format: f.format, Where: f.where, Fields: f.fields, ECS: f.ecs, RedactQuery: f.redact}
	if f.sample != 1 {
		out.Sample = f.sample
	}
	for _, b := range []struct {
		flag, text string
		to         *time.Time
	}{{"since", f.since, &out.Since}, {"until", f.until, &out.Until}} {
		if b.text == "" {
			continue
		}
		if *b.to, err = parseWhen(b.text, time.Now()); err != nil {
			return out, usage(fmt.Errorf("--%s %s: %w", b.flag, b.text, err))
		}
	}
	for _, file := range f.geoip {
		path, err := filepath.Abs(file) // a run that is resumed elsewhere finds it
		if err != nil {
			return out, err
		}
		out.GeoIP = append(out.GeoIP, path)
	}
	if out.UserAgent = f.userAgent; f.userAgent != "" && f.userAgent != enrich.Builtin {
		if out.UserAgent, err = filepath.Abs(f.userAgent); err != nil {
			return out, err
		}
	}
	if _, err := out.Open(); err != nil {
		return out, usage(err)
	}
	return out, nil
}

// fieldRow is a field, as JSON.
type fieldRow struct {
	Format string   `json:"format"`
	Name   string   `json:"name"`
	Kind   string   `json:"kind"`
	ECS    string   `json:"ecs"`
	Short  []string `json:"short,omitempty"`
}

func (a *app) logsFields() *cobra.Command {
	return &cobra.Command{
		Use: "fields [FORMAT]", Short: "List the fields of a format, or of all",
		Long: `List the fields of a format, or of all: format, name, kind, name in the Elastic Common Schema,
and the short names by which --where, --by and --fields find the same thing in each format.`,
		Example: "  myrmidon logs fields alb",
		Args:    args(cobra.MaximumNArgs(1)), ValidArgs: formatNames(),
		RunE: func(_ *cobra.Command, in []string) error {
			names := in
			if len(names) == 0 {
				names = formatNames()
			}
			for _, name := range names {
				format, err := elb.ParseFormat(name)
				if err != nil {
					return usage(err)
				}
				for i, f := range elb.Fields(format) {
					if a.json {
						a.printJSON(fieldRow{format.String(), f.Name, fmt.Sprint(f.Kind), f.ECS, logs.ShortNames(format, i)})
						continue
					}
					row := fmt.Sprintf("%-16s  %-28s  %-8s  %-42s  %s", format, f.Name, f.Kind, f.ECS, strings.Join(logs.ShortNames(format, i), ","))
					fmt.Fprintln(a.stdout, strings.TrimRight(row, " "))
				}
			}
			return nil
		},
	}
}

func (a *app) logsParse() *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use:   "parse [FILE|FOLDER/|s3://BUCKET/KEY|-]...",
		Short: "Print access logs as lines of JSON",
		Long: `Print access logs as lines of JSON. The format is found by name and shape, line by line;
packed (gzip) and plain objects are told apart by their first bytes. A folder, or an
address that ends with "/", stands for all objects below it. Without an argument standard
input is read.

Lines that are no record are counted, and the last few are listed on stderr; the exit
status is then 3.`,
		Example: `  myrmidon logs parse access.log.gz | jq .
  myrmidon logs parse s3://logs/AWSLogs/123/ --since 1h --where 'elb_status_code >= 500'
  zcat *.gz | myrmidon logs parse --fields time,client_ip,request_url --redact-query`,
		RunE: func(c *cobra.Command, in []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			return a.parseLogs(c.Context(), filter, in)
		},
	}
	f.add(c.Flags(), c)
	f.addShape(c.Flags(), c)
	return c
}

// parseLogs prints sources as lines of JSON.
func (a *app) parseLogs(ctx context.Context, filter logs.Filter, in []string) error {
	out := bufio.NewWriterSize(a.stdout, 64<<10)
	sum, err := a.readLogs(ctx, filter, in, func(_ *elb.Record, doc []byte) error {
		if _, err := out.Write(append(doc, '\n')); err != nil {
			return fmt.Errorf("write the results: %w", err)
		}
		return nil
	})
	if err = errors.Join(err, out.Flush()); err != nil {
		return err
	}
	return sum.verdict(a)
}

// readSum is what reading sources came to.
type readSum struct {
	logs.Counts
	objects, broken int
	last            []logs.Reject
}

// verdict tells what could not be read, and makes it the exit status.
func (s *readSum) verdict(a *app) error {
	if s.Unparsed > 0 {
		fmt.Fprintf(a.screen, "myrmidon: %s of %d could not be parsed; the last:\n", plural(s.Unparsed, "line"), s.Encountered)
		for _, r := range s.last {
			fmt.Fprintf(a.screen, "  %s line %d at byte %d: %s\n", plain(r.Object), r.Line, r.Offset, plain(r.Reason))
		}
	}
	switch {
	case s.broken > 0 && s.broken == s.objects && s.Parsed == 0:
		return &exitError{status: exitFailed}
	case s.broken > 0 || s.Unparsed > 0:
		return &exitError{status: exitPartial}
	}
	return nil
}

// readLogs reads sources, one after the other, and calls emit with each line that is taken.
// An object that cannot be read is told, and does not hide the others.
func (a *app) readLogs(ctx context.Context, filter logs.Filter, in []string, emit func(*elb.Record, []byte) error) (*readSum, error) {
	prepared, err := filter.Open()
	if err != nil {
		return nil, usage(err)
	}
	if len(in) == 0 {
		in = []string{"-"}
	}
	sum := new(readSum)
	var failed error // of emit
	one := func(s logs.Source, open func() (io.ReadCloser, error)) error {
		sum.objects++
		body, err := open()
		if err == nil {
			s.Body = body
			var c logs.Counts
			c, err = prepared.Parse(ctx, s, func(r *elb.Record, doc []byte) error {
				failed = emit(r, doc)
				return failed
			}, func(r logs.Reject) {
				if sum.last = append(sum.last, r); len(sum.last) > logs.LastFew {
					sum.last = sum.last[1:]
				}
			})
			sum.Encountered += c.Encountered
			sum.Parsed += c.Parsed
			sum.Unparsed += c.Unparsed
			err = errors.Join(err, body.Close())
		}
		if failed != nil || ctx.Err() != nil {
			return errors.Join(failed, ctx.Err())
		}
		if err != nil {
			sum.broken++
			a.complain(fmt.Errorf("%s: %w", s.Name, err))
		}
		return nil
	}
	for _, address := range in {
		if err := a.eachLog(ctx, address, filter, one); err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// eachLog calls fn with each object at an address.
func (a *app) eachLog(ctx context.Context, address string, filter logs.Filter, fn func(logs.Source, func() (io.ReadCloser, error)) error) error {
	if address == "-" {
		return fn(logs.Source{Name: "standard input"}, func() (io.ReadCloser, error) { return io.NopCloser(os.Stdin), nil })
	}
	source, err := logSource(ctx, address)
	if err != nil {
		return err
	}
	store, single, err := source.Open(wire.Bucket, wire.Object)
	if err != nil {
		return err
	}
	get := func(key string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) {
			r, _, err := store.Get(ctx, key, 0, -1)
			return r, err
		}
	}
	if source.Single {
		return fn(logs.Source{Name: source.Name(single), Key: single}, get(single))
	}
	return logs.List(ctx, store, filter, func(o object.Info) error {
		return fn(logs.Source{Name: source.Name(o.Key), Key: o.Key}, get(o.Key))
	})
}

// logSource finds out what an address is: an object, or a folder of them.
func logSource(ctx context.Context, address string) (logs.Address, error) {
	s := logs.Address{Source: address, Base: bare(address)}
	if wire.IsLocal(address) {
		path, err := wire.Folder(address)
		if err != nil {
			return s, usage(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return s, myrmidon.WithHint(err, "check the path")
		}
		s.Source, s.Base, s.Single = path, path, !info.IsDir()
		return s, nil
	}
	var err error
	if s.Source, err = wire.Canonical(address); err != nil {
		return s, usage(err)
	}
	store, key, err := wire.Object(address)
	if err != nil {
		return s, nil // no object could be there: it is a bucket or ends with a slash
	}
	_, err = store.Head(ctx, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	s.Single = err == nil
	return s, nil
}
