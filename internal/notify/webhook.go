package notify

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"myrmidon"
)

const (
	// maxEvent bounds a request: SNS sends 256 KiB at most, MinIO one event.
	maxEvent = 1 << 20
	// mostEvents is how many events are kept that are not done.
	mostEvents = 10_000
	// fullAgain is when a sender is asked to try again if no more are kept.
	fullAgain = 30 * time.Second
	// mostRequests is how many requests are read at once.
	mostRequests = 64
	// lastRequests is how long requests under way have when nothing more is taken.
	lastRequests = 5 * time.Second
)

// WebhookConfig says where events are posted. All but Address and Dir may be zero.
type WebhookConfig struct {
	// Address is webhook://HOST:PORT/PATH.
	Address string
	// Dir is the folder in which events are kept, of this webhook alone: DIR.lock beside it says
	// whose it is.
	Dir string
	// Token is what a sender has to show, as a bearer token or as the password of basic
	// authentication, which is what SNS has. Beyond loopback there has to be one.
	Token string
	// Cert and Key are PEM files for TLS.
	Cert, Key string
	// Topics are ARNs of the topics of SNS that may send and subscribe.
	Topics []string
	// Most is how many events are kept that are not done; 10,000 if 0. Half of them are warned of.
	Most int
	// GiveUp keeps elsewhere what is known of an object that could not be done for Patience, a
	// day if 0; its event is forgotten then, or else would keep its place for ever. Where it returns
	// an error the event stays. Without GiveUp all stay.
	GiveUp   func(ctx context.Context, o Object, why error) error
	Patience time.Duration
	// NotIts reports whether an error of [Do] is not the object's own, as when no object can be
	// delivered now: nothing is given up for it. nil: all are the objects' own.
	NotIts func(error) bool
}

// webhook is a server that a feed follows.
type webhook struct {
	cfg      WebhookConfig
	at, path string
	token    [sha256.Size]byte
	listener net.Listener // until it is served
	spool    *spool
	topics   topics
	requests chan struct{} // has room for those that are read
	filling  atomic.Bool   // and that was told
}

// Webhook returns a feed of the events that are posted to an address, and listens there. An
// event is on disk before it is answered, and objects are worked on from there: SNS waits 15 s
// for an answer, a destination may be away for a night. An event that waits and comes again is
// kept once. 503 with Retry-After says that too many wait, 400 that a request is no
// notification; what was right in it is kept nevertheless. Errors of the address are permanent.
func (c Config) Webhook(cfg WebhookConfig) (*Feed, error) {
	refuse := func(why string) error {
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("this address of a webhook cannot be used: %s", why),
			"an address is webhook://127.0.0.1:8080/path"))
	}
	u, err := url.Parse(cfg.Address)
	if err != nil || u.Scheme != "webhook" || u.Port() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, refuse("it is not webhook://HOST:PORT/PATH")
	}
	if (cfg.Cert == "") != (cfg.Key == "") {
		return nil, refuse("TLS needs a certificate and its key")
	}
	if !loopback(u.Hostname()) && cfg.Token == "" {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s: others can reach this address, so a token is needed", cfg.Address),
			"set MYRMIDON_WEBHOOK_TOKEN in the environment; or listen at 127.0.0.1"))
	}
	h := &webhook{cfg: cfg, at: u.Host, path: u.Path, token: sha256.Sum256([]byte(cfg.Token)), requests: make(chan struct{}, mostRequests)}
	if h.path == "" {
		h.path = "/"
	}
	if h.topics, err = newTopics(cfg.Topics); err != nil {
		return nil, err
	}
	if h.cfg.Most == 0 {
		h.cfg.Most = mostEvents
	}
	if h.cfg.Patience == 0 {
		h.cfg.Patience = patience
	}
	if cfg.Cert != "" { // a wrong one is told now; it is read anew when it is served
		if _, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key); err != nil {
			return nil, err
		}
	}
	if h.listener, err = net.Listen("tcp", h.at); err != nil {
		return nil, err
	}
	if h.spool, err = openSpool(cfg.Dir, cfg.Address, h.cfg.Most); err != nil {
		return nil, errors.Join(err, h.listener.Close())
	}
	scheme := "http"
	if cfg.Cert != "" {
		scheme = "https"
	}
	c.Log.Info("events are taken", "url", scheme+"://"+h.listener.Addr().String()+h.path)
	h.at = h.listener.Addr().String() // the port, if that was 0
	return c.feed("webhook://"+h.at+h.path, h), nil
}

// loopback reports whether a host is reached from this machine only.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func (h *webhook) waiting() int64 { return h.spool.waiting() }

func (h *webhook) end() error { return h.spool.close() } // the folder knows what is left

func (h *webhook) follow(f *Feed) (err error) {
	if h.listener == nil {
		if h.listener, err = net.Listen("tcp", h.at); err != nil {
			return err
		}
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.answer(f, w, r) }),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 30 * time.Second,
		ErrorLog: slog.NewLogLogger(f.cfg.Log.Handler(), slog.LevelWarn),
	}
	listener := limit(h.listener, MostConnections)
	h.listener = nil
	ended := make(chan error, 1)
	go func() {
		if h.cfg.Cert != "" {
			ended <- server.ServeTLS(listener, h.cfg.Cert, h.cfg.Key)
			return
		}
		ended <- server.Serve(listener)
	}()
	f.well()
	h.fills(f)
	for {
		select {
		case e := <-h.spool.ready:
			if err := f.slot(); err != nil {
				h.spool.ready <- e
				continue // it stays on disk
			}
			f.calls.Go(func() { h.work(f, e) })
		case err := <-ended:
			return err
		case <-f.taking.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(f.working), lastRequests)
			defer stop()
			if server.Shutdown(last) != nil {
				_ = server.Close() // whoever is cut off sends again
			}
			<-ended
			return nil
		}
	}
}

// allowed reports whether a request shows the token.
func (h *webhook) allowed(r *http.Request) bool {
	if h.cfg.Token == "" {
		return true
	}
	given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		_, given, _ = r.BasicAuth()
	}
	// Hashes have one length, so that time tells nothing about the token's.
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], h.token[:]) == 1
}

// answer answers a request.
func (h *webhook) answer(f *Feed, w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != h.path:
		refuse(w, "nothing is here", http.StatusNotFound)
		return
	case r.Header.Get("Origin") != "":
		refuse(w, "pages in browsers have nothing to tell", http.StatusForbidden)
		return
	case !h.allowed(r):
		w.Header().Set("WWW-Authenticate", `Basic realm="myrmidon"`) // SNS looks for it
		refuse(w, "a token is needed: Authorization: Bearer TOKEN, or the password of basic authentication", http.StatusUnauthorized)
		return
	case r.Method == http.MethodHead || r.Method == http.MethodGet: // MinIO asks whether we are there
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "events are posted", http.StatusMethodNotAllowed)
		return
	}
	select {
	case h.requests <- struct{}{}:
		defer func() { <-h.requests }()
	default:
		busy(w, "too many requests at once")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		f.strange()
		http.Error(w, "an event is smaller than this", http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, "the request was cut off", http.StatusBadRequest)
		return
	}
	status, text := h.take(f, r.Context(), body)
	switch status {
	case http.StatusOK:
	case http.StatusServiceUnavailable:
		busy(w, text)
	case http.StatusForbidden:
		refuse(w, text, status)
	default:
		http.Error(w, text, status)
	}
}

// refuse answers whoever may not send, and ends the connection: it would keep one of
// MostConnections.
func refuse(w http.ResponseWriter, text string, status int) {
	w.Header().Set("Connection", "close")
	http.Error(w, text, status)
}

// busy asks a sender to try again.
func busy(w http.ResponseWriter, text string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(fullAgain.Seconds())))
	http.Error(w, text, http.StatusServiceUnavailable)
}

// take keeps the events of a request, and says how it is answered.
func (h *webhook) take(f *Feed, ctx context.Context, body []byte) (status int, text string) {
	var sns snsMessage
	if json.Unmarshal(body, &sns) == nil && sns.Type != "" {
		if !slices.Contains(h.cfg.Topics, sns.TopicArn) {
			f.strange()
			f.cfg.Log.Warn("a topic sends that is not allowed: --sns-topic allows it", "source", f.name, "topic", sns.TopicArn, "type", sns.Type)
			return http.StatusForbidden, "this topic is not allowed"
		}
		switch sns.Type {
		case "SubscriptionConfirmation":
			if err := h.topics.confirm(ctx, sns); err != nil {
				f.cfg.Log.Warn("a subscription could not be confirmed", "source", f.name, "topic", sns.TopicArn, "err", err)
				return http.StatusBadGateway, "the subscription could not be confirmed"
			}
			f.cfg.Log.Info("a subscription is confirmed", "source", f.name, "topic", sns.TopicArn)
			return http.StatusOK, ""
		case "UnsubscribeConfirmation":
			f.cfg.Log.Warn("a subscription has ended", "source", f.name, "topic", sns.TopicArn)
			return http.StatusOK, ""
		}
	}
	objects, strange := Parse(body)
	for _, o := range objects {
		fresh, err := h.spool.keep(o)
		if err != nil {
			f.cfg.Log.Warn("an event is not taken for now", "source", f.name, "err", err)
			return http.StatusServiceUnavailable, "no more can be taken for now"
		}
		if fresh {
			f.told(1)
			f.over(1) // the folder is what counts
			h.fills(f)
		}
	}
	if strange != nil {
		f.strange()
		f.cfg.Log.Warn("a request is no notification", "source", f.name, "err", strange)
		return http.StatusBadRequest, strange.Error()
	}
	return http.StatusOK, ""
}
