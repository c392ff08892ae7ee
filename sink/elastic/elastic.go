// Package elastic delivers records to Elasticsearch or OpenSearch by the bulk API: [Sink] is a
// sink.Sink.
//
// # What is promised
//
// Each record is created under its ID, once: a record that comes again is answered with 409,
// which counts as taken (and in [Stats].Doubles). So what is sent at least once is there once.
// A record without an ID gets one from the server, and may be there twice. An answer that names
// no result for a record, and each status but 2xx, is a failure:
//
//	of a record:   429 and 5xx are sent again, other 4xx (a mapping error) are permanent
//	of a request:  408, 429 and 5xx are sent again, after Retry-After; 413 is halved; 400 is
//	               halved until it is one record's fault; other statuses are permanent
//
// Where all records are refused because the index is missing or forbidden, the error is one of
// the whole batch, and permanent: no thousand records are parked for a wrong password.
//
// [Sink.Groups] and [Sink.Count] count what is there.
//
// # What it needs
//
// The privilege create_doc on the index (and auto_configure where it is to be made by the first
// record); a data stream does as well. Counting needs read and view_index_metadata, and
// maintenance for [Sink.Refresh]. The secrets come from the environment:
// ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD.
//
// Source: Elasticsearch reference, "Bulk API"; OpenSearch documentation, "Bulk".
package elastic

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/sink"
)

const (
	// maxID is how long an _id may be, bytes (Elasticsearch reference, "_id field"). A
	// longer ID is replaced by its hash.
	maxID = 512
	// pushedBack is the least pause after a record or a request was pushed back.
	pushedBack = time.Second
	// maxAnswer bounds what is read of an answer: a thousand records have 100 KB.
	maxAnswer = 64 << 20
)

// Config says which index, and how. All but URL and Index may be zero.
type Config struct {
	URL   string // http://host:9200 or https://host, maybe with a path before the index
	Index string // an index, an alias or a data stream

	// APIKey, or Username and Password, are taken from the environment if all are "".
	APIKey, Username, Password string

	// Plain sends requests that are not packed with gzip.
	Plain bool
	// Timeout bounds a request, answer included: 90 s if 0. Elasticsearch itself waits
	// for a minute.
	Timeout time.Duration
	// TLS is what connections are made with; nil means the system's authorities.
	TLS *tls.Config
	// Counted says that documents are only counted. Index may then be a pattern, such as
	// logstash-*, and Send is refused.
	Counted bool
}

// Sink delivers to an index. See [New].
type Sink struct {
	cfg    Config
	target string // the URL of requests
	name   string
	auth   string
	client *http.Client
	pool   sync.Pool // of *memory
	closed atomic.Bool

	requests, doubles, records atomic.Uint64
}

// Stats counts from the beginning.
type Stats struct {
	Requests uint64 `json:"requests"`
	Created  uint64 `json:"created"` // records that were stored
	Doubles  uint64 `json:"doubles"` // records that were there before
}

// New returns the sink of an index. It sends nothing. Errors are permanent, and repeat no
// secret.
func New(cfg Config) (*Sink, error) {
	u, err := url.Parse(cfg.URL)
	var why string
	never, names := `/\*?"<>| ,#`, `/ \ * ? " < > | , # and space`
	if cfg.Counted {
		never, names = `/\?"<>| #`, `/ \ ? " < > | # and space`
	}
	switch {
	case err != nil:
		why = "it is not a URL"
	case u.User != nil || strings.Contains(cfg.URL, "@"):
		why = "it holds a user name or a password"
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		why = "it is not http://host:port or https://host"
	case u.RawQuery != "" || u.Fragment != "":
		why = "it has a query"
	case cfg.Index == "" || strings.ContainsAny(cfg.Index, never) || strings.HasPrefix(cfg.Index, "_") || cfg.Index != strings.ToLower(cfg.Index):
		why = fmt.Sprintf("%.100q is not the name of an index: those are of lower case and have none of %s", cfg.Index, names)
	}
	if why != "" {
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("elastic: this address cannot be used: %s", why),
			"an address is https://host:9200/index; the secrets come from ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD"))
	}
	if cfg.APIKey == "" && cfg.Username == "" && cfg.Password == "" {
		cfg.APIKey = os.Getenv("ELASTICSEARCH_API_KEY")
		cfg.Username, cfg.Password = os.Getenv("ELASTICSEARCH_USERNAME"), os.Getenv("ELASTICSEARCH_PASSWORD")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 90*time.Second)
	base := strings.TrimSuffix(u.String(), "/") + "/" + url.PathEscape(cfg.Index)
	s := &Sink{cfg: cfg, name: base, target: base + "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"}
	switch {
	case cfg.APIKey != "":
		s.auth = "ApiKey " + cfg.APIKey
	case cfg.Username != "" || cfg.Password != "":
		r := http.Request{Header: make(http.Header)}
		r.SetBasicAuth(cfg.Username, cfg.Password)
		s.auth = r.Header.Get("Authorization")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = cfg.TLS
	transport.MaxIdleConnsPerHost = 16
	transport.DisableCompression = true // of answers
	s.client = &http.Client{
		Transport: transport, Timeout: cfg.Timeout,
		// A redirect would send a GET, or the secret to elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// String returns the address of the index.
func (s *Sink) String() string { return s.name }

// Traits are the sizes that Elastic's own clients begin with.
func (*Sink) Traits() sink.Traits { return sink.Traits{Records: 2000, Bytes: 5 << 20} }

// Stats returns the counts of this moment.
func (s *Sink) Stats() Stats {
	return Stats{Requests: s.requests.Load(), Created: s.records.Load(), Doubles: s.doubles.Load()}
}

// Close ends the connections.
func (s *Sink) Close() error {
	s.closed.Store(true)
	s.client.CloseIdleConnections()
	return nil
}

// Send creates the records. See the package for what is tried again.
func (s *Sink) Send(ctx context.Context, records []sink.Record) error {
	if s.closed.Load() {
		return sink.ErrClosed
	}
	if s.cfg.Counted {
		return myrmidon.Permanent(fmt.Errorf("elastic: %s was opened to be counted: nothing can be sent to it", s.name))
	}
	good, at, refused := sink.Sort(records, sink.Check)
	return sink.Merge(len(records), at, refused, s.send(ctx, good))
}

// send sends as many requests as the records need.
func (s *Sink) send(ctx context.Context, records []sink.Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("elastic: send to %s: %w", s.name, err)
	}
	size := func(r sink.Record) int { return len(r.Data) + len(r.ID) + 32 }
	return sink.InParts(records, size, s.Traits(), func(part []sink.Record) ([]sink.Failed, error) { return s.part(ctx, part) })
}

// part sends one request, and halves of it where that is what a refusal asks for.
func (s *Sink) part(ctx context.Context, records []sink.Record) ([]sink.Failed, error) {
	failed, err := s.request(ctx, records)
	var halve *tooMuch
	if !errors.As(err, &halve) {
		return failed, err
	}
	if len(records) == 1 {
		return []sink.Failed{{Index: 0, Err: myrmidon.Permanent(fmt.Errorf("elastic: record %.100q of %d bytes: %w", records[0].ID, len(records[0].Data), err))}}, nil
	}
	middle := len(records) / 2
	failed, err = s.part(ctx, records[:middle])
	if err != nil {
		return nil, err // what was stored of it is a double the next time
	}
	more, err := s.part(ctx, records[middle:])
	if err != nil {
		return nil, err
	}
	for _, f := range more {
		failed = append(failed, sink.Failed{Index: middle + f.Index, Err: f.Err})
	}
	return failed, nil
}

// tooMuch is the refusal of a request that may be taken in parts.
type tooMuch struct{ err error }

func (e *tooMuch) Error() string { return e.err.Error() }

// memory is what a request is made in.
type memory struct {
	body   bytes.Buffer
	zip    *gzip.Writer
	action []byte
}

// encode writes the lines of a request.
func (m *memory) encode(records []sink.Record, plain bool) ([]byte, error) {
	m.body.Reset()
	var w io.Writer = &m.body
	if !plain {
		if m.zip == nil {
			m.zip, _ = gzip.NewWriterLevel(&m.body, gzip.BestSpeed) // a level that there is
		} else {
			m.zip.Reset(&m.body)
		}
		w = m.zip
	}
	for _, r := range records {
		id := r.ID
		if len(id) > maxID {
			sum := sha256.Sum256([]byte(id))
			id = hex.EncodeToString(sum[:])
		}
		b := m.action[:0]
		if id == "" {
			b = append(b, `{"create":{}}`...)
		} else {
			quoted, err := json.Marshal(id)
			if err != nil {
				return nil, err
			}
			b = append(append(append(b, `{"create":{"_id":`...), quoted...), "}}"...)
		}
		b = append(b, '\n')
		b = append(append(b, r.Data...), '\n')
		m.action = b
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
	}
	if !plain {
		if err := m.zip.Close(); err != nil {
			return nil, err
		}
	}
	return m.body.Bytes(), nil
}

// request sends one request. It returns the records that were not taken, or an error for all.
func (s *Sink) request(ctx context.Context, records []sink.Record) ([]sink.Failed, error) {
	m, _ := s.pool.Get().(*memory)
	if m == nil {
		m = new(memory)
	}
	body, err := m.encode(records, s.cfg.Plain)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.target, bytes.NewReader(body))
	if err != nil {
		return nil, myrmidon.Permanent(fmt.Errorf("elastic: %s: %w", s.name, err))
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if !s.cfg.Plain {
		req.Header.Set("Content-Encoding", "gzip")
	}
	if s.auth != "" {
		req.Header.Set("Authorization", s.auth)
	}
	s.requests.Add(1)
	resp, err := s.client.Do(req)
	if err != nil {
		// The transport may still read body, so m is not used again.
		return nil, s.broken(ctx, err)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, s.broken(ctx, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, s.refused(resp, answer)
	}
	s.pool.Put(m)
	return s.results(records, answer)
}

// broken is the error of a request without an answer.
func (s *Sink) broken(ctx context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // which does not repeat the URL
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	err = fmt.Errorf("elastic: send to %s: %w", s.name, err)
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) {
		return myrmidon.Permanent(myrmidon.WithHint(err, "trust the server's authority with SSL_CERT_FILE, or ?ca=FILE in the address"))
	}
	return err
}

// problem is how Elasticsearch explains a refusal.
type problem struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
}

func (p problem) String() string {
	if p.Type == "" {
		return "no reason given"
	}
	return fmt.Sprintf("%s: %.300s", p.Type, p.Reason)
}

// refused is the error of a request whose answer is not 2xx.
func (s *Sink) refused(resp *http.Response, answer []byte) error {
	var said struct {
		Error problem `json:"error"`
	}
	if json.Unmarshal(answer, &said) != nil { // a proxy's page, or {"error":"text"}
		said.Error = problem{}
	}
	err := fmt.Errorf("elastic: %s answers %d: %s", s.name, resp.StatusCode, said.Error)
	switch code := resp.StatusCode; {
	case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge:
		return &tooMuch{err}
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		return myrmidon.RetryAfter(err, after(resp.Header.Get("Retry-After")))
	case code >= 500 || code == http.StatusRequestTimeout:
		return err
	}
	return s.hinted(resp.StatusCode, err)
}

// hinted marks what no other attempt cures, and says what may.
func (s *Sink) hinted(code int, err error) error {
	hint := "look at the address: is it that of Elasticsearch or OpenSearch?"
	switch code {
	case http.StatusUnauthorized:
		hint = "set ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD"
	case http.StatusForbidden:
		hint = "give the user or key the privilege create_doc on the index (auto_configure to make it); is it write-protected?"
	case http.StatusNotFound:
		hint = "make the index or data stream, or allow it to be made (action.auto_create_index)"
	}
	return myrmidon.Permanent(myrmidon.WithHint(err, hint))
}

// after reads a Retry-After header.
func after(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return min(max(time.Duration(n)*time.Second, pushedBack), time.Hour)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), pushedBack), time.Hour)
	}
	return pushedBack
}

// results reads what has become of each record.
func (s *Sink) results(records []sink.Record, answer []byte) ([]sink.Failed, error) {
	var said struct {
		Items []struct {
			Create struct {
				Status int     `json:"status"`
				Error  problem `json:"error"`
			} `json:"create"`
		} `json:"items"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return nil, fmt.Errorf("elastic: %s answers what is no answer to a bulk request: %w", s.name, err)
	}
	if len(said.Items) != len(records) {
		return nil, fmt.Errorf("elastic: %s answers with %d results for %d records", s.name, len(said.Items), len(records))
	}
	var failed []sink.Failed
	var created, doubles uint64
	missing := 0 // records that were refused because of the index
	for i, item := range said.Items {
		code := item.Create.Status
		err := fmt.Errorf("elastic: record %.100q is answered with %d: %s", records[i].ID, code, item.Create.Error)
		switch {
		case code >= 200 && code < 300:
			created++
			continue
		case code == http.StatusConflict:
			doubles++
			continue
		case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
			err = myrmidon.RetryAfter(err, pushedBack)
		case code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusNotFound:
			missing++
			err = s.hinted(code, err)
		case code >= 400 && code < 500:
			err = myrmidon.Permanent(err)
		}
		failed = append(failed, sink.Failed{Index: i, Err: err})
	}
	s.records.Add(created)
	s.doubles.Add(doubles)
	if missing == len(records) {
		return nil, failed[0].Err
	}
	return failed, nil
}
