package clone

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"myrmidon"
	"myrmidon/object"
)

// scan joins the listings of source and destination within a range of keys, page by page.
// It holds one page of each.
type scan struct {
	src    object.Pager
	dst    *reader
	cursor *object.Cursor
}

// scan goes on where c stands. bare says that the destination has nothing in its range.
func (w *worker) scan(s *Spec, c *object.Cursor, bare bool) (*scan, error) {
	src, err := w.pager(s.Source)
	if err != nil {
		return nil, err
	}
	dst, err := w.pager(s.Destination)
	if err != nil {
		return nil, err
	}
	return &scan{src, &reader{Pager: dst, known: bare, after: c.Range.After}, c}, nil
}

func (w *worker) pager(address string) (object.Pager, error) {
	store, err := w.open(address)
	if err != nil {
		return nil, err
	}
	if p, ok := store.(object.Pager); ok {
		return p, nil
	}
	return nil, myrmidon.Permanent(fmt.Errorf("clone: %s cannot be listed by pages", address))
}

// page reads a page of the source, and what the destination has of those keys, and calls
// visit with each key's objects, in the order of keys; one of them may be nil. With the
// last page of the range come the destination's last objects.
func (s *scan) page(ctx context.Context, visit func(src, dst *object.Info) error) error {
	at := s.cursor.Range
	var both sync.WaitGroup
	both.Go(func() {
		_, _, _ = s.dst.Page(into(ctx), at.Prefix, at.After, 0) // the reader keeps it; what failed is asked for again
	})
	page, more, err := s.src.Page(from(ctx), at.Prefix, at.After, 0)
	both.Wait()
	if err != nil {
		return fmt.Errorf("list the source: %w", err)
	}
	part, mine, err := s.cursor.Read(page, more)
	if err != nil {
		return fmt.Errorf("list the source: %w", err)
	}
	for pair, err := range object.JoinPage(into(ctx), s.dst, part, mine) {
		if err != nil {
			return fmt.Errorf("list the destination: %w", err)
		}
		if err := visit(pair.Src, pair.Dst); err != nil {
			return err
		}
	}
	return nil
}

// reader keeps the last page of a listing that is asked for part by part, so that what a
// page has beyond a part is not asked for again, nor what lies behind the end.
type reader struct {
	object.Pager
	known bool // page is all that there is behind after, up to more
	after string
	page  []object.Info
	more  bool
}

// Page implements [object.Pager]. It always reads whole pages, and is asked from front to
// back.
func (r *reader) Page(ctx context.Context, prefix, after string, _ int) ([]object.Info, bool, error) {
	if r.known && after >= r.after {
		n, found := slices.BinarySearchFunc(r.page, after, func(o object.Info, key string) int { return strings.Compare(o.Key, key) })
		if found {
			n++
		}
		if rest := r.page[n:]; len(rest) > 0 || !r.more {
			return rest, r.more, nil
		}
	}
	page, more, err := r.Pager.Page(ctx, prefix, after, 0)
	r.known, r.after, r.page, r.more = err == nil, after, page, more
	return page, more, err
}

// bare reports whether there is nothing behind a key, as far as is known.
func (r *reader) bare(after string) bool {
	return r.known && !r.more && after >= r.after && (len(r.page) == 0 || r.page[len(r.page)-1].Key <= after)
}

// shards hands out numbers of shards, each once: a shard has a stock of them, of which it
// gives a part to each shard that it opens.
type shards struct {
	Next uint32 `json:"next"` // the first of the stock
	Left uint32 `json:"left"` // how many there are
}

func allShards() shards { return shards{1, math.MaxUint32} }

// enough reports whether a range may be divided.
func (s *shards) enough() bool { return s.Left >= 64 }

// take splits off the number of a shard with a stock of its own.
func (s *shards) take() (id uint32, stock shards) {
	n := s.Left / 4
	id, stock = s.Next, shards{s.Next + 1, n - 1}
	s.Next += n
	s.Left -= n
	return id, stock
}

const (
	// divideFrom is how many pages a range must have left, by what is known of it, to be
	// divided, and divideInto into how many it is at most: with a page each, the ranges are
	// four times as many after each round trip.
	divideFrom = 4
	divideInto = 4
)

// divide hands out parts of what is left of a range as shards.
func (s *scan) divide(c *cursor) (children []myrmidon.Shard, err error) {
	n := min(int(s.cursor.Left()/divideFrom), divideInto-1)
	if n < 1 || !c.Stock.enough() {
		return nil, nil
	}
	for _, part := range s.cursor.Split(n) {
		id, stock := c.Stock.take()
		data, err := encode(cursor{At: part, Bare: c.Bare, Stock: stock})
		if err != nil {
			return nil, err
		}
		children = append(children, myrmidon.Shard{ID: id, Cursor: data})
	}
	return children, nil
}
