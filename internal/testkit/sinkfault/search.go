package sinkfault

import (
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"sort"
	"strings"
	"time"
)

// ignoreAbove is how long a text may be, in characters, that is kept as a keyword too where a
// field was mapped by the first document. Source: Elasticsearch's reference, "Dynamic field
// mapping".
const ignoreAbove = 256

// search answers what is not a bulk request. What was stored is found after a _refresh, not
// before, as if the index had no refresh of its own.
func (s *Bulk) search(w http.ResponseWriter, r *http.Request, c Call, body []byte) {
	time.Sleep(c.Late)
	if c.Status != 0 {
		bulkError(w, c.Status, c.Error)
		return
	}
	if c.Lose {
		panic(http.ErrAbortHandler)
	}
	shards := map[string]int{"total": 1 + c.Shards, "successful": 1, "skipped": 0, "failed": c.Shards}
	var answer any
	status, problem := 200, ""
	switch path.Base(r.URL.Path) {
	case "_refresh":
		s.mu.Lock()
		s.visible = s.Received()
		s.mu.Unlock()
		answer = map[string]any{"_shards": shards}
	case "_field_caps":
		answer = s.capabilities(strings.Split(r.URL.Query().Get("fields"), ","))
	case "_count":
		var docs []map[string]any
		docs, problem = s.chosen(body)
		answer = map[string]any{"count": len(docs), "_shards": shards}
	case "_search":
		if c.Shards > 0 && r.URL.Query().Get("allow_partial_search_results") == "false" {
			status, problem = 503, "search_phase_execution_exception"
			break
		}
		answer, problem = s.aggregate(body, shards)
	default:
		status, problem = 405, "method_not_allowed"
	}
	if problem != "" {
		if status == 200 {
			status = 400
		}
		bulkError(w, status, problem)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the client has gone, if that fails
}

// documents are those that a search finds.
func (s *Bulk) documents() []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]map[string]any, len(s.visible))
	for i, text := range s.visible {
		_ = json.Unmarshal([]byte(text), &out[i]) // it was stored as JSON
	}
	return out
}

func (s *Bulk) capabilities(asked []string) any {
	fields := map[string]any{}
	add := func(name, kind string) {
		fields[name] = map[string]any{kind: map[string]any{"type": kind, "metadata_field": false, "searchable": true, "aggregatable": kind == "keyword"}}
	}
	for _, name := range asked {
		field, sub := strings.CutSuffix(name, ".keyword")
		known := slices.ContainsFunc(s.documents(), func(d map[string]any) bool { _, ok := d[field].(string); return ok })
		switch keyword := slices.Contains(s.Keywords, field); {
		case !known || keyword && sub:
		case keyword || sub:
			add(name, "keyword")
		default:
			add(name, "text")
		}
	}
	return map[string]any{"indices": []string{"alb"}, "fields": fields}
}

// keyword is the text of a field that is kept as it is.
func (s *Bulk) keyword(doc map[string]any, name string) (string, bool) {
	field, sub := strings.CutSuffix(name, ".keyword")
	text, ok := doc[field].(string)
	if slices.Contains(s.Keywords, field) {
		return text, ok && !sub
	}
	return text, ok && sub && len([]rune(text)) <= ignoreAbove
}

// chosen returns the documents of a query: bool filters of prefix, term and range.
func (s *Bulk) chosen(body []byte) (out []map[string]any, problem string) {
	var said struct {
		Query struct {
			Bool struct {
				Filter []map[string]json.RawMessage `json:"filter"`
			} `json:"bool"`
		} `json:"query"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, "parsing_exception"
	}
	for _, doc := range s.documents() {
		takes := true
		for _, filter := range said.Query.Bool.Filter {
			for kind, raw := range filter {
				var ok bool
				switch kind {
				case "prefix", "term":
					ok = s.text(doc, raw, kind == "prefix")
				case "range":
					ok = within(doc, raw)
				default:
					return nil, "parsing_exception"
				}
				takes = takes && ok
			}
		}
		if takes {
			out = append(out, doc)
		}
	}
	return out, ""
}

func (s *Bulk) text(doc map[string]any, raw json.RawMessage, prefix bool) bool {
	var want map[string]string
	if json.Unmarshal(raw, &want) != nil {
		return false
	}
	for field, value := range want {
		text, ok := s.keyword(doc, field)
		if !ok || prefix && !strings.HasPrefix(text, value) || !prefix && text != value {
			return false
		}
	}
	return true
}

// within compares dates by milliseconds, as an index keeps them.
func within(doc map[string]any, raw json.RawMessage) bool {
	var want map[string]struct {
		From string `json:"gte"`
		To   string `json:"lt"`
	}
	if json.Unmarshal(raw, &want) != nil {
		return false
	}
	for field, span := range want {
		text, _ := doc[field].(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		at = at.Truncate(time.Millisecond)
		from, fromErr := time.Parse(time.RFC3339Nano, span.From)
		to, toErr := time.Parse(time.RFC3339Nano, span.To)
		if err != nil || span.From != "" && (fromErr != nil || at.Before(from)) || span.To != "" && (toErr != nil || !at.Before(to)) {
			return false
		}
	}
	return true
}

// aggregate answers a composite aggregation of one source.
func (s *Bulk) aggregate(body []byte, shards map[string]int) (answer any, problem string) {
	var said struct {
		Aggs map[string]struct {
			Composite struct {
				Size    int               `json:"size"`
				After   map[string]string `json:"after"`
				Sources []map[string]struct {
					Terms struct {
						Field string `json:"field"`
					} `json:"terms"`
				} `json:"sources"`
			} `json:"composite"`
		} `json:"aggs"`
	}
	if err := json.Unmarshal(body, &said); err != nil || len(said.Aggs) != 1 {
		return nil, "parsing_exception"
	}
	docs, problem := s.chosen(body)
	if problem != "" {
		return nil, problem
	}
	aggregations := map[string]any{}
	for name, agg := range said.Aggs {
		c := agg.Composite
		if c.Size < 1 || len(c.Sources) != 1 {
			return nil, "parsing_exception"
		}
		for key, source := range c.Sources[0] {
			field, sub := strings.CutSuffix(source.Terms.Field, ".keyword")
			if !sub && !slices.Contains(s.Keywords, field) {
				return nil, "search_phase_execution_exception" // fielddata is disabled on text
			}
			counts := map[string]int{}
			for _, doc := range docs {
				if text, ok := s.keyword(doc, source.Terms.Field); ok && (c.After == nil || text > c.After[key]) {
					counts[text]++
				}
			}
			aggregations[name] = bucketsOf(key, counts, c.Size)
		}
	}
	return map[string]any{
		"took": 1, "timed_out": false, "_shards": shards,
		"hits":         map[string]any{"max_score": nil, "hits": []any{}},
		"aggregations": aggregations,
	}, ""
}

func bucketsOf(key string, counts map[string]int, size int) any {
	var values []string
	for v := range counts {
		values = append(values, v)
	}
	sort.Strings(values)
	values = values[:min(size, len(values))]
	buckets := []any{}
	for _, v := range values {
		buckets = append(buckets, map[string]any{"key": map[string]string{key: v}, "doc_count": counts[v]})
	}
	out := map[string]any{"buckets": buckets}
	if len(values) > 0 {
		out["after_key"] = map[string]string{key: values[len(values)-1]}
	}
	return out
}
