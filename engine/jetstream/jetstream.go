// Package jetstream is the durable [engine.Backend]: NATS JetStream, as a server
// embedded in this process that keeps its state in a folder and opens no port.
//
// # Layout
//
//	stream RUNS   job.<run>.<kind>            fresh jobs
//	              plan.<run>.<phase>.<shard>  cursors; the last one of a subject counts
//	              event.<run>                 the log
//	stream RETRY  retry.<run>.<kind>          jobs to be tried again, not before a time
//	bucket BLOBS  snapshots and parked jobs
//
// Jobs, cursor and event of a slice share one stream because an atomic batch cannot
// span two. All streams have limits retention: a work-queue stream would write on
// every acknowledgement. A run's subjects are purged when it ends.
//
// # Promises
//
// What Enqueue, EnqueueSlice, Append and Set have answered survives a killed process;
// with [Second] the machine may lose power and lose at most the last second. Slices
// are stored whole or not at all (Nats-Batch-* headers, ADR-50 of the NATS project;
// at most 1,000 messages). Acknowledgements are hints and may be lost with the process.
//
// On opening, the consumers are made anew behind what was acknowledged, so that jobs
// which a dead process held come again at once instead of when their lease ends.
package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"myrmidon"
	"myrmidon/engine"
)

// Durability is what survives.
type Durability string

// The levels that this package can give.
const (
	Process Durability = "process" // a killed process: written, not synced
	Second  Durability = "second"  // and a power cut, but for the last second
)

// ParseDurability reads a level's name.
func ParseDurability(s string) (Durability, error) {
	switch d := Durability(s); d {
	case Process, Second:
		return d, nil
	}
	return "", myrmidon.WithHint(fmt.Errorf("durability %q is not known", s), "use process or second")
}

// Config says how to open an embedded backend. The zero value of each field but Dir is
// the default.
type Config struct {
	Dir        string        // folder of the state; made if missing
	Durability Durability    // default Process
	Lease      time.Duration // of a pulled job; default 30 s
	Log        *slog.Logger  // the server's warnings; default: none
}

const (
	runsStream  = "RUNS"
	retryStream = "RETRY"
	blobBucket  = "BLOBS"
	consumer    = "workers"
	// maxDeliver only catches jobs that kill their process: failures that a handler
	// reports come back as new messages.
	maxDeliver = 20

	notBeforeHeader = "Myrmidon-Not-Before"
	startTimeout    = 20 * time.Second
	// requestTimeout bounds one exchange with the embedded server; longer means that it
	// is stuck, for example on a full disk.
	requestTimeout = 15 * time.Second
)

// Backend is an engine.Backend on JetStream.
type Backend struct {
	cfg    Config
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	runs   jetstream.Stream
	retry  jetstream.Stream
	fresh  jetstream.Consumer
	again  jetstream.Consumer
	blobs  jetstream.KeyValue
	close  func() error
}

var _ engine.Backend = (*Backend)(nil)

// Open starts a server on cfg.Dir and opens the backend. Only one process at a time may
// open a folder: two servers on one store lose messages. The caller holds a lock.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	if cfg.Durability == "" {
		cfg.Durability = Process
	}
	if cfg.Lease == 0 {
		cfg.Lease = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{cfg: cfg}
	b.close = sync.OnceValue(b.shutdown)
	if err := b.start(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := b.layout(ctx); err != nil {
		return nil, errors.Join(b.explain(err), b.Close())
	}
	return b, nil
}

func (b *Backend) start() error {
	if err := os.MkdirAll(b.cfg.Dir, 0o700); err != nil {
		return myrmidon.WithHint(fmt.Errorf("engine: make state folder: %w", err), "choose another folder with --state")
	}
	opts := &server.Options{
		ServerName: "myrmidon",
		DontListen: true,
		JetStream:  true,
		StoreDir:   b.cfg.Dir,
		NoSigs:     true,
		// The default bound is a share of the free disk at start; ours is the disk.
		JetStreamMaxStore:  1 << 50,
		JetStreamMaxMemory: 64 << 20,
	}
	if b.cfg.Durability == Second {
		opts.SyncInterval = time.Second
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("engine: start queue in %s: %w", b.cfg.Dir, err)
	}
	b.server = srv
	srv.SetLoggerV2(serverLog{b.cfg.Log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) || !srv.JetStreamEnabled() {
		return myrmidon.WithHint(fmt.Errorf("engine: the queue in %s did not start within %v", b.cfg.Dir, startTimeout),
			"look at the folder's permissions and free space, or choose another with --state")
	}
	conn, err := nats.Connect("", nats.InProcessServer(srv), nats.NoReconnect())
	if err != nil {
		return fmt.Errorf("engine: connect to the embedded queue: %w", err)
	}
	b.conn = conn
	if b.js, err = jetstream.New(conn, jetstream.WithDefaultTimeout(requestTimeout)); err != nil {
		return fmt.Errorf("engine: open queue: %w", err)
	}
	return nil
}

// layout makes the streams and consumers, or finds them.
func (b *Backend) layout(ctx context.Context) (err error) {
	b.runs, err = b.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:               runsStream,
		Subjects:           []string{"job.>", "plan.>", "event.>"},
		AllowAtomicPublish: true,
		AllowDirect:        true,
	})
	if err != nil {
		return err
	}
	b.retry, err = b.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:     retryStream,
		Subjects: []string{"retry.>"},
	})
	if err != nil {
		return err
	}
	b.blobs, err = b.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: blobBucket})
	if err != nil {
		return err
	}
	if b.fresh, err = b.renew(ctx, b.runs, "job.>"); err != nil {
		return err
	}
	b.again, err = b.renew(ctx, b.retry, "retry.>")
	return err
}

// renew replaces a stream's consumer by one that begins behind the last message below
// which all are acknowledged. A crash between the two steps makes it begin at the first
// message; what is done already is then dropped by the worker.
func (b *Backend) renew(ctx context.Context, s jetstream.Stream, filter string) (jetstream.Consumer, error) {
	cfg := jetstream.ConsumerConfig{
		Durable:       consumer,
		FilterSubject: filter,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       b.cfg.Lease,
		MaxDeliver:    maxDeliver,
		MaxAckPending: -1, // workers bound what they hold; a bound here would let delayed jobs stop all
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	old, err := s.Consumer(ctx, consumer)
	switch {
	case err == nil:
		cfg.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
		cfg.OptStartSeq = old.CachedInfo().AckFloor.Stream + 1
		if err := s.DeleteConsumer(ctx, consumer); err != nil {
			return nil, err
		}
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, err
	}
	return s.CreateOrUpdateConsumer(ctx, cfg)
}

// Close ends the connection and the server and waits for both.
func (b *Backend) Close() error { return b.close() }

func (b *Backend) shutdown() error {
	if b.conn != nil {
		// Acknowledgements are published without waiting; give them their chance.
		_ = b.conn.FlushTimeout(time.Second) // a closed connection has nothing to flush
		b.conn.Close()
	}
	if b.server != nil {
		b.server.Shutdown()
		b.server.WaitForShutdown()
	}
	return nil
}

// explain adds what a person can do to errors that come from the state folder.
func (b *Backend) explain(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &api) && (api.ErrorCode == 10047 || api.Code == 500), // JSStorageResourcesExceededErr; the store failed
		errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders):
		return myrmidon.WithHint(fmt.Errorf("engine: the queue in %s cannot store: %w", b.cfg.Dir, err),
			"is its disk full? Free some space and run myrmidon runs resume, or choose another folder with --state")
	}
	return fmt.Errorf("engine: queue in %s: %w", b.cfg.Dir, err)
}

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

// Append implements engine.Log.
func (b *Backend) Append(ctx context.Context, e engine.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("engine: event of run %s: %w", e.Run, err)
	}
	return b.explain(b.publish(ctx, []*nats.Msg{{Subject: "event." + e.Run, Data: data}}))
}

// Read implements engine.Log.
func (b *Backend) Read(ctx context.Context, run string, after uint64, follow bool, fn func(uint64, engine.Event) error) error {
	subject := "event." + run
	var end uint64
	if !follow {
		last, err := b.runs.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return b.explain(err)
		}
		if end = last.Sequence; end <= after {
			return nil
		}
	}
	cons, err := b.runs.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{subject},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    after + 1,
	})
	if err != nil {
		return b.explain(err)
	}
	iter, err := cons.Messages()
	if err != nil {
		return b.explain(err)
	}
	stop := context.AfterFunc(ctx, iter.Stop)
	defer func() { stop(); iter.Stop() }()
	for {
		msg, err := iter.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) && ctx.Err() != nil {
			if follow {
				return nil
			}
			return ctx.Err()
		}
		if err != nil {
			return b.explain(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("engine: event of run %s: %w", run, err)
		}
		var e engine.Event
		if err := json.Unmarshal(msg.Data(), &e); err != nil {
			return fmt.Errorf("engine: event %d of run %s: %w", meta.Sequence.Stream, run, err)
		}
		if err := fn(meta.Sequence.Stream, e); err != nil {
			return err
		}
		if !follow && meta.Sequence.Stream >= end {
			return nil
		}
	}
}

// Set implements engine.Blobs.
func (b *Backend) Set(ctx context.Context, key string, value []byte) error {
	if err := engine.CheckBlob(key, value); err != nil {
		return err
	}
	_, err := b.blobs.Put(ctx, key, value)
	return b.explain(err)
}

// Value implements engine.Blobs.
func (b *Backend) Value(ctx context.Context, key string) ([]byte, error) {
	e, err := b.blobs.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, fmt.Errorf("engine: blob %s: %w", key, fs.ErrNotExist)
	}
	if err != nil {
		return nil, b.explain(err)
	}
	return e.Value(), nil
}

// Keys implements engine.Blobs.
func (b *Backend) Keys(ctx context.Context, prefix string) ([]string, error) {
	l, err := b.blobs.ListKeys(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, b.explain(err)
	}
	var keys []string
	for k := range l.Keys() {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// Unset implements engine.Blobs.
func (b *Backend) Unset(ctx context.Context, key string) error {
	return b.explain(b.blobs.Purge(ctx, key))
}

// serverLog passes the server's warnings on; its notices are of no use to a person who
// runs a command.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(format string, v ...any) {}
func (l serverLog) Debugf(format string, v ...any)  {}
func (l serverLog) Tracef(format string, v ...any)  {}
func (l serverLog) Warnf(format string, v ...any) {
	l.log.Warn("queue: " + fmt.Sprintf(format, v...))
}

func (l serverLog) Errorf(format string, v ...any) {
	l.log.Error("queue: " + fmt.Sprintf(format, v...))
}

func (l serverLog) Fatalf(format string, v ...any) {
	l.log.Error("queue: " + fmt.Sprintf(format, v...))
}
