package logs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/sink"
)

// TestLinesBeyondThoseThatAreKeptAreWrittenAside: a checkpoint keeps 1,000 places.
func TestLinesBeyondThoseThatAreKeptAreWrittenAside(t *testing.T) {
	const junk = keptRejects + 300
	b := newBench(t)
	b.put("a.log", []byte(someLines(1)+strings.Repeat("junk\n", junk-1)+someLines(3)+"junk\n"))
	b.sink.wrong = func(records []sink.Record) error {
		p := &sink.PartialError{Total: len(records)}
		for i := range records {
			p.Failed = append(p.Failed, sink.Failed{Index: i, Err: myrmidon.Permanent(errors.New("refused"))})
		}
		return p
	}
	if err := b.do(t.Context(), b.jobs()[0]); err != nil {
		t.Fatal(err)
	}
	if s := b.summary(); s.Lines.Unparsed != junk || s.Lines.Failed != 4 {
		t.Fatalf("%+v", s.Lines)
	}
	if why := fmt.Sprintf("%d of %[1]d lines were not delivered", junk+4); !strings.HasPrefix(b.items[0].LastError, why) {
		t.Errorf("the object is parked with %q, want %q", b.items[0].LastError, why)
	}
	places := make(map[int64]bool)
	told := 0
	var more []string
	cfg := Config{OpenBucket: func(string) (object.Store, error) { return b.store, nil }, Checkpoints: b.kept}
	err := cfg.Aside(t.Context(), "RUN", b.spec, bytes.NewReader(b.lines.Bytes()), func(r Reject) error {
		if r.Line == 0 && r.End == 0 && r.Text == "" {
			more = append(more, r.Reason)
			return nil
		}
		if told++; r.Text == "junk" {
			places[r.Offset] = true
		}
		return nil
	})
	if err != nil || len(places) != junk {
		t.Errorf("%d of %d lines are written aside, %v", len(places), junk, err)
	}
	// Of the four that were refused, as many as were kept, and how many were not.
	if rest := junk + 4 - told; rest > 0 && (len(more) != 1 || !strings.HasPrefix(more[0], string(rune('0'+rest))+" more lines")) {
		t.Errorf("%d lines are not told of, and that is said by %q", rest, more)
	}
}
