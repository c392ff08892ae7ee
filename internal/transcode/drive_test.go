package transcode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
	"myrmidon/object"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// tools finds ffmpeg once. A test that needs it fails without it.
var tools = sync.OnceValues(func() (*ffmpeg.Tools, error) { return ffmpeg.Find(context.Background()) })

func needTools(t testing.TB) *ffmpeg.Tools {
	t.Helper()
	found, err := tools()
	if err != nil {
		t.Fatalf("these tests need ffmpeg: %v (%s)", err, myrmidon.Hint(err))
	}
	return found
}

// clip makes a media file with ffmpeg: args are all but the output.
func clip(t testing.TB, name string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	ffmpegRun(t, append(append([]string{"-y"}, args...), file)...)
	return file
}

// lavfi is the input of moving pictures of so many seconds.
func lavfi(size, rate string, seconds float64) []string {
	return []string{"-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=%s:r=%s:d=%g", size, rate, seconds)}
}

// fast are cheap settings for H.264 sources.
func fast(extra ...string) []string {
	return append([]string{"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"}, extra...)
}

func join(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// ffmpegRun runs ffmpeg as a user would and returns what it printed.
func ffmpegRun(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(needTools(t).FFmpeg, append([]string{"-v", "error", "-nostdin"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("ffmpeg %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	if errs.Len() > 0 {
		t.Logf("ffmpeg says: %s", errs.String())
	}
	return out.String()
}

// small is the default product with sizes that encode in a moment, and segments of
// a second so that short clips are split.
func small() Product {
	p := Default()
	p.Segment = 1
	p.Preset = "ultrafast"
	p.Rungs = []Rung{
		{Name: "180p", Width: 320, Height: 180, CRF: 23, MaxRate: 1000, BufSize: 1500, Profile: "high"},
		{Name: "90p", Width: 160, Height: 90, CRF: 23, MaxRate: 400, BufSize: 600, Profile: "high"},
	}
	return p
}

// bench is a run's surroundings: a store and a temporary folder.
type bench struct {
	t        testing.TB
	dir      string // of the store, if it is a folder
	temp     string
	workload myrmidon.Workload
	handlers map[string]myrmidon.Handler
	usage    myrmidon.Usage // summed up over all jobs
	notes    []json.RawMessage
}

func newBench(t testing.TB) *bench {
	return newBenchOn(t, t.TempDir())
}

func newBenchOn(t testing.TB, dir string) *bench {
	t.Helper()
	b := newBenchWith(t, func(addr string) (object.Store, error) {
		if addr != "test" {
			return nil, fmt.Errorf("no store %q", addr)
		}
		return object.NewDir(dir)
	}, nil)
	b.dir = dir
	return b
}

// newBenchWith is for stores of all kinds: see [Config].
func newBenchWith(t testing.TB, open func(string) (object.Store, error), openObject func(string) (object.Store, string, error)) *bench {
	t.Helper()
	b := &bench{t: t, temp: t.TempDir(), handlers: map[string]myrmidon.Handler{}}
	b.workload = Workload(Config{Tools: needTools(t), TempDir: b.temp, Open: open, OpenObject: openObject})
	for _, k := range b.workload.Kinds {
		b.handlers[k.Name] = k.Handler
	}
	return b
}

func specOf(source string, product Product) Spec {
	return Spec{Source: source, Dest: "test", Name: SafeName(source), Product: product}
}

// run plans and does a whole run, each job as it would come over a queue. A
// failing job ends it.
func (b *bench) run(spec Spec) (*Output, error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var output json.RawMessage
	for phase := range b.workload.Phases {
		jobs, err := b.jobs(raw, uint32(phase))
		if err != nil {
			return nil, err
		}
		for _, job := range jobs {
			r, err := b.handlers[job.Kind].Handle(b.t.Context(), job)
			b.usage.CPU += r.Usage.CPU
			b.usage.Read += r.Usage.Read
			b.usage.PeakRSS = max(b.usage.PeakRSS, r.Usage.PeakRSS)
			if err != nil {
				return nil, err
			}
			if r.Output != nil {
				output = r.Output
			}
		}
	}
	if left, err := os.ReadDir(b.temp); err != nil || len(left) > 0 {
		return nil, fmt.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	out := new(Output)
	return out, json.Unmarshal(output, out)
}

const testRun = "01JTESTRUN"

// jobs plans a phase to its end.
func (b *bench) jobs(spec json.RawMessage, phase uint32) ([]myrmidon.Job, error) {
	var jobs []myrmidon.Job
	shards := []myrmidon.Shard{{}}
	for len(shards) > 0 {
		shard := shards[0]
		shards = shards[1:]
		step := myrmidon.Step{Run: testRun, Spec: spec, Phase: phase, Shard: shard.ID, Cursor: shard.Cursor}
		for {
			slice, err := b.workload.Planner.Plan(b.t.Context(), step)
			b.usage.CPU += slice.Usage.CPU
			b.usage.Read += slice.Usage.Read
			if err != nil {
				return nil, err
			}
			for _, p := range slice.Jobs {
				n := max(1, p.Count)
				if len(p.Spec) > myrmidon.MaxJobSpec {
					return nil, errors.New("a job's spec is too large")
				}
				jobs = append(jobs, myrmidon.Job{
					Kind: p.Kind, Run: testRun, Phase: phase, Shard: shard.ID,
					First: step.Next, Count: n, Attempt: 1, Name: p.Name, Spec: p.Spec,
				})
				step.Next += n
			}
			if slice.Note != nil {
				b.notes = append(b.notes, slice.Note)
			}
			shards = append(shards, slice.Children...)
			step.Cursor = slice.Cursor
			if slice.Done {
				break
			}
		}
	}
	return jobs, nil
}

// mustRun is run for tests of what comes out.
func (b *bench) mustRun(spec Spec) *Output {
	b.t.Helper()
	out, err := b.run(spec)
	if err != nil {
		b.t.Fatalf("run: %v (hint: %s)", err, myrmidon.Hint(err))
	}
	return out
}
