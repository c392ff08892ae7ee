package notify

import (
	"fmt"
	"time"
)

const (
	// patience is for how long an object is tried that cannot be done: as long as somebody may
	// take to put rights in order.
	patience = 24 * time.Hour
	// mostDoublings is how often the pause between tries doubles: from 30 s to 16 min.
	mostDoublings = 5
)

// work has the object of an event done.
func (h *webhook) work(f *Feed, e *event) {
	o, err := e.object()
	if err == nil {
		err = f.do(f.working, o)
	}
	f.release()
	if err != nil {
		h.again(f, e, o, err)
		return
	}
	h.forget(f, e)
}

// again has an event come again that was not done, later each time, or gives it up.
func (h *webhook) again(f *Feed, e *event, o Object, why error) {
	log := f.cfg.Log.With("source", f.name, "bucket", o.Bucket, "object", o.Key)
	if f.working.Err() != nil {
		return // it was cut off, and stays on disk
	}
	var since time.Time
	if h.cfg.NotIts == nil || !h.cfg.NotIts(why) {
		if since = e.Failing; since.IsZero() {
			since = time.Now().UTC()
		}
	}
	if err := h.spool.fails(e, since); err != nil {
		log.Warn("since when an object fails could not be kept", "err", err)
	}
	// A few tries are of this process, which may have been away for longer than a day.
	if h.cfg.GiveUp != nil && e.tries > mostDoublings && !since.IsZero() && time.Since(since) >= h.cfg.Patience {
		err := h.cfg.GiveUp(f.working, o, fmt.Errorf("given up after %v: %w", time.Since(since).Round(time.Second), why))
		if err == nil {
			log.Warn("an object is given up", "since", since, "err", why)
			h.forget(f, e)
			return
		}
		log.Warn("an object could not be given up", "err", err)
	}
	wait := f.cfg.Again << min(e.tries, mostDoublings)
	e.tries++
	log.Warn("an object is tried again", "in", wait, "err", why)
	time.AfterFunc(wait, func() { h.spool.ready <- e })
}

// forget removes an event.
func (h *webhook) forget(f *Feed, e *event) {
	if err := h.spool.drop(e); err != nil {
		f.cfg.Log.Warn("an event that is done could not be forgotten, and is done again after a restart", "err", err)
	}
	h.fills(f)
}

// fills warns when half of what is kept waits, once until it is less than a quarter.
func (h *webhook) fills(f *Feed) {
	switch n, most := h.spool.waiting(), int64(h.cfg.Most); {
	case 2*n >= most:
		if !h.filling.Swap(true) {
			f.cfg.Log.Warn("events pile up; when too many wait, all others are refused", "source", f.name, "waiting", n, "most", most)
		}
	case 4*n < most:
		h.filling.Store(false)
	}
}
