package haproxy

import (
	"bytes"
	"sync"
)

// early parses a dump while it is still being read, as far as there are whole rows: of a
// single poll, what is left to do behind the last byte is all that it costs. It never
// fails: what it cannot read is left to finish, which says why.
type early struct {
	table  Table
	shared *earlySchema
	began  bool
	stuck  bool // the rest is for finish
	stat   int  // where the answer to "show stat" begins; 0 if it has not
	at     int  // where the next row begins
	end    int  // of the cells that were read
	seen   int  // bytes at the last look
	step   int  // how many more are worth another; earlyStep
}

// earlySchema lets dumps that are read side by side have one schema.
type earlySchema struct {
	mu     sync.Mutex
	schema *schema
}

// earlyStep is some forty rows.
const earlyStep = 16 << 10

// look reads on in the answer to "show info;show stat" as far as it has come.
func (e *early) look(answer []byte) {
	if e.stuck || len(answer) < e.seen+e.step {
		return
	}
	// What was looked at before is not searched again: a row may have 10 MB.
	from := e.seen
	e.seen = len(answer)
	if e.stat == 0 {
		from = max(from-1, 0) // half of the blank line may have been there
		i := bytes.Index(answer[from:], []byte("\n\n"))
		if i < 0 {
			return
		}
		e.stat = from + i + 2
	}
	from = max(from, e.stat)
	last := bytes.LastIndexByte(answer[from:], '\n')
	if last < 0 {
		return
	}
	csv := answer[e.stat:]
	last += from - e.stat
	t := &e.table
	if !e.began {
		line := bytes.IndexByte(csv, '\n')
		if !bytes.HasPrefix(csv, []byte("# ")) || e.header(csv[2:line]) != nil {
			e.stuck = true
			return
		}
		e.began, e.at = true, line+1
	}
	t.raw = csv[:last+1]
	at, end, err := t.rowsFrom(e.at, e.end, cap(csv))
	e.at, e.end = at, end
	// A quoted field that goes on behind the last line end is an error too, until it is whole.
	e.stuck = err != nil
}

func (e *early) header(line []byte) error {
	e.shared.mu.Lock()
	defer e.shared.mu.Unlock()
	e.table.schema = e.shared.schema
	if err := e.table.readHeader(line); err != nil {
		return err
	}
	e.shared.schema = e.table.schema
	return nil
}

// finish is ParseCSV of the whole dump, from where look has come.
func (e *early) finish(data []byte) error {
	t := &e.table
	if !e.began || checkEnd(data) != nil {
		return t.ParseCSV(data)
	}
	t.raw = data
	if err := t.readRows(e.at, e.end); err != nil {
		t.reset()
		return err
	}
	return nil
}

// rowsFrom reads the rows that begin at p, up to the last that is followed by another, and
// returns where it stopped. An error is of the row there, of which nothing is kept.
func (t *Table) rowsFrom(p, end, whole int) (int, int, error) {
	cols := len(t.schema.names)
	var mask [maxColumns / 64]uint64
	var s *shape
	for {
		next := bytes.IndexByte(t.raw[p:], '\n')
		// One line more is behind it, so that the row is not the last, nor the blank line.
		if next <= 0 || p+next+1 >= len(t.raw) || (t.rows+1)*cols > maxCells {
			return p, end, nil
		}
		if end+cols > len(t.cells) {
			t.growFor(end, p, whole)
		}
		extra := len(t.extra)
		after, n, err := t.readRow(t.cells[end:end+cols], p, &mask)
		if err == nil && len(t.extra) > extra {
			err = errCells // its text lies behind raw, which is not whole yet
		}
		if err != nil {
			t.extra = t.extra[:extra]
			return p, end, err
		}
		p = after
		s, end = t.addRow(s, mask[:], end, n), end+n
	}
}
