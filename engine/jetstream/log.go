package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"myrmidon/engine"
)

// Read implements engine.Log. What is no event is left out, and said.
func (b *Backend) Read(ctx context.Context, run string, after uint64, follow bool, fn func(uint64, engine.Event) error) error {
	subject := events + run
	var end uint64
	if !follow {
		var err error
		if end, err = b.lastSequence(ctx, subject); err != nil || end <= after {
			return err
		}
	}
	passed := after
	read := func(ctx context.Context) error {
		return b.replay(ctx, subject, passed, end, func(seq uint64, data []byte) error {
			passed = seq
			var e engine.Event
			if err := json.Unmarshal(data, &e); err != nil {
				b.log.Error("a message in the log of a run is no event; it is left out", "run", run, "sequence", seq, "err", err)
				return nil
			}
			if err := fn(seq, e); err != nil {
				return stopped{err}
			}
			return nil
		})
	}
	err := read(ctx)
	for b.embedded == nil && err != nil && passing(err) && ctx.Err() == nil {
		if err := b.pause(ctx, err); err != nil {
			return err
		}
		err = read(ctx)
	}
	var stop stopped
	if errors.As(err, &stop) {
		return stop.error
	}
	return err
}

// stopped is an error of the reader, not of the log.
type stopped struct{ error }

// Set implements engine.Blobs.
func (b *Backend) Set(ctx context.Context, key string, value []byte) error {
	if err := engine.CheckBlob(key, value); err != nil {
		return err
	}
	return b.persist(ctx, "store "+key, func(ctx context.Context) error {
		_, err := b.blobs.Put(ctx, kvKey(key), value)
		return err
	})
}

// Value implements engine.Blobs.
func (b *Backend) Value(ctx context.Context, key string) (value []byte, err error) {
	err = b.persist(ctx, "read "+key, func(ctx context.Context) error {
		e, err := b.blobs.Get(ctx, kvKey(key))
		if err == nil {
			value = e.Value()
		}
		return err
	})
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, fmt.Errorf("engine: blob %s: %w", key, fs.ErrNotExist)
	}
	return value, err
}

// Keys implements engine.Blobs.
func (b *Backend) Keys(ctx context.Context, prefix string) (keys []string, err error) {
	err = b.persist(ctx, "list "+prefix, func(ctx context.Context) error {
		keys = nil
		l, err := b.blobs.ListKeysFiltered(ctx, kvFilter(prefix))
		if err != nil {
			return err
		}
		for k := range l.Keys() {
			keys = append(keys, fromKV(k))
		}
		return nil
	})
	slices.Sort(keys)
	return keys, err
}

// Each implements engine.Blobs.
func (b *Backend) Each(ctx context.Context, prefix string, fn func(string, []byte) error) error {
	w, err := b.blobs.WatchFiltered(ctx, []string{kvFilter(prefix)}, jetstream.IgnoreDeletes())
	if err != nil {
		return b.explain(err)
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return b.explain(errNoAnswer)
			case e == nil:
				return nil
			}
			if err := fn(fromKV(e.Key()), e.Value()); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unset implements engine.Blobs.
func (b *Backend) Unset(ctx context.Context, key string) error {
	return b.persist(ctx, "forget "+key, func(ctx context.Context) error { return b.blobs.Purge(ctx, kvKey(key)) })
}
