// Package objects keeps records as objects of a store, such as a bucket: [Sink] is a sink.Sink.
//
// A batch becomes one object for each hour that its records are of, lines of JSON, packed with
// gzip unless told otherwise:
//
//	2026/11/21/19/20261121T190312Z-6f1d0c9be2a47d58.ndjson.gz
//
// The folder is the hour of the records' time, in UTC, which Athena and DuckDB take as a
// partition; the name has the time of the first of them and a hash of the content. So the same
// batch is the same object again, and a store that was away for a moment holds no doubles of
// it, unless the batcher has made another batch of the records. Objects should be large: give
// the batcher a Linger of a minute or so.
package objects

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/sink"
)

// Config says where objects go. All but Store may be zero.
type Config struct {
	Store  object.Store
	Prefix string // before each key; a "/" is put between
	Plain  bool   // not packed
}

// Sink puts objects. See [New].
type Sink struct {
	cfg     Config
	closed  atomic.Bool
	objects atomic.Uint64
}

// New returns the sink of a store, which stays open. The error, of a prefix that no key can
// have, is permanent.
func New(cfg Config) (*Sink, error) {
	if cfg.Prefix = strings.TrimSuffix(cfg.Prefix, "/"); cfg.Prefix != "" {
		if err := object.CheckKey(cfg.Prefix); err != nil {
			return nil, err
		}
		cfg.Prefix += "/"
	}
	return &Sink{cfg: cfg}, nil
}

// Traits say that objects should be large. 8 MiB of lines are about 1 MiB packed.
func (*Sink) Traits() sink.Traits { return sink.Traits{Records: 50_000, Bytes: 8 << 20} }

// String returns the store's address, and the prefix.
func (s *Sink) String() string {
	return strings.TrimSuffix(fmt.Sprint(s.cfg.Store), "/") + "/" + s.cfg.Prefix
}

// Objects returns how many were put.
func (s *Sink) Objects() uint64 { return s.objects.Load() }

// Close ends the sink.
func (s *Sink) Close() error {
	s.closed.Store(true)
	return nil
}

// Send puts the records. What an object could not be put of is named in a *sink.PartialError if
// another could.
func (s *Sink) Send(ctx context.Context, records []sink.Record) error {
	if s.closed.Load() {
		return sink.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("objects: %w", err)
	}
	good, at, refused := sink.Sort(records, sink.Check)
	return sink.Merge(len(records), at, refused, s.send(ctx, good))
}

func (s *Sink) send(ctx context.Context, records []sink.Record) error {
	hours := make(map[time.Time][]int)
	var order []time.Time
	for i, r := range records {
		hour := timeOf(r).UTC().Truncate(time.Hour)
		if hours[hour] == nil {
			order = append(order, hour)
		}
		hours[hour] = append(hours[hour], i)
	}
	why := make([]error, len(records))
	var first error
	failures := 0
	for _, hour := range order {
		err := s.put(ctx, hour, records, hours[hour])
		if myrmidon.IsPermanent(err) {
			return err // of the store: no other object would be taken either
		}
		for _, i := range hours[hour] {
			if why[i] = err; err != nil {
				failures++
			}
		}
		first = errors.Join(first, err)
	}
	switch failures {
	case 0:
		return nil
	case len(records):
		return first
	}
	p := &sink.PartialError{Total: len(records)}
	for i, err := range why {
		if err != nil {
			p.Failed = append(p.Failed, sink.Failed{Index: i, Err: err})
		}
	}
	return p
}

// timeOf is when a record happened, or now.
func timeOf(r sink.Record) time.Time {
	if r.Time.IsZero() {
		return time.Now()
	}
	return r.Time
}

// put puts one object.
func (s *Sink) put(ctx context.Context, hour time.Time, records []sink.Record, which []int) error {
	var lines []byte
	for _, i := range which {
		lines = append(append(lines, records[i].Data...), '\n')
	}
	sum := sha256.Sum256(lines)
	key := s.cfg.Prefix + hour.Format("2006/01/02/15/") + timeOf(records[which[0]]).UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(sum[:8]) + ".ndjson"
	attrs := object.Attrs{ContentType: "application/x-ndjson"}
	if !s.cfg.Plain {
		var packed bytes.Buffer
		zip := gzip.NewWriter(&packed)
		if _, err := zip.Write(lines); err != nil {
			return err
		}
		if err := zip.Close(); err != nil {
			return err
		}
		lines, key, attrs.ContentType = packed.Bytes(), key+".gz", "application/gzip"
	}
	if err := s.cfg.Store.Put(ctx, key, bytes.NewReader(lines), int64(len(lines)), attrs); err != nil {
		return fmt.Errorf("objects: put %s: %w", key, err)
	}
	s.objects.Add(1)
	return nil
}
