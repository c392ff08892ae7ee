package logs

import (
	"context"
	"errors"
	"strings"
)

// OfDestination reports whether an error of [Follower.Ship] is the destination's: no other object
// can be delivered either.
func OfDestination(err error) bool {
	var to *sinkError
	return errors.As(err, &to)
}

// GiveUp has park keep, as one reject without text, an object that Ship could not deliver, and
// counts it as failed then. Lines of it that were delivered before are not counted: whoever ships
// the object later sends them again, with the same ids. An error is that of park.
func (f *Follower) GiveUp(ctx context.Context, from Address, key string, why error, park func([]Reject) error) (Shipped, error) {
	name := from.Name(key)
	done := Shipped{Rejects: []Reject{{Object: name, Line: 1, Reason: why.Error(), Kind: "reading"}}}
	if err := park(done.Rejects); err != nil {
		return Shipped{}, err
	}
	if f.w.cfg.Checkpoints != nil {
		if err := f.w.cfg.Checkpoints.Forget(ctx, "follow", "", strings.ToLower(ID(name, ""))); err != nil {
			f.w.cfg.Log.Warn("a checkpoint could not be removed", "object", name, "err", err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sum.Objects.Read++
	f.sum.Objects.Failed++
	f.add("objects", 1, name+": "+why.Error())
	f.add("reading", 0, name+": "+why.Error())
	return done, nil
}
