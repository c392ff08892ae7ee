package clone

import (
	"context"
	"errors"
	"io/fs"
	"sync/atomic"

	"myrmidon/object"
)

// maxChanges is how often an object that changes again and again is looked at anew.
const maxChanges = 3

// Why an object that is not copied is skipped: [Evidence].How.
const (
	skipExists  = "exists"
	skipChanged = "changed"
)

// copySteady copies an object, and does what the spec says where it is not as it was
// listed, or another one is there already.
func (w *worker) copySteady(ctx context.Context, t *opened, o object.Info, moved *atomic.Int64) (Evidence, error) {
	planned := o.Size
	e, err := w.copyOne(ctx, t, o, moved)
	for n := 0; n < maxChanges && t.IfChanged == ChangedCopy && errors.Is(err, object.ErrChanged); n++ {
		now, herr := t.src.Head(from(ctx), o.Key)
		if herr != nil {
			return e, gone(o.Key, herr)
		}
		now.Key, o = o.Key, now
		e, err = w.copyOne(ctx, t, o, moved)
		if e.found = planned < 0; o.Size >= 0 {
			size := o.Size // o itself stays off the heap, for all that do not change
			e.size = &size
		}
	}
	switch {
	case t.Copy.IfNone && errors.Is(err, fs.ErrExist):
		return Evidence{Action: "skip", How: skipExists, Source: o.ETag}, nil
	case t.IfChanged == ChangedSkip && errors.Is(err, object.ErrChanged):
		return Evidence{Action: "skip", How: skipChanged, Source: o.ETag}, nil
	}
	return e, err
}
