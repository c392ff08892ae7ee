package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"myrmidon/elb"
)

// Aside calls fn with each line that a run did not deliver, with its text as it is in the
// object, and with a reject without a line for each object that could not be read to its
// end. items is the run's evidence. An object that has changed since gives its rejects
// without text.
func (c Config) Aside(ctx context.Context, run string, spec Spec, items io.Reader, fn func(Reject) error) error {
	w := &worker{cfg: c}
	type address struct{ shard, index uint32 }
	parked := make(map[address]Item)
	var order []address
	for dec := json.NewDecoder(items); ; {
		var it Item
		if err := dec.Decode(&it); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return fmt.Errorf("logs: evidence: %w", err)
		}
		at := address{it.Shard, it.Index}
		if _, known := parked[at]; it.State == "parked" && !it.Plan {
			if !known {
				order = append(order, at)
			}
			parked[at] = it
		} else if known {
			delete(parked, at) // a retry has done it
		}
	}
	for _, at := range order {
		it, ok := parked[at]
		if !ok {
			continue
		}
		delete(parked, at)
		if err := w.aside(ctx, run, &spec, it, fn); err != nil {
			return err
		}
	}
	return nil
}

// aside tells of the lines of one object.
func (w *worker) aside(ctx context.Context, run string, spec *Spec, it Item, fn func(Reject) error) error {
	store, key, err := spec.Open(w.cfg.OpenBucket, w.cfg.OpenObject)
	if err != nil {
		return err
	}
	if !spec.Single {
		key = strings.TrimPrefix(it.Name, strings.TrimSuffix(spec.Base, "/")+"/")
	}
	s := &shipment{
		w: w, task: &task{Spec: *spec}, store: store, run: run, key: key, name: it.Name,
		mark: fmt.Sprintf("%d-%d", it.Shard, it.Index),
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	if !s.at.Done {
		if err := fn(Reject{Object: it.Name, Line: s.at.Line + 1, Offset: s.at.Offset, Reason: it.LastError, Kind: "reading"}); err != nil {
			return err
		}
	}
	if len(s.at.Rejects) == 0 {
		return nil
	}
	unlisted := s.at.More
	var failed error // of fn
	texts, err := s.texts(ctx, func(r Reject) bool {
		unlisted--
		failed = fn(r)
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		texts = nil // the object is gone or damaged: the places are told nevertheless
	}
	if unlisted > 0 {
		if err := fn(s.unlisted(unlisted)); err != nil {
			return err
		}
	}
	for _, r := range s.at.Rejects {
		r.Object, r.Text = it.Name, texts[r.Offset]
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// unlisted tells of lines of which no place was kept.
func (s *shipment) unlisted(n int64) Reject {
	return Reject{Object: s.name, Reason: fmt.Sprintf("%d more lines were not delivered than are listed here", n), Kind: sending}
}

// texts reads the lines of the checkpoint's rejects. If there are more than it keeps, those that are
// no records are told to fn, unless that is nil, until it returns false.
func (s *shipment) texts(ctx context.Context, fn func(Reject) bool) (map[int64]string, error) {
	raw, info, err := s.store.Get(ctx, s.key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer raw.Close() // it is only read
	if info.ETag != s.at.ETag {
		return nil, fmt.Errorf("logs: %s has changed", s.name)
	}
	in, err := NewBody(raw)
	if err != nil {
		return nil, err
	}
	out := make(map[int64]string, len(s.at.Rejects))
	for _, r := range s.at.Rejects {
		out[r.Offset] = ""
	}
	left := len(out)
	all := s.at.More > 0 && fn != nil
	format, err := elb.ParseFormat(s.task.Filter.Format)
	if err != nil {
		format = elb.Unknown // none was named
	}
	for record, err := range elb.NewReader(in, elb.Config{Format: format, Key: s.key}).Lines() {
		var bad *elb.LineError
		switch {
		case record != nil:
			if _, ok := out[record.Offset]; ok {
				out[record.Offset] = string(record.Text())
				left--
			}
		case errors.As(err, &bad):
			if _, ok := out[bad.Offset]; ok {
				out[bad.Offset] = string(bad.Text)
				left--
			} else if all && bad.End <= s.at.Offset {
				r := rejectOf(s.name, bad)
				if r.Text = string(bad.Text); !fn(r) {
					return out, nil
				}
			}
		default:
			return out, nil
		}
		if left == 0 && !all {
			break
		}
	}
	return out, nil
}
