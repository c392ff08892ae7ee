package notify

import (
	"context"
	"sync"
)

// remembered is how many objects and events are known as done.
const remembered = 200_000

// Done knows what was done lately, so that a notification that comes again costs nothing. It is
// of this process alone: after a restart a notification is taken at its word. The zero Done
// knows nothing; it may be used from many goroutines.
type Done struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // by name
	done map[string]struct{}      // by name, and ETag or Sequencer
}

// Once calls do unless the object, or the event that told of it, is done: name is what the
// object is called, whoever tells of it. Two at a time of one name are one after the other. do
// returns the ETag of what it found, which may be of a newer object than was told of.
func (d *Done) Once(ctx context.Context, name string, o Object, do func() (etag string, err error)) error {
	object, event := name+"\x00"+o.ETag, name+"\x00\x00"+o.Sequencer
	for {
		d.mu.Lock()
		_, known := d.done[object]
		if _, same := d.done[event]; known && o.ETag != "" || same && o.Sequencer != "" {
			d.mu.Unlock()
			return nil
		}
		other, busy := d.busy[name]
		if !busy {
			break
		}
		d.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	ended := make(chan struct{})
	if d.busy == nil {
		d.busy, d.done = make(map[string]chan struct{}), make(map[string]struct{})
	}
	d.busy[name] = ended
	d.mu.Unlock()
	found, err := do()
	d.mu.Lock()
	defer d.mu.Unlock()
	close(ended)
	delete(d.busy, name)
	if err != nil {
		return err
	}
	if len(d.done) >= remembered {
		clear(d.done)
	}
	// What was told of and was not found is not done: it may come back.
	if found != "" {
		d.done[name+"\x00"+found] = struct{}{}
		d.done[event] = struct{}{}
	}
	return nil
}
