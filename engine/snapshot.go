package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"myrmidon"
)

// snapshotHead is the part of a snapshot that does not grow with the run.
type snapshotHead struct {
	Seq    uint64 `json:"seq"`
	Pages  int    `json:"pages"`
	Epoch  uint32 `json:"epoch"`
	Totals Totals `json:"totals"`
}

// snapshotPage holds some of what grows.
type snapshotPage struct {
	Notes  []json.RawMessage `json:"notes,omitempty"`
	Output []json.RawMessage `json:"output,omitempty"`
	Shards []snapshotShard   `json:"shards,omitempty"`
}

type snapshotShard struct {
	Phase      uint32            `json:"phase"`
	ID         uint32            `json:"id"`
	Group      string            `json:"group,omitempty"`
	Next       uint32            `json:"next"`
	Sealed     bool              `json:"sealed"`
	Attempts   map[uint32]uint32 `json:"attempts,omitempty"`
	PlanFailed *myrmidon.Failure `json:"plan_failed,omitempty"`
	Steps      []byte            `json:"steps"`
	Done       []byte            `json:"done"`
	Failed     []byte            `json:"failed"`
	Reissued   []byte            `json:"reissued"`
}

// snapshotPages gathers pages of about half a blob, so that a million small shards do not
// make a million values and one large shard still fits.
type snapshotPages struct {
	pages [][]byte
	page  snapshotPage
	size  int
}

// add makes room for size bytes, and then calls fill with the page that has it.
func (b *snapshotPages) add(size int, fill func(*snapshotPage)) error {
	if b.size > 0 && b.size+size > maxBlob/2 {
		if err := b.flush(); err != nil {
			return err
		}
	}
	fill(&b.page)
	b.size += size
	return nil
}

func (b *snapshotPages) flush() error {
	if b.size == 0 {
		return nil
	}
	data, err := json.Marshal(b.page)
	if err != nil {
		return fmt.Errorf("engine: snapshot: %w", err)
	}
	b.pages = append(b.pages, data)
	b.page, b.size = snapshotPage{}, 0
	return nil
}

// snapshot returns the tracker as pages and a head, which is to be stored last: a crash
// before that leaves the former snapshot, and events since then are applied again.
func (t *tracker) snapshot() (pages [][]byte, head []byte, err error) {
	var b snapshotPages
	for _, n := range t.notes {
		if err := b.add(len(n), func(p *snapshotPage) { p.Notes = append(p.Notes, n) }); err != nil {
			return nil, nil, err
		}
	}
	for _, o := range t.output {
		if err := b.add(len(o), func(p *snapshotPage) { p.Output = append(p.Output, o) }); err != nil {
			return nil, nil, err
		}
	}
	for phase, shards := range t.shards {
		for _, id := range slices.Sorted(maps.Keys(shards)) {
			row, size, err := shards[id].row(uint32(phase), id)
			if err != nil {
				return nil, nil, err
			}
			if err := b.add(size, func(p *snapshotPage) { p.Shards = append(p.Shards, row) }); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := b.flush(); err != nil {
		return nil, nil, err
	}
	head, err = json.Marshal(snapshotHead{Seq: t.seq, Pages: len(b.pages), Epoch: t.epoch, Totals: t.totals})
	return b.pages, head, err
}

// row is the shard as it is stored, and about how many bytes it takes.
func (s *shard) row(phase, id uint32) (snapshotShard, int, error) {
	row := snapshotShard{
		Phase: phase, ID: id, Group: s.group, Next: s.next, Sealed: s.sealed,
		Attempts: s.attempts, PlanFailed: s.planFailed,
	}
	size := 200 + len(s.group) + 16*len(s.attempts)
	for _, f := range []struct {
		to   *[]byte
		from *roaring.Bitmap
	}{{&row.Steps, s.steps}, {&row.Done, s.done}, {&row.Failed, s.failed}, {&row.Reissued, s.reissued}} {
		f.from.RunOptimize()
		var err error
		if *f.to, err = f.from.ToBytes(); err != nil {
			return row, 0, fmt.Errorf("engine: snapshot of shard %d: %w", id, err)
		}
		size += len(*f.to) * 4 / 3 // base64
	}
	return row, size, nil
}

// restore is the inverse of snapshot, on a fresh tracker.
func (t *tracker) restore(pages [][]byte, head []byte) error {
	var h snapshotHead
	if err := json.Unmarshal(head, &h); err != nil {
		return fmt.Errorf("engine: snapshot of run %s: %w", t.run, err)
	}
	for _, data := range pages {
		var page snapshotPage
		if err := json.Unmarshal(data, &page); err != nil {
			return fmt.Errorf("engine: snapshot of run %s: %w", t.run, err)
		}
		t.notes = append(t.notes, page.Notes...)
		t.output = append(t.output, page.Output...)
		for _, r := range page.Shards {
			if err := t.restoreShard(r); err != nil {
				return err
			}
		}
	}
	t.seq, t.epoch, t.totals = h.Seq, h.Epoch, h.Totals
	return nil
}

func (t *tracker) restoreShard(r snapshotShard) error {
	if int(r.Phase) >= len(t.phases) {
		return fmt.Errorf("engine: snapshot of run %s: phase %d of %d", t.run, r.Phase, len(t.phases))
	}
	s := t.shard(r.Phase, r.ID)
	s.group, s.next, s.sealed, s.planFailed = r.Group, r.Next, r.Sealed, r.PlanFailed
	maps.Copy(s.attempts, r.Attempts)
	for _, f := range []struct {
		to   *roaring.Bitmap
		from []byte
	}{{s.steps, r.Steps}, {s.done, r.Done}, {s.failed, r.Failed}, {s.reissued, r.Reissued}} {
		if _, err := f.to.ReadFrom(bytes.NewReader(f.from)); err != nil {
			return fmt.Errorf("engine: snapshot of run %s, shard %d: %w", t.run, r.ID, err)
		}
	}
	return nil
}
