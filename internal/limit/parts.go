package limit

import (
	"context"
	"strings"
)

// A store of objects divides its load by the keys: while it tells one folder to slow
// down, it has room in others. A limiter that is asked by [Limiter.AcquireFor] therefore
// looks at the folders of the keys, below the folder that all of them share, as parts of
// its destination. A part that is pushed back while others are not gets a limiter of its
// own, beside the whole's, and the whole's limit stays. Where several push back, or there
// is one part only, that is the whole's matter.
const (
	// othersDone is how much the other parts must have completed lately for a push-back to
	// be taken for the matter of one part.
	othersDone = 32
	// othersPushed is the highest share of push-backs among the others, as 1/n.
	othersPushed = 8
	// stray is the share of push-backs, as 1/n, up to which a part has no trouble of its own.
	stray = 16
)

// parts is what a limiter knows of the parts of its destination. The limiter's mutex
// guards it.
type parts struct {
	common string // the folder that all keys so far lie in: "" or with its "/"
	begun  bool   // common is of a key
	byName map[string]*part
	sum    counts // of all parts
	n      int    // outcomes in this window
}

// part is one folder.
type part struct {
	own      *Limiter // nil if the part has no trouble of its own
	wanted   int      // permits held or waited for
	underWay int      // permits held
	counts
}

// counts are the outcomes of this window and of the one before.
type counts struct{ done, pushed, doneBefore, pushedBefore int }

func (c counts) recent() (done, pushed int) {
	return c.done + c.doneBefore, c.pushed + c.pushedBefore
}

func (c *counts) next() { *c = counts{doneBefore: c.done, pushedBefore: c.pushed} }

// AcquireFor is [Limiter.Acquire] for a request about key. If the key's part of the
// destination has been told to slow down while others were not, the request waits for
// that part's turn first.
func (l *Limiter) AcquireFor(ctx context.Context, key string) (Permit, error) {
	l.mu.Lock()
	at := l.parts.of(key)
	at.wanted++
	own := at.own
	l.mu.Unlock()

	var first *Permit
	if own != nil {
		p, err := own.Acquire(ctx)
		if err != nil {
			l.leave(at)
			return Permit{}, err
		}
		first = &p
	}
	p, err := l.Acquire(ctx)
	if err != nil {
		if first != nil {
			first.Release(Failed)
		}
		l.leave(at)
		return Permit{}, err
	}
	p.part, p.own = at, first
	l.mu.Lock()
	at.underWay++
	l.mu.Unlock()
	return p, nil
}

func (l *Limiter) leave(at *part) {
	l.mu.Lock()
	at.wanted--
	l.mu.Unlock()
}

// of returns the part that key lies in.
func (ps *parts) of(key string) *part {
	if !ps.begun || !strings.HasPrefix(key, ps.common) {
		ps.widen(key)
	}
	name := ""
	if i := strings.IndexByte(key[len(ps.common):], '/'); i >= 0 {
		name = key[len(ps.common):][:i]
	}
	at := ps.byName[name]
	if at == nil {
		at = new(part)
		ps.byName[name] = at
	}
	return at
}

// widen makes common the folder that key lies in too. The parts are others then: what
// was known of them is given up.
func (ps *parts) widen(key string) {
	common := key[:strings.LastIndexByte(key, '/')+1]
	if ps.begun {
		n := 0
		for i := range min(len(common), len(ps.common)) {
			if common[i] != ps.common[i] {
				break
			}
			if common[i] == '/' {
				n = i + 1
			}
		}
		common = common[:n]
	}
	*ps = parts{common: strings.Clone(common), begun: true, byName: make(map[string]*part)}
}

// told counts an outcome of a part, and reports whether a push-back is the part's matter
// alone. limit is the whole's. l.mu is held.
func (l *Limiter) told(at *part, o Outcome) (alone bool) {
	ps := &l.parts
	at.wanted--
	at.underWay--
	switch {
	case o == OK:
		at.done++
		ps.sum.done++
	case o > 0:
		at.pushed++
		ps.sum.pushed++
		alone = ps.alone(at)
		if alone && at.own == nil {
			at.own = newLimiter(l.kind, l.destination, max(1, (at.underWay+1)/2), l.control.most, l.maxHold)
			at.own.hold(min(o.after(), l.maxHold))
		}
	default:
		return false
	}
	if ps.n++; ps.n >= max(2*othersDone, 2*l.control.limit) {
		ps.window(l.control.limit)
	}
	return alone
}

// alone reports whether a part that was pushed back just now has trouble of its own.
func (ps *parts) alone(at *part) bool {
	done, pushed := at.recent()
	allDone, allPushed := ps.sum.recent()
	others, othersBack := allDone-done, allPushed-pushed
	return pushed*stray > done && others >= othersDone && othersBack*othersPushed <= others
}

// window begins a window, and forgets the parts that nobody asks for and the limiters
// that bound no more than the whole's.
func (ps *parts) window(limit int) {
	ps.n = 0
	ps.sum.next()
	for name, at := range ps.byName {
		at.next()
		if done, pushed := at.recent(); at.wanted == 0 && done+pushed == 0 {
			delete(ps.byName, name)
		} else if at.own != nil && at.own.Stats().Limit >= limit {
			at.own = nil
		}
	}
}
