package sink

import (
	"context"
	"fmt"
	"io"
	"sync"

	"myrmidon"
)

// Writer writes records to an io.Writer, one a line: standard output, for instance. See
// [NewWriter].
type Writer struct {
	field string

	mu     sync.Mutex
	to     io.Writer
	closed bool
	failed error
	buf    []byte
}

// NewWriter returns a sink that writes to w, which stays open. timeField, if not "", adds the
// record's time to each document, as its first member.
func NewWriter(w io.Writer, timeField string) (*Writer, error) {
	if err := checkField(timeField); err != nil {
		return nil, err
	}
	return &Writer{to: w, field: timeField}, nil
}

// Traits says that a batch is one write.
func (*Writer) Traits() Traits { return Traits{Bytes: 64 << 10, InOrder: true} }

// Send writes records with one Write. An error is permanent: nobody knows how much of the
// batch has left, and another line would follow a piece of one.
func (w *Writer) Send(ctx context.Context, records []Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return ErrClosed
	case w.failed != nil:
		return w.failed
	case ctx.Err() != nil:
		return fmt.Errorf("sink: write: %w", ctx.Err())
	}
	good, at, refused := Sort(records, Check)
	var err error
	if len(good) > 0 {
		b := w.buf[:0]
		for _, r := range good {
			b = appendLine(b, r, w.field)
		}
		if cap(b) <= 4<<20 {
			w.buf = b
		}
		if _, err = w.to.Write(b); err != nil {
			err = myrmidon.Permanent(fmt.Errorf("sink: write: %w", err))
			w.failed = err
		}
	}
	return Merge(len(records), at, refused, err)
}

// Close ends the sink and leaves the io.Writer open.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return nil
}
