package clone

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"

	"myrmidon"
	"myrmidon/object"
)

// asked returns what of an object is to be asked for.
func (t *task) asked(key string) ask {
	for i := range t.Objects {
		if string(t.Objects[i].Key) == key {
			return t.Objects[i].Ask
		}
	}
	return 0
}

// copyListed is the handler of [KindListed].
func (w *worker) copyListed(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	return w.each(ctx, job, w.copyListedOne)
}

func (w *worker) copyListedOne(ctx context.Context, t *opened, o object.Info, moved *atomic.Int64) (Evidence, error) {
	ask := t.asked(o.Key)
	src, dst, err := t.heads(ctx, o, ask)
	if err != nil {
		return Evidence{}, err
	}
	if src == nil {
		return Evidence{}, notListed(o.Key, fs.ErrNotExist)
	}
	var n Note
	s := Spec{Compare: t.Compare, Filter: t.Filter, Copy: t.Copy}
	e := Evidence{Action: "skip", How: "alike", Source: src.ETag}
	if dst != nil {
		e.Destination = dst.ETag
	}
	switch {
	case s.toCopy(&n, src, dst) != nil:
		if e, err = w.copySteady(ctx, t, *src, moved); err != nil {
			return e, err
		}
	case n.Left > 0:
		e.Action, e.How = "left", "by size or age"
	}
	if e.size == nil {
		e.size = &src.Size
	}
	e.found = e.found || ask&askSource != 0
	return e, nil
}

// checkListed is the handler of [KindListedVerify].
func (w *worker) checkListed(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	return w.each(ctx, job, w.checkListedOne)
}

func (w *worker) checkListedOne(ctx context.Context, t *opened, o object.Info, moved *atomic.Int64) (Evidence, error) {
	src, dst, err := t.heads(ctx, o, askSource|askDestination)
	if err != nil {
		return Evidence{}, err
	}
	// A key that the source does not have has failed to be copied: it is told of once.
	e := Evidence{Action: "verify", How: "absent"}
	if src == nil || !t.Filter.takes(*src) {
		return e, nil
	}
	var n Note
	s := Spec{Verify: t.Verify, Filter: t.Filter}
	if s.toCheck(&n, src, dst) != nil {
		return w.checkOne(ctx, t, *src, moved)
	}
	return Evidence{Action: "verify", How: "etag", Source: src.ETag, Destination: dst.ETag, size: &src.Size}, nil
}

// heads returns what both sides have of an object: o itself of the source, and nothing of
// the destination, where that is not asked for.
func (t *opened) heads(ctx context.Context, o object.Info, ask ask) (src, dst *object.Info, err error) {
	var both sync.WaitGroup
	var dstErr error
	if ask&askDestination != 0 {
		both.Go(func() { dst, dstErr = head(into(ctx), t.dst, o.Key) })
	}
	if src = &o; ask&askSource != 0 {
		src, err = head(from(ctx), t.src, o.Key)
	}
	both.Wait()
	return src, dst, errors.Join(err, dstErr)
}

// head is Head; nil if there is no object.
func head(ctx context.Context, s object.Store, key string) (*object.Info, error) {
	info, err := s.Head(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info.Key = key
	return &info, nil
}

// diffAtOnce is how many keys of a list are asked for at a time in a dry run.
const diffAtOnce = 64

// diffList is diff over the keys of a list.
func (w *worker) diffList(ctx context.Context, spec *Spec, fn func(Difference) error) (sum Note, err error) {
	top, err := w.listHead(ctx, "", *spec.List)
	if err != nil {
		return sum, err
	}
	t, err := w.stores(spec.task(nil, nil))
	if err != nil {
		return sum, err
	}
	for n := range top.Pages {
		keys, err := w.listed(ctx, "", *spec.List, n)
		if err != nil {
			return sum, err
		}
		p := listPage{spec: spec}
		if err := w.look(ctx, &p, keys, spec.Compare != CompareNone); err != nil {
			return sum, err
		}
		if err := t.headAll(ctx, &p); err != nil {
			return sum, err
		}
		for i, key := range p.keys {
			d := Difference{Action: "missing", Key: key}
			if src := p.src.info[i]; src != nil {
				if spec.toCopy(&p.note, src, p.dst.info[i]) == nil {
					continue
				}
				d = Difference{"copy", key, src.Size}
			} else {
				p.note.Listed++
				p.note.Missing++
			}
			if err := fn(d); err != nil {
				return sum, err
			}
		}
		sum.add(p.note)
	}
	return sum, nil
}

// headAll asks for all that a job would ask for.
func (t *opened) headAll(ctx context.Context, p *listPage) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	places := make(chan struct{}, diffAtOnce)
	for i, key := range p.keys {
		ask := p.ask(i)
		if p.spec.Copy.IfNone && !p.dst.known[i] {
			ask |= askDestination // nothing is copied that would tell
		}
		if ask == 0 || ctx.Err() != nil {
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			o := object.Info{Key: key}
			if p.src.info[i] != nil {
				o = *p.src.info[i]
			}
			src, dst, err := t.heads(ctx, o, ask)
			if err != nil {
				cancel(err)
				return
			}
			p.src.info[i] = src
			if ask&askDestination != 0 {
				p.dst.info[i] = dst
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}
