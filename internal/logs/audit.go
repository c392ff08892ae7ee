package logs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"unicode/utf8"

	"myrmidon"
	"myrmidon/object"
)

// Held is what a destination has of an object's lines.
type Held struct {
	Object string // by its name in documents
	Lines  int64  // each counted once
	Twice  int64  // those that are there again, where that can be told
}

// Holdings is a destination that can be asked what it has.
type Holdings interface {
	// Held yields the objects whose names begin with a prefix, or the one whose name it is,
	// ascending. The filter's times choose lines.
	Held(ctx context.Context, prefix string, single bool, f Filter) iter.Seq2[Held, error]
	// OfID returns how many lines there are whose IDs are of an object: see [ID]. It is
	// asked where Held does not have the object; 0 if it cannot be told.
	OfID(ctx context.Context, id string, f Filter) (int64, error)
}

// Difference is an object whose lines and the destination's are not the same in number.
type Difference struct {
	Object  string `json:"object"`
	Lines   int64  `json:"lines"` // to be delivered
	Found   int64  `json:"found"` // by the destination
	Missing int64  `json:"missing,omitempty"`
	Surplus int64  `json:"surplus,omitempty"`
	Twice   int64  `json:"twice,omitempty"` // found again, under the same ID
	Reason  string `json:"reason,omitempty"`
}

// AuditSum is what an audit came to.
type AuditSum struct {
	Objects   int64 `json:"objects"` // of the source
	Lines     int64 `json:"lines"`
	Found     int64 `json:"found"`
	Different int64 `json:"different"` // objects, also those that could not be read
	Missing   int64 `json:"missing"`
	Surplus   int64 `json:"surplus"`
	Twice     int64 `json:"twice"`
	Unparsed  int64 `json:"unparsed"` // lines that are no records, and are nowhere
}

// Audit compares the lines of each object at an address, as the filter takes them, with
// what a destination holds, and calls tell with each that differs. Objects are read by as
// many goroutines as slots says, and differences are told in the order of names.
//
// Both sides come in the order of names, so that memory does not grow with their number.
func (c Config) Audit(ctx context.Context, from Address, f Filter, slots int, there Holdings, tell func(Difference) error) (sum AuditSum, err error) {
	p, err := f.Prepare()
	if err != nil {
		return sum, err
	}
	store, single, err := from.Open(c.OpenBucket, c.OpenObject)
	if err != nil {
		return sum, err
	}
	prefix := strings.TrimSuffix(from.Base, "/") + "/"
	if from.Single {
		prefix = from.Base
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	next, end := iter.Pull2(there.Held(ctx, nameIn(prefix), from.Single, f))
	defer end()
	m := merger{sum: &sum, tell: tell, next: next}
	if err := m.forward(); err != nil {
		return sum, err
	}
	a := auditor{prepared: p, store: store, from: from, single: single, there: there}
	for o := range a.objects(ctx, slots) {
		if o.err != nil {
			return sum, o.err
		}
		if err := m.object(ctx, &a, o); err != nil {
			return sum, err
		}
	}
	return sum, m.rest()
}

// nameIn is a name as documents have it.
func nameIn(name string) string { return strings.ToValidUTF8(name, "\ufffd") }

// merger goes along both sides.
type merger struct {
	sum  *AuditSum
	tell func(Difference) error
	next func() (Held, error, bool)
	held Held // the destination's next object
	more bool
}

func (m *merger) forward() error {
	last := m.held
	var err error
	if m.held, err, m.more = m.next(); err != nil {
		return err
	}
	if m.more && last.Object != "" && m.held.Object <= last.Object {
		return fmt.Errorf("logs: the destination tells of %q behind %q: its objects are not in order", m.held.Object, last.Object)
	}
	return nil
}

// object compares one.
func (m *merger) object(ctx context.Context, a *auditor, o *audited) error {
	m.sum.Objects++
	m.sum.Unparsed += o.counts.Unparsed
	name := nameIn(o.name)
	for m.more && m.held.Object < name {
		if err := m.orphan(); err != nil {
			return err
		}
	}
	d := Difference{Object: name, Lines: o.counts.Acked}
	if m.more && m.held.Object == name {
		d.Found, d.Twice = m.held.Lines, m.held.Twice
		if err := m.forward(); err != nil {
			return err
		}
	} else if d.Lines > 0 {
		var err error
		if d.Found, err = a.there.OfID(ctx, ID(o.name, o.etag), a.prepared.filter); err != nil {
			return err
		}
	}
	if o.broken != nil {
		d.Reason = o.broken.Error()
	} else if !utf8.ValidString(o.name) && d.Found == 0 && d.Lines > 0 {
		d.Reason = "its key is not UTF-8: the destination may have it under another name"
	}
	return m.judge(d, o.broken != nil)
}

// orphan takes an object that the source does not have.
func (m *merger) orphan() error {
	d := Difference{Object: m.held.Object, Found: m.held.Lines, Twice: m.held.Twice, Reason: "not at the source, or its lines are of another time"}
	if err := m.forward(); err != nil {
		return err
	}
	return m.judge(d, false)
}

func (m *merger) rest() error {
	for m.more {
		if err := m.orphan(); err != nil {
			return err
		}
	}
	return nil
}

// judge adds an object to the sum, and tells of it if it differs.
func (m *merger) judge(d Difference, broken bool) error {
	d.Missing, d.Surplus = max(0, d.Lines-d.Found), max(0, d.Found-d.Lines)
	if broken {
		d.Surplus = 0 // nobody knows how many lines it has
	}
	m.sum.Lines += d.Lines
	m.sum.Found += d.Found
	m.sum.Missing += d.Missing
	m.sum.Surplus += d.Surplus
	m.sum.Twice += d.Twice
	if d.Missing == 0 && d.Surplus == 0 && d.Twice == 0 && !broken {
		return nil
	}
	m.sum.Different++
	return m.tell(d)
}

// auditor counts the lines of the source.
type auditor struct {
	prepared *Prepared
	store    object.Store
	from     Address
	single   string
	there    Holdings
}

// audited is an object whose lines were counted. err ends the audit, broken is of the
// object alone.
type audited struct {
	name, key, etag string
	counts          Counts
	broken, err     error
	ready           chan struct{}
}

// objects yields the source's objects in order, while the next ones are being read.
func (a *auditor) objects(ctx context.Context, slots int) iter.Seq[*audited] {
	return func(yield func(*audited) bool) {
		ctx, stop := context.WithCancel(ctx)
		var work sync.WaitGroup
		defer work.Wait()
		defer stop()
		queue := make(chan *audited, max(slots, 1))
		busy := make(chan struct{}, max(slots, 1))
		put := func(o *audited) error {
			select {
			case queue <- o:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		work.Go(func() {
			defer close(queue)
			one := func(key string) error {
				o := &audited{name: a.from.Name(key), key: key, ready: make(chan struct{})}
				select {
				case busy <- struct{}{}:
				case <-ctx.Done():
					return ctx.Err()
				}
				work.Go(func() {
					a.count(ctx, o)
					close(o.ready)
					<-busy
				})
				return put(o)
			}
			var err error
			if a.from.Single {
				err = one(a.single)
			} else {
				err = List(ctx, a.store, a.prepared.filter, func(o object.Info) error { return one(o.Key) })
			}
			if err != nil && ctx.Err() == nil {
				failed := &audited{err: err, ready: make(chan struct{})}
				close(failed.ready)
				_ = put(failed) // nobody listens any more, if that fails
			}
		})
		for o := range queue {
			<-o.ready
			if o.err == nil && ctx.Err() != nil {
				o.err = ctx.Err()
			}
			if !yield(o) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(&audited{err: err})
		}
	}
}

// countAttempts is how often an object is read whose store fails.
const countAttempts = 3

// count reads an object.
func (a *auditor) count(ctx context.Context, o *audited) {
	for attempt := 1; ; attempt++ {
		raw, info, err := a.store.Get(ctx, o.key, 0, -1)
		if err == nil {
			o.etag = info.ETag
			o.counts, err = a.prepared.Count(ctx, Source{Name: o.name, Key: o.key, Body: raw})
			err = errors.Join(err, raw.Close())
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if o.broken = err; myrmidon.IsPermanent(err) || attempt == countAttempts {
			return
		}
		o.counts, o.broken = Counts{}, nil
	}
}
