package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/enrich"
	"myrmidon/internal/logs"
	"myrmidon/internal/wire"
	"myrmidon/sink"
)

// shipGC is the garbage collector's pace, GOGC: little is allocated for a line, so that it has
// little to do.
const shipGC = 20

type shipFlags struct {
	logFlags
	to, parkedTo, memory string
	expect               []string
	shared               bool
	followFlags
}

func (a *app) logsShip() *cobra.Command {
	var f shipFlags
	c := &cobra.Command{
		Use:   "ship SOURCE... --to SINK",
		Short: "Deliver access logs to Logstash, Elasticsearch, Kinesis, a file or a bucket",
		Long: `Deliver every line of the access logs in SOURCE: s3://bucket/prefix, a folder, or one
object or file. SINK is lumberjack://host:5044 (Logstash's beats input, acknowledged; TLS by
lumberjacks://), https://host:9200/index (Elasticsearch, OpenSearch), kinesis://stream,
tcp://host:port (lines of JSON, which nothing confirms), file:///path, s3://bucket/folder
or - or stdout (standard output; a file of that name is ./stdout). Secrets come from the
environment.

Each line becomes a JSON document with @timestamp, an id that is the same whenever the line
is sent again, the object's name and the line's offset in it. The summary is printed at the
end, as one object of JSON. A line that is no record, or that the destination refuses, is
listed and counted, and the rest goes on; the exit status is then 3, and myrmidon runs retry
tries those lines again.

When the process is killed, myrmidon runs resume goes on where it was.

With --follow it goes on with what comes, from many sources if need be, until a signal, and makes
no run. A webhook takes what MinIO and SNS post; beyond loopback it wants the token in
` + webhookToken + `, as "Authorization: Bearer TOKEN" or as the password of basic
authentication, and --tls-cert and --tls-key, since a token alone crosses the network in the clear.`,
		Example: `  myrmidon logs ship s3://logs/AWSLogs/123/elasticloadbalancing/ --since 24h --to lumberjack://logstash:5044
  myrmidon logs ship ./logs --to https://elastic:9200/alb --where 'elb_status_code >= 500'
  myrmidon logs ship --follow sqs://sqs.eu-west-1.amazonaws.com/123456789012/logs --to lumberjack://logstash:5044 --expect 10m
  myrmidon logs ship --follow web=sqs://… cdn=s3://logs/cf/ hook=webhook://127.0.0.1:8080/s3 --to kinesis://access --expect 10m,cdn=2h --status s.json
  myrmidon logs ship s3://logs/cf/ --since 1h --to kinesis://access?region=eu-west-1 --redact-query`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, in []string) error {
			f.to = output(f.to)
			if a.nats.url == "" {
				if err := enoughFiles(shipFiles(a.slots, len(in), f.to), "logs ship"); err != nil {
					return err
				}
			}
			if err := checkWebhook(f.webhook); err != nil {
				return err
			}
			if f.webhook != "" && len(f.expect) == 0 && !fromEnvironment("webhook") {
				return usage(errors.New("--webhook is called for --expect DURATION, which is missing"))
			}
			if f.follow || follows(in) {
				return a.followLogs(c.Context(), f, in)
			}
			if err := onlyFollowing(c.Flags()); err != nil {
				return err
			}
			if len(in) > 1 {
				return usage(errors.New("one source makes a run; --follow takes several"))
			}
			return a.shipLogs(c.Context(), f, in[0])
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.to, "to", "", "where lines go: an address, see above")
	needs(c, "to", "name where lines go: --to lumberjack://logstash:5044, or --to - to see them")
	f.logFlags.add(fl, c)
	f.addShape(fl, c)
	fl.StringVar(&f.parkedTo, "parked-to", "", "file for the lines that were not delivered, as they are, with place and reason: a line of JSON each")
	fl.StringVar(&f.memory, "memory", "", "what lines under way of one object may hold (default: 2MiB)")
	fl.StringSliceVar(&f.expect, "expect", nil, "end with status 3 if the newest line is older than this, such as 10m, or there is none; with --follow: warn when no line has come for so long, and NAME=30m for one of the sources")
	fl.BoolVar(&f.shared, "shared-fs", false, "with --nats: local paths are the same files on every worker's machine")
	f.followFlags.add(fl, c)
	a.runFlags(fl)
	return c
}

// output takes the word stdout as "-", which the sink's address has for it.
func output(to string) string {
	if to == "stdout" {
		return "-"
	}
	return to
}

// spec reads the flags.
func (f *shipFlags) spec(ctx context.Context, source string) (s logs.Spec, err error) {
	if s.Filter, err = f.filter(); err != nil {
		return s, err
	}
	if s.Address, err = logSource(ctx, source); err != nil {
		return s, err
	}
	if f.parkedTo != "" { // a retry, from wherever, finds it
		if s.ParkedTo, err = filepath.Abs(f.parkedTo); err != nil {
			return s, err
		}
	}
	if err = f.sink(&s); err != nil {
		return s, err
	}
	return s, apart(s.Address, s.Sink)
}

// apart refuses a destination in which the next run would look for logs.
func apart(source logs.Address, to string) error {
	scheme, rest, _ := strings.Cut(to, "://")
	switch {
	case source.Single || scheme != "s3" && scheme != "file":
		return nil
	case scheme == "file":
		to, _, _ = strings.Cut(rest, "?")
	}
	inside, err := wire.Holds(source.Source, to)
	if err != nil || !inside {
		return err
	}
	return usage(myrmidon.WithHint(fmt.Errorf("%s lies in %s, from which logs are read", bare(to), source.Base),
		"what is shipped would be read as logs the next time: ship to another folder, or to another bucket"))
}

// sink reads the flags that say where lines go.
func (f *shipFlags) sink(s *logs.Spec) (err error) {
	s.Sink = f.to
	if scheme, _, ok := strings.Cut(f.to, "://"); (!ok || scheme == "file") && f.to != "-" {
		path, query, asked := strings.Cut(f.to, "?")
		if path, err = wire.Folder(path); err != nil {
			return usage(err)
		}
		s.Sink = (&url.URL{Scheme: "file", Path: path}).String()
		if asked {
			s.Sink += "?" + query
		}
	}
	if f.memory != "" {
		n, err := parseSize(f.memory)
		if err != nil || n < 1<<20 || n > 1<<30 {
			return usage(fmt.Errorf("--memory %s: a size from 1MiB to 1GiB", f.memory))
		}
		s.Memory = int(n)
	}
	// It is opened to find what is wrong with the address; nothing is sent.
	probe, err := wire.Sink(s.Sink)
	if err != nil {
		return usage(err)
	}
	if err := probe.Close(); err != nil {
		return err
	}
	return s.Validate()
}

// shipLogs makes one run.
func (a *app) shipLogs(ctx context.Context, f shipFlags, source string) error {
	spec, err := f.spec(ctx, source)
	if err != nil {
		return err
	}
	expect, err := parseExpect(f.expect)
	if err == nil && len(expect.by) > 0 {
		err = usage(errors.New("--expect NAME=DURATION is for the sources of --follow"))
	}
	if err != nil {
		return err
	}
	fleet := a.nats.url != ""
	files := append([]string{source}, spec.Filter.GeoIP...)
	if spec.Filter.UserAgent != "" && spec.Filter.UserAgent != enrich.Builtin {
		files = append(files, spec.Filter.UserAgent)
	}
	if err := a.reachable(fleet, f.shared, files); err != nil {
		return err
	}
	if fleet && (spec.Sink == "-" || strings.HasPrefix(spec.Sink, "file://")) {
		return usage(errors.New("a fleet's workers cannot write to one file: ship to a bucket, or without --nats"))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(shipGC)
	}
	c, err := a.carrier(ctx, "logs", fleet)
	if err != nil {
		return err
	}
	defer c.abandon()
	c.total = 1
	c.config.Open = func(ctx context.Context, dir string) (engine.Backend, error) {
		return a.openQueue(ctx, dir)
	}
	homes, err := a.homes(ctx, fleet)
	if err != nil {
		return err
	}
	info := engine.Info{
		Workload: "logs", Version: c.workload.Version, Title: bare(source) + " -> " + bare(f.to),
		Durability: a.durability, Slots: a.slots,
	}
	if fleet {
		spec.Place = fmt.Sprintf("%d-%s", time.Now().Unix(), rand.Text())
		info.Blobs = blobsOf(spec.Place)
	}
	if info.Spec, err = json.Marshal(spec); err != nil {
		return fmt.Errorf("logs: %w", err)
	}
	tasks := make(chan task, 1)
	tasks <- task{make: func() (engine.Home, error) { return homes.Create(info) }}
	close(tasks)
	c.logs.after = func(sum *logs.Summary) error { return f.after(ctx, a, spec, sum, expect.all) }
	return c.carry(ctx, tasks)
}

// after does what flags ask for when the run has ended.
func (f *shipFlags) after(ctx context.Context, a *app, spec logs.Spec, sum *logs.Summary, expect time.Duration) error {
	if expect <= 0 || time.Since(sum.Newest) <= expect {
		return nil
	}
	what := "there is no line at all"
	if !sum.Newest.IsZero() {
		what = "the newest line is of " + sum.Newest.Format(time.RFC3339)
	}
	if f.webhook != "" {
		client := alarmClient()
		defer client.CloseIdleConnections()
		if err := callWebhook(ctx, client, f.webhook, spec.Base, spec.Base, what, true); err != nil {
			a.log.Warn("--webhook could not be told", "err", err)
		}
	}
	return &exitError{exitPartial, myrmidon.WithHint(fmt.Errorf("--expect %v: %s", expect, what), "is the load balancer's log turned on, and is this its prefix?")}
}

// logsEnd is what a carrier does with runs of logs that have ended.
type logsEnd struct {
	after func(*logs.Summary) error // nil where nothing more is asked for
}

// summarize prints what a run of logs came to, and returns an error if lines were delivered
// and others not.
func (c *carrier) summarize(ctx context.Context, home engine.Home, rep *engine.Report) error {
	items, err := home.OpenItems()
	if err != nil {
		return err
	}
	sum, err := logs.Summarize(items)
	if err = errors.Join(err, items.Close()); err != nil {
		return err
	}
	var spec logs.Spec
	if err := json.Unmarshal(rep.Spec, &spec); err != nil {
		return err
	}
	plan := logs.Planned(rep.Plan)
	sum.From(spec.Address)
	sum.Run, sum.Destination = rep.ID, bare(spec.Sink)
	sum.Objects.LeftOut = plan.Left
	sum.Seconds, sum.CPU, sum.PeakMemory = rep.Active, rep.Usage.CPU, rep.Usage.PeakRSS
	if s, err := wire.Sink(spec.Sink); err == nil {
		sum.Unconfirmed = sink.TraitsOf(s).Unconfirmed
		if err := s.Close(); err != nil {
			return err
		}
	}
	data, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	c.mu.Lock()
	fmt.Fprintln(c.results(rep), string(data))
	c.mu.Unlock()
	if sum.Objects.Read == 0 && rep.State == myrmidon.Succeeded {
		why := "there is no object"
		if sum.Objects.LeftOut > 0 {
			why = fmt.Sprintf("%s there cannot hold lines of that time", plural(sum.Objects.LeftOut, "object"))
		}
		fmt.Fprintf(c.screen, "myrmidon: nothing was read from %s: %s\n  look at the address, and at --since and --until; --expect 24h makes it a failure\n", plain(sum.Source), why)
	}
	if sum.Objects.Failed > 0 {
		fmt.Fprintf(c.screen, "myrmidon: not everything was delivered: %s not parsed, %d refused, %s not whole\n  myrmidon parked list %s shows why; myrmidon runs retry %[4]s tries again\n",
			plural(sum.Lines.Unparsed, "line"), sum.Lines.Failed, plural(sum.Objects.Failed, "object"), rep.ID)
	}
	if spec.ParkedTo != "" {
		err = c.writeParked(ctx, home, spec, spec.ParkedTo)
	}
	if c.logs.after != nil {
		err = errors.Join(err, c.logs.after(&sum))
	}
	return err
}

// results is where what came of a run is printed: on stderr if its lines went to standard output.
func (c *carrier) results(rep *engine.Report) io.Writer {
	var spec logs.Spec
	if rep.Workload == "logs" && json.Unmarshal(rep.Spec, &spec) == nil && spec.Sink == "-" {
		return c.stderr
	}
	return c.stdout
}

// logsPresenter words runs of logs.
type logsPresenter struct{}

func (logsPresenter) Header(engine.Stats) string { return "" }

func (logsPresenter) Doing(s engine.Stats) (verb, speed string) {
	p := logs.Planned(s.Notes)
	return fmt.Sprintf("shipping  %s  %d lines acked  failed %d", plural(p.Objects, "object"), s.Totals.Tally[logs.TallyAcked], s.Counts.Failed), ""
}

func (logsPresenter) Result(*engine.Report) []string { return nil } // the summary says it

func (logsPresenter) Enrich(*engine.Report) {}

// checkpoints keeps the checkpoints of runs of logs: in a run's folder, or with a fleet's broker.
type checkpoints struct{ *app }

func (c checkpoints) dir(run string) (string, error) {
	s, err := c.state()
	if err != nil {
		return "", err
	}
	home, err := s.Find(run)
	if err != nil {
		return "", err
	}
	d, ok := home.(*engine.RunDir)
	if !ok {
		return "", fmt.Errorf("the checkpoints of run %s: %w", run, fs.ErrNotExist)
	}
	return d.Path("checkpoints"), nil
}

// Load implements [logs.Checkpoints].
func (c checkpoints) Load(ctx context.Context, run, place, name string) ([]byte, error) {
	if place != "" {
		fleet, err := c.connect(ctx)
		if err != nil {
			return nil, err
		}
		return fleet.Value(ctx, blobsOf(place)+name)
	}
	dir, err := c.dir(run)
	if err != nil {
		return nil, err
	}
	return folderCheckpoints(dir).Load(ctx, run, place, name)
}

// Save implements [logs.Checkpoints].
func (c checkpoints) Save(ctx context.Context, run, place, name string, data []byte) error {
	if place != "" {
		fleet, err := c.connect(ctx)
		if err != nil {
			return err
		}
		return fleet.Set(ctx, blobsOf(place)+name, data)
	}
	dir, err := c.dir(run)
	if err != nil {
		return err
	}
	return folderCheckpoints(dir).Save(ctx, run, place, name, data)
}

// Forget implements [logs.Checkpoints].
func (c checkpoints) Forget(ctx context.Context, run, place, name string) error {
	if place != "" {
		fleet, err := c.connect(ctx)
		if err != nil {
			return err
		}
		return fleet.Unset(ctx, blobsOf(place)+name)
	}
	dir, err := c.dir(run)
	if err != nil {
		return err
	}
	return folderCheckpoints(dir).Forget(ctx, run, place, name)
}

// writeParked writes the lines that a run did not deliver to a file, whole or not at all.
func (a *app) writeParked(ctx context.Context, home engine.Home, spec logs.Spec, file string) (err error) {
	items, err := home.OpenItems()
	if err != nil {
		return fmt.Errorf("--parked-to: %w", err)
	}
	defer items.Close() // it is only read
	err = writeWhole(file, func(out io.Writer) error {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return a.logsConfig().Aside(ctx, home.RunID(), spec, items, func(r logs.Reject) error { return enc.Encode(r) })
	})
	if err != nil {
		return fmt.Errorf("--parked-to: %w", err)
	}
	return nil
}

// logsConfig is what the logs workload is given.
func (a *app) logsConfig() logs.Config {
	return logs.Config{OpenBucket: wire.Bucket, OpenObject: wire.Object, OpenSink: wire.Sink, Checkpoints: checkpoints{a}, Log: a.log}
}
