package clone

import (
	"encoding/json"
	"time"

	"myrmidon"
	"myrmidon/object"
)

// task is the spec of a job: what to do with some objects, one an item.
type task struct {
	Source      string               `json:"source"`
	Destination string               `json:"destination"`
	Compare     Compare              `json:"compare,omitempty"`
	Verify      Verify               `json:"verify,omitempty"`
	Copy        object.ImportOptions `json:"copy,omitzero"`
	IfChanged   IfChanged            `json:"if_changed,omitempty"`
	Limits      Limits               `json:"limits,omitzero"`
	Objects     []entry              `json:"objects"`

	// Of a run with documents: see control.go.
	Control *Control `json:"control,omitempty"`
	Segment *segment `json:"segment,omitempty"`

	// Of objects of a list, of which more than the key may not be known.
	Filter Filter `json:"filter,omitzero"` // without patterns: they take the keys
}

// entry is an object of a task, as the listing had it.
type entry struct {
	Key      text      `json:"key"`
	Size     int64     `json:"size,omitempty"`
	ETag     string    `json:"etag,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
	Ask      ask       `json:"ask,omitempty"`
}

func entryOf(o object.Info) entry {
	return entry{Key: text(o.Key), Size: o.Size, ETag: o.ETag, Modified: o.Modified}
}

func (e entry) info() object.Info {
	return object.Info{Key: string(e.Key), Size: e.Size, ETag: e.ETag, Modified: e.Modified}
}

// task is the spec of a job with these objects, of a segment if that is not nil.
func (s *Spec) task(objects []entry, of *segment) task {
	t := task{
		Source: s.Source, Destination: s.Destination, Compare: s.Compare, Verify: s.Verify, Copy: s.Copy,
		IfChanged: s.IfChanged, Limits: s.Limits, Objects: objects, Segment: of,
	}
	if of != nil {
		t.Control = s.Control
	}
	if s.List != nil {
		t.Filter = s.Filter
		t.Filter.Include, t.Filter.Exclude = nil, nil
	}
	return t
}

// text is a key as jobs have it.
type text = object.JSONKey

const (
	// jobBytes bounds the keys of a job, whose spec must stay below myrmidon.MaxJobSpec:
	// in JSON a byte of a key takes six at most.
	jobBytes = 30 << 10
	// unit is how many bytes of an object weigh as much as its request, in progress.
	unit = 8 << 20
)

// jobs packs entries into jobs of a kind.
func (s *Spec) jobs(kind string, entries []entry) ([]myrmidon.Planned, error) {
	var out []myrmidon.Planned
	for len(entries) > 0 {
		n, size := 0, 0
		var units int64
		for n < len(entries) && n < myrmidon.MaxJobItems {
			key, err := json.Marshal(entries[n].Key)
			if err != nil {
				return nil, err
			}
			if size += len(key) + 120 + len(entries[n].ETag); size > jobBytes && n > 0 {
				break
			}
			units += 1 + max(entries[n].Size, 0)/unit
			n++
		}
		spec, err := json.Marshal(s.task(entries[:n], nil))
		if err != nil {
			return nil, err
		}
		out = append(out, myrmidon.Planned{Kind: kind, Name: string(entries[0].Key), Count: uint32(n), Units: units, Spec: spec})
		entries = entries[n:]
	}
	return out, nil
}
