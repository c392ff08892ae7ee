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
	"errors"
	"fmt"
	"log/slog"
	"os"
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
	runsStream      = "RUNS"
	retryStream     = "RETRY"
	blobBucket      = "BLOBS"
	consumer        = "workers"
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
		MaxDeliver:    -1, // deliveries are not attempts: a pause or a sleeping machine costs some
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
