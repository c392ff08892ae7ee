package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"myrmidon/internal/logs"
	"myrmidon/internal/notify"
	"myrmidon/internal/pattern"
	"myrmidon/internal/wire"
	"myrmidon/object"
)

const (
	// webhookToken holds the token of webhooks: on a command line, everybody could read it.
	webhookToken = "MYRMIDON_WEBHOOK_TOKEN"
	// lateNames is how much older an object's name may be than the object: one that came
	// later than that, a copy for instance, is not found. Folders of days before are not
	// listed.
	lateNames = 7 * 24 * time.Hour
)

// followFlags are of --follow alone.
type followFlags struct {
	follow       bool
	every, stats time.Duration
	status       string
	webhook      string
	cert, key    string
	topics       []string
}

func (f *followFlags) add(fl *pflag.FlagSet, c *cobra.Command) {
	fl.BoolVar(&f.follow, "follow", false, "go on with what comes, until a signal: sources are prefixes or folders, listed again and again, queues of S3's notifications (sqs://sqs.REGION.amazonaws.com/ACCOUNT/NAME) and webhooks that take them (webhook://127.0.0.1:8080/path); NAME=SOURCE names one")
	fl.DurationVar(&f.every, "every", 30*time.Second, "with --follow: how often a prefix is listed")
	fl.DurationVar(&f.stats, "stats", time.Minute, "with --follow: how often progress is told on stderr (with --json, the summary so far), and the file of --status written")
	fl.StringVar(&f.status, "status", "", "with --follow: file that holds the summary so far, with the state of each source, as JSON")
	fl.StringVar(&f.webhook, "webhook", "", "with --expect: URL that gets a POST of JSON when there is no line so new; with --follow, when no line comes any more, and when lines come again")
	fl.StringVar(&f.cert, "tls-cert", "", "with webhook:// sources: PEM file with the certificate and its chain")
	fl.StringVar(&f.key, "tls-key", "", "with webhook:// sources: PEM file with its key")
	fl.StringSliceVar(&f.topics, "sns-topic", nil, "with webhook:// sources: ARN of a topic of SNS that may subscribe and send; may be given again")
	mustComplete(c.RegisterFlagCompletionFunc("sns-topic", cobra.NoFileCompletions))
	mustComplete(c.RegisterFlagCompletionFunc("webhook", cobra.NoFileCompletions))
}

// checkFollow says what is wrong with the flags.
func (f *followFlags) checkFollow() error {
	for _, d := range []struct {
		flag string
		is   time.Duration
	}{{"every", f.every}, {"stats", f.stats}} {
		if d.is < time.Second {
			return usage(fmt.Errorf("--%s %v: a second at least", d.flag, d.is))
		}
	}
	if (f.cert == "") != (f.key == "") {
		return usage(errors.New("--tls-cert and --tls-key belong together"))
	}
	return nil
}

// onlyFollowing refuses flags that do nothing without --follow.
func onlyFollowing(fl *pflag.FlagSet) error {
	for _, name := range []string{"every", "stats", "status", "sns-topic", "tls-cert", "tls-key"} {
		if fl.Changed(name) && !fromEnvironment(name) {
			return usage(fmt.Errorf("--%s is for --follow: without it the source is read once", name))
		}
	}
	return nil
}

// fromEnvironment reports whether a flag's variable is set: it is for many commands, and means
// nothing to some.
func fromEnvironment(flag string) bool { return os.Getenv(variableOf(flag)) != "" }

// follows reports whether sources can only be followed.
func follows(in []string) bool {
	for _, source := range in {
		_, address := nameOf(source)
		if strings.HasPrefix(address, "sqs://") || strings.HasPrefix(address, "webhook://") {
			return true
		}
	}
	return false
}

var namedSource = pattern.Of(`^([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)$`)

// nameOf tells NAME=SOURCE apart; a source without a name is called by its address.
func nameOf(source string) (name, address string) {
	if m := namedSource().FindStringSubmatch(source); m != nil {
		return m[1], m[2]
	}
	return bare(source), source
}

// expectation is for how long no line may come, of all sources or of some.
type expectation struct {
	all time.Duration
	by  map[string]time.Duration
}

// parseExpect reads DURATION and NAME=DURATION.
func parseExpect(in []string) (e expectation, err error) {
	e.by = make(map[string]time.Duration)
	for _, text := range in {
		name, value := "", text
		if i := strings.LastIndexByte(text, '='); i >= 0 {
			name, value = text[:i], text[i+1:]
		}
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return e, usage(fmt.Errorf("--expect %s: a duration such as 10m, or NAME=10m for one source", text))
		}
		if name == "" {
			e.all = d
		} else {
			e.by[name] = d
		}
	}
	return e, nil
}

// logFeed is a source that is followed, with what is known of it.
type logFeed struct {
	name    string
	source  string       // its address
	address logs.Address // of a prefix
	feed    *notify.Feed
	count   *logs.SourceCount
	expect  time.Duration // 0: nothing is
	failing atomic.Bool   // and that was told
	quiet   atomic.Bool   // likewise
}

// sources reads the arguments.
func (f *shipFlags) sources(ctx context.Context, in []string) (out []*logFeed, err error) {
	expect, err := parseExpect(f.expect)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, text := range in {
		s := new(logFeed)
		s.name, s.source = nameOf(text)
		if names[s.name] {
			return nil, usage(fmt.Errorf("two sources are called %s: NAME=SOURCE names one", s.name))
		}
		names[s.name] = true
		s.expect = expect.all
		if d, ok := expect.by[s.name]; ok {
			s.expect = d
		}
		if !follows([]string{s.source}) {
			if s.address, err = logSource(ctx, s.source); err != nil {
				var exit *exitError
				if errors.As(err, &exit) || wire.IsLocal(s.source) {
					return nil, err
				} // else its listing says so, and is tried again
			}
			if s.address.Single {
				return nil, usage(fmt.Errorf("%s is one object: --follow needs a prefix, a queue or a webhook", s.source))
			}
		}
		out = append(out, s)
	}
	for name := range expect.by {
		if !names[name] {
			return nil, usage(fmt.Errorf("--expect %s=…: no source is called that", name))
		}
	}
	return out, nil
}

// openSource makes a source's feed.
func (n *following) openSource(ctx context.Context, cfg notify.Config, s *logFeed) (err error) {
	dir := filepath.Join(n.dir, shortHash(s.source))
	switch {
	case strings.HasPrefix(s.source, "sqs://"):
		if s.feed, err = cfg.Queue(ctx, s.source); err != nil {
			return usage(err)
		}
	case strings.HasPrefix(s.source, "webhook://"):
		s.feed, err = cfg.Webhook(notify.WebhookConfig{
			Address: s.source, Dir: filepath.Join(n.events(), shortHash(s.source)), Token: os.Getenv(webhookToken),
			Cert: n.f.cert, Key: n.f.key, Topics: n.f.topics, NotIts: logs.OfDestination,
			GiveUp: func(ctx context.Context, o notify.Object, why error) error { return n.giveUp(ctx, s, o, why) },
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(n.screen, "myrmidon: taking events at %s\n", s.feed)
		if left := s.feed.Stats().Waiting; left > 0 {
			fmt.Fprintf(n.screen, "myrmidon: %s left here before, to be shipped now\n", plural(left, "event"))
		}
	default:
		if err = os.MkdirAll(dir, 0o700); err == nil {
			s.feed, err = n.listing(cfg, s, dir)
		}
		if err != nil {
			return err
		}
	}
	s.count = logs.NewSourceCount(s.name, s.feed.String())
	return nil
}

// events is the folder in which webhooks' events wait, a folder each. They are of their webhooks
// alone: they were answered, so whatever --to is when they are shipped, nobody sends them again.
func (n *following) events() string { return filepath.Join(filepath.Dir(n.dir), "events") }

// listing makes the feed of a prefix or folder.
func (n *following) listing(cfg notify.Config, s *logFeed, dir string) (*notify.Feed, error) {
	store, err := wire.Bucket(s.address.Source)
	if err != nil {
		return nil, err
	}
	return cfg.Listing(notify.ListingConfig{
		Name: s.address.Base, File: filepath.Join(dir, "seen.json"), Every: n.f.every, Start: n.spec.Filter.Since,
		List: func(ctx context.Context, after time.Time, fn func(object.Info) error) error {
			return listArrived(ctx, store, after, time.Now(), fn)
		},
	})
}

// restOfFile is for how long a file of a followed folder has to be as it is before it is read: one
// that grows is another version each time, whose lines have other IDs. It is less than what a
// listing looks at again.
const restOfFile = 2 * time.Second

// listArrived calls fn with what may have come to a store since a time, but for files that are
// being written now.
func listArrived(ctx context.Context, store object.Store, after, now time.Time, fn func(object.Info) error) error {
	_, files := store.(object.Local)
	return logs.List(ctx, notify.Arrived(store), logs.Filter{Since: after.Add(-lateNames)}, func(o object.Info) error {
		if age := now.Sub(o.Modified); files && age >= 0 && age < restOfFile {
			return nil
		}
		return fn(o)
	})
}

// shortHash names a folder by what it is of.
func shortHash(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:8])
}
