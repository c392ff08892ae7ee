package jetstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"myrmidon"
	"myrmidon/engine"
)

// Remote says how to reach a broker. The zero value of each field but URL is the default.
type Remote struct {
	URL         string // one or more, separated by commas: nats://host:4222, tls://host:4222
	Name        string // of this process, for the broker's own listings
	Credentials string // file with a user's JWT and key (nsc makes it)
	User        string
	Password    string
	Token       string
	CA          string // file of the certificates to trust, instead of the system's
	Cert, Key   string // files of a client's certificate and its key
	// Durability is the least that the broker must advertise; "" takes what it does.
	Durability Durability
	// Replicas is how many of the broker's servers keep each stream that is made: 1, 3 or
	// 5. 0 means 3 where the broker is a cluster of three or more, else 1.
	Replicas int
	Lease    time.Duration // of a pulled job; default 30 s
	Log      *slog.Logger
}

// minServer is the release of the NATS server that has atomic batches and prioritized
// pulls (its release notes of 2.12.0).
var minServer = [2]int{2, 12}

// durabilityKey is where the broker's durability is advertised.
const durabilityKey = "cluster/durability"

// Connect opens the backend on a broker that others share. Once it has answered, it is
// waited for when it is gone: it may restart, or elect another leader.
func Connect(ctx context.Context, cfg Remote) (*Backend, error) {
	b := newBackend(cfg.Lease, cfg.Log)
	b.where, b.priority = display(cfg.URL), true
	conn, err := b.dial(cfg)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.conn = conn
	if err := b.join(ctx, conn, cfg); err != nil {
		return nil, errors.Join(b.explainConnect(err), b.Close())
	}
	if err := b.checkDurability(ctx, cfg.Durability); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// display is an address, or several with commas between them, without the secrets that it
// may hold: whatever its user wrote, only a scheme and a host that can be read are shown.
func display(addresses string) string {
	var out []string
	for a := range strings.SplitSeq(addresses, ",") {
		scheme, rest, ok := strings.Cut(strings.TrimSpace(a), "://")
		if !ok {
			scheme, rest = "", scheme
		} else {
			scheme += "://"
		}
		rest = rest[strings.LastIndex(rest, "@")+1:] // what is before are name and password
		rest, _, _ = strings.Cut(rest, "?")
		rest, _, _ = strings.Cut(rest, "/")
		if _, err := url.Parse("nats://" + rest); err != nil {
			rest = "(no address)"
		}
		out = append(out, scheme+rest)
	}
	return strings.Join(out, ",")
}

// checkAddress refuses what the client library could not read, and would repeat in full
// with its secrets.
func checkAddress(addresses string) error {
	for a := range strings.SplitSeq(addresses, ",") {
		a = strings.TrimSpace(a)
		if !strings.Contains(a, "://") {
			a = "nats://" + a
		}
		if u, err := url.Parse(a); err != nil || u.Hostname() == "" {
			return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("engine: broker %s: the address cannot be read", display(a)),
				"is the address right? It is nats://host:4222 or tls://host:4222; in a user's name or password, write signs other than letters and digits as %40 (for @)"))
		}
	}
	return nil
}

func (b *Backend) dial(cfg Remote) (*nats.Conn, error) {
	if err := checkAddress(cfg.URL); err != nil {
		return nil, err
	}
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(5 * time.Second),
		// What could not be sent is sent again by whoever knows whether it still should be.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			b.link.down()
			if err != nil && b.closing.Err() == nil {
				b.log.Warn("the connection to the broker broke, trying again", "broker", b.where, "err", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			b.link.again()
			b.log.Info("connected to the broker again", "broker", b.where)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			b.log.Warn("broker", "broker", b.where, "subject", subject, "err", err)
		}),
	}
	for _, f := range []struct{ path, what string }{
		{cfg.Credentials, "credentials"}, {cfg.CA, "certificates to trust"}, {cfg.Cert, "certificate"}, {cfg.Key, "key"},
	} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			return nil, myrmidon.WithHint(fmt.Errorf("engine: file of the broker's %s: %w", f.what, err), "check the path and its permissions")
		}
	}
	if (cfg.Cert == "") != (cfg.Key == "") {
		return nil, myrmidon.WithHint(errors.New("engine: a client's certificate needs its key, and a key its certificate"), "name both: --nats-cert and --nats-key")
	}
	if cfg.Credentials != "" {
		opts = append(opts, nats.UserCredentials(cfg.Credentials))
	}
	if cfg.User != "" {
		opts = append(opts, nats.UserInfo(cfg.User, cfg.Password))
	}
	if cfg.Token != "" {
		opts = append(opts, nats.Token(cfg.Token))
	}
	if cfg.CA != "" {
		opts = append(opts, nats.RootCAs(cfg.CA))
	}
	if cfg.Cert != "" {
		opts = append(opts, nats.ClientCert(cfg.Cert, cfg.Key))
	}
	conn, err := nats.Connect(cfg.URL, opts...)
	if err != nil {
		return nil, b.explainConnect(err)
	}
	return conn, nil
}

// explainConnect says what a person can do about a broker that cannot be used.
func (b *Backend) explainConnect(err error) error {
	if myrmidon.Hint(err) != "" {
		return err
	}
	hint := "is it running, and is the address right? Start one with: nats-server -js"
	text := strings.ToLower(err.Error())
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrPermissionViolation),
		strings.Contains(text, "authorization"), strings.Contains(text, "nkey"), strings.Contains(text, "user jwt"):
		hint = "name the user with MYRMIDON_NATS_USER and MYRMIDON_NATS_PASSWORD, a token with MYRMIDON_NATS_TOKEN, or a credentials file with --nats-creds"
	case errors.Is(err, nats.ErrSecureConnWanted):
		hint = "it does not offer TLS: configure it to, or write nats:// in the address"
	case strings.Contains(text, "client certificate"):
		hint = "look at the files of --nats-cert and --nats-key: both hold PEM"
	case errors.Is(err, nats.ErrSecureConnRequired), strings.Contains(text, "x509"), strings.Contains(text, "tls"):
		hint = "use tls:// in the address, and name the certificates to trust with --nats-ca"
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		hint = "start the broker with JetStream: nats-server -js"
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		err = fmt.Errorf("JetStream does not answer: %w", err)
		hint = "start the broker with JetStream: nats-server -js; a cluster needs more than half of its servers"
	}
	return myrmidon.WithHint(fmt.Errorf("engine: broker %s: %w", b.where, err), hint)
}

// join makes what a fleet needs on the broker, or finds it.
func (b *Backend) join(ctx context.Context, conn *nats.Conn, cfg Remote) error {
	if v := conn.ConnectedServerVersion(); tooOld(v) {
		return myrmidon.WithHint(fmt.Errorf("the server is NATS %s", v), "2.12 or later is needed, for atomic batches")
	}
	b.replicas = cfg.Replicas
	if b.replicas == 0 {
		b.replicas = 1
		if conn.ConnectedClusterName() != "" && len(conn.Servers()) >= 3 {
			b.replicas = 3
		}
	}
	if b.replicas > 1 {
		b.patience = electionTimeout
	}
	// A server that has just started, or a cluster without a leader, answers a little later.
	wait := 20 * time.Second
	if here, _ := conn.ConnectedServerJetStream(); !here {
		wait = 2 * time.Second // for another server of its cluster
	}
	deadline := time.Now().Add(wait)
	for patience := b.patience; ; patience = min(2*patience, requestTimeout) {
		err := b.layout(ctx, conn, patience)
		if err == nil || !passing(err) || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		b.warn("open the streams", err)
		time.Sleep(250 * time.Millisecond)
	}
}

// layout makes the stream and the buckets, or finds them. Each step has that patience: a cluster
// whose routes are being made can lose the answer to a step that was done, and one that has much to
// do takes long.
func (b *Backend) layout(ctx context.Context, conn *nats.Conn, patience time.Duration) error {
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return b.use(ctx, conn) },
		func(ctx context.Context) (err error) { b.runs, err = b.bucket(ctx, runsBucket, 0); return err },
		func(ctx context.Context) (err error) {
			b.workers, err = b.bucket(ctx, workersBucket, time.Minute)
			return err
		},
	} {
		once, cancel := context.WithTimeout(ctx, patience)
		err := step(once)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func tooOld(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false // a build without a release
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && slices.Compare([]int{major, minor}, minServer[:]) < 0
}

// checkDurability reads what the broker advertises and refuses less than is asked for.
func (b *Backend) checkDurability(ctx context.Context, want Durability) error {
	b.level = Process // what an unconfigured server does: it syncs every two minutes
	e, err := b.Entry(ctx, durabilityKey)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if b.level, err = ParseDurability(string(e.Value)); err != nil {
			return fmt.Errorf("engine: broker %s advertises: %w", b.where, err)
		}
	}
	if want != "" && slices.Index(levels, want) > slices.Index(levels, b.level) {
		return myrmidon.WithHint(fmt.Errorf("engine: broker %s advertises durability %q, and %q is asked for", b.where, b.level, want),
			"configure its servers (jetstream { sync_interval: always } for power, 1s for second), then say so: myrmidon cluster --advertise "+string(want))
	}
	return nil
}

// Advertise says to all who use the broker what its servers are configured for.
func (b *Backend) Advertise(ctx context.Context, d Durability) error {
	e, err := b.Entry(ctx, durabilityKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = b.Put(ctx, durabilityKey, []byte(d), e.Revision)
	if err == nil {
		b.level = d
	}
	return err
}

// Durability implements engine.Fleet.
func (b *Backend) Durability() string { return string(b.level) }

// Where implements engine.Fleet.
func (b *Backend) Where() string { return b.where }

// bucketOf returns the bucket that holds an entry.
func (b *Backend) bucketOf(key string) jetstream.KeyValue {
	if strings.HasPrefix(key, "worker/") {
		return b.workers
	}
	return b.runs
}

// Entry implements engine.Registry.
func (b *Backend) Entry(ctx context.Context, key string) (out engine.Entry, err error) {
	kv := b.bucketOf(key)
	var stored time.Time
	err = b.persist(ctx, "read "+key, func(ctx context.Context) error {
		// The leader is asked: a lease must not be read from a replica that is behind.
		msg, err := b.lastIn(ctx, "KV_"+kv.Bucket(), "$KV."+kv.Bucket()+"."+kvKey(key))
		if err == nil {
			out = engine.Entry{Key: key, Value: msg.Data, Revision: msg.Sequence}
			stored = msg.Time
		}
		return err
	})
	if err == nil {
		var now time.Time
		now, err = b.serverTime(ctx, "KV_"+kv.Bucket())
		out.Age = max(now.Sub(stored), 0)
	}
	if errors.Is(err, errNotThere) {
		return engine.Entry{}, fmt.Errorf("engine: entry %s: %w", key, fs.ErrNotExist)
	}
	return out, err
}

// Put implements engine.Registry.
func (b *Backend) Put(ctx context.Context, key string, value []byte, rev uint64) (next uint64, err error) {
	if err := engine.CheckBlob(key, value); err != nil {
		return 0, err
	}
	kv := b.bucketOf(key)
	try := 0
	err = b.persist(ctx, "store "+key, func(ctx context.Context) (err error) {
		try++
		if rev == 0 {
			next, err = b.create(ctx, kv, key, value)
		} else {
			next, err = kv.Update(ctx, kvKey(key), value, rev)
		}
		if try > 1 && conflict(err) {
			// The first try may have been stored without our hearing of it.
			if e, eerr := b.Entry(ctx, key); eerr == nil && string(e.Value) == string(value) {
				next, err = e.Revision, nil
			}
		}
		return err
	})
	if conflict(err) {
		return 0, fmt.Errorf("%w: %s", engine.ErrConflict, key)
	}
	return next, err
}

// create stores an entry that there is none of. Of one that was forgotten a marker is left, which
// the leader is asked for: the client library's Create asks any replica, and takes one that is
// behind, or that does not answer, for an entry that is there.
func (b *Backend) create(ctx context.Context, kv jetstream.KeyValue, key string, value []byte) (uint64, error) {
	next, err := kv.Update(ctx, kvKey(key), value, 0)
	if !conflict(err) {
		return next, err
	}
	last, lastErr := b.lastIn(ctx, "KV_"+kv.Bucket(), "$KV."+kv.Bucket()+"."+kvKey(key))
	switch {
	case errors.Is(lastErr, errNotThere) && last != nil:
		return kv.Update(ctx, kvKey(key), value, last.Sequence)
	case errors.Is(lastErr, errNotThere): // the marker has expired since
		return kv.Update(ctx, kvKey(key), value, 0)
	case lastErr != nil:
		return 0, lastErr
	}
	return next, err
}

func conflict(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) ||
		errors.As(err, &api) && (api.ErrorCode == wrongLastSequence || api.ErrorCode == wrongLastSequenceConstant)
}

// Forget implements engine.Registry.
func (b *Backend) Forget(ctx context.Context, key string) error {
	return b.persist(ctx, "forget "+key, func(ctx context.Context) error { return b.bucketOf(key).Purge(ctx, kvKey(key)) })
}

// Entries implements engine.Registry.
func (b *Backend) Entries(ctx context.Context, prefix string) (out []engine.Entry, err error) {
	kv := b.bucketOf(prefix)
	now, err := b.serverTime(ctx, "KV_"+kv.Bucket())
	if err != nil {
		return nil, err
	}
	err = b.current(ctx, kv, prefix, func(e jetstream.KeyValueEntry) error {
		out = append(out, engine.Entry{Key: fromKV(e.Key()), Value: e.Value(), Revision: e.Revision(), Age: max(now.Sub(e.Created()), 0)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(x, y engine.Entry) int { return strings.Compare(x.Key, y.Key) })
	return out, nil
}

// serverTime asks the broker what time it is: its entries carry its own time.
func (b *Backend) serverTime(ctx context.Context, stream string) (now time.Time, err error) {
	err = b.persist(ctx, "read", func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, stream)
		if err == nil {
			now = s.CachedInfo().TimeStamp
		}
		return err
	})
	return now, err
}

// Tell implements engine.Post.
func (b *Backend) Tell(_ context.Context, topic string, data []byte) error {
	err := b.conn.Publish(post+topic, data)
	if err != nil && passing(err) {
		return nil // it may be lost
	}
	return b.explain(err)
}

// Ask implements engine.Post.
func (b *Backend) Ask(ctx context.Context, topic string, data []byte) ([]byte, error) {
	// Who listened a moment ago may be gone without a word.
	once, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var res *nats.Msg
	err := b.link.within(once, func(ctx context.Context) (err error) {
		res, err = b.conn.RequestWithContext(ctx, post+topic, data)
		return err
	})
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, engine.ErrNobody
	}
	if err != nil {
		return nil, b.explain(err)
	}
	return res.Data, nil
}

// Answer implements engine.Post.
func (b *Backend) Answer(topic string, fn func([]byte) []byte) (stop func(), err error) {
	sub, err := b.conn.Subscribe(post+topic, func(m *nats.Msg) {
		answer := fn(m.Data)
		if m.Reply != "" {
			if err := m.Respond(answer); err != nil {
				b.log.Warn("could not answer", "topic", topic, "err", err)
			}
		}
	})
	if err != nil {
		return nil, b.explain(err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // the connection may be closed
}

// Standing is what a broker says of itself.
type Standing struct {
	Broker     string   `json:"broker"`
	Servers    []string `json:"servers"`
	Version    string   `json:"version"`
	Durability string   `json:"durability"`
	Replicas   int      `json:"replicas"` // of each message
	Leader     string   `json:"leader,omitempty"`
	Current    int      `json:"current,omitempty"` // replicas that are not behind
	Messages   uint64   `json:"messages"`
	Bytes      uint64   `json:"bytes"`
}

// Standing asks the broker how it stands.
func (b *Backend) Standing(ctx context.Context) (Standing, error) {
	out := Standing{Broker: b.where, Version: b.conn.ConnectedServerVersion(), Durability: string(b.level), Current: 1}
	for _, s := range b.conn.Servers() {
		out.Servers = append(out.Servers, display(s))
	}
	info, err := b.stream.Info(ctx)
	if err != nil {
		return out, b.explain(err)
	}
	out.Replicas, out.Messages, out.Bytes = info.Config.Replicas, info.State.Msgs, info.State.Bytes
	if info.Cluster != nil {
		out.Leader = info.Cluster.Leader
		for _, r := range info.Cluster.Replicas {
			if r.Current {
				out.Current++
			}
		}
	}
	return out, nil
}
