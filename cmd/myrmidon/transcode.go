package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
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
)

type transcodeFlags struct {
	to, product, verify, name string
	force, dryRun, shared     bool
}

func (a *app) transcodeCommand() *cobra.Command {
	var f transcodeFlags
	c := &cobra.Command{
		Use:     "transcode SOURCE... --to DESTINATION",
		GroupID: "work",
		Short:   "Make adaptive HLS streams from video files",
		Long: `Make an adaptive HLS stream (fragmented MP4, H.264 and AAC) from each video file.

The file is cut into chunks that are encoded side by side, one decode for all sizes, and
stitched without a lost or doubled frame. Every frame is checked before the playlists are
written, the main one last: DESTINATION/NAME/hls/master.m3u8. Sizes larger than the source
are left out. What is finished is found again by name when the command is repeated.

Sources and destination are files and folders, or s3://bucket/key and s3://bucket/prefix
with ?profile=NAME&endpoint=URL&region=R. With --nats the workers of a fleet do the work
(myrmidon worker); --slots N lets this process help.

Needs ffmpeg 5.1 or later with libx264, where the work is done.`,
		Example: `  myrmidon transcode talk.mp4 --to ./out
  myrmidon transcode uploads/*.mov --to /srv/media --product ladder.yaml
  myrmidon transcode talk.mp4 --to ./out --dry-run
  myrmidon transcode s3://masters/talk.mp4 --to s3://products/ --nats nats://127.0.0.1:4222`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, in []string) error { return a.transcode(c.Context(), f, in) },
	}
	fl := c.Flags()
	fl.StringVar(&f.to, "to", "", "folder or s3://bucket/prefix that the streams are written to (required)")
	fl.StringVar(&f.product, "product", "", "YAML file that describes the ladder; myrmidon product prints the default one")
	fl.StringVar(&f.verify, "verify", transcode.VerifyQuick, "what is decoded to check the result: quick (a keyframe a segment) or decode (every frame)")
	fl.StringVar(&f.name, "name", "", "name of the stream's folder, for a single file (default: the file's name)")
	fl.BoolVar(&f.force, "force", false, "encode anew what is finished already")
	fl.BoolVar(&f.shared, "shared-fs", false, "with --nats: local paths are the same files on every worker's machine")
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
		return missing("to", "name the folder or bucket that the streams are written to: --to ./out")
	case f.verify != transcode.VerifyQuick && f.verify != transcode.VerifyDecode:
		return usage(fmt.Errorf("--verify %s: use quick or decode", f.verify))
	}
	product := transcode.Default()
	if f.product != "" {
		var err error
		if product, err = readProduct(f.product); err != nil {
			return err
		}
	}
	dest, err := wire.Canonical(f.to)
	if err != nil {
		return usage(err)
	}
	if files, err = expand(ctx, files); err != nil {
		return err
	}
	if f.name != "" && len(files) > 1 {
		return usage(fmt.Errorf("--name names one stream, but there are %d files", len(files)))
	}
	fleet := a.nats.url != "" && !f.dryRun
	if err := a.reachable(fleet, f.shared, append([]string{f.to}, files...)); err != nil {
		return err
	}
	specs, bad, err := a.specs(ctx, f, files, dest, product)
	if err != nil {
		return err
	}
	c, err := a.carrier(ctx, "transcode", fleet)
	if err != nil {
		return err
	}
	defer c.abandon()
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
	// A fleet's workers may be allowed more than this process: they say themselves.
	if !fleet || wire.IsLocal(dest) {
		if err := writable(ctx, dest); err != nil {
			return err
		}
	}
	homes, err := a.homes(ctx, fleet)
	if err != nil {
		return err
	}
	tasks := make(chan task)
	go func() {
		defer close(tasks)
		for _, s := range specs {
			if c.signals() > 0 {
				return // a run that nobody will carry need not be
			}
			tasks <- task{make: func() (engine.Home, error) { return a.createRun(homes, s, f.to, c.workload.Version) }}
		}
	}()
	return c.carry(ctx, tasks)
}

// homes is where the command's runs are kept.
func (a *app) homes(ctx context.Context, fleet bool) (engine.Homes, error) {
	if !fleet {
		return a.state()
	}
	b, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	return engine.RunsOf(b), nil
}

// expand replaces addresses that stand for several objects.
func expand(ctx context.Context, files []string) (out []string, err error) {
	for _, file := range files {
		if wire.IsLocal(file) {
			out = append(out, file)
			continue
		}
		found, err := wire.Expand(ctx, file)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// reachable refuses paths that the workers of a fleet would look for on their own disks.
func (a *app) reachable(fleet, shared bool, addresses []string) error {
	if !fleet || shared {
		return nil
	}
	for _, address := range addresses {
		if wire.IsLocal(address) {
			return usage(myrmidon.WithHint(fmt.Errorf("%s is a path of this machine, and the work is done by a fleet's workers", address),
				"use s3:// addresses, or --shared-fs if the path is the same folder on every worker's machine"))
		}
	}
	return nil
}

func (a *app) createRun(homes engine.Homes, s transcode.Spec, to string, version uint32) (engine.Home, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("transcode: %w", err)
	}
	return homes.Create(engine.Info{
		Workload: "transcode", Version: version, Title: sourceName(s.Source) + " -> " + under(to, s.Name),
		Durability: a.durability, Slots: a.slots, Spec: spec,
	})
}

// sourceName is the last part of a path or address, without its parameters.
func sourceName(source string) string {
	if wire.IsLocal(source) {
		return filepath.Base(source)
	}
	address, _, _ := strings.Cut(source, "?")
	return path.Base(address)
}

// under is where a stream goes, for people.
func under(to, name string) string {
	if wire.IsLocal(to) {
		return filepath.Join(to, name)
	}
	address, _, _ := strings.Cut(to, "?")
	return strings.TrimSuffix(address, "/") + "/" + name
}

// specs makes a spec of each file that can be opened; the others are in bad.
func (a *app) specs(ctx context.Context, f transcodeFlags, files []string, dest string, product transcode.Product) (specs []transcode.Spec, bad []error, err error) {
	taken := make(map[string]string)
	for _, file := range files {
		source, err := wire.Canonical(file)
		if err != nil {
			return nil, nil, usage(err)
		}
		if wire.IsLocal(file) {
			if err := readable(file); err != nil {
				bad = append(bad, err)
				continue
			}
		} else if err := there(ctx, source); err != nil && a.nats.url == "" {
			bad = append(bad, err)
			continue
		}
		name := f.name
		if name == "" {
			name = transcode.SafeName(sourceName(file))
		}
		if other, ok := taken[name]; ok {
			return nil, nil, usage(myrmidon.WithHint(fmt.Errorf("%s and %s would both be written to %s", other, file, under(f.to, name)),
				"transcode one of them alone, with --name"))
		}
		taken[name] = file
		s := transcode.Spec{Source: source, Dest: dest, Name: name, Product: product, Verify: f.verify, Force: f.force}
		if err := s.Validate(); err != nil {
			return nil, nil, usage(err)
		}
		specs = append(specs, s)
	}
	return specs, bad, nil
}

// there says what is wrong with an object before a run is made for it.
func there(ctx context.Context, address string) error {
	store, key, err := wire.Object(address)
	if err != nil {
		return err
	}
	if _, err := store.Head(ctx, key); errors.Is(err, fs.ErrNotExist) {
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s: no such object", address), "check bucket and key"))
	} else if err != nil {
		return err
	}
	return nil
}

// readable says what is wrong with a file before a run is made for it.
func readable(file string) error {
	if scheme, rest, ok := strings.Cut(file, "://"); ok && scheme == "file" {
		file = rest
	}
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
	s, err := wire.Store(dest)
	if err != nil {
		return err
	}
	if checker, ok := s.(interface{ Writable(context.Context) error }); ok {
		return checker.Writable(ctx)
	}
	return nil
}

// dryRun prints what each run would do.
func (c *carrier) dryRun(ctx context.Context, specs []transcode.Spec) error {
	for _, s := range specs {
		p, _, err := transcode.Config{Tools: c.tools, OpenObject: wire.Object}.Inspect(ctx, s)
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
	lines := []string{fmt.Sprintf("%s   %s, %s, %s   verified %d/%d frames", relative(under(spec.Dest, out.Master)),
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
