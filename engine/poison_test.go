package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/long"
)

// The environment that makes the test's own program a worker, or an owner, whose job 3
// kills it.
const (
	deadlyWorker = "MYRMIDON_TEST_DEADLY_WORKER" // a broker's address
	deadlyState  = "MYRMIDON_TEST_DEADLY_STATE"  // a state folder whose newest run is carried
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(deadlyWorker) != "":
		os.Exit(beWorker(os.Getenv(deadlyWorker)))
	case os.Getenv(deadlyState) != "":
		os.Exit(beOwner(os.Getenv(deadlyState)))
	}
	os.Exit(m.Run())
}

// deadly is a workload of twelve items, of which the fourth kills its process, as a crash
// in a library or the kernel's out-of-memory killer does.
func deadly() myrmidon.Workload {
	h := myrmidon.HandlerFunc(func(_ context.Context, j myrmidon.Job) (myrmidon.Result, error) {
		if j.First == 3 {
			time.Sleep(150 * time.Millisecond) // its neighbours are under way, and the broker knows whose it is
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				return myrmidon.Result{}, err
			}
			time.Sleep(time.Hour)
		}
		time.Sleep(250 * time.Millisecond)
		return myrmidon.Result{}, nil
	})
	return myrmidon.Workload{
		Name: "deadly", Phases: []myrmidon.Phase{{Name: "one"}}, Kinds: []myrmidon.Kind{{Name: "deadly.item", Handler: h}},
		Planner: myrmidon.PlannerFunc(func(context.Context, myrmidon.Step) (out myrmidon.Slice, _ error) {
			for i := range 12 {
				out.Jobs = append(out.Jobs, myrmidon.Planned{Kind: "deadly.item", Name: fmt.Sprint(i)})
			}
			out.Done = true
			return out, nil
		}),
	}
}

const deadlyLease = time.Second

func beWorker(url string) int {
	b, err := jetstream.Connect(context.Background(), jetstream.Remote{URL: url, Lease: deadlyLease})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	w, err := engine.StartWorker(b, engine.WorkerConfig{Workloads: []myrmidon.Workload{deadly()}, Slots: 4, Lease: deadlyLease})
	if err == nil {
		err = w.Wait()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func beOwner(dir string) int {
	state, err := engine.OpenState(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	home, err := state.Find("latest")
	if err == nil {
		err = home.Lock()
	}
	if err == nil {
		var r *engine.Run
		r, err = engine.Start(context.Background(), home, engine.RunConfig{Workload: deadly(), Slots: engine.NewSlots(4), Lease: 200 * time.Millisecond, Open: func(ctx context.Context, dir string) (engine.Backend, error) {
			return jetstream.Open(ctx, jetstream.Config{Dir: dir})
		}})
		if err == nil {
			_, err = r.Wait()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// again runs this program with env until it ends by itself or done is closed, and returns
// how often it was killed.
func again(t *testing.T, env string, done <-chan struct{}) (killed int) {
	t.Helper()
	for killed < 40 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), env)
		cmd.Stderr = os.Stderr
		check(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				return killed
			}
			if exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the process ended with %v", err)
			}
			killed++
		case <-done:
			check(t, cmd.Process.Kill())
			<-ended
			return killed
		case <-time.After(30 * time.Second):
			check(t, cmd.Process.Kill())
			<-ended
			t.Fatal("the process does nothing")
		}
	}
	t.Fatal("the job killed 40 processes and is not parked")
	return 0
}

// wantPoison checks a report in which item 3 alone was parked, as poison.
func wantPoison(t *testing.T, rep *engine.Report, killed int) {
	t.Helper()
	if rep.State != myrmidon.Partial || rep.Counts.Done != 11 || rep.Counts.Failed != 1 || len(rep.Parked) != 1 {
		t.Fatalf("the run is %s with %+v and %d parked jobs, want partial, 11 done, 1 parked", rep.State, rep.Counts, len(rep.Parked))
	}
	p := rep.Parked[0]
	if p.Job.First != 3 || !strings.Contains(p.Reason.Message, "workers ended") || p.Reason.Hint == "" {
		t.Errorf("parked is job %d: %+v", p.Job.First, p.Reason)
	}
	if killed < 2 || killed > 30 {
		t.Errorf("the job killed %d processes, want some twenty", killed)
	}
}

func TestAJobThatKillsItsWorkersIsParkedAlone(t *testing.T) {
	long.Test(t)
	t.Parallel()
	f := newFleet(t)
	b := f.connect(f.server.URL())
	_, r := f.run(b, deadly())
	var killed int
	var wg sync.WaitGroup
	wg.Go(func() { killed = again(t, deadlyWorker+"="+f.server.URL(), r.Done()) })
	select {
	case <-r.Done():
	case <-time.After(3 * time.Minute):
		t.Error("the run did not end")
		r.Kill()
	}
	wg.Wait()
	rep, err := r.Wait()
	check(t, err)
	wantPoison(t, rep, killed)
}

func TestAJobThatKillsItsOwnProcessIsParkedAlone(t *testing.T) {
	long.Test(t)
	t.Parallel()
	dir := t.TempDir()
	state, err := engine.OpenState(dir)
	check(t, err)
	home, err := state.Create(engine.Info{Workload: "deadly", Title: "deadly", Spec: json.RawMessage(`{}`)})
	check(t, err)
	check(t, home.Unlock())
	killed := again(t, deadlyState+"="+dir, nil)
	rep, err := home.Report()
	check(t, err)
	wantPoison(t, rep, killed)
}
