package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"myrmidon"
	"myrmidon/internal/filelock"
)

// Config says how to open an embedded backend. The zero value of each field but Dir is
// the default.
type Config struct {
	Dir        string        // folder of the state; made if missing
	Durability Durability    // default Process
	Lease      time.Duration // of a pulled job; default 30 s
	Log        *slog.Logger  // the server's warnings; default: none
}

const startTimeout = 20 * time.Second

// Open starts a server on cfg.Dir and opens the backend. A folder that another process has
// open is refused: two servers on one store lose messages.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	if cfg.Durability == "" {
		cfg.Durability = Process
	}
	b := newBackend(cfg.Lease, cfg.Log)
	b.where, b.level = cfg.Dir, cfg.Durability
	conn, err := b.start(cfg)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := b.use(ctx, conn); err != nil {
		return nil, errors.Join(b.explain(err), b.Close())
	}
	if err := b.mend(ctx); err != nil {
		return nil, errors.Join(b.explain(err), b.Close())
	}
	return b, nil
}

// mend removes the first part of a batch whose rest a power cut has taken: the server
// writes the messages of a batch one after the other, and after a crash it can finish only
// what it had staged. Such a batch was never answered, unless the cut took more than the
// durability promises to keep. A batch is visible when it is whole, and the server ended
// with the process, so only the last one can be torn.
func (b *Backend) mend(ctx context.Context) error {
	torn, removed := "", 0
	for {
		msg, err := b.last(ctx, "myr.>")
		if errors.Is(err, errNotThere) {
			break
		}
		if err != nil {
			return fmt.Errorf("look for a batch that was cut off: %w", err)
		}
		if len(msg.Headers) == 0 {
			break
		}
		h, err := nats.DecodeHeadersMsg(msg.Headers)
		if err != nil {
			return fmt.Errorf("read message %d: %w", msg.Sequence, err)
		}
		id := h.Get(batchID)
		if torn == "" && h.Get(batchCommit) == "" {
			torn = id
		}
		if torn == "" || id != torn {
			break
		}
		if err := b.stream.DeleteMsg(ctx, msg.Sequence); err != nil {
			return fmt.Errorf("remove message %d of a batch that was cut off: %w", msg.Sequence, err)
		}
		removed++
	}
	if removed > 0 {
		b.log.Warn("the last batch was cut off by a crash; what was left of it is removed", "folder", b.where, "messages", removed)
	}
	return nil
}

// start locks the folder and starts the server on it.
func (b *Backend) start(cfg Config) (*nats.Conn, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, myrmidon.WithHint(fmt.Errorf("engine: make state folder: %w", err), "choose another folder with --state")
	}
	var err error
	if b.lock, err = lockFolder(cfg.Dir); err != nil {
		return nil, err
	}
	opts := &server.Options{
		ServerName: "myrmidon",
		DontListen: true,
		JetStream:  true,
		StoreDir:   cfg.Dir,
		NoSigs:     true,
		// Each acknowledgement has a subject of its own: a cache of subjects only costs.
		NoSublistCache: true,
		// The default bound is a share of the free disk at start; ours is the disk.
		JetStreamMaxStore:  1 << 50,
		JetStreamMaxMemory: 64 << 20,
		JetStreamLimits:    server.JSLimitOpts{MaxBatchSize: embeddedBatch},
	}
	switch cfg.Durability {
	case Second:
		opts.SyncInterval = time.Second
	case Power:
		opts.SyncAlways = true
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("engine: start queue in %s: %w", cfg.Dir, err)
	}
	b.embedded = srv
	srv.SetLoggerV2(serverLog{b.log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) || !srv.JetStreamEnabled() {
		return nil, myrmidon.WithHint(fmt.Errorf("engine: the queue in %s did not start within %v", cfg.Dir, startTimeout),
			"look at the folder's permissions and free space, or choose another with --state")
	}
	// Two, since the server fits the size of what it reads at a time to what came before,
	// and stored jobs are larger than acknowledgements.
	for name, l := range map[string]**line{"pulls": &b.pulls, "stores": &b.stores} {
		end, err := srv.InProcessConn()
		if err != nil {
			return nil, fmt.Errorf("engine: connect to the embedded queue: %w", err)
		}
		p, err := openPipe(name, end, b.link.down)
		if err != nil {
			return nil, fmt.Errorf("engine: connect to the embedded queue: %w", err)
		}
		*l = &line{wire: p}
	}
	conn, err := nats.Connect("", nats.InProcessServer(srv), nats.NoReconnect())
	if err != nil {
		return nil, fmt.Errorf("engine: connect to the embedded queue: %w", err)
	}
	return conn, nil
}

// lockFolder makes this process the only one that serves dir, until unlock or its end.
func lockFolder(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, "server.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, myrmidon.WithHint(fmt.Errorf("engine: lock the queue: %w", err), "choose a folder that you may write to with --state")
	}
	err = filelock.Take(f)
	if err == nil {
		return func() error { return filelock.Close(f) }, nil
	}
	f.Close()
	if errors.Is(err, filelock.ErrHeld) {
		return nil, myrmidon.WithHint(fmt.Errorf("engine: the queue in %s is open in another process", dir),
			"two servers on one folder lose messages: wait until the other ends, or choose another folder with --state")
	}
	return nil, fmt.Errorf("engine: lock %s: %w", path, err)
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
