// Command myrmidon does the heavy, bursty work behind a video or web service. One file a
// command: flags, wiring, run.
//
// Results go to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2
// wrong usage, 3 finished with parts that failed, 130 interrupted or cancelled.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/limit"
)

// version is set by the Makefile.
var version = "dev"

const (
	exitFailed      = 1
	exitUsage       = 2
	exitPartial     = 3
	exitInterrupted = 130
)

// exitError ends the program with a status. A silent one has been explained already.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(err error) error { return &exitError{exitUsage, err} }

// app holds what all commands share.
type app struct {
	stdout, stderr io.Writer
	screen         *screen
	log            *slog.Logger

	stateDir   string
	durability string
	slots      int
	json       bool
	quiet      bool
	logLevel   string

	durabilityGiven bool // by flag or environment
	slotsGiven      bool

	begun sync.Once

	nats  natsFlags
	fleet *jetstream.Backend // once it is connected
	limit []string
	bound *limit.Set
}

func main() {
	a := &app{stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}

// run is main without the process: arguments in, exit status out.
func (a *app) run(ctx context.Context, args []string) int {
	a.screen = newScreen(a.stderr)
	out := &firstError{w: a.stdout}
	a.stdout = out
	root := a.root(args...)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if a.fleet != nil {
		if cerr := a.fleet.Close(); err == nil {
			err = cerr
		}
	}
	a.screen.clear()
	if werr := out.error(); werr != nil && !errors.Is(err, werr) {
		a.complain(fmt.Errorf("write the results: %w", werr))
		if err == nil {
			return exitFailed
		}
	}
	if err == nil {
		return 0
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			a.complain(exit.err)
		}
		return exit.status
	}
	a.complain(err)
	if strings.HasPrefix(err.Error(), "unknown command") { // cobra's, without a type
		return exitUsage
	}
	return exitFailed
}

// complain prints an error and what to do about it.
func (a *app) complain(err error) {
	text := "myrmidon: " + plainLines(err.Error()) + "\n"
	if h := myrmidon.Hint(err); h != "" {
		text += "  " + plainLines(h) + "\n"
	}
	fmt.Fprint(a.screen, text)
}

// firstError remembers the first write that failed, so that results which nobody got do
// not end as a success.
type firstError struct {
	w io.Writer

	mu  sync.Mutex
	err error
}

func (f *firstError) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.err == nil {
			f.err = err
		}
	}
	return n, err
}

func (f *firstError) error() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// root is the tree of commands; with the words of a command line, what they need of it.
func (a *app) root(words ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "myrmidon",
		Short: "The heavy, bursty work behind a video or web service",
		Long: `Myrmidon does the heavy, bursty work behind a video or web service, and says what it cost.

Every command that does such work makes a run: it can be watched, paused, cancelled, resumed after a crash
and retried from another terminal (myrmidon runs), and it ends with a report.

Every flag can also be set in the environment: --state is MYRMIDON_STATE.`,
		Example: `  myrmidon transcode talk.mp4 --to ./out
  myrmidon runs
  myrmidon runs resume latest`,
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.prepare,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(myrmidon.WithHint(err, c.CommandPath()+" --help shows the flags"))
	})
	f := root.PersistentFlags()
	f.StringVar(&a.stateDir, "state", "", "folder of the runs' state (default: myrmidon in the XDG state folder)")
	f.BoolVar(&a.json, "json", false, "print results as JSON, one object a line")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress")
	a.nats.add(f)
	f.StringVar(&a.logLevel, "log-level", "warn", "what is logged to stderr: debug, info, warn or error")
	root.AddGroup(
		&cobra.Group{ID: "work", Title: "Work:"},
		&cobra.Group{ID: "stores", Title: "Buckets and folders:"},
		&cobra.Group{ID: "runs", Title: "Runs:"},
		&cobra.Group{ID: "fleet", Title: "Fleet:"},
		&cobra.Group{ID: "other", Title: "Other:"},
	)
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	root.AddCommand(named(words, []making{
		{"transcode", a.transcodeCommand},
		{"clone", a.cloneCommand},
		{"logs", a.logsCommand},
		{"haproxy", func() *cobra.Command { return a.haproxyCommand(words[min(1, len(words)):]...) }},
		{"ls", a.lsCommand},
		{"du", a.duCommand},
		{"rm", a.rmCommand},
		{"product", a.productCommand},
		{"runs", a.runsCommand},
		{"parked", a.parkedCommand},
		{"worker", a.workerCommand},
		{"workers", a.workersCommand},
		{"cluster", a.clusterCommand},
	})...)
	return root
}

// making is a command that is made when it is needed.
type making struct {
	name string
	make func() *cobra.Command
}

// named makes the command whose name is the first of the words. For all else, such as help, completion and
// what does not exist, it makes all. That takes half a millisecond, which one look at HAProxy has not
// got.
func named(words []string, all []making) (out []*cobra.Command) {
	for _, m := range all {
		if len(words) > 0 && m.name == words[0] {
			return []*cobra.Command{m.make()}
		}
	}
	for _, m := range all {
		out = append(out, m.make())
	}
	return out
}

// runFlags adds the flags of commands that carry runs.
func (a *app) runFlags(f *pflag.FlagSet) {
	f.IntVar(&a.slots, "slots", runtime.NumCPU(), "jobs at once")
	f.StringVar(&a.durability, "durability", string(jetstream.Process), "what the run's state survives: process (a killed process), second (a power cut, but for its last second) or power (a power cut)")
	a.limitFlag(f)
}

// limitFlag bounds what handlers have under way at once.
func (a *app) limitFlag(f *pflag.FlagSet) {
	f.StringArrayVar(&a.limit, "limit", nil, "at most so many requests at once, by kind of job and destination: KIND=N or KIND@DESTINATION=N; may be given again")
}

// variableOf is the variable of the environment that sets a flag.
func variableOf(flag string) string {
	return "MYRMIDON_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// prepare reads flags from the environment and sets up what every command needs.
func (a *app) prepare(c *cobra.Command, _ []string) error {
	var problem error
	fromEnvironment := make(map[string]bool)
	c.Flags().VisitAll(func(f *pflag.Flag) {
		name := variableOf(f.Name)
		// An empty variable is as good as none: that is what a compose file makes of one
		// that is not set.
		if v := os.Getenv(name); v != "" && !f.Changed && problem == nil {
			fromEnvironment[f.Name] = true
			if err := c.Flags().Set(f.Name, v); err != nil {
				problem = usage(fmt.Errorf("%s=%q in the environment: %w", name, v, err))
			}
		}
	})
	if problem != nil {
		return problem
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return usage(myrmidon.WithHint(fmt.Errorf("--log-level %q is not known", a.logLevel), "use debug, info, warn or error"))
	}
	a.log = slog.New(slog.NewTextHandler(a.screen, &slog.HandlerOptions{Level: level}))
	if c.Flags().Lookup("slots") != nil {
		if a.slots < 1 {
			return usage(fmt.Errorf("--slots %d: at least one is needed", a.slots))
		}
		if _, err := jetstream.ParseDurability(a.durability); err != nil {
			return usage(err)
		}
		a.durabilityGiven = c.Flags().Changed("durability")
		a.slotsGiven = c.Flags().Changed("slots")
		if err := a.readLimits(); err != nil {
			return err
		}
	}
	return a.nats.check(fromEnvironment)
}

// hasBegun is called by a command that runs for long, once it has what it needs.
func (a *app) hasBegun() { a.begun.Do(func() { giveBackPages(a.log) }) }

// plain makes a name that came from outside fit a line of a terminal: control characters,
// which could move the cursor or pretend to be another line, become question marks.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

// plainLines is plain for a text of several lines, as joined errors are.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = plain(lines[i])
	}
	return strings.Join(lines, "\n")
}

// state opens the folder of runs.
func (a *app) state() (*engine.State, error) {
	dir := a.stateDir
	if dir == "" {
		var err error
		if dir, err = engine.DefaultStateDir(); err != nil {
			return nil, err
		}
	}
	return engine.OpenState(dir)
}

// args makes a wrong number of arguments a usage error that names the command's form.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, in []string) error {
		if err := check(c, in); err != nil {
			return usage(myrmidon.WithHint(err, "usage: "+c.UseLine()))
		}
		return nil
	}
}
