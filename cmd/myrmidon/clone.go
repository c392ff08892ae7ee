package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/engine"
	"myrmidon/internal/clone"
	"myrmidon/internal/limit"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

// cloneSlots is how many jobs of a clone go on at once unless the user says: they wait for
// stores, not for this machine.
const cloneSlots = 32

// cloneGC is the garbage collector's pace, GOGC: a clone waits for stores, so that a tenth
// less memory is worth a thirtieth more work.
const cloneGC = 75

type cloneFlags struct {
	include, exclude        []string
	minSize, maxSize        string
	newer, older            string
	sizeOnly, checksum, all bool
	exactTimes              bool
	delete                  bool
	maxDelete               int64
	verify, report          string
	metadata                string
	contentType, cache      string
	user                    map[string]string
	tags                    map[string]string
	class, sse, kmsKey, acl string
	concurrency             int
	dryRun, shared          bool
	documents               documentFlags
	bwlimit                 string
	rate                    float64
	filesFrom               string
	from0, ifMissing        bool
	ifChanged               string
}

func (a *app) cloneCommand() *cobra.Command {
	var f cloneFlags
	c := &cobra.Command{
		Use:     "clone [SOURCE DESTINATION]",
		Aliases: []string{"sync"},
		GroupID: "work",
		Short:   "Make a bucket, prefix or folder like another",
		Long: `Make DESTINATION like SOURCE: copy every object that it does not have, or has in another
size or older. Both are s3://bucket/prefix, with ?profile=NAME&endpoint=URL&region=R, or
folders; SOURCE may be an HTTP origin, https://host/folder/. Nothing is deleted without
--delete.

Both are listed by ranges of keys, side by side, and compared page by page, so that
copying begins with the first page. Between buckets of one service and account objects
are copied by the service, with one request each and on the condition that they are as
they were listed; else their bytes stream through this machine, with metadata and tags, and
with a checksum that the destination confirms. Each object has its line of evidence:
--report FILE, or myrmidon runs items.

When the process is killed, myrmidon runs resume goes on where it was.

With --watch, --submit and --control a clone is asked for and followed by JSON documents in
a bucket (README, Clone).`,
		Example: `  myrmidon clone s3://media-eu s3://media-us --verify
  myrmidon clone s3://media-eu/films/ ./films --exclude '*.tmp' --dry-run
  myrmidon clone ./site s3://www --delete --max-delete 100
  myrmidon clone 's3://a?endpoint=http://10.0.0.5:9000&profile=old' s3://b --report moved.jsonl
  myrmidon clone https://mirror.example/pub/films/ s3://films --include '*.mp4'
  myrmidon clone --watch s3://commands
  myrmidon clone --submit s3://commands/42 s3://media-eu s3://media-us --wait`,
		Args: args(cobra.MaximumNArgs(2)),
		RunE: func(c *cobra.Command, in []string) error { return a.cloneAny(c, f, in) },
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.include, "include", nil, `only keys like this, below SOURCE; "*" stands for anything, "/" too; may be given again`)
	fl.StringArrayVar(&f.exclude, "exclude", nil, "no keys like this; may be given again")
	fl.StringVar(&f.minSize, "min-size", "", "only objects of this size or more, such as 1MB")
	fl.StringVar(&f.maxSize, "max-size", "", "only objects of this size or less")
	fl.StringVar(&f.newer, "newer", "", "only objects modified since: 24h ago, or 2026-11-01, or 2026-11-01T12:00:00Z")
	fl.StringVar(&f.older, "older", "", "only objects modified before: as --newer")
	fl.BoolVar(&f.sizeOnly, "size-only", false, "objects of one size are alike, however old")
	fl.BoolVar(&f.exactTimes, "exact-timestamps", false, "into a folder: objects are alike only if their times are the same, not if the file is newer")
	fl.BoolVar(&f.checksum, "checksum", false, "objects are alike if their ETags are, however old")
	fl.BoolVar(&f.all, "all", false, "copy what is alike too")
	fl.BoolVar(&f.delete, "delete", false, "delete what SOURCE does not have, when everything is copied")
	fl.Int64Var(&f.maxDelete, "max-delete", -1, "delete nothing if there is more than this to delete; -1: any number")
	fl.StringVar(&f.verify, "verify", "", "compare afterwards: etag (the default: both are listed again, and read where ETags cannot tell), checksum (the stores are asked for checksums before that) or read (all is read)")
	fl.Lookup("verify").NoOptDefVal = string(clone.VerifyETag)
	fl.StringVar(&f.report, "report", "", "file for the evidence, a line of JSON an object")
	fl.StringVar(&f.metadata, "metadata", "copy", "copy the objects' metadata, or replace it by --content-type, --cache-control and --meta")
	fl.StringVar(&f.contentType, "content-type", "", "with --metadata replace (default: by the key's ending)")
	fl.StringVar(&f.cache, "cache-control", "", "with --metadata replace")
	fl.StringToStringVar(&f.user, "meta", nil, "with --metadata replace: user metadata, NAME=VALUE; may be given again")
	fl.StringToStringVar(&f.tags, "tag", nil, "tags instead of the source's, NAME=VALUE; may be given again")
	fl.StringVar(&f.class, "storage-class", "", "STANDARD_IA, GLACIER_IR, … (default: the destination's)")
	fl.StringVar(&f.sse, "sse", "", "encryption at the destination: AES256, aws:kms or aws:kms:dsse")
	fl.StringVar(&f.kmsKey, "sse-kms-key-id", "", "key of --sse aws:kms")
	fl.StringVar(&f.acl, "acl", "", "canned ACL: private, bucket-owner-full-control, …")
	fl.IntVar(&f.concurrency, "concurrency", 0, "objects at once, at most (default: as many as the destination takes, up to 1,024)")
	fl.StringVar(&f.bwlimit, "bwlimit", "", "bytes a second through this process, all streams together, such as 50MB; what the service copies by itself is not bound; in a fleet, of each worker")
	fl.Float64Var(&f.rate, "rate", 0, "requests begun a second at DESTINATION, of any kind, copies included; in a fleet, by each worker (default: as many as it takes)")
	fl.StringVar(&f.filesFrom, "files-from", "", "look only at the keys in this file, a key a line, below SOURCE; - reads standard input; a line of JSON, as of --report, stands for its \"key\"")
	fl.BoolVar(&f.from0, "from0", false, "the keys of --files-from are separated by NUL bytes, and none is JSON")
	fl.BoolVar(&f.ifMissing, "if-missing", false, "never replace what is there, whatever it is: each object is stored on the condition that there is none, or told as skipped")
	fl.StringVar(&f.ifChanged, "if-changed", "fail", "an object of SOURCE that changes between its listing and its copy: fail (it is reported, exit status 3), copy (as it is now, looked at 3 times at most) or skip (told as skipped)")
	fl.BoolVar(&f.shared, "shared-fs", false, "with --nats: local paths are the same files on every worker's machine")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print what would be done, a line an object; change nothing")
	f.documents.add(fl)
	a.runFlags(fl)
	for name, values := range map[string][]string{
		"verify": {"etag", "checksum", "read"}, "metadata": {"copy", "replace"}, "sse": {"AES256", "aws:kms", "aws:kms:dsse"},
		"if-changed": {"fail", "copy", "skip"}, "bwlimit": {"1MB", "10MB", "100MB"}, "rate": {"100", "1000", "3000"},
		"storage-class": {"STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"},
		"acl":           {"private", "public-read", "authenticated-read", "bucket-owner-read", "bucket-owner-full-control"},
	} {
		mustComplete(c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
	}
	return c
}

// spec reads the flags.
func (f *cloneFlags) spec(source, destination string) (s clone.Spec, err error) {
	if s.Source, err = wire.Canonical(source); err != nil {
		return s, usage(err)
	}
	if s.Destination, err = wire.Canonical(destination); err != nil {
		return s, usage(err)
	}
	s.Compare = clone.CompareTime
	chosen := 0
	for _, c := range []struct {
		set bool
		how clone.Compare
	}{{f.sizeOnly, clone.CompareSize}, {f.exactTimes, clone.CompareExact}, {f.checksum, clone.CompareETag}, {f.all, clone.CompareNone}} {
		if c.set {
			s.Compare = c.how
			chosen++
		}
	}
	if chosen > 1 {
		return s, usage(errors.New("--size-only, --exact-timestamps, --checksum and --all: use one of them"))
	}
	if f.exactTimes && !wire.IsLocal(s.Destination) {
		return s, usage(errors.New("--exact-timestamps needs a folder as DESTINATION: the time of an object in a bucket is when it was put"))
	}
	if err := wire.CanWrite(s.Destination); err != nil {
		return s, usage(err)
	}
	if f.maxDelete >= 0 && !f.delete {
		return s, usage(errors.New("--max-delete means nothing without --delete"))
	}
	s.Verify, s.Delete, s.MaxDelete = clone.Verify(f.verify), f.delete, f.maxDelete
	s.Filter.Include, s.Filter.Exclude = f.include, f.exclude
	for _, b := range []struct {
		flag, text string
		to         *int64
	}{{"min-size", f.minSize, &s.Filter.MinSize}, {"max-size", f.maxSize, &s.Filter.MaxSize}} {
		if b.text == "" {
			continue
		}
		if *b.to, err = parseSize(b.text); err != nil {
			return s, usage(fmt.Errorf("--%s %s: %w", b.flag, b.text, err))
		}
	}
	for _, b := range []struct {
		flag, text string
		to         *time.Time
	}{{"newer", f.newer, &s.Filter.After}, {"older", f.older, &s.Filter.Before}} {
		if b.text == "" {
			continue
		}
		if *b.to, err = parseWhen(b.text, time.Now()); err != nil {
			return s, usage(fmt.Errorf("--%s %s: %w", b.flag, b.text, err))
		}
	}
	s.Copy = object.ImportOptions{Tags: f.tags, StorageClass: f.class, Encryption: f.sse, KMSKey: f.kmsKey, ACL: f.acl}
	switch f.metadata {
	case "replace":
		s.Copy.Replace = true
		s.Copy.Attrs = object.Attrs{ContentType: f.contentType, CacheControl: f.cache}
		s.Copy.Metadata = f.user
	case "copy":
		if f.contentType != "" || f.cache != "" || len(f.user) > 0 {
			return s, usage(errors.New("--content-type, --cache-control and --meta need --metadata replace"))
		}
	default:
		return s, usage(fmt.Errorf("--metadata %s: use copy or replace", f.metadata))
	}
	if err := f.limits(&s); err != nil {
		return s, usage(err)
	}
	if err := s.Validate(); err != nil {
		return s, usage(err)
	}
	return s, nil
}

// limits reads the flags that bound and condition what is done.
func (f *cloneFlags) limits(s *clone.Spec) (err error) {
	if f.bwlimit != "" {
		if s.Limits.Bandwidth, err = parseSize(f.bwlimit); err == nil && s.Limits.Bandwidth < 1 {
			err = errors.New("at least a byte a second is needed; without the flag there is no limit")
		}
		if err != nil {
			return fmt.Errorf("--bwlimit %s: %w", f.bwlimit, err)
		}
	}
	if s.Limits.Rate = f.rate; f.rate < 0 || math.IsNaN(f.rate) || f.rate > math.MaxInt32 {
		return myrmidon.WithHint(fmt.Errorf("--rate %v: that is no number of requests a second", f.rate), "use a number such as 500, or 0.5 for one in two seconds; without the flag there is no limit")
	}
	switch f.ifChanged {
	case "", "fail":
	case "copy", "skip":
		s.IfChanged = clone.IfChanged(f.ifChanged)
	default:
		return fmt.Errorf("--if-changed %s: use fail, copy or skip", f.ifChanged)
	}
	s.Copy.IfNone = f.ifMissing
	switch {
	case f.ifMissing && f.all:
		return errors.New("--if-missing never replaces an object, and --all replaces each: use one of them")
	case f.from0 && f.filesFrom == "":
		return errors.New("--from0 means nothing without --files-from")
	case f.filesFrom != "" && f.delete:
		return myrmidon.WithHint(errors.New("--files-from does not say what SOURCE lacks, so nothing can be deleted by it"), "leave --delete away, or clone without --files-from to delete")
	case f.filesFrom != "":
		s.List = new(clone.List)
	}
	return nil
}

// parseSize reads bytes: 1024, 10kB, 1.5MB, 2GiB.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "kKMGTiB")
	factor, ok := map[string]float64{
		"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "k": 1e3, "MB": 1e6, "M": 1e6, "GB": 1e9, "G": 1e9, "TB": 1e12, "T": 1e12,
		"KiB": 1 << 10, "kiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}[text[len(digits):]]
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || n < 0 || n*factor > math.MaxInt64/2 {
		return 0, errors.New("a size is a number of bytes, or of kB, MB, GB, KiB, MiB or GiB")
	}
	return int64(n * factor), nil
}

// parseWhen reads a time, or how long ago it was.
func parseWhen(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d).UTC(), nil
	}
	if n, err := strconv.Atoi(strings.TrimSuffix(text, "d")); err == nil && strings.HasSuffix(text, "d") {
		return now.AddDate(0, 0, -n).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("a time is how long ago (24h, 7d), a date (2026-11-01) or a time (2026-11-01T12:00:00Z)")
}

// clone makes one run.
func (a *app) clone(ctx context.Context, f cloneFlags, source, destination string) error {
	spec, err := f.spec(source, destination)
	if err != nil {
		return err
	}
	spec.Control = f.documents.answer
	if err := wire.Apart(spec.Source, spec.Destination); err != nil {
		return usage(err)
	}
	if err := f.atMost(a); err != nil {
		return err
	}
	fleet := a.nats.url != "" && !f.dryRun
	if err := a.reachable(fleet, f.shared, []string{source, destination}); err != nil {
		return err
	}
	if wire.IsLocal(spec.Source) && !fleet {
		if info, err := os.Stat(spec.Source); errors.Is(err, fs.ErrNotExist) {
			return myrmidon.WithHint(fmt.Errorf("%s: no such folder", source), "check the path")
		} else if err == nil && !info.IsDir() {
			return myrmidon.WithHint(fmt.Errorf("%s is a file, not a folder", source), "clone its folder, with --include "+filepath.Base(source))
		}
	}
	list, err := f.gather()
	if err != nil {
		return err
	}
	defer list.close(a)
	if f.dryRun {
		return a.cloneDry(ctx, spec, list)
	}
	a.forClones()
	c, err := a.carrier(ctx, "clone", fleet)
	if err != nil {
		return err
	}
	defer c.abandon()
	c.total = 1
	if !fleet || wire.IsLocal(spec.Destination) {
		within, sent := clone.Meter(ctx)
		if err := writable(within, spec.Destination); err != nil {
			return err
		}
		spec.Before = sent()
	}
	homes, err := a.homes(ctx, fleet)
	if err != nil {
		return err
	}
	var home engine.Home
	tasks := make(chan task, 1)
	tasks <- task{make: func() (_ engine.Home, err error) {
		info := engine.Info{
			Workload: "clone", Version: c.workload.Version, Title: bare(source) + " -> " + bare(destination),
			Durability: a.durability, Slots: a.slots,
		}
		home, err = a.makeClone(ctx, homes, info, spec, list)
		return home, err
	}}
	close(tasks)
	err = c.carry(ctx, tasks)
	if f.report != "" && home != nil {
		if reportErr := writeReport(home, f.report); reportErr != nil {
			a.complain(reportErr)
			err = errors.Join(err, &exitError{status: exitFailed})
		}
	}
	return err
}

// atMost bounds what is under way at once, if that is asked for.
func (f *cloneFlags) atMost(a *app) error {
	if f.concurrency < 0 {
		return usage(fmt.Errorf("--concurrency %d: at least one is needed", f.concurrency))
	}
	if f.concurrency > 0 {
		var most []string
		for _, kind := range []string{clone.KindCopy, clone.KindListed, clone.KindVerify, clone.KindListedVerify} {
			most = append(most, fmt.Sprintf("%s=%d", kind, min(f.concurrency, limit.Highest)))
		}
		a.limit = append(most, a.limit...)
		return a.readLimits()
	}
	return nil
}

// forClones sets this process up for clones.
func (a *app) forClones() {
	if !a.slotsGiven {
		a.slots = cloneSlots
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(cloneGC)
	}
}

// makeClone makes a run, and puts its list where the run finds it.
func (a *app) makeClone(ctx context.Context, homes engine.Homes, info engine.Info, spec clone.Spec, list *cloneList) (home engine.Home, err error) {
	if list != nil && a.fleet != nil {
		if err := list.send(ctx, a.fleet); err != nil {
			return nil, err
		}
		*spec.List, info.Blobs = list.ref, blobsOf(list.ref.ID)
	}
	if info.Spec, err = json.Marshal(spec); err != nil {
		return nil, fmt.Errorf("clone: %w", err)
	}
	if home, err = homes.Create(info); err != nil || list == nil {
		return home, err
	}
	if err := list.keep(home); err != nil {
		return nil, errors.Join(err, home.Remove())
	}
	list.close(a) // what was sorted may be large
	return home, nil
}

// bare is an address without its parameters.
func bare(address string) string {
	if wire.IsLocal(address) {
		return address
	}
	address, _, _ = strings.Cut(address, "?")
	return address
}

// cloneDry prints what a clone would do.
func (a *app) cloneDry(ctx context.Context, spec clone.Spec, list *cloneList) error {
	cfg := clone.Config{Open: wire.Bucket, Log: a.log}
	if list != nil {
		if _, err := list.Keep(clone.KeepIn(list.dir)); err != nil {
			return fmt.Errorf("--files-from: %w", err)
		}
		cfg.ReadList = func(_ context.Context, _ string, _ clone.List, part string) ([]byte, error) {
			return clone.ReadIn(list.dir, part)
		}
	}
	out := bufio.NewWriter(a.stdout)
	sum, err := cfg.Diff(ctx, spec, func(d clone.Difference) error {
		if a.json {
			return json.NewEncoder(out).Encode(d)
		}
		_, err := fmt.Fprintf(out, "%-6s  %12d  %s\n", d.Action, d.Size, plain(d.Key))
		return err
	})
	if err = errors.Join(err, out.Flush()); err != nil {
		return err
	}
	if !a.quiet && !a.json {
		fmt.Fprintf(a.screen, "would copy %s, skip %d, leave out %d", plural(sum.Copy, "object"), sum.Skipped, sum.Left)
		if spec.Delete {
			fmt.Fprintf(a.screen, ", delete %d", sum.Extra)
		}
		fmt.Fprintln(a.screen)
	}
	if sum.Missing > 0 {
		return &exitError{exitPartial, fmt.Errorf("%s of the list: not in %s", plural(sum.Missing, "key"), bare(spec.Source))}
	}
	return nil
}

// reportLine is an object in the file of --report.
type reportLine struct {
	Key    string `json:"key"`
	Size   int64  `json:"size"`
	Action string `json:"action"`
	State  string `json:"state"` // done or failed
	clone.Evidence
	Error string `json:"error,omitempty"`
}

// writeReport writes the evidence of a run as lines of JSON: whole, or not at all.
func writeReport(home engine.Home, file string) (err error) {
	items, err := home.OpenItems()
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	defer items.Close() // it is only read
	err = writeWhole(file, func(out io.Writer) error {
		enc := json.NewEncoder(out)
		dec := json.NewDecoder(items)
		for dec.More() {
			var it engine.ItemReport
			if err := dec.Decode(&it); err != nil {
				return err
			}
			if it.Plan {
				continue // a listing that failed; the run says so
			}
			l, err := reportLineOf(&it)
			if err != nil {
				return err
			}
			if err := enc.Encode(l); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return myrmidon.WithHint(fmt.Errorf("report: %w", err), "the run is done; its evidence is also in: myrmidon runs items "+home.RunID())
	}
	return nil
}

// reportLineOf takes an item's evidence.
func reportLineOf(it *engine.ItemReport) (reportLine, error) {
	l := reportLine{Key: it.Name, Size: it.Bytes, State: "done"}
	if len(it.Note) > 0 {
		if err := json.Unmarshal(it.Note, &l.Evidence); err != nil {
			return l, fmt.Errorf("%q: %w", it.Name, err)
		}
	}
	l.Action, l.Attempts = l.Evidence.Action, it.Attempts
	if l.Action == "" {
		l.Action = it.Phase
	}
	if it.State == "parked" {
		l.State, l.Error = "failed", it.LastError
	}
	return l, nil
}

// clonePresenter words clones.
type clonePresenter struct{}

func (clonePresenter) Header(engine.Stats) string { return "" }

func (clonePresenter) Doing(s engine.Stats) (verb, speed string) {
	n := clone.Summary(s.Notes)
	switch s.Phase {
	case "verify":
		return fmt.Sprintf("verifying %d alike", n.Alike), ""
	case "delete":
		return fmt.Sprintf("deleting %d", n.Extra), ""
	}
	skipped, left := s.Totals.Tally[clone.TallySkipped], s.Totals.Tally[clone.TallyLeft]
	verb = fmt.Sprintf("%s  copied %d  skipped %d  failed %d", plural(n.Listed, "key"), s.Counts.Done-skipped-left, n.Skipped+skipped, s.Counts.Failed)
	return verb, ""
}

func (clonePresenter) Result(r *engine.Report) []string {
	n := clone.Summary(r.Plan)
	var copied, failed, deleted, verified int64
	for _, p := range r.Phases {
		failed += p.Failed
		switch p.Name {
		case "copy":
			copied = p.Done
		case "verify":
			verified = p.Done + n.Alike - r.Tally[clone.TallyUnverified]
		case "delete":
			deleted = p.Done
		}
	}
	// What the plan could not tell, the jobs have found out.
	n.Skipped += r.Tally[clone.TallySkipped]
	n.Left += r.Tally[clone.TallyLeft]
	n.Bytes += r.Tally[clone.TallyFound]
	copied -= r.Tally[clone.TallySkipped] + r.Tally[clone.TallyLeft]
	line := fmt.Sprintf("%s, %s listed   copied %d   skipped %d", plural(n.Listed, "object"), size(n.Bytes), copied, n.Skipped)
	if n.Left > 0 {
		line += fmt.Sprintf("   left out %d", n.Left)
	}
	if deleted > 0 {
		line += fmt.Sprintf("   deleted %d", deleted)
	}
	if verified > 0 {
		line += fmt.Sprintf("   verified %d", verified)
	}
	line += fmt.Sprintf("   failed %d", failed)
	took := time.Duration(r.Active * float64(time.Second))
	lines := []string{line}
	second := fmt.Sprintf("run %s  %s", r.ID, clock(took))
	if copied > 0 && took > 0 {
		second += fmt.Sprintf("  %.0f objects/s", float64(copied)/took.Seconds())
	}
	second += fmt.Sprintf("  %.1f CPU-s", r.Usage.CPU)
	lines = append(lines, second)
	if b := billOf(r); b != nil {
		lines = append(lines, b.String())
	}
	return lines
}

func (clonePresenter) Enrich(r *engine.Report) {
	if b := billOf(r); b != nil {
		r.Cost = b
	}
}
