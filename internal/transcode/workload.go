package transcode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/limit"
	"myrmidon/object"
)

// The kinds of jobs.
const (
	KindEncode  = "transcode.encode"  // one chunk, at every size
	KindAudio   = "transcode.audio"   // the sound, whole
	KindVerify  = "transcode.verify"  // what an item of the encode phase left
	KindPublish = "transcode.publish" // init segments and playlists
)

// The phases, in order.
const (
	phaseEncode = iota
	phaseVerify
	phasePublish
)

// In the encode and verify phases, chunks are the items of shard 0, and the sound is
// the one item of a shard of its own.
const (
	shardVideo = iota
	shardAudio
)

// sliceJobs is how many jobs a slice of the plan holds at most.
const sliceJobs = 800

// Config is what the workload needs of its surroundings.
type Config struct {
	Tools *ffmpeg.Tools
	// Open returns the store at an address.
	Open func(addr string) (object.Store, error)
	// OpenObject returns the store of the one object at an address, and its key. Without
	// it sources are files of this machine.
	OpenObject func(address string) (store object.Store, key string, err error)
	// TempDir is where jobs make folders of their own, named myrmidon-RUN-*, which they
	// remove. A killed process leaves them: whoever owns TempDir sweeps it.
	// "" means the system's.
	TempDir string
	Log     *slog.Logger // nil discards
}

// Workload returns the transcode workload: phases encode, verify, publish. Verify and
// publish do not start after failures, so that nothing is published unless all of it
// is whole.
func Workload(cfg Config) myrmidon.Workload {
	w := newWorker(cfg)
	return myrmidon.Workload{
		Name: "transcode",
		// Raised when Spec or task changes its shape, so that what an older version
		// stored would be read wrongly, or a newer one's by an older worker.
		Version: 1,
		Phases:  []myrmidon.Phase{{Name: "encode"}, {Name: "verify"}, {Name: "publish"}},
		Planner: myrmidon.PlannerFunc(w.planStep),
		Kinds: []myrmidon.Kind{
			{Name: KindEncode, Handler: myrmidon.HandlerFunc(w.encode), Long: true},
			{Name: KindAudio, Handler: myrmidon.HandlerFunc(w.sound), Long: true},
			{Name: KindVerify, Handler: myrmidon.HandlerFunc(w.verify), Long: true},
			{Name: KindPublish, Handler: myrmidon.HandlerFunc(w.publish)},
		},
	}
}

type worker struct {
	cfg Config
	log *slog.Logger
}

func newWorker(cfg Config) *worker {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &worker{cfg: cfg, log: log}
}

// Inspect is [Config.Inspect] for files of this machine.
func Inspect(ctx context.Context, tools *ffmpeg.Tools, spec Spec) (*Plan, myrmidon.Usage, error) {
	return Config{Tools: tools}.Inspect(ctx, spec)
}

// Inspect plans spec without writing anything: it looks at the source's first bytes,
// hashes it if it is a file of this machine, probes it and makes the plan. A file that
// seems damaged is decoded, too. It needs neither Open nor the destination.
func (c Config) Inspect(ctx context.Context, spec Spec) (*Plan, myrmidon.Usage, error) {
	m := newMeter()
	if err := spec.Validate(); err != nil {
		return nil, m.usage(nil), err
	}
	src, err := c.find(ctx, spec.Source)
	if err != nil {
		return nil, m.usage(nil), err
	}
	p, err := inspect(ctx, c.Tools, src, spec.Product, tempDir{c.TempDir, "plan"}, m)
	return p, m.usage(nil), err
}

func inspect(ctx context.Context, tools *ffmpeg.Tools, src *source, product Product, temp tempDir, m *meter) (_ *Plan, err error) {
	media, err := src.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, media.Close())
		m.Read += src.taken.Load()
	}()
	container, err := media.Sniff(ctx)
	if err != nil {
		return nil, err
	}
	id, err := src.identify(ctx)
	if src.path != "" {
		m.Read += id.Size
	}
	if err != nil {
		return nil, err
	}
	dir, err := temp.make()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	probe, out, err := tools.ProbeMedia(ctx, media, dir)
	m.add(out)
	if err != nil {
		return nil, err
	}
	complaint, damaged := strings.CutPrefix(probe.Damage, "damaged: ")
	if damaged {
		probe.Damage = ""
	}
	p, err := MakePlan(id, container, probe, product, tools.Build)
	if err == nil && damaged {
		err = settle(ctx, tools, p, media, dir, complaint, m)
	}
	return p, err
}

// cursor is where the planning of a shard stands.
type cursor struct {
	Origin origin `json:"origin"`
	Next   int    `json:"next"` // chunk
}

// planStep is the planner. Only the first step of the first phase looks at the
// source; all others go by what that one stored.
func (w *worker) planStep(ctx context.Context, step myrmidon.Step) (myrmidon.Slice, error) {
	spec, err := parseSpec(step.Spec)
	if err != nil {
		return myrmidon.Slice{}, err
	}
	m := newMeter()
	if step.Phase > phasePublish || step.Shard > shardAudio {
		return myrmidon.Slice{}, myrmidon.Permanent(fmt.Errorf("transcode: there is no phase %d, shard %d", step.Phase, step.Shard))
	}
	var at cursor
	var note json.RawMessage
	switch {
	case len(step.Cursor) > 0:
		if err := json.Unmarshal(step.Cursor, &at); err != nil {
			return myrmidon.Slice{}, myrmidon.Permanent(fmt.Errorf("transcode: read the plan's cursor: %w", err))
		}
	case step.Phase == phaseEncode && step.Shard == shardVideo:
		if at.Origin, note, err = w.start(ctx, step.Run, spec, m); err != nil {
			return myrmidon.Slice{Usage: m.usage(nil)}, err
		}
	default:
		store, err := w.store(ctx, spec.Dest)
		if err != nil {
			return myrmidon.Slice{}, err
		}
		if err := store.getJSON(ctx, originKey(spec.Name, step.Run), &at.Origin); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				err = myrmidon.Permanent(myrmidon.WithHint(err, "start a new run: it finds what this one has finished"))
			}
			return myrmidon.Slice{}, fmt.Errorf("transcode: read what was planned: %w", err)
		}
	}
	slice, err := planSlice(spec, step, at)
	slice.Note = note
	slice.Usage = m.usage(nil)
	return slice, err
}

// start makes and stores the plan, and then where to find it.
func (w *worker) start(ctx context.Context, run string, spec Spec, m *meter) (origin, json.RawMessage, error) {
	var o origin
	store, err := w.store(ctx, spec.Dest)
	if err != nil {
		return o, nil, err
	}
	// Better now than after an hour of encoding.
	if checker, ok := store.Store.(interface{ Writable(context.Context) error }); ok {
		if err := checker.Writable(ctx); err != nil {
			return o, nil, err
		}
	}
	// Looked at before it is read: what changes while it is read is noticed later.
	src, err := w.cfg.find(ctx, spec.Source)
	if err != nil {
		return o, nil, err
	}
	p, err := inspect(ctx, w.cfg.Tools, src, spec.Product, tempDir{w.cfg.TempDir, run}, m)
	if err != nil {
		return o, nil, err
	}
	o = origin{
		Plan: p.planKey(spec.Name), Audio: p.Audio != nil, Chunks: len(p.Chunks), Frames: p.Frames,
	}
	src.note(&o)
	if err := store.putJSON(ctx, o.Plan, p); err != nil {
		return o, nil, fmt.Errorf("transcode: store the plan: %w", err)
	}
	if err := store.putJSON(ctx, originKey(spec.Name, run), o); err != nil {
		return o, nil, fmt.Errorf("transcode: store the plan's place: %w", err)
	}
	note, err := json.Marshal(p.Summary())
	return o, note, err
}

// planSlice emits the jobs of one slice. It is a pure function of its arguments.
func planSlice(spec Spec, step myrmidon.Step, at cursor) (myrmidon.Slice, error) {
	t := task{
		Source: spec.Source, Dest: spec.Dest, Name: spec.Name,
		Verify: spec.Verify, Force: spec.Force, Origin: at.Origin,
	}
	one := func(kind, name string, chunk int) (myrmidon.Planned, error) {
		t.Chunk = chunk
		b, err := json.Marshal(t)
		return myrmidon.Planned{Kind: kind, Name: name, Spec: b}, err
	}
	var slice myrmidon.Slice
	chunkKind, audioKind := KindEncode, KindAudio
	if step.Phase == phaseVerify {
		chunkKind, audioKind = KindVerify, KindVerify
	}
	switch {
	case step.Phase == phasePublish:
		job, err := one(KindPublish, "playlists", 0)
		return myrmidon.Slice{Jobs: []myrmidon.Planned{job}, Group: "playlists", Done: true}, err
	case step.Shard == shardAudio:
		job, err := one(audioKind, "sound", audioItem)
		return myrmidon.Slice{Jobs: []myrmidon.Planned{job}, Group: "sound", Done: true}, err
	}
	to := min(at.Next+sliceJobs, at.Origin.Chunks)
	for k := at.Next; k < to; k++ {
		job, err := one(chunkKind, fmt.Sprintf("chunk %d of %d", k+1, at.Origin.Chunks), k)
		if err != nil {
			return slice, err
		}
		if step.Phase == phaseEncode {
			// Chunks are near equal; the few frames between them do not show in a bar.
			n := int64(at.Origin.Chunks)
			job.Units = at.Origin.Frames*int64(k+1)/n - at.Origin.Frames*int64(k)/n
		}
		slice.Jobs = append(slice.Jobs, job)
	}
	if at.Next == 0 {
		slice.Group = "pictures"
		if at.Origin.Audio {
			c, err := json.Marshal(cursor{Origin: at.Origin})
			if err != nil {
				return slice, err
			}
			slice.Children = []myrmidon.Shard{{ID: shardAudio, Group: "sound", Cursor: c}}
		}
	}
	if to == at.Origin.Chunks {
		slice.Done = true
		return slice, nil
	}
	c, err := json.Marshal(cursor{Origin: at.Origin, Next: to})
	slice.Cursor = c
	return slice, err
}

// Summary is a plan in a few words, for whoever watches the run.
type Summary struct {
	Source      string   `json:"source"`           // base name
	SHA256      string   `json:"sha256,omitempty"` // of a file of this machine
	ETag        string   `json:"etag,omitempty"`   // of an object: see [Source]
	Width       int      `json:"width"`            // as it is shown
	Height      int      `json:"height"`
	Rate        string   `json:"fps"`      // of the output: "23.976"
	Duration    float64  `json:"duration"` // seconds
	Renditions  []string `json:"renditions"`
	Chunks      int      `json:"chunks"`
	AudioItems  int      `json:"audio_items"`
	Frames      int64    `json:"frames"`
	Segments    int      `json:"segments"`
	Estimate    Estimate `json:"estimate"`
	FFmpegBuild string   `json:"ffmpeg_build"`
	// Probe is what was known of the source, without its list of keyframes.
	Probe ffmpeg.Probe `json:"probe"`
}

// Summary describes p.
func (p *Plan) Summary() Summary {
	s := Summary{
		Source: p.Source.Name, SHA256: p.Source.SHA256, ETag: p.Source.ETag,
		Width: p.Input.Width, Height: p.Input.Height,
		Rate: rateText(p.Rate.Float()), Duration: p.Duration(),
		Chunks: len(p.Chunks), AudioItems: p.Items() - len(p.Chunks),
		Frames: p.Frames, Segments: p.Segments,
		Estimate: p.Estimate(), FFmpegBuild: p.Build, Probe: p.Probe,
	}
	for _, r := range p.Renditions {
		s.Renditions = append(s.Renditions, r.Name)
	}
	return s
}

func (w *worker) store(ctx context.Context, addr string) (*meteredStore, error) {
	s, err := w.cfg.Open(addr)
	if err != nil {
		return nil, fmt.Errorf("transcode: open %s: %w", addr, err)
	}
	return &meteredStore{Store: s, permits: limit.Of(ctx, limit.Destination(addr))}, nil
}

// jobContext is what a handler has at hand while it does one job.
type jobContext struct {
	w     *worker
	task  task
	plan  *Plan
	media *ffmpeg.Media // the source, where the job reads it
	store *meteredStore
	meter *meter
	dir   string      // private folder
	made  *itemResult // once it is stored
}

// open reads a job's spec and plan. The context that it returns is never nil.
func (w *worker) open(ctx context.Context, job myrmidon.Job) (*jobContext, error) {
	j := &jobContext{w: w, meter: newMeter()}
	if err := json.Unmarshal(job.Spec, &j.task); err != nil {
		return j, myrmidon.Permanent(fmt.Errorf("transcode: read the job's spec: %w", err))
	}
	err := checkAddress(j.task.Source)
	if err != nil {
		return j, myrmidon.Permanent(fmt.Errorf("transcode: the job's source: %w", err))
	}
	if j.store, err = w.store(ctx, j.task.Dest); err != nil {
		return j, err
	}
	if j.plan, err = loadPlan(ctx, j.store, j.task.Origin.Plan); err != nil {
		return j, err
	}
	if c := j.task.Chunk; c < audioItem || c >= len(j.plan.Chunks) || c == audioItem && j.plan.Audio == nil ||
		c == audioItem && job.Kind == KindEncode || c != audioItem && job.Kind == KindAudio {
		return j, myrmidon.Permanent(fmt.Errorf("transcode: the plan has no item %d for %s", c, job.Kind))
	}
	return j, nil
}

// source names the file for people.
func (j *jobContext) source() string { return j.plan.Source.Name }

// what names the item for people.
func (j *jobContext) what() string {
	if j.task.Chunk == audioItem {
		return "sound"
	}
	return fmt.Sprintf("chunk %d of %d", j.task.Chunk+1, len(j.plan.Chunks))
}

// result is the job's result: its usage, and the evidence if there is any.
func (j *jobContext) result(job myrmidon.Job, made *itemResult) myrmidon.Result {
	r := myrmidon.Result{Usage: j.meter.usage(j.store)}
	if made == nil {
		return r
	}
	for i := range job.Items() {
		r.Items = append(r.Items, myrmidon.ItemResult{Index: i, Name: j.what(), Bytes: made.bytes()})
	}
	return r
}
