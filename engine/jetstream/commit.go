package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"myrmidon"
	"myrmidon/engine"
)

// Commit implements engine.Queue.
func (b *Backend) Commit(ctx context.Context, batch engine.Batch) error {
	if err := engine.CheckBatch(batch); err != nil {
		return err
	}
	msgs, err := messages(batch)
	if err != nil || len(msgs) == 0 {
		return err
	}
	err = b.insist(ctx, "store", func() error { return b.commits.commit(ctx, msgs) })
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == wrongLastSequence || api.ErrorCode == wrongLastSequenceConstant) {
		return engine.ErrStaleSlice
	}
	return err
}

// messages encodes a batch.
func messages(b engine.Batch) ([]*nats.Msg, error) {
	msgs := make([]*nats.Msg, 0, len(b.Jobs)+len(b.Again)+len(b.Held)+len(b.Events)+1)
	add := func(subject, what, name string, data []byte, err error) (*nats.Msg, error) {
		if err == nil && len(data) > engine.MaxMessage {
			err = fmt.Errorf("%d bytes are more than the %d of a message", len(data), engine.MaxMessage)
		}
		if err != nil {
			return nil, myrmidon.Permanent(fmt.Errorf("engine: %s %s: %w", what, name, err))
		}
		m := &nats.Msg{Subject: subject, Data: pack(data)}
		msgs = append(msgs, m)
		return m, nil
	}
	addJob := func(prefix string, j *myrmidon.Job) (*nats.Msg, error) {
		data, err := appendJob(make([]byte, 0, 160+len(j.Name)+len(j.Spec)), j)
		return add(prefix+jobSubject(j), "job", j.Name, data, err)
	}
	for _, set := range []struct {
		prefix string
		jobs   []myrmidon.Job
	}{{jobs, b.Jobs}, {held, b.Held}} {
		for i := range set.jobs {
			if _, err := addJob(set.prefix, &set.jobs[i]); err != nil {
				return nil, err
			}
		}
	}
	for i := range b.Again {
		a := &b.Again[i]
		m, err := addJob(retries, &a.Job)
		if err != nil {
			return nil, err
		}
		if a.Wait > 0 {
			m.Header = nats.Header{
				waitHeader:      {a.Wait.String()},
				notBeforeHeader: {time.Now().Add(a.Wait).UTC().Format(time.RFC3339Nano)},
			}
		}
	}
	if b.Next.Run != "" {
		data, err := json.Marshal(b.Next)
		m, err := add(cursorSubject(b.Next.Run, b.Next.Phase, b.Next.Shard), "cursor of run", b.Next.Run, data, err)
		if err != nil {
			return nil, err
		}
		m.Header = nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(b.Next.Seq, 10)}}
	}
	// Last, so that what was stored for a run up to its last event is all of it.
	for i := range b.Events {
		data, err := json.Marshal(&b.Events[i])
		if _, err := add(events+b.Events[i].Run, "event of run", b.Events[i].Run, data, err); err != nil {
			return nil, err
		}
	}
	return msgs, nil
}

// committer gathers what callers want stored at the same time: while one batch is being
// written, and with Power synced, the next fills up. The time that a write takes is the
// only time that anybody waits.
type committer struct {
	b    *Backend
	in   chan *commit
	done sync.WaitGroup
}

// commit is one caller's messages, which are stored together.
type commit struct {
	msgs []*nats.Msg
	err  chan error // capacity 1
}

// errNoAnswer says that a batch was sent and not answered.
var errNoAnswer = errors.New("the broker did not answer in time")

const (
	// embeddedBatch is how many messages are gathered to one batch of a server that is ours:
	// the syncs of a batch and the store that the server makes for it are shared by more than
	// other servers allow (engine.MaxBatch; make bench-engine).
	embeddedBatch = 8000
	// batchBytes bounds a gathered batch: the server holds one in memory to store it.
	batchBytes = 4 << 20
	// batchAhead is how many messages must have been gathered to be sent while a batch is
	// being written: the server takes them in meanwhile. Fewer wait for its end, since a
	// batch costs as much as some hundred messages, however small it is.
	batchAhead = 2 * engine.MaxSliceJobs
	// batchesAtOnce is how many batches are under way. More only make them smaller.
	batchesAtOnce = 2
)

func newCommitter(b *Backend) *committer {
	c := &committer{b: b, in: make(chan *commit, engine.MaxBatch)}
	c.done.Go(c.run)
	return c
}

// wait returns when nothing is being written any more.
func (c *committer) wait() { c.done.Wait() }

// commit stores msgs as one batch, together with what others store.
func (c *committer) commit(ctx context.Context, msgs []*nats.Msg) error {
	if len(msgs) == 1 && c.b.level != Power && c.b.closing.Err() == nil {
		return c.b.publish(msgs) // nothing is gained by waiting for others
	}
	one := &commit{msgs, make(chan error, 1)}
	select {
	case c.in <- one:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.b.closing.Done():
		return nats.ErrConnectionClosed
	}
	select {
	case err := <-one.err:
		return err
	case <-c.b.closing.Done():
		// What is being written is answered yet; see run.
		select {
		case err := <-one.err:
			return err
		case <-time.After(time.Second):
			return nats.ErrConnectionClosed
		}
	}
}

// run writes what is gathered, until the backend is closed. wait waits for the rest.
func (c *committer) run() {
	most := engine.MaxBatch
	if c.b.embedded != nil {
		most = embeddedBatch
	}
	next := gathered{most: most}
	var spare *commit // what next had no room for
	written := make(chan struct{}, batchesAtOnce)
	for writing := 0; ; {
		spare = next.fill(spare, c.in)
		if next.n > 0 && (writing == 0 || writing < batchesAtOnce && (next.n >= batchAhead || spare != nil)) {
			batch := next
			next = gathered{most: most}
			writing++
			c.done.Go(func() {
				c.write(batch.commits, batch.n)
				written <- struct{}{}
			})
			continue
		}
		in := c.in
		if spare != nil {
			in = nil
		}
		select {
		case spare = <-in:
		case <-written:
			writing--
		case <-c.b.closing.Done():
			tell(next.commits, nats.ErrConnectionClosed)
			if spare != nil {
				spare.err <- nats.ErrConnectionClosed
			}
			return
		}
	}
}

// gathered are the commits that are written next.
type gathered struct {
	most     int // messages
	commits  []*commit
	n, bytes int // of their messages
}

// fill adds first, if there is one, and then what waits in the channel. It returns the
// commit that there was no room for, or nil.
func (g *gathered) fill(first *commit, in <-chan *commit) (spare *commit) {
	for one := first; ; {
		if one == nil {
			select {
			case one = <-in:
			default:
				return nil
			}
		}
		bytes := 0
		for _, m := range one.msgs {
			bytes += len(m.Data)
		}
		if g.n > 0 && (g.n+len(one.msgs) > g.most || g.bytes+bytes > batchBytes) {
			return one
		}
		g.commits = append(g.commits, one)
		g.n += len(one.msgs)
		g.bytes += bytes
		one = nil
	}
}

// loneSyncs is how many single messages are better synced one by one than stored as a
// batch, for which the server opens a store of its own (make bench-engine prints both).
const loneSyncs = 8

// write stores commits as one atomic batch; a few messages that stand alone, side by side.
func (c *committer) write(batch []*commit, n int) {
	if n == len(batch) && n > 1 && n < loneSyncs {
		c.writeSingles(batch)
		return
	}
	err := c.b.publish(join(batch, n))
	if err == nil || len(batch) == 1 || passing(err) {
		tell(batch, err)
		return
	}
	// Only a cursor can be refused: the others are stored without those that have one.
	var plain, cursors []*commit
	for _, one := range batch {
		if one.cursor() {
			cursors = append(cursors, one)
		} else {
			plain = append(plain, one)
		}
	}
	if len(plain) > 0 {
		tell(plain, c.b.publish(join(plain, n)))
	}
	for _, one := range cursors {
		one.err <- c.b.publish(one.msgs)
	}
}

// join returns the messages of commits, n at most.
func join(batch []*commit, n int) []*nats.Msg {
	if len(batch) == 1 {
		return batch[0].msgs
	}
	msgs := make([]*nats.Msg, 0, n)
	for _, one := range batch {
		msgs = append(msgs, one.msgs...)
	}
	return msgs
}

func tell(batch []*commit, err error) {
	for _, one := range batch {
		one.err <- err
	}
}

// cursor reports whether the commit may be refused for a cursor that is not the last.
func (c *commit) cursor() bool {
	for _, m := range c.msgs {
		if m.Header[jetstream.ExpectedLastSubjSeqHeader] != nil {
			return true
		}
	}
	return false
}

// writeSingles stores commits of one message each, without waiting between them.
func (c *committer) writeSingles(batch []*commit) {
	sent := make([]question, len(batch))
	for i, one := range batch {
		clean(one.msgs[0])
		var err error
		if sent[i], err = c.b.question(c.b.stores, one.msgs...); err != nil {
			one.err <- err
		}
	}
	late := time.NewTimer(c.b.patience)
	defer late.Stop()
	for i, q := range sent {
		if q.by == nil {
			continue
		}
		answer, err := q.answer(late.C)
		if errors.Is(err, errNoAnswer) {
			late.Reset(0) // nor are those that follow waited for
		}
		batch[i].err <- isStored(answer, err, 1)
	}
}

// Headers of atomic batches (ADR-50).
const (
	batchID     = "Nats-Batch-Id"
	batchSeq    = "Nats-Batch-Sequence"
	batchCommit = "Nats-Batch-Commit"
)

// publish stores msgs as one atomic batch; one message needs none. The client library
// has no call for batches, so the headers are set here.
func (b *Backend) publish(msgs []*nats.Msg) error {
	last := msgs[len(msgs)-1]
	for _, m := range msgs {
		clean(m)
	}
	if len(msgs) > 1 {
		id := []string{nuid.Next()}
		for i, m := range msgs {
			if m.Header == nil {
				m.Header = make(nats.Header, 3)
			}
			m.Header[batchID] = id
			m.Header[batchSeq] = []string{strconv.Itoa(i + 1)}
		}
		last.Header[batchCommit] = []string{"1"}
	}
	q, err := b.question(b.stores, msgs...)
	if err != nil {
		return err
	}
	late := time.NewTimer(b.patience)
	defer late.Stop()
	answer, err := q.answer(late.C)
	return isStored(answer, err, len(msgs))
}

// isStored checks the answer to n messages.
func isStored(answer *nats.Msg, err error, n int) error {
	if err != nil {
		return err
	}
	return pubAck(answer.Data, n)
}

// clean removes what an earlier try has left.
func clean(m *nats.Msg) {
	m.Reply = ""
	for _, h := range []string{batchID, batchSeq, batchCommit} {
		delete(m.Header, h)
	}
}

// pubAck checks the answer to a publication (ADR-2: a JSON object with error or stream
// and seq; ADR-50 adds batch and count).
func pubAck(data []byte, n int) error {
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
		Count  int                 `json:"count"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return fmt.Errorf("answer to a publication: %w", err)
	}
	switch {
	case ack.Error != nil:
		return ack.Error
	case ack.Stream == "":
		return fmt.Errorf("answer to a publication names no stream: %s", data)
	case n > 1 && ack.Count != n:
		return fmt.Errorf("a batch of %d messages was stored as %d", n, ack.Count)
	}
	return nil
}

// apiError reads an answer of the JetStream API that is an error. It returns nil if it is none.
func apiError(data []byte) error {
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if json.Unmarshal(data, &answer) != nil || answer.Error == nil {
		return nil
	}
	return answer.Error
}
