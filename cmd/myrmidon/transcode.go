package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/cost"
	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/transcode"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

type transcodeFlags struct {
	to, product, verify, name string
	force, dryRun             bool
}

func (a *app) transcodeCommand() *cobra.Command {
	var f transcodeFlags
	c := &cobra.Command{
		Use:     "transcode FILE... --to FOLDER",
		GroupID: "work",
		Short:   "Make adaptive HLS streams from video files",
		Long: `Make an adaptive HLS stream (fragmented MP4, H.264 and AAC) from each video file.

The file is cut into chunks that are encoded side by side, one decode for all sizes, and
stitched without a lost or doubled frame. Every frame is checked before the playlists are
written, the main one last: FOLDER/NAME/hls/master.m3u8. Sizes larger than the source are
left out. What is finished is found again by name when the command is repeated.

Needs ffmpeg 5.1 or later with libx264.`,
		Example: `  myrmidon transcode talk.mp4 --to ./out
  myrmidon transcode uploads/*.mov --to /srv/media --product ladder.yaml
  myrmidon transcode talk.mp4 --to ./out --dry-run`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, in []string) error { return a.transcode(c.Context(), f, in) },
	}
	fl := c.Flags()
	fl.StringVar(&f.to, "to", "", "folder that the streams are written to (required)")
	fl.StringVar(&f.product, "product", "", "YAML file that describes the ladder; myrmidon product prints the default one")
	fl.StringVar(&f.verify, "verify", transcode.VerifyQuick, "what is decoded to check the result: quick (a keyframe a segment) or decode (every frame)")
	fl.StringVar(&f.name, "name", "", "name of the stream's folder, for a single file (default: the file's name)")
	fl.BoolVar(&f.force, "force", false, "encode anew what is finished already")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print plan, CPU time and cost; write nothing")
	a.runFlags(fl)
	mustComplete(c.MarkFlagDirname("to"))
	mustComplete(c.MarkFlagFilename("product", "yaml", "yml"))
	mustComplete(c.RegisterFlagCompletionFunc("verify", cobra.FixedCompletions(
		[]string{transcode.VerifyQuick, transcode.VerifyDecode}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// mustComplete is for the registration of completions, which fails only for a flag that
// the lines above did not define.
func mustComplete(err error) {
	if err != nil {
		panic(err)
	}
}

// transcode makes a run for each file.
func (a *app) transcode(ctx context.Context, f transcodeFlags, files []string) error {
	switch {
	case f.to == "":
		return usage(myrmidon.WithHint(errors.New("--to is missing"), "name the folder that the streams are written to: --to ./out"))
	case f.verify != transcode.VerifyQuick && f.verify != transcode.VerifyDecode:
		return usage(fmt.Errorf("--verify %s: use quick or decode", f.verify))
	case f.name != "" && len(files) > 1:
		return usage(fmt.Errorf("--name names one stream, but there are %d files", len(files)))
	}
	product := transcode.Default()
	if f.product != "" {
		var err error
		if product, err = readProduct(f.product); err != nil {
			return err
		}
	}
	dest, err := wire.Folder(f.to)
	if err != nil {
		return usage(err)
	}
	specs, bad, err := a.specs(f, files, dest, product)
	if err != nil {
		return err
	}
	c, err := a.carrier(ctx, "transcode")
	if err != nil {
		return err
	}
	c.total = len(files)
	for _, err := range bad {
		c.fail(err)
		if a.json {
			a.printJSON(map[string]any{"state": myrmidon.Failed, "error": myrmidon.AsFailure(err)})
		}
	}
	if f.dryRun {
		return c.dryRun(ctx, specs)
	}
	if len(specs) == 0 {
		return c.verdict()
	}
	if err := writable(ctx, dest); err != nil {
		return err
	}
	state, err := a.state()
	if err != nil {
		return err
	}
	tasks := make(chan task)
	problem := make(chan error, 1)
	go func() {
		defer close(tasks)
		for _, s := range specs {
			if c.signals() > 0 {
				return // a run that nobody will carry need not be
			}
			d, err := a.createRun(state, s, f.to)
			if err != nil {
				problem <- err
				return
			}
			tasks <- task{dir: d}
		}
	}()
	verdict := c.carry(ctx, tasks)
	select {
	case err := <-problem:
		return err
	default:
		return verdict
	}
}

func (a *app) createRun(state *engine.State, s transcode.Spec, to string) (*engine.RunDir, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("transcode: %w", err)
	}
	return state.Create(engine.Info{
		Workload: "transcode", Title: filepath.Base(s.Source) + " -> " + filepath.Join(to, s.Name),
		Durability: a.durability, Slots: a.slots, Spec: spec,
	})
}

// specs makes a spec of each file that can be opened; the others are in bad.
func (a *app) specs(f transcodeFlags, files []string, dest string, product transcode.Product) (specs []transcode.Spec, bad []error, err error) {
	taken := make(map[string]string)
	for _, file := range files {
		if err := readable(file); err != nil {
			bad = append(bad, err)
			continue
		}
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, nil, fmt.Errorf("transcode: %s: %w", file, err)
		}
		name := f.name
		if name == "" {
			name = transcode.SafeName(file)
		}
		if other, ok := taken[name]; ok {
			return nil, nil, usage(myrmidon.WithHint(fmt.Errorf("%s and %s would both be written to %s", other, file, filepath.Join(f.to, name)),
				"transcode one of them alone, with --name"))
		}
		taken[name] = file
		s := transcode.Spec{Source: abs, Dest: dest, Name: name, Product: product, Verify: f.verify, Force: f.force}
		if err := s.Validate(); err != nil {
			return nil, nil, usage(err)
		}
		specs = append(specs, s)
	}
	return specs, bad, nil
}

// readable says what is wrong with a file before a run is made for it.
func readable(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s: no such file", file), "check the path"))
	case err != nil:
		return myrmidon.Permanent(err)
	case info.IsDir():
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s is a folder", file), "name its files: "+filepath.Join(file, "*.mp4")))
	case !info.Mode().IsRegular():
		return myrmidon.Permanent(fmt.Errorf("%s is not a regular file", file))
	}
	fd, err := os.Open(file)
	if errors.Is(err, fs.ErrPermission) {
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s: permission denied", file), "make it readable for this user: chmod +r"))
	}
	if err != nil {
		return myrmidon.Permanent(err)
	}
	return fd.Close()
}

// writable says early that nothing can be written to the destination.
func writable(ctx context.Context, dest string) error {
	s, err := object.NewDir(dest)
	if err != nil {
		return err
	}
	return s.Writable(ctx)
}

// dryRun prints what each run would do.
func (c *carrier) dryRun(ctx context.Context, specs []transcode.Spec) error {
	for _, s := range specs {
		p, _, err := transcode.Inspect(ctx, c.tools, s)
		if err != nil {
			c.fail(err)
			if c.json {
				c.printJSON(map[string]any{"state": myrmidon.Failed, "error": myrmidon.AsFailure(err)})
			}
			continue
		}
		c.reports = append(c.reports, &engine.Report{State: myrmidon.Succeeded})
		if c.json {
			c.printJSON(map[string]any{"spec": s, "plan": p, "estimate": p.Estimate()})
			continue
		}
		fmt.Fprintln(c.stdout, header(p.Summary()))
		for _, r := range p.Renditions {
			fmt.Fprintf(c.stdout, "  %-8s %dx%d  crf %g  at most %d kbit/s\n", r.Name, r.Width, r.Height, r.CRF, r.MaxRate)
		}
		for i, ch := range p.Chunks {
			fmt.Fprintf(c.stdout, "  chunk %d  frames %d to %d, %s\n", i+1, ch.First, ch.First+ch.Frames-1, plural(ch.Segments, "segment"))
		}
		if p.Audio != nil {
			fmt.Fprintf(c.stdout, "  sound    AAC %d kbit/s, %d Hz, %s\n", p.Audio.Bitrate, p.Audio.SampleRate, plural(p.Audio.Channels, "channel"))
		}
		e := p.Estimate()
		fmt.Fprintf(c.stdout, "estimate  %.1f CPU-s (%.2f a source second)  Lambda would cost %v (prices of %s)\n",
			e.CPU, e.PerSourceSecond, e.Lambda.USD, e.Lambda.AsOf)
	}
	return c.verdict()
}

// header is the line that tells what a run will do.
func header(s transcode.Summary) string {
	line := fmt.Sprintf("%s  %dx%d  %s fps  %s   ->  hls %s   %s", plain(s.Source), s.Width, s.Height, s.Rate,
		clock(time.Duration(s.Duration*float64(time.Second))), strings.Join(s.Renditions, " "), plural(s.Chunks, "chunk"))
	if s.AudioItems > 0 {
		line += fmt.Sprintf(", %d audio", s.AudioItems)
	}
	return line
}

// transcodePresenter words transcoding.
type transcodePresenter struct{ tools *ffmpeg.Tools }

// summary is the planner's note, once there is one.
func summary(notes []json.RawMessage) (transcode.Summary, bool) {
	var s transcode.Summary
	if len(notes) == 0 || json.Unmarshal(notes[0], &s) != nil {
		return s, false
	}
	return s, true
}

func (transcodePresenter) Header(s engine.Stats) string {
	sum, ok := summary(s.Notes)
	if !ok {
		return ""
	}
	return header(sum)
}

func (transcodePresenter) Doing(s engine.Stats) (verb, speed string) {
	switch s.Phase {
	case "verify":
		return "verifying", ""
	case "publish":
		return "publishing", ""
	}
	if sum, ok := summary(s.Notes); ok && s.Rate > 0 && sum.Duration > 0 {
		speed = fmt.Sprintf("%.1fx realtime", s.Rate*sum.Duration/float64(sum.Frames))
	}
	return "transcoding", speed
}

func (transcodePresenter) Result(r *engine.Report) []string {
	var out transcode.Output
	if len(r.Outputs) == 0 || json.Unmarshal(r.Outputs[len(r.Outputs)-1], &out) != nil {
		return nil
	}
	var spec transcode.Spec
	if json.Unmarshal(r.Spec, &spec) != nil {
		return nil
	}
	renditions := len(out.Renditions)
	if out.AudioSegments > 0 {
		renditions-- // the sound is the last of them
	}
	lines := []string{fmt.Sprintf("%s   %s, %s, %s   verified %d/%d frames", relative(filepath.Join(spec.Dest, out.Master)),
		plural(renditions, "rendition"), plural(out.Segments, "segment"), size(out.Bytes), out.Verified, out.Frames)}
	line := fmt.Sprintf("run %s  %.1f CPU-s", r.ID, r.Usage.CPU)
	if out.Duration > 0 {
		line += fmt.Sprintf(" (%.2f a source second)", r.Usage.CPU/out.Duration)
	}
	if r.Usage.PeakRSS > 0 {
		line += "  peak " + size(r.Usage.PeakRSS)
	}
	lambda := cost.Lambda(time.Duration(r.Usage.CPU*float64(time.Second)), int(r.Usage.Jobs), cost.X86)
	line += fmt.Sprintf("  Lambda would have cost %v", lambda.USD)
	return append(lines, line)
}

// relative shortens a path below the working folder.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}

// comparison is the report's estimate against what was metered.
type comparison struct {
	EstimatedCPU float64       `json:"estimated_cpu_seconds"`
	MeteredCPU   float64       `json:"metered_cpu_seconds"`
	Lambda       cost.Estimate `json:"estimated_lambda"`
}

func (p transcodePresenter) Enrich(r *engine.Report) {
	r.Versions = map[string]any{"myrmidon": version}
	if p.tools != nil {
		r.Versions["ffmpeg"], r.Versions["ffmpeg_build"] = p.tools.Version, p.tools.Build
	}
	if s, ok := summary(r.Plan); ok {
		r.Estimate = comparison{s.Estimate.CPU, r.Usage.CPU, s.Estimate.Lambda}
	}
	r.Cost = map[string]any{"lambda": cost.Lambda(time.Duration(r.Usage.CPU*float64(time.Second)), int(r.Usage.Jobs), cost.X86)}
}
