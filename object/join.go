package object

import (
	"context"
	"fmt"
	"iter"
	"strings"
)

// Pair is one key of two stores that are compared: Src is nil where only the
// destination has it, Dst where only the source has.
type Pair struct {
	Src, Dst *Info
}

// Key returns the key that the pair is of.
func (p Pair) Key() string {
	if p.Src != nil {
		return p.Src.Key
	}
	return p.Dst.Key
}

// Join compares two stores over r: it yields a pair for each key that either has, in
// byte order. It reads both in pages and holds one page of each.
//
// A pair without Src is yielded only when the source has been listed past its key, in
// order: a listing that fails, repeats or goes back ends the sequence with an error and
// an empty Pair, and no object is taken for one that the source lacks.
//
// Keys are compared as they are; see [Rebase] for stores whose prefixes differ. [Walk]
// and [JoinPage] together do the same in parallel.
func Join(ctx context.Context, src, dst Pager, r Range) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		in := Cursor{Range: r, Done: r.isEmpty()}
		other := &ahead{pager: dst, cursor: in}
		for !in.Done {
			page, more, err := src.Page(ctx, r.Prefix, in.Range.After, 0)
			if err != nil {
				yield(Pair{}, err)
				return
			}
			part, mine, err := in.Read(page, more)
			if err != nil {
				yield(Pair{}, err)
				return
			}
			if !other.join(ctx, part, mine, yield) {
				return
			}
		}
	}
}

// JoinPage is Join over part, of which page holds all objects of the source, as [Walk]
// gives them: it lists only the destination, within part. That takes one request where
// both have the same keys.
func JoinPage(ctx context.Context, dst Pager, part Range, page []Info) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		if err := checkPart(part, page); err != nil {
			yield(Pair{}, err)
			return
		}
		other := &ahead{pager: dst, cursor: Cursor{Range: part, Done: part.isEmpty()}}
		other.join(ctx, part, page, yield)
	}
}

// checkPart says whether page can be all of part.
func checkPart(part Range, page []Info) error {
	if err := CheckPage(part.Prefix, part.After, page); err != nil {
		return err
	}
	if n := len(page); n > 0 && !part.Contains(page[n-1].Key) {
		return fmt.Errorf("object: join %s: the key %s lies behind it", part, short(page[n-1].Key))
	}
	return nil
}

// ahead is a listing that is read as far as is asked, with what the last page had
// beyond.
type ahead struct {
	pager  Pager
	cursor Cursor
	page   []Info // not yet yielded
}

// join merges page, which is all of part in the source, with what the destination has
// there. It reports whether to go on: the caller wants more and nothing failed.
func (a *ahead) join(ctx context.Context, part Range, page []Info, yield func(Pair, error) bool) bool {
	for {
		dst, err := a.peek(ctx, part)
		switch {
		case err != nil:
			yield(Pair{}, err)
			return false
		case dst == nil && len(page) == 0:
			return true
		case dst == nil || len(page) > 0 && page[0].Key < dst.Key:
			if !yield(Pair{Src: &page[0]}, nil) {
				return false
			}
			page = page[1:]
		case len(page) == 0 || dst.Key < page[0].Key:
			a.page = a.page[1:]
			if !yield(Pair{Dst: dst}, nil) {
				return false
			}
		default:
			a.page = a.page[1:]
			if !yield(Pair{Src: &page[0], Dst: dst}, nil) {
				return false
			}
			page = page[1:]
		}
	}
}

// peek returns the next info of part, nil if there is none. It asks for a page where
// what was read does not show that.
func (a *ahead) peek(ctx context.Context, part Range) (*Info, error) {
	end := part.end()
	for len(a.page) == 0 && !a.cursor.Done && (end == "" || a.cursor.Range.After+"\x00" < end) {
		r := a.cursor.Range
		page, more, err := a.pager.Page(ctx, r.Prefix, r.After, 0)
		if err != nil {
			return nil, err
		}
		if _, a.page, err = a.cursor.Read(page, more); err != nil {
			return nil, err
		}
	}
	if len(a.page) == 0 || end != "" && a.page[0].Key >= end {
		return nil, nil
	}
	return &a.page[0], nil
}

// Rebase returns a view of p in which the objects below the prefix from have the prefix
// to instead, and others are not there: what a store is compared with whose objects lie
// below another prefix. The order of keys is the same. Keys get longer than MaxKey if p's
// do.
func Rebase(p Pager, from, to string) Pager {
	if from == to && from == "" {
		return p
	}
	return rebased{p, from, to}
}

type rebased struct {
	Pager
	from, to string
}

func (v rebased) Page(ctx context.Context, prefix, after string, most int) ([]Info, bool, error) {
	below := v.from
	switch {
	case strings.HasPrefix(prefix, v.to):
		below += prefix[len(v.to):]
	case !strings.HasPrefix(v.to, prefix):
		return nil, false, nil
	}
	switch {
	case strings.HasPrefix(after, v.to):
		after = v.from + after[len(v.to):]
	case after > v.to:
		return nil, false, nil // it is behind all that begins with to
	default:
		after = ""
	}
	page, more, err := v.Pager.Page(ctx, below, after, most)
	if err != nil {
		return nil, false, err
	}
	if err := CheckPage(below, after, page); err != nil {
		return nil, false, err
	}
	out := make([]Info, len(page))
	for i, info := range page {
		info.Key = v.to + info.Key[len(v.from):]
		out[i] = info
	}
	return out, more, nil
}
