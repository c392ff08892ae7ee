package jetstream

import (
	"cmp"
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
	return b.replay(ctx, subject, after, end, func(seq uint64, data []byte) error {
		var e engine.Event
		err := decode(data, &e)
		if err == nil && e.Run != run {
			err = fmt.Errorf("it says that it belongs to run %.40q", e.Run)
		}
		if err != nil {
			b.log.Error("a message in the log of a run is no event; it is left out", "run", run, "sequence", seq, "err", err)
			return nil
		}
		return fn(seq, e)
	})
}

// Set implements engine.Blobs.
func (b *Backend) Set(ctx context.Context, key string, value []byte) error {
	if err := engine.CheckBlob(key, value); err != nil {
		return err
	}
	return b.persist(ctx, "store "+key, func(ctx context.Context) error {
		blobs, err := b.blobBucket(ctx, true)
		if err == nil {
			_, err = blobs.Put(ctx, kvKey(key), value)
		}
		return err
	})
}

// Value implements engine.Blobs.
func (b *Backend) Value(ctx context.Context, key string) (value []byte, err error) {
	err = b.persist(ctx, "read "+key, func(ctx context.Context) error {
		if blobs, err := b.blobBucket(ctx, false); err != nil || blobs == nil {
			return cmp.Or(err, errNotThere)
		}
		// The leader is asked: a replica may not have what this process has just stored.
		msg, err := b.lastIn(ctx, "KV_"+blobsName, "$KV."+blobsName+"."+kvKey(key))
		if err == nil {
			value = msg.Data
		}
		return err
	})
	if errors.Is(err, errNotThere) {
		return nil, fmt.Errorf("engine: blob %s: %w", key, fs.ErrNotExist)
	}
	return value, err
}

// Keys implements engine.Blobs.
func (b *Backend) Keys(ctx context.Context, prefix string) (keys []string, err error) {
	blobs, err := b.blobBucket(ctx, false)
	if err != nil || blobs == nil {
		return nil, b.explain(err)
	}
	err = b.current(ctx, blobs, prefix, func(e jetstream.KeyValueEntry) error {
		keys = append(keys, fromKV(e.Key()))
		return nil
	}, jetstream.MetaOnly())
	if err != nil {
		return nil, err
	}
	slices.Sort(keys)
	return keys, nil
}

// Each implements engine.Blobs.
func (b *Backend) Each(ctx context.Context, prefix string, fn func(string, []byte) error) error {
	blobs, err := b.blobBucket(ctx, false)
	if err != nil || blobs == nil {
		return b.explain(err)
	}
	return b.current(ctx, blobs, prefix, func(e jetstream.KeyValueEntry) error { return fn(fromKV(e.Key()), e.Value()) })
}

// unsetAtOnce is how many keys are forgotten side by side.
const unsetAtOnce = 32

// Unset implements engine.Blobs. The messages are purged from the bucket's stream: a
// bucket's own deletions leave a marker for each key for ever.
func (b *Backend) Unset(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	if blobs, err := b.blobBucket(ctx, false); err != nil || blobs == nil {
		return b.explain(err)
	}
	errs := make(chan error, len(keys))
	slots := make(chan struct{}, unsetAtOnce)
	for _, k := range keys {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			body := []byte(`{"filter":"$KV.` + blobsName + "." + kvKey(k) + `"}`)
			errs <- b.persist(ctx, "forget "+k, func(ctx context.Context) error { return b.api(ctx, "STREAM.PURGE.KV_"+blobsName, body) })
		}()
	}
	var all error
	for range keys {
		all = errors.Join(all, <-errs)
	}
	return all
}

// api calls the server's JetStream API.
func (b *Backend) api(ctx context.Context, call string, body []byte) error {
	res, err := b.conn.RequestWithContext(ctx, "$JS.API."+call, body)
	if err != nil {
		return err
	}
	var out struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(res.Data, &out); err != nil {
		return fmt.Errorf("answer to %s: %w", call, err)
	}
	if out.Error != nil {
		return out.Error
	}
	return nil
}
