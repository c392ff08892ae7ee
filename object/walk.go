package object

import (
	"context"
	"fmt"
	"sync"
)

// WalkOptions say how a walk goes. The zero value is the default.
type WalkOptions struct {
	// Parallel is how many pages are asked for or handled at a time; 0 means 64.
	Parallel int
	// PageSize is how many objects a page has; 0 means MaxPage.
	PageSize int
}

// Walk lists r with many requests at a time, flat and deep buckets alike: it cuts the
// range of keys where it finds them, without regard to "/" (see [Cursor]).
//
// fn gets each object once, page by page: the objects of part, all of them, in order,
// at most PageSize. The parts are disjoint and cover r; page is empty where a part
// holds nothing. fn is called from up to Parallel goroutines at once, and parts come
// in no order. The first error, of the store or of fn, ends the walk: ctx of the
// requests under way ends, and Walk returns that error when all calls have returned.
// What is left then is Remaining(r, the parts whose calls of fn succeeded).
//
// A million keys take 1,100 to 1,190 requests, in 10 to 35 times less time than in order,
// by 64 at once; a store of one page takes one request. Requests are at most 1.2 times
// those of a listing in order, and a dozen more (TestWalkIsFastAndCheap prints both). In
// memory are at most Parallel pages and as many ranges, however many keys there are.
//
// An object that is put or deleted meanwhile is listed or not. The error names both keys
// if the store lists out of order; see [CheckPage].
func Walk(ctx context.Context, p Pager, r Range, opts WalkOptions, fn func(part Range, page []Info) error) error {
	if opts.Parallel <= 0 {
		opts.Parallel = 64
	}
	if opts.PageSize <= 0 {
		opts.PageSize = MaxPage
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("object: list %s: %w", r, err)
	}
	if r.isEmpty() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &walk{
		ctx: ctx, cancel: cancel, pager: p, opts: opts, fn: fn,
		open: []*lister{{cursor: Cursor{Range: r}}},
	}
	w.mu.Lock()
	w.start()
	w.mu.Unlock()
	w.all.Wait()
	if w.err == nil && ctx.Err() != nil {
		return fmt.Errorf("object: list %s: %w", r, context.Cause(ctx))
	}
	return w.err
}

// walk is one Walk under way.
type walk struct {
	ctx    context.Context // of this one call, which is all that a walk lives for
	cancel context.CancelFunc
	pager  Pager
	opts   WalkOptions
	fn     func(Range, []Info) error
	all    sync.WaitGroup

	mu     sync.Mutex
	open   []*lister // those with something left or under way, at most Parallel
	pages  int       // answered
	keys   int       // given to fn
	probes int       // pages that were the first of a part split off
	found  int       // of them, those with a key
	err    error     // the first
}

// lister is one range of a walk.
type lister struct {
	cursor Cursor
	busy   bool    // asking, or in fn
	left   float64 // cursor.Left, as of its last page or split, within reason
	parent *lister // what it was split off, until it has had a page
	// Without a budget a range may be split again after patience pages; since counts.
	patience, since int
}

// start sends a request for each range that waits, and cuts ranges while there is room
// for more. The caller holds mu.
func (w *walk) start() {
	if w.ctx.Err() != nil {
		return
	}
	w.split()
	for _, l := range w.open {
		if !l.busy {
			l.busy = true
			asked := l.cursor.Range // Split moves its end meanwhile
			w.all.Go(func() { w.page(l, asked) })
		}
	}
}

// What splitting may cost. A range that ends within a page wastes half a page on the
// average, and a part with nothing in it a whole one. The budget for all is startWaste
// requests, a share of those made, and from the 14th, where the store is known to be no
// small one, some more. A store that keeps its word on how much is left is credited a
// share of that at once, so that listers need not wait for pages to pay for them.
//
// Where the budget is used up, because keys lie where nothing led to expect them, a
// range may still be split each few pages, and twice as many after each failure: a
// large rest is never left to one lister.
//
// The numbers were found by trying them on the layouts of TestWalkIsFastAndCheap.
const (
	startWaste   = 4
	wasteShare   = 0.115
	endWaste     = 0.5
	largeFrom    = 14 // pages
	largeWaste   = 8  // requests, half of one for each page from largeFrom on
	creditFrom   = 20 // pages
	creditShare  = 0.5
	minLeft      = 3 // pages: with fewer, a second lister saves too little
	maxParts     = 6 // at once, of one range
	minPatience  = 4 // pages
	mostPatience = 64
)

// split cuts the largest ranges into as many parts as there is room for.
func (w *walk) split() {
	free, paid := w.opts.Parallel-len(w.open), w.affordable()
	parts := make(map[*lister]int)
	for n := range free {
		var best *lister
		most := float64(minLeft)
		for _, l := range w.open {
			if parts[l] == maxParts || n >= paid && (l.since < max(l.patience, minPatience) || parts[l] > 0) {
				continue
			}
			if share := l.left / float64(parts[l]+1); share >= most {
				best, most = l, share
			}
		}
		if best == nil {
			break
		}
		parts[best]++
	}
	for _, l := range w.open[:len(w.open):len(w.open)] {
		if parts[l] == 0 {
			continue
		}
		cut := l.cursor.Split(parts[l])
		for i := range cut {
			w.open = append(w.open, &lister{cursor: cut[i], parent: l})
		}
		l.since, l.left = 0, w.left(l)
		if len(cut) == 0 {
			l.left = 0 // until its next page
		}
	}
}

// left is what is left of l. No estimate is worth more than a few times what was seen.
func (w *walk) left(l *lister) float64 {
	return min(l.cursor.Left(), float64(max(2*steep, w.pages)))
}

// affordable is how many parts the budget allows. Parts that have shown nothing yet are
// at most as many as pages, so listers double from round to round and a small store
// does not pay for what a large one needs.
func (w *walk) affordable() int {
	fresh, ahead := 0, 0.0
	for _, l := range w.open {
		if l.parent != nil {
			fresh++
		}
		if l.left != steep {
			ahead += l.left
		}
	}
	pages := float64(w.pages)
	budget := startWaste + wasteShare*pages + min(max(pages-largeFrom, 0)/2, largeWaste)
	if w.pages >= creditFrom {
		hits := float64(w.found) / float64(max(w.probes, 1))
		budget += wasteShare * min(ahead, creditShare*pages) * hits * hits
	}
	wasted := pages - float64(w.keys)/float64(w.opts.PageSize)
	budget -= wasted + endWaste*float64(len(w.open))
	return min(int(budget/endWaste), w.pages-fresh)
}

// page asks for one page of l and hands it on.
func (w *walk) page(l *lister, asked Range) {
	page, more, err := w.pager.Page(w.ctx, asked.Prefix, asked.After, w.opts.PageSize)
	if err == nil && len(page) > w.opts.PageSize {
		err = fmt.Errorf("object: list %s: the store gave %d keys, %d were asked for", asked, len(page), w.opts.PageSize)
	}
	if err != nil {
		w.fail(err)
		return
	}
	part, mine, err := w.arrived(l, page, more)
	if err == nil && !part.isEmpty() && w.ctx.Err() == nil {
		err = w.fn(part, mine)
	}
	if err != nil {
		w.fail(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l.busy = false
	if l.cursor.Done {
		w.forget(l)
	}
	w.start()
}

// arrived notes a page, and puts those to work that it shows work for.
func (w *walk) arrived(l *lister, page []Info, more bool) (Range, []Info, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	part, mine, err := l.cursor.Read(page, more)
	if err != nil {
		return part, nil, err
	}
	w.pages++
	w.keys += len(mine)
	l.since++
	if parent := l.parent; parent != nil {
		l.parent = nil
		w.probes++
		if len(mine) > 0 {
			w.found++
		}
		if parent.patience = min(2*max(parent.patience, minPatience), mostPatience); len(mine) == w.opts.PageSize {
			parent.patience = minPatience
		}
	}
	l.left = w.left(l)
	w.start()
	return part, mine, nil
}

// forget takes l from the open ranges.
func (w *walk) forget(l *lister) {
	for i, other := range w.open {
		if other == l {
			w.open[i] = w.open[len(w.open)-1]
			w.open[len(w.open)-1] = nil
			w.open = w.open[:len(w.open)-1]
			return
		}
	}
}

// fail ends the walk with its first error. What fails because the walk has ended is
// none of its own.
func (w *walk) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() == nil {
		w.err = err
		w.cancel()
	}
}
