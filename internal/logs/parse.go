package logs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"myrmidon/elb"
)

// LastFew is how many errors of a kind are kept.
const LastFew = 5

// Counts are what became of lines, and the last few that went wrong.
type Counts struct {
	Encountered int64 `json:"encountered"`
	Parsed      int64 `json:"parsed"`
	Unparsed    int64 `json:"unparsed"`
	Filtered    int64 `json:"filtered"`
	Sent        int64 `json:"sent"` // handed to the sink, each line once
	Acked       int64 `json:"acked"`
	Failed      int64 `json:"failed"`
	Bytes       int64 `json:"bytes"` // inflated
}

func (c *Counts) add(o Counts) {
	c.Encountered += o.Encountered
	c.Parsed += o.Parsed
	c.Unparsed += o.Unparsed
	c.Filtered += o.Filtered
	c.Sent += o.Sent
	c.Acked += o.Acked
	c.Failed += o.Failed
	c.Bytes += o.Bytes
}

// Check says whether the counts add up, which they do unless this program is wrong. It
// holds whenever no line is under way.
func (c Counts) Check() error {
	if c.Encountered != c.Parsed+c.Unparsed {
		return fmt.Errorf("logs: %d lines were encountered, but %d parsed and %d not: please report this", c.Encountered, c.Parsed, c.Unparsed)
	}
	if c.Parsed != c.Acked+c.Failed+c.Filtered {
		return fmt.Errorf("logs: %d lines were parsed, but %d acknowledged, %d failed and %d left out: please report this", c.Parsed, c.Acked, c.Failed, c.Filtered)
	}
	return nil
}

// Reject is a line that was not delivered.
type Reject struct {
	Object string `json:"object,omitempty"`
	Line   int64  `json:"line"`   // from 1
	Offset int64  `json:"offset"` // of its first byte, in inflated bytes
	End    int64  `json:"end"`    // of the next line's
	Reason string `json:"reason"`
	// Kind is "parsing" or "sending".
	Kind string `json:"kind"`
	// Text is only set where lines are written aside.
	Text string `json:"text,omitempty"`
}

const (
	parsing = "parsing"
	sending = "sending"
)

func rejectOf(object string, e *elb.LineError) Reject {
	return Reject{Object: object, Line: e.Line, Offset: e.Offset, End: e.End, Reason: e.Err.Error(), Kind: parsing}
}

// Source is an object under a reader.
type Source struct {
	Name string // for people, and in IDs
	Key  string // by which the format is detected
	Body io.Reader
}

// Parse reads an object and calls emit with each line that is taken, as a JSON object,
// which holds until emit returns, and reject with each that is no record. The counts have
// taken lines as acked. The error is the object's, of ctx or of emit.
func (p *Prepared) Parse(ctx context.Context, s Source, emit func(r *elb.Record, doc []byte) error, reject func(Reject)) (c Counts, err error) {
	var doc []byte
	return p.read(ctx, s, func(r *elb.Record) error {
		doc = p.Append(doc[:0], r)
		return emit(r, doc)
	}, reject)
}

// Count counts an object's lines as Parse does.
func (p *Prepared) Count(ctx context.Context, s Source) (Counts, error) {
	return p.read(ctx, s, func(*elb.Record) error { return nil }, func(Reject) {})
}

// read calls take with each line that is taken.
func (p *Prepared) read(ctx context.Context, s Source, take func(r *elb.Record) error, reject func(Reject)) (c Counts, err error) {
	in, err := NewBody(s.Body)
	if err != nil {
		return c, err
	}
	lines := elb.NewReader(in, elb.Config{Format: p.Format, Key: s.Key})
	for record, err := range lines.Lines() {
		if record == nil {
			var bad *elb.LineError
			if !errors.As(err, &bad) {
				return c, err
			}
			c.Encountered++
			c.Unparsed++
			c.Bytes = bad.End
			reject(rejectOf(s.Name, bad))
			continue
		}
		c.Encountered++
		c.Parsed++
		c.Bytes = record.End
		if c.Encountered%1000 == 0 && ctx.Err() != nil {
			return c, ctx.Err()
		}
		if !p.Takes(record, s.Name) {
			c.Filtered++
			continue
		}
		if err := take(record); err != nil {
			return c, err
		}
		c.Acked++
	}
	return c, c.Check()
}
