// Package sink delivers records to where they are looked at: Logstash, Elasticsearch,
// Kinesis, a file. A [Sink] takes a batch and says which of its records it did not take; a
// [Batcher] makes batches, sends again what failed, and knows what has been acknowledged.
//
//	Add ──► lane ──► batch ──► Sink.Send ──► acked
//	 ▲        ▲                   │  │
//	 │        └── later, failed ──┘  └────► parked, with its reason
//	 └── waits while more than Memory is held
//
// A [Record] is one JSON document. It is settled once it is acknowledged or parked, and until
// then it is held. The sinks of this package are [File], [Writer], [TCP] and [Lumberjack];
// the packages below it have those that speak HTTP.
//
// # Promises
//
// A record is delivered at least once, or parked, or the batcher says that it has ended
// without. It comes twice where an acknowledgement was lost: the receiver tells it by
// [Record].ID, and Elasticsearch does so by itself. Memory is bounded by a budget of bytes;
// whoever adds waits for room. TCP alone confirms nothing: see [Traits].Unconfirmed.
//
// Package myrmidon/sink/sinktest holds the conformance suite that every Sink passes.
package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"myrmidon"
)

// Record is one thing to deliver.
type Record struct {
	// ID is the same whenever the same thing is sent again. It is what Elasticsearch
	// stores the document under; "" leaves that to the destination.
	ID   string
	Time time.Time // when it happened; only encoded where a sink is asked to
	Data []byte    // one JSON document without a line feed
	// Key groups records: those of one key go to one shard of Kinesis, and keep their
	// order if [BatcherConfig].Ordered is set.
	Key string
}

// Sink takes records. Send may be called from many goroutines; the order of two calls at once
// is anybody's.
type Sink interface {
	// Send delivers a batch of any size, and returns when it is acknowledged, as far as
	// the destination does that. A nil error means that all records were taken, a
	// [*PartialError] that all but those it names were, any other error that maybe none
	// was. An error marked [myrmidon.Permanent] says that sending the batch again is no
	// use: a wrong password, no such index. [myrmidon.RetryAfter] says when it is.
	//
	// Send neither changes records nor keeps them after it has returned.
	Send(ctx context.Context, records []Record) error

	// Close ends what Send has opened. It waits for what was sent, for a bounded time,
	// and returns an error if that may be lost. A Send after it fails; a second Close
	// does nothing.
	Close() error
}

// Flusher is a Sink whose Send leaves records where a power cut could lose them.
type Flusher interface {
	// Flush makes durable what Send has taken before.
	Flush(ctx context.Context) error
}

// Traits are what batches for a sink should be like.
type Traits struct {
	// Records and Bytes are what one request of the destination holds at most. A larger
	// batch is sent as several, one after the other. 0 means any.
	Records int
	Bytes   int
	// InOrder says that a batch is taken from its beginning on: whatever was not taken,
	// but is worth another attempt, is the rest of the batch.
	InOrder bool
	// Unconfirmed says that the destination acknowledges nothing: a nil error means only
	// that the bytes have been handed to the network.
	Unconfirmed bool
}

// TraitsOf returns the traits of a sink that has the method Traits() Traits, and none
// for others.
func TraitsOf(s Sink) Traits {
	if t, ok := s.(interface{ Traits() Traits }); ok {
		return t.Traits()
	}
	return Traits{}
}

// ErrClosed is the error of a sink or a batcher that was closed before. It is permanent.
var ErrClosed = myrmidon.Permanent(errors.New("sink: closed"))

// PartialError is the error of a batch of which a part was taken.
type PartialError struct {
	Total  int      // records in the batch
	Failed []Failed // ascending by index, each once
}

// Failed is a record that was not taken. Its Err is marked [myrmidon.Permanent] if the record
// can never be taken. One marked [myrmidon.RetryAfter] was pushed back, which is no failure of
// the record's own: see [BatcherConfig].Attempts.
type Failed struct {
	Index int // in the batch
	Err   error
}

// Error says how many failed, and why the first did. It does not wrap the records' errors:
// one record that is refused forever must not make the batch look so.
func (e *PartialError) Error() string {
	if len(e.Failed) == 0 {
		return fmt.Sprintf("sink: 0 of %d records failed", e.Total)
	}
	return fmt.Sprintf("sink: %d of %d records failed, the first: %v", len(e.Failed), e.Total, e.Failed[0].Err)
}

// Check returns a permanent error if a record is no single line, which no sink takes. That it
// is JSON is not looked at.
func Check(r Record) error {
	var why string
	switch {
	case len(bytes.TrimSpace(r.Data)) == 0:
		why = "it is empty"
	case bytes.IndexByte(r.Data, '\n') >= 0:
		why = "it holds a line feed"
	default:
		return nil
	}
	err := fmt.Errorf("sink: record %.100q cannot be sent: %s", r.ID, why)
	return myrmidon.Permanent(myrmidon.WithHint(err, "a record is one JSON document on one line; encode it without indentation"))
}

// Sort takes apart what can be sent and what cannot: good are the records that keep accepts,
// at are their indexes in records, failed are the others. Where all are good, good is records
// itself and at is nil. It is for those who write sinks: see [Merge].
func Sort(records []Record, keep func(Record) error) (good []Record, at []int, failed []Failed) {
	for i, r := range records {
		if err := keep(r); err != nil {
			if failed == nil {
				good = append(make([]Record, 0, len(records)), records[:i]...)
				for j := range i {
					at = append(at, j)
				}
			}
			failed = append(failed, Failed{i, err})
		} else if failed != nil {
			good, at = append(good, r), append(at, i)
		}
	}
	if failed == nil {
		return records, nil, nil
	}
	return good, at, failed
}

// Merge makes the error of Send out of what [Sort] has refused and err, which sending the good
// ones gave. The indexes of a *PartialError in err are those of good.
func Merge(total int, at []int, refused []Failed, err error) error {
	if len(refused) == 0 {
		return err
	}
	var later []Failed
	var part *PartialError
	switch {
	case err == nil:
	case errors.As(err, &part):
		for _, f := range part.Failed {
			later = append(later, Failed{at[f.Index], f.Err})
		}
	case myrmidon.IsPermanent(err):
		return err // what holds for all holds for those that were refused, too
	default:
		for _, i := range at {
			later = append(later, Failed{i, err})
		}
	}
	out := &PartialError{Total: total}
	for len(refused) > 0 || len(later) > 0 {
		if len(later) == 0 || len(refused) > 0 && refused[0].Index < later[0].Index {
			out.Failed, refused = append(out.Failed, refused[0]), refused[1:]
		} else {
			out.Failed, later = append(out.Failed, later[0]), later[1:]
		}
	}
	return out
}

// Rest makes the error of a batch of which the first taken records were taken, and err stopped
// the others: a *PartialError, or err itself if none was taken or err is permanent.
func Rest(total, taken int, err error) error {
	switch {
	case err == nil || taken >= total:
		return nil
	case taken == 0 || myrmidon.IsPermanent(err):
		return err
	}
	out := &PartialError{Total: total}
	for i := taken; i < total; i++ {
		out.Failed = append(out.Failed, Failed{i, err})
	}
	return out
}
