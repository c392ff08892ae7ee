package clone

import (
	"context"
	"encoding/json"
	"fmt"

	"myrmidon"
	"myrmidon/internal/pattern"
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
		if spec.Control != nil && step.Shard == 0 && len(step.Cursor) == 0 {
			// Everything is copied or has failed, so the manifest is there, unless a slice was
			// planned twice and not alike.
			if err := w.conclude(ctx, spec.Control, step.Run, "", nil); err != nil {
				return myrmidon.Slice{}, err
			}
		}
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
	return w.slice(ctx, &spec, c, step, kind, choose)
}

// slice plans the next pages of a range.
func (w *worker) slice(ctx context.Context, spec *Spec, c cursor, step myrmidon.Step, kind string, choose func(*Note, *object.Info, *object.Info) *object.Info) (out myrmidon.Slice, err error) {
	s, err := w.scan(spec, &c.At, c.Bare)
	if err != nil {
		return out, err
	}
	var note Note
	var chosen []entry
	var names []string // of segments
	from, number := c.At.Range, c.At.Pages
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
	told := spec.Control != nil && kind == KindCopy
	if told {
		out.Jobs, names, err = spec.controlled(chosen, from, c.At.Range, c.At.Done)
	} else {
		out.Jobs, err = spec.jobs(kind, chosen)
	}
	if err != nil {
		return out, err
	}
	if note != (Note{}) {
		if out.Note, err = json.Marshal(note); err != nil {
			return out, err
		}
	}
	if out.Done = c.At.Done; !out.Done {
		c.Bare = s.dst.bare(c.At.Range.After)
		if out.Children, err = s.divide(&c); err != nil {
			return out, err
		}
		if out.Cursor, err = encode(c); err != nil {
			return out, err
		}
	}
	if told {
		err = w.planned(ctx, spec.Control, step, number, names, out)
	}
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
	n.Bytes += max(src.Size, 0)
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
var md5sum = pattern.Of(`^[0-9a-f]{32}(-[0-9]+)?$`)

// toCheck chooses what is read, or looked at again, because its listings do not vouch for
// it.
func (s *Spec) toCheck(n *Note, src, dst *object.Info) *object.Info {
	if src == nil || !s.Filter.takes(*src) {
		return nil
	}
	if s.Verify != VerifyRead && dst != nil && src.Size == dst.Size && src.ETag == dst.ETag && md5sum().MatchString(src.ETag) {
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
