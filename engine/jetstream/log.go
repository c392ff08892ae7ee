package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"myrmidon/engine"
)

// Append implements engine.Log.
func (b *Backend) Append(ctx context.Context, e engine.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("engine: event of run %s: %w", e.Run, err)
	}
	return b.explain(b.publish(ctx, []*nats.Msg{{Subject: "event." + e.Run, Data: data}}))
}

// Read implements engine.Log.
func (b *Backend) Read(ctx context.Context, run string, after uint64, follow bool, fn func(uint64, engine.Event) error) error {
	subject := "event." + run
	var end uint64
	if !follow {
		last, err := b.runs.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return b.explain(err)
		}
		if end = last.Sequence; end <= after {
			return nil
		}
	}
	cons, err := b.runs.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subject},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    after + 1,
	})
	if err != nil {
		return b.explain(err)
	}
	iter, err := cons.Messages()
	if err != nil {
		return b.explain(err)
	}
	stop := context.AfterFunc(ctx, iter.Stop)
	defer func() { stop(); iter.Stop() }()
	for {
		msg, err := iter.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) && ctx.Err() != nil {
			if follow {
				return nil
			}
			return ctx.Err()
		}
		if err != nil {
			return b.explain(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("engine: event of run %s: %w", run, err)
		}
		var e engine.Event
		if err := json.Unmarshal(msg.Data(), &e); err != nil {
			return fmt.Errorf("engine: event %d of run %s: %w", meta.Sequence.Stream, run, err)
		}
		if err := fn(meta.Sequence.Stream, e); err != nil {
			return err
		}
		if !follow && meta.Sequence.Stream >= end {
			return nil
		}
	}
}

// Set implements engine.Blobs.
func (b *Backend) Set(ctx context.Context, key string, value []byte) error {
	if err := engine.CheckBlob(key, value); err != nil {
		return err
	}
	_, err := b.blobs.Put(ctx, key, value)
	return b.explain(err)
}

// Value implements engine.Blobs.
func (b *Backend) Value(ctx context.Context, key string) ([]byte, error) {
	e, err := b.blobs.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, fmt.Errorf("engine: blob %s: %w", key, fs.ErrNotExist)
	}
	if err != nil {
		return nil, b.explain(err)
	}
	return e.Value(), nil
}

// Keys implements engine.Blobs.
func (b *Backend) Keys(ctx context.Context, prefix string) ([]string, error) {
	l, err := b.blobs.ListKeys(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, b.explain(err)
	}
	var keys []string
	for k := range l.Keys() {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// Unset implements engine.Blobs.
func (b *Backend) Unset(ctx context.Context, key string) error {
	return b.explain(b.blobs.Purge(ctx, key))
}
