package clone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"myrmidon"
	"myrmidon/object"
)

// maxChanges is how often an object that changes again and again is looked at anew.
const maxChanges = 3

// copySteady copies an object, and does what the spec says where it is not as it was
// listed, or another one is there already.
func (w *worker) copySteady(ctx context.Context, t *task, o object.Info, moved *atomic.Int64) (Evidence, error) {
	e, err := w.copyOne(ctx, t, o, moved)
	for n := 0; n < maxChanges && t.IfChanged == ChangedCopy && errors.Is(err, object.ErrChanged); n++ {
		src, oerr := w.open(t.Source)
		if oerr != nil {
			return e, oerr
		}
		now, herr := src.Head(from(ctx), o.Key)
		if herr != nil {
			return e, gone(o.Key, herr)
		}
		now.Key, o = o.Key, now
		e, err = w.copyOne(ctx, t, o, moved)
		e.size = &o.Size
	}
	switch {
	case t.Copy.IfNone && errors.Is(err, fs.ErrExist):
		return Evidence{Action: "skip", How: "exists", Source: o.ETag}, nil
	case t.IfChanged == ChangedSkip && errors.Is(err, object.ErrChanged):
		return Evidence{Action: "skip", How: "changed", Source: o.ETag}, nil
	}
	return e, err
}

// place stores what is streamed; with onlyNew it replaces nothing.
func place(ctx context.Context, dst object.Store, onlyNew bool, key string, body io.Reader, size int64, attrs object.Attrs) error {
	if !onlyNew {
		return dst.Put(ctx, key, body, size, attrs)
	}
	if c, ok := dst.(object.Creator); ok {
		return c.PutNew(ctx, key, body, size, attrs)
	}
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q is not copied: its destination cannot store on the condition that nothing is there", key),
		"leave --if-missing away"))
}
