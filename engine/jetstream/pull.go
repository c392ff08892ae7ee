package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"myrmidon"
	"myrmidon/engine"
)

// maxWaiting is how many workers may wait for the jobs of one lane.
const maxWaiting = 8192

// priorityGroup is the one group that a prioritized consumer must have.
const priorityGroup = "workers"

type laneKey struct {
	engine.Lane
	retries bool
}

// lane is a consumer.
type lane struct {
	name string // of the consumer
	next string // subject that pulls are sent to
	// again is the last sequence that may have been handed out before the consumer was made
	// anew.
	again uint64
}

// subject returns the tokens of the jobs of l that follow prefix.run.
func laneSubject(l engine.Lane) string {
	length := "short"
	if l.Long {
		length = "long"
	}
	return l.Workload + "." + strconv.FormatUint(uint64(l.Version), 10) + "." + length
}

func jobSubject(j *myrmidon.Job) string {
	_, name, _ := strings.Cut(j.Kind, ".")
	return j.Run + "." + laneSubject(engine.LaneOf(*j)) + "." + name
}

// lane returns the consumer of a lane, which is made at its first use.
func (b *Backend) lane(ctx context.Context, key laneKey) (*lane, error) {
	if l := b.known(key); l != nil {
		return l, nil
	}
	b.making.Lock() // one at a time: a consumer is made anew once
	defer b.making.Unlock()
	if l := b.known(key); l != nil {
		return l, nil
	}
	prefix, kind := jobs, "fresh"
	if key.retries {
		prefix, kind = retries, "retry"
	}
	name := kind + "-" + strings.ReplaceAll(laneSubject(key.Lane), ".", "-")
	cfg := jetstream.ConsumerConfig{
		Durable:       name,
		FilterSubject: prefix + "*." + laneSubject(key.Lane) + ".>",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       b.lease,
		MaxDeliver:    -1, // deliveries are not attempts: see engine, Poison
		MaxAckPending: -1, // workers bound what they hold; a bound here would let delayed jobs stop all
		MaxWaiting:    maxWaiting,
	}
	if b.priority {
		cfg.PriorityPolicy, cfg.PriorityGroups = jetstream.PriorityPolicyPrioritized, []string{priorityGroup}
	}
	l := &lane{name: name, next: "$JS.API.CONSUMER.MSG.NEXT." + streamName + "." + name}
	var err error
	if b.embedded != nil {
		l.again, err = b.renew(ctx, cfg)
	} else {
		err = b.persist(ctx, "open a lane", func(ctx context.Context) error {
			_, err := b.stream.CreateConsumer(ctx, cfg)
			if errors.Is(err, jetstream.ErrConsumerExists) {
				return nil // made by another version, with another lease
			}
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lanes[key] = l
	return l, nil
}

func (b *Backend) known(key laneKey) *lane {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lanes[key]
}

// renew replaces a consumer by one that begins behind the last message below which all are
// acknowledged, and returns the last sequence that the former one had handed out. A crash
// between the two steps makes it begin at the first message; what is done already is then
// dropped by the worker.
func (b *Backend) renew(ctx context.Context, cfg jetstream.ConsumerConfig) (again uint64, err error) {
	old, err := b.stream.Consumer(ctx, cfg.Durable)
	switch {
	case err == nil:
		info := old.CachedInfo()
		again = info.Delivered.Stream
		cfg.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
		cfg.OptStartSeq = info.AckFloor.Stream + 1
		if err := b.stream.DeleteConsumer(ctx, cfg.Durable); err != nil {
			return 0, b.explain(err)
		}
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return 0, b.explain(err)
	}
	_, err = b.stream.CreateConsumer(ctx, cfg)
	return again, b.explain(err)
}

// takenIn waits, a second at most, until our own server has taken in the acknowledgements that it
// has received: it does so behind its back, and forgets those that it has not come to when it ends.
// Their jobs would come again. What is given back for a later time stays with the consumer, so where
// nothing changes for a fifth of a second there is nothing to wait for.
func (b *Backend) takenIn() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	b.mu.Lock()
	lanes := slices.Collect(maps.Values(b.lanes))
	b.mu.Unlock()
	for _, l := range lanes {
		pending, since := -1, time.Now()
		for time.Since(since) < 200*time.Millisecond {
			c, err := b.stream.Consumer(ctx, l.name)
			if err != nil {
				break // deleted, or the second is over
			}
			if n := c.CachedInfo().NumAckPending; n == 0 {
				break
			} else if n != pending {
				pending, since = n, time.Now()
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// retire gives back what an abandoned request still brings, until the server has ended it.
func (b *Backend) retire(a *asker, after time.Duration) {
	go func() {
		timer := time.NewTimer(after)
		defer timer.Stop()
		for {
			select {
			case m := <-a.in:
				if m.Reply != "" {
					_ = b.answer(m, nakAfter(max(early(m, 1), 0))) // the lease gives it back otherwise
					continue
				}
			case <-timer.C:
			case <-b.closing.Done():
			}
			a.stop()
			return
		}
	}()
}

// pullOrder is the body of a request for jobs (ADR-13, ADR-42). With NoWait and Expires
// the server sends what is there, or waits for the first.
type pullOrder struct {
	Batch    int    `json:"batch"`
	Expires  int64  `json:"expires,omitempty"` // nanoseconds
	NoWait   bool   `json:"no_wait"`
	Group    string `json:"group,omitempty"`
	Priority int    `json:"priority,omitempty"`
}

// lateAnswer is how much longer than the server a pull waits for the end that it announces.
const lateAnswer = 2 * time.Second

// Pull implements engine.Queue.
func (b *Backend) Pull(ctx context.Context, req engine.PullRequest) ([]engine.Delivery, error) {
	if req.N < 1 || req.N > engine.MaxPull || req.Priority < 0 || req.Priority > 9 {
		return nil, fmt.Errorf("engine: a pull of %d jobs with priority %d: 1 to %d and 0 to 9 are possible", req.N, req.Priority, engine.MaxPull)
	}
	l, err := b.lane(ctx, laneKey{req.Lane, req.Retries})
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(req.Wait)
	for {
		order := pullOrder{Batch: req.N, NoWait: true}
		if wait := time.Until(deadline); wait > time.Millisecond {
			order.Expires = int64(wait)
		}
		if b.priority {
			order.Group, order.Priority = priorityGroup, req.Priority
		}
		msgs, err := b.ask(ctx, l, order)
		if err != nil {
			return nil, err
		}
		out, err := b.deliveries(l, msgs)
		if len(out) > 0 || err != nil || ctx.Err() != nil || time.Until(deadline) < time.Millisecond {
			return out, err
		}
		if len(msgs) == 0 && order.Expires > 0 {
			// The server ended the request early: it restarts, or another request for more
			// jobs than there are is before ours.
			select {
			case <-time.After(min(20*time.Millisecond, time.Until(deadline))):
			case <-ctx.Done():
				return nil, nil
			}
		}
	}
}

// ask sends one request and gathers what comes back.
func (b *Backend) ask(ctx context.Context, l *lane, order pullOrder) (msgs []*nats.Msg, err error) {
	body, err := json.Marshal(order)
	if err != nil {
		return nil, fmt.Errorf("engine: pull: %w", err)
	}
	a, err := b.pulls.asker()
	if err != nil {
		return nil, b.explain(err)
	}
	whole := false // the server knows that the request has ended
	wait := time.Duration(order.Expires) + lateAnswer
	defer func() {
		if whole {
			b.pulls.reuse(a)
		} else {
			b.retire(a, wait)
		}
	}()
	broken := b.link.broken()
	if err := b.pulls.send(&nats.Msg{Subject: l.next, Reply: a.inbox, Data: body}); err != nil {
		if b.embedded == nil && passing(err) {
			return nil, b.pause(ctx, "pull jobs", err)
		}
		return nil, b.explain(err)
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	for len(msgs) < order.Batch {
		m := a.next(ctx, broken, late.C)
		if m == nil {
			return msgs, nil
		}
		if m.Reply != "" {
			msgs = append(msgs, m)
			continue
		}
		switch status := statusOf(m); status {
		case "100": // a heartbeat
		case "404", "408", "409":
			whole = true
			b.refused(l, status, m.Header.Get("Description"))
			return msgs, nil
		case noResponders:
			whole = true
			b.forget(l)
			return msgs, b.pause(ctx, "pull jobs", nats.ErrNoResponders)
		case "": // of the API, as while a cluster has no leader
			whole = true
			if err := apiError(m.Data); passing(err) {
				return msgs, b.pause(ctx, "pull jobs", err)
			}
			return msgs, fmt.Errorf("engine: pull: the server answers %.200q", m.Data)
		default:
			return msgs, fmt.Errorf("engine: pull: the server answers %s %s", status, m.Header.Get("Description"))
		}
	}
	whole = true
	return msgs, nil
}

// refused handles the end of a request that the server announces.
func (b *Backend) refused(l *lane, status, description string) {
	if status == "409" && strings.Contains(description, "Consumer Deleted") {
		b.forget(l)
	}
}

// forget makes the next pull look for the consumer again.
func (b *Backend) forget(l *lane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, known := range b.lanes {
		if known == l {
			delete(b.lanes, key)
		}
	}
}

// pause waits a moment where the broker cannot be reached; an embedded server must answer.
func (b *Backend) pause(ctx context.Context, what string, err error) error {
	if b.embedded != nil {
		return b.explain(err)
	}
	if lost := b.lost(ctx, err); lost != nil {
		return lost
	}
	b.warn(what, err)
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
	case <-b.closing.Done():
		return b.explain(nats.ErrConnectionClosed)
	}
	return nil
}

func (b *Backend) deliveries(l *lane, msgs []*nats.Msg) ([]engine.Delivery, error) {
	out := make([]engine.Delivery, 0, len(msgs))
	var last myrmidon.Job // whose strings the next one is likely to share
	for _, m := range msgs {
		d, err := b.delivery(l, m, last)
		if err != nil {
			return out, err
		}
		if d != nil {
			out = append(out, d)
			last = d.job
		}
	}
	return out, nil
}

// delivery decodes a message; nil for a retry that came too early, which goes back, and
// for what is no job, which is taken off the queue.
func (b *Backend) delivery(l *lane, m *nats.Msg, like myrmidon.Job) (*delivery, error) {
	delivered, sequence, ok := parseAckSubject(m.Reply)
	if !ok {
		return nil, fmt.Errorf("engine: message on %s: the server gives no place to acknowledge it: %q", m.Subject, m.Reply)
	}
	if wait := early(m, delivered); wait > 0 {
		return nil, b.explain(hint(b.answer(m, nakAfter(wait))))
	}
	d := &delivery{b: b, msg: m, again: delivered > 1 || sequence <= l.again}
	d.job.Kind, d.job.Run = like.Kind, like.Run
	if err := b.decode(m, &d.job); err != nil {
		// Nobody can do it, ever: take it off the queue and say so.
		b.log.Error("a message on the broker is no job of ours; it is left out", "broker", b.where, "subject", m.Subject,
			"sequence", sequence, "bytes", len(m.Data), "err", err)
		return nil, b.explain(hint(b.answer(m, ackTerm)))
	}
	return d, nil
}

// parseAckSubject reads how often a message was delivered and its sequence in the stream
// from where it is acknowledged (ADR-15):
//
//	$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer's>.<time>.<pending>
//	$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<sequence>. and so on
func parseAckSubject(s string) (delivered, sequence uint64, ok bool) {
	rest, ok := strings.CutPrefix(s, "$JS.ACK.")
	skip := 2
	switch n := strings.Count(rest, ".") + 1; {
	case !ok || n < 7 || n == 8:
		return 0, 0, false
	case n > 8:
		skip = 4
	}
	for range skip {
		_, rest, _ = strings.Cut(rest, ".")
	}
	one, rest, _ := strings.Cut(rest, ".")
	two, _, _ := strings.Cut(rest, ".")
	delivered, err := strconv.ParseUint(one, 10, 64)
	if err == nil {
		sequence, err = strconv.ParseUint(two, 10, 64)
	}
	if err != nil {
		return 0, 0, false
	}
	return delivered, sequence, true
}

// decode reads a job and checks it: others may write to the broker.
func (b *Backend) decode(m *nats.Msg, j *myrmidon.Job) error {
	if len(m.Data) > engine.MaxMessage {
		return fmt.Errorf("%d bytes are more than the %d of a message", len(m.Data), engine.MaxMessage)
	}
	data, err := unpack(m.Data)
	if err != nil {
		return err
	}
	if !parseJob(data, j) {
		*j = myrmidon.Job{}
		if err := json.Unmarshal(data, j); err != nil {
			return err
		}
	}
	if err := engine.CheckJob(j); err != nil {
		return err
	}
	if at := jobSubject(j); !strings.HasSuffix(m.Subject, "."+at) {
		return fmt.Errorf("it says that it belongs to %s", at)
	}
	return nil
}

// early returns how long a retry must wait yet. Only its first delivery is looked at: the
// later ones come when the server has counted the wait, which no clock that is set in
// between can stretch. For the first one, clocks can stretch it to its whole wait at most.
func early(m *nats.Msg, delivered uint64) time.Duration {
	if delivered > 1 || m.Header == nil {
		return 0
	}
	whole, err := time.ParseDuration(m.Header.Get(waitHeader))
	if err != nil {
		return 0
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get(notBeforeHeader))
	if err != nil {
		return whole
	}
	return min(time.Until(at), whole)
}

type delivery struct {
	b     *Backend
	msg   *nats.Msg
	job   myrmidon.Job
	again bool
}

func (d *delivery) Job() myrmidon.Job             { return d.job }
func (d *delivery) Again() bool                   { return d.again }
func (d *delivery) Extend(context.Context) error  { return hint(d.b.answer(d.msg, ackProgress)) }
func (d *delivery) Ack(context.Context) error     { return hint(d.b.answer(d.msg, ackAck)) }
func (d *delivery) Release(context.Context) error { return hint(d.b.answer(d.msg, ackNak)) }

// What a message is answered (ADR-15).
var (
	ackAck      = []byte("+ACK")
	ackNak      = []byte("-NAK")
	ackProgress = []byte("+WPI")
	ackTerm     = []byte("+TERM")
)

// nakAfter gives a message back that is to come again after a time.
func nakAfter(wait time.Duration) []byte {
	return fmt.Appendf(nil, `-NAK {"delay": %d}`, wait.Nanoseconds())
}

// answer acknowledges a message, or gives it back.
func (b *Backend) answer(m *nats.Msg, what []byte) error {
	return b.pulls.post(m.Reply, what)
}

// hint forgives that an acknowledgement could not be sent: it is one hint of many, and where
// the broker cannot be reached the lease gives the job back.
func hint(err error) error {
	if err != nil && passing(err) {
		return nil
	}
	return err
}
