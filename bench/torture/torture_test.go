package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/netfault"
)

// TestMain makes this program the workers and owners of its own runs.
func TestMain(m *testing.M) {
	if status, played := play(); played {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

func TestEveryEffectIsThereOnceAfterFaults(t *testing.T) {
	long.Test(t)
	namespaces := netfault.Available() == nil
	one := newTrial(25, 500, namespaces, filepath.Join(t.TempDir(), "run"))
	out, err := one.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d brokers, namespaces %v, faults %v, repeats %d, owners %d, parked %d, %.1fs",
		one.brokers, namespaces, out.faults, out.repeats, out.owners, out.parked, out.wall.Seconds())
	for _, v := range out.violations {
		t.Error(v)
	}
	if out.faults == [3]int{} {
		t.Error("no fault struck")
	}
	if t.Failed() {
		logs, err := filepath.Glob(filepath.Join(one.dir, "*.log"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range logs {
			data, err := os.ReadFile(name)
			t.Logf("%s: %v\n%s", filepath.Base(name), err, data[max(0, len(data)-8<<10):])
		}
	}
}

func TestProxiesStandInForNamespaces(t *testing.T) {
	one := newTrial(21, 200, false, filepath.Join(t.TempDir(), "run"))
	one.strikes = []strike{{at: 0, lasts: 4e9, kind: cut, victim: "w1"}, {at: 1e9, lasts: 2e9, kind: cut, victim: ownerName}}
	out, err := one.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range out.violations {
		t.Error(v)
	}
	if out.faults[cut] == 0 {
		t.Error("nobody was cut off")
	}
}

func TestAFolderThatIsThereIsNotTakenAsAStore(t *testing.T) {
	one := newTrial(22, 200, false, t.TempDir())
	if _, err := one.run(t.Context()); !errors.Is(err, os.ErrExist) {
		t.Errorf("a run in a folder that is there: %v, want %v", err, os.ErrExist)
	}
}
