// Package jetstream is the durable [engine.Backend]: NATS JetStream, as a server embedded
// in this process that keeps its state in a folder and opens no port ([Open]), or as a
// broker or cluster that many processes share, an [engine.Fleet] ([Connect]).
//
// # Layout
//
//	stream MYRMIDON    myr.job.<run>.<lane>.<name>     fresh jobs
//	                   myr.retry.<run>.<lane>.<name>   jobs to be tried again, not before a time
//	                   myr.held.<run>.<lane>.<name>    jobs of paused runs
//	                   myr.plan.<run>.<phase>.<shard>  cursors; the last one of a subject counts
//	                   myr.event.<run>                 the log
//	bucket MYRMIDON-BLOBS    snapshots, parked jobs, reports
//	bucket MYRMIDON-RUNS     a fleet's runs: leases and orders
//	bucket MYRMIDON-WORKERS  a fleet's workers; entries live for a minute
//	subjects myr.post.>      questions to owners and workers; not stored
//
// A lane is <workload>.<version>.<long|short>; each has two consumers, for fresh jobs and
// for retries. All that is stored for a run is in one stream because an atomic batch
// cannot span two: a slice with its cursor and its event, a failure's event with the next
// attempt. The stream has limits retention: a work-queue stream would write on every
// acknowledgement. A run's subjects are purged when it ends.
//
// # Promises
//
// What Commit and Set have answered survives what the [Durability] says. A batch is
// stored whole or not at all (Nats-Batch-* headers, ADR-50 of the NATS project; at most
// 1,000 messages). Commits of many callers that wait for the same write share one batch,
// so that with [Power] a thousand of them cost one fsync. Acknowledgements are hints and
// may be lost with the process.
//
// An embedded server is spoken to over connections within the process: one of the client
// library's, and two of our own for what passes in numbers (see pipe).
//
// An embedded server's consumers are made anew behind what was acknowledged, so that jobs
// which a dead process held come again at once instead of when their lease ends.
//
// # Needs
//
// A shared broker must be NATS 2.12 or later with JetStream. An account needs to publish
// and subscribe to myr.>, $JS.API.>, $JS.ACK.>, $KV.MYRMIDON-*.> and _INBOX.>.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"myrmidon"
	"myrmidon/engine"
)

// Durability is what survives.
type Durability string

// The levels, each of which includes those before it.
const (
	Process Durability = "process" // a killed process: written, not synced
	Second  Durability = "second"  // a power cut, but for the last second
	Power   Durability = "power"   // a power cut: synced before the answer
)

// levels are the levels in order.
var levels = []Durability{Process, Second, Power}

// ParseDurability reads a level's name.
func ParseDurability(s string) (Durability, error) {
	for _, d := range levels {
		if string(d) == s {
			return d, nil
		}
	}
	return "", myrmidon.WithHint(fmt.Errorf("durability %q is not known", s), "use process, second or power")
}

const (
	streamName    = "MYRMIDON"
	blobsName     = "MYRMIDON-BLOBS"
	runsBucket    = "MYRMIDON-RUNS"
	workersBucket = "MYRMIDON-WORKERS"

	jobs    = "myr.job."
	retries = "myr.retry."
	held    = "myr.held."
	plans   = "myr.plan."
	events  = "myr.event."
	post    = "myr.post."

	waitHeader      = "Myrmidon-Wait"
	notBeforeHeader = "Myrmidon-Not-Before"

	// requestTimeout bounds one exchange with the server; longer means that it is stuck,
	// for example on a full disk, or out of reach.
	requestTimeout = 15 * time.Second
	// electionTimeout is requestTimeout where another server takes over from one that died
	// with the question: it elects in seconds.
	electionTimeout = 5 * time.Second
	defaultLease    = 30 * time.Second
)

// Backend is an engine.Backend on JetStream, and an engine.Fleet after Connect.
type Backend struct {
	lease    time.Duration
	log      *slog.Logger
	where    string         // for people
	embedded *server.Server // nil where the server is not ours
	lock     func() error   // releases the folder of an embedded server
	replicas int            // of streams that are made
	patience time.Duration  // with one exchange
	priority bool           // consumers rank the workers that wait
	level    Durability     // of the broker
	conn     *nats.Conn
	pulls    *line // of jobs, and acknowledgements
	stores   *line // of batches
	link     *link
	js       jetstream.JetStream
	stream   jetstream.Stream
	blobs    jetstream.KeyValue
	runs     jetstream.KeyValue // of a fleet
	workers  jetstream.KeyValue // of a fleet
	closing  context.Context
	stop     context.CancelFunc
	close    func() error

	commits *committer
	mu      sync.Mutex
	lanes   map[laneKey]*lane
	making  sync.Mutex
	warned  time.Time // when it was last said that the broker does not answer
}

var _ engine.Fleet = (*Backend)(nil)

func newBackend(lease time.Duration, log *slog.Logger) *Backend {
	if lease == 0 {
		lease = defaultLease
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{lease: lease, log: log, lanes: make(map[laneKey]*lane), replicas: 1, patience: requestTimeout, link: newLink()}
	b.closing, b.stop = context.WithCancel(context.Background())
	b.close = sync.OnceValue(b.shutdown)
	return b
}

// smallStream is the limit that our own server's stream is made with, and is taken off at
// once: a stream that may be of this size is stored in files of 4 MiB instead of 8. The
// server keeps in memory what it wrote into files during the last 10 s.
const smallStream = 16 << 20

// use prepares what a connection needs: the stream, the blobs and the gathering of commits.
func (b *Backend) use(ctx context.Context, conn *nats.Conn) (err error) {
	b.conn = conn
	if b.embedded == nil {
		b.pulls = &line{wire: library{conn}}
		b.stores = b.pulls
	}
	if b.js, err = jetstream.New(conn, jetstream.WithDefaultTimeout(requestTimeout)); err != nil {
		return err
	}
	cfg := jetstream.StreamConfig{
		Name:               streamName,
		Subjects:           []string{jobs + ">", retries + ">", held + ">", plans + ">", events + ">"},
		Replicas:           b.replicas,
		AllowAtomicPublish: true,
		AllowDirect:        true,
	}
	if b.embedded != nil {
		cfg.MaxBytes = smallStream
	}
	b.stream, err = b.js.CreateStream(ctx, cfg)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		b.stream, err = b.js.Stream(ctx, streamName)
		if err == nil && !b.stream.CachedInfo().Config.AllowAtomicPublish {
			err = myrmidon.WithHint(fmt.Errorf("stream %s exists and does not allow atomic batches", streamName),
				"it was made by another program: rename it, or give myrmidon an account of its own")
		}
	}
	if err == nil && b.embedded != nil && b.stream.CachedInfo().Config.MaxBytes > 0 {
		cfg.MaxBytes = -1
		b.stream, err = b.js.UpdateStream(ctx, cfg)
	}
	if err != nil {
		return err
	}
	if b.embedded == nil {
		if _, err := b.blobBucket(ctx, true); err != nil {
			return err
		}
	}
	if b.commits == nil { // else this is another try
		b.commits = newCommitter(b)
	}
	return nil
}

// bucket opens a bucket of keys and values, or makes it.
func (b *Backend) bucket(ctx context.Context, name string, ttl time.Duration) (jetstream.KeyValue, error) {
	kv, err := b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, Replicas: b.replicas, TTL: ttl})
	if errors.Is(err, jetstream.ErrBucketExists) {
		return b.js.KeyValue(ctx, name)
	}
	return kv, err
}

// blobBucket returns the bucket of blobs. A run that parks nothing and is short has none:
// making it takes a third of an embedded server's start. Without make it is nil then.
func (b *Backend) blobBucket(ctx context.Context, make bool) (jetstream.KeyValue, error) {
	b.making.Lock()
	defer b.making.Unlock()
	if b.blobs != nil {
		return b.blobs, nil
	}
	var err error
	if make {
		b.blobs, err = b.bucket(ctx, blobsName, 0)
	} else if b.blobs, err = b.js.KeyValue(ctx, blobsName); errors.Is(err, jetstream.ErrBucketNotFound) {
		b.blobs, err = nil, nil
	}
	return b.blobs, err
}

// Close ends the connection and, if it is ours, the server, and waits for both.
func (b *Backend) Close() error { return b.close() }

func (b *Backend) shutdown() error {
	b.stop()
	if b.commits != nil {
		b.commits.wait()
	}
	if b.conn != nil {
		if b.pulls != nil {
			// Acknowledgements are published without waiting; give them their chance.
			_ = b.pulls.flush(time.Second) // a closed connection has nothing to flush
			if b.embedded != nil && b.stream != nil {
				b.takenIn()
			}
		}
		b.conn.Close()
	}
	if b.embedded != nil {
		b.embedded.Shutdown()
		b.embedded.WaitForShutdown()
	}
	if b.lock != nil {
		return b.lock()
	}
	return nil
}

// explain adds what a person can do to errors that come from the server.
func (b *Backend) explain(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case b.embedded == nil && (errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, nats.ErrStreamNotFound)):
		return b.gone()
	case b.embedded == nil:
		return fmt.Errorf("engine: broker %s: %w", b.where, err)
	case errors.As(err, &api) && (api.ErrorCode == storageExceeded || api.Code == 500), // the store failed
		errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders), errors.Is(err, errNoAnswer):
		return myrmidon.WithHint(fmt.Errorf("engine: the queue in %s cannot store: %w", b.where, err),
			"is its disk full? Free some space and run myrmidon runs resume, or choose another folder with --state")
	}
	return fmt.Errorf("engine: queue in %s: %w", b.where, err)
}

// Codes of the server's errors (server/errors.json of the NATS server).
const (
	wrongLastSequence         = 10071
	wrongLastSequenceConstant = 10164
	storageExceeded           = 10047
	incompleteBatch           = 10176
	tooManyBatches            = 10210
	noPeers                   = 10005 // also while a cluster's servers get to know each other
)

// passing reports whether an error may be gone by itself: the broker restarts, elects a
// leader, or cannot be reached. Whether what was sent is stored is then not known.
func passing(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code == 503 || api.Code == 500 || api.ErrorCode == incompleteBatch || api.ErrorCode == tooManyBatches || api.ErrorCode == noPeers || api.ErrorCode == storageExceeded
	}
	for _, e := range []error{
		nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
		nats.ErrStaleConnection, jetstream.ErrNoStreamResponse, context.DeadlineExceeded, errNoAnswer,
		context.Canceled, // what waited for an answer when the connection broke; callers look at their own contexts first
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// persist calls try until it succeeds or fails for good. A broker that many share is
// waited for as long as ctx and the backend last; an embedded server's errors are final.
func (b *Backend) persist(ctx context.Context, what string, try func(context.Context) error) error {
	return b.insist(ctx, what, func() error {
		once, cancel := context.WithTimeout(ctx, b.patience)
		defer cancel()
		return b.link.within(once, try)
	})
}

// insist is persist for what bounds its own time and watches the connection itself.
func (b *Backend) insist(ctx context.Context, what string, try func() error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := try()
		if err == nil || b.embedded != nil || !passing(err) || ctx.Err() != nil {
			return b.explain(err)
		}
		if lost := b.lost(ctx, err); lost != nil {
			return lost
		}
		b.warn(what, err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return b.explain(err)
		case <-b.closing.Done():
			return b.explain(err)
		}
	}
}

// lost returns an error if the broker answers and yet has no stream of ours any more.
func (b *Backend) lost(ctx context.Context, err error) error {
	if !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := b.js.Stream(ctx, streamName); errors.Is(err, jetstream.ErrStreamNotFound) {
		return b.gone()
	}
	return nil
}

// gone is the error of a broker that has forgotten what it stored.
func (b *Backend) gone() error {
	return myrmidon.WithHint(fmt.Errorf("engine: broker %s has no stream %s any more", b.where, streamName),
		"it was restarted with an empty store folder, or the stream was deleted; start the runs anew")
}

// warn says, every ten seconds at most, that the broker does not answer.
func (b *Backend) warn(what string, err error) {
	b.mu.Lock()
	quiet := time.Since(b.warned) < 10*time.Second
	if !quiet {
		b.warned = time.Now()
	}
	b.mu.Unlock()
	if !quiet {
		b.log.Warn("the broker does not answer, trying again", "broker", b.where, "to", what, "err", err)
	}
}
