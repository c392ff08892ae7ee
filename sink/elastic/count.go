package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"myrmidon"
)

const (
	// groupPage is how many groups one request asks for.
	groupPage = 1000
	// askAttempts is how often a question is asked that gets no answer, with pauses of a
	// second, two and four.
	askAttempts = 4
)

// Query chooses documents. The zero Query chooses all.
type Query struct {
	// Field and Prefix choose those whose field begins so, or is Prefix if Whole is set.
	// Field must be exact: see [Sink.Exact].
	Field, Prefix string
	Whole         bool
	// Since and Until choose those from Since on and before Until, by @timestamp. Dates in an
	// index have milliseconds: less is cut off.
	Since, Until time.Time
}

// Group is a value of a field, and how many documents have it.
type Group struct {
	Value     string
	Documents int64
}

// Refresh makes what was stored visible to [Sink.Groups] and [Sink.Count]. The error wraps
// [ErrDenied] if that is not allowed: what was stored lately may then be missing, for a second
// unless the index has another refresh_interval.
func (s *Sink) Refresh(ctx context.Context) error {
	var said struct {
		Shards shards `json:"_shards"`
	}
	if err := s.ask(ctx, http.MethodPost, "/_refresh", nil, &said); err != nil {
		return err
	}
	return said.Shards.whole(s.name)
}

// ErrDenied is wrapped by errors of questions that the index does not answer to this user.
var ErrDenied = errors.New("elastic: this user may not ask that")

// Exact returns the first of some fields that the index keeps as they are (keyword), in all
// its parts, also as a subfield: "object" may be "object.keyword". It returns "" if none is: a
// text is cut into words.
//
// Source: Elasticsearch reference, "Field capabilities API".
func (s *Sink) Exact(ctx context.Context, fields ...string) (string, error) {
	var said struct {
		Fields map[string]map[string]struct {
			Aggregatable bool `json:"aggregatable"`
		} `json:"fields"`
	}
	var query string
	for _, f := range fields {
		query += f + "," + f + ".keyword,"
	}
	if err := s.ask(ctx, http.MethodGet, "/_field_caps?fields="+query[:max(0, len(query)-1)], nil, &said); err != nil {
		return "", err
	}
	for _, f := range fields {
		for _, name := range []string{f, f + ".keyword"} {
			types := said.Fields[name]
			if k, ok := types["keyword"]; ok && k.Aggregatable && len(types) == 1 {
				return name, nil
			}
		}
	}
	return "", nil
}

// Groups yields the values of an exact field in the order of their bytes, with how many
// documents have each. It asks for a thousand at a time, so that it holds no more. Values that
// the index does not keep, as they are longer than its ignore_above, are not there.
//
// Source: Elasticsearch reference, "Composite aggregation".
func (s *Sink) Groups(ctx context.Context, field string, q Query) iter.Seq2[Group, error] {
	type key map[string]string
	return func(yield func(Group, error) bool) {
		var after key
		for {
			composite := map[string]any{
				"size":    groupPage,
				"sources": []any{map[string]any{"value": map[string]any{"terms": map[string]any{"field": field}}}},
			}
			if after != nil {
				composite["after"] = after
			}
			var said struct {
				answered
				Aggregations struct {
					Groups struct {
						After   key `json:"after_key"`
						Buckets []struct {
							Key       key   `json:"key"`
							Documents int64 `json:"doc_count"`
						} `json:"buckets"`
					} `json:"groups"`
				} `json:"aggregations"`
			}
			body := map[string]any{
				"size": 0, "track_total_hits": false, "query": q.body(),
				"aggs": map[string]any{"groups": map[string]any{"composite": composite}},
			}
			err := s.ask(ctx, http.MethodPost, "/_search?allow_partial_search_results=false", body, &said)
			if err == nil {
				err = said.whole(s.name)
			}
			if err != nil {
				yield(Group{}, err)
				return
			}
			page := said.Aggregations.Groups
			for _, b := range page.Buckets {
				if !yield(Group{b.Key["value"], b.Documents}, nil) {
					return
				}
			}
			if after = page.After; after == nil || len(page.Buckets) == 0 {
				return
			}
		}
	}
}

// Count returns how many documents there are.
func (s *Sink) Count(ctx context.Context, q Query) (int64, error) {
	var said struct {
		answered
		Count int64 `json:"count"`
	}
	err := s.ask(ctx, http.MethodPost, "/_count", map[string]any{"query": q.body()}, &said)
	if err == nil {
		err = said.whole(s.name)
	}
	return said.Count, err
}

// body is the query in Elasticsearch's language.
func (q Query) body() map[string]any {
	filters := []any{}
	if q.Field != "" {
		what := "prefix"
		if q.Whole {
			what = "term"
		}
		filters = append(filters, map[string]any{what: map[string]any{q.Field: q.Prefix}})
	}
	span := map[string]any{}
	const stamp = "2006-01-02T15:04:05.000Z"
	if !q.Since.IsZero() {
		span["gte"] = q.Since.UTC().Format(stamp)
	}
	if !q.Until.IsZero() {
		span["lt"] = q.Until.UTC().Format(stamp)
	}
	if len(span) > 0 {
		span["format"] = "strict_date_optional_time"
		filters = append(filters, map[string]any{"range": map[string]any{"@timestamp": span}})
	}
	return map[string]any{"bool": map[string]any{"filter": filters}}
}

// shards says how much of an index an answer is of.
type shards struct {
	Failed int `json:"failed"`
}

func (s shards) whole(name string) error {
	if s.Failed > 0 {
		return fmt.Errorf("elastic: %d shards of %s did not answer: any count would be too low", s.Failed, name)
	}
	return nil
}

// answered is what an answer to a search says of itself.
type answered struct {
	TimedOut bool   `json:"timed_out"`
	Shards   shards `json:"_shards"`
}

func (a answered) whole(name string) error {
	if a.TimedOut {
		return fmt.Errorf("elastic: %s ran out of time: any count would be too low", name)
	}
	return a.Shards.whole(name)
}

// ask sends a question and reads the answer, a few times if need be.
func (s *Sink) ask(ctx context.Context, method, path string, question, answer any) error {
	var body []byte
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return err
		}
	}
	for attempt := range askAttempts {
		err := s.askOnce(ctx, method, path, body, answer)
		if err == nil || myrmidon.IsPermanent(err) || attempt == askAttempts-1 {
			return err
		}
		select {
		case <-time.After(max(time.Second<<attempt, myrmidon.AsFailure(err).After)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *Sink) askOnce(ctx context.Context, method, path string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.name+path, bytes.NewReader(body))
	if err != nil {
		return myrmidon.Permanent(fmt.Errorf("elastic: %s: %w", s.name, err))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if s.auth != "" {
		req.Header.Set("Authorization", s.auth)
	}
	s.requests.Add(1)
	resp, err := s.client.Do(req)
	if err != nil {
		return s.broken(ctx, err)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return s.broken(ctx, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		if err := json.Unmarshal(data, answer); err != nil {
			return fmt.Errorf("elastic: %s answers what is no answer to %s: %w", s.name, path, err)
		}
		return nil
	}
	err = s.refused(resp, data)
	var refused *tooMuch
	switch code := resp.StatusCode; {
	case errors.As(err, &refused):
		return myrmidon.Permanent(refused.err)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%w: %w", ErrDenied, err),
			"set ELASTICSEARCH_API_KEY, or ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD, of somebody with the privileges read and view_index_metadata on the index"))
	case code == http.StatusNotFound:
		return myrmidon.Permanent(myrmidon.WithHint(err, "look at the name: there is no such index, alias or data stream"))
	}
	return err
}
