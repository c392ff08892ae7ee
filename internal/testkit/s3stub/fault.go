package s3stub

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Request is what a fault is chosen by. It is to be read only, and only until the
// choice is made.
type Request struct {
	Verb      Verb
	Bucket    string
	Key       string
	Seq       int64 // 1 for the first request since the start or the last Reset
	OfVerb    int64 // the same among the requests of its verb
	AccessKey string
	Header    http.Header
	RawQuery  string
	Size      int64 // bytes of the body, decoded
}

// Fault is how a request goes wrong. The request has been read whole by then, whether
// or not it is a good one.
type Fault struct {
	// Status is answered instead, with Code and Message. Where those are empty they are
	// S3's for that status: SlowDown for 503, InternalError for 500.
	Status  int
	Code    string
	Message string
	// Header is added to the answer: Retry-After, for example.
	Header map[string]string
	// InBody sends the error with status 200, as CopyObject, UploadPartCopy and
	// CompleteMultipartUpload do when they fail late. Status is then only for Code.
	InBody bool
	// Reset resets the connection instead of answering.
	Reset bool
	// After lets the effect take place before Status or Reset: the answer is lost.
	After bool
	// Delay is waited before anything else, beside the verb's latency.
	Delay time.Duration
	// Cut closes the connection after so many bytes of the answer's body; a negative
	// one after the headers.
	Cut int64
	// Page changes a listing before it is written.
	Page func(*Page)
}

var noFault Fault

// Inject sets what chooses faults: it is called for each request and returns nil for
// those that go well. It may be called from many goroutines. nil ends all faults.
func (s *Server) Inject(choose func(Request) *Fault) {
	if choose == nil {
		s.inject.Store(nil)
		return
	}
	s.inject.Store(&choose)
}

// fault returns the request's fault, which is not nil.
func (c *call) fault(t *tally) *Fault {
	choose := c.s.inject.Load()
	if choose == nil {
		return &noFault
	}
	f := (*choose)(Request{
		Verb: c.verb, Bucket: c.bucket, Key: c.key, Seq: c.seq, OfVerb: c.nth, AccessKey: c.access,
		Header: c.r.Header, RawQuery: c.r.URL.RawQuery, Size: int64(len(c.body)),
	})
	if f == nil {
		return &noFault
	}
	t.injected.Add(1)
	return f
}

// replaces reports whether the answer is another one.
func (f *Fault) replaces() bool { return f.Status != 0 || f.Code != "" || f.Reset }

func (f *Fault) error() *apiError {
	status, code, message := f.Status, f.Code, f.Message
	if status == 0 {
		status = http.StatusInternalServerError
	}
	if code == "" {
		code = codes[status]
	}
	if code == "" {
		code = "InternalError"
	}
	if message == "" {
		message = messages[code]
	}
	if message == "" {
		message = http.StatusText(status)
	}
	return failed(status, code, message)
}

// First returns a chooser that gives f to the first n requests of the verbs (of all, if
// none is given).
func First(n int, f Fault, which ...Verb) func(Request) *Fault {
	return nthOf(f, which, func(i int64) bool { return i <= int64(n) })
}

// Nth returns a chooser that gives f to the nth request of the verbs only, counted from
// 1.
func Nth(n int, f Fault, which ...Verb) func(Request) *Fault {
	return nthOf(f, which, func(i int64) bool { return i == int64(n) })
}

// Every returns a chooser that gives f to each kth request of the verbs, k > 0.
func Every(k int, f Fault, which ...Verb) func(Request) *Fault {
	return nthOf(f, which, func(i int64) bool { return i%int64(k) == 0 })
}

// Rate returns a chooser that gives f to a share of the verbs' requests, from 0 to 1.
// The same seed chooses the same numbers.
func Rate(seed uint64, share float64, f Fault, which ...Verb) func(Request) *Fault {
	return nthOf(f, which, func(i int64) bool { return rand.New(rand.NewPCG(seed, uint64(i))).Float64() < share })
}

// nthOf counts the verbs' requests from 1 on.
func nthOf(f Fault, which []Verb, chosen func(int64) bool) func(Request) *Fault {
	var n atomic.Int64
	return func(r Request) *Fault {
		if (len(which) == 0 || slices.Contains(which, r.Verb)) && chosen(n.Add(1)) {
			return &f
		}
		return nil
	}
}

// Any returns a chooser that takes the first fault that one of the choosers gives. All
// of them are asked, so that each counts on.
func Any(choosers ...func(Request) *Fault) func(Request) *Fault {
	return func(r Request) *Fault {
		var out *Fault
		for _, choose := range choosers {
			if f := choose(r); out == nil {
				out = f
			}
		}
		return out
	}
}

// Page is a page of a listing before it is written.
type Page struct {
	Prefix    string
	After     string // the page begins behind this key
	Entries   []Entry
	Prefixes  []string // common prefixes
	Truncated bool
	Next      string // the key that the next page begins behind, if Truncated
}

// Entry is an object in a listing.
type Entry struct {
	Key  string
	Size int64
	ETag string

	object *object
}

// RepeatKey lists the page's object i twice, one after the other.
func RepeatKey(i int) func(*Page) {
	return func(p *Page) {
		if i < len(p.Entries) {
			p.Entries = slices.Insert(p.Entries, i, p.Entries[i])
		}
	}
}

// SkipKey leaves the page's object i out.
func SkipKey(i int) func(*Page) {
	return func(p *Page) {
		if i < len(p.Entries) {
			p.Entries = slices.Delete(p.Entries, i, i+1)
		}
	}
}

// SwapKeys lists the page's objects i and j in each other's place.
func SwapKeys(i, j int) func(*Page) {
	return func(p *Page) {
		if i < len(p.Entries) && j < len(p.Entries) {
			p.Entries[i], p.Entries[j] = p.Entries[j], p.Entries[i]
		}
	}
}

// ClaimTruncated says that more follows, or that nothing does, whatever is true.
func ClaimTruncated(is bool) func(*Page) {
	return func(p *Page) {
		p.Truncated = is
		if n := len(p.Entries); is && p.Next == "" && n > 0 {
			p.Next = p.Entries[n-1].Key
		}
	}
}

// RepeatPage makes the next page this one again.
func RepeatPage() func(*Page) {
	return func(p *Page) { p.Truncated, p.Next = true, p.After }
}
