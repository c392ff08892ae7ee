package haproxy

import (
	"bytes"
	"sync"
)

// A stream merges dumps while they are still being read: of a single poll, what is left to
// do behind the last byte is all that it costs. The dump of the first target becomes the
// table. Those of the others are parsed some rows at a time, which are merged as soon as
// the first has the same, and are forgotten then: nobody has a second table, or a second
// dump. So it goes with processes of one configuration; where the rows are others, the rest
// of a dump waits until it is there, and so does all of one whose tags are to be learned,
// since it is merged again by them. A dump that is wrong, of which rows were merged
// already, breaks the stream: all targets are read and merged anew, without one.
type stream struct {
	fixed  bool // nothing is learned
	mu     sync.Mutex
	merger *Merger
	out    *Table
	begun  bool
	broken bool
}

// begin empties the table, unless that was done.
func (s *stream) begin() {
	if !s.begun {
		s.begun = true
		s.merger.Reset(s.out)
	}
}

// inflow is one dump on its way into the stream.
type inflow struct {
	stream *stream
	first  bool  // it becomes the table
	batch  Table // of others: the rows that are merged next
	began  bool
	stuck  bool // the rest is for finish
	forgot bool // rows that were merged are in its dump no longer
	schema *schema
	info   Process // the answer to "show info"
	stat   int     // where the answer to "show stat" begins; 0 if it has not
	top    int     // how long its header is
	at     int     // where the next row begins, behind stat
	rows   int     // that were merged
	seen   int     // bytes at the last look
	step   int     // how many more are worth another; inflowStep
}

const (
	// inflowStep is some sixty rows.
	inflowStep = 16 << 10
	// batchRows is how many rows of another dump than the first are held at once.
	batchRows = 32
)

// look reads on in the answer to "show info;show stat" as far as it has come.
func (f *inflow) look(answer []byte) {
	if f.stuck || len(answer) < f.seen+f.step {
		return
	}
	// What was looked at before is not searched again: a row may have 10 MB.
	from := f.seen
	f.seen = len(answer)
	if f.stat == 0 {
		from = max(from-1, 0) // half of the blank line may have been there
		i := bytes.Index(answer[from:], []byte("\n\n"))
		if i < 0 {
			return
		}
		f.stat = from + i + 2
		f.info.readInfo(answer[:f.stat-1], &f.info)
	}
	from = max(from, f.stat)
	last := bytes.LastIndexByte(answer[from:], '\n')
	if last < 0 {
		return
	}
	csv := answer[f.stat:]
	if f.first {
		f.lead(csv[:last+1+from-f.stat], cap(csv))
	} else {
		f.follow(csv[:last+1+from-f.stat])
	}
}

// lead reads on in the first dump, into the table. Of a dump that is not whole yet, whole
// is how long it may be.
func (f *inflow) lead(csv []byte, whole int) {
	s := f.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin()
	t := s.out
	if !f.began {
		line := bytes.IndexByte(csv, '\n')
		if !bytes.HasPrefix(csv, []byte("# ")) || t.readHeader(csv[2:line]) != nil {
			f.stuck = true
			return
		}
		f.begin(line)
		s.merger.begin(nil)
	}
	t.raw = csv
	// A quoted field that goes on behind the last line end is an error too, until it is whole.
	at, err := t.rowsFrom(f.at, whole, maxCells)
	f.at, f.stuck = at, err != nil
	s.merger.addLeaves()
}

// follow merges those rows of another dump that the first has already.
func (f *inflow) follow(csv []byte) {
	s, t := f.stream, &f.batch
	for {
		s.mu.Lock()
		if s.broken || s.out.schema == nil {
			s.mu.Unlock()
			return
		}
		if t.schema = f.schema; !f.began {
			t.schema = s.out.schema // another dump may give it more columns later
		}
		if cap(t.shapes) < batchRows {
			t.cells = make([]int64, 0, batchRows*len(t.schema.names))
			t.shapes, t.starts = make([]*shape, batchRows), make([]int, 0, batchRows)
		}
		// Most likely the rows are as those of the first.
		ahead := copy(t.shapes[:batchRows], s.out.shapes[f.rows:])
		s.mu.Unlock()

		if !f.began {
			line := bytes.IndexByte(csv, '\n')
			if !bytes.HasPrefix(csv, []byte("# ")) || !t.schema.isOf(csv[2:line]) {
				f.stuck = true
				return
			}
			if !s.fixed && !builtInFor(f.info.Version, csv) {
				f.stuck = true
				return
			}
			f.schema = t.schema
			f.begin(line)
		}
		t.reset()
		t.raw = csv
		at, err := t.rowsFrom(f.at, 0, ahead)
		f.stuck = err != nil
		merged := f.merge()
		if merged < t.rows {
			// Where the first row begins that was not merged is only known by reading again.
			f.stuck = true
			t.reset()
			t.raw = csv
			at, _ = t.rowsFrom(f.at, 0, merged)
		}
		f.at = at
		if merged == 0 || f.stuck {
			return
		}
	}
}

func (f *inflow) breakUp() {
	f.stuck = true
	f.stream.mu.Lock()
	defer f.stream.mu.Unlock()
	f.stream.broken = true
}

// begin takes the header, which ends at the line end given.
func (f *inflow) begin(line int) {
	f.began, f.top, f.at = true, line+1, line+1
}

// merge merges the batch as far as the first dump has the same rows, and returns how many.
func (f *inflow) merge() int {
	s, t := f.stream, &f.batch
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return 0
	}
	s.merger.join(t)
	n := 0
	for n < t.rows && sameKey(s.out, f.rows, t, n) {
		s.merger.mergeRow(f.rows, t, n)
		f.rows++
		n++
	}
	return n
}

// forget takes the rows that were merged out of the answer that look has seen, so that the
// rest of it is a dump of the others. The first keeps its own, which are the table's text.
func (f *inflow) forget(answer []byte) []byte {
	if f.first || f.at == f.top {
		return answer
	}
	keep := f.stat + f.top
	n := keep + copy(answer[keep:], answer[f.stat+f.at:])
	f.seen -= len(answer) - n
	f.at, f.forgot = f.top, true
	return answer[:n]
}

// end takes what the target answered, or did not.
func (f *inflow) end(replies []Reply) {
	switch {
	case len(replies) > 0:
		f.finish(&replies[0])
	case f.began:
		f.breakUp()
	}
}

// finish merges what is left of a dump, when the targets before it are done.
func (f *inflow) finish(r *Reply) {
	data := r.CSV
	if checkEnd(data) != nil || !bytes.HasPrefix(data, []byte("# ")) {
		f.breakUp()
		return
	}
	f.info = r.Process
	s := f.stream
	s.mu.Lock()
	if s.broken { // the table may have half of a row
		s.mu.Unlock()
		return
	}
	s.begin()
	f.first = f.first || s.out.schema == nil // those before it failed
	s.mu.Unlock()
	if !f.first && !f.stuck {
		f.follow(data)
		if f.began && f.at == len(data)-1 {
			return
		}
	}
	// Nobody else merges: other dumps wait for the lock.
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.rest(data) != nil {
		s.broken = true
	}
}

// rest reads the rest of a dump: of the first into the table, of others into a table that
// is merged then.
func (f *inflow) rest(data []byte) error {
	m, t := f.stream.merger, f.stream.out
	if !f.first {
		t = new(Table)
		if t.schema = f.schema; !f.began {
			t.schema = f.stream.out.schema
		}
	}
	if !f.began {
		line := bytes.IndexByte(data, '\n')
		if err := t.readHeader(data[2:line]); err != nil {
			return err
		}
		f.begin(line)
		if f.first {
			m.begin(nil)
		}
	}
	t.raw = data
	if err := t.readRows(f.at); err != nil {
		return err
	}
	if f.first {
		m.addLeaves()
		return nil
	}
	return m.addRest(t, f.rows)
}

// rowsFrom adds to t the rows that begin at p, up to the last that is followed by another,
// and not more than most; it returns where it stopped. An error is of the row there, of
// which nothing is kept.
func (t *Table) rowsFrom(p, whole, most int) (int, error) {
	cols, end := len(t.schema.names), len(t.cells)
	t.cells = t.cells[:cap(t.cells)]
	defer func() { t.cells = t.cells[:end] }()
	var mask [maxColumns / 64]uint64
	var s *shape
	for range most {
		next := bytes.IndexByte(t.raw[p:], '\n')
		// One line more is behind it, so that the row is not the last, nor the blank line.
		if next <= 0 || p+next+1 >= len(t.raw) || (t.rows+1)*cols > maxCells {
			break
		}
		if end+cols > len(t.cells) {
			t.growFor(end, p, whole)
		}
		extra := len(t.extra)
		after, n, err := t.readRow(t.cells[end:end+cols], p, &mask)
		if err != nil {
			t.extra = t.extra[:extra]
			return p, err
		}
		p = after
		s, end = t.addRow(s, mask[:], end, n), end+n
	}
	return p, nil
}
