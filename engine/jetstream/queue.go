package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"myrmidon"
	"myrmidon/engine"
)

func cursorSubject(run string, phase, shard uint32) string {
	return fmt.Sprintf("%s%s.%d.%d", plans, run, phase, shard)
}

// Cursor implements engine.Queue.
func (b *Backend) Cursor(ctx context.Context, run string, phase, shard uint32) (engine.Cursor, error) {
	var msg *stored
	err := b.persist(ctx, "read a cursor", func(ctx context.Context) (err error) {
		msg, err = b.last(ctx, cursorSubject(run, phase, shard))
		return err
	})
	if errors.Is(err, errNotThere) {
		return engine.Cursor{Run: run, Phase: phase, Shard: shard}, nil
	}
	if err != nil {
		return engine.Cursor{}, err
	}
	var c engine.Cursor
	if err := decode(msg.Data, &c); err != nil {
		return engine.Cursor{}, fmt.Errorf("engine: cursor of run %s: %w", run, err)
	}
	c.Seq = msg.Sequence
	return c, nil
}

// errNotThere says that there is no message on a subject.
var errNotThere = errors.New("no message")

// stored is a message of a stream.
type stored struct {
	Sequence uint64    `json:"seq"`
	Data     []byte    `json:"data"`
	Headers  []byte    `json:"hdrs"`
	Time     time.Time `json:"time"`
}

// last returns the last message on a subject of our stream; errNotThere if there is none.
func (b *Backend) last(ctx context.Context, subject string) (*stored, error) {
	return b.lastIn(ctx, streamName, subject)
}

// lastIn returns the last message on a subject of a stream; errNotThere if there is none, or with
// the marker of a key that was removed.
// It asks the stream's leader: a replica may be behind.
func (b *Backend) lastIn(ctx context.Context, stream, subject string) (*stored, error) {
	body, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return nil, err
	}
	res, err := b.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return nil, err
	}
	var out struct {
		Error   *jetstream.APIError `json:"error"`
		Message *stored             `json:"message"`
	}
	if err := json.Unmarshal(res.Data, &out); err != nil {
		return nil, fmt.Errorf("read the last message on %s: %w", subject, err)
	}
	switch {
	case out.Error != nil && out.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, errNotThere
	case out.Error != nil:
		return nil, out.Error
	case out.Message == nil:
		return nil, fmt.Errorf("read the last message on %s: the server sent none", subject)
	case bytes.Contains(out.Message.Headers, []byte("KV-Operation:")), bytes.Contains(out.Message.Headers, []byte("Nats-Marker-Reason:")):
		return out.Message, errNotThere
	}
	return out.Message, nil
}

// Unhold implements engine.Queue. The jobs are stored as fresh ones before they are
// forgotten as held: a crash in between makes some come twice, which is no harm.
func (b *Backend) Unhold(ctx context.Context, run string) (moved int, err error) {
	subject := held + run + ".>"
	end, err := b.lastSequence(ctx, subject)
	if err != nil || end == 0 {
		return 0, err
	}
	var batch []myrmidon.Job
	var at uint64
	commit := func() error {
		if err := b.Commit(ctx, engine.Batch{Jobs: batch}); err != nil {
			return err
		}
		moved += len(batch)
		batch = batch[:0]
		// Batch by batch, so that an end in between doubles one of them at most.
		return b.purge(ctx, subject, at)
	}
	err = b.replay(ctx, subject, 0, end, func(seq uint64, data []byte) error {
		at = seq
		var j myrmidon.Job
		if err := decode(data, &j); err != nil || engine.CheckJob(&j) != nil || j.Run != run {
			b.log.Error("a held message is no job of this run; it is left out", "run", run, "err", err)
			return nil
		}
		if batch = append(batch, j); len(batch) >= engine.MaxSliceJobs {
			return commit()
		}
		return nil
	})
	if err == nil {
		at = end
		err = commit()
	}
	return moved, err
}

// Purge implements engine.Queue.
func (b *Backend) Purge(ctx context.Context, run string, through uint64) error {
	for _, subject := range []string{jobs + run + ".>", retries + run + ".>", held + run + ".>", plans + run + ".>", events + run} {
		if err := b.purge(ctx, subject, through); err != nil {
			return err
		}
	}
	return nil
}

// purge forgets the messages on a subject up to a sequence; 0 means all.
func (b *Backend) purge(ctx context.Context, subject string, through uint64) error {
	opts := []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(subject)}
	if through > 0 {
		opts = append(opts, jetstream.WithPurgeSequence(through+1)) // up to, without it
	}
	return b.persist(ctx, "purge", func(ctx context.Context) error { return b.stream.Purge(ctx, opts...) })
}

// lastSequence returns the sequence of the last message on a subject, which may have
// wildcards; 0 if there is none.
func (b *Backend) lastSequence(ctx context.Context, subject string) (seq uint64, err error) {
	err = b.persist(ctx, "read", func(ctx context.Context) error {
		msg, err := b.last(ctx, subject)
		if errors.Is(err, errNotThere) {
			return nil
		}
		if err == nil {
			seq = msg.Sequence
		}
		return err
	})
	return seq, err
}

// readHeartbeat is how often the server says that there is nothing new to read; a reader
// looks for another one after two that do not come.
const readHeartbeat = 2 * time.Second

// stalledAfter is how long a reader waits at first for a message that must be there,
// before it looks whether it still is and asks anew.
const stalledAfter = time.Second

// errStalled says that a message which must be there did not come.
var errStalled = errors.New("the broker does not send what it holds")

// replay calls fn with the messages on a subject between two sequences, the first one
// without; end 0 means to go on as they come, until ctx ends, which is no error then.
// Messages that are purged meanwhile are not waited for, and a broker that many share is.
func (b *Backend) replay(ctx context.Context, subject string, after, end uint64, fn func(seq uint64, data []byte) error) error {
	for wait := stalledAfter; ; {
		err := b.replayOnce(ctx, subject, &after, end, wait, fn)
		var stop stopped
		switch {
		case errors.As(err, &stop):
			return stop.error
		case ctx.Err() != nil && end == 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errStalled):
			wait = min(2*wait, requestTimeout)
			if last, err := b.lastSequence(ctx, subject); err != nil || last <= after {
				return err
			}
		case err == nil || !passing(err):
			return b.explain(err)
		default:
			if err := b.pause(ctx, "read", err); err != nil {
				return err
			}
		}
	}
}

// stopped is an error of the reader, not of the broker.
type stopped struct{ error }

// replayAhead is how many messages wait for their reader: the largest have some 30 KiB.
const replayAhead = 128

// replayOnce is replay by one consumer, which keeps in after where it stands. If there is
// an end, it returns errStalled when nothing has come for wait.
func (b *Backend) replayOnce(ctx context.Context, subject string, after *uint64, end uint64, wait time.Duration, fn func(seq uint64, data []byte) error) error {
	cons, err := b.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects:   []string{subject},
		DeliverPolicy:    jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:      *after + 1,
		MaxResetAttempts: 1, // replay tries again, and hears of the end of ctx
	})
	if err != nil {
		return err
	}
	// The heartbeat tells within seconds that the server which served us is gone.
	iter, err := cons.Messages(jetstream.PullExpiry(10*time.Second), jetstream.PullHeartbeat(readHeartbeat), jetstream.PullMaxMessages(replayAhead))
	if err != nil {
		return err
	}
	// From here alone: a Stop beside a Next that changes to another consumer stops the former
	// one, and Next waits on.
	defer iter.Stop()
	once, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(wait, cancel)
	late.Stop()
	for {
		if end > 0 {
			late.Reset(wait)
		}
		msg, err := iter.Next(jetstream.NextContext(once))
		late.Stop() // not while fn is at work
		switch {
		case err != nil && once.Err() != nil && ctx.Err() == nil:
			return errStalled
		case err != nil:
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("message on %s: %w", subject, err)
		}
		*after = meta.Sequence.Stream
		if end == 0 || *after <= end {
			if err := fn(*after, msg.Data()); err != nil {
				return stopped{err}
			}
		}
		if end > 0 && *after >= end {
			return nil
		}
	}
}

// kvKey maps a key to a bucket's, whose tokens are separated by dots so that a prefix can
// be listed by itself.
func kvKey(key string) string { return strings.ReplaceAll(key, "/", ".") }

func fromKV(key string) string { return strings.ReplaceAll(key, ".", "/") }

// kvFilter is the filter for the keys that begin with prefix.
func kvFilter(prefix string) string { return kvKey(prefix) + ">" }
