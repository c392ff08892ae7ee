package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"myrmidon"
	"myrmidon/engine"
)

func jobSubject(j myrmidon.Job) string { return "job." + j.Run + "." + j.Kind }

func cursorSubject(run string, phase, shard uint32) string {
	return fmt.Sprintf("plan.%s.%d.%d", run, phase, shard)
}

// Enqueue implements engine.Queue.
func (b *Backend) Enqueue(ctx context.Context, jobs []myrmidon.Job) error {
	if err := engine.CheckJobs(jobs); err != nil {
		return err
	}
	msgs, err := jobMessages(jobs)
	if err != nil {
		return err
	}
	return b.explain(b.publish(ctx, msgs))
}

func jobMessages(jobs []myrmidon.Job) ([]*nats.Msg, error) {
	msgs := make([]*nats.Msg, 0, len(jobs)+2)
	for _, j := range jobs {
		data, err := json.Marshal(j)
		if err != nil {
			return nil, fmt.Errorf("engine: job %q: %w", j.Name, err)
		}
		msgs = append(msgs, &nats.Msg{Subject: jobSubject(j), Data: data})
	}
	return msgs, nil
}

// EnqueueSlice implements engine.Queue.
func (b *Backend) EnqueueSlice(ctx context.Context, jobs []myrmidon.Job, event engine.Event, next engine.Cursor) error {
	if err := engine.CheckJobs(jobs); err != nil {
		return err
	}
	msgs, err := jobMessages(jobs)
	if err != nil {
		return err
	}
	data, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("engine: event of run %s: %w", event.Run, err)
	}
	msgs = append(msgs, &nats.Msg{Subject: "event." + event.Run, Data: data})
	if next.Run != "" {
		if data, err = json.Marshal(next); err != nil {
			return fmt.Errorf("engine: cursor of run %s: %w", next.Run, err)
		}
		msgs = append(msgs, &nats.Msg{
			Subject: cursorSubject(next.Run, next.Phase, next.Shard),
			Header:  nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(next.Seq, 10)}},
			Data:    data,
		})
	}
	err = b.publish(ctx, msgs)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return engine.ErrStaleSlice
	}
	return b.explain(err)
}

// publish stores msgs as one atomic batch; one message needs none. The client library
// has no call for batches, so the headers are set here.
func (b *Backend) publish(ctx context.Context, msgs []*nats.Msg) error {
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	last := msgs[len(msgs)-1]
	if len(msgs) > 1 {
		id := nuid.Next()
		for i, m := range msgs {
			if m.Header == nil {
				m.Header = nats.Header{}
			}
			m.Header.Set("Nats-Batch-Id", id)
			m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		}
		last.Header.Set("Nats-Batch-Commit", "1")
		for _, m := range msgs[:len(msgs)-1] {
			if err := b.conn.PublishMsg(m); err != nil {
				return err
			}
		}
	}
	reply, err := b.conn.RequestMsgWithContext(ctx, last)
	if err != nil {
		return err
	}
	return pubAck(reply.Data, len(msgs))
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

// Cursor implements engine.Queue.
func (b *Backend) Cursor(ctx context.Context, run string, phase, shard uint32) (engine.Cursor, error) {
	msg, err := b.runs.GetLastMsgForSubject(ctx, cursorSubject(run, phase, shard))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return engine.Cursor{Run: run, Phase: phase, Shard: shard}, nil
	}
	if err != nil {
		return engine.Cursor{}, b.explain(err)
	}
	var c engine.Cursor
	if err := json.Unmarshal(msg.Data, &c); err != nil {
		return engine.Cursor{}, fmt.Errorf("engine: cursor of run %s: %w", run, err)
	}
	c.Seq = msg.Sequence
	return c, nil
}

// Pull implements engine.Queue.
//
// A fetch of n messages waits for all n, so a pull that may wait asks for what is there,
// then waits for one message, then asks for the rest.
func (b *Backend) Pull(ctx context.Context, req engine.PullRequest) ([]engine.Delivery, error) {
	from := b.fresh
	if req.Retries {
		from = b.again
	}
	deadline := time.Now().Add(req.Wait)
	for ctx.Err() == nil {
		batch, err := from.FetchNoWait(req.N)
		out, err := b.deliveries(batch, err)
		if len(out) > 0 || err != nil || req.Wait <= 0 {
			return out, err
		}
		wait := time.Until(deadline)
		if wait < time.Millisecond {
			return nil, nil
		}
		fetchCtx, cancel := context.WithTimeout(ctx, wait)
		batch, err = from.Fetch(1, jetstream.FetchContext(fetchCtx))
		if err != nil && fetchCtx.Err() != nil {
			cancel()
			continue // on a busy machine the wait was over before the request was made
		}
		out, err = b.deliveries(batch, err)
		cancel()
		if err != nil {
			return out, err
		}
		if len(out) > 0 && req.N > 1 {
			batch, err := from.FetchNoWait(req.N - 1)
			more, err := b.deliveries(batch, err)
			return append(out, more...), err
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, ctx.Err()
}

// deliveries reads a fetched batch to its end.
func (b *Backend) deliveries(batch jetstream.MessageBatch, err error) ([]engine.Delivery, error) {
	if err != nil {
		return nil, b.explain(err)
	}
	var out []engine.Delivery
	for msg := range batch.Messages() {
		d, err := b.delivery(msg)
		if err != nil {
			return out, err
		}
		if d != nil {
			out = append(out, d)
		}
	}
	switch err := batch.Error(); {
	case err == nil, errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, context.Canceled), errors.Is(err, jetstream.ErrNoMessages):
		return out, nil
	default:
		return out, b.explain(err)
	}
}

// delivery decodes a message; nil for a retry that came too early, which goes back.
func (b *Backend) delivery(msg jetstream.Msg) (engine.Delivery, error) {
	if stamp := msg.Headers().Get(notBeforeHeader); stamp != "" {
		t, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			return nil, fmt.Errorf("engine: job on %s has not-before time %q: %w", msg.Subject(), stamp, err)
		}
		if wait := time.Until(t); wait > 0 {
			return nil, b.explain(msg.NakWithDelay(wait))
		}
	}
	d := &delivery{msg: msg}
	if err := json.Unmarshal(msg.Data(), &d.job); err != nil {
		// Nobody can do it, ever: take it off the queue and say so.
		if term := msg.TermWithReason("not a job"); term != nil {
			return nil, b.explain(term)
		}
		b.cfg.Log.Error("dropped a message that is no job", "subject", msg.Subject(), "err", err)
		return nil, nil
	}
	return d, nil
}

// Retry implements engine.Queue.
func (b *Backend) Retry(ctx context.Context, job myrmidon.Job, notBefore time.Time) error {
	if err := engine.CheckJobs([]myrmidon.Job{job}); err != nil {
		return err
	}
	data, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("engine: job %q: %w", job.Name, err)
	}
	return b.explain(b.publish(ctx, []*nats.Msg{{
		Subject: "retry." + job.Run + "." + job.Kind,
		Header:  nats.Header{notBeforeHeader: {notBefore.UTC().Format(time.RFC3339Nano)}},
		Data:    data,
	}}))
}

// Purge implements engine.Queue.
func (b *Backend) Purge(ctx context.Context, run string) error {
	for _, p := range []struct {
		s       jetstream.Stream
		subject string
	}{
		{b.runs, "job." + run + ".>"},
		{b.retry, "retry." + run + ".>"},
		{b.runs, "plan." + run + ".>"},
		{b.runs, "event." + run},
	} {
		if err := p.s.Purge(ctx, jetstream.WithPurgeSubject(p.subject)); err != nil {
			return b.explain(err)
		}
	}
	return nil
}

type delivery struct {
	msg jetstream.Msg
	job myrmidon.Job
}

func (d *delivery) Job() myrmidon.Job             { return d.job }
func (d *delivery) Extend(context.Context) error  { return d.msg.InProgress() }
func (d *delivery) Ack(context.Context) error     { return d.msg.Ack() }
func (d *delivery) Release(context.Context) error { return d.msg.Nak() }
