package haproxy

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
)

// maxGone bounds the targets that may come back after SetTargets took them out; what
// older ones had counted stays in the sums for good.
const maxGone = 64

// SetTargets replaces the targets from the next poll on, as when a name resolves to other
// addresses or a file was changed. Targets are told apart by their names: those that stay
// go on as they were. What others had counted stays in the sums, and if they come back
// they are not counted twice. On an error nothing changes.
func (c *Collector) SetTargets(targets []Target) error {
	if len(targets) == 0 {
		return errors.New("haproxy: there is no target: name stats sockets, tcp://host:port or URLs of stats pages")
	}
	targets = slices.Clone(targets)
	sources := make(map[string]*source)
	for i, t := range targets {
		src, err := newSource(t)
		if err != nil {
			return err
		}
		if sources[src.name] != nil {
			return fmt.Errorf("haproxy: two targets are called %s: a process would count twice", src.name)
		}
		src.buffers = &c.buffers
		sources[src.name] = src
		targets[i].Name = src.name
	}
	old := make(map[string]*slot)
	for _, s := range slices.Concat(c.gone, c.slots) {
		old[s.target.Name] = s
	}
	var slots []*slot
	for _, t := range targets {
		s := old[t.Name]
		if s == nil {
			s = &slot{source: sources[t.Name], target: t}
		} else if s.target.Address != t.Address {
			s.source.close()
			s.source, s.target = sources[t.Name], t
		}
		slots = append(slots, s)
	}
	var gone []*slot
	for _, s := range slices.Concat(c.gone, c.slots) {
		if sources[s.target.Name] != nil {
			continue
		}
		s.source.close()
		// When it comes back, what it counted meanwhile did not happen in one interval.
		s.failed = true
		gone = append(gone, s)
	}
	for len(gone) > maxGone {
		for _, p := range gone[0].known {
			c.carryDump(p.raw, nil)
		}
		gone = gone[1:]
	}
	c.slots, c.gone = slots, gone
	for len(c.mergers) < min(runtime.GOMAXPROCS(0), len(c.slots)) {
		c.mergers = append(c.mergers, c.newMerger())
	}
	return nil
}
