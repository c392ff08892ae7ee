package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"myrmidon"
	"myrmidon/object"
)

// List lists in pages of 1,000, one request each. Infos have no Attrs. See
// [object.Store].
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		if ctx.Err() != nil {
			yield(object.Info{}, s.fail(ctx, "list", prefix, "s3:ListBucket", ended(ctx)))
			return
		}
		p, ok := s.pages(prefix, after, 0)
		for more := ok; more; {
			var page []object.Info
			var err error
			page, more, err = p.next(ctx)
			for _, info := range page {
				if !yield(info, nil) {
					return
				}
			}
			if err != nil {
				yield(object.Info{}, s.fail(ctx, "list", prefix, "s3:ListBucket", err))
				return
			}
		}
	}
}

// Page returns a page of a listing, by one request: it keeps nothing between two calls, so
// that many may list parts of a bucket at once. It sends more requests only where S3 cannot
// begin at after, or where pages are empty, so that a page which is empty is the last one.
// Infos have no Attrs. See [object.Pager].
func (s *Store) Page(ctx context.Context, prefix, after string, most int) (page []object.Info, more bool, err error) {
	if ctx.Err() != nil {
		return nil, false, s.fail(ctx, "list", prefix, "s3:ListBucket", ended(ctx))
	}
	if most <= 0 || most > object.MaxPage {
		most = object.MaxPage
	}
	p, more := s.pages(prefix, after, most)
	for more && len(page) == 0 {
		if page, more, err = p.next(ctx); err != nil {
			return nil, false, s.fail(ctx, "list", prefix, "s3:ListBucket", err)
		}
	}
	return page, more, nil
}

// maxEmpty bounds pages without a key that follow one another. S3 may send some.
const maxEmpty = 100

// pages goes through a listing, page by page, and checks it.
type pages struct {
	s      *Store
	wanted string // what the bucket's keys begin with
	after  string // and what they are greater than
	seen   string // the bucket's key that the server named last, wanted or not
	empty  int    // pages without a key, one after the other
	query  listQuery
	page   []object.Info // memory of the page before
}

// pages reports false if no key begins with prefix and comes behind after.
func (s *Store) pages(prefix, after string, most int) (*pages, bool) {
	p := &pages{s: s, wanted: s.prefix + prefix, after: s.prefix + after}
	ask, ok := askFor(p.wanted)
	if !ok || len(ask) > object.MaxKey || after > prefix && !strings.HasPrefix(after, prefix) {
		return nil, false // all of the prefix's keys come before after
	}
	p.query = listQuery{prefix: ask, most: most}
	if after > prefix {
		p.query.after = startAfter(p.after)
	}
	return p, true
}

// next returns the objects of the next page, until the following call, and whether there may
// be others behind them. With an error it returns those that come before what is wrong.
func (p *pages) next(ctx context.Context) (page []object.Info, more bool, err error) {
	got, err := p.s.hot.list(ctx, p.query, p.page[:0])
	if err != nil {
		return nil, false, err
	}
	p.page = got.page
	kept, n := got.page[:0], len(got.page)
	for _, o := range got.page {
		if !strings.HasPrefix(o.Key, p.query.prefix) {
			return kept, false, fmt.Errorf("the listing of %q holds %.100q", p.query.prefix, o.Key)
		}
		if o.Key <= p.seen { // or a server that starts over would do so for ever
			return kept, false, unordered(p.seen, o.Key)
		}
		if p.seen = o.Key; o.Key <= p.after {
			continue // startAfter began a little early
		}
		if !strings.HasPrefix(o.Key, p.wanted) {
			if o.Key > p.wanted {
				return kept, false, nil
			}
			continue
		}
		if o.Key == p.s.prefix {
			continue // the marker of this very folder
		}
		o.Key = o.Key[len(p.s.prefix):]
		kept = append(kept, o)
	}
	if got.count >= 0 && got.count != n {
		// Who mirrors a bucket would take what is missing for deleted.
		return kept, false, fmt.Errorf("a page of the listing says that it has %d objects, and has %d", got.count, n)
	}
	if !got.more {
		return kept, false, nil
	}
	if got.next == "" || got.next == p.query.token {
		return kept, false, errors.New("the listing is not complete and does not say how it goes on")
	}
	if p.empty++; n > 0 {
		p.empty = 0
	}
	if p.empty == maxEmpty {
		return kept, false, fmt.Errorf("the listing had no keys in %d pages and says that there are more", maxEmpty)
	}
	p.query.token = got.next
	return kept, true, nil
}

// askFor returns the prefix to ask S3 for, which takes whole characters only: one that
// ends within a character is asked for without it. It reports false if no key of S3
// begins with prefix.
func askFor(prefix string) (string, bool) {
	whole := prefix
	for i := range prefix {
		if c, n := utf8.DecodeRuneInString(prefix[i:]); c == utf8.RuneError && n == 1 {
			whole = prefix[:i]
			break
		}
	}
	rest := prefix[len(whole):]
	return whole, strings.IndexByte(whole, 0) < 0 && (rest == "" || !utf8.FullRuneInString(rest))
}

// startAfter returns after, or where no key of S3 can be like that a beginning of it:
// the listing then starts early, never late.
func startAfter(after string) string {
	for i, c := range after {
		bad := c == 0
		if c == utf8.RuneError {
			_, n := utf8.DecodeRuneInString(after[i:])
			bad = n == 1
		}
		if bad || i+utf8.RuneLen(c) > object.MaxKey {
			return after[:i]
		}
	}
	return after
}

// badKey is the error of a key whose encoding is wrong.
func badKey(key string) error {
	return fmt.Errorf("the listing holds a key that cannot be decoded: %.100q", key)
}

// unordered is the error of a listing that could not be continued.
func unordered(last, key string) error {
	err := fmt.Errorf("the listing is not in the order of keys: %.100q follows %.100q", key, last)
	return myrmidon.Permanent(myrmidon.WithHint(err, "directory buckets (S3 Express) list without order: use a general purpose bucket"))
}

var _ object.Pager = (*Store)(nil)
