package jetstream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"myrmidon/engine"
)

// open starts a watcher of the keys that begin with prefix, which lives as long as ctx;
// once bounds the start alone.
func (b *Backend) open(ctx, once context.Context, kv jetstream.KeyValue, prefix string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(ctx)
	inTime := context.AfterFunc(once, cancel)
	w, err := kv.WatchFiltered(ctx, []string{kvFilter(prefix)}, opts...)
	if err == nil && !inTime() {
		err = errNoAnswer
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return w, cancel, nil
}

// current calls fn once with each entry of a bucket whose key begins with prefix, as it is
// now. It begins again where the broker goes away in between, and where the replica that
// answers has not yet what the leader had when it began.
func (b *Backend) current(ctx context.Context, kv jetstream.KeyValue, prefix string, fn func(jetstream.KeyValueEntry) error, opts ...jetstream.WatchOpt) error {
	var all []jetstream.KeyValueEntry
	err := b.persist(ctx, "list "+prefix, func(once context.Context) error {
		var least uint64
		switch last, err := b.lastIn(once, "KV_"+kv.Bucket(), "$KV."+kv.Bucket()+"."+kvFilter(prefix)); {
		case err == nil:
			least = last.Sequence
		case !errors.Is(err, errNotThere):
			return err
		}
		var newest uint64
		all = all[:0]
		at := make(map[string]int)
		err := b.list(ctx, once, kv, prefix, func(e jetstream.KeyValueEntry) {
			newest = max(newest, e.Revision())
			if i, twice := at[e.Key()]; twice {
				all[i] = e
				return
			}
			at[e.Key()] = len(all)
			all = append(all, e)
		}, opts...)
		if err == nil && newest < least {
			return errNoAnswer // behind, or the entry was removed meanwhile
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// list calls fn with the entries that one replica has.
func (b *Backend) list(ctx, once context.Context, kv jetstream.KeyValue, prefix string, fn func(jetstream.KeyValueEntry), opts ...jetstream.WatchOpt) error {
	broken := b.link.broken()
	w, cancel, err := b.open(ctx, once, kv, prefix, append(opts, jetstream.IgnoreDeletes())...)
	if err != nil {
		return err
	}
	defer cancel()
	late := time.NewTimer(requestTimeout) // for the next entry: there may be many
	defer late.Stop()
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errNoAnswer
			case e == nil:
				return nil
			}
			fn(e)
			late.Reset(requestTimeout)
		case <-broken:
			return errNoAnswer
		case <-late.C:
			return errNoAnswer
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Watch implements engine.Registry.
func (b *Backend) Watch(ctx context.Context, prefix string, fn func(engine.Entry)) error {
	w := watcher{b: b, kv: b.bucketOf(prefix), prefix: prefix, fn: fn, told: make(map[string]uint64)}
	for {
		err := w.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// watcher is a call of Watch.
type watcher struct {
	b      *Backend
	kv     jetstream.KeyValue
	prefix string
	fn     func(engine.Entry)
	told   map[string]uint64 // the revision of each entry that is there as far as fn knows
	whole  bool              // fn knows that it was told all
}

// run watches until the connection has broken and is back: what the broker remembers of a
// watcher may be gone then, so that the caller begins anew. It tells what differs from
// what was told before.
func (w *watcher) run(ctx context.Context) error {
	back := w.b.link.returned()
	var updates jetstream.KeyWatcher
	var cancel context.CancelFunc
	err := w.b.persist(ctx, "watch "+w.prefix, func(once context.Context) (err error) {
		updates, cancel, err = w.b.open(ctx, once, w.kv, w.prefix)
		return err
	})
	if err != nil {
		return err
	}
	defer cancel()
	there := make(map[string]bool) // what is there, until all is read; then nil
	for {
		select {
		case e, ok := <-updates.Updates():
			switch {
			case !ok:
				return w.b.pause(ctx, "watch "+w.prefix, errNoAnswer)
			case e == nil:
				w.all(there)
				there = nil
			default:
				w.tell(e, there)
			}
		case <-back:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// all is called when everything that is there has been read.
func (w *watcher) all(there map[string]bool) {
	for key := range w.told {
		if !there[key] {
			delete(w.told, key)
			w.fn(engine.Entry{Key: key})
		}
	}
	if !w.whole {
		w.whole = true
		w.fn(engine.Entry{})
	}
}

func (w *watcher) tell(e jetstream.KeyValueEntry, there map[string]bool) {
	key := fromKV(e.Key())
	if e.Operation() != jetstream.KeyValuePut {
		if _, known := w.told[key]; known {
			delete(w.told, key)
			w.fn(engine.Entry{Key: key, Revision: e.Revision()})
		}
		return
	}
	if there != nil {
		there[key] = true
	}
	if w.told[key] != e.Revision() {
		w.told[key] = e.Revision()
		w.fn(engine.Entry{Key: key, Value: e.Value(), Revision: e.Revision()})
	}
}
