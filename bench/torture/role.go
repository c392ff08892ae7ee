package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
)

// roleKey names the environment variable that makes this program a worker or an owner.
const roleKey = "MYRMIDON_TORTURE_ROLE"

// role is what a worker or an owner is told.
type role struct {
	Name    string `json:"name"`    // ownerName or a worker's
	Broker  string `json:"broker"`  // addresses
	Effects string `json:"effects"` // host:port
	Spec    spec   `json:"spec"`    // of the run that an owner carries
	Slots   int    `json:"slots"`   // of a worker
}

// deliveryLease is short, so that the faults outlast it.
const deliveryLease = 3 * time.Second

// exitTaken is the exit status of an owner whose run was taken over by another.
const exitTaken = 3

// play plays the role that the environment gives to this process, and returns its exit
// status; false if it gives none.
func play() (status int, played bool) {
	text := os.Getenv(roleKey)
	if text == "" {
		return 0, false
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: shortTime}))
	var r role
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		log = log.With("pid", os.Getpid())
		log.Info("a life begins", "role", r.Name)
		err = r.play(log)
	}
	if err != nil {
		log.Error("a life ends", "err", err, "hint", myrmidon.Hint(err))
		if errors.Is(err, engine.ErrOwned) {
			return exitTaken, true
		}
		return 1, true
	}
	log.Info("a life ends")
	return 0, true
}

// shortTime keeps times readable.
func shortTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format("15:04:05.000"))
	}
	return a
}

func (r role) play(log *slog.Logger) error {
	// The signal is never given back: it may come while the process ends by itself.
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	go func() { <-asked; stop() }()
	fleet, err := r.connect(ctx, log)
	if err != nil || fleet == nil {
		return err
	}
	w := load(newOutside(r.Effects).put)
	if r.Name == ownerName {
		err = r.own(ctx, fleet, w, log)
	} else {
		err = r.work(ctx, fleet, w, log)
	}
	return errors.Join(err, fleet.Close())
}

// connect connects to the broker, which may be down while this process starts; nil if
// ctx ends before it is there.
func (r role) connect(ctx context.Context, log *slog.Logger) (*jetstream.Backend, error) {
	for {
		fleet, err := jetstream.Connect(ctx, jetstream.Remote{URL: r.Broker, Name: r.Name, Lease: deliveryLease, Log: log})
		if err == nil {
			return fleet, nil
		}
		log.Warn("could not connect, trying again", "err", err)
		if sleep(ctx, 500*time.Millisecond) != nil {
			return nil, nil
		}
	}
}

func (r role) work(ctx context.Context, fleet engine.Fleet, w myrmidon.Workload, log *slog.Logger) error {
	worker, err := engine.StartWorker(fleet, engine.WorkerConfig{
		Workloads: []myrmidon.Workload{w}, Slots: r.Slots, Version: "torture", Lease: deliveryLease, Adopt: true, Log: log,
	})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, worker.Drain)
	defer stop()
	return worker.Wait()
}

// own makes the run, or takes it up where an earlier life has left it, and carries it to
// its end.
func (r role) own(ctx context.Context, fleet engine.Fleet, w myrmidon.Workload, log *slog.Logger) error {
	home, err := r.home(ctx, fleet, log)
	if err != nil || home == nil {
		return err
	}
	run, err := engine.Start(ctx, home, engine.RunConfig{Workload: w, Lease: deliveryLease, Log: log})
	if err != nil {
		return errors.Join(err, home.Unlock())
	}
	stop := context.AfterFunc(ctx, run.Drain)
	defer stop()
	rep, err := run.Wait()
	if err == nil {
		log.Info("the run has ended", "state", rep.State)
	}
	return err
}

// home returns the run, locked; nil if it has ended, or ctx.
func (r role) home(ctx context.Context, fleet engine.Fleet, log *slog.Logger) (engine.Home, error) {
	runs := engine.RunsOf(fleet)
	info, err := findRun(runs, r.Spec.Tag)
	if errors.Is(err, engine.ErrNoRun) {
		text, err := json.Marshal(r.Spec)
		if err != nil {
			return nil, err
		}
		return runs.Create(engine.Info{Workload: workload, Version: 1, Title: r.Spec.Tag, Spec: text})
	}
	if err != nil {
		return nil, err
	}
	home, err := runs.Find(info.ID)
	if err != nil {
		return nil, err
	}
	for {
		if info, err = home.Info(); err != nil || info.State.Ended() {
			return nil, err
		}
		if err = home.Lock(); err == nil {
			from := info.Owner
			if info, err = home.Info(); err != nil || info.State.Ended() {
				return nil, errors.Join(err, home.Unlock()) // it ended between the two
			}
			log.Info("took the run", "run", info.ID, "from", from.String())
			return home, nil
		}
		if !errors.Is(err, engine.ErrOwned) {
			return nil, err
		}
		if sleep(ctx, 500*time.Millisecond) != nil {
			return nil, nil
		}
	}
}

// findRun returns the run of a tag. The error wraps engine.ErrNoRun if there is none.
func findRun(runs *engine.FleetRuns, tag string) (engine.Info, error) {
	all, problems, err := runs.List()
	if err = errors.Join(append(problems, err)...); err != nil {
		return engine.Info{}, err
	}
	for _, info := range all {
		if info.Title == tag {
			return info, nil
		}
	}
	return engine.Info{}, fmt.Errorf("torture: %s: %w", tag, engine.ErrNoRun)
}
