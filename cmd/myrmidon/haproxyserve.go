package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"myrmidon"
	"myrmidon/haproxy"
)

// tokenVariable holds the token of serve: on a command line, everybody could read it.
const tokenVariable = "MYRMIDON_HAPROXY_TOKEN"

type serveFlags struct {
	haproxyFlags
	listen    string
	every     time.Duration
	cert, key string
	breakdown bool
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve TARGET...",
		Short: "Serve the statistics over HTTP: /metrics, /stats.json, /stats.csv, /healthz",
		Long: `Poll all targets at even intervals and serve what the last poll found:

  /metrics     for Prometheus, with the names of HAProxy's own exporter
  /stats.json  time, targets and rows as one document
  /stats.csv   in the shape of "show stat"
  /healthz     200 if the last poll reached all targets, 503 and why if not

Counters never go back: not when processes restart, are reloaded or cannot be reached. --type,
--match and --fields bound what is served; ?type=, ?match=, ?fields=, ?sort= and ?top= choose
within that. --breakdown adds each process to /metrics, with the label "process" and the labels of
--targets, in place of the merged rows.

On other addresses than loopback, a token is asked for (` + tokenVariable + ` in the environment,
sent as "Authorization: Bearer TOKEN"; /healthz needs none), or TLS by --tls-cert and --tls-key, or
both: a token alone crosses the network in the clear.
` + targetsHelp,
		Example: `  myrmidon haproxy serve --listen 127.0.0.1:9101 /run/haproxy/*.sock
  ` + tokenVariable + `=$(cat token) myrmidon haproxy serve --listen :9101 --tls-cert c.pem --tls-key k.pem /run/haproxy/*.sock`,
		Args: args(cobra.ArbitraryArgs),
		RunE: func(c *cobra.Command, in []string) error { return a.serveStats(c.Context(), &f, in) },
	}
	fl := c.Flags()
	f.source(fl)
	f.rows(fl)
	f.columns(fl)
	fl.StringVar(&f.listen, "listen", "127.0.0.1:9101", "address to listen at")
	fl.DurationVar(&f.every, "every", time.Second, "the interval of polls")
	fl.StringVar(&f.cert, "tls-cert", "", "PEM file with the certificate and its chain")
	fl.StringVar(&f.key, "tls-key", "", "PEM file with its key")
	fl.BoolVar(&f.breakdown, "breakdown", false, "each process for itself in /metrics")
	return c
}

// loopback reports whether an address to listen at is reached from this machine only.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (a *app) serveStats(ctx context.Context, f *serveFlags, in []string) error {
	filter, err := f.filter()
	if err != nil {
		return err
	}
	if f.every < 10*time.Millisecond {
		return usage(fmt.Errorf("--every %v: 10ms at least", f.every))
	}
	if (f.cert == "") != (f.key == "") {
		return usage(errors.New("--tls-cert and --tls-key belong together"))
	}
	token := os.Getenv(tokenVariable)
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return usage(fmt.Errorf("--listen %s: %w: write host:port", f.listen, err))
	}
	if !loopback(f.listen) && token == "" && f.cert == "" {
		return usage(myrmidon.WithHint(fmt.Errorf("--listen %s: others can reach this address, so a token or TLS is needed", f.listen),
			"set "+tokenVariable+" in the environment, or --tls-cert and --tls-key; or listen at 127.0.0.1"))
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	p, collector, err := f.open(ctx, in, haproxy.Config{KeepProcesses: f.breakdown, Window: watchWindow(f.every)})
	if err != nil {
		return err
	}
	defer collector.Close()
	a.hasBegun()
	for _, m := range p.missing {
		a.complain(m)
	}
	listener, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	s := &statsServer{flags: f, filter: filter, collector: collector, token: sha256.Sum256([]byte(token)), guarded: token != ""}
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	scheme := "http"
	if f.cert != "" {
		scheme = "https"
	}
	poll := &poller{pool: p, collector: collector, every: f.every, complain: a.complain}
	s.keep(p, poll.poll(ctx)) // so that the first request finds something
	go func() {
		if f.cert != "" {
			ended <- server.ServeTLS(listener, f.cert, f.key)
			return
		}
		ended <- server.Serve(listener)
	}()
	fmt.Fprintf(a.screen, "serving %s://%s/metrics\n", scheme, listener.Addr())
	polls := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		polls <- poll.run(ctx, func(err error) (bool, error) {
			s.keep(p, err)
			return true, nil
		})
	}()
	select {
	case err = <-ended: // it could not go on
		cancel()
		<-polls
		return err
	case <-ctx.Done():
	}
	<-polls
	// What is under way may end.
	last, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	if err := server.Shutdown(last); err != nil {
		server.Close()
	}
	<-ended
	return nil
}

// statsServer answers requests from the last snapshot.
type statsServer struct {
	flags     *serveFlags
	filter    haproxy.Filter
	collector *haproxy.Collector
	token     [sha256.Size]byte
	guarded   bool
	last      atomic.Pointer[served]
}

// served is what the last poll left beside its snapshot.
type served struct {
	pool pool
	at   time.Time
	err  error
}

func (s *statsServer) keep(p *pool, err error) {
	s.last.Store(&served{pool: *p, at: time.Now(), err: err})
}

func (s *statsServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.guard(s.metrics))
	mux.Handle("GET /stats.json", s.guard(s.json))
	mux.Handle("GET /stats.csv", s.guard(s.csv))
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "myrmidon haproxy serve: /metrics /stats.json /stats.csv /healthz")
	})
	return mux
}

// guard asks for the token.
func (s *statsServer) guard(next func(r *http.Request, out *bytes.Buffer) (contentType string, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.guarded {
			given, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			// Hashes have one length, so that time tells nothing about the token's.
			sum := sha256.Sum256([]byte(given))
			if subtle.ConstantTimeCompare(sum[:], s.token[:]) != 1 {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "a token is needed: Authorization: Bearer TOKEN", http.StatusUnauthorized)
				return
			}
		}
		// Into memory first: a slow reader must not hold up the next poll.
		var out bytes.Buffer
		contentType, err := next(r, &out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
		w.Write(out.Bytes()) // who went away is not told
	})
}

// choose makes the view that flags and query ask for.
func (s *statsServer) choose(r *http.Request, v *haproxy.View) error {
	q := r.URL.Query()
	list := func(name string) []string {
		var out []string
		for _, x := range q[name] {
			out = append(out, strings.Split(x, ",")...)
		}
		return out
	}
	asked := haproxyFlags{types: list("type"), match: list("match")}
	filter, err := asked.filter()
	if err != nil {
		return err
	}
	t := v.Table
	within := v.Rows[:0]
	for _, i := range v.Rows {
		if filter.Takes(t.Type(i).String(), string(t.Proxy(i)), string(t.Server(i))) {
			within = append(within, i)
		}
	}
	v.Rows = within
	v.Fields = fieldsOf(t, s.flags.fields)
	if fields := list("fields"); len(fields) > 0 {
		for _, name := range fields {
			if t.Column(name) < 0 || len(v.Fields) > 0 && !slices.Contains(v.Fields, name) {
				return fmt.Errorf("there is no field %q here", name)
			}
		}
		v.Fields = fields
	}
	if key := q.Get("sort"); key != "" {
		if err := v.Sort(key); err != nil {
			return err
		}
	}
	if top := q.Get("top"); top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 0 {
			return fmt.Errorf("top=%s: a number is needed", top)
		}
		v.Top(n)
	}
	return nil
}

// use calls f with the last snapshot and the view that is asked for.
func (s *statsServer) use(r *http.Request, f func(*haproxy.Snapshot, *haproxy.View) error) (err error) {
	s.collector.Use(func(snap *haproxy.Snapshot) {
		v := snap.Table.View(s.filter)
		if snap.Table.Len() > 0 {
			if err = s.choose(r, v); err != nil {
				return
			}
		}
		err = f(snap, v)
	})
	return err
}

func (s *statsServer) csv(r *http.Request, out *bytes.Buffer) (string, error) {
	return "text/csv; charset=utf-8", s.use(r, func(snap *haproxy.Snapshot, v *haproxy.View) error {
		if snap.Table.Len() == 0 {
			return nil
		}
		return v.WriteCSV(out)
	})
}

// targetJSON is how a target answered.
type targetJSON struct {
	Name      string            `json:"name"`
	Up        bool              `json:"up"`
	Error     string            `json:"error,omitempty"`
	Seconds   float64           `json:"seconds"`
	Labels    map[string]string `json:"labels,omitempty"`
	Processes []processJSON     `json:"processes,omitempty"`
}

type processJSON struct {
	PID      int64  `json:"pid"`
	Node     string `json:"node,omitempty"`
	Version  string `json:"version,omitempty"`
	Uptime   int64  `json:"uptime"`
	Stopping bool   `json:"stopping,omitempty"`
}

func targetsJSON(snap *haproxy.Snapshot, p *pool) []targetJSON {
	out := []targetJSON{}
	for i := range snap.Targets {
		t := &snap.Targets[i]
		x := targetJSON{Name: t.Name, Up: t.Err == nil, Seconds: t.Took.Seconds(), Labels: p.labels[t.Name]}
		if t.Err != nil {
			x.Error = t.Err.Error()
		}
		for _, q := range t.Processes {
			x.Processes = append(x.Processes, processJSON{q.PID, q.Node, q.Version, q.Uptime, q.Stopping})
		}
		out = append(out, x)
	}
	for _, err := range p.missing {
		out = append(out, targetJSON{Error: err.Error()})
	}
	return out
}

func (s *statsServer) json(r *http.Request, out *bytes.Buffer) (string, error) {
	last := s.last.Load()
	return "application/json", s.use(r, func(snap *haproxy.Snapshot, v *haproxy.View) error {
		rows := []json.RawMessage{}
		if snap.Table.Len() > 0 {
			var lines bytes.Buffer
			if err := v.WriteJSON(&lines); err != nil {
				return err
			}
			for line := range bytes.Lines(lines.Bytes()) {
				rows = append(rows, line)
			}
		}
		return json.NewEncoder(out).Encode(struct {
			Time    time.Time         `json:"time"`
			Targets []targetJSON      `json:"targets"`
			Rows    []json.RawMessage `json:"rows"`
		}{snap.Time.UTC(), targetsJSON(snap, &last.pool), rows})
	})
}

func (s *statsServer) metrics(r *http.Request, out *bytes.Buffer) (string, error) {
	last := s.last.Load()
	err := s.use(r, func(snap *haproxy.Snapshot, v *haproxy.View) error {
		writeTargets(out, targetsJSON(snap, &last.pool))
		if snap.Table.Len() == 0 {
			return nil
		}
		list := []part{{view: v}}
		if s.flags.breakdown {
			list = parts(&last.pool, snap, s.filter, true)
			for _, x := range list {
				if err := s.choose(r, x.view); err != nil {
					return err
				}
			}
		}
		return haproxy.WritePrometheus(out, promParts(list)...)
	})
	return "text/plain; version=0.0.4; charset=utf-8", err
}

// writeTargets writes which targets answered, and how fast: what is missing must show.
func writeTargets(out *bytes.Buffer, targets []targetJSON) {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	for _, m := range []struct {
		name  string
		value func(t *targetJSON) float64
	}{
		{"myrmidon_haproxy_target_up", func(t *targetJSON) float64 { return float64(btoi(t.Up)) }},
		{"myrmidon_haproxy_target_seconds", func(t *targetJSON) float64 { return t.Seconds }},
	} {
		fmt.Fprintf(out, "# TYPE %s gauge\n", m.name)
		for i := range targets {
			if t := &targets[i]; t.Name != "" {
				fmt.Fprintf(out, "%s{target=\"%s\"} %s\n", m.name, escape.Replace(strings.ToValidUTF8(t.Name, "?")), strconv.FormatFloat(m.value(t), 'g', -1, 64))
			}
		}
	}
}

// health is 200 if the last poll reached all targets a short time ago.
func (s *statsServer) health(w http.ResponseWriter, _ *http.Request) {
	last := s.last.Load()
	answer := struct {
		Status  string   `json:"status"`
		Targets int      `json:"targets"`
		Failed  []string `json:"failed,omitempty"`
		Age     float64  `json:"age_seconds"`
	}{Status: "ok", Age: round(time.Since(last.at).Seconds())}
	s.collector.Use(func(snap *haproxy.Snapshot) {
		answer.Targets = len(snap.Targets) + len(last.pool.missing)
		for _, err := range last.pool.failures(snap) {
			answer.Failed = append(answer.Failed, err.Error())
		}
	})
	status := http.StatusOK
	switch {
	case time.Since(last.at) > 3*s.flags.every+2*s.flags.timeout:
		answer.Status, status = "stale", http.StatusServiceUnavailable
	case last.err != nil:
		answer.Status, status = "down", http.StatusServiceUnavailable
	case len(answer.Failed) > 0:
		answer.Status, status = "partial", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer) // who went away is not told
}
