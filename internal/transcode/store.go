package transcode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
	"myrmidon/internal/limit"
	"myrmidon/object"
)

// How long caches may keep things. All but the multivariant playlist lies in folders
// that are named by their content.
const (
	cacheForever = "public, max-age=31536000, immutable"
	cacheNever   = "no-cache"
)

// maxObject bounds what is read whole from a store: a segment (20 s at 200 Mbit/s
// and its buffer), or a plan.
const maxObject = 1 << 30

// meteredStore counts what a job reads and writes, and tries again what fails for a
// moment. It belongs to one job; its methods may be called side by side.
type meteredStore struct {
	object.Store
	permits       *limit.Limiter // for requests, shared by all jobs of a kind and destination
	read, written atomic.Int64   // bytes
}

// again is the package's again, with a permit for each try.
func (s *meteredStore) again(ctx context.Context, do func() error) error {
	return again(ctx, func() error {
		permit, err := s.permits.Acquire(ctx)
		if err != nil {
			return err
		}
		err = do()
		permit.Release(outcome(err))
		return err
	})
}

// outcome is what a request tells its limiter. Where the store says when to come again,
// everything to it waits until then.
func outcome(err error) limit.Outcome {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return limit.OK
	}
	if after, is := object.Busy(err); is {
		return limit.Pushback(after)
	}
	return limit.Failed
}

// put stores b.
func (s *meteredStore) put(ctx context.Context, key string, b []byte, cache string) error {
	err := s.again(ctx, func() error {
		return s.Put(ctx, key, bytes.NewReader(b), int64(len(b)), object.Attrs{
			ContentType: object.TypeOf(key), CacheControl: cache,
		})
	})
	if err != nil {
		return err
	}
	s.written.Add(int64(len(b)))
	return nil
}

// get reads an object whole.
func (s *meteredStore) get(ctx context.Context, key string) (b []byte, err error) {
	err = s.again(ctx, func() error {
		b, err = s.getOnce(ctx, key)
		return err
	})
	return b, err
}

func (s *meteredStore) getOnce(ctx context.Context, key string) (_ []byte, err error) {
	r, info, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := r.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("read %s: %w", key, closeErr)
		}
	}()
	if info.Size > maxObject {
		return nil, myrmidon.Permanent(fmt.Errorf("read %s: %d bytes are more than expected", key, info.Size))
	}
	b := make([]byte, info.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	s.read.Add(info.Size)
	return b, nil
}

// Head and Delete are the store's, tried again.
func (s *meteredStore) Head(ctx context.Context, key string) (info object.Info, err error) {
	err = s.again(ctx, func() error {
		info, err = s.Store.Head(ctx, key)
		return err
	})
	return info, err
}

// Delete is the store's: see Head.
func (s *meteredStore) Delete(ctx context.Context, key string) error {
	return s.again(ctx, func() error { return s.Store.Delete(ctx, key) })
}

func (s *meteredStore) putJSON(ctx context.Context, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return s.put(ctx, key, append(b, '\n'), cacheNever)
}

func (s *meteredStore) getJSON(ctx context.Context, key string, v any) error {
	b, err := s.get(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}

// meter adds up what a job's processes use.
type meter struct{ myrmidon.Usage }

func newMeter() *meter { return &meter{myrmidon.Usage{Start: time.Now().UTC()}} }

// add counts one process. Processes of a job run one after another, so that the
// peak is the largest one's.
func (m *meter) add(out ffmpeg.Outcome) {
	m.CPU += out.CPU
	m.PeakRSS = max(m.PeakRSS, out.PeakRSS)
}

// usage ends the count.
func (m *meter) usage(s *meteredStore) myrmidon.Usage {
	m.End = time.Now().UTC()
	if s != nil {
		m.Read += s.read.Swap(0)
		m.Written += s.written.Swap(0)
	}
	return m.Usage
}
