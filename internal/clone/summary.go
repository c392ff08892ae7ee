package clone

import "encoding/json"

// Note is what a slice of a plan has found, and what the notes of a run add up to.
type Note struct {
	Listed  int64 `json:"listed,omitempty"`  // objects of the source
	Bytes   int64 `json:"bytes,omitempty"`   // of those
	Skipped int64 `json:"skipped,omitempty"` // that the destination has
	Left    int64 `json:"left,omitempty"`    // that the filters left out
	Copy    int64 `json:"copy,omitempty"`    // to be copied
	Extra   int64 `json:"extra,omitempty"`   // of the destination alone
	Alike   int64 `json:"alike,omitempty"`   // found alike by verify, by their listings
	Check   int64 `json:"check,omitempty"`   // to be read by verify
	Missing int64 `json:"missing,omitempty"` // keys of a list that the source does not have, in a dry run
}

func (n *Note) add(o Note) {
	n.Listed += o.Listed
	n.Bytes += o.Bytes
	n.Skipped += o.Skipped
	n.Left += o.Left
	n.Copy += o.Copy
	n.Extra += o.Extra
	n.Alike += o.Alike
	n.Check += o.Check
	n.Missing += o.Missing
}

// Summary adds up the notes of a run.
func Summary(notes []json.RawMessage) (sum Note) {
	for _, raw := range notes {
		var n Note
		if json.Unmarshal(raw, &n) == nil {
			sum.add(n)
		}
	}
	return sum
}
