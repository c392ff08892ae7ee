package s3

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"

	"myrmidon/object"
)

// Stats counts what was sent to a bucket, failed attempts included, by all stores that
// share it.
type Stats struct {
	Writes    int64 `json:"writes"`    // PUT, COPY, POST and LIST requests, billed as such
	Reads     int64 `json:"reads"`     // GET and HEAD requests of objects
	Throttled int64 `json:"throttled"` // answers 429 and 503
	Stalled   int64 `json:"stalled"`   // connections that stood still
	Resumed   int64 `json:"resumed"`   // bodies that broke off and were resumed
	Sent      int64 `json:"sent_bytes"`
	Received  int64 `json:"received_bytes"`

	// The same requests, by what they ask for.
	Lists      int64 `json:"lists"`
	Heads      int64 `json:"heads"`
	Gets       int64 `json:"gets"`
	Puts       int64 `json:"puts"` // of objects and of their parts
	Copies     int64 `json:"copies"`
	PartCopies int64 `json:"part_copies"`
	Deletes    int64 `json:"deletes"` // of objects, one by one or by the thousand
	Others     int64 `json:"others"`  // beginning, completing and aborting uploads; tags

	Retried int64 `json:"retried"` // attempts after the first
	Spent   int64 `json:"spent"`   // attempts not made since the budget for them was used up
}

// verb is what a request asks for.
type verb int

const (
	isList verb = iota
	isHead
	isGet
	isPut
	isCopy
	isPartCopy
	isDelete
	isOther
	verbs // how many there are
)

type counts struct {
	writes, reads, throttled, stalled, resumed, sent, received, retried, spent atomic.Int64

	by [verbs]atomic.Int64
}

// Stats returns the counts so far.
func (s *Store) Stats() Stats {
	c := &s.counts
	return Stats{
		Writes: c.writes.Load(), Reads: c.reads.Load(), Throttled: c.throttled.Load(), Stalled: c.stalled.Load(),
		Resumed: c.resumed.Load(), Sent: c.sent.Load(), Received: c.received.Load(),
		Lists: c.by[isList].Load(), Heads: c.by[isHead].Load(), Gets: c.by[isGet].Load(), Puts: c.by[isPut].Load(),
		Copies: c.by[isCopy].Load(), PartCopies: c.by[isPartCopy].Load(), Deletes: c.by[isDelete].Load(), Others: c.by[isOther].Load(),
		Retried: c.retried.Load(), Spent: c.spent.Load(),
	}
}

// count counts a request, also in its class of the price list (Amazon S3 pricing,
// "Requests and data retrievals"): a listing costs as much as a PUT, and a DELETE nothing.
func (c *counts) count(method string, v verb) {
	c.by[v].Add(1)
	switch {
	case v == isList, method == http.MethodPut, method == http.MethodPost:
		c.writes.Add(1)
	case method != http.MethodDelete:
		c.reads.Add(1)
	}
}

// tell tells the account of ctx of a request.
func tell(ctx context.Context, method string, v verb) {
	a := object.AccountOf(ctx)
	if a == nil {
		return
	}
	if v == isOther {
		switch method {
		case http.MethodDelete: // of an upload
			a.Sent(object.VerbDelete)
		case http.MethodGet, http.MethodHead: // of tags
			a.Sent(object.VerbGet)
		default:
			a.Sent(object.VerbPost)
		}
		return
	}
	a.Sent([...]object.Verb{
		isList: object.VerbList, isHead: object.VerbHead, isGet: object.VerbGet, isPut: object.VerbPut,
		isCopy: object.VerbCopy, isPartCopy: object.VerbPartCopy, isDelete: object.VerbDelete,
	}[v])
}

// verbOf returns what a request of the SDK asks for.
func verbOf(req *http.Request) verb {
	query := req.URL.RawQuery
	has := func(name string) bool { return strings.HasPrefix(query, name) || strings.Contains(query, "&"+name) }
	copied := req.Header["X-Amz-Copy-Source"] != nil
	switch {
	case req.Method == http.MethodGet && has("list-type="):
		return isList
	case has("tagging"), has("uploads"):
		return isOther
	case req.Method == http.MethodHead:
		return isHead
	case req.Method == http.MethodGet:
		return isGet
	case req.Method == http.MethodPut && has("partNumber=") && copied:
		return isPartCopy
	case req.Method == http.MethodPut && copied:
		return isCopy
	case req.Method == http.MethodPut:
		return isPut
	case req.Method == http.MethodPost && has("delete"), req.Method == http.MethodDelete && !has("uploadId="):
		return isDelete
	}
	return isOther
}
