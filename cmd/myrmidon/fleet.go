package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/limit"
	"myrmidon/internal/workloads"
)

// natsFlags say how to reach a fleet's broker. Secrets come from the environment or from
// files.
type natsFlags struct {
	url, creds, ca, cert, key string
	replicas                  int
}

func (n *natsFlags) add(f *pflag.FlagSet) {
	f.StringVar(&n.url, "nats", "", "address of a fleet's NATS broker or cluster: nats://host:4222, tls://host:4222")
	f.StringVar(&n.creds, "nats-creds", "", "credentials file for the broker (a user and password: MYRMIDON_NATS_USER, MYRMIDON_NATS_PASSWORD; a token: MYRMIDON_NATS_TOKEN)")
	f.StringVar(&n.ca, "nats-ca", "", "file of the certificates to trust for the broker, instead of the system's")
	f.StringVar(&n.cert, "nats-cert", "", "file of this client's certificate for the broker")
	f.StringVar(&n.key, "nats-key", "", "file of the key of --nats-cert")
	f.IntVar(&n.replicas, "nats-replicas", 0, "how many of the broker's servers keep the streams that are made: 1, 3 or 5 (default: 3 in a cluster of three or more)")
}

// check refuses what would show a secret in the list of processes, or cannot be.
func (n *natsFlags) check(fromEnvironment map[string]bool) error {
	for a := range strings.SplitSeq(n.url, ",") {
		if n.url == "" {
			break
		}
		u, err := url.Parse(strings.TrimSpace(a))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return usage(myrmidon.WithHint(errors.New("--nats is not the address of a broker"), "it looks like nats://host:4222 or tls://host:4222; several are separated by commas"))
		}
		if u.User != nil && !fromEnvironment["nats"] {
			return usage(myrmidon.WithHint(fmt.Errorf("--nats nats://…@%s: a user or token on the command line can be seen by every user of this machine", u.Host),
				"put the address into MYRMIDON_NATS, or the user into MYRMIDON_NATS_USER and MYRMIDON_NATS_PASSWORD, or the token into MYRMIDON_NATS_TOKEN"))
		}
	}
	if n.replicas < 0 || n.replicas > 5 || n.replicas > 0 && n.replicas%2 == 0 {
		return usage(fmt.Errorf("--nats-replicas %d: use 1, 3 or 5", n.replicas))
	}
	return nil
}

// natsHint is what to add to a command that is suggested.
func (a *app) natsHint() string {
	if a.fleet == nil {
		return ""
	}
	return " --nats " + a.fleet.Where()
}

// connect opens the fleet's broker, once.
func (a *app) connect(ctx context.Context) (*jetstream.Backend, error) {
	if a.fleet != nil {
		return a.fleet, nil
	}
	if a.nats.url == "" {
		return nil, missing("nats", "name the fleet's broker: --nats nats://127.0.0.1:4222; start one with: nats-server -js")
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	cfg := jetstream.Remote{
		URL: a.nats.url, Name: fmt.Sprintf("myrmidon %d on %s", os.Getpid(), host), Credentials: a.nats.creds,
		User: os.Getenv("MYRMIDON_NATS_USER"), Password: os.Getenv("MYRMIDON_NATS_PASSWORD"), Token: os.Getenv("MYRMIDON_NATS_TOKEN"),
		CA: a.nats.ca, Cert: a.nats.cert, Key: a.nats.key, Replicas: a.nats.replicas, Log: a.log,
	}
	if a.durabilityGiven {
		if cfg.Durability, err = jetstream.ParseDurability(a.durability); err != nil {
			return nil, usage(err)
		}
	}
	a.fleet, err = jetstream.Connect(ctx, cfg)
	return a.fleet, err
}

// readLimits prepares the limiters that handlers of this process share.
func (a *app) readLimits() error {
	most, err := limit.ParseMax(a.limit)
	if err != nil {
		return usage(myrmidon.WithHint(err, limit.MaxHint))
	}
	a.bound = limit.New(limit.Config{Max: most})
	return nil
}

// limited puts the limiters into what handlers are given.
func (a *app) limited() func(context.Context, string) context.Context {
	return func(ctx context.Context, kind string) context.Context { return limit.With(ctx, a.bound, kind) }
}

func (a *app) workerCommand() *cobra.Command {
	var priority int
	var only []string
	var noAdopt bool
	c := &cobra.Command{
		Use:     "worker --nats URL",
		GroupID: "fleet",
		Short:   "Do the jobs of a fleet's runs",
		Long: `Take jobs of all runs of a fleet, as many at once as there are slots, until a signal: the
first lets the jobs under way end, the second stops them, and others do them again.

Workers know the broker and the stores, and nothing of each other: start and kill as many
as you like, anywhere. A worker takes the jobs of the workloads that it can do (transcode
needs ffmpeg), in the versions that it knows. If the owner of a run dies, a worker carries
the run to its end.`,
		Example: `  myrmidon worker --nats nats://127.0.0.1:4222 --slots 2
  myrmidon worker --nats tls://broker:4222 --nats-creds worker.creds --priority 5`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.work(c.Context(), priority, only, !noAdopt) },
	}
	f := c.Flags()
	a.runFlags(f)
	f.IntVar(&priority, "priority", 0, "workers with a lower number get work first while they wait: 0 to 9")
	f.StringSliceVar(&only, "workloads", nil, "take only jobs of these workloads (default: all that this machine can do)")
	f.BoolVar(&noAdopt, "no-adopt", false, "never carry runs whose owner has died")
	mustComplete(c.RegisterFlagCompletionFunc("workloads", cobra.FixedCompletions(workloads.Names(), cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (a *app) work(ctx context.Context, priority int, only []string, adopt bool) error {
	if priority < 0 || priority > 9 {
		return usage(fmt.Errorf("--priority %d: use 0 to 9", priority))
	}
	for _, name := range only {
		if !slices.Contains(workloads.Names(), name) {
			return usage(myrmidon.WithHint(fmt.Errorf("--workloads %s: there is no such workload", name), "there are "+strings.Join(workloads.Names(), ", ")))
		}
	}
	temp, clean, err := workFolder()
	if err != nil {
		return err
	}
	defer func() {
		if cerr := clean(); cerr != nil {
			a.log.Warn("could not remove the worker's temporary folder", "err", cerr)
		}
	}()
	can, err := a.canDo(ctx, only, temp)
	if err != nil {
		return err
	}
	fleet, err := a.connect(ctx)
	if err != nil {
		return err
	}
	in := make(chan os.Signal, 4) // before there can be a job that a signal must not cut off
	signal.Notify(in, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(in)
	w, err := engine.StartWorker(fleet, engine.WorkerConfig{
		Workloads: can, Slots: a.slots, Priority: priority, Version: version, Adopt: adopt,
		Prepare: func(cfg *engine.RunConfig) {
			cfg.Enrich = present(cfg.Workload.Name, nil).Enrich
		},
		Decorate: a.limited(), Log: a.log,
	})
	if err != nil {
		return err
	}
	a.hasBegun()
	var names []string
	for _, l := range can {
		names = append(names, fmt.Sprintf("%s/%d", l.Name, l.Version))
	}
	fmt.Fprintf(a.screen, "myrmidon: worker %s takes %s, %s, from %s (durability %s)\n", w.ID(), strings.Join(names, " "), plural(a.slots, "job")+" at once", fleet.Where(), fleet.Durability())
	for n := 1; ; n++ {
		select {
		case <-w.Done():
			return w.Wait()
		case <-in:
		}
		switch n {
		case 1:
			fmt.Fprintln(a.screen, "myrmidon: finishing the jobs under way, then stopping; once more stops at once")
			w.Drain()
		case 2:
			w.Kill()
		default:
			// What is asked of a broker that does not answer would be waited for.
			return &exitError{status: exitInterrupted}
		}
	}
}

// canDo returns the workloads that this machine can do, and says what it lacks.
func (a *app) canDo(ctx context.Context, only []string, temp string) ([]myrmidon.Workload, error) {
	can, missing, err := workloads.All(ctx, a.handlers(nil, temp))
	if err != nil {
		return nil, err
	}
	if len(only) > 0 {
		can = slices.DeleteFunc(can, func(w myrmidon.Workload) bool { return !slices.Contains(only, w.Name) })
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		problem := missing[name]
		if slices.Contains(only, name) || len(can) == 0 {
			return nil, problem
		}
		if len(only) == 0 {
			a.complain(myrmidon.WithHint(fmt.Errorf("this worker takes no %s jobs: %w", name, problem), myrmidon.Hint(problem)))
		}
	}
	return can, nil
}

func (a *app) workersCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "workers --nats URL",
		GroupID: "fleet",
		Short:   "List a fleet's workers; drain one or change its priority",
		Long: `List the workers of a fleet: what they take, how many slots they have and how many are
busy. One that was not heard of for 15 seconds is lost, and forgotten after a minute.`,
		Example: `  myrmidon workers --nats nats://127.0.0.1:4222
  myrmidon workers drain 7k2m --nats nats://127.0.0.1:4222`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.listWorkers(c.Context()) },
	}
	drain := &cobra.Command{
		Use: "drain WORKER", Short: "Let a worker end when its jobs under way have ended", Example: "  myrmidon workers drain 7k2m",
		Args: args(cobra.ExactArgs(1)), ValidArgsFunction: a.completeWorkers,
		RunE: func(c *cobra.Command, in []string) error {
			return a.askWorker(c.Context(), in[0], true, nil, "finishes its jobs and ends")
		},
	}
	rank := &cobra.Command{
		Use: "priority WORKER 0..9", Short: "Rank a worker among those that wait: the lowest get work first", Example: "  myrmidon workers priority 7k2m 5",
		Args: args(cobra.ExactArgs(2)), ValidArgsFunction: a.completeWorkers,
		RunE: func(c *cobra.Command, in []string) error {
			if len(in[1]) != 1 || in[1] < "0" || in[1] > "9" {
				return usage(fmt.Errorf("priority %s: use 0 to 9", in[1]))
			}
			n := int(in[1][0] - '0')
			return a.askWorker(c.Context(), in[0], false, &n, "has priority "+in[1])
		},
	}
	c.AddCommand(drain, rank)
	return c
}

func (a *app) askWorker(ctx context.Context, prefix string, drain bool, priority *int, done string) error {
	fleet, err := a.connect(ctx)
	if err != nil {
		return err
	}
	id, err := engine.AskWorker(ctx, fleet, prefix, drain, priority)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "worker %s %s\n", id, done)
	return nil
}

func (a *app) completeWorkers(c *cobra.Command, in []string, _ string) ([]string, cobra.ShellCompDirective) {
	fleet, err := a.connect(c.Context())
	if err != nil || len(in) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := engine.Workers(c.Context(), fleet)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, w := range all {
		out = append(out, fmt.Sprintf("%s\t%s on %s", w.ID, w.Standing(), w.Host))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) listWorkers(ctx context.Context) error {
	fleet, err := a.connect(ctx)
	if err != nil {
		return err
	}
	all, err := engine.Workers(ctx, fleet)
	if err != nil {
		return err
	}
	if a.json {
		for _, w := range all {
			a.printJSON(struct {
				engine.WorkerInfo
				Standing string `json:"standing"`
			}{w, w.Standing()})
		}
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintf(a.screen, "myrmidon: no workers at %s\n", fleet.Where())
		return nil
	}
	out := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "WORKER\tHOST\tPID\tSTATE\tBUSY\tTAKES\tPRIORITY\tDONE\tSEEN\tDOING")
	for _, w := range all {
		doing := slices.Clone(w.Doing)
		for _, run := range w.Owns {
			doing = append(doing, "carries "+run)
		}
		fmt.Fprintf(out, "%s\t%s\t%d\t%s\t%d/%d\t%s\t%d\t%d\t%s ago\t%s\n", w.ID, plain(w.Host), w.PID, w.Standing(), w.Busy, w.Slots,
			strings.Join(w.Workloads, " "), w.Priority, w.Done, w.Seen.Round(time.Second), plain(strings.Join(doing, ", ")))
	}
	return out.Flush()
}

func (a *app) clusterCommand() *cobra.Command {
	var advertise string
	c := &cobra.Command{
		Use:     "cluster --nats URL",
		GroupID: "fleet",
		Short:   "Show what a fleet's broker promises, or say what it is configured for",
		Long: `Show the broker of a fleet: its servers, how many of them keep each message, and the
durability that it advertises. A server cannot be asked how often it syncs: whoever
configures it says so, once, with --advertise. Commands that ask for more with --durability
are then refused.`,
		Example: `  myrmidon cluster --nats nats://127.0.0.1:4222
  myrmidon cluster --nats nats://127.0.0.1:4222 --advertise power`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return a.cluster(c.Context(), advertise) },
	}
	c.Flags().StringVar(&advertise, "advertise", "", "what the servers are configured for: process, second (sync_interval: 1s) or power (sync_interval: always)")
	return c
}

func (a *app) cluster(ctx context.Context, advertise string) error {
	var level jetstream.Durability
	if advertise != "" {
		var err error
		if level, err = jetstream.ParseDurability(advertise); err != nil {
			return usage(err)
		}
	}
	fleet, err := a.connect(ctx)
	if err != nil {
		return err
	}
	if advertise != "" {
		if err := fleet.Advertise(ctx, level); err != nil {
			return err
		}
	}
	s, err := fleet.Standing(ctx)
	if err != nil {
		return err
	}
	if a.json {
		a.printJSON(s)
		return nil
	}
	fmt.Fprintf(a.stdout, "broker      %s\nservers     %s\nversion     %s\nreplicas    %d\ndurability  %s\nstored      %d messages, %s\n",
		s.Broker, strings.Join(s.Servers, " "), s.Version, s.Replicas, s.Durability, s.Messages, size(int64(s.Bytes)))
	if s.Replicas > 1 {
		fmt.Fprintf(a.stdout, "leader      %s, %d of %d replicas current\n", s.Leader, s.Current, s.Replicas)
	}
	return nil
}
