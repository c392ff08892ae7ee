package sinkfault

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Call is what a server does with one request. The zero value answers as it should.
type Call struct {
	// Status, if not 0, is the answer, with Error as its type and nothing taken.
	Status int
	Error  string
	// RetryAfter is sent with Status, in seconds, if it is above 0.
	RetryAfter int
	// Lose takes what was sent, and then breaks the connection without an answer.
	Lose bool
	// Late is how long the answer takes.
	Late time.Duration
	// Shards is how many shards do not take part in a search.
	Shards int
	// Item, unless it is nil, says what becomes of one item: "" is what should, else it is
	// the error of that item, which is not taken. Bulk wants a status before it, as in
	// "429 es_rejected_execution_exception".
	Item func(index int, doc string) string
}

// Bulk is the part of Elasticsearch that takes POST /<index>/_bulk with the action create, by
// its rules: a document is stored once under its _id, the next with the same gets 409; what is
// no JSON object gets 400. It also answers _refresh, _field_caps, _count, and _search with one
// composite aggregation. Source: Elasticsearch's reference, "Bulk API".
type Bulk struct {
	Kept
	// MaxBytes is the size of a request that gets 413 where it is above 0, unpacked.
	MaxBytes int
	// Authorization, if not "", is what the header has to hold.
	Authorization string
	// Keywords are fields that are mapped as keywords; others are mapped as a server does by
	// itself: see search.go.
	Keywords []string

	script func(request int) Call

	mu       sync.Mutex
	requests int
	ids      map[string]bool
	visible  []string // documents that a search finds
}

// NewBulk returns the handler. script, unless it is nil, says what happens to each request,
// counted from 0.
func NewBulk(script func(request int) Call) *Bulk {
	return &Bulk{script: script, ids: make(map[string]bool)}
}

// Requests returns how many have come.
func (s *Bulk) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *Bulk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	number := s.requests
	s.requests++
	s.mu.Unlock()
	var c Call
	if s.script != nil {
		c = s.script(number)
	}
	body, err := bodyOf(r)
	switch {
	case err != nil:
		bulkError(w, 400, "parse_exception")
		return
	case s.Authorization != "" && r.Header.Get("Authorization") != s.Authorization:
		bulkError(w, 401, "security_exception")
		return
	case !strings.HasSuffix(r.URL.Path, "/_bulk"):
		s.search(w, r, c, body)
		return
	case r.Method != http.MethodPost:
		bulkError(w, 405, "method_not_allowed")
		return
	case r.Header.Get("Content-Type") != "application/x-ndjson":
		bulkError(w, 406, "content_type_header_exception")
		return
	case s.MaxBytes > 0 && len(body) > s.MaxBytes:
		bulkError(w, 413, "content_too_long_exception")
		return
	}
	time.Sleep(c.Late)
	if c.Status != 0 {
		if c.RetryAfter > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(c.RetryAfter))
		}
		bulkError(w, c.Status, c.Error)
		return
	}
	answer, ok := s.take(body, c.Item)
	switch {
	case c.Lose:
		panic(http.ErrAbortHandler)
	case !ok:
		bulkError(w, 400, "illegal_argument_exception")
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer) // the client has gone, if that fails
	}
}

func bodyOf(r *http.Request) ([]byte, error) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(r.Body); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(body)
}

func bulkError(w http.ResponseWriter, status int, kind string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"error":{"type":%q,"reason":"by the script, or the rules"},"status":%d}`, kind, status)
}

// take stores what can be stored, and returns the answer.
func (s *Bulk) take(body []byte, item func(int, string) string) ([]byte, bool) {
	if len(body) == 0 || body[len(body)-1] != '\n' {
		return nil, false
	}
	lines := bytes.Split(body[:len(body)-1], []byte("\n"))
	if len(lines)%2 != 0 {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	errors := false
	var items []string
	for i := 0; i < len(lines); i += 2 {
		var action struct {
			Create *struct {
				ID *string `json:"_id"`
			} `json:"create"`
		}
		if json.Unmarshal(lines[i], &action) != nil || action.Create == nil {
			return nil, false
		}
		id, doc := "", string(lines[i+1])
		if action.Create.ID != nil {
			id = *action.Create.ID
		}
		problem := ""
		if item != nil {
			problem = item(i/2, doc)
		}
		var object map[string]any
		switch {
		case problem != "":
		case len(id) > 512:
			problem = "400 illegal_argument_exception"
		case json.Unmarshal(lines[i+1], &object) != nil:
			problem = "400 document_parsing_exception"
		case id != "" && s.ids[id]:
			problem = "409 version_conflict_engine_exception"
		default:
			s.ids[id] = id != ""
			s.add(doc)
			items = append(items, `{"create":{"status":201}}`)
			continue
		}
		errors = true
		status, kind, _ := strings.Cut(problem, " ")
		items = append(items, fmt.Sprintf(`{"create":{"status":%s,"error":{"type":%q,"reason":"by the script, or the rules"}}}`, status, kind))
	}
	return fmt.Appendf(nil, `{"errors":%v,"items":[%s]}`, errors, strings.Join(items, ",")), true
}
