package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon/engine"
	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/s3server"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

// fleetShop is a shop with a broker, buckets and workers.
type fleetShop struct {
	*shop
	broker *natsserver.Server
	env    []string
}

func newFleetShop(t *testing.T, seconds int) *fleetShop {
	t.Helper()
	f := &fleetShop{shop: newShop(t, seconds), broker: natsserver.Start(t, natsserver.Options{})}
	s3 := s3server.Start(t)
	s3.Setenv(t)
	for _, b := range []string{"masters", "products"} {
		s3.Bucket(t, b)
	}
	f.env = append(s3.Env(), "MYRMIDON_NATS="+f.broker.URL())
	store, key, err := wire.Object("s3://masters/film.mp4")
	if err != nil {
		t.Fatal(err)
	}
	film, err := os.ReadFile(f.film)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), key, bytes.NewReader(film), int64(len(film)), object.Attrs{}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleetShop) fleetCommand(args ...string) *exec.Cmd {
	c := f.command("fleet", args...)
	var env []string
	for _, e := range c.Env {
		if !strings.HasPrefix(e, "MYRMIDON_SLOTS=") {
			env = append(env, e)
		}
	}
	c.Env = append(env, f.env...)
	return c
}

// output runs a command to its end.
func (f *fleetShop) output(args ...string) string {
	f.t.Helper()
	c := f.fleetCommand(args...)
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	if err := c.Run(); err != nil {
		f.t.Fatalf("myrmidon %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), problems.String())
	}
	return out.String()
}

// worker starts a worker that ends with the test.
func (f *fleetShop) worker() *exec.Cmd {
	f.t.Helper()
	c := f.fleetCommand("worker", "--slots", "1")
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	f.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = c.Process.Kill()
			<-ended
			f.t.Error("a worker did not end on SIGTERM")
		}
	})
	return c
}

// objects returns the objects of a product with their hashes.
func (f *fleetShop) objects(prefix string) map[string]string {
	f.t.Helper()
	store, err := wire.Store("s3://products/" + prefix)
	if err != nil {
		f.t.Fatal(err)
	}
	out := make(map[string]string)
	for info, err := range store.List(f.t.Context(), "", "") {
		if err != nil {
			f.t.Fatal(err)
		}
		body, _, err := store.Get(f.t.Context(), info.Key, 0, -1)
		if err != nil {
			f.t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, body); err != nil {
			f.t.Fatal(err)
		}
		body.Close()
		out[info.Key] = fmt.Sprintf("%x", sum.Sum(nil))
	}
	return out
}

func TestTwoWorkersOneKilledAndABrokerRestartedGiveTheSameBytes(t *testing.T) {
	long.Test(t)
	f := newFleetShop(t, 48)
	first := f.worker()
	f.worker()
	transcode := func(to string) []string {
		return []string{"transcode", "s3://masters/film.mp4", "--to", "s3://products/" + to, "--product", "small.yaml", "-q"}
	}
	f.output(transcode("quiet")...)
	want := f.objects("quiet")
	if len(want) < 10 || want["film/hls/master.m3u8"] == "" {
		t.Fatalf("the undisturbed run made %d objects", len(want))
	}

	before := f.encodes()
	rough := f.fleetCommand(transcode("rough")...)
	var out, problems bytes.Buffer
	rough.Stdout, rough.Stderr = &out, &problems
	if err := rough.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); f.encodes() < before+2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no worker encodes\n%s", problems.String())
		}
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := f.broker.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if err := f.broker.Restart(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- rough.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("%v\n%s", err, problems.String())
		}
	case <-time.After(150 * time.Second):
		_ = rough.Process.Kill()
		t.Fatalf("the run did not end\n%s", problems.String())
	}
	got := f.objects("rough")
	for key, sum := range want {
		if got[key] != sum {
			t.Errorf("%s differs from the undisturbed run (have it: %v)", key, got[key] != "")
		}
	}
	for key := range got {
		if want[key] == "" {
			t.Errorf("%s is left over", key)
		}
	}

	// What the fleet's commands say of it.
	var infos []engine.Info
	for line := range strings.Lines(f.output("runs", "--json")) {
		var i engine.Info
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			t.Fatal(err)
		}
		infos = append(infos, i)
	}
	if len(infos) != 2 || infos[0].Counts.Failed != 0 || infos[0].Counts.Done != infos[1].Counts.Done {
		t.Errorf("runs: %+v", infos)
	}
	lines := strings.Split(strings.TrimSpace(f.output("runs", "items", "latest")), "\n")
	if len(lines) != int(infos[0].Counts.Done) {
		t.Errorf("%d lines of evidence for %d items", len(lines), infos[0].Counts.Done)
	}
	if s := f.output("runs", "show", "latest"); !strings.Contains(s, "verified") || !strings.Contains(s, "runs items") {
		t.Errorf("runs show prints\n%s", s)
	}
	if s := f.output("workers"); !strings.Contains(s, "transcode/1") {
		t.Errorf("workers prints\n%s", s)
	}
	left, err := filepath.Glob(filepath.Join(f.dir, "tmp", "myrmidon-*", "myrmidon-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range left {
		if strings.Contains(dir, infos[0].ID) {
			continue // of the killed worker: the next one to start removes it
		}
		t.Errorf("%s is left", dir)
	}
}
