package clone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"myrmidon"
	"myrmidon/object"
)

// slicePages is how many pages of the source one slice of the plan holds, but the first of
// a range, which has one: copying begins at once.
const slicePages = 4

// cursor says where the plan of a range stands.
type cursor struct {
	At    object.Cursor `json:"at"`
	Bare  bool          `json:"bare,omitempty"` // the destination has nothing in it
	Stock shards        `json:"stock"`
}

// encode is for what is always JSON: the error is for those who change it.
func encode(c cursor) (json.RawMessage, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, myrmidon.Permanent(fmt.Errorf("clone: cursor: %w", err))
	}
	return data, nil
}

// planStep is the planner. All phases list both sides by the same ranges.
func (w *worker) planStep(ctx context.Context, step myrmidon.Step) (myrmidon.Slice, error) {
	spec, err := read[Spec]("the run's spec", step.Spec)
	if err != nil {
		return myrmidon.Slice{}, err
	}
	c := cursor{Stock: allShards()}
	if len(step.Cursor) > 0 {
		if c, err = read[cursor]("cursor", step.Cursor); err != nil {
			return myrmidon.Slice{}, err
		}
	}
	var kind string
	var choose func(n *Note, src, dst *object.Info) *object.Info
	switch step.Phase {
	case phaseCopy:
		kind, choose = KindCopy, spec.toCopy
		if step.Shard == 0 && c.At.Pages == 0 {
			if err := w.canSet(&spec); err != nil {
				return myrmidon.Slice{}, err
			}
		}
	case phaseVerify:
		kind, choose = KindVerify, spec.toCheck
		if spec.Verify == VerifyNone {
			return myrmidon.Slice{Done: true}, nil
		}
	default:
		kind, choose = KindDelete, spec.toDelete
		if !spec.Delete {
			return myrmidon.Slice{Done: true}, nil
		}
		if step.Shard == 0 && c.At.Pages == 0 {
			if err := w.fewEnough(ctx, &spec); err != nil {
				return myrmidon.Slice{}, err
			}
		}
	}
	return w.slice(ctx, &spec, c, kind, choose)
}

// canSet refuses what only a service that copies by itself can give to an object: streamed
// objects would be without it, and nobody told.
func (w *worker) canSet(s *Spec) error {
	o := s.Copy
	if o.Tags == nil && len(o.Metadata) == 0 && o.StorageClass == "" && o.Encryption == "" && o.ACL == "" {
		return nil
	}
	src, err := w.open(s.Source)
	if err != nil {
		return err
	}
	dst, err := w.open(s.Destination)
	if err != nil {
		return err
	}
	if im, ok := dst.(object.Importer); ok && im.CanImport(src) {
		return nil
	}
	return myrmidon.Permanent(myrmidon.WithHint(
		errors.New("user metadata, tags, storage class, encryption and ACL can be set only between buckets of one endpoint and profile"),
		"leave these flags away, or set the destination bucket's defaults"))
}

// slice plans the next pages of a range.
func (w *worker) slice(ctx context.Context, spec *Spec, c cursor, kind string, choose func(*Note, *object.Info, *object.Info) *object.Info) (out myrmidon.Slice, err error) {
	s, err := w.scan(spec, &c.At, c.Bare)
	if err != nil {
		return out, err
	}
	var note Note
	var chosen []entry
	pages := uint32(slicePages)
	if c.At.Pages == 0 {
		pages = 1
	}
	for range pages {
		err := s.page(ctx, func(src, dst *object.Info) error {
			if o := choose(&note, src, dst); o != nil {
				chosen = append(chosen, entryOf(*o))
			}
			return nil
		})
		if err != nil {
			return out, err
		}
		if c.At.Done {
			break
		}
	}
	if out.Jobs, err = spec.jobs(kind, chosen); err != nil {
		return out, err
	}
	if note != (Note{}) {
		if out.Note, err = json.Marshal(note); err != nil {
			return out, err
		}
	}
	if out.Done = c.At.Done; out.Done {
		return out, nil
	}
	c.Bare = s.dst.bare(c.At.Range.After)
	if out.Children, err = s.divide(&c); err != nil {
		return out, err
	}
	out.Cursor, err = encode(c)
	return out, err
}

// toCopy chooses what is copied.
func (s *Spec) toCopy(n *Note, src, dst *object.Info) *object.Info {
	switch {
	case src == nil:
		if s.Filter.TakesKey(dst.Key) {
			n.Extra++
		}
		return nil
	case !s.Filter.takes(*src):
		n.Listed++
		n.Left++
		return nil
	}
	n.Listed++
	n.Bytes += src.Size
	if dst != nil && (s.Copy.IfNone || s.Compare.alike(*src, *dst)) {
		n.Skipped++
		return nil
	}
	n.Copy++
	return src
}

// toDelete chooses what is deleted.
func (s *Spec) toDelete(_ *Note, src, dst *object.Info) *object.Info {
	if src == nil && s.Filter.TakesKey(dst.Key) {
		return dst
	}
	return nil
}

// md5sum is the ETag of an object that was put with one request, in most cases.
var md5sum = regexp.MustCompile(`^[0-9a-f]{32}(-[0-9]+)?$`)

// toCheck chooses what is read, or looked at again, because its listings do not vouch for
// it.
func (s *Spec) toCheck(n *Note, src, dst *object.Info) *object.Info {
	if src == nil || !s.Filter.takes(*src) {
		return nil
	}
	if s.Verify == VerifyETag && dst != nil && src.Size == dst.Size && src.ETag == dst.ETag && md5sum.MatchString(src.ETag) {
		n.Alike++
		return nil
	}
	n.Check++
	return src
}

// fewEnough refuses to delete more than the spec allows, before anything is deleted.
func (w *worker) fewEnough(ctx context.Context, spec *Spec) error {
	if spec.MaxDelete < 0 {
		return nil
	}
	sum, err := w.diff(ctx, spec, func(Difference) error { return nil })
	if err == nil && sum.Extra > spec.MaxDelete {
		err = myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("the destination has %d objects that the source does not have, more than the %d that may be deleted: none is", sum.Extra, spec.MaxDelete),
			"look at them with --dry-run --delete; then raise --max-delete"))
	}
	return err
}

// Difference is what a clone would do with one object.
type Difference struct {
	Action string `json:"action"` // copy, delete, or missing: a key of the list that the source does not have
	Key    string `json:"key"`
	Size   int64  `json:"size"` // bytes
}

// Diff calls fn with everything that a run with spec would copy, and delete if it asks for
// it, in the order of keys, and changes nothing.
func (c Config) Diff(ctx context.Context, spec Spec, fn func(Difference) error) (Note, error) {
	if err := spec.Validate(); err != nil {
		return Note{}, err
	}
	w := &worker{cfg: c}
	ctx = w.runs.open("", spec.Limits).with(ctx)
	if spec.List != nil {
		return w.diffList(ctx, &spec, fn)
	}
	return w.diff(ctx, &spec, fn)
}

func (w *worker) diff(ctx context.Context, spec *Spec, fn func(Difference) error) (sum Note, err error) {
	var at object.Cursor
	s, err := w.scan(spec, &at, false)
	if err != nil {
		return sum, err
	}
	for !at.Done {
		err := s.page(ctx, func(src, dst *object.Info) error {
			if o := spec.toCopy(&sum, src, dst); o != nil {
				return fn(Difference{"copy", o.Key, o.Size})
			}
			if src == nil && spec.Delete && spec.Filter.TakesKey(dst.Key) {
				return fn(Difference{"delete", dst.Key, dst.Size})
			}
			return nil
		})
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}
