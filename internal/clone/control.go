package clone

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"myrmidon"
	"myrmidon/internal/clone/documents"
	"myrmidon/object"
)

// copyAttempts is how often an object's copy is tried in all. Who answers for a segment must
// know whether there will be another attempt.
const copyAttempts = 3

// Control says where the documents of a run lie: see the package documents.
//
// With it a copy job is a segment: all that is copied of a folder at the top of the source, or
// a range of keys of what does not fit a job or was listed in parts. The job's handler writes
// the segment's request before it copies and the response when no object is tried again; a
// job that comes again writes the same. Each slice of the plan writes its page of the
// manifest, and whoever plans the last one puts the manifest together.
type Control struct {
	Address     string         `json:"address"` // of the store
	Folder      string         `json:"folder"`  // of the documents there
	ID          string         `json:"id"`
	Source      documents.Side `json:"source"` // what the documents call the two
	Destination documents.Side `json:"destination"`
}

// segment is what a controlled job is called.
type segment struct {
	Name   string `json:"name"`
	Prefix text   `json:"prefix,omitempty"` // of all its keys, and of no other job's; "" for a range
}

func (w *worker) documents(c *Control) (documents.Folder, error) {
	store, err := w.open(c.Address)
	return documents.Folder{Store: store, Path: c.Folder}, err
}

// maxSegments is how many jobs a slice may have that end with their folder: an engine's slice
// has 900 jobs and shards at most. Beyond, folders share jobs.
const maxSegments = 800

// controlled packs the entries that a slice has found between two places of a listing, and
// names the jobs. done says that the range ends with them.
func (s *Spec) controlled(entries []entry, from, to object.Range, done bool) (out []myrmidon.Planned, names []string, err error) {
	all := entries
	together := false
	for len(entries) > 0 {
		folder, n := topFolder(entries[0]), 1
		for n < len(entries) && (together || topFolder(entries[n]) == folder) {
			n++
		}
		jobs, err := s.jobs(KindCopy, entries[:n])
		if err != nil {
			return nil, nil, err
		}
		whole := !together && len(jobs) == 1 && folder != "/" && folder != "" && from.After < folder && holdsRest(folder, to, done)
		for i := range jobs {
			part := entries[:jobs[i].Count]
			entries = entries[len(part):]
			seg := segment{documents.RangeName(string(part[0].Key), string(part[len(part)-1].Key)), ""}
			if whole {
				seg = segment{documents.PrefixName(strings.TrimSuffix(folder, "/")), text(folder)}
			}
			if jobs[i].Spec, err = json.Marshal(s.task(part, &seg)); err != nil {
				return nil, nil, err
			}
			names = append(names, seg.Name)
		}
		if out = append(out, jobs...); len(out) > maxSegments && !together {
			together, entries, out, names = true, all, nil, nil
		}
	}
	return out, names, nil
}

// topFolder is the first part of a key, with its "/"; "" for a key without one.
func topFolder(e entry) string {
	i := strings.IndexByte(string(e.Key), '/')
	return string(e.Key[:i+1])
}

// holdsRest reports whether no key of a folder, "/" at its end, lies behind what was listed:
// up to the end of the range, or to its last key.
func holdsRest(folder string, r object.Range, done bool) bool {
	if done {
		return r.Before == "" || r.Before > folder && !strings.HasPrefix(r.Before, folder)
	}
	return r.After > folder && !strings.HasPrefix(r.After, folder)
}

// planned writes down what a slice of a shard's plan has found, which began at page number,
// before it is handed to the engine; then the manifest, if that was the last slice of all.
func (w *worker) planned(ctx context.Context, c *Control, step myrmidon.Step, number int, names []string, slice myrmidon.Slice) error {
	f, err := w.documents(c)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if err := f.PutPage(ctx, step.Run, step.Shard, number, names); err != nil {
			return err
		}
	}
	for _, child := range slice.Children {
		if err := f.PutOpen(ctx, step.Run, child.ID); err != nil {
			return err
		}
	}
	if !slice.Done {
		return nil
	}
	if err := f.PutSealed(ctx, step.Run, step.Shard); err != nil {
		return err
	}
	segments, all, err := f.Planned(ctx, step.Run, true)
	if err != nil || !all {
		return err
	}
	return f.PutResponse(ctx, c.manifest(step.Run, segments))
}

func (c *Control) manifest(run string, s documents.Segments) documents.Response {
	return documents.Response{ID: documents.ID(c.ID), Source: c.Source, Destination: c.Destination, Run: run, Segments: s}
}

// conclude writes the manifest of a run of which everything is planned, or nothing will be any
// more, if it is not there as it should be.
func (w *worker) conclude(ctx context.Context, c *Control, run, state string, why *myrmidon.Failure) error {
	f, err := w.documents(c)
	if err != nil {
		return err
	}
	r, err := f.Response(ctx)
	var broken *documents.Error
	switch {
	case err == nil && r.Run == run && r.State == state:
		return nil
	case err == nil && r.Run == run:
	case err == nil || errors.Is(err, fs.ErrNotExist) || errors.As(err, &broken):
		segments, _, err := f.Planned(ctx, run, false)
		if err != nil {
			return err
		}
		r = c.manifest(run, segments)
	default:
		return err
	}
	r.State, r.Error, r.Hint = state, "", ""
	if why != nil {
		r.Error, r.Hint = why.Message, why.Hint
	}
	return f.PutResponse(ctx, r)
}

// Conclude makes the manifest of a run that has ended tell how, where that is not as it
// should: no other segment is answered. It does nothing for runs without documents.
func (c Config) Conclude(ctx context.Context, spec Spec, run string, state myrmidon.State, why *myrmidon.Failure) error {
	if spec.Control == nil {
		return nil
	}
	told := string(state)
	switch {
	case state == myrmidon.Succeeded:
		told, why = "", nil
	case why == nil:
		why = &myrmidon.Failure{Message: fmt.Sprintf("run %s: %s", run, state)}
	}
	return (&worker{cfg: c}).conclude(ctx, spec.Control, run, told, why)
}

// answered does a copy job, with its documents around it if there are any.
func (w *worker) answered(ctx context.Context, job myrmidon.Job, do func() (myrmidon.Result, error)) (myrmidon.Result, error) {
	if !bytes.Contains(job.Spec, []byte(`"control"`)) {
		return do() // most jobs, which need not be read twice
	}
	t, err := read[task]("job", job.Spec)
	if err != nil {
		return myrmidon.Result{}, err
	}
	if t.Control == nil || t.Segment == nil {
		return do()
	}
	f, err := w.documents(t.Control)
	if err != nil {
		return myrmidon.Result{}, err
	}
	request := t.request(job.Run)
	if err := f.PutSegmentRequest(ctx, t.Segment.Name, request); err != nil {
		return myrmidon.Result{}, fmt.Errorf("write the segment-request: %w", err)
	}
	res, err := do()
	if err != nil {
		return res, err
	}
	if err := t.answer(ctx, f, request, job, res); err != nil {
		// The objects are there, but nobody is told: another attempt finds or copies them.
		return myrmidon.Result{Usage: res.Usage}, fmt.Errorf("write the segment-response: %w", err)
	}
	return res, nil
}

// request is the segment-request of a task.
func (t *task) request(run string) documents.SegmentRequest {
	c := t.Control
	r := documents.SegmentRequest{ID: documents.ID(c.ID), Source: c.Source, Destination: c.Destination, Run: run, Count: len(t.Objects)}
	if t.Segment.Prefix != "" {
		r.Source.Prefix = c.Source.Prefix + documents.Key(t.Segment.Prefix)
		return r
	}
	r.Source.First = t.key(0)
	r.Source.Last = t.key(len(t.Objects) - 1)
	return r
}

// key is that of an object in its bucket.
func (t *task) key(i int) documents.Key {
	return t.Control.Source.Prefix + documents.Key(t.Objects[i].Key)
}

// skipped says why an object is not in the destination as the source has it although nothing
// failed: documents know copied and failed objects only. "" means that it is there.
func skipped(it myrmidon.ItemResult) (why string, err error) {
	e, err := read[Evidence]("evidence", it.Note)
	switch {
	case err != nil || e.Action != "skip":
		return "", err
	case e.How == skipExists:
		return "it is not copied: another object has its key, and nothing is replaced", nil
	}
	return "it is not copied: it has changed since it was listed", nil
}

// answer writes the segment-response, if no object of the segment is tried again.
func (t *task) answer(ctx context.Context, f documents.Folder, request documents.SegmentRequest, job myrmidon.Job, res myrmidon.Result) error {
	failed := make(map[documents.Key]string)
	if len(job.Only) > 0 {
		// The others ended in an earlier attempt.
		before, err := f.Earlier(ctx, t.Segment.Name, job.Run)
		if err != nil {
			return err
		}
		for _, x := range before.Failed {
			failed[x.Key] = x.Error
		}
	}
	again := false
	for _, it := range res.Items {
		key := t.key(int(it.Index - job.First))
		delete(failed, key)
		if it.Error != nil {
			failed[key] = it.Error.Message
			again = again || !it.Error.Permanent && job.Attempt < copyAttempts
		} else if why, err := skipped(it); err != nil {
			return err
		} else if why != "" {
			failed[key] = why
		}
	}
	r := documents.SegmentResponse{ID: request.ID, Source: request.Source, Destination: request.Destination, Run: request.Run}
	for i := range t.Objects {
		key := t.key(i)
		if why, ok := failed[key]; ok {
			r.Failed = append(r.Failed, documents.Failed{Key: key, Error: why})
		} else {
			r.Files = append(r.Files, key)
		}
	}
	if again {
		return f.PutPartial(ctx, t.Segment.Name, r)
	}
	if err := f.PutSegmentResponse(ctx, t.Segment.Name, r); err != nil || len(job.Only) == 0 {
		return err
	}
	return f.RemovePartial(ctx, t.Segment.Name)
}
