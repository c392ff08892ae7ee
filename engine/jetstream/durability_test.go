package jetstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/engine/jetstream"
	"myrmidon/internal/testkit/natsserver"
)

func TestWhatABrokerAdvertisesIsChecked(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{SyncAlways: true})
	b := connect(t, jetstream.Remote{URL: s.URL()})
	if got := b.Durability(); got != "process" {
		t.Errorf("a broker that advertises nothing has durability %q", got)
	}
	for _, asked := range []jetstream.Durability{jetstream.Second, jetstream.Power} {
		refused(t, jetstream.Remote{URL: s.URL(), Durability: asked}, fmt.Sprintf(`advertises durability "process", and %q is asked for`, asked), "myrmidon cluster --advertise "+string(asked))
	}
	levels := []jetstream.Durability{jetstream.Process, jetstream.Second, jetstream.Power}
	for i, level := range levels {
		if err := b.Advertise(t.Context(), level); err != nil {
			t.Fatal(err)
		}
		if got := b.Durability(); got != string(level) {
			t.Errorf("after it advertised %q it says %q", level, got)
		}
		for j, asked := range levels {
			cfg := jetstream.Remote{URL: s.URL(), Durability: asked}
			if j > i {
				refused(t, cfg, "is asked for", "--advertise")
			} else if got := connect(t, cfg).Durability(); got != string(level) {
				t.Errorf("a broker that advertises %q has durability %q", level, got)
			}
		}
	}
	works(t, jetstream.Remote{URL: s.URL(), Durability: jetstream.Power})
	e, err := b.Entry(t.Context(), "cluster/durability")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), e.Key, []byte("eternal"), e.Revision); err != nil {
		t.Fatal(err)
	}
	refused(t, jetstream.Remote{URL: s.URL()}, `"eternal"`, "process, second or power")
}

// copyStore copies a server's folder as it is now, while the server runs: what a killed
// process leaves.
func copyStore(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// sliceOf is the n-th batch of a plan: three jobs, the event that tells of them and the
// cursor.
func sliceOf(n int, seq uint64) engine.Batch {
	batch := engine.Batch{
		Events: []engine.Event{{Type: engine.EventPlanned, Run: runID, Step: uint32(n), Next: uint32(3 * n)}},
		Next:   engine.Cursor{Run: runID, Steps: uint32(n), Seq: seq},
	}
	for i := range 3 {
		j := job(3*(n-1) + i)
		j.Spec = json.RawMessage(`"` + strings.Repeat("x", 100*n) + `"`)
		batch.Jobs = append(batch.Jobs, j)
	}
	return batch
}

// plan stores batches first to last, which must all be new.
func plan(t *testing.T, b engine.Backend, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		c, err := b.Cursor(t.Context(), runID, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(t.Context(), sliceOf(n, c.Seq)); err != nil {
			t.Fatal(err)
		}
	}
}

// planned says how many batches are there: jobs, events and cursor must agree.
func planned(t *testing.T, b engine.Backend) int {
	t.Helper()
	c, err := b.Cursor(t.Context(), runID, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := int(c.Steps)
	var steps []int
	err = b.Read(t.Context(), runID, 0, false, func(_ uint64, e engine.Event) error {
		steps = append(steps, int(e.Step))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var firsts []int
	for _, d := range append(pull(t, b, 3*n), rest(t, b)...) {
		firsts = append(firsts, int(d.Job().First))
	}
	if !slices.Equal(steps, upTo(1, n+1)) || !slices.Equal(firsts, upTo(0, 3*n)) {
		t.Errorf("the cursor tells of %d batches; the events are of batches %v, the jobs %v", n, steps, firsts)
	}
	return n
}

// rest pulls what is still there.
func rest(t *testing.T, b engine.Backend) []engine.Delivery {
	t.Helper()
	ds, err := b.Pull(t.Context(), engine.PullRequest{Lane: lane, N: engine.MaxPull})
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

func upTo(from, to int) (out []int) {
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

func open(t *testing.T, cfg jetstream.Config) *jetstream.Backend {
	t.Helper()
	b, err := jetstream.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// newestBlock is the file that the stream of runs is written to.
func newestBlock(t *testing.T, dir string) string {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", "MYRMIDON", "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("blocks in %s: %v, %v", dir, blocks, err)
	}
	slices.SortFunc(blocks, func(a, b string) int { return len(a) - len(b) })
	return blocks[len(blocks)-1]
}

func TestACopyOfTheFolderHoldsWhatWasAnswered(t *testing.T) {
	for _, level := range []jetstream.Durability{jetstream.Process, jetstream.Second, jetstream.Power} {
		t.Run(string(level), func(t *testing.T) {
			dir := t.TempDir()
			b := open(t, jetstream.Config{Dir: dir, Durability: level})
			for n := range 3 {
				plan(t, b, n+1, n+1)
				again := open(t, jetstream.Config{Dir: copyStore(t, dir), Durability: level})
				if got := planned(t, again); got != n+1 {
					t.Errorf("%d batches are in the copy, want %d", got, n+1)
				}
				if err := again.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestATornTail cuts the newest file of a copy at each of many places, as a power cut may,
// and spoils its end.
func TestATornTail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, jetstream.Config{Dir: dir})
	const whole = 4
	plan(t, b, 1, whole)
	before, err := os.Stat(newestBlock(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	plan(t, b, whole+1, whole+1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	block, err := os.ReadFile(newestBlock(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	size, last := len(block), len(block)-int(before.Size())
	if last < 500 {
		t.Fatalf("the last batch takes %d bytes of %d", last, size)
	}
	spoilt := map[string][]byte{
		"garbage behind the end":                append(slices.Clone(block), "\x00\xff garbage \x17"...),
		"zeros behind the end":                  append(slices.Clone(block), make([]byte, 5000)...),
		"zeros in place of the last half batch": append(slices.Clone(block[:size-last/2]), make([]byte, last/2)...),
	}
	for _, cut := range []int{1, 7, 8, 9, 30, last / 4, last / 3, last / 2, last * 2 / 3, last - 30, last - 1, last} {
		spoilt[fmt.Sprintf("%d of the last batch's %d bytes are gone", cut, last)] = block[:size-cut]
	}
	for name, content := range spoilt {
		for _, state := range []string{"with", "without"} { // the index that a good end writes
			t.Run(name+", "+state+" an index", func(t *testing.T) {
				torn := copyStore(t, dir)
				if state == "without" {
					for _, pattern := range []string{"index.db", "*.idx"} {
						files, err := filepath.Glob(filepath.Join(filepath.Dir(newestBlock(t, torn)), pattern))
						if err != nil {
							t.Fatal(err)
						}
						for _, f := range files {
							if err := os.Remove(f); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
				if err := os.WriteFile(newestBlock(t, torn), content, 0o600); err != nil {
					t.Fatal(err)
				}
				again := open(t, jetstream.Config{Dir: torn})
				n := planned(t, again)
				if n != whole && n != whole+1 {
					t.Errorf("%d batches are there, want %d, the last one whole or absent", n, whole)
				}
				plan(t, again, n+1, n+2)
				if err := again.Close(); err != nil {
					t.Fatal(err)
				}
				again = open(t, jetstream.Config{Dir: torn})
				if got := planned(t, again); got != n+2 {
					t.Errorf("after two more, %d batches are there, want %d", got, n+2)
				}
			})
		}
	}
}

func TestAFolderServesOneProcess(t *testing.T) {
	dir := t.TempDir()
	b := open(t, jetstream.Config{Dir: dir})
	check := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "is open in another process") || !strings.Contains(myrmidon.Hint(err), "--state") {
			t.Errorf("the folder opened twice: %v (hint: %s)", err, myrmidon.Hint(err))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := jetstream.Open(ctx, jetstream.Config{Dir: dir})
	check(err)
	out, err := inChild(t, "open", dir).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "the queue in "+dir+" is open in another process") {
		t.Errorf("a child that opens the folder: %v\n%s", err, out)
	}
	plan(t, b, 1, 2)
	if n := planned(t, b); n != 2 {
		t.Errorf("the first one has %d batches, want 2", n)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	out, err = inChild(t, "open", dir).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "opened" {
		t.Errorf("a child that opens the folder after its close: %v\n%s", err, out)
	}
}
