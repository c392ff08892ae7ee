package sinkfault

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Kinesis is the part of Amazon Kinesis that takes PutRecords, by its limits. Source: Kinesis
// Data Streams API reference, PutRecords. Signatures are looked for, not at.
type Kinesis struct {
	Kept
	Stream string // any other does not exist

	script func(request int) Call

	mu       sync.Mutex
	requests int
	keys     []string
	tokens   []string
}

// NewKinesis returns the handler. script, unless it is nil, says what happens to each request,
// counted from 0; Call.Item returns the ErrorCode of a record.
func NewKinesis(stream string, script func(request int) Call) *Kinesis {
	return &Kinesis{Stream: stream, script: script}
}

// Requests returns how many have come.
func (s *Kinesis) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Keys returns the partition keys of what was taken, in the order of [Kept.Received].
func (s *Kinesis) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.keys...)
}

// Tokens returns the session tokens of all requests, in order.
func (s *Kinesis) Tokens() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.tokens...)
}

func (s *Kinesis) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	number := s.requests
	s.requests++
	s.tokens = append(s.tokens, r.Header.Get("X-Amz-Security-Token"))
	s.mu.Unlock()
	var c Call
	if s.script != nil {
		c = s.script(number)
	}
	var in struct {
		StreamName string
		Records    []putRecord
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	size, problem := 0, ""
	for _, rec := range in.Records {
		n := len(rec.Data) + len(rec.PartitionKey)
		if size += n; n > 1<<20 || rec.PartitionKey == "" || len([]rune(rec.PartitionKey)) > 256 {
			problem = "ValidationException"
		}
	}
	switch {
	case !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="):
		problem = "MissingAuthenticationTokenException"
	case r.Header.Get("X-Amz-Target") != "Kinesis_20131202.PutRecords" || r.Header.Get("Content-Type") != "application/x-amz-json-1.1":
		problem = "UnknownOperationException"
	case err != nil:
		problem = "SerializationException"
	case len(in.Records) == 0 || len(in.Records) > 500 || size > 5<<20:
		problem = "ValidationException"
	case problem == "" && in.StreamName != s.Stream:
		problem = "ResourceNotFoundException"
	}
	time.Sleep(c.Late)
	if problem != "" || c.Status != 0 {
		status := 400
		if problem == "" {
			problem, status = c.Error, c.Status
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"__type":"com.amazonaws.kinesis.v20131202#%s","message":"by the script, or the limits"}`, problem)
		return
	}
	out := s.take(number, in.Records, c.Item)
	if c.Lose {
		panic(http.ErrAbortHandler)
	}
	answer, err := json.Marshal(out)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_, _ = w.Write(answer) // the client has gone, if that fails
}

type putRecord struct {
	Data         []byte
	PartitionKey string
}

type putAnswer struct {
	FailedRecordCount int
	Records           []map[string]string
}

// take keeps what the script lets through.
func (s *Kinesis) take(number int, records []putRecord, item func(int, string) string) putAnswer {
	var out putAnswer
	for i, rec := range records {
		problem := ""
		if item != nil {
			problem = item(i, string(rec.Data))
		}
		if problem != "" {
			out.FailedRecordCount++
			out.Records = append(out.Records, map[string]string{"ErrorCode": problem, "ErrorMessage": "by the script"})
			continue
		}
		s.add(string(rec.Data))
		s.mu.Lock()
		s.keys = append(s.keys, rec.PartitionKey)
		s.mu.Unlock()
		out.Records = append(out.Records, map[string]string{"SequenceNumber": fmt.Sprint(number, i), "ShardId": "shardId-000000000000"})
	}
	return out
}
